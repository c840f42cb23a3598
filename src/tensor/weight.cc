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

DType code_panels_dtype(const CodePanels& layout) {
  return layout.bits() == 8 ? DType::kI8 : DType::kU8;
}

Shape code_panels_shape(const CodePanels& layout, int64_t matrices) {
  return {matrices, layout.panels(), layout.panel_bytes()};
}

DType code_scales_dtype(WeightCodes codes) {
  return codes == WeightCodes::kInt8   ? DType::kF32
         : codes == WeightCodes::kInt4 ? DType::kBF16
                                       : DType::kU8;
}

Shape code_scales_shape(const CodePanels& layout, int64_t matrices) {
  if (code_scales_dtype(layout.codes) == DType::kU8)
    return {matrices, layout.panels(), layout.panel_scale_bytes()};
  return {matrices, layout.panels(), layout.groups(), kPanelRows};
}

CodePanels Weight::panels() const {
  const int rank = global_shape.rank();
  return {*codes(), global_shape[rank - 2], global_shape[rank - 1]};
}

PairPanels Weight::pair_panels() const {
  const int rank = global_shape.rank();
  return {global_shape[rank - 2], global_shape[rank - 1]};
}

void Weight::store_pairs(Tensor pairs) {
  value = std::move(pairs);
  scales = {};
  blocks = {};
  coded.reset();
  paired = true;
  check_stored();
  changed();
}

void Weight::store_codes(WeightCodes kind, Tensor panels, Tensor panel_scales) {
  value = std::move(panels);
  scales = std::move(panel_scales);
  coded = kind;
  paired = false;
  blocks = {1, this->panels().group()};
  check_stored();
  changed();
}

void Weight::store(Tensor codes, Tensor codes_scales, const ScaleBlocks& of_scales) {
  value = std::move(codes);
  scales = std::move(codes_scales);
  blocks = of_scales;
  coded.reset();
  paired = false;
  check_stored();
  changed();
}

void Weight::store_as(const Weight& other) {
  if (other.codes())
    store_codes(*other.codes(), other.value, other.scales);
  else if (other.paired)
    store_pairs(other.value);
  else
    store(other.value, other.scales, other.blocks);
}

void Weight::check_stored() const {
  check(value.defined(), "{}: has no values yet", name);
  if (paired) {
    check(matrix() && !scaled() && value.dtype() == DType::kI32 && value.contiguous() &&
              value.shape() == Shape{matrices(), pair_panels().count()},
          "{}: {} {} as panels of pairs of {}",
          name,
          to_string(value.dtype()),
          value.shape().str(),
          global_shape.str());
    return;
  }
  if (!scaled()) {
    check(value.dtype() == DType::kF32 || value.dtype() == DType::kBF16,
          "{}: is stored as {} without scales",
          name,
          to_string(value.dtype()));
    return;
  }
  if (const std::optional<WeightCodes> kind = codes()) {
    const CodePanels layout = panels();
    const int64_t unit = scale_unit(*kind).columns;
    check(matrix() && value.dtype() == (layout.bits() == 8 ? DType::kI8 : DType::kU8) &&
              value.contiguous() &&
              value.shape() == Shape{matrices(), layout.panels(), layout.panel_bytes()} &&
              (code_scales_dtype(*kind) != DType::kU8 || layout.columns % unit == 0),
          "{}: {} {} as {} codes of {}",
          name,
          to_string(value.dtype()),
          value.shape().str(),
          to_string(*kind),
          global_shape.str());
    check(scales.dtype() == code_scales_dtype(*kind) && scales.contiguous() &&
              scales.shape() == code_scales_shape(layout, matrices()),
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
