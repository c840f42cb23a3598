// Bits that flip in a rank of a real run, in its memory or in what it computes: the rank is named and leaves, nothing
// of what it had wrong is in the run, and the run ends with the bytes of one in which nothing happened.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "trains.h"

namespace {

using namespace ferry::program;

class CorruptionE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    ran(train("base", {kFour}));
    base_ = trace("base");
    ASSERT_EQ(base_.steps.size(), static_cast<size_t>(kSteps));
  }

  /// By so many ranks, with that fault.
  static Ended spoiled(int ranks,
                       const std::string& run,
                       const std::string& fault,
                       const Strings& more = {kFull, kNoCheckpoint}) {
    Strings args = {"launch", "-n", std::to_string(ranks), "--"};
    for (const std::string& a : train(run, {kFour})) args.push_back(a);
    args.insert(args.end(), more.begin(), more.end());
    return end_of(args, {{"FERRY_FAULT", fault}});
  }

  static size_t times(const std::string& text, const std::string& what) {
    size_t n = 0;
    for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
    return n;
  }

  /// That rank was named, and no other; what follows was made up for by the others.
  static void expect_named(const Ended& e, int rank, const std::string& run) {
    EXPECT_EQ(e.status, 0) << run << "\n" << e.output;
    const std::string who = "rank " + std::to_string(rank);
    EXPECT_EQ(times(e.output, who + " left, convicted of silent corruption"), 1u) << run << "\n"
                                                                                  << e.output;
    EXPECT_EQ(times(e.output, "left, convicted of silent corruption"), 1u) << e.output;
    EXPECT_EQ(times(e.output, who + " is in place again"), 1u) << e.output;
    EXPECT_EQ(times(e.output, "starting again"), 0u) << e.output;
    expect_same(trace(run), base_, run);
    const std::string status = read(path(run) + "/status.json");
    EXPECT_NE(status.find(who + " left, convicted of silent corruption"), std::string::npos)
        << status;
  }

  // A step of four micro-batches.
  static inline const std::string kFour = "--train.micro_batch_tokens=64";
  static inline const std::string kFull = "--train.corruption_checks=full";
  static inline const std::string kNoCheckpoint = "--checkpoint.every=1000000";
  inline static Trace base_;
};

// A successor passes each point fewer times than it takes.
TEST_F(CorruptionE2e, WhoeverIsSpoiledIsNamedAndTheRunIsTheSame) {
  const struct {
    const char* what;
    const char* fault;
    int rank;
    const char* says;
  } cases[] = {
      {"weight", "flip.weights@1:9:flip123457", 1, "though nobody wrote it"},
      {"weight0", "flip.weights@0:9:flip1234567", 0, "though nobody wrote it"},
      {"moment", "flip.state@2:9:flip98765", 2, "optimizer's state"},
      {"nodes", "flip.nodes@1:9:flip31007", 1, "rank 1 computed wrong gradients"},
      {"sum", "flip.sums@0:9:flip31007", 0, "rank 0 had another sum of gradients"},
      // After the last step: what is evaluated and written is looked at before.
      {"last", "flip.written.state@0:16:flip98765", 0, "optimizer's state"},
  };
  for (const auto& c : cases) {
    const Ended e = spoiled(3, c.what, c.fault);
    expect_named(e, c.rank, c.what);
    EXPECT_NE(e.output.find(c.says), std::string::npos) << e.output;
  }
}

// What is trained in place of the weights is compared and computed again as they are.
TEST_F(CorruptionE2e, AnAdapterIsAuditedAsWell) {
  ran({"convert", checkpoint("base"), "--to", "f32", "--out", path("init")});
  write(root_ / "init.toml", kRun);
  const Strings lora = {"--model.init=" + path("init"),
                        "--lora.rank=4",
                        "--lora.target_modules=q_proj, kv_b_proj",
                        kFour,
                        kNoCheckpoint};
  ran(train("lora_alone", lora, "init.toml"));
  const auto adapter_of = [](const std::string& run) {
    return read(checkpoint(run) + "/adapter_model.safetensors") +
           read(checkpoint(run) + "/state/part-00000.safetensors");
  };
  const std::string expected = adapter_of("lora_alone");
  ASSERT_GT(expected.size(), 1000u);
  for (const char* fault : {"flip.state@1:9:flip555", "flip.nodes@1:9:flip555"}) {
    Strings args = {"launch", "-n", "3", "--"};
    for (const std::string& a : train("lora", lora, "init.toml")) args.push_back(a);
    args.push_back(kFull);
    const Ended e = end_of(args, {{"FERRY_FAULT", fault}});
    EXPECT_EQ(e.status, 0) << e.output;
    EXPECT_EQ(times(e.output, "rank 1 left, convicted of silent corruption"), 1u) << e.output;
    EXPECT_EQ(times(e.output, "left, convicted of silent corruption"), 1u) << e.output;
    EXPECT_TRUE(adapter_of("lora") == expected) << fault;
    fs::remove_all(path("lora"));
  }
}

// What a run does that was told nothing of it.
TEST_F(CorruptionE2e, WhatRanksHoldIsComparedUnlessThatIsSwitchedOff) {
  expect_named(spoiled(2, "default", "flip.state@1:9:flip555", {kNoCheckpoint}), 1, "default");
  const Ended off =
      spoiled(2, "off", "flip.state@1:9:flip30", {"--train.corruption_checks=off", kNoCheckpoint});
  EXPECT_EQ(times(off.output, "corrupt"), 0u) << off.output;
  // It did flip, and what came of it is in the model.
  EXPECT_EQ(off.status, 0) << off.output;
  EXPECT_NE(trace("off").weights, base_.weights);
}

// Where a rank is lost after a step's commit, who is to give its successor what it held looks at it before: four ranks,
// so that not both are gone who hold the same. And when it has been given, so that nobody goes on with it before.
TEST_F(CorruptionE2e, WhoIsToGiveToASuccessorAndIsSpoiledLeaves) {
  const Ended e =
      spoiled(4, "gives", "step.spread@3:9:kill,flip.looked.state@1:2:flip98765", {kNoCheckpoint});
  EXPECT_EQ(e.status, 0) << e.output;
  EXPECT_EQ(times(e.output, "rank 1 left, convicted of silent corruption"), 1u) << e.output;
  EXPECT_EQ(times(e.output, "left, convicted of silent corruption"), 1u) << e.output;
  EXPECT_EQ(times(e.output, "starting again"), 0u) << e.output;
  expect_same(trace("gives"), base_, "gives");
}

// A bit of what waits to be sent: the message's own hash says that it was harmed, and its sender finds by whom, rather
// than send it once more with another hash.
TEST_F(CorruptionE2e, WhatFlipsBetweenItsHashAndItsSendingIsNotSentAgain) {
  const Ended e = spoiled(4, "sending", "flip.sending@1:13:flip31007", {});
  EXPECT_EQ(e.status, 0) << e.output;
  EXPECT_EQ(times(e.output, "sent a message whose bytes are not those that were hashed"), 1u);
  EXPECT_EQ(times(e.output, "rank 1: rank 1's memory of the gradients that it computed"), 1u)
      << e.output;
  EXPECT_EQ(times(e.output, "left, convicted"), times(e.output, "rank 1 left, convicted"));
  expect_same(trace("sending"), base_, "sending");
}

// Two ranks that hold the same cannot tell which of them has it wrong, if it was so before they looked.
TEST_F(CorruptionE2e, WhatNobodyCanTellIsTrainedAgainFromTheNewestCheckpoint) {
  const Ended e =
      spoiled(2, "either", "flip.updated.state@1:13:flip98765", {"--train.audit_every=0"});
  EXPECT_EQ(e.status, 0) << e.output;
  EXPECT_NE(e.output.find("one of these is spoiled, and nobody can tell which: rank "),
            std::string::npos)
      << e.output;
  for (const char* who : {"rank 0 has another state", "rank 1 has another state"})
    EXPECT_NE(e.output.find(who), std::string::npos) << e.output;
  EXPECT_NE(e.output.find("starting again"), std::string::npos) << e.output;
  expect_same(trace("either"), base_, "either");
}

// What a successor is given is looked at before: who holds the second copy of what a dead rank held has one that
// changed, in the same step. Both are lost then, and nothing wrong goes to a successor, where all would agree on it.
TEST_F(CorruptionE2e, WhatIsGivenToASuccessorIsLookedAtBefore) {
  for (const char* bit : {"98765", "1500020", "2500021"}) {
    const std::string run = std::string("given") + bit;
    const Ended e = spoiled(3,
                            run,
                            std::string("flip.state@2:9:flip") + bit + ",step.numbers@1:9:kill",
                            {"--train.audit_every=0"});
    EXPECT_EQ(e.status, 0) << e.output;
    EXPECT_GE(times(e.output, "rank 2 left, convicted of silent corruption") +
                  times(e.output, "rank 2's memory of the optimizer's state"),
              1u)
        << e.output;
    expect_same(trace(run), base_, run);
  }
}

// A chip that always computes wrongly: no successor on it does better, and that is said.
TEST_F(CorruptionE2e, APlaceThatComputesWronglyAgainIsNamed) {
  const Ended e = spoiled(
      3, "place", "flip.nodes@1:*:flip31007", {kFull, kNoCheckpoint, "--supervisor.restarts=2"});
  EXPECT_EQ(e.status, 3) << e.output;
  EXPECT_NE(e.output.find("rank 1 was convicted of silent corruption 2 times: the chip"),
            std::string::npos)
      << e.output;
  EXPECT_EQ(times(e.output, "rank 0 left, convicted"), 0u) << e.output;
  EXPECT_EQ(times(e.output, "rank 2 left, convicted"), 0u) << e.output;
}

}  // namespace
