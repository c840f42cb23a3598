#include "serve/form_cache.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "serve/chat_request.h"
#include "serve/request_test_support.h"

namespace ferry::serve {
namespace {

using grammar::AnswerForm;

AnswerForm integers_to(int most) {
  return {.kind = AnswerForm::Kind::kSchema,
          .schema = fmt::format(R"({{"type": "integer", "minimum": 0, "maximum": {}}})", most)};
}

TEST(FormCache, CompilesWhatIsAskedAgainOnce) {
  FormCache cache;
  const auto first = cache.automaton(integers_to(5));
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(*cache.automaton(integers_to(5)), *first);
  EXPECT_EQ(cache.compiled(), 1);
  AnswerForm thought = integers_to(5);  // whatever it differs in makes it another
  thought.thought = AnswerForm::Thought::kMay;
  EXPECT_NE(*cache.automaton(thought), *first);
  EXPECT_NE(*cache.automaton(integers_to(6)), *first);
  EXPECT_EQ(cache.compiled(), 3);
}

TEST(FormCache, RefusesWhatItRefusedBeforeWithoutLookingAgain) {
  FormCache cache;
  const AnswerForm refused{.kind = AnswerForm::Kind::kSchema, .schema = R"({"not": {}})"};
  const auto first = cache.automaton(refused), again = cache.automaton(refused);
  ASSERT_FALSE(first);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().message, first.error().message);
  EXPECT_EQ(cache.compiled(), 1);
}

TEST(FormCache, ForgetsWhatWasNotAskedForTheLongest) {
  FormCache cache(FormCache::Limits{.forms = 2});
  ASSERT_TRUE(cache.automaton(integers_to(1)));
  ASSERT_TRUE(cache.automaton(integers_to(2)));
  ASSERT_TRUE(cache.automaton(integers_to(1)));
  ASSERT_TRUE(cache.automaton(integers_to(3)));  // in the place of 2
  EXPECT_EQ(cache.forms(), 2u);
  EXPECT_EQ(cache.compiled(), 3);
  ASSERT_TRUE(cache.automaton(integers_to(1)));
  EXPECT_EQ(cache.compiled(), 3);
  ASSERT_TRUE(cache.automaton(integers_to(2)));
  EXPECT_EQ(cache.compiled(), 4);
}

TEST(FormCache, HoldsNoMoreBytesThanItMay) {
  FormCache one;
  ASSERT_TRUE(one.automaton(integers_to(9)));
  FormCache cache(FormCache::Limits{.forms = 1000, .bytes = 3 * one.bytes()});
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(cache.automaton(integers_to(i)));
    ASSERT_LE(cache.bytes(), 3 * one.bytes());
  }
  EXPECT_GE(cache.forms(), 1u);
  // What alone is too much is made, and not kept.
  FormCache tiny(FormCache::Limits{.forms = 10, .bytes = 100});
  ASSERT_TRUE(tiny.automaton(integers_to(9)));
  EXPECT_EQ(tiny.forms(), 0u);
  EXPECT_EQ(tiny.bytes(), 0u);
}

/// As requests come: what else they say does not make their form another.
TEST(FormCache, RequestsWithOneSchemaShareItsAutomaton) {
  ByteModelRules model("{% for m in messages %}{{ m.content }}{% endfor %}{# <tool_call> #}");
  const auto asked = [&](const std::string& content, const std::string& more) {
    const auto q = read_chat(
        fmt::format(R"({{"messages": [{{"role": "user", "content": "{}"}}], {}}})", content, more),
        model.rules());
    EXPECT_TRUE(q) << q.error().message;
    EXPECT_NE(q->options.constraint, nullptr);
    return q->options.constraint->automaton;
  };
  const std::string schema =
      R"("response_format": {"type": "json_schema", "json_schema": {"schema":
         {"type": "object", "properties": {"a": {"type": "string"}}}}})";
  const auto first = asked("one", schema);
  EXPECT_EQ(asked("two", schema + R"(, "temperature": 0.5)"), first);
  EXPECT_EQ(model.forms().compiled(), 1);
  const std::string tools =
      R"("tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
         "tool_choice": "required")";
  const auto call = asked("one", tools);
  EXPECT_NE(call, first);
  EXPECT_EQ(asked("two", tools), call);
  EXPECT_EQ(model.forms().compiled(), 2);
}

}  // namespace
}  // namespace ferry::serve
