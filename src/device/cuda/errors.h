// What the codes of the CUDA driver mean to a person.
#pragma once

#include <cstdint>
#include <string>

#include "device/error_codes.h"

namespace ferry::cuda {

/// The entry of a code, or nullptr for one that is not known.
const ErrorMeaning* meaning_of(int64_t code);

/// "700 ILLEGAL_ADDRESS: a kernel ..."; of an unknown code the number alone, said so.
std::string describe_code(int64_t code);

}  // namespace ferry::cuda
