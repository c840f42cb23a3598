#include "checkpoint/model_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/file.h"
#include "base/json_fields.h"
#include "base/python_json.h"
#include "base/shell.h"
#include "checkpoint/wrong_path.h"
#include "text/utf8.h"

namespace ferry {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;

constexpr int64_t kIdMax = int64_t{1} << 30;

/// Files that go along with a model as they are: what they say does not change with training.
constexpr const char* kCarried[] = {"chat_template.jinja",
                                    "chat_template.json",
                                    "added_tokens.json",
                                    "vocab.json",
                                    "merges.txt",
                                    "tokenizer.model"};
/// Files that name the begin and the end token among other things.
constexpr const char* kAmended[] = {
    kTokenizerConfigName, kGenerationConfigName, kSpecialTokensName};
constexpr const char* kTemplatesFolder = "additional_chat_templates";
/// What generation_config.json says of how to sample.
constexpr const char* kSampling[] = {
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty"};

/// Fields of tokenizer_config.json that hold tokens by further names.
constexpr const char* kMapsOfTokens[] = {"model_specific_special_tokens", "extra_special_tokens"};

bool is_map_of_tokens(std::string_view field) {
  return std::find(std::begin(kMapsOfTokens), std::end(kMapsOfTokens), field) !=
         std::end(kMapsOfTokens);
}

/// A token in these files is its text, or an object that has the text as "content".
template <typename AnyJson>
std::optional<std::string> token_text(const AnyJson& token) {
  const auto content = token.is_object() ? token.find("content") : token.end();
  const AnyJson& text = content == token.end() ? token : *content;
  if (!text.is_string() || is_not_finite(text)) return std::nullopt;
  return text.template get<std::string>();
}
template <typename AnyJson>
std::string token_text(const AnyJson& object, const char* name) {
  const auto it = object.find(name);
  return it == object.end() ? "" : token_text(*it).value_or("");
}

/// A file's text as JSON; discarded, if it is none.
template <typename AnyJson>
AnyJson parsed(const std::string& text) {
  AnyJson json = AnyJson::parse(text, nullptr, false);
  return json.is_discarded() ? AnyJson::parse(json_of_python(text), nullptr, false) : json;
}

Json file_object(const std::map<std::string, std::string>& files, const char* name) {
  const auto it = files.find(name);
  Json json = it == files.end() ? Json() : parsed<Json>(it->second);
  return json.is_object() ? std::move(json) : Json::object();
}

/// The begin and the end token that the class has of its own which Transformers (5.24) makes of a model's files, where
/// tokenizer_config.json is silent; empty: none.
struct OwnTokens {
  std::string_view bos, eos;
};
/// Of tokenizers that are byte-level, as all that Ferry reads: those of Llama's class, of the general ones and of one
/// that it does not know it makes TokenizersBackend, which has none; of qwen2 its own whatever the class. Nothing: a
/// class of which it is not known here.
std::optional<OwnTokens> own_tokens(const Json& config, std::string_view model_type) {
  constexpr std::string_view kEndOfText = "<|endoftext|>";
  if (model_type == "qwen2") return OwnTokens{"", kEndOfText};
  const auto it = config.find("tokenizer_class");
  if (it == config.end() || !it->is_string()) return OwnTokens{};
  std::string_view name = it->get_ref<const std::string&>();
  if (name == "TokenizersBackend") return OwnTokens{};
  constexpr std::string_view kFast = "Fast";
  if (name.ends_with(kFast)) name.remove_suffix(kFast.size());
  if (name == "PreTrainedTokenizer" || name == "LlamaTokenizer") return OwnTokens{};
  if (name == "Qwen2Tokenizer") return OwnTokens{"", kEndOfText};
  if (name == "GPT2Tokenizer") return OwnTokens{kEndOfText, kEndOfText};
  return std::nullopt;
}

NamedTokens read_named_tokens(const std::map<std::string, std::string>& files,
                              std::string_view model_type) {
  NamedTokens named;
  const auto take = [&](const Json& tokens, std::string_view ending) {
    for (const auto& [name, token] : tokens.items()) {
      if (!std::string_view(name).ends_with(ending)) continue;
      if (const std::optional<std::string> text = token_text(token); text || token.is_null())
        named[name] = text;
    }
  };
  const auto take_file = [&](const Json& json) {
    take(json, "_token");
    for (const char* more : kMapsOfTokens)
      if (const auto it = json.find(more); it != json.end() && it->is_object()) take(*it, "");
  };
  const Json config = file_object(files, kTokenizerConfigName);
  take_file(config);
  if (!config.contains("added_tokens_decoder")) take_file(file_object(files, kSpecialTokensName));
  const std::optional<OwnTokens> own = own_tokens(config, model_type);
  if (files.contains(kTokenizerConfigName) && own)
    for (const auto& [name, text] : {std::pair{"bos_token", own->bos}, {"eos_token", own->eos}})
      named.try_emplace(name, text.empty() ? std::nullopt : std::optional<std::string>(text));
  return named;
}

/// Whether a number that is not finite stands where a token's text or a chat template is to be.
bool names_no_token(const Json& token) {
  const auto content = token.is_object() ? token.find("content") : token.end();
  return is_not_finite(content == token.end() ? token : *content);
}
bool is_no_template(const Json& value) {
  return is_not_finite(value) ||
         (value.is_structured() && std::any_of(value.begin(), value.end(), is_no_template));
}

/// What one file says; ids that are not stated stay empty.
struct Statement {
  const char* file;
  std::optional<int32_t> bos;
  std::vector<int32_t> eos;
};

class Reader {
 public:
  explicit Reader(ModelSource& from) : from_(from) {}

  Result<ModelTexts> read() {
    TRY(read_files());
    TRY(read_tokenizer());
    TRY_ASSIGN(const Statement config, read_ids(kConfigName, from_.config_json()));
    statements_.push_back(config);
    if (const auto it = out_.files.find(kGenerationConfigName); it != out_.files.end()) {
      TRY_ASSIGN(Statement generation, read_ids(kGenerationConfigName, it->second));
      statements_.push_back(std::move(generation));
    }
    if (out_.tokenizer != nullptr) {
      compare_added_tokens();
      compare_added_tokens_decoder();
      TRY(read_token_names(kTokenizerConfigName));
      TRY(read_token_names(kSpecialTokensName));
    }
    TRY(check_texts(kTokenizerConfigName));
    TRY(check_texts(kSpecialTokensName));
    constexpr const char* kOfProcessors = "chat_template.json";
    if (const Result<void> checked = check_texts(kOfProcessors); !checked)
      leave_alone(kOfProcessors, checked.error());
    TRY_ASSIGN(const std::vector<std::string> decided, from_.reading_notes());
    for (const std::string& what : decided) note("{}", what);
    const Json model = parsed<Json>(from_.config_json());
    const auto type = model.is_object() ? model.find("model_type") : model.end();
    out_.named_tokens = read_named_tokens(
        out_.files,
        type != model.end() && type->is_string() ? type->get<std::string>() : std::string());
    forget_unknown_names();
    note_silent_tokens();
    decide();
    TRY(decide_begin());
    compare_templates();
    return std::move(out_);
  }

 private:
  std::string path(const std::string& name) const { return from_.path_of(name); }
  template <typename... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    out_.notes.push_back(
        fmt::format("{}: {}", from_.path(), fmt::format(format, std::forward<Args>(args)...)));
  }

  /// The lists of files are JSON: a name that is no UTF-8 would come back as another one.
  Result<std::optional<std::string>> named_text(const std::string& name) {
    if (text::well_formed_prefix(name) != name.size())
      return fail(Code::kInvalidInput, "{}: its name is not UTF-8; rename it", path(name));
    return from_.optional_text(name);
  }

  Result<void> read_files() {
    std::vector<std::string> names(std::begin(kCarried), std::end(kCarried));
    TRY_ASSIGN(const std::vector<std::string> templates, from_.texts_in(kTemplatesFolder));
    for (const std::string& t : templates)
      if (t.ends_with(".jinja")) names.push_back(join_path(kTemplatesFolder, t));
    // The model is whole without these; but of one that is signed, or that Ferry wrote, no file may
    // be another.
    for (const std::string& name : names) {
      Result<std::optional<std::string>> content = named_text(name);
      if (!content && from_.vouched_for()) return tl::unexpected(content.error());
      if (!content)
        leave_alone(name, content.error());
      else if (*content)
        out_.files[name] = **content;
    }
    for (const char* name : kAmended) {
      TRY_ASSIGN(const std::optional<std::string> content, from_.optional_text(name));
      if (content) out_.files[name] = *content;
    }
    return {};
  }

  void leave_alone(const std::string& name, const Status& why) {
    out_.notes.push_back(why.message + "; nothing is read from it");
    out_.unread.emplace(name, why);
    out_.files.erase(name);
  }

  Result<void> read_tokenizer() {
    TRY_ASSIGN(const std::optional<std::string> json, from_.optional_text(kTokenizerName));
    if (!json) return {};
    TRY_ASSIGN(text::Tokenizer tokenizer, text::Tokenizer::parse(*json, path(kTokenizerName)));
    out_.tokenizer = std::make_shared<text::Tokenizer>(std::move(tokenizer));
    return {};
  }

  /// Fields that are the texts of tokens, or chat templates, are refused where they are no text and no JSON.
  Result<void> check_texts(const char* name) {
    const Json json = file_object(out_.files, name);
    JsonProblem problem{.code = Code::kInvalidInput};
    JsonFields f(json, path(name), problem);
    for (const auto& [field, value] : json.items()) {
      const bool is_token = field.ends_with("_token") && !field.starts_with("add_"),
                 are_tokens = is_map_of_tokens(field) && value.is_object();
      if ((is_token && names_no_token(value)) ||
          (are_tokens && std::any_of(value.begin(), value.end(), names_no_token)) ||
          (field == "chat_template" && is_no_template(value)))
        f.refuse(field, "must be text");
    }
    return problem.done();
  }

  /// config.json's and generation_config.json's way: ids, one or a list.
  Result<Statement> read_ids(const char* name, const std::string& text) {
    Statement s{.file = name};
    TRY_ASSIGN(const Json json, parse_python_json(text, path(name)));
    JsonProblem problem{.code = Code::kInvalidInput};
    JsonFields f(json, path(name), problem);
    const std::vector<int64_t> bos = f.ids("bos_token_id", kIdMax);
    const std::vector<int64_t> eos = f.ids("eos_token_id", kIdMax);
    if (vocab_ == 0) vocab_ = f.integer("vocab_size", 0, kIdMax, 0);  // config.json comes first
    if (std::string_view(name) == kGenerationConfigName)
      for (const char* const setting : kSampling)
        if (const Json* value = f.find(setting); value != nullptr && is_not_finite(*value))
          f.refuse(setting, "must be a number");
    TRY(problem.done());
    if (!bos.empty()) add(name, "bos_token_id", bos[0], [&](int32_t id) { s.bos = id; });
    for (const int64_t id : eos)
      add(name, "eos_token_id", id, [&](int32_t i) { s.eos.push_back(i); });
    return s;
  }

  template <typename Take>
  void add(const char* file, const char* field, int64_t id, Take take) {
    if (id < vocab_) return take(static_cast<int32_t>(id));
    note("{}: {} {} is no id of the model, which has {}: not used", file, field, id, vocab_);
  }

  /// The tokenizer's files' way: texts, which tokenizer.json knows the ids of.
  Result<void> read_token_names(const char* name) {
    const auto it = out_.files.find(name);
    if (it == out_.files.end()) return {};
    TRY_ASSIGN(const Json json, parse_python_json(it->second, path(name)));
    if (!json.is_object()) return fail(Code::kCorrupt, "{}: must be an object", path(name));
    Statement s{.file = name};
    for (const char* field : {"bos_token", "eos_token"}) {
      const std::string text = token_text(json, field);
      if (text.empty()) continue;
      const std::optional<int32_t> id = out_.tokenizer->token_id(text);
      if (!id) {
        note("{}: {} {} is not in {}: not used", name, field, printable(text), kTokenizerName);
        continue;
      }
      if (std::string_view(field) == "bos_token") {
        add(name, field, *id, [&](int32_t i) { s.bos = i; });
      } else {
        add(name, field, *id, [&](int32_t i) { s.eos.push_back(i); });
      }
    }
    statements_.push_back(std::move(s));
    return {};
  }

  /// Of which read_token_names() has told that they are not used.
  void forget_unknown_names() {
    for (const char* name : {"bos_token", "eos_token"}) {
      const auto it = out_.named_tokens.find(name);
      if (it != out_.named_tokens.end() && it->second && out_.tokenizer != nullptr &&
          !it->second->empty() && !out_.tokenizer->token_id(*it->second))
        out_.named_tokens.erase(it);
    }
  }

  Result<void> decide_begin() {
    if (!out_.bos || out_.tokenizer == nullptr) return {};
    const bool puts = out_.tokenizer->first_token() == out_.bos;
    out_.begins = puts;
    const auto it = out_.files.find(kTokenizerConfigName);
    if (it == out_.files.end()) return {};
    TRY_ASSIGN(const Json json, parse_python_json(it->second, path(kTokenizerConfigName)));
    JsonProblem problem{.code = Code::kInvalidInput};
    JsonFields f(json, path(kTokenizerConfigName), problem);
    const bool says = f.boolean("add_bos_token", puts);
    out_.begins = puts || says;
    if (says && !puts)
      note(
          "{} says add_bos_token, {}'s post_processor puts no begin token: texts begin with it, as "
          "Transformers 4's Llama tokenizers have it; Transformers 5 goes by {} alone",
          kTokenizerConfigName,
          kTokenizerName,
          kTokenizerName);
    if (!says && puts)
      note(
          "{} says that add_bos_token is false, {}'s post_processor puts the begin token: the "
          "latter is obeyed, as by Transformers 5",
          kTokenizerConfigName,
          kTokenizerName);
    if (f.boolean("add_eos_token", false))
      note(
          "{} says add_eos_token: no text is ended so here; what is to be gone on with has no end "
          "yet",
          kTokenizerConfigName);
    return problem.done();
  }

  void compare_added_tokens() {
    constexpr const char* kName = "added_tokens.json";
    const auto it = out_.files.find(kName);
    if (it == out_.files.end()) return;
    const Result<Json> json = parse_python_json(it->second, path(kName));
    if (!json) return leave_alone(kName, json.error());
    if (!json->is_object())
      return leave_alone(kName, {Code::kCorrupt, path(kName) + ": must be an object"});
    for (const auto& [text, id] : json->items())
      if (const auto known = out_.tokenizer->token_id(text); !known || id != *known)
        note("added_tokens.json gives {} id {}, {} {}: the latter is obeyed",
             printable(text),
             shown_json(id),
             kTokenizerName,
             known ? fmt::format("gives it {}", *known) : "does not have it");
  }

  /// A template that asks for a token of which the tokenizer's files are silent gets none, though config.json has its
  /// id.
  void note_silent_tokens() {
    const auto asks = [&](const char* name) {
      for (const char* file : {"chat_template.jinja", kTokenizerConfigName})
        if (const auto it = out_.files.find(file);
            it != out_.files.end() && it->second.find(name) != std::string::npos)
          return true;
      return false;
    };
    const Json config = file_object(out_.files, kTokenizerConfigName);
    const Statement& ids = statements_.front();
    for (const auto& [name, has_id] :
         {std::pair{"bos_token", ids.bos.has_value()}, {"eos_token", !ids.eos.empty()}}) {
      const auto it = out_.named_tokens.find(name);
      const bool silent = it != out_.named_tokens.end() && !it->second && !config.contains(name);
      if (silent && has_id && asks(name))
        note(
            "{} names no {}, so that the chat template is given none, as by Transformers, though "
            "{} has its id",
            kTokenizerConfigName,
            name,
            kConfigName);
    }
  }

  /// Transformers writes tokens that were added here, too, and people edit them here.
  void compare_added_tokens_decoder() {
    const auto it = out_.files.find(kTokenizerConfigName);
    if (it == out_.files.end()) return;
    const Result<Json> json = parse_python_json(it->second, path(kTokenizerConfigName));
    if (!json || !json->is_object()) return;  // read_token_names() tells of it
    const auto decoder = json->find("added_tokens_decoder");
    if (decoder == json->end() || !decoder->is_object()) return;
    const auto differs =
        [&](const std::string& text, const std::string& here, const std::string& there) {
          note("{}'s added_tokens_decoder {} {}, {} {}: the latter is obeyed",
               kTokenizerConfigName,
               here,
               printable(text),
               kTokenizerName,
               there);
        };
    for (const auto& [key, token] : decoder->items()) {
      if (!token.is_object() || !token_text(token)) continue;
      const std::string text = *token_text(token);
      const std::optional<int32_t> known = out_.tokenizer->token_id(text);
      if (!known || key != std::to_string(*known)) {
        differs(text,
                fmt::format("gives id {} to", printable(key)),
                known ? fmt::format("gives it {}", *known) : "does not have it");
        continue;
      }
      const auto special = token.find("special");
      if (special != token.end() && special->is_boolean() &&
          special->get<bool>() != out_.tokenizer->is_special(*known))
        differs(text,
                special->get<bool>() ? "calls special" : "does not call special",
                special->get<bool>() ? "does not" : "does");
    }
  }

  std::string described(int32_t id) const {
    const std::string_view text = out_.tokenizer ? out_.tokenizer->token_bytes(id) : "";
    return text.empty() ? std::to_string(id) : fmt::format("{} ({})", id, printable(text));
  }
  std::string described(const std::vector<int32_t>& ids) const {
    std::vector<std::string> all;
    for (const int32_t id : ids) all.push_back(described(id));
    return fmt::format("{}", fmt::join(all, ", "));
  }

  void decide() {
    const Statement* first_eos = nullptr;
    const Statement* first_bos = nullptr;
    for (const Statement& s : statements_) {
      if (s.bos && first_bos == nullptr) {
        first_bos = &s;
        out_.bos = s.bos;
      } else if (s.bos && s.bos != out_.bos) {
        note("{} says that text begins with {}, {} with {}: the former is obeyed{}",
             first_bos->file,
             described(*out_.bos),
             s.file,
             described(*s.bos),
             std::string_view(s.file) == kGenerationConfigName
                 ? ""
                 : ", but a chat template is given the tokenizer's own bos_token");
      }
      if (s.eos.empty()) continue;
      const auto known = [&](int32_t id) {
        return std::find(out_.eos.begin(), out_.eos.end(), id) != out_.eos.end();
      };
      // One more end token is an addition; another in place of those before is a contradiction.
      if (first_eos != nullptr && std::none_of(s.eos.begin(), s.eos.end(), known))
        note("{} says that text ends with {}, {} with {}: generation stops at any of them",
             first_eos->file,
             described(first_eos->eos),
             s.file,
             described(s.eos));
      if (first_eos == nullptr) first_eos = &s;
      for (const int32_t id : s.eos)
        if (!known(id)) out_.eos.push_back(id);
    }
  }

  void compare_templates() {
    std::vector<std::pair<std::string, std::string>> templates;  // where, and which
    if (const auto own = out_.files.find("chat_template.jinja"); own != out_.files.end())
      templates.emplace_back(own->first, own->second);
    for (const char* name : {"chat_template.json", kTokenizerConfigName}) {
      const auto file = out_.files.find(name);
      if (file == out_.files.end()) continue;
      const std::map<std::string, std::string> named = templates_by_name(file->second);
      if (const auto it = named.find("default"); it != named.end())
        templates.emplace_back(fmt::format("the chat_template in {}", name), it->second);
    }
    const bool other_obeyed =
        !templates.empty() && templates.front().first == "the chat_template in chat_template.json";
    for (size_t i = 1; i < templates.size(); ++i)
      if (templates[i].second != templates[0].second)
        note("{} and {} differ: the former is obeyed{}",
             templates[0].first,
             templates[i].first,
             other_obeyed ? ", which Transformers' tokenizers do not read" : "");
  }

  ModelSource& from_;
  int64_t vocab_ = 0;
  std::vector<Statement> statements_;  // in the order in which they are obeyed
  ModelTexts out_;
};

std::string document(const Ordered& json) { return json_text(json, 2) + "\n"; }

/// The file of `from`, or the fallback where there is none.
Ordered begun(const ModelTexts* from, const char* name, const Ordered& otherwise) {
  if (from == nullptr) return otherwise;
  const auto it = from->files.find(name);
  if (it == from->files.end()) return otherwise;
  Ordered json = parsed<Ordered>(it->second);
  if (!json.is_object()) return otherwise;
  leave_out_not_finite(json);  // JSON cannot say it again
  return json;
}

/// All chat templates among these files, one behind the other.
std::string templates_in(const std::map<std::string, std::string>& files) {
  std::string all =
      json_text(file_object(files, kTokenizerConfigName).value("chat_template", Json()));
  for (const auto& [name, text] : files)
    if (name.starts_with("chat_template.") || name.starts_with(kTemplatesFolder)) all += text;
  return all;
}

/// Says that `name` is this token, in the form in which the file has it.
void set_token(Ordered& json, const char* name, const std::string& text) {
  if (token_text(json, name) == text) return;
  const auto it = json.find(name);
  if (it != json.end() && it->is_object())
    (*it)["content"] = text;
  else
    json[name] = text;
}

}  // namespace

Result<int32_t> ModelTexts::context_of_first(const std::string& directory) const {
  if (bos) return *bos;
  if (!eos.empty()) return eos[0];
  return fail(Code::kInvalidInput,
              "{}: names neither a begin nor an end token, so nothing stands before a text's first "
              "token; state bos_token_id or eos_token_id in {}",
              directory,
              kConfigName);
}

std::vector<int32_t> ModelTexts::text_ids(std::string_view text,
                                          text::Tokenizer::Specials specials) const {
  check(tokenizer != nullptr, "a text is to be tokens, and there is no tokenizer");
  std::vector<int32_t> ids;
  if (begins) ids.push_back(*bos);
  tokenizer->encode(text, specials, ids);
  if (begins && ids.size() > 1 && ids[1] == *bos) ids.erase(ids.begin());
  return ids;
}

Result<std::vector<int32_t>> ModelTexts::prompt(std::string_view text,
                                                text::Tokenizer::Specials specials,
                                                const std::string& directory) const {
  std::vector<int32_t> ids = text_ids(text, specials);
  if (ids.empty()) {
    TRY_ASSIGN(const int32_t first, context_of_first(directory));
    ids.push_back(first);
  }
  return ids;
}

std::map<std::string, std::string> templates_by_name(const std::string& json) {
  std::map<std::string, std::string> named;
  const Json file = parsed<Json>(json);
  if (!file.is_object() || !file.contains("chat_template")) return named;
  const auto add = [&](const std::string& name, const Json& text) {
    if (text.is_string() && text != "" && !is_not_finite(text))
      named[name] = text.get<std::string>();
  };
  const Json& field = file["chat_template"];
  add("default", field);
  if (field.is_object())
    for (const auto& [name, text] : field.items()) add(name, text);
  if (field.is_array())
    for (const Json& item : field)
      if (item.is_object() && item.contains("name") && item.contains("template") &&
          item["name"].is_string())
        add(item["name"].get<std::string>(), item["template"]);
  return named;
}

NamedTokens template_tokens_by_id(const ModelTexts& texts) {
  NamedTokens named;
  if (texts.tokenizer == nullptr) return named;
  const auto add = [&](const char* name, int32_t id) {
    named[name] = std::string(texts.tokenizer->token_bytes(id));
  };
  if (texts.bos) add("bos_token", *texts.bos);
  if (!texts.eos.empty()) add("eos_token", texts.eos[0]);
  return named;
}

NamedTokens template_tokens(const ModelTexts& texts) {
  NamedTokens named = texts.named_tokens;
  named.merge(template_tokens_by_id(texts));
  return named;
}

Result<ModelTexts> read_model_texts(ModelSource& from) { return Reader(from).read(); }

bool has_older_tokenizer(const ModelTexts& texts) {
  return texts.tokenizer == nullptr &&
         (texts.files.contains("tokenizer.model") || texts.files.contains("vocab.json") ||
          texts.files.contains("merges.txt"));
}

Result<std::shared_ptr<text::Tokenizer>> require_tokenizer(const ModelSource& from,
                                                           const ModelTexts& texts) {
  if (texts.tokenizer != nullptr) return texts.tokenizer;
  return fail(Code::kNotFound,
              "{}: has no {}{}",
              from.path(),
              kTokenizerName,
              has_older_tokenizer(texts)
                  ? ", only its parts in an older form; AutoTokenizer.from_pretrained(DIR)."
                    "save_pretrained(DIR) writes it"
                  : "; fetch the model's");
}

std::string tokenizer_option(const std::string& model) {
  const auto option = [](const std::string& folder) {
    return "--tokenizer " + shell_quoted(join_path(folder, kTokenizerName));
  };
  if (is_folder(model)) return option(model);
  return fmt::format("{}, once `{}` has written it", option("DIR"), command_to_convert(model));
}

std::map<std::string, std::string> model_text_files(const TextFacts& facts,
                                                    const ModelTexts* from) {
  check(!facts.as_before || from != nullptr, "model_text_files: nothing was before");
  std::map<std::string, std::string> files;
  if (from != nullptr)
    for (const auto& [name, content] : from->files)
      if (facts.as_before ||
          std::find(std::begin(kAmended), std::end(kAmended), name) == std::end(kAmended))
        files[name] = content;
  files[kTokenizerName] = facts.tokenizer_json;
  const bool own_template = !facts.chat_template.empty();
  if (own_template) {
    std::erase_if(files, [](const auto& file) {
      return file.first == "chat_template.json" || file.first.starts_with(kTemplatesFolder);
    });
    files["chat_template.jinja"] = facts.chat_template;
  }
  if (facts.as_before) {
    Ordered tokenizer = begun(from, kTokenizerConfigName, Ordered::object());
    if (own_template && tokenizer.erase("chat_template") > 0)
      files[kTokenizerConfigName] = document(tokenizer);
    return files;
  }

  // A tokenizer without a begin token lets documents begin with the end of the one before: that is
  // no begin token for whoever reads the directory of a model that said it has none.
  const bool begins = facts.bos != facts.eos || from == nullptr || from->bos;
  Ordered tokenizer = begun(from,
                            kTokenizerConfigName,
                            {{"tokenizer_class", "PreTrainedTokenizerFast"},
                             {"bos_token", facts.bos_text},
                             {"eos_token", facts.eos_text},
                             {"model_max_length", facts.positions},
                             {"clean_up_tokenization_spaces", false}});
  // A template that goes along must go on to be given what it was, wherever documents end from now on.
  const NamedTokens given = from == nullptr ? NamedTokens() : template_tokens(*from);
  const std::string templates =
      own_template || from == nullptr ? facts.chat_template : templates_in(from->files);
  const auto set = [&](Ordered& json, const char* name, const std::string& text) {
    const auto it = given.find(name);
    if (it == given.end() || templates.find(name) == templates.npos)
      set_token(json, name, text);
    else if (it->second)
      set_token(json, name, *it->second);  // null stays null
  };
  if (begins) {
    set(tokenizer, "bos_token", facts.bos_text);
    if (!facts.puts_bos || tokenizer.contains("add_bos_token")) tokenizer["add_bos_token"] = true;
  }
  set(tokenizer, "eos_token", facts.eos_text);
  if (own_template) tokenizer.erase("chat_template");
  files[kTokenizerConfigName] = document(tokenizer);

  std::vector<int32_t> ends = {facts.eos};
  if (from != nullptr)
    for (const int32_t id : from->eos)
      if (id != facts.eos) ends.push_back(id);
  // How to sample is said of a model that was made here; of another's what that one's files say.
  Ordered fresh = {{"bos_token_id", 0}, {"eos_token_id", 0}};
  if (from == nullptr)
    fresh.update(Ordered{{"do_sample", true}, {"temperature", 0.7}, {"top_p", 0.95}});
  Ordered generation = begun(from, kGenerationConfigName, fresh);
  if (begins) generation["bos_token_id"] = facts.bos;
  generation["eos_token_id"] = ends;
  if (ends.size() == 1) generation["eos_token_id"] = facts.eos;
  files[kGenerationConfigName] = document(generation);

  if (from != nullptr && from->files.contains(kSpecialTokensName)) {
    Ordered special = begun(from, kSpecialTokensName, Ordered::object());
    if (begins) set(special, "bos_token", facts.bos_text);
    set(special, "eos_token", facts.eos_text);
    files[kSpecialTokensName] = document(special);
  }
  return files;
}

}  // namespace ferry
