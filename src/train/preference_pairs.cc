#include "train/preference_pairs.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/ordered_json.h"
#include "checkpoint/chat_lessons.h"
#include "data/text_stream.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kFileBytesMax = uint64_t{1} << 32;
constexpr const char* kForm =
    R"({"prompt": [{"role": "user", "content": "..."}], "chosen": [{"role": "assistant", "content": "..."}], )"
    R"("rejected": [...]})";

/// A line, taken apart: messages, each with a role.
struct Conversations {
  Json prompt = Json::array(), chosen = Json::array(), rejected = Json::array();
};

Result<Json> messages_of(const Json& line, const char* name) {
  if (!line.contains(name) || line[name].is_null())
    return fail(Code::kInvalidInput, "has no \"{}\"; a pair is {}", name, kForm);
  const Json& list = line[name];
  if (list.is_string())
    return fail(
        Code::kInvalidInput,
        "\"{}\" is a text; answers are learnt as the model's chat template writes them: make "
        "it a list of messages, {}",
        name,
        kForm);
  if (!list.is_array() || list.empty())
    return fail(Code::kInvalidInput, "\"{}\" is no list of messages; a pair is {}", name, kForm);
  for (const Json& message : list)
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
      return fail(
          Code::kInvalidInput, "\"{}\" has a message without \"role\"; a pair is {}", name, kForm);
  return list;
}

/// A message as it is compared: tools that write tables give fields another order, and nulls.
nlohmann::json meaning_of(const nlohmann::json& json) {
  if (!json.is_structured()) return json;
  nlohmann::json meaning = json.is_array() ? nlohmann::json::array() : nlohmann::json::object();
  for (const auto& item : json.items()) {
    if (json.is_array())
      meaning.push_back(meaning_of(item.value()));
    else if (!item.value().is_null())
      meaning[item.key()] = meaning_of(item.value());
  }
  return meaning;
}

bool same_message(const Json& a, const Json& b) {
  return meaning_of(nlohmann::json(a)) == meaning_of(nlohmann::json(b));
}

/// How many messages both begin with.
size_t common_messages(const Json& a, const Json& b) {
  size_t common = 0;
  while (common < std::min(a.size(), b.size()) && same_message(a[common], b[common])) ++common;
  return common;
}

/// An answer begins behind its prompt: what the assistant has begun to say cannot go on.
Result<void> check_prompt(const Json& prompt, const char* what) {
  if (prompt.back()["role"] != "assistant") return {};
  return fail(
      Code::kInvalidInput,
      "{} ends with a message of the assistant, which an answer would have to go on with: let "
      "it end before, and write the whole answer in \"chosen\" and \"rejected\"",
      what);
}

/// Without a prompt it is what both conversations begin with. A text as the prompt beside such conversations is a note
/// of what they hold.
Result<Conversations> conversations_of(const Json& line) {
  Conversations c;
  TRY_ASSIGN(c.chosen, messages_of(line, "chosen"));
  TRY_ASSIGN(c.rejected, messages_of(line, "rejected"));
  const bool note = line.contains("prompt") && line["prompt"].is_string() &&
                    c.chosen[0]["role"] != "assistant" && c.rejected[0]["role"] != "assistant";
  if (line.contains("prompt") && !line["prompt"].is_null() && !note) {
    TRY_ASSIGN(c.prompt, messages_of(line, "prompt"));
    TRY(check_prompt(c.prompt, "\"prompt\""));
    if (common_messages(c.prompt, c.chosen) == c.prompt.size() &&
        common_messages(c.prompt, c.rejected) == c.prompt.size())
      return fail(
          Code::kInvalidInput,
          "\"chosen\" and \"rejected\" begin with what \"prompt\" holds, too: take \"prompt\" out, "
          "or leave the answers alone in them");
    return c;
  }
  const size_t common = common_messages(c.chosen, c.rejected);
  if (common == 0)
    return fail(Code::kInvalidInput,
                "\"chosen\" and \"rejected\" have no message in common that they begin with, and "
                "there is no \"prompt\": give it");
  if (common == c.chosen.size() && common == c.rejected.size())
    return fail(Code::kInvalidInput,
                "\"chosen\" and \"rejected\" are the same: nothing is preferred");
  if (common == c.chosen.size() || common == c.rejected.size())
    return fail(Code::kInvalidInput,
                "one of \"chosen\" and \"rejected\" is the beginning of the other, and has no "
                "answer of its own");
  const auto cut = static_cast<Json::difference_type>(common);
  c.prompt = Json(c.chosen.begin(), c.chosen.begin() + cut);
  c.chosen.erase(c.chosen.begin(), c.chosen.begin() + cut);
  c.rejected.erase(c.rejected.begin(), c.rejected.begin() + cut);
  TRY(check_prompt(c.prompt, "what \"chosen\" and \"rejected\" have in common"));
  return c;
}

/// What of one side is learnt: the answer alone, whatever the assistant said before.
Result<std::vector<text::Lesson>> lessons_of(const Json& line,
                                             Json messages,
                                             const Json& answer,
                                             const ModelTexts& texts,
                                             const PairReading& reading) {
  for (const Json* end : {&answer.front(), &answer.back()})
    if ((*end)["role"] != "assistant")
      return fail(Code::kInvalidInput,
                  "its {} message, behind the prompt, is not the assistant's: an answer is",
                  end == &answer.front() ? "first" : "last");
  for (Json& message : messages)
    if (message["role"] == "assistant") message["weight"] = 0;
  messages.insert(messages.end(), answer.begin(), answer.end());
  Json conversation = Json::object();
  for (const char* name : {"system", "tools", "chat_template_kwargs"})
    if (line.contains(name)) conversation[name] = line[name];
  conversation["messages"] = std::move(messages);
  TRY_ASSIGN(std::vector<text::Lesson> lessons,
             chat_lessons(texts, json_text(conversation), reading.directory, reading.now));
  for (const text::Lesson& l : lessons)
    if (std::ssize(l.ids) > reading.tokens_max)
      return fail(
          Code::kInvalidInput,
          "has {} tokens with its prompt, and data.sequence_length is {}: raise it, or leave "
          "the pair out",
          l.ids.size(),
          reading.tokens_max);
  return lessons;
}

bool same(const std::vector<text::Lesson>& a, const std::vector<text::Lesson>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.ids == y.ids && x.learnt == y.learnt;
  });
}

Result<PreferencePair> pair_of(const std::string& text,
                               const ModelTexts& texts,
                               const PairReading& reading) {
  TRY_ASSIGN(const Json line, parse_ordered_json(text, "the line"));
  if (!line.is_object()) return fail(Code::kInvalidInput, "is no JSON object; a pair is {}", kForm);
  TRY_ASSIGN(const Conversations c, conversations_of(line));
  PreferencePair pair;
  const auto side = [&](const char* name, const Json& answer) -> Result<std::vector<text::Lesson>> {
    Result<std::vector<text::Lesson>> lessons = lessons_of(line, c.prompt, answer, texts, reading);
    if (!lessons) return fail(lessons.error().code, "\"{}\": {}", name, lessons.error().message);
    return lessons;
  };
  TRY_ASSIGN(pair.chosen, side("chosen", c.chosen));
  TRY_ASSIGN(pair.rejected, side("rejected", c.rejected));
  if (same(pair.chosen, pair.rejected))
    return fail(Code::kInvalidInput,
                "\"chosen\" and \"rejected\" are the same to the model: nothing is preferred");
  return pair;
}

/// Whether the template writes another day, month and year otherwise.
bool is_dated(const std::string& line,
              const PreferencePair& pair,
              const ModelTexts& texts,
              const PairReading& reading) {
  PairReading later = reading;
  later.now = reading.now.another_day();
  const Result<PreferencePair> again = pair_of(line, texts, later);
  return !again || !same(again->chosen, pair.chosen) || !same(again->rejected, pair.rejected);
}

std::string digest_of(const std::vector<text::Lesson>& side) {
  Hasher hash;
  for (const text::Lesson& l : side) {
    const uint64_t tokens = l.ids.size();
    hash.update(&tokens, sizeof tokens);
    hash.update(l.ids.data(), l.ids.size() * sizeof(int32_t));
    const std::string learnt(l.learnt.begin(), l.learnt.end());
    hash.update(learnt.data(), learnt.size());
  }
  return hash.hex();
}

/// How many pairs are alike in one way, and the first of them.
struct Alike {
  int64_t count = 0;
  size_t line = 0, other = 0;
  void found(size_t at, size_t before) {
    if (count++ == 0) {
      line = at;
      other = before;
    }
  }
};

}  // namespace

std::vector<std::string> doubts_of(std::span<const PreferencePair> pairs,
                                   const std::string& path,
                                   std::span<const PreferencePair> held_out,
                                   const std::string& held_out_path) {
  using Answers = std::pair<std::string, std::string>;
  std::vector<std::string> doubts;
  std::map<Answers, size_t> learnt;  // lines of what is chosen and rejected
  const auto look = [&](std::span<const PreferencePair> of, const std::string& in, bool held) {
    std::map<Answers, size_t> seen;
    Alike twice, against, known;
    for (const PreferencePair& p : of) {
      const Answers answers{digest_of(p.chosen), digest_of(p.rejected)};
      const Answers turned{answers.second, answers.first};
      const auto [it, is_new] = seen.try_emplace(answers, p.line);
      if (!is_new) twice.found(p.line, it->second);
      if (const auto other = seen.find(turned); other != seen.end())
        against.found(p.line, other->second);
      for (const Answers& either : {answers, turned})
        if (const auto other = learnt.find(either); held && other != learnt.end())
          known.found(p.line, other->second);
    }
    if (!held) learnt = std::move(seen);
    if (twice.count > 0)
      doubts.push_back(fmt::format("{}: {} there again, the first in line {}, after line {}",
                                   in,
                                   counted(twice.count, "pair is", "pairs are"),
                                   twice.line,
                                   twice.other));
    if (against.count > 0)
      doubts.push_back(
          fmt::format("{}: {} what others reject, the first in line {}, against line {}",
                      in,
                      counted(against.count, "pair prefers", "pairs prefer"),
                      against.line,
                      against.other));
    if (known.count > 0)
      doubts.push_back(fmt::format(
          "{}: {} of the pairs held out are learnt from, the first in line {}, as line {} of {}",
          in,
          known.count,
          known.line,
          known.other,
          path));
  };
  look(pairs, path, false);
  look(held_out, held_out_path, true);
  return doubts;
}

int64_t tokens_of(const PreferencePair& pair) {
  int64_t tokens = 0;
  for (const auto* side : {&pair.chosen, &pair.rejected})
    for (const text::Lesson& l : *side) tokens += std::ssize(l.ids) - 1;
  return tokens;
}

Result<PreferencePairs> read_preference_pairs(const std::string& path,
                                              const ModelTexts& texts,
                                              const PairReading& reading) {
  TRY_ASSIGN(const std::string text, data::read_text(path, {}, kFileBytesMax));
  return parse_preference_pairs(text, path, texts, reading);
}

Result<PreferencePairs> parse_preference_pairs(std::string_view text,
                                               const std::string& path,
                                               const ModelTexts& texts,
                                               const PairReading& reading) {
  PreferencePairs all;
  std::string_view rest = text;
  for (size_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string line(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    Result<PreferencePair> pair = pair_of(line, texts, reading);
    if (pair) {
      pair->line = number;
      all.pairs.push_back(*std::move(pair));
      if (all.pairs.size() == 1) all.dated = is_dated(line, all.pairs[0], texts, reading);
    } else {
      // What the model's files lack no other line has.
      const bool of_line =
          pair.error().code == Code::kInvalidInput || pair.error().code == Code::kCorrupt;
      const std::string why = fmt::format("{}:{}: {}", path, number, pair.error().message);
      if (!of_line) return fail(pair.error().code, "{}", why);
      if (std::ssize(all.left_out) == reading.bad_max)
        return fail(Code::kInvalidInput,
                    "{}{}",
                    why,
                    reading.bad_max > 0
                        ? fmt::format(" (and dpo.skip_bad lets {} be left out)", reading.bad_max)
                        : std::string());
      all.left_out.push_back(why);
    }
    if (reading.go_on && !reading.go_on()) return fail(Code::kTimeout, "{}: stopped", path);
  }
  if (all.pairs.empty())
    return fail(Code::kInvalidInput,
                "{}: has no pairs{}",
                path,
                all.left_out.empty()
                    ? std::string()
                    : fmt::format("; {} left out (dpo.skip_bad), the first: {}",
                                  counted(all.left_out.size(), "line is", "lines are"),
                                  all.left_out.front()));
  return all;
}

}  // namespace ferry
