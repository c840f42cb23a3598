#include "ops/quantized_linear/quantized_weight.h"

namespace ferry::ops {

Weight quantized_weight(WeightCodes kind,
                        const Shape& shape,
                        const std::vector<int32_t>& codes,
                        const std::vector<float>& scales,
                        Device& device) {
  const int rank = shape.rank();
  const int64_t matrices = rank == 3 ? shape[0] : 1;
  const CodePanels l{bits_of(kind), shape[rank - 2], shape[rank - 1]};
  const int64_t panel_scales = l.groups() * kPanelRows;
  std::vector<uint8_t> bytes(static_cast<size_t>(matrices * l.bytes()));
  std::vector<float> placed(static_cast<size_t>(matrices * l.panels() * panel_scales), 1);
  std::vector<int8_t> row(static_cast<size_t>(l.columns));
  for (int64_t m = 0; m < matrices; ++m) {
    uint8_t* const to = bytes.data() + m * l.bytes();
    clear_codes(l, to);
    for (int64_t r = 0; r < l.rows; ++r) {
      const int64_t at = m * l.rows + r;
      for (int64_t c = 0; c < l.columns; ++c)
        row[static_cast<size_t>(c)] =
            static_cast<int8_t>(codes[static_cast<size_t>(at * l.columns + c)]);
      put_codes(l, r, row.data(), to);
      for (int64_t g = 0; g < l.groups(); ++g)
        placed[static_cast<size_t>((m * l.panels() + r / kPanelRows) * panel_scales +
                                   g * kPanelRows + r % kPanelRows)] =
            scales[static_cast<size_t>(at * l.groups() + g)];
    }
  }
  const bool int8 = kind == WeightCodes::kInt8;
  Tensor panels = Tensor::empty(
      {matrices, l.panels(), l.panel_bytes()}, int8 ? DType::kI8 : DType::kU8, device);
  panels.copy_bytes_from(bytes.data());
  Tensor of_panels = Tensor::empty(
      {matrices, l.panels(), l.groups(), kPanelRows}, int8 ? DType::kF32 : DType::kBF16, device);
  of_panels.assign_f32(placed);
  Weight w{.name = "w", .global_shape = shape, .shard = {}};
  w.store_codes(kind, std::move(panels), std::move(of_panels));
  return w;
}

}  // namespace ferry::ops
