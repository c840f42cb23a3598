// The program on software Ascend, as a person runs it: it trains as on the CPU, a run that the chip
// interrupts ends with the same bytes as an undisturbed one, and what it trained answers.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

constexpr int kChipSteps = 8;

class AscendTrain : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    said_ = ran(train("calm", "ascend"));
  }

  static Strings train(const std::string& run, const std::string& device) {
    return Trains::train(
        run,
        {"--device",
         device,
         "--model.q_lora_rank=16",
         "--model.qk_rope_head_dim=16",  // heads in sixteens: the fused attention is reached
         "--data.sequence_length=32",
         "--train.tokens_per_step=128",
         "--train.micro_batch_tokens=64",
         "--train.evaluate_tokens=128",
         "--train.compute=bf16",
         "--train.steps=" + std::to_string(kChipSteps)});
  }
  static Ended end_of(const Strings& args, Environment environment = {}) {
    environment.emplace("FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM);
    environment.emplace("XDG_STATE_HOME", path("notes"));  // where doctors write their verdicts
    return Trains::end_of(args, environment);
  }
  static std::string ran(const Strings& args, const Environment& environment = {}) {
    const Ended e = end_of(args, environment);
    EXPECT_EQ(e.status, 0) << e.output;
    return e.output;
  }
  /// What a run leaves that must not depend on how it got there.
  static std::string bytes(const std::string& run) {
    const fs::path folder = checkpoint(run, kChipSteps);
    const std::string weights = read(folder / "model.safetensors"),
                      state = read(folder / "state/part-00000.safetensors");
    EXPECT_FALSE(weights.empty() || state.empty()) << folder;
    return weights + state;
  }
  static std::set<std::string> names_in(const std::string& run) {
    std::set<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(root_ / run))
      if (entry.path().extension() != ".ferry")  // TensorBoard's: one for each process
        names.insert(fs::relative(entry.path(), root_ / run).string());
    return names;
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

  inline static std::string said_;
};

TEST_F(AscendTrain, SaysThatItIsSoftwareAndLearnsAsTheCpuDoes) {
  EXPECT_NE(said_.find("device     software Ascend"), std::string::npos) << said_;
  ran(train("cpu", "cpu"));
  const std::map<int, double> ascend = losses("calm"), cpu = losses("cpu");
  ASSERT_EQ(ascend.size(), static_cast<size_t>(kChipSteps));
  ASSERT_EQ(cpu.size(), ascend.size());
  for (const auto& [step, loss] : cpu)
    EXPECT_NEAR(ascend.at(step), loss, 0.01 * loss) << "step " << step;
  EXPECT_LT(ascend.at(kChipSteps), ascend.at(1));
  EXPECT_NE(bytes("calm"), bytes("cpu")) << "the CPU computed it, not software Ascend";
}

TEST_F(AscendTrain, InterruptedByFaultsEndsWithTheSameBytes) {
  const std::pair<const char*, const char*> faults[] = {
      {"507014", "AICORE_TIMEOUT: a matrix core ran too long"},
      {"507015", "AICORE_EXCEPTION: a matrix core stopped"},
      {"507034", "VECTOR_CORE_TIMEOUT: a vector core ran too long"},
      {"507035", "VECTOR_CORE_EXCEPTION: a vector core stopped"},
      {"507046", "STREAM_SYNC_TIMEOUT: the stream did not come to its end"},
      {"507054", "HBM_MULTI_BIT_ECC_ERROR: several bits of the chip's memory flipped"},
      {"507056", "LINK_ERROR: a link between chips failed"}};
  for (const auto& [fault, meaning] : faults) {
    const std::string run = std::string("fault") + fault;
    // By the 81st call of an op that a step makes more than twenty times: after a checkpoint.
    const Ended e = end_of(train(run, "ascend"),
                           {{"FERRY_ASCEND_SIM_FAULT", std::string(fault) + "@81:RmsNormGrad"},
                            {"FERRY_ASCEND_SIM_FAULT_ONCE", path(run + ".once")},
                            {"FERRY_ASCEND_TIMEOUT_S", "2"}});  // 507046 never ends by itself
    EXPECT_EQ(e.status, 0) << e.output;
    for (const std::string& part : {std::string("ferry: ascend:0: "),
                                    std::string(fault) + " " + meaning,
                                    std::string("aclnnRmsNormGrad"),
                                    std::string("its device failed"),
                                    std::string("resume     from")})
      EXPECT_NE(e.output.find(part), std::string::npos) << "not said: " << part << "\n" << e.output;
    EXPECT_TRUE(bytes(run) == bytes("calm")) << fault << ": other weights or state\n" << e.output;
    EXPECT_EQ(names_in(run), names_in("calm")) << "something half-written was left";
    EXPECT_EQ(count(e.output, "was never examined"), 1) << "by every worker\n" << e.output;
  }
}

// Long before its timeout.
TEST_F(AscendTrain, AHangOfTheChipIsToldInSecondsWithItsOp) {
  Program p(root_ / "log",
            train("hung", "ascend"),
            {{"FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM},
             {"XDG_STATE_HOME", path("notes")},
             {"FERRY_ASCEND_SIM_FAULT", "507046@81:RmsNormGrad"},
             {"FERRY_ASCEND_TIMEOUT_S", "100"}});
  ASSERT_TRUE(wait_for([&] {
    return p.said("the chip of rank 0 has ended nothing for ") || p.ended();
  })) << p.output();
  const std::string said = p.output().substr(p.output().find("the chip of rank 0"));
  EXPECT_NE(said.find("rms_norm_backward"), std::string::npos) << said;
}

// The pool keeps what was freed. A chip that is full is first given that back.
TEST_F(AscendTrain, OutOfMemoryIsCuredByWhatThePoolKeeps) {
  const Ended e = end_of(train("tight", "ascend"),
                         {{"FERRY_ASCEND_SIM_FAULT", "207001@200"},
                          {"FERRY_ASCEND_SIM_FAULT_ONCE", path("tight.once")}});
  EXPECT_EQ(e.status, 0) << e.output;
  EXPECT_TRUE(fs::exists(path("tight.once"))) << "there was no such fault";
  EXPECT_EQ(e.output.find("starting again"), std::string::npos) << e.output;
  EXPECT_TRUE(bytes("tight") == bytes("calm")) << "other weights or state\n" << e.output;
}

TEST_F(AscendTrain, TooLittleMemoryEndsAtOnceAndSaysWhatToDo) {
  const Ended e = end_of(train("large", "ascend"), {{"FERRY_ASCEND_SIM_FAULT", "207001@3"}});
  EXPECT_EQ(e.status, 3) << e.output;
  for (const char* const part : {"ferry: ascend:0: ",
                                 "207001 MEMORY_ALLOCATION: the chip is out of memory",
                                 "asking for",
                                 "train.micro_batch_tokens",
                                 "a restart would change nothing"})
    EXPECT_NE(e.output.find(part), std::string::npos) << "not said: " << part << "\n" << e.output;
  EXPECT_EQ(e.output.find("starting again"), std::string::npos) << e.output;
  EXPECT_FALSE(fs::exists(path("large"))) << "a run that never began left its folder";
}

TEST_F(AscendTrain, SaysWhatTheDoctorFound) {
  EXPECT_NE(said_.find("ferry: note: software Ascend"), std::string::npos) << said_;
  EXPECT_NE(said_.find("was never examined: run ferry doctor --device ascend:0"), std::string::npos)
      << said_;
  const auto first_step = [](const std::string& run) {
    Strings args = train(run, "ascend");
    args.back() = "--train.steps=1";
    args.push_back("--schedule.warmup_steps=0");
    return ran(args);
  };
  const Ended sick =
      end_of({"doctor", "--device", "ascend", "--quick", "--soak", "0", "--only", "rms_norm"},
             {{"FERRY_ASCEND_SIM_MUTANT", "RmsNorm:scaled"}});
  EXPECT_EQ(sick.status, 1) << sick.output;
  const std::string warned = first_step("warned");
  EXPECT_NE(warned.find("was found unfit on 20"), std::string::npos) << warned;
  EXPECT_NE(warned.find("--quick, --only rms_norm"), std::string::npos) << warned;
  // A whole examination takes long; what it would note is put there.
  const fs::path note = fs::directory_iterator(root_ / "notes/ferry/doctor")->path();
  const auto edit = [&note](const std::string& from, const std::string& to) {
    std::string text = read(note);
    ASSERT_NE(text.find(from), std::string::npos) << text;
    for (size_t p; (p = text.find(from)) != std::string::npos;) text.replace(p, from.size(), to);
    write(note, text);
  };
  edit("\"unfit\"", "\"fit to train\"");
  const std::string quickly = first_step("quickly");
  EXPECT_NE(quickly.find("was examined only quickly"), std::string::npos) << quickly;
  edit("\"quick\": true", "\"quick\": false");
  const std::string fit = first_step("fit");
  EXPECT_EQ(fit.find("ferry: note:"), std::string::npos) << fit;
  fs::remove_all(path("notes"));
}

TEST_F(AscendTrain, AFaultThatComesBackIsNarrowedToOneOp) {
  Program p(root_ / "log",
            train("broken", "ascend"),
            {{"FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM},
             {"XDG_STATE_HOME", path("notes")},
             {"FERRY_ASCEND_SIM_FAULT", "507035@2:SwiGluGrad"}});
  EXPECT_TRUE(wait_for([&] {
    return p.said("ascend:0: swiglu_backward (aclnnSwiGluGrad): 507035");
  })) << p.output();
  EXPECT_TRUE(p.said("one of launches")) << p.output();  // what the first worker could say
  p.signal(SIGTERM);  // it would try four times more, after ever longer pauses
  p.wait();
}

TEST_F(AscendTrain, WhatItTrainedGenerates) {
  const std::string said = ran({"generate",
                                checkpoint("calm", kChipSteps),
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
