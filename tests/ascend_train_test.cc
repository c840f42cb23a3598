// The program on software Ascend, as a person runs it: it trains as on the CPU, a run that the chip
// interrupts ends with the same bytes as an undisturbed one, and what it trained answers.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "program.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

constexpr int kSteps = 8;

constexpr const char* kRun = R"([data]
sequence_length = 32
[train]
tokens_per_step = 128
micro_batch_tokens = 64
evaluate_every = 4
evaluate_tokens = 128
compute = "bf16"
[schedule]
warmup_steps = 2
[checkpoint]
every = 2
[log]
every = 1
)";

class AscendTrain : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string name = (fs::temp_directory_path() / "ferry-ascend-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    write(root_ / "text.txt", generated_text(1));
    write(root_ / "run.toml", std::string(kTinyModel) + kRun);
    ran({"tokenizer", "train", "--vocab", "300", "--out", path("tok.json"), path("text.txt")});
    ran({"data",
         "prepare",
         path("text.txt"),
         "--split",
         "line",
         "--tokenizer",
         path("tok.json"),
         "--out",
         path("text"),
         "--held-out-bytes",
         "4K"});
    said_ = ran(train("calm", "ascend"));
  }
  static void TearDownTestSuite() { fs::remove_all(root_); }

  static std::string path(const std::string& name) { return (root_ / name).string(); }
  static Strings train(const std::string& run, const std::string& device) {
    return {"train",
            path("run.toml"),
            "--device",
            device,
            "--model.q_lora_rank=16",
            "--model.qk_rope_head_dim=16",  // heads in sixteens: the fused attention is reached
            "--data.dir=" + path("text"),
            "--checkpoint.dir=" + path(run),
            "--train.steps=" + std::to_string(kSteps)};
  }
  struct Ended {
    int status;
    std::string output;
  };
  static Ended end_of(const Strings& args, Environment environment = {}) {
    environment.emplace("FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM);
    Program p(root_ / "log", args, environment);
    const int status = p.wait();
    return {status, p.output()};
  }
  static std::string ran(const Strings& args, const Environment& environment = {}) {
    const Ended e = end_of(args, environment);
    EXPECT_EQ(e.status, 0) << e.output;
    return e.output;
  }
  /// What a run leaves that must not depend on how it got there.
  static std::string bytes(const std::string& run) {
    char name[32];
    std::snprintf(name, sizeof name, "step-%08d", kSteps);
    const fs::path folder = root_ / run / name;
    const std::string weights = read(folder / "model.safetensors"),
                      state = read(folder / "state/part-00000.safetensors");
    EXPECT_FALSE(weights.empty() || state.empty()) << folder;
    return weights + state;
  }
  static std::map<int, double> losses(const std::string& run) {
    std::map<int, double> out;
    std::istringstream lines(read(root_ / run / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const Json j = Json::parse(line);
      if (j.at("kind") == "step") out[j.at("step").get<int>()] = j.at("loss").get<double>();
    }
    return out;
  }

  inline static fs::path root_;
  inline static std::string said_;
};

TEST_F(AscendTrain, SaysThatItIsSoftwareAndLearnsAsTheCpuDoes) {
  EXPECT_NE(said_.find("device     software Ascend"), std::string::npos) << said_;
  ran(train("cpu", "cpu"));
  const std::map<int, double> ascend = losses("calm"), cpu = losses("cpu");
  ASSERT_EQ(ascend.size(), static_cast<size_t>(kSteps));
  ASSERT_EQ(cpu.size(), ascend.size());
  for (const auto& [step, loss] : cpu)
    EXPECT_NEAR(ascend.at(step), loss, 0.01 * loss) << "step " << step;
  EXPECT_LT(ascend.at(kSteps), ascend.at(1));
  EXPECT_NE(bytes("calm"), bytes("cpu")) << "the CPU computed it, not software Ascend";
}

TEST_F(AscendTrain, InterruptedByFaultsEndsWithTheSameBytes) {
  // By the 20th call of an op that a step makes some ten times: after the first checkpoint.
  for (const char* const fault : {"507015", "507054"}) {
    const std::string run = std::string("fault") + fault;
    const Ended e = end_of(train(run, "ascend"),
                           {{"FERRY_ASCEND_SIM_FAULT", std::string(fault) + "@41:RmsNormGrad"},
                            {"FERRY_ASCEND_SIM_FAULT_ONCE", path(run + ".once")}});
    EXPECT_EQ(e.status, 0) << e.output;
    EXPECT_NE(e.output.find(fault), std::string::npos) << e.output;
    EXPECT_NE(e.output.find("aclnnRmsNormGrad"), std::string::npos) << e.output;
    EXPECT_NE(e.output.find("its device failed"), std::string::npos) << e.output;
    EXPECT_TRUE(bytes(run) == bytes("calm")) << fault << ": other weights or state\n" << e.output;
  }
}

TEST_F(AscendTrain, AFaultThatComesBackIsNarrowedToOneOp) {
  Program p(root_ / "log",
            train("broken", "ascend"),
            {{"FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM},
             {"FERRY_ASCEND_SIM_FAULT", "507035@2:SwiGluGrad"}});
  EXPECT_TRUE(wait_for([&] {
    return p.said("ascend:0: swiglu_backward (aclnnSwiGluGrad): 507035");
  })) << p.output();
  EXPECT_TRUE(p.said("one of launches")) << p.output();  // what the first worker could say
  p.signal(SIGTERM);  // it would try four times more, after ever longer pauses
  p.wait();
}

TEST_F(AscendTrain, WhatItTrainedGenerates) {
  char name[32];
  std::snprintf(name, sizeof name, "/step-%08d", kSteps);
  const std::string said = ran({"generate",
                                path("calm") + name,
                                "--device",
                                "ascend",
                                "--prompt",
                                "the ferry",
                                "--tokens",
                                "8",
                                "--temperature",
                                "0"});
  EXPECT_NE(said.find("the ferry"), std::string::npos) << said;
}

}  // namespace
