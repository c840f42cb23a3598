// That a schema takes no longer, and no more memory, than its size and the limits allow; a refusal names the limit.
#include <gtest/gtest.h>

#include <ctime>

#include "grammar/grammar_testing.h"

namespace ferry::grammar {
namespace {

/// The processor's time that this takes, whatever else the machine does.
double refusal_s(const std::string& schema) {
  const std::clock_t began = std::clock();
  refusal(schema);
  return static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
}

// Where the constant is converted for each value, four times as much takes sixteen times as long.
TEST(SchemaLimits, AConstantBesideManyValuesIsReadOnce) {
  const auto schema = [](int count) {
    std::string zeros = "0", objects = "{}";
    for (int i = 1; i < count; ++i) {
      zeros += ",0";
      objects += ",{}";
    }
    return R"({"enum": [)" + zeros + R"(], "const": [)" + objects + "]}";
  };
  EXPECT_NE(refusal(schema(10)).find("nothing satisfies"), std::string::npos);
  EXPECT_LT(refusal_s(schema(12'000)), 9 * refusal_s(schema(3'000)) + 0.1);
}

}  // namespace
}  // namespace ferry::grammar
