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

const char* to_string(WeightCodes codes) { return codes == WeightCodes::kInt8 ? "int8" : "int4"; }

std::optional<WeightCodes> Weight::codes() const {
  if (!scaled() || value.dtype() == DType::kF8E4M3) return std::nullopt;
  return value.dtype() == DType::kI8 ? WeightCodes::kInt8 : WeightCodes::kInt4;
}

CodePanels Weight::panels() const {
  const int rank = global_shape.rank();
  return {bits_of(*codes()), global_shape[rank - 2], global_shape[rank - 1]};
}

void Weight::store_codes(WeightCodes kind, Tensor panels, Tensor panel_scales) {
  const int64_t columns = global_shape[global_shape.rank() - 1];
  check((kind == WeightCodes::kInt8) == (panels.dtype() == DType::kI8),
        "{}: {} codes as {}",
        name,
        to_string(kind),
        to_string(panels.dtype()));
  store(std::move(panels),
        std::move(panel_scales),
        {1, kind == WeightCodes::kInt8 ? columns : kCodeGroup});
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
  if (const std::optional<WeightCodes> kind = codes()) {
    const CodePanels layout = panels();
    const int64_t matrices = global_shape.rank() == 3 ? global_shape[0] : 1;
    const bool int8 = *kind == WeightCodes::kInt8;
    check(matrix() && (int8 || value.dtype() == DType::kU8) && value.contiguous() &&
              value.shape() == Shape{matrices, layout.panels(), layout.panel_bytes()},
          "{}: {} {} as {} codes of {}",
          name,
          to_string(value.dtype()),
          value.shape().str(),
          to_string(*kind),
          global_shape.str());
    check(scales.dtype() == (int8 ? DType::kF32 : DType::kBF16) && scales.contiguous() &&
              scales.shape() == Shape{matrices, layout.panels(), layout.groups(), kPanelRows},
          "{}: scales {} {} for {} codes of {}",
          name,
          to_string(scales.dtype()),
          scales.shape().str(),
          to_string(*kind),
          global_shape.str());
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
