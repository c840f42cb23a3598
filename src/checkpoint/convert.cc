#include "checkpoint/convert.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "base/alive.h"
#include "base/check.h"
#include "tensor/bf16.h"

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

float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 0x1F;
  const uint32_t fraction = half & 0x3FF;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  if (fraction == 0) return std::bit_cast<float>(sign);
  const int shift = std::countl_zero(fraction) - 21;  // brings the leading one to bit 10
  return std::bit_cast<float>(sign | static_cast<uint32_t>(113 - shift) << 23 |
                              ((fraction << shift) & 0x3FF) << 13);
}

uint16_t f32_to_f16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (u >> 16) & 0x8000;
  const uint32_t magnitude = u & 0x7FFFFFFF;
  const auto with_sign = [sign](uint32_t v) { return static_cast<uint16_t>(sign | v); };
  if (magnitude > 0x7F800000)
    return with_sign(0x7E00 | ((magnitude >> 13) & 0x3FF));  // a quiet NaN
  if (magnitude >= 0x47800000) return with_sign(0x7C00);     // 2^16 and above
  // Round the fraction at the bit that the result's exponent makes the last one; a carry runs into
  // the exponent, and from the largest finite value into infinity, which is what rounding asks for.
  const uint32_t exponent = magnitude >> 23;
  if (exponent >= 113)
    return with_sign((magnitude - (112u << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13);
  if (exponent < 102) return with_sign(0);  // below half the least subnormal, 2^-25
  const uint32_t fraction = (magnitude & 0x7FFFFF) | 0x800000;
  const uint32_t drop = 126 - exponent;  // 14..24 bits
  const uint32_t half = (1u << (drop - 1)) - 1;
  return with_sign((fraction + half + ((fraction >> drop) & 1)) >> drop);
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
