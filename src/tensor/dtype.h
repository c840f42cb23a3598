// Element types. Kernels compute on f32 and bf16; the others are carried by files and indices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ferry {

enum class DType : uint8_t { kF32, kBF16, kF16, kF64, kI64, kI32, kI16, kI8, kU8, kBool, kF8E4M3 };

constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::kF64:
    case DType::kI64: return 8;
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16:
    case DType::kF16:
    case DType::kI16: return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
    case DType::kF8E4M3: return 1;
  }
  return 0;
}

/// As safetensors spells them: "F32", "BF16", "I32", ...
const char* to_string(DType t);
std::optional<DType> dtype_from_string(std::string_view name);

/// Half the spacing of numbers just above 1: the largest relative error of rounding to this type.
double unit_roundoff(DType t);

}  // namespace ferry
