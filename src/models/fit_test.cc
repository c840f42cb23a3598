#include "models/fit.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace ferry::models
