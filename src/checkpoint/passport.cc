#include "checkpoint/passport.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/json_fields.h"
#include "base/version.h"
#include "checkpoint/checksums.h"
#include "checkpoint/json.h"
#include "checkpoint/made_from_fields.h"

namespace ferry {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "ferry-passport";
constexpr const char* kVerifiedFormat = "ferry-verified-1";
constexpr std::string_view kRootPrefix = "ferry-passport-1\n";
constexpr uint64_t kVerifiedBytesMax = uint64_t{1} << 20;
constexpr int64_t kTokensMax = int64_t{1} << 20;  // of a probe
constexpr size_t kVerificationsMax = 64;

// --- writing

std::string text_of(const json& j) { return json_text(j); }

/// Numbers as they lie in memory (little-endian), in hex: exact, and small.
template <typename T>
std::string packed(const std::vector<T>& values) {
  return to_hex({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)});
}
std::string packed(float value) { return packed(std::vector<float>{value}); }

json to_json(const TopLogits& t) {
  return {{"tokens", packed(t.tokens)},
          {"values", packed(t.values)},
          {"log_sum_exp", packed(t.log_sum_exp)}};
}

json to_json(const LayerSummary& l) {
  return {{"norms", packed(l.norms)},
          {"projections", packed(l.projections)},
          {"noise", packed(l.noise)}};
}

json to_json(const RouterSummary& r) {
  return {{"experts", packed(r.experts)}, {"gaps", packed(r.gaps)}, {"noise", packed(r.noise)}};
}

json to_json(const Probe& p);

template <typename T>
json list_of(const std::vector<T>& items) {
  json list = json::array();
  for (const T& item : items) list.push_back(to_json(item));
  return list;
}

json to_json(const Probe& p) {
  return {{"name", p.name},
          {"tokens", packed(p.tokens)},
          {"prompt", p.prompt},
          {"logits", list_of(p.logits)},
          {"logit_noise", packed(p.logit_noise)},
          {"layers", list_of(p.layers)},
          {"routers", list_of(p.routers)}};
}

json to_json(const PassportTraining& t) {
  json j = {{"steps", t.steps},
            {"tokens", t.tokens},
            {"data", t.data},
            {"settings", t.settings},
            {"devices", t.devices},
            {"mla_form", t.mla_form}};
  if (t.skipped_tokens > 0) j["skipped_tokens"] = t.skipped_tokens;
  if (t.held_out_loss && std::isfinite(*t.held_out_loss)) j["held_out_loss"] = *t.held_out_loss;
  return j;
}

json statement_of(const Passport& p) {
  json files = json::object();
  for (const auto& [name, file] : p.files)
    files[name] = {{"bytes", file.bytes}, {"root", to_hex(file.root)}};
  json s = {{"program", p.program},
            {"numerics", p.numerics},
            {"chunk_bytes", kChunkBytes},
            {"files", files},
            {"probes",
             {{"dtype", to_string(p.probes.dtype)},
              {"reference", p.probes.reference},
              {"top_k", p.probes.top_k},
              {"list", list_of(p.probes.list)}}}};
  if (p.training) s["training"] = to_json(*p.training);
  if (p.base) s["base"] = *p.base;
  if (p.base_vocabulary)
    s["base_vocabulary"] = {{"ids", p.base_vocabulary->ids}, {"hash", p.base_vocabulary->hash}};
  else if (p.former_base_vocabulary)
    s["base_vocabulary"] = *p.former_base_vocabulary;
  if (p.made_from) s["made_from"] = to_json(*p.made_from);
  return s;
}

std::string root_of(const json& statement) {
  Hasher hasher;
  hasher.update(kRootPrefix.data(), kRootPrefix.size());
  const std::string text = text_of(statement);
  hasher.update(text.data(), text.size());
  return hasher.hex();
}

// --- reading

Digest digest(JsonFields& f, const char* name) {
  const std::optional<Digest> digest = digest_from_hex(f.text(name));
  if (!digest) f.refuse(name, "must be 64 hex digits");
  return digest.value_or(Digest{});
}

/// `count` numbers; -1: any number of them.
template <typename T>
std::vector<T> numbers(JsonFields& f, const char* name, int64_t count) {
  const std::string hex = f.text(name);
  const size_t expected = count < 0 ? hex.size() / (2 * sizeof(T)) : static_cast<size_t>(count);
  const auto bytes = from_hex(hex, expected * sizeof(T));
  std::vector<T> values;
  if (!bytes) {
    f.refuse(name, fmt::format("must be {} numbers in hex", expected));
    return values;
  }
  values.resize(expected);
  if (expected > 0) std::memcpy(values.data(), bytes->data(), bytes->size());
  return values;
}

float number(JsonFields& f, const char* name) {
  const std::vector<float> one = numbers<float>(f, name, 1);
  return one.empty() ? 0 : one[0];
}

Probe read_probe(JsonFields f, int64_t top_k) {
  Probe p;
  p.name = f.text("name");
  p.tokens = numbers<int32_t>(f, "tokens", -1);
  const auto tokens = static_cast<int64_t>(p.tokens.size());
  if (tokens < 1 || tokens > kTokensMax) f.refuse("tokens", "must not be empty");
  p.prompt = f.integer("prompt", 1, std::max<int64_t>(tokens, 1));
  p.logit_noise = number(f, "logit_noise");
  const auto each = [&](const char* name, const auto& read) {
    size_t index = 0;
    for (const json& j : f.list(name)) read(f.item(name, j, index++));
  };
  each("logits", [&](JsonFields l) {
    TopLogits t;
    t.tokens = numbers<int32_t>(l, "tokens", -1);
    t.values = numbers<float>(l, "values", static_cast<int64_t>(t.tokens.size()));
    t.log_sum_exp = number(l, "log_sum_exp");
    if (t.tokens.empty()) l.refuse("tokens", "must not be empty");
    p.logits.push_back(std::move(t));
  });
  each("layers", [&](JsonFields l) {
    LayerSummary s;
    s.norms = numbers<float>(l, "norms", tokens);
    s.projections = numbers<float>(l, "projections", tokens * kProjections);
    s.noise = number(l, "noise");
    p.layers.push_back(std::move(s));
  });
  each("routers", [&](JsonFields r) {
    RouterSummary s;
    s.experts = numbers<int32_t>(r, "experts", tokens * top_k);
    s.gaps = numbers<float>(r, "gaps", tokens);
    s.noise = number(r, "noise");
    p.routers.push_back(std::move(s));
  });
  if (static_cast<int64_t>(p.logits.size()) != tokens - p.prompt + 1)
    f.refuse("logits",
             fmt::format("{} positions, the probe has {}", p.logits.size(), tokens - p.prompt + 1));
  if (p.layers.empty()) f.refuse("layers", "must not be empty");
  return p;
}

Probes read_probes(JsonFields f) {
  Probes probes;
  const std::string dtype = f.text("dtype");
  if (dtype != "F32" && dtype != "BF16") f.refuse("dtype", "must be F32 or BF16");
  probes.dtype = dtype == "F32" ? DType::kF32 : DType::kBF16;
  probes.reference = f.text("reference");
  probes.top_k = f.integer("top_k", 0, 1024);
  for (const json& j : f.list("list")) {
    probes.list.push_back(read_probe(f.item("list", j, probes.list.size()), probes.top_k));
    const Probe &first = probes.list.front(), &last = probes.list.back();
    if (first.layers.size() != last.layers.size() || first.routers.size() != last.routers.size())
      f.refuse("list", "probes have different numbers of layers");
  }
  return probes;
}

PassportTraining read_training(JsonFields f) {
  PassportTraining t;
  t.steps = f.integer("steps", 0, INT64_MAX);
  t.tokens = f.integer("tokens", 0, INT64_MAX);
  if (f.has("skipped_tokens")) t.skipped_tokens = f.integer("skipped_tokens", 0, INT64_MAX);
  t.data = f.text("data");
  t.settings = f.text("settings");
  t.mla_form = f.text("mla_form");
  t.devices = f.texts("devices");
  if (f.has("held_out_loss")) t.held_out_loss = f.real("held_out_loss");
  return t;
}

void read_files(JsonFields statement, const json& chunks, Passport& p) {
  const json& files = statement.members("files");
  for (const auto& [name, entry] : files.items()) {
    JsonFields f(entry, "statement.files." + printable(name), statement.problem());
    if (!is_inside(name)) f.refuse("", "points outside the folder");
    PassportFile file;
    file.bytes = static_cast<uint64_t>(f.integer("bytes", 0, INT64_MAX / 2));
    file.root = digest(f, "root");
    const auto leaves = chunks.find(name);
    if (leaves == chunks.end() || !leaves->is_string()) {
      f.refuse("", "its chunks are not listed");
    } else if (!statement.problem()) {
      const auto& hex = leaves->get_ref<const std::string&>();
      const size_t count = hex.size() / (2 * sizeof(Digest));
      const auto bytes = from_hex(hex, count * sizeof(Digest));
      if (!bytes || count != chunk_count(file.bytes)) {
        f.refuse("", fmt::format("must have the hashes of {} chunks", chunk_count(file.bytes)));
      } else {
        file.chunks.resize(count);
        if (count > 0) std::memcpy(file.chunks.data(), bytes->data(), bytes->size());
        if (tree_root(file.chunks) != file.root)
          f.refuse("", "the hashes of its chunks do not give its root: the passport was edited");
      }
    }
    p.files[name] = std::move(file);
  }
  if (!statement.problem() && chunks.size() != files.size())
    statement.refuse("files", "chunks are listed for other files, too");
}

Result<void> check_signature(const json& root, Passport& p) {
  JsonProblem problem;
  JsonFields f(root["signature"], "signature", problem);
  PassportSignature s{f.text("public_key"), f.text("signature")};
  TRY(problem.done());
  if (!is_signed_by(s.public_key, p.root, s.signature))
    return fail(Code::kCorrupt,
                "signature: it is not {}'s signature of this root; the passport was edited, or "
                "signed for another model",
                printable(s.public_key));
  p.signature = std::move(s);
  return {};
}

Result<Passport> parse_checked(const json& root) {
  if (!root.is_object() || !root.contains("format") || root["format"] != kFormat)
    return fail(Code::kCorrupt, "not a passport: \"format\" is not \"{}\"", kFormat);
  JsonProblem problem;
  JsonFields top(root, "passport", problem);
  const int64_t version = top.integer("version", 1, INT32_MAX);
  TRY(problem.done());
  if (version > kPassportVersion)
    return fail(Code::kInvalidInput,
                "format version {}; this version of Ferry ({}) reads {}: use a newer one",
                version,
                kVersion,
                kPassportVersion);
  Passport p;
  p.root = to_hex(digest(top, "root"));
  const json& statement = top.at("statement");
  const json& chunks = top.members("chunks");
  TRY(problem.done());
  if (root_of(statement) != p.root)
    return fail(Code::kCorrupt,
                "its statement does not have the root that it names: it was edited; restore it");
  if (root.contains("signature")) TRY(check_signature(root, p));
  JsonFields s(statement, "statement", problem);
  p.program = s.text("program");
  p.numerics = static_cast<int>(s.integer("numerics", 1, INT32_MAX));
  s.integer("chunk_bytes", kChunkBytes, kChunkBytes);
  read_files(s, chunks, p);
  if (s.has("training")) p.training = read_training(s.object("training"));
  if (s.has("base")) p.base = to_hex(digest(s, "base"));
  const json* vocabulary = s.find("base_vocabulary");
  if (vocabulary != nullptr && vocabulary->is_string()) {
    p.former_base_vocabulary = to_hex(digest(s, "base_vocabulary"));
  } else if (vocabulary != nullptr) {
    JsonFields v = s.object("base_vocabulary");
    p.base_vocabulary = {v.integer("ids", 0, INT32_MAX), to_hex(digest(v, "hash"))};
  }
  if (s.has("made_from")) p.made_from = read_made_from(s.object("made_from"));
  p.probes = read_probes(s.object("probes"));
  TRY(problem.done());
  // What is read must be all there is: nothing may be stated that nobody reads.
  const json known = statement_of(p);
  if (root_of(known) == p.root) return p;
  const json difference = json::diff(known, statement);
  return fail(Code::kCorrupt,
              "statement{}: not as format version {} has it; another program wrote it",
              difference.empty() ? "" : printable(difference[0].value("path", "")),
              version);
}

}  // namespace

Result<Passport> Passport::parse(std::string_view text, const std::string& path) {
  TRY_ASSIGN(const json root, parse_json(text, path));
  Result<Passport> passport = parse_checked(root);
  if (!passport) return fail(passport.error().code, "{}: {}", path, passport.error().message);
  return passport;
}

Result<void> Passport::add_file(const std::string& folder, const std::string& name) {
  TRY_ASSIGN(const MappedFile mapped, MappedFile::open(join_path(folder, name)));
  TRY_ASSIGN(std::vector<Digest> chunks, hash_chunks(mapped.bytes()));
  PassportFile file{mapped.bytes().size(), {}, std::move(chunks)};
  file.root = tree_root(file.chunks);
  files[name] = std::move(file);
  return {};
}

void Passport::seal(const std::optional<KeyPair>& key) {
  root = root_of(statement_of(*this));
  signature.reset();
  if (key) signature = PassportSignature{key->public_key, sign(*key, root)};
}

std::string Passport::to_json() const {
  check(!root.empty(), "passport: not sealed");
  json chunks = json::object();
  for (const auto& [name, file] : files) {
    std::string hex;
    for (const Digest& leaf : file.chunks) hex += to_hex(leaf);
    chunks[name] = hex;
  }
  nlohmann::ordered_json top;
  top["format"] = kFormat;
  top["version"] = kPassportVersion;
  top["root"] = root;
  if (signature)
    top["signature"] = {{"public_key", signature->public_key}, {"signature", signature->signature}};
  top["statement"] = statement_of(*this);
  top["chunks"] = chunks;
  return json_text(top, 1) + "\n";
}

uint64_t Passport::probes_bytes() const {
  return text_of(statement_of(*this)["probes"]).size() * 5 / 4;  // indented
}

namespace {

/// Whether a file of this name, in the folder itself, changes what is answered.
bool counts(const std::string& name) {
  if (name.starts_with('.')) return false;
  if (name == kPassportName || name == kVerifiedName || name == kChecksumsName) return false;
  if (name == "merges.txt" || name == "vocab.txt") return true;  // other texts are for people
  for (const char* ending :
       {".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".py", ".bin", ".pt", ".pth"})
    if (name.ends_with(ending)) return true;
  return false;
}

}  // namespace

Result<void> check_signer(const Passport* passport,
                          const std::string& public_key,
                          const std::string& directory) {
  if (passport == nullptr)
    return fail(Code::kInvalidInput,
                "{}: has no {}, so nobody signed it; `ferry passport` writes one",
                directory,
                kPassportName);
  if (passport->signature && passport->signature->public_key == public_key) return {};
  return fail(Code::kInvalidInput,
              "{}: {}, expected {}",
              join_path(directory, kPassportName),
              passport->signature ? "is signed by another key: " + passport->signature->public_key
                                  : "is not signed",
              public_key);
}

Result<std::vector<std::string>> files_that_count(const std::string& folder) {
  // Transformers keeps templates beyond the first in a folder of their own.
  constexpr const char* kTemplates = "additional_chat_templates";
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  std::vector<std::string> found;
  for (const std::string& name : names) {
    if (!is_folder(join_path(folder, name))) {
      if (counts(name)) found.push_back(name);
    } else if (name == kTemplates) {
      TRY_ASSIGN(const std::vector<std::string> templates, list_folder(join_path(folder, name)));
      for (const std::string& t : templates)
        if (!is_folder(join_path(join_path(folder, name), t))) found.push_back(join_path(name, t));
    }
  }
  return found;
}

tl::unexpected<Status> unlisted(const std::string& path) {
  return fail(
      Code::kCorrupt,
      "{}: {} does not list it: it was put there later, or the passport is another "
      "model's; remove it, or, if it belongs to the model, list it, too (ferry passport DIR "
      "--add)",
      path,
      kPassportName);
}

Result<std::string> read_listed_file(const std::string& path, uint64_t bytes_max) {
  TRY_ASSIGN(std::string content, read_file(path, bytes_max));
  const std::string folder = parent_folder(path);
  const std::string passport_path = join_path(folder, kPassportName);
  TRY_ASSIGN(const bool there, is_there(passport_path));
  if (!there) return content;
  TRY_ASSIGN(const std::string text, read_file(passport_path));
  TRY_ASSIGN(const Passport passport, Passport::parse(text, passport_path));
  ChunkChecks checks(passport);
  const std::string name = path.substr(path.find_last_of('/') + 1);
  TRY(checks.check_whole(name, path, std::as_bytes(std::span(content))));
  return content;
}

Result<void> ChunkChecks::check_size(const std::string& name,
                                     const std::string& path,
                                     uint64_t bytes) const {
  const auto it = passport_->files.find(name);
  if (it == passport_->files.end()) return unlisted(path);
  if (it->second.bytes != bytes)
    return fail(Code::kCorrupt,
                "{}: {} bytes, {} is for a file of {}; one of the two belongs to another model, "
                "or was cut short",
                path,
                bytes,
                kPassportName,
                it->second.bytes);
  return {};
}

Result<void> ChunkChecks::check_range(
    const std::string& name,
    const std::string& path,
    std::span<const std::byte> file,
    uint64_t begin,
    uint64_t end,
    const std::function<std::string(uint64_t first, uint64_t last)>& touched) {
  TRY(check_size(name, path, file.size()));
  check(begin <= end && end <= file.size(), "passport: bytes {} to {} of {}", begin, end, path);
  const std::vector<Digest>& hashes = passport_->files.at(name).chunks;
  std::vector<bool>& right = right_[name];
  right.resize(hashes.size());
  for (uint64_t c = begin / kChunkBytes; begin < end && c < chunk_count(end); ++c) {
    if (right[c]) continue;
    const uint64_t first = c * kChunkBytes,
                   last = std::min<uint64_t>(first + kChunkBytes, file.size());
    if (hash_chunk(file.subspan(first, last - first)) != hashes[c])
      return fail(Code::kCorrupt,
                  "{}: chunk {} (bytes {} to {}) does not have the hash in {}; it was changed or "
                  "damaged, or the passport is another model's. It holds {}. Restore the file",
                  path,
                  c,
                  first,
                  last,
                  kPassportName,
                  touched(first, last));
    right[c] = true;
  }
  return {};
}

Result<void> ChunkChecks::check_whole(const std::string& name,
                                      const std::string& path,
                                      std::span<const std::byte> file) {
  return check_range(name, path, file, 0, file.size(), [&](uint64_t, uint64_t) { return name; });
}

std::string verified_as(const Device& device) {
  return device.kind() == DeviceKind::kCpu ? "cpu" : device.describe();
}

Result<std::vector<Verification>> read_verifications(const std::string& folder,
                                                     const std::string& model_root) {
  const std::string path = join_path(folder, kVerifiedName);
  std::vector<Verification> list;
  TRY_ASSIGN(const bool there, is_there(path));
  if (!there) return list;
  TRY_ASSIGN(const std::string text, read_file(path, kVerifiedBytesMax));
  TRY_ASSIGN(const json root, parse_json(text, path));
  JsonProblem problem{.advice = "; remove the file and verify again"};
  JsonFields f(root, path, problem);
  if (f.text("format") != kVerifiedFormat) f.refuse("format", "is not known");
  if (f.text("root") != model_root && !problem) return list;
  for (const json& j : f.list("verifications")) {
    JsonFields v = f.item("verifications", j, list.size());
    const std::string dtype = v.text("dtype"), verdict = v.text("verdict");
    list.push_back({v.text("device"),
                    dtype_from_string(dtype).value_or(DType::kBF16),
                    verdict == "passed",
                    v.text("program"),
                    v.integer("unix_ms", 0, INT64_MAX)});
    if (!dtype_from_string(dtype)) v.refuse("dtype", "is not known");
  }
  TRY(problem.done());
  return list;
}

Result<void> add_verification(const std::string& folder,
                              const std::string& model_root,
                              const Verification& verification) {
  TRY_ASSIGN(std::vector<Verification> list, read_verifications(folder, model_root));
  std::erase_if(list, [&](const Verification& v) {
    return v.device == verification.device && v.dtype == verification.dtype;
  });
  list.push_back(verification);
  if (list.size() > kVerificationsMax) list.erase(list.begin());
  json verifications = json::array();
  for (const Verification& v : list)
    verifications.push_back({{"device", v.device},
                             {"dtype", to_string(v.dtype)},
                             {"verdict", v.passed ? "passed" : "failed"},
                             {"program", v.program},
                             {"unix_ms", v.unix_ms}});
  const json root = {
      {"format", kVerifiedFormat}, {"root", model_root}, {"verifications", verifications}};
  return write_file_atomic(join_path(folder, kVerifiedName), json_text(root, 1) + "\n");
}

}  // namespace ferry
