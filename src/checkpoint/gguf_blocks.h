// The element types of GGUF files, and the numbers that their blocks stand for. llama.cpp quantises a row in blocks of
// 32 or 256 elements, each with scales of its own; the values are decoded to f32 exactly as ggml's reference does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "tensor/code_panels.h"
#include "tensor/dtype.h"

namespace ferry {

enum class GgufType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K
};

/// As llama.cpp spells it: "Q4_K".
const char* to_string(GgufType type);

/// The type that a file's number stands for; nothing for one that Ferry does not decode.
std::optional<GgufType> gguf_type(uint32_t number);

/// The name of a type that exists but is not decoded ("IQ2_XS"); nullptr: there is no such type.
const char* gguf_type_not_decoded(uint32_t number);

/// A row's elements come in whole blocks.
struct GgufBlock {
  int64_t elements;
  int64_t bytes;
};
GgufBlock block_of(GgufType type);

/// Decodes whole blocks: out.size() elements, a multiple of the block's. `in` need not be aligned. The sums are
/// ggml's: scale * q for the types _0, scale * q + least for _1, (scale * q) - least for K, each operation rounded to
/// f32. Scales that are NaN or infinite give such elements: whoever loads weights looks for them.
void decode_blocks(GgufType type, std::span<const std::byte> in, std::span<float> out);

/// The type of plain numbers, which are no blocks; nothing: blocks.
std::optional<DType> numbers_of(GgufType type);

/// The codes that a type's blocks hold, as products read them; nothing: it has none, or Ferry
/// multiplies its numbers (Q5_0, Q5_1, Q5_K).
std::optional<WeightCodes> codes_of(GgufType type);

/// Takes whole blocks of such a type apart: a code for each element, and CodePanels'
/// row_scale_bytes() of scales, which are the file's. Fails to no one: a scale may be any number.
void take_blocks(GgufType type, std::span<const std::byte> in, int8_t* codes, uint8_t* scales);

/// Whether all scales of a row of codes, as take_blocks gives them, are finite.
bool scales_are_finite(WeightCodes codes, std::span<const uint8_t> scales);

}  // namespace ferry
