#include "tensor/dtype.h"

#include <utility>

namespace ferry {
namespace {

constexpr std::pair<DType, const char*> kNames[] = {
    {DType::kF32, "F32"},
    {DType::kBF16, "BF16"},
    {DType::kF16, "F16"},
    {DType::kF64, "F64"},
    {DType::kI64, "I64"},
    {DType::kI32, "I32"},
    {DType::kI16, "I16"},
    {DType::kI8, "I8"},
    {DType::kU8, "U8"},
    {DType::kBool, "BOOL"},
    {DType::kF8E4M3, "F8_E4M3"},
};

}  // namespace

const char* to_string(DType t) {
  for (const auto& [type, name] : kNames)
    if (type == t) return name;
  return "?";
}

std::optional<DType> dtype_from_string(std::string_view name) {
  for (const auto& [type, text] : kNames)
    if (name == text) return type;
  return std::nullopt;
}

double unit_roundoff(DType t) {
  switch (t) {
    case DType::kF64: return 0x1p-53;
    case DType::kF32: return 0x1p-24;
    case DType::kF16: return 0x1p-11;
    case DType::kBF16: return 0x1p-8;
    case DType::kF8E4M3: return 0x1p-4;
    default: return 0;
  }
}

}  // namespace ferry
