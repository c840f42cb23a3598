#include "engine/draft.h"

#include <algorithm>

namespace ferry::engine {

std::vector<int32_t> draft_from_text(std::span<const int32_t> text, int64_t count) {
  for (const size_t n : {size_t{3}, size_t{2}}) {
    if (text.size() <= n) continue;
    const auto tail = text.last(n);
    for (size_t at = text.size() - n; at-- > 0;) {
      if (!std::equal(tail.begin(), tail.end(), text.begin() + static_cast<long>(at))) continue;
      const auto after = text.subspan(at + n);
      const auto guess = after.first(std::min(after.size(), static_cast<size_t>(count)));
      return {guess.begin(), guess.end()};
    }
  }
  return {};
}

}  // namespace ferry::engine
