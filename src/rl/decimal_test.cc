// Numbers that texts write: equal where they mean the same, and only there.
#include "rl/decimal.h"

#include <gtest/gtest.h>

namespace ferry::rl {
namespace {

TEST(Decimal, EqualNumbersAreEqual) {
  for (const auto& [a, b] : {std::pair{"1,234.50", "1234.5"},
                             {"+7", "7.0"},
                             {" 7\n", "0007"},
                             {"1e3", "1000"},
                             {"-0.0", "0"},
                             {".5", "5E-1"},
                             {"5.", "5"},
                             {"-12,345,678e0", "-12345678"}}) {
    ASSERT_TRUE(decimal_of(a) && decimal_of(b)) << a << " " << b;
    EXPECT_EQ(decimal_of(a), decimal_of(b)) << a << " " << b;
    EXPECT_EQ(decimal_of(a)->text(), decimal_of(b)->text());
  }
  for (const auto& [a, b] : {std::pair{"9007199254740993", "9007199254740992"},
                             {"0.1", "0.10000000000000000555"},
                             {"7", "-7"},
                             {"1e999999", "1e999998"}})
    EXPECT_NE(decimal_of(a), decimal_of(b)) << a << " " << b;
}

TEST(Decimal, WhatIsNoNumber) {
  for (const char* bad :
       {"",          " ",        ".",      "-",      "e5",   "1e",        "1e+",
        "--1",       "1.2.3",    "nan",    "inf",    "0x10", "1,5",       "1,2,3",
        "12,34",     "1234,567", ",123",   "1,234,", "1 2",  "12 apples", "1e99999999999999999999",
        "1e1000001", "0,123",    "00,123", "012,345"})
    EXPECT_FALSE(decimal_of(bad)) << bad;
  EXPECT_FALSE(decimal_of(std::string(2000, '1')));
}

TEST(Decimal, WholeOnesAreExact) {
  EXPECT_EQ(decimal_of("9223372036854775807")->whole(), INT64_MAX);
  EXPECT_EQ(decimal_of("-9223372036854775808")->whole(), INT64_MIN);
  EXPECT_EQ(decimal_of("12.5e1")->whole(), 125);
  for (const char* none : {"9223372036854775808", "1e300", "0.5"})
    EXPECT_FALSE(decimal_of(none)->whole()) << none;
}

TEST(Decimal, Distances) {
  const auto near = [](const char* a, const char* b, double tolerance) {
    return within(*decimal_of(a), *decimal_of(b), tolerance);
  };
  EXPECT_TRUE(near("1234.6", "1234.5", 0.11));
  EXPECT_FALSE(near("1234.6", "1234.5", 0.09));
  EXPECT_FALSE(near("9007199254740993", "9007199254740992", 0.5));
  EXPECT_TRUE(near("9007199254740993", "9007199254740992", 1));
  EXPECT_FALSE(near("-9223372036854775808", "9223372036854775807", 1e19));
  EXPECT_TRUE(near("-9223372036854775808", "9223372036854775807", 2e19));
  EXPECT_TRUE(near("1e-999999", "0", 1e-300));
  EXPECT_FALSE(near("1e400", "1e401", 1e300));
}

}  // namespace
}  // namespace ferry::rl
