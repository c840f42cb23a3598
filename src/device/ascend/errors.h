// What the codes of the Ascend runtime and of aclnn mean to a person.
#pragma once

#include <cstdint>
#include <string>

#include "device/error_codes.h"

namespace ferry::acl {

/// The entry of a code, or nullptr for one that is not known.
const ErrorMeaning* meaning_of(int64_t code);

/// "507015 AICORE_EXCEPTION: a matrix core ..."; of an unknown code the number alone, said so.
std::string describe_code(int64_t code);

}  // namespace ferry::acl
