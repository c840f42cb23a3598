#include "tensor/weight.h"

#include "base/check.h"

namespace ferry {
namespace {

int64_t ceil_div(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

}  // namespace

Shape ScaleBlocks::scales_of(const Shape& codes) const {
  Shape shape = codes;
  const int rank = codes.rank();
  shape[rank - 2] = ceil_div(codes[rank - 2], rows);
  shape[rank - 1] = ceil_div(codes[rank - 1], columns);
  return shape;
}

void Weight::store(Tensor codes, Tensor codes_scales, const ScaleBlocks& of_scales) {
  value = std::move(codes);
  scales = std::move(codes_scales);
  blocks = of_scales;
  check_stored();
  changed();
}

void Weight::store_as(const Weight& other) { store(other.value, other.scales, other.blocks); }

void Weight::check_stored() const {
  check(value.defined(), "{}: has no values yet", name);
  if (!scaled()) {
    check(value.dtype() == DType::kF32 || value.dtype() == DType::kBF16,
          "{}: is stored as {} without scales",
          name,
          to_string(value.dtype()));
    return;
  }
  check(matrix() && value.dtype() == DType::kF8E4M3 && blocks == kF8Blocks,
        "{}: is stored as {} with scales for {} x {}",
        name,
        to_string(value.dtype()),
        blocks.rows,
        blocks.columns);
  check(scales.dtype() == DType::kF32 && scales.shape() == blocks.scales_of(value.shape()),
        "{}: scales {} {} for {}",
        name,
        to_string(scales.dtype()),
        scales.shape().str(),
        value.shape().str());
}

}  // namespace ferry
