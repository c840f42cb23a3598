#include "checkpoint/convert.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "base/alive.h"
#include "base/check.h"
#include "tensor/bf16.h"
#include "tensor/f16.h"

namespace ferry {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 20;

bool is_float(DType t) { return t == DType::kF32 || t == DType::kBF16 || t == DType::kF16; }

uint16_t load_u16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

float load_float(DType t, const std::byte* p) {
  if (t == DType::kBF16) return bf16_to_f32(load_u16(p));
  if (t == DType::kF16) return f16_to_f32(load_u16(p));
  float f;
  std::memcpy(&f, p, sizeof f);
  return f;
}

void store_float(DType t, float f, std::byte* p) {
  if (t == DType::kF32) {
    std::memcpy(p, &f, sizeof f);
    return;
  }
  const uint16_t v = t == DType::kBF16 ? f32_to_bf16(f) : f32_to_f16(f);
  std::memcpy(p, &v, sizeof v);
}

/// The first element whose bits under `mask` are all set. A piece is looked through for any at all
/// first: without a way out in it, that loop is as fast as memory is read.
template <class U>
std::optional<size_t> first_with(std::span<const std::byte> bytes, U mask) {
  constexpr size_t kPiece = 4096;
  const size_t count = bytes.size() / sizeof(U);
  U piece[kPiece];
  for (size_t begin = 0; begin < count; begin += kPiece) {
    const size_t size = std::min(kPiece, count - begin);
    std::memcpy(piece, bytes.data() + begin * sizeof(U), size * sizeof(U));
    unsigned found = 0;
    for (size_t i = 0; i < size; ++i) found |= (piece[i] & mask) == mask ? 1U : 0U;
    if (found != 0)
      return begin +
             static_cast<size_t>(
                 std::find_if(piece, piece + size, [mask](U u) { return (u & mask) == mask; }) -
                 piece);
  }
  return std::nullopt;
}

}  // namespace

std::optional<size_t> first_not_finite(DType type, std::span<const std::byte> bytes) {
  switch (type) {
    case DType::kF64: return first_with<uint64_t>(bytes, uint64_t{0x7FF} << 52);
    case DType::kF32: return first_with<uint32_t>(bytes, 0x7F800000);
    case DType::kBF16: return first_with<uint16_t>(bytes, 0x7F80);
    case DType::kF16: return first_with<uint16_t>(bytes, 0x7C00);
    case DType::kF8E4M3: return first_with<uint8_t>(bytes, 0x7F);
    default: return std::nullopt;
  }
}

bool can_convert(DType from, DType to) { return from == to || (is_float(from) && is_float(to)); }

void convert_elements(DType from, const std::byte* in, DType to, std::byte* out, size_t count) {
  check(can_convert(from, to), "convert: {} to {}", to_string(from), to_string(to));
  if (from == to) {
    if (count > 0) std::memcpy(out, in, count * size_of(to));
    return;
  }
  const size_t in_size = size_of(from), out_size = size_of(to);
  for (size_t i = 0; i < count; ++i)
    store_float(to, load_float(from, in + i * in_size), out + i * out_size);
}

void fill_from(const Tensor& tensor, DType from, std::span<const std::byte> bytes) {
  const int64_t count = tensor.count();
  check(bytes.size() == static_cast<size_t>(count) * size_of(from),
        "fill: {} bytes for {} elements of {}",
        bytes.size(),
        count,
        to_string(from));
  const Tensor flat = tensor.reshape(Shape{count});
  std::vector<std::byte> piece;
  for (int64_t begin = 0; begin < count; begin += kPieceElements) {
    const int64_t end = std::min(count, begin + kPieceElements);
    const std::byte* in = bytes.data() + static_cast<size_t>(begin) * size_of(from);
    Tensor part = flat.slice(0, begin, end);
    if (from != tensor.dtype()) {
      piece.resize(part.bytes());
      convert_elements(from, in, tensor.dtype(), piece.data(), static_cast<size_t>(end - begin));
      in = piece.data();
    }
    part.copy_bytes_from(in);
    still_alive();
  }
}

Result<void> for_each_piece(const Tensor& tensor,
                            DType stored,
                            const std::function<Result<void>(std::span<const std::byte>)>& take) {
  const int64_t count = tensor.count();
  const Tensor flat = tensor.reshape(Shape{count});
  std::vector<std::byte> raw, converted;
  for (int64_t begin = 0; begin < count; begin += kPieceElements) {
    const Tensor part = flat.slice(0, begin, std::min(count, begin + kPieceElements));
    raw.resize(part.bytes());
    part.copy_bytes_to(raw.data());
    if (stored == tensor.dtype()) {
      TRY(take(raw));
      continue;
    }
    converted.resize(static_cast<size_t>(part.count()) * size_of(stored));
    convert_elements(
        tensor.dtype(), raw.data(), stored, converted.data(), static_cast<size_t>(part.count()));
    TRY(take(converted));
  }
  return {};
}

}  // namespace ferry
