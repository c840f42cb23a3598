#include "models/fit.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace ferry::models {
namespace {

std::vector<std::string> notes_of(const std::string& config) {
  const Result<FittedConfig> fitted = fit_config(config, "config.json", {});
  EXPECT_TRUE(fitted) << config;
  return fitted ? fitted->notes : std::vector<std::string>{"refused"};
}

/// Two fields say which model it is: where they differ, whoever goes by the other one reads another model.
TEST(Fit, ArchitecturesOfAnotherModelAreTold) {
  for (const char* const fine :
       {R"({"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]})",
        R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})",
        R"({"model_type": "llama", "architectures": []})",
        R"({"model_type": "llama", "architectures": null})",
        R"({"model_type": "llama"})",
        R"({"model_type": "another", "architectures": ["LlamaForCausalLM"]})"})
    EXPECT_TRUE(notes_of(fine).empty()) << fine;
  const std::vector<std::string> told =
      notes_of(R"({"model_type": "llama", "architectures": ["DeepseekV3ForCausalLM"]})");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_NE(told[0].find(R"("architectures" is ["DeepseekV3ForCausalLM"])"), std::string::npos);
  EXPECT_NE(told[0].find(R"("model_type" says, "llama")"), std::string::npos) << told[0];
}

/// What msModelSlim writes for MindIE: one name for V2, V3 and R1, and how all weights are quantised. (Fails where the
/// name is taken for V2's, or "quantize" is left for the reader of fields, which refuses it.)
TEST(Fit, MindIesNamesAreReadWhereTheirMeaningIsKnown) {
  const auto read = [](const std::string& config) {
    const Result<FittedConfig> fitted = fit_config(config, "config.json", {});
    return fitted ? nlohmann::json::parse(fitted->json) : nlohmann::json(fitted.error().message);
  };
  using nlohmann::json;
  EXPECT_EQ(
      read(
          R"({"model_type": "deepseekv2", "architectures": ["DeepseekV3ForCausalLM"], "quantize": "w8a8_dynamic"})"),
      (json{{"model_type", "deepseek_v3"}, {"architectures", {"DeepseekV3ForCausalLM"}}}));
  EXPECT_EQ(read(R"({"model_type": "deepseekv2", "architectures": ["DeepseekV2ForCausalLM"]})")
                .at("model_type"),
            "deepseek_v2");
  EXPECT_EQ(read(R"({"model_type": "qwen2", "quantize": "float"})"),
            (json{{"model_type", "qwen2"}}));
  const std::vector<std::string> told =
      notes_of(R"({"model_type": "deepseekv2", "architectures": ["DeepseekV3ForCausalLM"]})");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_NE(told[0].find("MindIE's name"), std::string::npos) << told[0];
  for (
      const char* const silent :
      {R"({"model_type": "deepseekv2"})",
       R"({"model_type": "deepseekv2", "architectures": ["LlamaForCausalLM", 3]})",
       R"({"model_type": "deepseekv2", "architectures": ["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"]})"}) {
    const std::string why = read(silent).get<std::string>();
    EXPECT_NE(why.find("MindIE's name for all of DeepSeek's models"), std::string::npos) << why;
    EXPECT_NE(why.find("set \"model_type\" to \"deepseek_v3\""), std::string::npos) << why;
  }
  for (const char* const other : {R"("w8a8")", R"("w8a8s")", "8", R"(["w8a8_dynamic"])"}) {
    const std::string why =
        read(fmt::format(R"({{"model_type": "llama", "quantize": {}}})", other)).get<std::string>();
    EXPECT_NE(why.find("MindIE"), std::string::npos) << why;
    EXPECT_NE(why.find("it reads \"w8a8_dynamic\""), std::string::npos) << why;
  }
}

}  // namespace
}  // namespace ferry::models
