#include "train/reference_file.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "base/alive.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_fields.h"
#include "checkpoint/passport.h"

namespace ferry {
namespace {

constexpr const char* kName = "reference.json";

std::string hash_of(const std::string& key, std::span<const float> log_probs) {
  Hasher hash;
  hash.update(key.data(), key.size());
  hash.update(log_probs.data(), log_probs.size_bytes());
  return hash.hex();
}

struct Stored {
  std::string of, hash;
  std::vector<float> log_probs;
};

/// What such a file says, whether or not its hash is right; nothing where there is none.
Result<std::optional<Stored>> stored_in(const std::string& folder) {
  const std::string path = join_path(folder, kName);
  const Result<std::string> text = read_file(path);
  if (!text && text.error().code == Code::kNotFound) return std::nullopt;
  TRY(text);
  TRY_ASSIGN(const nlohmann::json document, parse_json(*text, path));
  JsonProblem problem{.code = Code::kCorrupt, .advice = "", .status = {}};
  JsonFields f(document, path, problem);
  Stored stored{.of = f.text("of"), .hash = f.text("blake2b"), .log_probs = {}};
  const std::vector<double> numbers = f.reals("log_probs");
  TRY(problem.done());
  stored.log_probs.assign(numbers.begin(), numbers.end());
  return stored;
}

}  // namespace

std::string reference_key(models::CausalLm& model,
                          models::MlaForm form,
                          const std::string& fingerprint) {
  Hasher hash;
  const std::string facts = fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n",
                                        model.config_json("float32"),
                                        to_string(model.compute()),
                                        static_cast<int>(form),
                                        verified_as(model.device()),
                                        kNumerics,
                                        fingerprint);
  hash.update(facts.data(), facts.size());
  std::vector<std::byte> bytes;
  for (const Weight* w : model.weights()) {
    bytes.resize(w->value.bytes());
    w->value.copy_bytes_to(bytes.data());
    hash.update(w->name.data(), w->name.size());
    hash.update(bytes.data(), bytes.size());
    still_alive();
  }
  return hash.hex();
}

Result<std::vector<float>> read_reference(const std::string& folder,
                                          const std::string& key,
                                          size_t answers) {
  TRY_ASSIGN(const std::optional<Stored> stored, stored_in(folder));
  if (!stored || stored->of != key) return std::vector<float>();
  const std::vector<float>& log_probs = stored->log_probs;
  if (hash_of(key, log_probs) != stored->hash || log_probs.size() > answers ||
      log_probs.size() % 2 != 0)
    return fail(
        Code::kCorrupt, "{}: its numbers are not those of its hash", join_path(folder, kName));
  return log_probs;
}

Result<void> check_reference_is_ours(const std::string& folder) {
  TRY(stored_in(folder));
  return {};
}

Result<void> write_reference(const std::string& folder,
                             const std::string& key,
                             std::span<const float> log_probs) {
  const nlohmann::ordered_json document = {
      {"of", key},
      {"blake2b", hash_of(key, log_probs)},
      {"log_probs", std::vector<double>(log_probs.begin(), log_probs.end())}};
  return write_file_atomic(join_path(folder, kName), json_text(document) + "\n");
}

}  // namespace ferry
