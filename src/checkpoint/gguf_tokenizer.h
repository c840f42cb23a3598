// The tokenizer of a GGUF file as Hugging Face's tokenizer.json, which is what Ferry's tokenizer
// reads: vocabulary and merges lie in the header, how text is split has only a name there.
#pragma once

#include <string>

#include "base/result.h"
#include "checkpoint/gguf.h"

namespace ferry {

/// Errors: kInvalidInput, naming the value: a tokenizer that is not byte-level BPE, or splits text
/// in a way that Ferry does not know; lists of different lengths.
Result<std::string> gguf_tokenizer_json(const GgufFile& file);

}  // namespace ferry
