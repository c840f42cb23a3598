#include "train/agreement.h"

#include <climits>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_fields.h"

namespace ferry {
namespace {

struct Field {
  const char* name;
  std::string Identity::*value;
  const char* advice;
};
constexpr Field kFields[] = {
    {"binary", &Identity::binary, "start the same build of Ferry everywhere"},
    {"settings", &Identity::settings, "give all ranks the same settings"},
    {"data", &Identity::data, "give all ranks the same data.dir"},
    {"weights",
     &Identity::weights,
     "all ranks must see the same checkpoint.dir and model.init, unharmed"}};

std::string text_of(const Readiness& mine) {
  nlohmann::json j = {{"stop", mine.stop}};
  if (!mine.prepared) {
    j["code"] = static_cast<int>(mine.prepared.error().code);
    j["why"] = mine.prepared.error().message;
  }
  for (const Field& f : kFields) j[f.name] = mine.identity.*f.value;
  return json_text(j);
}

Readiness read(const std::string& text, int rank) {
  const std::string where = fmt::format("what rank {} says of itself", rank);
  Readiness r;
  const Result<nlohmann::json> document = parse_json(text, where);
  if (!document) {
    r.prepared = tl::unexpected(document.error());
    return r;
  }
  JsonProblem problem;
  JsonFields f(*document, where, problem);
  r.stop = f.boolean("stop");
  if (f.has("why"))
    r.prepared = tl::unexpected(Status{
        static_cast<Code>(f.integer("code", 0, static_cast<int>(Code::kVerdict))), f.text("why")});
  for (const Field& field : kFields) r.identity.*field.value = f.text(field.name);
  if (problem) r.prepared = problem.done();
  return r;
}

/// Once for a process: its program stays what it is, and in a recovery all wait for each other's hashes.
const Result<std::string>& hash_of_program() {
  static const Result<std::string> hash = []() -> Result<std::string> {
    TRY_ASSIGN(const MappedFile program, MappedFile::open("/proc/self/exe"));
    return blake2b_hex(program.bytes());
  }();
  return hash;
}

std::string hash_of_weights(models::CausalLm& model,
                            const RunState& state,
                            const Optimizer& optimizer) {
  Hasher hasher;
  for (const int64_t n :
       {state.step, state.tokens, state.rewinds.skipped_tokens, optimizer.steps()})
    hasher.update(&n, sizeof n);
  for (const Weight* w : model.weights()) {
    hasher.update(w->name.data(), w->name.size() + 1);
    std::vector<std::byte> bytes(w->value.bytes());
    w->value.copy_bytes_to(bytes.data());
    hasher.update(bytes.data(), bytes.size());
  }
  return hasher.hex();
}

}  // namespace

Result<Identity> identity_of(const Settings& settings,
                             const RunData& data,
                             models::CausalLm& model,
                             const RunState& state,
                             const Optimizer& optimizer) {
  Identity id;
  TRY_ASSIGN(id.binary, hash_of_program());
  const std::string text = print_settings(settings);
  id.settings = blake2b_hex(text.data(), text.size());
  id.data = data.fingerprint;
  id.weights = hash_of_weights(model, state, optimizer);
  return id;
}

Agreement agree(comm::Communicator& ranks,
                int64_t round,
                const Readiness& mine,
                double patience_s) {
  std::vector<Readiness> all;
  for (const std::string& text :
       comm::all_gather_texts(ranks, {comm::Purpose::kAgreement, round}, text_of(mine), patience_s))
    all.push_back(read(text, static_cast<int>(all.size())));
  Agreement a;
  for (const Readiness& r : all) a.stop |= r.stop;
  for (size_t r = 0; r < all.size(); ++r)
    if (const Result<void>& prepared = all[r].prepared; !prepared) {
      // What rank 0 says everybody could have said.
      const std::string who = r == 0 ? "" : fmt::format("rank {}: ", r);
      a.all = fail(prepared.error().code, "{}{}", who, prepared.error().message);
      return a;
    }
  if (a.stop) return a;  // those who leave have not prepared all of it
  for (size_t r = 1; r < all.size(); ++r)
    for (const Field& f : kFields)
      if (all[r].identity.*f.value != all[0].identity.*f.value) {
        a.all = fail(Code::kInvalidInput,
                     "rank {} has other {} than rank 0 ({:.16} there, {:.16} here): {}",
                     r,
                     f.name,
                     all[r].identity.*f.value,
                     all[0].identity.*f.value,
                     f.advice);
        return a;
      }
  return a;
}

}  // namespace ferry
