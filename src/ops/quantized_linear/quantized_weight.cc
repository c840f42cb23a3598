#include "ops/quantized_linear/quantized_weight.h"

#include <algorithm>
#include <cmath>

namespace ferry::ops {
namespace {

CodePanels layout_of(WeightCodes kind, const Shape& shape) {
  const int rank = shape.rank();
  return {kind, shape[rank - 2], shape[rank - 1]};
}

/// By the definition of IEEE half precision.
double half_of(double low_byte, double high_byte) {
  const int bits = static_cast<int>(low_byte) | static_cast<int>(high_byte) << 8;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 != 0 ? -size : size;
}

double signed_byte(double byte) { return byte < 128 ? byte : byte - 256; }

}  // namespace

InputSpec codes_input(WeightCodes kind, const Shape& shape) {
  const CodePanels l = layout_of(kind, shape);
  const int64_t range = l.largest() - l.least() + 1;
  const int64_t extreme = -l.least() > l.largest() ? l.least() : l.largest();
  InputSpec codes{
      .name = "codes", .shape = shape, .dtype = DType::kI32, .fill = InputSpec::Fill::kGiven};
  codes.make_given = [l, range, extreme, count = shape.count()] {
    std::vector<double> values;
    values.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i)
      values.push_back(
          static_cast<double>(i / l.columns % 5 == 4 ? extreme : l.least() + i * 37 % range));
    return values;
  };
  return codes;
}

InputSpec scales_input(WeightCodes kind, const Shape& shape) {
  const CodePanels l = layout_of(kind, shape);
  const int64_t rows = shape.count() / l.columns;
  if (code_scales_dtype(kind) != DType::kU8)
    return {.name = "scales",
            .shape = {rows, l.groups()},
            .dtype = code_scales_dtype(kind),
            .fill = InputSpec::Fill::kUniform,
            .scale = 0.1,
            .offset = 0.2};
  InputSpec bytes{.name = "scales",
                  .shape = {rows, l.row_scale_bytes()},
                  .dtype = DType::kI32,
                  .fill = InputSpec::Fill::kGiven};
  bytes.make_given = [kind, l, rows, unit = scale_unit(kind)] {
    std::vector<double> values;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t u = 0; u < l.units(); ++u) {
        for (int64_t n = 0; n < unit.numbers; ++n) {
          const int64_t draw = row * 7 + u * 3 + n * 11;
          // 0.1 to 0.35, of both signs where the format's own writers give both; some subnormal.
          const float size = 0.1f + 0.0137f * static_cast<float>(draw % 18);
          const uint16_t half = draw % 23 == 5 ? 3 : f32_to_f16(draw % 4 == 3 ? -size : size);
          values.push_back(half & 255);
          values.push_back(half >> 8);
        }
        // Six bits each, or an int8.
        for (int64_t b = 0; b < unit.bytes; ++b)
          values.push_back(static_cast<double>((row * 5 + u + b * 29) %
                                               (kind == WeightCodes::kQ6_K ? 256 : 64)));
      }
    return values;
  };
  return bytes;
}

Weight quantized_weight(WeightCodes kind,
                        const Shape& shape,
                        const Tensor& codes,
                        const Tensor& scales) {
  const int64_t matrices = shape.rank() == 3 ? shape[0] : 1;
  const CodePanels l = layout_of(kind, shape);
  const std::vector<int32_t> all = codes.to_i32();
  std::vector<uint8_t> row_scales;
  if (code_scales_dtype(kind) == DType::kU8) {
    for (const int32_t byte : scales.to_i32()) row_scales.push_back(static_cast<uint8_t>(byte));
  } else {
    row_scales.resize(scales.bytes());
    scales.copy_bytes_to(row_scales.data());
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(matrices * l.bytes()));
  std::vector<uint8_t> placed(static_cast<size_t>(matrices * l.panels() * l.panel_scale_bytes()));
  std::vector<int8_t> row(static_cast<size_t>(l.columns));
  for (int64_t m = 0; m < matrices; ++m) {
    uint8_t* const to = bytes.data() + m * l.bytes();
    for (int64_t r = l.rows; r < l.panels() * kPanelRows; ++r) put_no_codes(l, r, to);
    for (int64_t r = 0; r < l.rows; ++r) {
      const int64_t at = m * l.rows + r;
      for (int64_t c = 0; c < l.columns; ++c)
        row[static_cast<size_t>(c)] =
            static_cast<int8_t>(all[static_cast<size_t>(at * l.columns + c)]);
      put_codes(l, r, row.data(), to);
      put_scales(l,
                 r,
                 row_scales.data() + at * l.row_scale_bytes(),
                 placed.data() + m * l.panels() * l.panel_scale_bytes());
    }
  }
  Device& device = codes.device();
  Tensor panels = Tensor::empty(
      {matrices, l.panels(), l.panel_bytes()}, l.bits() == 8 ? DType::kI8 : DType::kU8, device);
  panels.copy_bytes_from(bytes.data());
  Tensor of_panels = Tensor::empty(code_scales_shape(l, matrices), code_scales_dtype(kind), device);
  of_panels.copy_bytes_from(placed.data());
  Weight w{.name = "w", .global_shape = shape, .shard = {}};
  w.store_codes(kind, std::move(panels), std::move(of_panels));
  return w;
}

// Source: the GGUF specification's blocks.
ReferenceScales reference_scales(WeightCodes kind, int64_t columns, const RefTensor& scales) {
  const int64_t rows = scales.shape[0];
  const int64_t width = group_of(kind) == 0 ? columns : group_of(kind);
  const int64_t groups = (columns + width - 1) / width;
  ReferenceScales r{RefTensor({rows, groups}), RefTensor({rows, groups})};
  for (int64_t i = 0; i < rows * groups; ++i) {
    const int64_t g = i % groups;
    const double* const row = scales.values.data() + i / groups * scales.shape[1];
    switch (kind) {
      case WeightCodes::kInt8:
      case WeightCodes::kInt4: r.scale[i] = row[g]; break;
      case WeightCodes::kQ8_0:
      case WeightCodes::kQ4_0: r.scale[i] = half_of(row[2 * g], row[2 * g + 1]); break;
      case WeightCodes::kQ4_1:
        r.scale[i] = half_of(row[4 * g], row[4 * g + 1]);
        r.least[i] = half_of(row[4 * g + 2], row[4 * g + 3]);
        break;
      case WeightCodes::kQ4_K: {
        const double* const unit = row + g / 8 * 20;
        r.scale[i] = half_of(unit[0], unit[1]) * unit[4 + g % 8 * 2];
        r.least[i] = -half_of(unit[2], unit[3]) * unit[5 + g % 8 * 2];
        break;
      }
      case WeightCodes::kQ6_K: {
        const double* const unit = row + g / 16 * 18;
        r.scale[i] = half_of(unit[0], unit[1]) * signed_byte(unit[2 + g % 16]);
        break;
      }
    }
  }
  return r;
}

RefTensor reference_numbers(WeightCodes kind, const RefTensor& codes, const RefTensor& scales) {
  const int64_t columns = codes.shape[codes.shape.rank() - 1];
  const ReferenceScales of = reference_scales(kind, columns, scales);
  const int64_t groups = of.scale.shape[1], width = group_of(kind) == 0 ? columns : group_of(kind);
  RefTensor y(codes.shape);
  for (int64_t i = 0; i < y.shape.count(); ++i) {
    const int64_t at = i / columns * groups + i % columns / width;
    y[i] = codes[i] * of.scale[at] + of.least[at];
  }
  return y;
}

std::function<std::vector<double>(int, const std::vector<RefTensor>&, const RefTensor&)>
codes_tolerance(WeightCodes kind, DType out) {
  const auto once = elementwise_tolerance(out, out == DType::kBF16 ? 0x1p-24 : 0);
  if (!has_least(kind)) return once;
  // The product is rounded before the least value is added, which may cancel it.
  return [=](int output, const std::vector<RefTensor>& in, const RefTensor& y) {
    const RefTensor &codes = in[in.size() - 2], &scales = in.back();
    const ReferenceScales of = reference_scales(kind, codes.shape[codes.shape.rank() - 1], scales);
    double largest = 0;
    for (const double scale : of.scale.values) largest = std::max(largest, std::abs(scale));
    std::vector<double> bound = once(output, in, y);
    for (double& b : bound) b += 0x1p-24 * 15 * largest;
    return bound;
  };
}

}  // namespace ferry::ops
