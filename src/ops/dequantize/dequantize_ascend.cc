// Composed in float32: codes are looked up, scales repeated over a row, and each row of blocks is
// one product. (The chips' own float8 starts with the Ascend 950.)
#include "ops/ascend/scratch.h"
#include "ops/dequantize/dequantize_kernels.h"

namespace ferry::ops::ascend {
namespace {

/// [rows of blocks, columns]: each scale repeated over its block's columns.
Operand repeated(Scratch& scratch, const Operand& scales, int64_t width, int64_t columns) {
  Stream& stream = scratch.stream();
  const int64_t rows = scales.dim(0), whole = columns / width;
  const Operand wide = scratch.take(acl::kFloat, {rows, columns});
  const auto copy = [&](int64_t first, int64_t blocks, int64_t each) {
    const Operand to = wide.slice(1, first * width, first * width + blocks * each);
    aclnn::InplaceCopy(stream,
                       to.strided({rows, blocks, each}, {columns, each, 1}),
                       scales.slice(1, first, first + blocks).unsqueeze(2).expand(2, each));
  };
  if (whole > 0) copy(0, whole, width);
  if (whole * width < columns) copy(whole, 1, columns - whole * width);
  return wide;
}

}  // namespace

void dequantize(const Plan&, const DequantizeArgs& a, void*, Stream& stream) {
  const int64_t rows = a.codes.shape[1], columns = a.codes.shape[2];
  const Operand y(a.y), all_scales(a.scales);
  if (a.y.count() == 0) return;
  for (int64_t e = 0; e < a.codes.shape[0]; ++e) {
    Scratch scratch(stream);
    const int64_t count = rows * columns;
    const Operand codes(a.codes.as<char>() + e * count, acl::kUint8, {count});
    const Operand looked_up = scratch.take(acl::kFloat, {count});
    aclnn::IndexSelect(stream, Operand(a.numbers), 0, scratch.cast(codes, acl::kInt32), looked_up);
    const Operand numbers = looked_up.reshape({rows, columns});
    const Operand scales =
        repeated(scratch, all_scales.slice(0, e, e + 1).squeeze(0), a.block_columns, columns);
    for (int64_t b = 0; b < scales.dim(0); ++b) {
      const int64_t begin = b * a.block_rows, end = std::min(rows, begin + a.block_rows);
      aclnn::InplaceMul(stream, numbers.slice(0, begin, end), scales.slice(0, b, b + 1));
    }
    aclnn::InplaceCopy(stream, y.slice(0, e, e + 1).squeeze(0), numbers);
  }
}

}  // namespace ferry::ops::ascend
