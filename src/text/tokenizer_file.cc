#include "text/tokenizer_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "base/json_fields.h"
#include "text/byte_alphabet.h"
#include "text/nfc.h"
#include "text/pretokenizer.h"

namespace ferry::text {
namespace {

using Json = nlohmann::json;

constexpr size_t kTokensMax = size_t{1} << 24;
constexpr int64_t kIdMax = int64_t{1} << 25;
constexpr const char* kDamaged =
    "the file is damaged or was not written by a tokenizer library: fetch or export it again";
constexpr size_t kAddedBytesMax = 1024;  // keeps the search for added tokens linear in practice

/// Reads one file; the members hold what is known so far.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  Result<TokenizerFile> read(std::string_view text) {
    TRY_ASSIGN(const Json root, parse(text));
    if (!root.is_object()) return corrupt("", "is not a JSON object");
    TRY(read_normalizer(root));
    TRY(read_pre_tokenizer(root));
    TRY(read_decoder(root));
    const auto model = root.find("model");
    if (model == root.end() || !model->is_object()) return corrupt("model", "is not an object");
    TRY(read_model_settings(*model));
    TRY(read_vocab(*model));
    TRY(read_merges(*model));
    TRY(read_added_tokens(root));
    TRY(check_specials_unreachable());
    if (const Json* post = member(root, "post_processor")) file_.first = first_of(*post);
    return std::move(file_);
  }

 private:
  tl::unexpected<Status> corrupt(std::string_view field, std::string_view what) const {
    return fail(
        Code::kCorrupt, "{}: {}{}{}; {}", path_, field, field.empty() ? "" : " ", what, kDamaged);
  }
  tl::unexpected<Status> refuse(std::string_view field, std::string_view what) const {
    return fail(Code::kInvalidInput,
                "{}: {} {}; Ferry reads byte-level BPE as DeepSeek, Llama 3 and Qwen2 "
                "use it: export the tokenizer without this",
                path_,
                field,
                what);
  }

  tl::unexpected<Status> gaps(std::string_view field, std::string_view what) const {
    return fail(Code::kInvalidInput,
                "{}: {} {}; Ferry reads vocabularies that have a token for each id, from 0 on: put "
                "unused ones into the gaps, or export it from what it was made by",
                path_,
                field,
                what);
  }

  Result<Json> parse(std::string_view text) {
    // The parser keeps the last of equal keys; counting them as they come finds a token named
    // twice.
    std::string section, part;
    size_t vocab_keys = 0;
    const Json::parser_callback_t count = [&](int depth, Json::parse_event_t event, Json& value) {
      if (event != Json::parse_event_t::key) return true;
      if (depth == 1) section = value.get_ref<const std::string&>();
      if (depth == 2) part = value.get_ref<const std::string&>();
      if (depth == 3 && section == "model" && part == "vocab") ++vocab_keys;
      return true;
    };
    if (const size_t at = zero_byte(text); at != text.npos)
      return corrupt("", fmt::format("is not JSON: byte {} is zero", at + 1));
    Json root;
    try {
      root = Json::parse(text, count);
    } catch (const Json::exception& e) {
      // The library's text may quote bytes of the file; only its position is repeated.
      const auto* at = dynamic_cast<const Json::parse_error*>(&e);
      return fail(Code::kCorrupt,
                  "{}: not JSON from byte {} on (of {}): fetch or export the file again",
                  path_,
                  at != nullptr ? at->byte : 0,
                  text.size());
    }
    if (root.is_object() && root.contains("model") && root["model"].is_object() &&
        root["model"].contains("vocab") && root["model"]["vocab"].is_object() &&
        root["model"]["vocab"].size() != vocab_keys) {
      return corrupt("model.vocab",
                     fmt::format("names {} tokens, but only {} different ones",
                                 vocab_keys,
                                 root["model"]["vocab"].size()));
    }
    return root;
  }

  static const Json* member(const Json& object, const char* name) {
    const auto it = object.find(name);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }
  static std::string type_of(const Json& object) {
    const Json* type = object.is_object() ? member(object, "type") : nullptr;
    return type != nullptr && type->is_string() ? type->get<std::string>() : "(no type)";
  }

  /// The fields of an object that stands at `field` of the file.
  JsonFields fields(const Json& object, const std::string& field, JsonProblem& problem) const {
    problem.advice = std::string("; ") + kDamaged;
    return {object, fmt::format("{}: {}", path_, field), problem};
  }

  /// The post_processor's template for one text, if that is its kind.
  static std::string first_of(const Json& processor, int depth = 0) {
    if (!processor.is_object()) return "";
    if (type_of(processor) == "Sequence" && depth == 0) {
      const Json* parts = member(processor, "processors");
      if (parts == nullptr || !parts->is_array()) return "";
      for (const Json& part : *parts)
        if (const std::string first = first_of(part, depth + 1); !first.empty()) return first;
      return "";
    }
    const Json* single = member(processor, "single");
    if (type_of(processor) != "TemplateProcessing" || single == nullptr || !single->is_array() ||
        single->empty() || !single->front().is_object())
      return "";
    const Json* token = member(single->front(), "SpecialToken");
    const Json* id = token != nullptr && token->is_object() ? member(*token, "id") : nullptr;
    return id != nullptr && id->is_string() ? id->get<std::string>() : "";
  }

  Result<void> read_normalizer(const Json& root) {
    const Json* n = member(root, "normalizer");
    return n == nullptr ? Result<void>{} : add_normalizer(*n, 0);
  }
  Result<void> add_normalizer(const Json& n, int depth) {
    const std::string type = type_of(n);
    if (type == "NFC") {
      file_.nfc = true;
      return {};
    }
    if (type == "Sequence" && depth == 0 && n.contains("normalizers") &&
        n["normalizers"].is_array()) {
      for (const Json& part : n["normalizers"]) TRY(add_normalizer(part, depth + 1));
      return {};
    }
    return refuse("normalizer", fmt::format("is \"{}\", not null or NFC", type));
  }

  Result<void> read_pre_tokenizer(const Json& root) {
    const Json* p = member(root, "pre_tokenizer");
    if (p == nullptr) return refuse("pre_tokenizer", "is missing, so there is no ByteLevel step");
    std::vector<const Json*> steps = {p};
    if (type_of(*p) == "Sequence") {
      if (!p->contains("pretokenizers") || !(*p)["pretokenizers"].is_array()) {
        return corrupt("pre_tokenizer.pretokenizers", "is not an array");
      }
      steps.clear();
      for (const Json& step : (*p)["pretokenizers"]) steps.push_back(&step);
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      const std::string field = fmt::format("pre_tokenizer[{}]", i);
      const std::string type = type_of(*steps[i]);
      if (type == "ByteLevel" && i + 1 == steps.size()) return read_byte_level(*steps[i], field);
      if (type == "Split") {
        TRY(read_split(*steps[i], field));
      } else if (type == "Digits") {
        TRY(read_digits(*steps[i], field));
      } else {
        return refuse(
            field,
            fmt::format("is \"{}\": only Split, Digits and a last ByteLevel are known", type));
      }
    }
    return refuse("pre_tokenizer", "does not end with ByteLevel");
  }

  Result<void> read_byte_level(const Json& step, const std::string& field) {
    JsonProblem problem;
    JsonFields f = fields(step, field, problem);
    const bool prefix = f.boolean("add_prefix_space"), regex = f.boolean("use_regex", true);
    TRY(problem.done());
    if (prefix) return refuse(field + ".add_prefix_space", "is true");
    if (regex) file_.patterns.push_back({kGpt2Pattern, false});
    return {};
  }

  Result<void> read_digits(const Json& step, const std::string& field) {
    JsonProblem problem;
    const bool each = fields(step, field, problem).boolean("individual_digits", false);
    TRY(problem.done());
    file_.patterns.push_back({each ? kDigitPattern : kDigitsPattern, false});
    return {};
  }

  Result<void> read_split(const Json& step, const std::string& field) {
    JsonProblem problem;
    JsonFields f = fields(step, field, problem);
    static_cast<void>(f.boolean("invert", false));  // swaps matches and gaps: alike to Isolated
    const std::string behavior = f.text("behavior");
    TRY(problem.done());
    if (behavior != "Isolated")
      return refuse(field + ".behavior", fmt::format("is \"{}\", not Isolated", behavior));
    const Json* pattern = member(step, "pattern");
    const bool regex = pattern != nullptr && pattern->is_object() && pattern->contains("Regex");
    const bool literal = pattern != nullptr && pattern->is_object() && pattern->contains("String");
    if (regex == literal || !(*pattern)[regex ? "Regex" : "String"].is_string()) {
      return corrupt(field + ".pattern", "is neither a Regex nor a String");
    }
    const std::string text = (*pattern)[regex ? "Regex" : "String"].get<std::string>();
    if (text.empty()) return refuse(field + ".pattern", "is empty");
    const Result<SplitRegex> compiled =
        regex ? SplitRegex::compile(text) : SplitRegex::compile_literal(text);
    if (!compiled)
      return fail(compiled.error().code, "{}: {}: {}", path_, field, compiled.error().message);
    file_.patterns.push_back({text, literal});
    return {};
  }

  Result<void> read_decoder(const Json& root) {
    const Json* d = member(root, "decoder");
    if (d == nullptr) return refuse("decoder", "is missing: it must be ByteLevel");
    if (type_of(*d) == "Sequence" && d->contains("decoders") && (*d)["decoders"].is_array() &&
        (*d)["decoders"].size() == 1) {
      d = &(*d)["decoders"][0];
    }
    if (type_of(*d) != "ByteLevel")
      return refuse("decoder", fmt::format("is \"{}\", not ByteLevel", type_of(*d)));
    return {};
  }

  Result<void> read_model_settings(const Json& model) {
    if (member(model, "type") != nullptr && type_of(model) != "BPE") {
      return refuse("model.type", fmt::format("is \"{}\", not BPE", type_of(model)));
    }
    const Json* dropout = member(model, "dropout");
    if (dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0)) {
      return refuse("model.dropout", "is set, so that encoding is random");
    }
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* value = member(model, name);
      if (value != nullptr && *value != "")
        return refuse(fmt::format("model.{}", name), "is not empty");
    }
    JsonProblem problem;
    file_.ignore_merges = fields(model, "model", problem).boolean("ignore_merges", false);
    return problem.done();
  }

  Result<void> read_vocab(const Json& model) {
    const Json* vocab = member(model, "vocab");
    if (vocab == nullptr || !vocab->is_object()) return corrupt("model.vocab", "is not an object");
    if (vocab->size() > kTokensMax) return refuse("model.vocab", "has more than 16777216 tokens");
    file_.vocab.resize(vocab->size());
    std::vector<bool> taken(vocab->size());
    file_.ids.reserve(vocab->size());
    for (const auto& [text, id] : vocab->items()) {
      if (!id.is_number_unsigned())
        return corrupt(fmt::format("model.vocab[\"{}\"]", text), "is not an id");
      const auto at = id.get<uint64_t>();
      if (text.empty())
        return corrupt("model.vocab", fmt::format("gives id {} to an empty token", at));
      if (at >= vocab->size()) {
        return gaps(
            fmt::format("model.vocab[\"{}\"]", text),
            fmt::format(
                "is {}, but there are only {} tokens: the ids have gaps", at, vocab->size()));
      }
      if (taken[at]) {
        return corrupt(fmt::format("model.vocab[\"{}\"]", text),
                       fmt::format("is {}, which \"{}\" has already", at, file_.vocab[at]));
      }
      taken[at] = true;
      file_.vocab[at] = text;
      file_.ids.emplace(text, static_cast<int32_t>(at));
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char as_char = static_cast<char>(byte);
      const auto it = file_.ids.find(bytes_to_letters({&as_char, 1}));
      if (it == file_.ids.end() && may_be_missing(byte)) {
        file_.byte_tokens[byte] = -1;
        continue;
      }
      if (it == file_.ids.end()) {
        return refuse("model.vocab",
                      fmt::format("has no token for byte 0x{:02X} (\"{}\"), so text would be lost",
                                  byte,
                                  bytes_to_letters({&as_char, 1})));
      }
      file_.byte_tokens[byte] = it->second;
    }
    return {};
  }

  Result<void> read_merges(const Json& model) {
    const Json* merges = member(model, "merges");
    if (merges == nullptr || !merges->is_array()) return corrupt("model.merges", "is not an array");
    file_.merges.reserve(merges->size());
    std::unordered_set<uint64_t> seen;
    seen.reserve(merges->size());
    std::string whole;
    for (size_t i = 0; i < merges->size(); ++i) {
      const Json& merge = (*merges)[i];
      const auto field = [&] { return fmt::format("model.merges[{}]", i); };
      std::string left, right;
      if (merge.is_string()) {
        const auto& text = merge.get_ref<const std::string&>();
        if (text.starts_with("#version")) continue;
        const size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
          return corrupt(field(), "is not two tokens with a space between");
        }
        left = text.substr(0, space);
        right = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else {
        return corrupt(field(), "is neither \"left right\" nor [\"left\", \"right\"]");
      }
      if (left.empty() || right.empty()) {
        return corrupt(field(),
                       "has an empty side: it would make a token out of itself, without end");
      }
      whole = left + right;
      std::array<int32_t, 3> ids{};
      const std::array<const std::string*, 3> texts = {&left, &right, &whole};
      for (size_t j = 0; j < 3; ++j) {
        const auto it = file_.ids.find(*texts[j]);
        if (it == file_.ids.end()) {
          return corrupt(field(),
                         fmt::format("needs the token \"{}\", which model.vocab lacks", *texts[j]));
        }
        ids[j] = it->second;
      }
      const TokenizerFile::Merge m{ids[0], ids[1], ids[2]};
      if (!seen.insert(uint64_t{static_cast<uint32_t>(m.left)} << 32 |
                       static_cast<uint32_t>(m.right))
               .second) {
        return corrupt(
            field(), fmt::format("merges \"{}\" and \"{}\", as an earlier one does", left, right));
      }
      file_.merges.push_back(m);
    }
    return {};
  }

  Result<void> read_added_tokens(const Json& root) {
    const Json* added = member(root, "added_tokens");
    if (added == nullptr) return {};
    if (!added->is_array()) return corrupt("added_tokens", "is not an array");
    std::unordered_set<std::string> contents, patterns;
    size_t next_id = file_.vocab.size();
    for (size_t i = 0; i < added->size(); ++i) {
      TRY_ASSIGN(AddedToken token,
                 read_added_token((*added)[i], fmt::format("added_tokens[{}]", i)));
      const std::string field = fmt::format("added_tokens[{}]", i);
      if (!contents.insert(token.content).second) {
        return corrupt(field, fmt::format("is \"{}\", which an earlier one is too", token.content));
      }
      const std::string pattern =
          token.normalized && file_.nfc ? to_nfc(token.content) : token.content;
      if (!patterns.insert((token.normalized ? "n" : "r") + pattern).second) {
        return corrupt(
            field, fmt::format("is \"{}\", which looks like an earlier one in NFC", token.content));
      }
      const auto it = file_.ids.find(token.content);
      const size_t expected = it != file_.ids.end() ? static_cast<size_t>(it->second) : next_id++;
      if (static_cast<size_t>(token.id) != expected) {
        const std::string what = fmt::format(
            "gives \"{}\" id {} where the vocabulary and the tokens before it make it {}: the ids ",
            token.content,
            token.id,
            expected);
        if (it == file_.ids.end() && static_cast<size_t>(token.id) > expected)
          return gaps(field, what + "have gaps");
        return corrupt(field, what + "clash");
      }
      file_.ids.emplace(token.content, token.id);
      file_.added.push_back(std::move(token));
    }
    return {};
  }

  Result<AddedToken> read_added_token(const Json& item, const std::string& field) const {
    JsonProblem problem;
    JsonFields f = fields(item, field, problem);
    AddedToken token;
    token.content = f.text("content");
    token.id = static_cast<int32_t>(f.integer("id", 0, kIdMax));
    token.special = f.boolean("special");
    token.single_word = f.boolean("single_word");
    token.lstrip = f.boolean("lstrip");
    token.rstrip = f.boolean("rstrip");
    token.normalized = f.boolean("normalized");
    TRY(problem.done());
    if (token.content.empty()) return corrupt(field + ".content", "is empty");
    if (token.content.size() > kAddedBytesMax)
      return refuse(field + ".content", fmt::format("is longer than {} bytes", kAddedBytesMax));
    return token;
  }

  /// Ordinary text must never give a control token, so no byte and no merge may.
  Result<void> check_specials_unreachable() {
    std::unordered_set<int32_t> special;
    for (const AddedToken& t : file_.added) {
      if (t.special) special.insert(t.id);
    }
    for (const int32_t id : file_.byte_tokens) {
      if (special.contains(id)) {
        return refuse(fmt::format("the special token \"{}\"", file_.vocab[id]),
                      "is also the token of a byte, so ordinary text would give it");
      }
    }
    for (const TokenizerFile::Merge& m : file_.merges) {
      if (special.contains(m.token)) {
        return refuse(fmt::format("the special token \"{}\"", file_.vocab[m.token]),
                      "is made by a merge, so ordinary text would give it");
      }
    }
    return {};
  }

  const std::string& path_;
  TokenizerFile file_;
};

}  // namespace

Result<TokenizerFile> read_tokenizer_file(std::string_view json, const std::string& path) {
  return Reader(path).read(json);
}

nlohmann::ordered_json puts_first(const std::string& token, int64_t id) {
  using Ordered = nlohmann::ordered_json;
  const Ordered special = {{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  const auto sequence = [](const char* name, int type) {
    return Ordered{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  Ordered single = Ordered::array(), pair = Ordered::array();
  single.push_back(special);
  single.push_back(sequence("A", 0));
  pair.push_back(special);
  pair.push_back(sequence("A", 0));
  pair.push_back({{"SpecialToken", {{"id", token}, {"type_id", 1}}}});
  pair.push_back(sequence("B", 1));
  const Ordered ids = Ordered::array({id}), tokens = Ordered::array({token});
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", {{token, {{"id", token}, {"ids", ids}, {"tokens", tokens}}}}}};
}

std::string write_tokenizer_file(const TokenizerFile& file, const std::string& bos) {
  using Ordered = nlohmann::ordered_json;
  const auto byte_level = [](bool use_regex) {
    return Ordered{{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", use_regex}};
  };
  Ordered added = Ordered::array();
  for (const AddedToken& t : file.added) {
    added.push_back({{"id", t.id},
                     {"content", t.content},
                     {"single_word", t.single_word},
                     {"lstrip", t.lstrip},
                     {"rstrip", t.rstrip},
                     {"normalized", t.normalized},
                     {"special", t.special}});
  }
  Ordered steps = Ordered::array();
  for (const TokenizerFile::Pattern& p : file.patterns) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{p.literal ? "String" : "Regex", p.text}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back(byte_level(false));

  Ordered vocab = Ordered::object();
  // ordered_json looks for equal keys on every insertion; the ids already tell tokens apart.
  auto& entries = vocab.get_ref<Ordered::object_t&>();
  for (size_t id = 0; id < file.vocab.size(); ++id) {
    entries.Container::emplace_back(file.vocab[id], Ordered(id));
  }
  Ordered merges = Ordered::array();
  for (const TokenizerFile::Merge& m : file.merges) {
    merges.push_back(Ordered::array({file.vocab[m.left], file.vocab[m.right]}));
  }
  const Ordered normalizer = file.nfc ? Ordered{{"type", "NFC"}} : Ordered(nullptr);
  const Ordered model = {{"type", "BPE"},
                         {"dropout", nullptr},
                         {"unk_token", nullptr},
                         {"continuing_subword_prefix", nullptr},
                         {"end_of_word_suffix", nullptr},
                         {"fuse_unk", false},
                         {"byte_fallback", false},
                         {"ignore_merges", file.ignore_merges},
                         {"vocab", std::move(vocab)},
                         {"merges", std::move(merges)}};
  const Ordered root = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", normalizer},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}},
      {"post_processor", bos.empty() ? Ordered(nullptr) : puts_first(bos, file.ids.at(bos))},
      {"decoder", byte_level(true)},
      {"model", model}};
  return json_text(root, 2) + "\n";
}

}  // namespace ferry::text
