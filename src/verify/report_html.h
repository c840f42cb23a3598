// The doctor's report as one page of HTML (page.h).
#pragma once

#include <string>

#include "verify/doctor.h"

namespace ferry::doctor {

std::string to_html(const Report& report);

}  // namespace ferry::doctor
