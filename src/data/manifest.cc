#include "data/manifest.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/hash.h"

namespace ferry::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "ferry-dataset";

constexpr uint64_t kTooMany = UINT64_MAX;

/// kTooMany where the sum is no int64, as no sum of a dataset's is.
uint64_t sum(const std::vector<ShardInfo>& shards, uint64_t ShardInfo::*field) {
  uint64_t total = 0;
  for (const ShardInfo& s : shards)
    if (__builtin_add_overflow(total, s.*field, &total) || total > INT64_MAX) return kTooMany;
  return total;
}

Json part_json(const Part& part) {
  Json shards = Json::array();
  for (const ShardInfo& s : part.shards)
    shards.push_back({{"file", s.file},
                      {"file_bytes", s.file_bytes},
                      {"blake2b", s.blake2b},
                      {"tokens", s.tokens},
                      {"documents", s.documents},
                      {"bytes", s.bytes}});
  return {{"tokens", part.tokens()},
          {"documents", part.documents()},
          {"bytes", part.bytes()},
          {"shards", shards}};
}

/// What is seldom there is written only where it is.
Json input_json(const InputInfo& input) {
  Json json = {{"path", input.path},
               {"file_bytes", input.file_bytes},
               {"blake2b", input.blake2b},
               {"documents", input.documents}};
  const Damage& damage = input.damage;
  if (damage.ill_formed > 0) {
    json["ill_formed_bytes"] = damage.ill_formed;
    json["ill_formed_line"] = damage.ill_formed_line;
  }
  if (damage.skipped > 0) {
    json["skipped_lines"] = damage.skipped;
    Json lines = Json::array();
    for (const Damage::Line& line : damage.lines)
      lines.push_back({{"line", line.number}, {"why", line.why}});
    json["skipped"] = lines;
  }
  return json;
}

/// Reads fields and remembers the first that is not as it must be.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  uint64_t number(const char* name) {
    const Json* v = get(name, [](const Json& j) { return j.is_number_unsigned(); });
    return v != nullptr ? v->get<uint64_t>() : 0;
  }
  int32_t id(const char* name) {
    const uint64_t n = number(name);
    if (n > INT32_MAX) fault(name);
    return static_cast<int32_t>(n & INT32_MAX);
  }
  double real(const char* name) {
    const Json* v = get(name, [](const Json& j) { return j.is_number(); });
    return v != nullptr ? v->get<double>() : 0;
  }
  bool boolean(const char* name) {
    const Json* v = get(name, [](const Json& j) { return j.is_boolean(); });
    return v != nullptr && v->get<bool>();
  }
  std::string text(const char* name) {
    const Json* v = get(name, [](const Json& j) { return j.is_string(); });
    return v != nullptr ? v->get<std::string>() : "";
  }
  bool has(const char* name) const { return json_.is_object() && json_.contains(name); }
  const Json& object(const char* name) {
    return nested(name, [](const Json& j) { return j.is_object(); });
  }
  const Json& array(const char* name) {
    return nested(name, [](const Json& j) { return j.is_array(); });
  }

  void fault(const std::string& name) {
    if (fault_.empty()) fault_ = name;
  }
  void join(const Fields& part, const char* name) {
    if (!part.fault_.empty()) fault(fmt::format("{}.{}", name, part.fault_));
  }
  const std::string& first_fault() const { return fault_; }

 private:
  template <typename Ok>
  const Json* get(const char* name, Ok ok) {
    const auto it = json_.is_object() ? json_.find(name) : json_.end();
    if (json_.is_object() && it != json_.end() && ok(*it)) return &*it;
    fault(name);
    return nullptr;
  }
  template <typename Ok>
  const Json& nested(const char* name, Ok ok) {
    static const Json empty;
    const Json* v = get(name, ok);
    return v != nullptr ? *v : empty;
  }
  const Json& json_;
  std::string fault_;
};

Part read_part(Fields& parent, const char* name) {
  Fields in(parent.object(name));
  Part part;
  for (const Json& json : in.array("shards")) {
    Fields f(json);
    ShardInfo s{f.text("file"),
                f.number("file_bytes"),
                f.text("blake2b"),
                f.number("tokens"),
                f.number("documents"),
                f.number("bytes")};
    // A shard lies in the dataset's folder, wherever its manifest would like it to be.
    if (s.file.empty() || s.file.find('/') != s.file.npos) f.fault("file");
    in.join(f, "shards");
    part.shards.push_back(std::move(s));
  }
  const auto check_sum = [&](const char* field, uint64_t ShardInfo::*of_shard) {
    const uint64_t total = sum(part.shards, of_shard);
    if (total == kTooMany || total != in.number(field)) in.fault(field);
  };
  check_sum("tokens", &ShardInfo::tokens);
  check_sum("documents", &ShardInfo::documents);
  check_sum("bytes", &ShardInfo::bytes);
  if (sum(part.shards, &ShardInfo::file_bytes) == kTooMany) in.fault("file_bytes");
  parent.join(in, name);
  return part;
}

void read_damage(Fields& input, Damage& damage) {
  if (input.has("ill_formed_bytes")) {
    damage.ill_formed = input.number("ill_formed_bytes");
    damage.ill_formed_line = input.number("ill_formed_line");
  }
  if (!input.has("skipped_lines")) return;
  damage.skipped = input.number("skipped_lines");
  for (const Json& line : input.array("skipped")) {
    Fields f(line);
    damage.lines.push_back({f.number("line"), f.text("why")});
    input.join(f, "skipped");
  }
}

}  // namespace

uint64_t Part::tokens() const { return sum(shards, &ShardInfo::tokens); }
uint64_t Part::documents() const { return sum(shards, &ShardInfo::documents); }
uint64_t Part::bytes() const { return sum(shards, &ShardInfo::bytes); }

std::string Manifest::to_json() const {
  Json inputs_json = Json::array();
  for (const InputInfo& i : inputs) inputs_json.push_back(input_json(i));
  Json json = {
      {"format", kFormat},
      {"version", version},
      {"tokenizer",
       {{"file", kTokenizerFile},
        {"blake2b", tokenizer_blake2b},
        {"vocab_size", vocab_size},
        {"bos", bos},
        {"eos", eos},
        {"token_bytes_exact", token_bytes_exact}}},
      {"settings",
       {{"split", split},
        {"field", field},
        {"min_document_bytes", min_document_bytes},
        {"held_out_bytes", held_out_bytes},
        {"near_duplicate", near_duplicate},
        {"seed", seed}}},
      {"inputs", inputs_json},
      {"left_out", {{"duplicates", duplicates}, {"near_duplicates", near_duplicates}}},
      {"held_out_text_blake2b", held_out_text_blake2b},
      {"train", part_json(train)},
      {"held_out", part_json(held_out)},
  };
  if (text_options.as_text) json["settings"]["as_text"] = true;
  if (text_options.skip_bad > 0) json["settings"]["skip_bad"] = text_options.skip_bad;
  // Paths may hold any bytes; those that are no UTF-8 are shown as U+FFFD.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

bool Manifest::is_manifest(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  return json.is_object() && json.contains("format") && json["format"] == kFormat;
}

Result<Manifest> Manifest::parse(const std::string& text, const std::string& path) {
  const Json json = Json::parse(text, nullptr, false);
  constexpr const char* kAdvice = "restore it, or prepare the dataset again";
  if (json.is_discarded()) return fail(Code::kCorrupt, "{}: is not JSON; {}", path, kAdvice);
  Fields root(json);
  Manifest m;
  if (root.text("format") != kFormat)
    return fail(Code::kCorrupt, "{}: is not a dataset's manifest; {}", path, kAdvice);
  m.version = root.id("version");
  if (m.version != 1)
    return fail(Code::kInvalidInput,
                "{}: is of version {}, this program reads version 1; prepare the dataset again",
                path,
                m.version);
  Fields tokenizer(root.object("tokenizer"));
  m.tokenizer_blake2b = tokenizer.text("blake2b");
  m.vocab_size = tokenizer.id("vocab_size");
  m.bos = tokenizer.id("bos");
  m.eos = tokenizer.id("eos");
  m.token_bytes_exact = tokenizer.boolean("token_bytes_exact");
  if (m.bos >= m.vocab_size || m.eos >= m.vocab_size) tokenizer.fault("vocab_size");
  root.join(tokenizer, "tokenizer");
  Fields settings(root.object("settings"));
  m.split = settings.text("split");
  m.field = settings.text("field");
  m.min_document_bytes = settings.number("min_document_bytes");
  m.held_out_bytes = settings.number("held_out_bytes");
  m.near_duplicate = settings.real("near_duplicate");
  m.seed = settings.number("seed");
  m.text_options.as_text = settings.has("as_text") && settings.boolean("as_text");
  if (settings.has("skip_bad")) m.text_options.skip_bad = settings.number("skip_bad");
  root.join(settings, "settings");
  for (const Json& input : root.array("inputs")) {
    Fields f(input);
    m.inputs.push_back(
        {f.text("path"), f.number("file_bytes"), f.text("blake2b"), f.number("documents")});
    read_damage(f, m.inputs.back().damage);
    root.join(f, "inputs");
  }
  Fields left_out(root.object("left_out"));
  m.duplicates = left_out.number("duplicates");
  m.near_duplicates = left_out.number("near_duplicates");
  root.join(left_out, "left_out");
  m.held_out_text_blake2b = root.text("held_out_text_blake2b");
  m.train = read_part(root, "train");
  m.held_out = read_part(root, "held_out");
  if (!root.first_fault().empty())
    return fail(Code::kCorrupt,
                "{}: field '{}' is missing or wrong; {}",
                path,
                root.first_fault(),
                kAdvice);
  return m;
}

std::string Manifest::fingerprint() const {
  const Json json = {{"tokenizer", tokenizer_blake2b},
                     {"bos", bos},
                     {"eos", eos},
                     {"train", part_json(train)},
                     {"held_out", part_json(held_out)}};
  const std::string text = json.dump();
  return blake2b_hex(text.data(), text.size());
}

}  // namespace ferry::data
