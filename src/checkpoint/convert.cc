#include "checkpoint/convert.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "base/alive.h"
#include "base/check.h"
#include "device/cpu/cpu_device.h"
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

/// Calls use(read): a function from an element's place to its value.
template <class Use>
void with_reader(DType t, Use&& use) {
  switch (t) {
    case DType::kBF16: return use([](const std::byte* p) { return bf16_to_f32(load_u16(p)); });
    case DType::kF16: return use([](const std::byte* p) { return f16_to_f32(load_u16(p)); });
    default:
      return use([](const std::byte* p) {
        float f;
        std::memcpy(&f, p, sizeof f);
        return f;
      });
  }
}

/// Calls use(write): a function that puts a value in an element's place.
template <class Use>
void with_writer(DType t, Use&& use) {
  const auto store = [](auto v, std::byte* p) { std::memcpy(p, &v, sizeof v); };
  switch (t) {
    case DType::kBF16: return use([=](float f, std::byte* p) { store(f32_to_bf16(f), p); });
    case DType::kF16: return use([=](float f, std::byte* p) { store(f32_to_f16(f), p); });
    default: return use(store);
  }
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

/// Fills the tensor piece by piece, the parts of each on all threads. `finite`: looks at the elements,
/// and gives the place of the first that is not finite.
std::optional<size_t> fill(const Tensor& tensor,
                           DType from,
                           std::span<const std::byte> bytes,
                           bool finite) {
  constexpr int64_t kPartElements = int64_t{1} << 16;
  const int64_t count = tensor.count();
  const size_t element = size_of(from);
  check(bytes.size() == static_cast<size_t>(count) * element && can_convert(from, tensor.dtype()),
        "fill: {} bytes for {} elements, {} to {}",
        bytes.size(),
        count,
        to_string(from),
        to_string(tensor.dtype()));
  const Tensor flat = tensor.reshape(Shape{count});
  const bool here = tensor.device().kind() == DeviceKind::kCpu;
  std::vector<std::byte> piece;
  std::vector<std::optional<size_t>> bad(kPieceElements / kPartElements);
  for (int64_t begin = 0; begin < count; begin += kPieceElements) {
    const int64_t end = std::min(count, begin + kPieceElements);
    Tensor part = flat.slice(0, begin, end);
    if (!here) piece.resize(part.bytes());
    std::byte* const out = here ? static_cast<std::byte*>(part.data()) : piece.data();
    cpu_pool().parallel_for((end - begin + kPartElements - 1) / kPartElements, [&](int64_t p, int) {
      const auto first = static_cast<size_t>(p * kPartElements);
      const auto n = static_cast<size_t>(std::min(kPartElements, end - begin - p * kPartElements));
      const auto in = bytes.subspan((static_cast<size_t>(begin) + first) * element, n * element);
      if (finite) bad[static_cast<size_t>(p)] = first_not_finite(from, in);
      convert_elements(from, in.data(), tensor.dtype(), out + first * size_of(tensor.dtype()), n);
    });
    for (size_t p = 0; p < bad.size(); ++p)
      if (bad[p]) return static_cast<size_t>(begin) + p * kPartElements + *bad[p];
    if (!here) part.copy_bytes_from(piece.data());
    still_alive();
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
  with_reader(from, [&](auto read) {
    with_writer(to, [&](auto write) {
      for (size_t i = 0; i < count; ++i) write(read(in + i * in_size), out + i * out_size);
    });
  });
}

void fill_from(const Tensor& tensor, DType from, std::span<const std::byte> bytes) {
  fill(tensor, from, bytes, false);
}

std::optional<size_t> fill_from_finite(const Tensor& tensor,
                                       DType from,
                                       std::span<const std::byte> bytes) {
  return fill(tensor, from, bytes, true);
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
