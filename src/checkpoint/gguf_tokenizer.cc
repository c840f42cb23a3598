#include "checkpoint/gguf_tokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "base/json.h"
#include "text/tokenizer_file.h"

namespace ferry {
namespace {

using nlohmann::ordered_json;

// What llama.cpp's numbers for tokens mean (tokenizer.ggml.token_type).
constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kEndKeys[] = {
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};

constexpr const char* kBeginKey = "tokenizer.ggml.bos_token_id";
constexpr const char* kDigits = "digits";  // in place of an expression: each digit is a piece

/// How a kind of tokenizer splits text before merging. The expressions are facts of the models'
/// own tokenizer.json files.
struct Splitting {
  std::array<const char*, 4> names;        // under which GGUF files know it ("tokenizer.ggml.pre")
  std::array<const char*, 6> expressions;  // one after the other
  bool byte_level_splits = false;          // GPT-2's expression, within the ByteLevel pre-tokenizer
  bool nfc = false;
  bool ignore_merges = false;  // a piece that is a token as a whole is that token
  bool adds_bos = false;       // where the file is silent: llama.cpp's own rule
};

/// Texts of tokens that end an answer, whatever the file says of them: Llama's, ChatML's, Phi's, Gemma's,
/// DeepSeek-Coder's, Harmony's. llama.cpp's list, of which these families have been seen.
constexpr std::string_view kEnds[] = {"<|eot_id|>",
                                      "<|eom_id|>",
                                      "<|end_of_text|>",
                                      "<|im_end|>",
                                      "<|endoftext|>",
                                      "<|end|>",
                                      "<|return|>",
                                      "<|call|>",
                                      "<end_of_turn>",
                                      "<|EOT|>",
                                      "<EOT>"};

const std::array<Splitting, 7>& splittings() {
  static const std::array<Splitting, 7> all = {{
      {.names = {"gpt-2", "gpt2"}, .expressions = {}, .byte_level_splits = true},
      {.names = {"smollm"}, .expressions = {kDigits}, .byte_level_splits = true},
      {.names = {"llama-bpe", "llama3", "llama-v3"},
       .expressions =
           {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p)"
            R"({N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .ignore_merges = true,
       .adds_bos = true},
      {.names = {"qwen2"},
       .expressions =
           {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+)"
            R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .nfc = true},
      {.names = {"deepseek-r1-qwen"},  // the same without normalising
       .expressions =
           {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+)"
            R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {.names = {"deepseek-v3"},
       .expressions =
           {R"(\p{N}{1,3})",
            R"([一-龥぀-ゟ゠-ヿ]+)",
            R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\)"
            R"(p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {.names = {"deepseek-llm"},
       .expressions =
           {R"([\r\n])",
            // Letters that normalising (NFC) would replace, an editor's too, are numbers here.
            R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶ-ͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ)"
            R"(-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ)"
            R"(-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-)"
            "\u1F7D"
            R"(ᾀ-ᾴᾶ-ᾼ)"
            "\u1FBE"
            R"(ῂ-ῄῆ-ῌῐ-)"
            "\u1FD3"
            R"(ῖ-)"
            "\u1FDB"
            R"(ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ)"
            "\u2126"
            R"(ℨ)"
            "\u212A"
            R"(-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃ-ↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲ-ⳳꙀ-ꙭꚀ-ꚛ)"
            R"(Ꜣ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-)"
            R"(𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)",
            R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)",
            R"(\s+$)",
            R"([一-龥ࠀ-一가-퟿]+)",
            kDigits}},
  }};
  return all;
}

const Splitting* find_splitting(std::string_view name) {
  for (const Splitting& s : splittings())
    for (const char* known : s.names)
      if (known != nullptr && name == known) return &s;
  return nullptr;
}

ordered_json pre_tokenizer(const Splitting& s) {
  ordered_json list = ordered_json::array();
  for (const char* expression : s.expressions) {
    if (expression == nullptr) break;
    if (expression == kDigits)
      list.push_back({{"type", "Digits"}, {"individual_digits", true}});
    else
      list.push_back({{"type", "Split"},
                      {"pattern", {{"Regex", expression}}},
                      {"behavior", "Isolated"},
                      {"invert", false}});
  }
  list.push_back({{"type", "ByteLevel"},
                  {"add_prefix_space", false},
                  {"trim_offsets", true},
                  {"use_regex", s.byte_level_splits}});
  return {{"type", "Sequence"}, {"pretokenizers", std::move(list)}};
}

Result<const Splitting*> splitting_of(const GgufFile& file) {
  TRY_ASSIGN(const std::string model, file.text("tokenizer.ggml.model"));
  if (model != "gpt2")
    return fail(Code::kInvalidInput,
                "{}: its tokenizer is of the kind {}; Ferry reads byte-level BPE (\"gpt2\")",
                file.path(),
                printable(model));
  constexpr const char* kSplitting = "tokenizer.ggml.pre";
  if (!file.has(kSplitting))
    return fail(Code::kInvalidInput,
                "{}: does not say how its tokenizer splits text ({}), as files made before May "
                "2024 do not: make it "
                "anew from the model's directory with a converter of today, or use that directory",
                file.path(),
                kSplitting);
  TRY_ASSIGN(const std::string name, file.text(kSplitting));
  if (const Splitting* s = find_splitting(name)) return s;
  std::vector<std::string> known;
  for (const Splitting& s : splittings()) known.push_back(s.names[0]);
  return fail(Code::kInvalidInput,
              "{}: its tokenizer splits text as {} does (tokenizer.ggml.pre), which Ferry does not "
              "know; it knows {}",
              file.path(),
              printable(name),
              fmt::join(known, ", "));
}

/// The tokens, and what each is: a list that the file may do without (then none is a control token), and which
/// older converters got wrong.
struct Tokens {
  std::vector<std::string> texts;
  std::vector<int64_t> types;
  std::vector<size_t> overridden;  // that are control tokens although the list says otherwise
  bool typed = true;
};

/// "<|im_end|>", "</s>", "[EOS]": what no text spells by itself.
bool looks_like_control(std::string_view text) {
  return text.size() > 2 && ((text.front() == '<' && text.back() == '>') ||
                             (text.front() == '[' && text.back() == ']'));
}

/// What ends an answer is a control token whatever the list says, as llama.cpp has it; so is what is named as begin or
/// end, and looks like one.
Result<Tokens> read_tokens(const GgufFile& file) {
  Tokens t;
  TRY_ASSIGN(t.texts, file.value<std::vector<std::string>>(kTokens, "a list of texts"));
  t.typed = file.has(kTypes);
  if (t.typed) {
    TRY_ASSIGN(t.types, file.value<std::vector<int64_t>>(kTypes, "a list of whole numbers"));
  } else {
    t.types.assign(t.texts.size(), kNormal);
  }
  if (t.types.size() != t.texts.size())
    return fail(Code::kInvalidInput,
                "{}: \"{}\" has {} entries for {} tokens",
                file.path(),
                kTypes,
                t.types.size(),
                t.texts.size());
  std::set<size_t> control;
  for (size_t id = 0; id < t.texts.size(); ++id)
    if (std::find(std::begin(kEnds), std::end(kEnds), t.texts[id]) != std::end(kEnds))
      control.insert(id);
  std::vector<const char*> named(std::begin(kEndKeys), std::end(kEndKeys));
  named.push_back(kBeginKey);
  for (const char* const key : named) {
    // An id that is none is refused by whoever reads it.
    const Result<int64_t> id = file.integer(key, 0, std::ssize(t.texts) - 1);
    // A file that had no such token may name one of its words (llama.cpp's default for one is 11, often a comma).
    if (id && looks_like_control(t.texts[static_cast<size_t>(*id)]))
      control.insert(static_cast<size_t>(*id));
  }
  for (const size_t id : control) {
    if (t.types[id] == kControl) continue;
    t.types[id] = kControl;
    t.overridden.push_back(id);
  }
  return t;
}

}  // namespace

Result<std::string> gguf_tokenizer_json(const GgufFile& file) {
  TRY_ASSIGN(const Splitting* splitting, splitting_of(file));
  TRY_ASSIGN(const Tokens read, read_tokens(file));
  const auto& [tokens, types, overridden, typed] = read;
  TRY_ASSIGN(const auto merges,
             file.value<std::vector<std::string>>("tokenizer.ggml.merges", "a list of texts"));
  ordered_json vocab = ordered_json::object(), added = ordered_json::array(),
               pairs = ordered_json::array();
  std::set<std::string_view> seen;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!seen.insert(tokens[id]).second)
      return fail(
          Code::kInvalidInput, "{}: the token {} occurs twice", file.path(), printable(tokens[id]));
    // push_back and not []: an ordered object searches all its keys for that.
    vocab.get_ref<ordered_json::object_t&>().push_back({tokens[id], id});
    if (types[id] != kControl && types[id] != kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", types[id] == kControl}});
  }
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    if (space == std::string::npos || merge.find(' ', space + 1) != std::string::npos)
      return fail(
          Code::kInvalidInput, "{}: the merge {} is not two tokens", file.path(), printable(merge));
    pairs.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  TRY_ASSIGN(const bool adds_bos, gguf_adds_bos(file));
  ordered_json first = nullptr;
  if (adds_bos && file.has(kBeginKey)) {
    TRY_ASSIGN(const int64_t id, file.integer(kBeginKey, 0, std::ssize(tokens) - 1));
    first = text::puts_first(tokens[static_cast<size_t>(id)], id);
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", true},
                                   {"use_regex", true}};
  ordered_json j = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", splitting->nfc ? ordered_json{{"type", "NFC"}} : ordered_json(nullptr)},
      {"pre_tokenizer", pre_tokenizer(*splitting)},
      {"post_processor", std::move(first)},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", splitting->ignore_merges},
        {"vocab", std::move(vocab)},
        {"merges", std::move(pairs)}}}};
  return json_text(j);
}

Result<std::vector<int64_t>> gguf_end_tokens(const GgufFile& file, int64_t vocabulary) {
  std::vector<int64_t> ends;
  const auto add = [&](int64_t id) {
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  };
  for (const char* const key : kEndKeys) {
    if (!file.has(key)) continue;
    TRY_ASSIGN(const int64_t id, file.integer(key, 0, vocabulary - 1));
    add(id);
  }
  if (!file.has(kTokens)) return ends;
  TRY_ASSIGN(const Tokens t, read_tokens(file));
  const size_t count =
      std::min(t.texts.size(), static_cast<size_t>(std::max<int64_t>(vocabulary, 0)));
  for (size_t id = 0; id < count; ++id)
    if (std::find(std::begin(kEnds), std::end(kEnds), t.texts[id]) != std::end(kEnds))
      add(static_cast<int64_t>(id));
  return ends;
}

Result<std::vector<std::string>> gguf_token_notes(const GgufFile& file) {
  std::vector<std::string> notes;
  if (!file.has(kTokens)) return notes;
  TRY_ASSIGN(const Tokens t, read_tokens(file));
  if (!t.typed)
    notes.push_back(fmt::format(
        "does not say which of its tokens are control tokens ({}): all are text but begin and ends",
        kTypes));
  else if (!t.overridden.empty()) {
    std::vector<std::string> texts;
    for (const size_t id : t.overridden) texts.push_back(printable(t.texts[id]));
    notes.push_back(
        fmt::format("its list of types does not call {} {} ({}): taken for {}, since text begins "
                    "or answers end there",
                    fmt::join(texts, ", "),
                    texts.size() == 1 ? "a control token" : "control tokens",
                    kTypes,
                    texts.size() == 1 ? "one" : "such"));
  }
  return notes;
}

Result<bool> gguf_adds_bos(const GgufFile& file) {
  if (file.has("tokenizer.ggml.add_bos_token"))
    return file.value<bool>("tokenizer.ggml.add_bos_token", "true or false");
  const Splitting* const s = find_splitting(file.text("tokenizer.ggml.pre").value_or(""));
  return s != nullptr && s->adds_bos;
}

}  // namespace ferry
