#include "ops/segments.h"

#include <algorithm>

#include "base/check.h"

namespace ferry::ops {

Segments Segments::packed(std::span<const int32_t> lengths, Device& device) {
  std::vector<int32_t> position, key_begin;
  for (const int32_t length : lengths) {
    check(length > 0, "segments: a document of {} tokens", length);
    const auto begin = static_cast<int32_t>(position.size());
    for (int32_t i = 0; i < length; ++i) {
      position.push_back(i);
      key_begin.push_back(begin);
    }
  }
  return cached(std::move(position), std::move(key_begin), device);
}

Segments Segments::cached(std::vector<int32_t> position,
                          std::vector<int32_t> key_begin,
                          Device& device) {
  return paged(std::move(position), std::move(key_begin), {}, device);
}

Segments Segments::paged(std::vector<int32_t> position,
                         std::vector<int32_t> key_begin,
                         std::vector<int32_t> pages,
                         Device& device) {
  check(position.size() == key_begin.size(),
        "segments: {} positions, {} key rows",
        position.size(),
        key_begin.size());
  const auto least = [](const std::vector<int32_t>& v) {
    return v.empty() ? 0 : *std::min_element(v.begin(), v.end());
  };
  check(least(position) >= 0 && least(key_begin) >= 0 && least(pages) >= 0,
        "segments: a token at position {}, keys from row {}, page {}",
        least(position),
        least(key_begin),
        least(pages));
  const Shape shape = {static_cast<int64_t>(position.size())};
  Segments s;
  s.position = Tensor::from_i32(position, shape, device);
  s.key_begin = Tensor::from_i32(key_begin, shape, device);
  if (!pages.empty())
    s.pages = Tensor::from_i32(pages, {static_cast<int64_t>(pages.size())}, device);
  const int64_t longest =
      position.empty() ? 0 : int64_t{*std::max_element(position.begin(), position.end())} + 1;
  s.host = std::make_shared<const HostSegments>(
      HostSegments{std::move(position), std::move(key_begin), std::move(pages), longest});
  return s;
}

}  // namespace ferry::ops
