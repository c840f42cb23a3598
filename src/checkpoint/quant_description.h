// quant_model_description.json: what msModelSlim writes beside quantised weights, naming each
// tensor's kind, and the layout of codes in a directory's files (docs/directories.md).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/model_source.h"
#include "tensor/weight.h"

namespace ferry {

constexpr const char* kQuantDescriptionName = "quant_model_description.json";
/// As older versions of msModelSlim call it.
constexpr const char* kOldQuantDescriptionName = "quant_model_description_w8a8_dynamic.json";
constexpr const char* kCodeScaleSuffix = "_scale";    // "a.weight_scale"
constexpr const char* kCodeOffsetSuffix = "_offset";  // "a.weight_offset"

/// The kind of a quantised tensor there: "W8A8_DYNAMIC", or Ferry's own for int4.
const char* quant_type(WeightCodes codes);

/// The shape of a matrix's codes in a file: int8 as the matrix, int4 two columns in a byte.
Shape stored_codes_shape(WeightCodes codes, const Shape& matrix);

/// The description of a directory's tensors by their names and types.
std::string quant_description(WeightCodes codes,
                              const std::vector<std::string>& tensors,
                              const std::function<bool(const std::string& name)>& quantised);

/// Holds a description, or its absence, to the tensors that are there: each kind is one that Ferry
/// reads, and what is stored as I8 or U8 is what it says.
/// `config`: config.json's text, which names other programs' quantisation.
/// Errors: kInvalidInput: a kind that Ferry does not read, by its name; codes without a
/// description, by their program where it can be told; kCorrupt: it is no JSON, or says of a tensor what it is not.
Result<void> check_quant_description(
    const std::optional<std::string>& content,
    const std::string& path,
    const std::string& config,
    const std::vector<std::string>& names,
    const std::function<std::optional<StoredTensor>(std::string_view)>& stored);

}  // namespace ferry
