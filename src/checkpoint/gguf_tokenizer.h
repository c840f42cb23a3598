// The tokenizer of a GGUF file as Hugging Face's tokenizer.json, which is what Ferry's tokenizer
// reads: vocabulary and merges lie in the header, how text is split has only a name there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/gguf.h"

namespace ferry {

/// Errors: kInvalidInput, naming the value: a tokenizer that is not byte-level BPE, or splits text
/// in a way that Ferry does not know; lists of different lengths.
Result<std::string> gguf_tokenizer_json(const GgufFile& file);

/// The tokens that end an answer, each once: end of text (first, where the file names it), of a turn, of a message; and
/// tokens that are known for an end by their text, for files name one end and models know several (llama.cpp
/// ends there, too). Whatever the file's list of types says, all of these, and the begin token, are control tokens in
/// gguf_tokenizer_json: older converters got that list wrong.
/// Errors: kInvalidInput: an id of the file is none of its `vocabulary` tokens.
Result<std::vector<int64_t>> gguf_end_tokens(const GgufFile& file, int64_t vocabulary);

/// What of the types of tokens was decided against the file, or without it. Errors: kInvalidInput: lists of different
/// lengths.
Result<std::vector<std::string>> gguf_token_notes(const GgufFile& file);

/// Whether texts begin with the begin token. Errors: kInvalidInput: it says so, and not as a truth value.
Result<bool> gguf_adds_bos(const GgufFile& file);

}  // namespace ferry
