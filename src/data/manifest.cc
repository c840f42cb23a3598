#include "data/manifest.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/hash.h"
#include "base/json_fields.h"

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

int32_t read_id(JsonFields& f, const char* name) {
  return static_cast<int32_t>(f.integer(name, 0, INT32_MAX));
}

Part read_part(JsonFields in) {
  Part part;
  for (const auto& json : in.list("shards")) {
    JsonFields f = in.item("shards", json, part.shards.size());
    ShardInfo s{f.text("file"),
                f.natural("file_bytes"),
                f.text("blake2b"),
                f.natural("tokens"),
                f.natural("documents"),
                f.natural("bytes")};
    if (s.file.empty() || s.file.find('/') != s.file.npos)
      f.refuse("file", "must name a file of the dataset's folder");
    part.shards.push_back(std::move(s));
  }
  const auto check_sum = [&](const char* field, uint64_t ShardInfo::*of_shard) {
    const uint64_t total = sum(part.shards, of_shard);
    if (total == kTooMany || total != in.natural(field))
      in.refuse(field, "is not the sum of the shards'");
  };
  check_sum("tokens", &ShardInfo::tokens);
  check_sum("documents", &ShardInfo::documents);
  check_sum("bytes", &ShardInfo::bytes);
  if (sum(part.shards, &ShardInfo::file_bytes) == kTooMany)
    in.refuse("shards", "hold more bytes than there are");
  return part;
}

void read_damage(JsonFields& input, Damage& damage) {
  if (input.has("ill_formed_bytes")) {
    damage.ill_formed = input.natural("ill_formed_bytes");
    damage.ill_formed_line = input.natural("ill_formed_line");
  }
  if (!input.has("skipped_lines")) return;
  damage.skipped = input.natural("skipped_lines");
  for (const auto& line : input.list("skipped")) {
    JsonFields f = input.item("skipped", line, damage.lines.size());
    damage.lines.push_back({f.natural("line"), f.text("why")});
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
  if (conversations()) json["settings"]["chat_template_blake2b"] = chat_template_blake2b;
  if (text_options.as_text) json["settings"]["as_text"] = true;
  if (text_options.skip_bad > 0) json["settings"]["skip_bad"] = text_options.skip_bad;
  // Paths may hold any bytes; those that are no UTF-8 are shown as U+FFFD.
  return json_text(json, 1) + "\n";
}

bool Manifest::is_manifest(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  return json.is_object() && json.contains("format") && json["format"] == kFormat;
}

Result<Manifest> Manifest::parse(const std::string& text, const std::string& path) {
  JsonProblem problem{.advice = "restore it, or prepare the dataset again"};
  const auto parsed = parse_json(text, path);
  if (!parsed) return fail(Code::kCorrupt, "{}; {}", parsed.error().message, problem.advice);
  JsonFields root(*parsed, path, problem);
  Manifest m;
  if (root.text("format") != kFormat) root.refuse("format", "is not that of a dataset's manifest");
  m.version = read_id(root, "version");
  TRY(problem.done());
  if (m.version != 1)
    return fail(Code::kInvalidInput,
                "{}: is of version {}, this program reads version 1; prepare the dataset again",
                path,
                m.version);
  JsonFields tokenizer = root.object("tokenizer");
  m.tokenizer_blake2b = tokenizer.text("blake2b");
  m.vocab_size = read_id(tokenizer, "vocab_size");
  m.bos = read_id(tokenizer, "bos");
  m.eos = read_id(tokenizer, "eos");
  m.token_bytes_exact = tokenizer.boolean("token_bytes_exact");
  if (m.bos >= m.vocab_size || m.eos >= m.vocab_size)
    tokenizer.refuse("vocab_size", "must be above the ids of bos and eos");
  JsonFields settings = root.object("settings");
  m.split = settings.text("split");
  m.field = settings.text("field");
  m.min_document_bytes = settings.natural("min_document_bytes");
  m.held_out_bytes = settings.natural("held_out_bytes");
  m.near_duplicate = settings.real("near_duplicate");
  m.seed = settings.natural("seed");
  if (settings.has("chat_template_blake2b"))
    m.chat_template_blake2b = settings.text("chat_template_blake2b");
  m.text_options.as_text = settings.boolean("as_text", false);
  if (settings.has("skip_bad")) m.text_options.skip_bad = settings.natural("skip_bad");
  for (const auto& input : root.list("inputs")) {
    JsonFields f = root.item("inputs", input, m.inputs.size());
    m.inputs.push_back(
        {f.text("path"), f.natural("file_bytes"), f.text("blake2b"), f.natural("documents")});
    read_damage(f, m.inputs.back().damage);
  }
  JsonFields left_out = root.object("left_out");
  m.duplicates = left_out.natural("duplicates");
  m.near_duplicates = left_out.natural("near_duplicates");
  m.held_out_text_blake2b = root.text("held_out_text_blake2b");
  m.train = read_part(root.object("train"));
  m.held_out = read_part(root.object("held_out"));
  TRY(problem.done());
  return m;
}

std::string Manifest::fingerprint() const {
  const Json json = {{"tokenizer", tokenizer_blake2b},
                     {"bos", bos},
                     {"eos", eos},
                     {"train", part_json(train)},
                     {"held_out", part_json(held_out)}};
  const std::string text = json_text(json);
  return blake2b_hex(text.data(), text.size());
}

}  // namespace ferry::data
