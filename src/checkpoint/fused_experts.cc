#include "checkpoint/fused_experts.h"

#include <fmt/format.h>

#include <string_view>

namespace ferry {
namespace {

constexpr std::string_view kGateUp = ".mlp.experts.gate_up_proj";
constexpr std::string_view kDown = ".mlp.experts.down_proj";

}  // namespace

std::vector<TensorInfo> experts_in(const TensorInfo& fused) {
  const std::string_view name = fused.name;
  const bool both = name.ends_with(kGateUp);
  const Shape& shape = fused.shape;
  if ((!both && !name.ends_with(kDown)) || shape.rank() != 3 || shape.count() == 0 ||
      shape[0] > kExpertsStoredMax || (both && shape[1] % 2 != 0))
    return {};
  const std::string_view layer = name.substr(0, name.rfind('.'));
  const std::vector<std::string_view> parts =
      both ? std::vector<std::string_view>{"gate_proj", "up_proj"}
           : std::vector<std::string_view>{"down_proj"};
  const Shape matrix{shape[1] / std::ssize(parts), shape[2]};
  const uint64_t bytes = static_cast<uint64_t>(matrix.count()) * size_of(fused.dtype);
  std::vector<TensorInfo> experts;
  uint64_t begin = fused.begin;
  for (int64_t e = 0; e < shape[0]; ++e)
    for (const std::string_view part : parts) {
      experts.push_back({.name = fmt::format("{}.{}.{}.weight", layer, e, part),
                         .dtype = fused.dtype,
                         .shape = matrix,
                         .begin = begin,
                         .end = begin + bytes});
      begin += bytes;
    }
  return experts;
}

}  // namespace ferry
