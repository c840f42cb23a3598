// What a regular expression of outside origin may cost, and what it says.
#include "text/limited_regex.h"

#include <gtest/gtest.h>

#include "base/clock.h"

namespace ferry::text {
namespace {

LimitedRegex compiled(const std::string& pattern) {
  const auto regex = LimitedRegex::compile(pattern);
  EXPECT_TRUE(regex) << regex.error().message;
  return *regex;
}

TEST(LimitedRegex, MatchesTheWholeText) {
  const LimitedRegex regex = compiled("a+|b");
  EXPECT_TRUE(*regex.matches_all("aaa"));
  EXPECT_TRUE(*regex.matches_all("b"));
  EXPECT_FALSE(*regex.matches_all("aab"));
  EXPECT_FALSE(*regex.matches_all(""));
  EXPECT_FALSE(*regex.matches_all("a\n"));  // $ alone would let a newline follow
  EXPECT_TRUE(
      *compiled("x.y").matches_all("x\xff"
                                   "y"));
}

TEST(LimitedRegex, CountsMatches) {
  EXPECT_EQ(*compiled(R"(\p{Han})").count("\xe4\xbd\xa0\xe5\xa5\xbd, you"), 2);
  EXPECT_EQ(*compiled(R"(\p{L}+)").count("one two"), 2);
  EXPECT_EQ(*compiled("x*").count("\xc3\xa4xx\xc3\xa4"), 1);  // empty matches are passed over
  EXPECT_EQ(*compiled("x").count(""), 0);
}

TEST(LimitedRegex, EndsWhereMatchingWouldNot) {
  const auto regex = compiled("(a+)+[bc]");
  const double begin = system_clock().monotonic_s();
  const auto matched = regex.matches_all(std::string(40, 'a') + "d");
  ASSERT_FALSE(matched);
  EXPECT_EQ(matched.error().code, Code::kExhausted);
  EXPECT_LT(system_clock().monotonic_s() - begin, 10);
  const auto deep = compiled("(?:.|x)*y").matches_all(std::string(8 << 20, 'a'));
  EXPECT_TRUE(!deep || !*deep);
}

TEST(LimitedRegex, BadPatternsAreRefusedWithTheirPlace) {
  for (const char* bad : {"(", "[a", "a{2,1}", "\\C"}) {
    const auto regex = LimitedRegex::compile(bad);
    ASSERT_FALSE(regex) << bad;
    EXPECT_EQ(regex.error().code, Code::kInvalidInput);
    EXPECT_NE(regex.error().message.find("offset"), std::string::npos);
  }
}

}  // namespace
}  // namespace ferry::text
