#include "verify/server_questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/model_dir.h"
#include "text/chat_template.h"

namespace ferry::verify {
namespace {

constexpr int64_t kRoom = 32;  // positions for an answer

struct Text {
  const char* what;
  const char* text;
};

/// Where splitting rules, merges and normalisers differ: digits, contractions, runs of blanks,
/// scripts, characters of several bytes, a blank at the beginning.
constexpr Text kTexts[] = {
    {"a sentence in English", "The ferry crosses the river every morning, and it isn't late:"},
    {"another one", " We'll bring 12345 boxes of apples to the harbour. They"},
    {"a list", "Colours: red, green, blue. Days: Monday, Tuesday,"},
    {"a piece of code", "def f(x):\n    if x > 0:\n        return x * 2\n\n    return"},
    {"digits and signs", "3.14159 + 2,718 = ?  2026-11-29 07:05 #42 $9.99 100%"},
    {"German and French", "Die Fähre fährt über den Fluß. Où est l'été ?"},
    {"Chinese", "渡船每天早上过河。"},
    {"Cyrillic and Greek", "Паром идёт. Το πλοίο"},
    {"signs of several bytes", "naïve café 🚢 → ½ ﬁ e\xcc\x81"},
    {"runs of blanks", "a  b   c    d\t\te\n\n\nf"},
};

}  // namespace

const std::vector<Conversation> kConversations = {
    {"a question", R"([{"role":"user","content":"What does a ferry do?"}])"},
    {"a question with a system message",
     R"([{"role":"system","content":"Answer in one word."},)"
     R"({"role":"user","content":"What is the capital of France?"}])"},
    {"a second question",
     R"([{"role":"user","content":"Hi there!"},{"role":"assistant","content":"Hello."},)"
     R"({"role":"user","content":"Count to five."}])"},
};

const std::vector<OtherTemplate> kOtherTemplates = {
    {"the text of its own template without what asks for an answer", ""},
    {"plain text without a template",
     "{% for m in messages %}{{ m['content'] }}{% if not loop.last %}\n{% endif %}{% endfor %}"},
    {"lines with roles",
     "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"},
    {"ChatML",
     "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor "
     "%}"
     "{{ '<|im_start|>assistant\\n' }}"},  // Jinja drops a line end behind all
    {"Llama 2's template",
     "{% for m in messages %}{% if m['role'] == 'system' %}<<SYS>>\n{{ m['content'] "
     "}}\n<</SYS>>\n\n"
     "{% elif m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
     "{% else %} {{ m['content'] }} {% endif %}{% endfor %}"},
    {"Llama 3's template",
     "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] "
     "}}<|end_header_id|>\n\n"
     "{{ m['content'] }}<|eot_id|>{% endfor %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"},
};

std::vector<TextQuestion> text_questions(const Reference& reference) {
  std::vector<TextQuestion> out;
  const auto add = [&](TextQuestion q) {
    if (!q.ids.empty() && std::ssize(q.ids) + kRoom <= reference.model().max_positions())
      out.push_back(std::move(q));
  };
  for (const Text& t : kTexts) add({t.what, t.text, prompt_ids(reference, t.text)});
  const auto* const dir = dynamic_cast<const ModelDir*>(&reference.source());
  if (dir == nullptr || dir->passport() == nullptr) return out;
  for (const Probe& p : dir->passport()->probes.list) {
    TextQuestion q{fmt::format("the passport's {}", p.name),
                   "",
                   {p.tokens.begin(), p.tokens.begin() + p.prompt}};
    if (std::any_of(q.ids.begin(), q.ids.end(), [&](int32_t id) {
          return id < 0 || id >= reference.model().vocab_size();
        }))
      continue;
    const bool begins = reference.texts().begins && q.ids.front() == *reference.texts().bos;
    const std::string text = reference.tokenizer().decode(std::span(q.ids).subspan(begins ? 1 : 0));
    // JSON carries no other bytes than UTF-8, and no server zero bytes.
    const bool sendable = nlohmann::json::parse(json_text(nlohmann::json(text))) == text &&
                          zero_byte(text) == text.npos;
    if (sendable && prompt_ids(reference, text) == q.ids) q.text = text;
    add(std::move(q));
  }
  return out;
}

TextQuestion long_question(const Reference& reference, int64_t tokens, bool other_ending) {
  TextQuestion q{"", "", {}};
  const auto sentence = [&](int64_t i) {
    const int64_t n = i + tokens;  // so that texts of other lengths begin otherwise
    return fmt::format("Crate {} goes to pier {} at {}:{:02}, and {} men carry it. ",
                       (n * 37 + 11) % 97,
                       (n * 13 + 5) % 29,
                       (n * 7 + 1) % 24,
                       (n * 11 + 3) % 60,
                       (n * 5 + 2) % 9 + 2);
  };
  int64_t count = reference.texts().begins ? 1 : 0;
  size_t last = 0;  // where the last sentence begins
  for (int64_t i = 0;; ++i) {
    std::vector<int32_t> ids;
    reference.tokenizer().encode(sentence(i), text::Tokenizer::Specials::kAsText, ids);
    count += std::ssize(ids);
    if (count > tokens || ids.empty()) break;
    last = q.text.size();
    q.text += sentence(i);
  }
  // A text that is shorter than a sentence, and one whose last blank is another token at the end.
  if (q.text.empty()) q.text = sentence(0).substr(0, static_cast<size_t>(tokens) / 2);
  q.text.pop_back();
  if (other_ending) q.text.replace(last, std::string::npos, "At noon they rest, and then");
  q.ids = prompt_ids(reference, q.text);
  q.what = fmt::format(
      "a text of {} tokens{}", q.ids.size(), other_ending ? ", with another ending" : "");
  return q;
}

Result<TextQuestion> conversation_question(const Reference& reference,
                                           const std::string& what,
                                           const std::string& messages) {
  TRY_ASSIGN(ChatPrompt prompt,
             render_chat(reference.texts(), messages, "the conversation", reference.directory()));
  return TextQuestion{what, std::move(prompt.text), std::move(prompt.ids), messages};
}

Result<TextQuestion> long_conversation(const Reference& reference,
                                       int64_t tokens,
                                       bool other_ending) {
  const auto said = [&](const std::string& text) {
    const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", text}}};
    return conversation_question(reference, "", json_text(messages));
  };
  TRY_ASSIGN(const TextQuestion least, said("."));
  const int64_t of_text = std::max<int64_t>(tokens - std::ssize(least.ids), 2);
  TRY_ASSIGN(TextQuestion q, said(long_question(reference, of_text, other_ending).text));
  q.what = fmt::format(
      "a conversation of {} tokens{}", q.ids.size(), other_ending ? ", with another ending" : "");
  return q;
}

std::vector<int32_t> chat_otherwise(const Reference& reference,
                                    const OtherTemplate& other,
                                    const std::string& what) {
  const auto it = std::find_if(
      kConversations.begin(), kConversations.end(), [&](const auto& c) { return c.what == what; });
  if (it == kConversations.end()) return {};
  if (*other.jinja == '\0') {
    const Result<ChatPrompt> prompt =
        render_chat(reference.texts(),
                    fmt::format(R"({{"messages":{},"add_generation_prompt":false}})", it->messages),
                    "the conversation",
                    reference.directory());
    return prompt ? prompt->ids : std::vector<int32_t>();
  }
  const auto parsed = text::ChatTemplate::parse(other.jinja, other.words);
  if (!parsed) return {};
  const nlohmann::ordered_json context = {{"messages", nlohmann::ordered_json::parse(it->messages)},
                                          {"add_generation_prompt", true}};
  const auto text = parsed->render(context, [](const std::string&) { return std::string(); });
  if (!text) return {};
  std::vector<int32_t> ids;
  if (reference.texts().begins) ids.push_back(*reference.texts().bos);
  reference.tokenizer().encode(*text, text::Tokenizer::Specials::kParse, ids);
  if (ids.size() > 1 && reference.texts().bos && ids[0] == *reference.texts().bos &&
      ids[1] == ids[0])
    ids.erase(ids.begin());
  return ids;
}

}  // namespace ferry::verify
