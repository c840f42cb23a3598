// The program on software NVIDIA, as a person runs it: a hundred steps that the GPU interrupts again
// and again end with the CPU's losses and its very bytes, and what they trained answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>

#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

constexpr int kLongRun = 100, kShortRun = 8;

class CudaTrain : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    ran(train("short", "cuda", kShortRun));
  }

  /// A step as small as one can be and reach every kernel: the simulator goes through each
  /// instruction of each thread.
  static Strings train(const std::string& run, const std::string& device, int steps) {
    return Trains::train(run,
                         {"--device",
                          device,
                          "--model.q_lora_rank=16",
                          "--data.sequence_length=16",
                          "--train.tokens_per_step=16",
                          "--train.micro_batch_tokens=16",
                          "--train.evaluate_every=50",
                          "--train.evaluate_tokens=16",
                          "--train.compute=bf16",
                          "--train.steps=" + std::to_string(steps)});
  }
  static Ended end_of(const Strings& args, Environment environment = {}) {
    environment.emplace("FERRY_CUDA_LIBRARIES", FERRY_NVIDIA_SIM);
    environment.emplace("XDG_STATE_HOME", path("notes"));  // where doctors write their verdicts
    return Trains::end_of(args, environment);
  }
  static std::string ran(const Strings& args, const Environment& environment = {}) {
    const Ended e = end_of(args, environment);
    EXPECT_EQ(e.status, 0) << e.output;
    return e.output;
  }
  /// What a run leaves that must not depend on how it got there.
  static std::string bytes(const std::string& run, int steps) {
    const fs::path folder = checkpoint(run, steps);
    const std::string weights = read(folder / "model.safetensors"),
                      state = read(folder / "state/part-00000.safetensors");
    EXPECT_FALSE(weights.empty() || state.empty()) << folder;
    return weights + state;
  }
  static int count(const std::string& text, const std::string& part) {
    int n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
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
  /// Of what software NVIDIA counted: weights are f32, and hardly a product on tensor cores has fetched one element by
  /// element (the gradients of the router, whose scores are f32, are made so).
  static void expect_weights_are_read_as_they_lie(const std::string& counters) {
    int products = 0, fetched = 0;  // launches
    std::istringstream lines(counters);
    for (std::string line; std::getline(lines, line);) {
      const std::string kernel = line.substr(0, line.find('\t'));
      EXPECT_NE(kernel, "grouped_tensor_any");
      products += kernel.find("_tensor_") != std::string::npos ? 1 : 0;
      fetched += kernel == "matmul_tensor_any" ? 1 : 0;
    }
    EXPECT_GT(products, 50 * kShortRun);
    EXPECT_LT(20 * fetched, products);
  }
  static void expect_said(const std::string& output, const Strings& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(output.find(part), std::string::npos) << "not said: " << part << "\n" << output;
  }
};

// Equal bits are promised of every kernel (docs/cuda.md), so of a hundred steps as well, whoever
// interrupts them: each worker loses its GPU some forty steps later and another one goes on behind
// it. That the CPU did not compute it all is what the faults show: they are software NVIDIA's.
TEST_F(CudaTrain, AHundredStepsInterruptedAgainAndAgainEndAsOnTheCpu) {
  const Ended e =
      end_of(train("long", "cuda", kLongRun), {{"FERRY_NVIDIA_SIM_FAULT", "214@81:mean_loss"}});
  EXPECT_EQ(e.status, 0) << e.output;
  expect_said(e.output,
              {"device     software NVIDIA",
               "was never examined: run ferry doctor --device cuda:0",
               "214 ECC_UNCORRECTABLE: several bits",
               "resume     from"});
  EXPECT_GE(count(e.output, "its device failed"), 2) << e.output;
  ran(train("cpu", "cpu", kLongRun));
  const std::map<int, double> cuda = losses("long"), cpu = losses("cpu");
  ASSERT_EQ(cuda.size(), static_cast<size_t>(kLongRun));
  ASSERT_EQ(cpu.size(), cuda.size());
  for (const auto& [step, loss] : cpu) EXPECT_EQ(cuda.at(step), loss) << "step " << step;
  EXPECT_LT(cuda.at(kLongRun), 0.95 * cuda.at(1)) << "it learned nothing";
  EXPECT_TRUE(bytes("long", kLongRun) == bytes("cpu", kLongRun)) << "other weights or state";
}

// Against an undisturbed run on the same device.
TEST_F(CudaTrain, EachFaultIsNamedAndEndsWithTheSameBytes) {
  const std::pair<const char*, const char*> faults[] = {
      {"719", "719 LAUNCH_FAILED: a kernel failed"},
      {"999", "999 UNKNOWN: the driver failed inside"},
      {"hang", "702 LAUNCH_TIMEOUT: a kernel ran too long"}};
  for (const auto& [fault, meaning] : faults) {
    const std::string run = std::string("fault") + fault;
    const Ended e = end_of(train(run, "cuda", kShortRun),
                           {{"FERRY_NVIDIA_SIM_FAULT", std::string(fault) + "@9:mean_loss"},
                            {"FERRY_NVIDIA_SIM_FAULT_ONCE", path(run + ".once")},
                            {"FERRY_CUDA_TIMEOUT_S", "2"}});
    EXPECT_EQ(e.status, 0) << e.output;
    expect_said(e.output,
                {"ferry: cuda:0: ", meaning, "mean_loss", "its device failed", "resume     from"});
    EXPECT_TRUE(bytes(run, kShortRun) == bytes("short", kShortRun)) << fault << "\n" << e.output;
  }
}

// The bits are the GPU's own there: the same again after a fault, and others than the CPU's. Whoever
// goes on with the other device, or looks at what was trained, is told.
TEST_F(CudaTrain, OnTensorCoresARunIsItselfAndSaysWhereItWas) {
  ran(train("tensor", "cuda-tensor", kShortRun), {{"FERRY_NVIDIA_SIM_COUNTERS", path("counters")}});
  expect_weights_are_read_as_they_lie(read(path("counters")));
  const Ended e = end_of(train("tensor_fault", "cuda-tensor", kShortRun),
                         {{"FERRY_NVIDIA_SIM_FAULT", "719@9:mean_loss"},
                          {"FERRY_NVIDIA_SIM_FAULT_ONCE", path("tensor_fault.once")}});
  EXPECT_EQ(e.status, 0) << e.output;
  expect_said(e.output, {"bf16 products on tensor cores", "its device failed", "resume     from"});
  EXPECT_TRUE(bytes("tensor_fault", kShortRun) == bytes("tensor", kShortRun)) << e.output;
  EXPECT_FALSE(bytes("tensor", kShortRun) == bytes("short", kShortRun))
      << "nothing was on tensor cores";
  for (const auto& [step, loss] : losses("short"))
    EXPECT_NEAR(losses("tensor").at(step), loss, 0.005 * loss) << "step " << step;
  Strings on = train("tensor", "cuda", kShortRun + 2);
  on.push_back("--resume");
  expect_said(ran(on), {R"(changed    train.device: "cuda-tensor" -> "cuda")"});
  const fs::path last = checkpoint("tensor", kShortRun + 2);
  const Json passport = Json::parse(read(last / "passport.json"));
  const std::string devices = passport.at("statement").at("training").at("devices").dump();
  EXPECT_EQ(count(devices, "software NVIDIA"), 2) << devices;
  EXPECT_EQ(count(devices, "bf16 products on tensor cores"), 1) << devices;
}

// Long before its timeout.
TEST_F(CudaTrain, AHangOfTheGpuIsToldInSecondsWithItsOp) {
  Program p(root_ / "log",
            train("hung", "cuda", kShortRun),
            {{"FERRY_CUDA_LIBRARIES", FERRY_NVIDIA_SIM},
             {"XDG_STATE_HOME", path("notes")},
             {"FERRY_NVIDIA_SIM_FAULT", "hang@5:mean_loss"}});
  ASSERT_TRUE(wait_for([&] {
    return p.said("the chip of rank 0 has ended nothing for ") || p.ended();
  })) << p.output();
  const std::string said = p.output().substr(p.output().find("the chip of rank 0"));
  EXPECT_NE(said.find("cross_entropy"), std::string::npos) << said;  // whose kernel it is
  EXPECT_NE(said.find("after step 2"), std::string::npos) << said;   // of two of them a step
}

// The pool keeps what was freed. A GPU that is full is first given that back.
TEST_F(CudaTrain, OutOfMemoryIsCuredByWhatThePoolKeeps) {
  const Ended e = end_of(
      train("tight", "cuda", kShortRun),
      {{"FERRY_NVIDIA_SIM_FAULT", "2@200"}, {"FERRY_NVIDIA_SIM_FAULT_ONCE", path("tight.once")}});
  EXPECT_EQ(e.status, 0) << e.output;
  EXPECT_TRUE(fs::exists(path("tight.once"))) << "there was no such fault";
  EXPECT_EQ(e.output.find("starting again"), std::string::npos) << e.output;
  EXPECT_TRUE(bytes("tight", kShortRun) == bytes("short", kShortRun)) << e.output;
}

TEST_F(CudaTrain, AFaultThatComesBackIsNarrowedToOneOp) {
  Program p(root_ / "log",
            train("broken", "cuda", kShortRun),
            {{"FERRY_CUDA_LIBRARIES", FERRY_NVIDIA_SIM},
             {"XDG_STATE_HOME", path("notes")},
             {"FERRY_NVIDIA_SIM_FAULT", "719@2:swiglu_backward_bf16"}});
  EXPECT_TRUE(wait_for([&] {
    return p.said("cuda:0: swiglu_backward (swiglu_backward_bf16): 719");
  })) << p.output();
  EXPECT_TRUE(p.said("one of launches")) << p.output();  // what the first worker could say
  p.signal(SIGTERM);  // it would try four times more, after ever longer pauses
  p.wait();
}

TEST_F(CudaTrain, WhatItTrainedGeneratesAsOnTheCpu) {
  const auto answer = [](const std::string& device) {
    const std::string all = ran({"generate",
                                 checkpoint("short", kShortRun),
                                 "--device",
                                 device,
                                 "--prompt",
                                 "the ferry",
                                 "--tokens",
                                 "8",
                                 "--temperature",
                                 "0"});
    return all.substr(std::min(all.find("the ferry"), all.size()));  // behind notes
  };
  const std::string cuda = answer("cuda");
  expect_said(cuda, {"the ferry"});
  EXPECT_EQ(cuda, answer("cpu"));
}

}  // namespace
