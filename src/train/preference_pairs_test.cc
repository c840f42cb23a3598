// Pairs of answers: what of them is learnt, and what is refused, by its line.
#include "train/preference_pairs.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "checkpoint/chat_test_support.h"

namespace ferry {
namespace {

class Pairs : public testing::Test {
 protected:
  Result<PreferencePairs> read(const std::string& lines, const PairReading& reading) const {
    const std::string path = testing::TempDir() + "/pairs.jsonl";
    EXPECT_TRUE(write_file_atomic(path, lines));
    return read_preference_pairs(path, texts_, reading);
  }
  /// Both answers as text, what is learnt in {braces}; or why there are none.
  std::vector<std::string> sides(const std::string& line) const {
    const auto all = read(line, {.directory = "model", .tokens_max = 200});
    if (!all) return {all.error().message};
    EXPECT_EQ(all->pairs.size(), 1u);
    std::vector<std::string> out;
    for (const auto* side : {&all->pairs[0].chosen, &all->pairs[0].rejected}) {
      out.emplace_back();
      for (const text::Lesson& l : *side) {
        bool open = false;
        for (size_t i = 0; i <= l.ids.size(); ++i) {
          const bool learnt = i < l.ids.size() && l.learnt[i];
          if (learnt != open) out.back() += learnt ? "{" : "}";
          open = learnt;
          if (i < l.ids.size()) out.back() += texts_.tokenizer->token_bytes(l.ids[i]);
        }
      }
    }
    return out;
  }
  std::string refusal(const std::string& line) const {
    const auto all = read(line, {.directory = "model", .tokens_max = 40});
    return all ? "" : all.error().message;
  }

  const ModelTexts texts_ = chat_texts(kChatml);
};

constexpr const char* kUser = R"({"role": "user", "content": "Hi"})";
constexpr const char* kGood = R"({"role": "assistant", "content": "Ho"})";
constexpr const char* kBad = R"({"role": "assistant", "content": "No"})";

std::string pair(const std::string& prompt,
                 const std::string& chosen,
                 const std::string& rejected) {
  return (prompt.empty() ? "{" : R"({"prompt": [)" + prompt + "], ") + R"("chosen": [)" + chosen +
         R"(], "rejected": [)" + rejected + R"(], "score": 7})";
}

TEST_F(Pairs, OfAnswersAloneIsLearnt) {
  const std::vector<std::string> expected = {
      "<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n{Ho<|eos|>}",
      "<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n{No<|eos|>}"};
  EXPECT_EQ(sides(pair(kUser, kGood, kBad)), expected);
  // Whole conversations, whose common beginning is the prompt.
  EXPECT_EQ(sides(pair("", std::string(kUser) + "," + kGood, std::string(kUser) + "," + kBad)),
            expected);
  // A text as the prompt is a note beside them. Neither the order of fields parts two messages nor a null.
  EXPECT_EQ(
      sides(R"({"prompt": "Hi", "chosen": [)" + std::string(kUser) + "," + kGood +
            R"(], "rejected": [{"content": "Hi", "name": null, "role": "user"}, )" + kBad + "]}"),
      expected);
  // What the assistant said before is the prompt's, whatever weight it has.
  EXPECT_EQ(sides(pair(std::string(kUser) +
                           R"(, {"role": "assistant", "content": "x", "weight": 1}, )" + kUser,
                       kGood,
                       kBad))[1],
            "<|bos|>user\nHi<|eos|>\n<|bos|>assistant\nx<|eos|>\n<|bos|>user\nHi<|eos|>\n"
            "<|bos|>assistant\n{No<|eos|>}");
  // An answer may go on over several turns, and be as long as it likes beside the other.
  EXPECT_EQ(sides(pair(kUser, std::string(kGood) + "," + kUser + "," + kBad, kBad))[0],
            "<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n{Ho<|eos|>}\n<|bos|>user\nHi<|eos|>\n"
            "<|bos|>assistant\n{No<|eos|>}");
}

/// As in conversations: an empty text is an answer that ends at once; a system prompt may stand beside the messages.
TEST_F(Pairs, AreReadAsConversationsAre) {
  const std::string begin = "<|bos|>system\nS<|eos|>\n<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n";
  EXPECT_EQ(
      sides(
          R"({"system": "S", )" +
          pair(
              kUser,
              R"({"role": "assistant", "content": [{"type": "text", "text": "Ho"}], "annotations": []})",
              R"({"role": "assistant", "content": ""})")
              .substr(1)),
      (std::vector<std::string>{begin + "{Ho<|eos|>}", begin + "{<|eos|>}"}));
}

TEST_F(Pairs, AreRefusedByTheirLine) {
  const std::string user = kUser, good = kGood;
  for (
      const auto& [line, says] : std::vector<std::pair<std::string, std::vector<const char*>>>{
          {R"({"prompt": "Hi", "chosen": "Ho", "rejected": "No"})", {"\"chosen\" is a text"}},
          {R"({"prompt": "Hi", "chosen": [)" + good + R"(], "rejected": [)" + kBad + "]}",
           {"\"prompt\" is a text", "list of messages"}},
          {pair(kUser, user + "," + good, user + "," + kBad), {"take \"prompt\" out"}},
          {pair(user + "," + good, kGood, kBad),
           {"\"prompt\" ends with a message of the assistant"}},
          {pair("", user + "," + good + "," + kBad, user + "," + good + "," + kGood),
           {"have in common ends with a message of the assistant"}},
          {pair("", user + "," + good, R"({"content": "Hi", "role": "user"},)" + good),
           {"are the same"}},
          {pair(kUser, kGood, R"({"role": "assistant", "content": null})"),
           {"\"rejected\": message 2", "says nothing"}},
          {R"({"tools": [{"name": "f", "parameters": {"properties": {"a": null}}}], )" +
               pair(kUser, kGood, kBad).substr(1),
           {"properties.a' is null"}},
          {R"({"prompt": [)" + user + R"(], "chosen": [)" + good + "]}", {"no \"rejected\""}},
          {pair("", good, kBad), {"no message in common"}},
          {pair("", user + "," + good, user + "," + good), {"are the same"}},
          {pair(kUser, kGood, kGood), {"are the same"}},
          {pair("", user, user + "," + good), {"the beginning of the other"}},
          {pair("", user + "," + good, user + "," + user), {"\"rejected\"", "not the assistant's"}},
          {pair(kUser, good + "," + user, kBad), {"\"chosen\"", "last message"}},
          {pair(kUser, R"({"role": "assistant", "content": "a<|eos|>b"})", kBad),
           {"\"chosen\": message 2", "<|eos|>"}},
          {pair(kUser, kGood, R"({"content": "No"})"), {"without \"role\""}},
          {pair(kUser, kGood, R"({"role": "assistant", "content": "No", "mood": 1})"), {"mood"}},
          {"[1]", {"no JSON object"}},
          {R"({"prompt": )", {"line"}},
          {pair(
               kUser,
               kGood,
               R"({"role": "assistant", "content": "a b c d e f g h i j k l m n o p q r s t u v w x y"})"),
           {"\"rejected\"", "tokens with its prompt", "data.sequence_length is 40"}}}) {
    const std::string said = refusal(pair(kUser, kGood, kBad) + "\n\n" + line + "\n");
    EXPECT_NE(said.find("pairs.jsonl:3: "), std::string::npos) << line << "\n" << said;
    for (const char* s : says) EXPECT_NE(said.find(s), std::string::npos) << line << "\n" << said;
  }
  EXPECT_NE(refusal("\n").find("no pairs"), std::string::npos);
  EXPECT_NE(refusal("[" + pair(kUser, kGood, kBad) + "]").find("one JSON list"), std::string::npos);
}

TEST_F(Pairs, SomeBadLinesMayBeLeftOut) {
  const std::string lines =
      "{}\n" + pair(kUser, kGood, kBad) + "\n" + pair(kUser, kGood, kGood) + "\n";
  const auto two = read(lines, {.directory = "model", .tokens_max = 40, .bad_max = 2});
  ASSERT_TRUE(two) << two.error().message;
  EXPECT_EQ(two->pairs.size(), 1u);
  ASSERT_EQ(two->left_out.size(), 2u);
  EXPECT_NE(two->left_out[1].find("pairs.jsonl:3: "), std::string::npos) << two->left_out[1];
  const auto one = read(lines, {.directory = "model", .tokens_max = 40, .bad_max = 1});
  ASSERT_FALSE(one);
  EXPECT_NE(one.error().message.find("pairs.jsonl:3: "), std::string::npos) << one.error().message;
  EXPECT_NE(one.error().message.find("dpo.skip_bad"), std::string::npos) << one.error().message;
  const auto none = read("{}\n", {.directory = "model", .tokens_max = 40, .bad_max = 1});
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("1 line is left out (dpo.skip_bad), the first: "),
            std::string::npos)
      << none.error().message;
}

/// They are learnt from, and told.
TEST_F(Pairs, ThatAreRepeatedOrContradictAreTold) {
  const std::string other = R"({"role": "assistant", "content": "So"})";
  const std::string good = pair(kUser, kGood, kBad) + "\n",
                    turned = pair(kUser, kBad, kGood) + "\n",
                    third = pair(kUser, other, kBad) + "\n";
  const auto doubts = [&](const std::string& lines, const std::string& held) {
    const PairReading reading{.directory = "model", .tokens_max = 40};
    const auto pairs = read(lines, reading), held_out = read(held, reading);
    EXPECT_TRUE(pairs && held_out);
    return doubts_of(pairs->pairs, "learn", held_out->pairs, "held");
  };
  using Doubts = std::vector<std::string>;
  EXPECT_EQ(doubts(good + third, pair(kUser, other, kGood)), Doubts());
  EXPECT_EQ(doubts("\n" + good + third + good + good, pair(kUser, other, kGood)),
            Doubts{"learn: 2 pairs are there again, the first in line 4, after line 2"});
  EXPECT_EQ(
      doubts(good + third + turned, pair(kUser, other, kGood)),
      Doubts{"learn: 1 pair prefers what others reject, the first in line 3, against line 1"});
  EXPECT_EQ(doubts(third + good, "\n" + turned + turned),
            (Doubts{"held: 1 pair is there again, the first in line 3, after line 2",
                    "held: 2 of the pairs held out are learnt from, the first in line 2, as line 2 "
                    "of learn"}));
}

/// A template that asks for the day is known by it, and told the day that the reader has.
TEST_F(Pairs, OfADatedTemplateDependOnTheDay) {
  const ModelTexts dated = chat_texts(
      "{{ strftime_now('%d %b %Y') }} {% for m in messages %}{{ m.content }}"
      "{% if m.role == 'assistant' %}<|eos|>{% endif %} {% endfor %}");
  const std::string line = pair(kUser, kGood, kBad);
  const auto on = [&](const ModelTexts& texts, int64_t day) {
    return *parse_preference_pairs(
        line,
        "pairs",
        texts,
        {.directory = "model", .tokens_max = 80, .now = {day * 86'400'000 + 43'200'000}});
  };
  EXPECT_TRUE(on(dated, 20'000).dated);
  EXPECT_FALSE(on(texts_, 20'000).dated);
  EXPECT_EQ(on(dated, 20'000).pairs[0].chosen[0].ids, on(dated, 20'000).pairs[0].chosen[0].ids);
  EXPECT_NE(on(dated, 20'000).pairs[0].chosen[0].ids, on(dated, 20'001).pairs[0].chosen[0].ids);
}

/// As other text is read.
TEST_F(Pairs, MayBeCompressed) {
  const std::string text = pair(kUser, kGood, kBad);
  ASSERT_LT(text.size(), 256u);
  // zstd's frame of one block that is stored as it is.
  std::string frame("\x28\xB5\x2F\xFD\x20", 5);
  frame += static_cast<char>(text.size());
  const size_t block = text.size() << 3 | 1;
  frame += {static_cast<char>(block & 255), static_cast<char>(block >> 8), '\0'};
  const auto packed = read(frame + text, {.directory = "model", .tokens_max = 40});
  ASSERT_TRUE(packed) << packed.error().message;
  EXPECT_EQ(packed->pairs.size(), 1u);
  const auto cut = read(frame + text.substr(1), {.directory = "model", .tokens_max = 40});
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Code::kCorrupt) << cut.error().message;
  const auto marked = read("\xEF\xBB\xBF" + text, {.directory = "model", .tokens_max = 40});
  ASSERT_TRUE(marked) << marked.error().message;
  EXPECT_EQ(marked->pairs.size(), 1u);
}

TEST_F(Pairs, AreReadByAModelThatChats) {
  const ModelTexts mute = chat_texts("");
  const std::string path = testing::TempDir() + "/pairs.jsonl";
  ASSERT_TRUE(write_file_atomic(path, pair(kUser, kGood, kBad)));
  const auto all =
      read_preference_pairs(path, mute, {.directory = "model", .tokens_max = 40, .bad_max = 9});
  ASSERT_FALSE(all);  // no line is to blame
  EXPECT_EQ(all.error().code, Code::kNotFound);
  EXPECT_NE(all.error().message.find("chat template"), std::string::npos) << all.error().message;
}

}  // namespace
}  // namespace ferry
