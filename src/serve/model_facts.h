// What a model is, in JSON, for who talks with it: the badge of the chat page.
#pragma once

#include <string>

#include "base/result.h"
#include "checkpoint/model_source.h"
#include "models/causal_lm.h"

namespace ferry::serve {

/// {"model", "architecture", "format", "stored", "weights", "parameters", "chat_template", "device",
/// "verified_as", "dtype", "program", "context", "chat", "passport", "verified"}. "format" is "directory"
/// or "gguf"; "stored" names the types of its matrices, those of most numbers first. "passport" is null,
/// or {"root", "signed_by", "program", "reference", "training"}; "verified" lists what verified.json says
/// of this model: of what serves it speaks where its device is "verified_as" and its type "dtype".
/// `weights` is how they are kept: "int8"; empty: as stored. `other_template`: conversations are not
/// written as the files say. `chats`: whether they can be written at all.
/// Errors: of read_verifications.
Result<std::string> model_facts(const ModelSource& from,
                                const models::CausalLm& model,
                                const std::string& name,
                                const std::string& weights,
                                bool other_template,
                                int64_t context,
                                bool chats);

}  // namespace ferry::serve
