#include "cli/hash_progress.h"

#include <fmt/core.h>

#include <utility>

#include "base/units.h"

namespace ferry::cli {

HashedBytes shown_hashing(ProgressLine& line, std::string whose) {
  return [&line, whose = std::move(whose), hashed = uint64_t{0}](uint64_t more) mutable {
    hashed += more;
    line.show([&] {
      return fmt::format("{} of {} hashed", format_bytes(static_cast<double>(hashed)), whose);
    });
  };
}

}  // namespace ferry::cli
