#include "checkpoint/made_from.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/version.h"
#include "checkpoint/adapter.h"
#include "checkpoint/hash_tree.h"
#include "checkpoint/made_from_fields.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/model_source.h"
#include "checkpoint/passport.h"

namespace ferry {
namespace {

constexpr const char* kFormat = "ferry-made-from-1";

std::string one_of(JsonFields& f, const char* name, const std::vector<std::string>& known) {
  std::string value = f.text(name);
  if (std::find(known.begin(), known.end(), value) == known.end()) f.refuse(name, "is not known");
  return value;
}

std::string digest_text(JsonFields& f, const char* name) {
  std::string hex = f.text(name);
  if (!digest_from_hex(hex)) f.refuse(name, "must be 64 hex digits");
  return hex;
}

std::optional<std::string> optional_digest(JsonFields& f, const char* name) {
  if (!f.has(name)) return std::nullopt;
  return digest_text(f, name);
}

}  // namespace

Result<MadeFrom> made_from(const ModelSource& source,
                           const std::string& adapter,
                           const std::string& to,
                           const HashedBytes& hashed) {
  TRY_ASSIGN(std::string weights, source.weights_root(hashed));
  const auto* const directory = dynamic_cast<const ModelDir*>(&source);
  MadeFrom made{.program = fmt::format("ferry {}", kVersion),
                .to = to,
                .source = is_folder(source.path()) ? "directory" : "gguf",
                .weights = std::move(weights),
                .adapter = {},
                .passport = {},
                .signed_by = {}};
  if (!adapter.empty()) {
    TRY_ASSIGN(const MappedFile file, MappedFile::open(join_path(adapter, kAdapterWeightsName)));
    TRY_ASSIGN(const std::vector<Digest> leaves, hash_chunks(file.bytes(), hashed));
    made.adapter = root_of_weights({{kAdapterWeightsName, tree_root(leaves)}});
  }
  if (directory == nullptr || directory->passport() == nullptr) return made;
  const Passport& passport = *directory->passport();
  made.passport = passport.root;
  if (passport.signature) made.signed_by = passport.signature->public_key;
  TRY_ASSIGN(const std::vector<Verification> list,
             read_verifications(directory->path(), passport.root));
  made.verified =
      std::any_of(list.begin(), list.end(), [](const Verification& v) { return v.passed; });
  return made;
}

nlohmann::json to_json(const MadeFrom& made) {
  nlohmann::json j = {{"program", made.program},
                      {"to", made.to},
                      {"source", made.source},
                      {"weights", made.weights},
                      {"verified", made.verified}};
  if (made.adapter) j["adapter"] = *made.adapter;
  if (made.passport) j["passport"] = *made.passport;
  if (made.signed_by) j["signed_by"] = *made.signed_by;
  return j;
}

MadeFrom read_made_from(JsonFields f) {
  MadeFrom made;
  made.program = f.text("program");
  made.to = one_of(f, "to", {"f32", "bf16", "int8", "int4"});
  made.source = one_of(f, "source", {"directory", "gguf"});
  made.weights = digest_text(f, "weights");
  made.adapter = optional_digest(f, "adapter");
  made.passport = optional_digest(f, "passport");
  made.signed_by = optional_digest(f, "signed_by");  // keys have as many digits
  made.verified = f.boolean("verified");
  if (!made.passport && (made.signed_by || made.verified))
    f.refuse("passport", "is missing: nothing else is signed or verified");
  return made;
}

std::string made_from_text(const MadeFrom& made) {
  nlohmann::json j = to_json(made);
  j["format"] = kFormat;
  return json_text(j, 1) + "\n";
}

Result<MadeFrom> parse_made_from(std::string_view text, const std::string& path) {
  TRY_ASSIGN(const nlohmann::json root, parse_json(text, path));
  if (!root.is_object()) return fail(Code::kCorrupt, "{}: must be a JSON object", path);
  JsonProblem problem{.advice = "; restore it, or convert the model again"};
  JsonFields fields(root, path, problem);
  if (fields.text("format") != kFormat) fields.refuse("format", "is not known");
  MadeFrom made = read_made_from(fields);
  TRY(problem.done());
  return made;
}

std::string describe(const MadeFrom& made) {
  const bool codes = made.to == "int8" || made.to == "int4";
  std::string words =
      fmt::format("{}{} of the weights {}", made.to, codes ? " codes" : "", made.weights);
  if (made.adapter) words += fmt::format(" with the adapter {} merged in", *made.adapter);
  if (!made.passport)
    return words + (made.source == "gguf" ? " (a GGUF file)" : " (without a passport)");
  words += fmt::format(" (passport {}", *made.passport);
  words += made.signed_by ? ", signed by " + *made.signed_by : ", not signed";
  return words + (made.verified ? ", verified)" : ", never verified)");
}

}  // namespace ferry
