// Against values of mpmath: testdata/math.txt, made by tools/oracle/make_math_tables.py.
#include "base/math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <sstream>

#include "base/file.h"
#include "base/random.h"
#include "base/threads.h"

namespace ferry {
namespace {

constexpr double kBound = 0.51;  // ulp; derived in math.cc

struct Case {
  std::string function;
  double x = 0, y = 0, high = 0, low = 0;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  std::istringstream lines(*read_file(FERRY_SOURCE_DIR "/testdata/math.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#")) continue;
    Case c;
    std::istringstream words(line);
    const auto number = [&] {
      std::string word;
      words >> word;
      return std::strtod(word.c_str(), nullptr);
    };
    words >> c.function;
    c.x = number();
    if (c.function == "pow") c.y = number();
    c.high = number();
    c.low = number();
    EXPECT_TRUE(words) << line;
    all.push_back(c);
  }
  return all;
}

double computed(const Case& c) {
  if (c.function == "exp") return math::exp(c.x);
  if (c.function == "log") return math::log(c.x);
  if (c.function == "pow") return math::pow(c.x, c.y);
  return c.function == "cos" ? math::cos(c.x) : math::sin(c.x);
}

/// The distance to the true value, in units of its last place. Exact but for the last rounding.
double ulps(double got, const Case& c) {
  if (c.high == 0) return got == 0 ? 0 : 1;
  const double ulp = std::ldexp(1.0, std::ilogb(c.high) - 52);
  return std::abs(((got - c.high) - c.low) / ulp);
}

TEST(Math, IsWithinItsBoundOfTheTrueValues) {
  std::map<std::string, int> tried;
  for (const Case& c : cases()) {
    ++tried[c.function];
    EXPECT_LE(ulps(computed(c), c), kBound) << fmt::format("{}({:a}, {:a})", c.function, c.x, c.y);
  }
  for (const char* function : {"exp", "log", "pow", "cos", "sin"})
    EXPECT_GE(tried[function], 100) << function;
}

TEST(Math, BitsDoNotDependOnFlushing) {
  for (const Case& c : cases()) {
    const double plain = computed(c);
    const FlushDenormals flush;
    EXPECT_EQ(computed(c), plain) << fmt::format("{}({:a}, {:a})", c.function, c.x, c.y);
  }
}

TEST(Math, EndsOfTheRanges) {
  const double infinity = HUGE_VAL;
  EXPECT_EQ(math::exp(0), 1);
  EXPECT_EQ(math::exp(-709), 0);
  EXPECT_EQ(math::exp(-infinity), 0);
  EXPECT_EQ(math::exp(709.79), infinity);
  EXPECT_EQ(math::exp(infinity), infinity);
  EXPECT_GT(math::exp(709.7827128933), 1.79e308);
  EXPECT_TRUE(std::isnan(math::exp(NAN)));
  EXPECT_EQ(math::log(1), 0);
  EXPECT_EQ(math::log(0), -infinity);
  EXPECT_EQ(math::log(5e-324), -infinity);
  EXPECT_EQ(math::log(infinity), infinity);
  EXPECT_TRUE(std::isnan(math::log(-1)));
  EXPECT_TRUE(std::isnan(math::log(NAN)));
  EXPECT_EQ(math::pow(3, 0), 1);
  EXPECT_EQ(math::pow(0, 0), 1);
  EXPECT_EQ(math::pow(1, infinity), 1);
  EXPECT_EQ(math::pow(0, 2), 0);
  EXPECT_EQ(math::pow(0, -2), infinity);
  EXPECT_EQ(math::pow(10, 2), 100);
  EXPECT_EQ(math::pow(0.5, 10), 0x1p-10);
  EXPECT_EQ(math::pow(10, 400), infinity);
  EXPECT_EQ(math::pow(10, -400), 0);
  EXPECT_EQ(math::pow(0.9, 1e300), 0);
  EXPECT_EQ(math::pow(infinity, -1), 0);
  EXPECT_TRUE(std::isnan(math::pow(-2, 2)));
  EXPECT_TRUE(std::isnan(math::pow(2, NAN)));
  EXPECT_EQ(math::cos(0), 1);
  EXPECT_EQ(math::sin(-0.0), 0);
  EXPECT_TRUE(std::signbit(math::sin(-0.0)));
  EXPECT_TRUE(std::isnan(math::cos(0x1.1p40)));
  EXPECT_TRUE(std::isnan(math::sin(infinity)));
}

// One number for many results: the same with fma as an instruction and as a call, from each compiler and
// processor, and today as tomorrow. Another one would be other `numerics`.
TEST(Math, BitsAreTheSameEverywhere) {
  uint64_t digest = 0xcbf29ce484222325, state = 1;
  const auto add = [&](double y) {
    digest = (digest ^ std::bit_cast<uint64_t>(y)) * 0x100000001b3;
  };
  for (int i = 0; i < 20000; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    const double u = static_cast<double>(state >> 11) * 0x1p-53;  // in [0, 1)
    add(math::exp(1416 * u - 708));
    add(math::log(u + 0x1p-60));
    add(math::pow(u, 20 * u));
    add(math::cos(1e6 * u));
    add(math::sin(1e6 * u));
  }
  EXPECT_EQ(digest, 0xaee362fd03889dc5);
}

TEST(Math, AgreesWithTheCLibraryOnManyMoreArguments) {
  // Both are within their bounds of the truth (glibc's: 1 ulp), so of each other within their sum.
  const Random random(1, RandomPurpose::kTest, 0);
  const auto close = [](double a, double b) {
    return std::abs(a - b) <= 1.51 * std::ldexp(1.0, std::ilogb(b) - 52);
  };
  for (uint64_t i = 0; i < 200000; ++i) {
    const double u = random.uniform(2 * i), v = random.uniform(2 * i + 1);
    const double x = 1400 * u - 700, p = std::ldexp(0.5 + v, static_cast<int>(2000 * u) - 1000),
                 angle = std::ldexp(v, static_cast<int>(40 * u));
    EXPECT_TRUE(close(math::exp(x), std::exp(x))) << x;
    EXPECT_TRUE(close(math::log(p), std::log(p))) << p;
    EXPECT_TRUE(close(math::pow(v, 20 * u), std::pow(v, 20 * u))) << v << ' ' << 20 * u;
    EXPECT_TRUE(close(math::cos(angle), std::cos(angle))) << angle;
    EXPECT_TRUE(close(math::sin(-angle), std::sin(-angle))) << angle;
  }
}

}  // namespace
}  // namespace ferry
