// Element conversion between a file's floating-point types and a tensor's. Bit manipulation only,
// so that the thread's flush-to-zero mode cannot change a result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "base/result.h"
#include "tensor/tensor.h"

namespace ferry {

/// The first element that is NaN or infinite; nothing of types that have no such numbers.
std::optional<size_t> first_not_finite(DType type, std::span<const std::byte> bytes);

/// Whether convert_elements can: equal types, or any two of f32, bf16, f16.
bool can_convert(DType from, DType to);

/// Rounds to nearest even. To bf16 as tensor/bf16.h: results that would be subnormal become zero,
/// as they do wherever Ferry computes. `from` need not be aligned.
void convert_elements(DType from, const std::byte* in, DType to, std::byte* out, size_t count);

/// Fills a contiguous tensor, on any device, from `count` elements of another type. Uses the CPU's
/// thread pool.
void fill_from(const Tensor& tensor, DType from, std::span<const std::byte> bytes);

/// The same, and the place of the first element that is NaN or infinite, if one is: then the tensor is
/// of no use.
std::optional<size_t> fill_from_finite(const Tensor& tensor,
                                       DType from,
                                       std::span<const std::byte> bytes);

/// Calls `take` with the tensor's elements as `stored`, from first to last, in pieces of a few MiB.
Result<void> for_each_piece(const Tensor& tensor,
                            DType stored,
                            const std::function<Result<void>(std::span<const std::byte>)>& take);

}  // namespace ferry
