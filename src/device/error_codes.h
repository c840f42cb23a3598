// What vendors' error numbers mean to a person.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace ferry {

/// Who can do something about it.
enum class Fault {
  kCaller,  // the program called wrongly, or this software is another than it expects
  kMemory,  // not enough memory
  kDevice,  // the chip or a link failed
};

struct ErrorMeaning {
  int64_t code;
  const char* name;  // "AICORE_EXCEPTION"
  Fault fault;
  const char* text;  // "a matrix core met an invalid address or instruction"
};

/// The entry of a code, or nullptr for one that is not known.
const ErrorMeaning* find_meaning(std::span<const ErrorMeaning> meanings, int64_t code);

/// "507015 AICORE_EXCEPTION: a matrix core ..."; of an unknown code the number alone, said so.
std::string describe_code(std::span<const ErrorMeaning> meanings, int64_t code);

}  // namespace ferry
