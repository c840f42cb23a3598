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

// Where they are not, this takes minutes.
TEST(SchemaLimits, ValuesThatManyFieldsAreGivenAreLimited) {
  std::string names = "\"a\"", zeros = "0";
  for (int i = 0; i < 4000; ++i) names += ",\"" + std::to_string(i) + "\"";
  for (int i = 0; i < 200'000; ++i) zeros += ",0";
  for (const auto& [keyword, part] :
       {std::pair("enum", "more than 50000 schemas"), {"const", "it needs more than"}}) {
    const std::string schema = R"({"required": [)" + names + R"(], "additionalProperties": {")" +
                               keyword + "\": [" + zeros + "]}}";
    EXPECT_NE(refusal(schema).find(part), std::string::npos) << keyword;
    EXPECT_LT(refusal_s(schema), 10) << keyword;
  }
}

TEST(SchemaLimits, PlacesOfLongNamesStayShort) {
  const std::string name(50'000, 'n');
  const std::string why =
      refusal(R"({"properties": {")" + name + R"(": {"properties": {"b": {"not": 1}}}}})");
  EXPECT_NE(why.find("'not' is not supported"), std::string::npos) << why;
  EXPECT_LT(why.size(), 2000u);
}

}  // namespace
}  // namespace ferry::grammar
