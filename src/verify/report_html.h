// The doctor's report as one page of HTML: no script, nothing loaded from elsewhere, readable on
// light and dark screens and on paper.
#pragma once

#include <string>

#include "verify/doctor.h"

namespace ferry::doctor {

std::string to_html(const Report& report);

}  // namespace ferry::doctor
