// Expressions, and what is none.
#include "rl/expression.h"

#include <gtest/gtest.h>

#include <string>

namespace ferry::rl {
namespace {

TEST(Expressions, AreComputedExactly) {
  const auto thirds = evaluate_expression("1 / 3 + 2 / 3");
  ASSERT_TRUE(thirds);
  EXPECT_EQ(thirds->value.numerator, 1);
  EXPECT_EQ(thirds->value.denominator, 1);
  EXPECT_EQ(thirds->numbers, (std::vector<int64_t>{1, 3, 2, 3}));
  const auto negative = evaluate_expression("(2 - 5) / (1 - 7 * 1)");
  ASSERT_TRUE(negative);
  EXPECT_EQ(negative->value.numerator, 1);
  EXPECT_EQ(negative->value.denominator, 2);
  EXPECT_EQ(evaluate_expression("8 - 4 - 2")->value.numerator, 2);
  EXPECT_EQ(evaluate_expression("8 / 4 / 2")->value.numerator, 1);
}

TEST(Expressions, WhatIsNoneOrLeaves64Bits) {
  for (const char* bad : {"",
                          "1 +",
                          "+ 1",
                          "-1",
                          "1 2",
                          "(1",
                          "1)",
                          "()",
                          "1 / 0",
                          "1 / (2 - 2)",
                          "9223372036854775807 + 1",
                          "9223372036854775808",
                          "4294967296 * 4294967296",
                          "a",
                          "1.5"})
    EXPECT_FALSE(evaluate_expression(bad)) << bad;
  EXPECT_FALSE(evaluate_expression(std::string(4000, '(')));
  EXPECT_FALSE(evaluate_expression(std::string(5000, '1')));
  EXPECT_FALSE(quotient_of({1, 2}, {0, 1}));
}

}  // namespace
}  // namespace ferry::rl
