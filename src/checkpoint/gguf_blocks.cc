#include "checkpoint/gguf_blocks.h"

#include <array>
#include <cstring>

#include "base/check.h"
#include "checkpoint/convert.h"
#include "tensor/f16.h"

namespace ferry {
namespace {

constexpr int kSmall = 32;   // elements of a block of the types _0 and _1
constexpr int kLarge = 256;  // of the types K

struct TypeFacts {
  uint32_t number;  // in files
  GgufType type;
  const char* name;
  GgufBlock block;
};

/// Source: the GGUF specification's table of types; sizes from the blocks' layouts, which decode_* below read.
constexpr std::array<TypeFacts, 11> kTypes{{
    {0, GgufType::kF32, "F32", {1, 4}},
    {1, GgufType::kF16, "F16", {1, 2}},
    {30, GgufType::kBF16, "BF16", {1, 2}},
    {2, GgufType::kQ4_0, "Q4_0", {kSmall, 2 + 16}},
    {3, GgufType::kQ4_1, "Q4_1", {kSmall, 2 + 2 + 16}},
    {6, GgufType::kQ5_0, "Q5_0", {kSmall, 2 + 4 + 16}},
    {7, GgufType::kQ5_1, "Q5_1", {kSmall, 2 + 2 + 4 + 16}},
    {8, GgufType::kQ8_0, "Q8_0", {kSmall, 2 + 32}},
    {12, GgufType::kQ4_K, "Q4_K", {kLarge, 2 + 2 + 12 + 128}},
    {13, GgufType::kQ5_K, "Q5_K", {kLarge, 2 + 2 + 12 + 32 + 128}},
    {14, GgufType::kQ6_K, "Q6_K", {kLarge, 128 + 64 + 16 + 2}},
}};

struct OtherType {
  uint32_t number;
  const char* name;
};
constexpr OtherType kOthers[] = {
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"},
};

const TypeFacts& facts(GgufType type) {
  for (const TypeFacts& t : kTypes)
    if (t.type == type) return t;
  throw_bug("gguf: a type without facts");
}

const uint8_t* bytes(const std::byte* p) { return reinterpret_cast<const uint8_t*>(p); }

float half_at(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return f16_to_f32(v);
}

/// Element i of a block of 32 lies in the low half of byte i, or in the high half of byte i - 16.
int nibble(const uint8_t* q, int i) { return i < kSmall / 2 ? q[i] & 15 : q[i - kSmall / 2] >> 4; }

int fifth_bit(const uint8_t* high, int i) { return (high[i / 8] >> (i % 8) & 1) << 4; }

void decode_q4_0(const uint8_t* b, float* out) {
  const float d = half_at(b);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(nibble(b + 2, i) - 8);
}

void decode_q4_1(const uint8_t* b, float* out) {
  const float d = half_at(b), least = half_at(b + 2);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(nibble(b + 4, i)) + least;
}

void decode_q5_0(const uint8_t* b, float* out) {
  const float d = half_at(b);
  for (int i = 0; i < kSmall; ++i)
    out[i] = d * static_cast<float>((nibble(b + 6, i) | fifth_bit(b + 2, i)) - 16);
}

void decode_q5_1(const uint8_t* b, float* out) {
  const float d = half_at(b), least = half_at(b + 2);
  for (int i = 0; i < kSmall; ++i)
    out[i] = d * static_cast<float>(nibble(b + 8, i) | fifth_bit(b + 4, i)) + least;
}

void decode_q8_0(const uint8_t* b, float* out) {
  const float d = half_at(b);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(b[2 + i]));
}

/// The 6-bit scale and least value of one of the eight groups of a K block, from its twelve bytes: groups 0 to 3 have
/// theirs in the low six bits of bytes 0-3 and 4-7; groups 4 to 7 in the nibbles of bytes 8-11, with the upper two
/// bits in the top of the bytes of group - 4.
struct GroupScale {
  int scale, least;
};
GroupScale group_scale(const uint8_t* s, int group) {
  if (group < 4) return {s[group] & 63, s[group + 4] & 63};
  return {(s[group + 4] & 15) | (s[group - 4] >> 6) << 4,
          (s[group + 4] >> 4) | (s[group] >> 6) << 4};
}

/// Groups of 32; two neighbours share 32 bytes, the even one in the low halves. `high`: the fifth bits, one byte for
/// each place in a group and one bit for each group; nullptr: there are none.
void decode_k(const uint8_t* b, const uint8_t* high, const uint8_t* q, float* out) {
  const float d = half_at(b), d_least = half_at(b + 2);
  for (int group = 0; group < 8; ++group) {
    const GroupScale s = group_scale(b + 4, group);
    const float scale = d * static_cast<float>(s.scale),
                least = d_least * static_cast<float>(s.least);
    for (int i = 0; i < 32; ++i) {
      int v = q[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
      if (high != nullptr) v |= (high[i] >> group & 1) << 4;
      out[group * 32 + i] = scale * static_cast<float>(v) - least;
    }
  }
}

void decode_q4_k(const uint8_t* b, float* out) { decode_k(b, nullptr, b + 16, out); }
void decode_q5_k(const uint8_t* b, float* out) { decode_k(b, b + 16, b + 48, out); }

/// Two halves of 128 elements, each of 64 bytes of low bits and 32 of upper pairs of bits; sixteen scales of 16
/// elements.
int q6_code(const uint8_t* b, int e) {
  const uint8_t *low = b, *high = b + 128;
  const int half = e / 128,
            i = e % 128;  // rows of 32: low bits of rows 0 and 2 share bytes, 1 and 3 likewise
  const int row = i / 32, column = i % 32;
  const int four = low[half * 64 + row % 2 * 32 + column] >> (row / 2 * 4) & 15;
  const int two = high[half * 32 + column] >> (row * 2) & 3;
  return (four | two << 4) - 32;
}

void decode_q6_k(const uint8_t* b, float* out) {
  const uint8_t* const scales = b + 192;
  const float d = half_at(b + 208);
  for (int e = 0; e < kLarge; ++e) {
    const float scale = d * static_cast<float>(static_cast<int8_t>(scales[e / 16]));
    out[e] = scale * static_cast<float>(q6_code(b, e));
  }
}

void take_q4(const uint8_t* b, int scale_bytes, int offset, int8_t* codes, uint8_t* scales) {
  std::memcpy(scales, b, static_cast<size_t>(scale_bytes));
  for (int i = 0; i < kSmall; ++i)
    codes[i] = static_cast<int8_t>(nibble(b + scale_bytes, i) - offset);
}

void take_q8_0(const uint8_t* b, int8_t* codes, uint8_t* scales) {
  std::memcpy(scales, b, 2);
  std::memcpy(codes, b + 2, kSmall);
}

void take_q4_k(const uint8_t* b, int8_t* codes, uint8_t* scales) {
  std::memcpy(scales, b, 4);
  for (int group = 0; group < 8; ++group) {
    const GroupScale s = group_scale(b + 4, group);
    scales[4 + 2 * group] = static_cast<uint8_t>(s.scale);
    scales[5 + 2 * group] = static_cast<uint8_t>(s.least);
    for (int i = 0; i < 32; ++i)
      codes[group * 32 + i] =
          static_cast<int8_t>(b[16 + group / 2 * 32 + i] >> (group % 2 * 4) & 15);
  }
}

void take_q6_k(const uint8_t* b, int8_t* codes, uint8_t* scales) {
  std::memcpy(scales, b + 208, 2);
  std::memcpy(scales + 2, b + 192, 16);
  for (int e = 0; e < kLarge; ++e) codes[e] = static_cast<int8_t>(q6_code(b, e));
}

template <void (*decode)(const uint8_t*, float*)>
void each_block(const GgufBlock& block, const std::byte* in, std::span<float> out) {
  for (size_t at = 0; at < out.size(); at += static_cast<size_t>(block.elements), in += block.bytes)
    decode(bytes(in), out.data() + at);
}

}  // namespace

const char* to_string(GgufType type) { return facts(type).name; }

std::optional<GgufType> gguf_type(uint32_t number) {
  for (const TypeFacts& t : kTypes)
    if (t.number == number) return t.type;
  return {};
}

const char* gguf_type_not_decoded(uint32_t number) {
  for (const OtherType& t : kOthers)
    if (t.number == number) return t.name;
  return nullptr;
}

GgufBlock block_of(GgufType type) { return facts(type).block; }

void decode_blocks(GgufType type, std::span<const std::byte> in, std::span<float> out) {
  const GgufBlock block = block_of(type);
  const auto elements = static_cast<size_t>(block.elements);
  check(out.size() % elements == 0 &&
            in.size() == out.size() / elements * static_cast<size_t>(block.bytes),
        "decode_blocks: {} bytes of {} for {} elements",
        in.size(),
        to_string(type),
        out.size());
  if (const std::optional<DType> stored = numbers_of(type))
    return convert_elements(
        *stored, in.data(), DType::kF32, reinterpret_cast<std::byte*>(out.data()), out.size());
  switch (type) {
    case GgufType::kF32:
    case GgufType::kF16:
    case GgufType::kBF16: return;
    case GgufType::kQ4_0: return each_block<decode_q4_0>(block, in.data(), out);
    case GgufType::kQ4_1: return each_block<decode_q4_1>(block, in.data(), out);
    case GgufType::kQ5_0: return each_block<decode_q5_0>(block, in.data(), out);
    case GgufType::kQ5_1: return each_block<decode_q5_1>(block, in.data(), out);
    case GgufType::kQ8_0: return each_block<decode_q8_0>(block, in.data(), out);
    case GgufType::kQ4_K: return each_block<decode_q4_k>(block, in.data(), out);
    case GgufType::kQ5_K: return each_block<decode_q5_k>(block, in.data(), out);
    case GgufType::kQ6_K: return each_block<decode_q6_k>(block, in.data(), out);
  }
}

std::optional<DType> numbers_of(GgufType type) {
  switch (type) {
    case GgufType::kF32: return DType::kF32;
    case GgufType::kF16: return DType::kF16;
    case GgufType::kBF16: return DType::kBF16;
    default: return std::nullopt;
  }
}

std::optional<WeightCodes> codes_of(GgufType type) {
  switch (type) {
    case GgufType::kQ4_0: return WeightCodes::kQ4_0;
    case GgufType::kQ4_1: return WeightCodes::kQ4_1;
    case GgufType::kQ8_0: return WeightCodes::kQ8_0;
    case GgufType::kQ4_K: return WeightCodes::kQ4_K;
    case GgufType::kQ6_K: return WeightCodes::kQ6_K;
    default: return std::nullopt;
  }
}

void take_blocks(GgufType type, std::span<const std::byte> in, int8_t* codes, uint8_t* scales) {
  const GgufBlock block = block_of(type);
  const std::optional<WeightCodes> kind = codes_of(type);
  check(kind.has_value() && in.size() % static_cast<size_t>(block.bytes) == 0,
        "take_blocks: {} bytes of {}",
        in.size(),
        to_string(type));
  const ScaleUnit unit = scale_unit(*kind);
  for (const uint8_t *b = bytes(in.data()), *end = b + in.size(); b != end;
       b += block.bytes, codes += block.elements, scales += unit.row_bytes()) {
    switch (*kind) {
      case WeightCodes::kQ4_0: take_q4(b, 2, 8, codes, scales); break;
      case WeightCodes::kQ4_1: take_q4(b, 4, 0, codes, scales); break;
      case WeightCodes::kQ8_0: take_q8_0(b, codes, scales); break;
      case WeightCodes::kQ4_K: take_q4_k(b, codes, scales); break;
      default: take_q6_k(b, codes, scales); break;
    }
  }
}

bool scales_are_finite(WeightCodes codes, std::span<const uint8_t> scales) {
  const ScaleUnit unit = scale_unit(codes);
  for (size_t at = 0; at < scales.size(); at += static_cast<size_t>(unit.row_bytes()))
    for (int64_t n = 0; n < unit.numbers; ++n)
      if ((scales[at + static_cast<size_t>(2 * n + 1)] & 0x7C) == 0x7C) return false;
  return true;
}

}  // namespace ferry
