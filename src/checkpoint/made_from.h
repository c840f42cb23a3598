// made_from.json: what a directory that `ferry convert` wrote was made from. Its passport states the same, so that
// a quantised model can be traced to the one that was trained. Described in docs/passport.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "checkpoint/hash_tree.h"

namespace ferry {

class ModelSource;

constexpr const char* kMadeFromName = "made_from.json";

/// Thread rule: plain data.
struct MadeFrom {
  std::string program;                   // that made it: "ferry 0.1.0"
  std::string to;                        // what its matrices became: "f32", "bf16", "int8", "int4"
  std::string source;                    // "directory" or "gguf"
  std::string weights;                   // ModelSource::weights_root() of the source
  std::optional<std::string> adapter;    // a hash of its weights, where one was merged in
  std::optional<std::string> passport;   // the root of the source's passport, if it had one
  std::optional<std::string> signed_by;  // and whose signature that had
  bool verified = false;  // whether that passport's model had passed a verification on some device
  bool operator==(const MadeFrom&) const = default;
};

/// Of what is about to be converted; `adapter`: the folder of one that is merged, or empty. Errors: of reading the
/// files that are hashed, and of hash_chunks.
Result<MadeFrom> made_from(const ModelSource& source,
                           const std::string& adapter,
                           const std::string& to,
                           const HashedBytes& hashed);

/// As the file has it.
std::string made_from_text(const MadeFrom& made);
/// Errors: kCorrupt, naming `path` and the field.
Result<MadeFrom> parse_made_from(std::string_view text, const std::string& path);

/// In words: "int8 codes of the weights HASH (passport ROOT, signed by KEY, verified)".
std::string describe(const MadeFrom& made);

}  // namespace ferry
