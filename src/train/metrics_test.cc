#include "train/metrics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "base/alive.h"
#include "base/fault.h"
#include "train/curve.h"
#include "train/progress.h"

namespace ferry {
namespace {

class FixedClock final : public Clock {
 public:
  double monotonic_s() const override { return 5; }
  int64_t unix_ms() const override { return 1700000000250; }
};

StepRecord record(int64_t step) {
  return {.step = step,
          .unix_ms = 1700000000000 + step,
          .tokens = 100 * step,
          .loss = 9.0 / static_cast<double>(step),
          .bits_per_byte = 2,
          .mtp_loss = 4.5,
          .gradient_norm = 0.7,
          .loss_z = -0.25,
          .lr = 1e-3,
          .seconds = 0.5,
          .tokens_per_s = 200,
          .mfu = 0.4};
}
HeldOutRecord held_out(int64_t step) {
  return {
      .step = step, .unix_ms = 1, .loss = 8.0 / static_cast<double>(step), .bits_per_byte = 1.5};
}

std::string unhex(std::string_view hex) {
  std::string out;
  for (size_t i = 0; i < hex.size(); i += 2)
    out += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return out;
}

// The bytes are those of the Python package tensorboard 2.21.0: RecordWriter over event_pb2.Event.
TEST(TensorBoard, WritesTheBytesThatTensorBoardWrites) {
  EXPECT_EQ(tensorboard::masked_crc32c("123456789"), 0xc78ab0e5u);
  EXPECT_EQ(
      tensorboard::framed(tensorboard::version_event(1700000000.25)),
      unhex("1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"));
  EXPECT_EQ(tensorboard::framed(tensorboard::session_start_event(1700000000.25, 301)),
            unhex("100000000000000095fbfe180900001040fc54d94110ad023a020801cb79b93b"));
  EXPECT_EQ(tensorboard::framed(tensorboard::scalars_event(
                1700000000.25, 301, {{"train/loss", 3.5f}, {"train/lr", 0.001f}})),
            unhex("3200000000000000241956ec0900001040fc54d94110ad022a240a110a0a747261696e2f6c6f7373"
                  "1500006040"
                  "0a0f0a08747261696e2f6c72156f12833a9147402b"));
}

class MetricsFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fmt::format("{}ferry_metrics_{}", ::testing::TempDir(), ::getpid());
    path_ = join_path(folder_, "metrics.jsonl");
    ASSERT_TRUE(remove_tree(folder_));
  }
  void TearDown() override { ASSERT_TRUE(remove_tree(folder_)); }
  void write(int64_t resumed, int64_t first, int64_t last) {
    auto log = MetricsLog::open(folder_, resumed, true, clock_);
    ASSERT_TRUE(log) << log.error().message;
    for (int64_t s = first; s <= last; ++s) {
      ASSERT_EQ(log->write(record(s)), std::nullopt);
      if (s % 4 != 0) continue;
      ASSERT_EQ(log->write(held_out(s)), std::nullopt);
    }
  }
  FixedClock clock_;
  std::string folder_, path_;
};

TEST_F(MetricsFolder, AResumedRunHasTheUninterruptedRunsFile) {
  write(0, 1, 20);
  const std::string whole = *read_file(path_);
  ASSERT_TRUE(remove_tree(folder_));
  write(0, 1, 13);
  {  // and a crash in the middle of a line
    auto torn = FileWriter::append(path_);
    ASSERT_TRUE(torn->write("{\"kind\":\"step\",\"st"));
  }
  write(8, 9, 20);
  EXPECT_EQ(*read_file(path_), whole);
  EXPECT_EQ(list_folder(join_path(folder_, "tensorboard"))->size(), 2u);
  const auto log = MetricsLog::open(folder_, 17, false, clock_);
  EXPECT_EQ(log->metrics().steps.size(), 17u);
  EXPECT_EQ(log->metrics().held_out.size(), 4u);
}

TEST_F(MetricsFolder, ANewBeginningLosesNoRecords) {
  write(0, 1, 4);
  const std::string first = *read_file(path_);
  write(0, 1, 2);
  const std::string second = *read_file(path_);
  const auto log = MetricsLog::open(folder_, 0, false, clock_);
  ASSERT_TRUE(log);
  EXPECT_TRUE(log->metrics().steps.empty());
  ASSERT_EQ(log->notes().size(), 1u);
  EXPECT_NE(log->notes()[0].find("metrics.2.jsonl"), std::string::npos);
  EXPECT_EQ(*read_file(join_path(folder_, "metrics.1.jsonl")), first);
  EXPECT_EQ(*read_file(join_path(folder_, "metrics.2.jsonl")), second);
  EXPECT_EQ(*read_file(path_), "");
  EXPECT_TRUE(MetricsLog::open(folder_, 0, false, clock_)->notes().empty());
  // Records that cannot be read just now are none that are not there.
  for (const char* fault : {"file.stat:1:eio", "file.open:1:eacces", "file.read_whole:1:eio"}) {
    arm_faults(fault);
    EXPECT_FALSE(MetricsLog::open(folder_, 1, false, clock_)) << fault;
    arm_faults("");
  }
}

/// An evaluation is made again where a crash came between its record and the checkpoint with its figure.
TEST_F(MetricsFolder, AnEvaluationMadeTwiceIsToldOnce) {
  for (int times = 0; times < 2; ++times) {
    auto log = MetricsLog::open(folder_, 3, false, clock_);
    ASSERT_TRUE(log);
    ASSERT_EQ(log->write(held_out(3)), std::nullopt);
  }
  auto log = MetricsLog::open(folder_, 3, false, clock_);
  ASSERT_EQ(log->write(held_out(4)), std::nullopt);
  ASSERT_EQ(log->metrics().held_out.size(), 2u);
  EXPECT_EQ(log->metrics().held_out[0].step, 3);
  EXPECT_EQ(log->metrics().held_out[1].step, 4);
}

TEST_F(MetricsFolder, RecordsComeBackAsTheyWere) {
  StepRecord r = record(3);
  r.loss = std::numeric_limits<double>::quiet_NaN();
  r.gradient_norm = std::numeric_limits<double>::infinity();
  r.skipped = "the gradient is \"not\" finite\xff";
  {
    auto log = MetricsLog::open(folder_, 0, false, clock_);
    ASSERT_EQ(log->write(r), std::nullopt);
    ASSERT_EQ(log->write(held_out(3)), std::nullopt);
  }
  const auto back = read_metrics(path_);
  ASSERT_TRUE(back) << back.error().message;
  ASSERT_EQ(back->steps.size(), 1u);
  EXPECT_TRUE(std::isnan(back->steps[0].loss));
  EXPECT_TRUE(std::isnan(back->steps[0].gradient_norm));
  EXPECT_EQ(back->steps[0].mtp_loss, r.mtp_loss);
  EXPECT_EQ(back->steps[0].balance_loss, std::nullopt);
  EXPECT_TRUE(back->steps[0].skipped->starts_with("the gradient is \"not\" finite"));
  EXPECT_EQ(to_json_line(back->held_out[0]), to_json_line(held_out(3)));
  EXPECT_EQ(
      to_json_line(record(2)),
      R"({"kind":"step","step":2,"unix_ms":1700000000002,"tokens":200,"loss":4.5,"bits_per_byte":2.0,"mtp_loss":4.5,)"
      R"("gradient_norm":0.7,"loss_z":-0.25,"lr":0.001,"seconds":0.5,"tokens_per_s":200.0,"mfu":0.4})");
}

TEST_F(MetricsFolder, DamageIsNamedByLine) {
  ASSERT_TRUE(make_folders(folder_));
  for (const char* bad : {"{}",
                          "[1]",
                          "nonsense",
                          R"({"kind":"step","step":"x"})",
                          R"({"kind":"step","step":1})",
                          "{\"kind\":7}"}) {
    ASSERT_TRUE(write_file_atomic(path_, to_json_line(record(1)) + "\n" + bad + "\n"));
    const auto r = read_metrics(path_);
    ASSERT_FALSE(r) << bad;
    EXPECT_EQ(r.error().code, Code::kCorrupt);
    EXPECT_NE(r.error().message.find("metrics.jsonl:2:"), std::string::npos) << r.error().message;
    // It is a log: what is no record is set aside, and the run goes on.
    {
      const auto log = MetricsLog::open(folder_, 1, false, clock_);
      ASSERT_TRUE(log) << log.error().message;
      EXPECT_EQ(log->notes().size(), 1u);
      EXPECT_EQ(log->metrics().steps.size(), 1u);
    }
    EXPECT_EQ(*read_file(path_), to_json_line(record(1)) + "\n");
    const std::string aside = join_path(folder_, "metrics.unreadable.txt");
    EXPECT_EQ(*read_file(aside), std::string(bad) + "\n");
    ASSERT_TRUE(remove_tree(aside));
  }
  EXPECT_TRUE(read_metrics(join_path(folder_, "absent"))->steps.empty());
}

/// A log is no reason to end a run: what a full disk does not take comes later, whole and in order.
TEST_F(MetricsFolder, WhatAFullDiskDoesNotTakeIsWrittenLater) {
  write(0, 1, 4);
  const std::string whole = *read_file(path_);
  const auto events = [](const std::string& folder) {
    return *read_file(join_path(folder, list_folder(folder)->back()));
  };
  const std::string all_events = events(join_path(folder_, "tensorboard"));
  ASSERT_TRUE(remove_tree(folder_));
  auto log = MetricsLog::open(folder_, 0, true, clock_);
  ASSERT_EQ(log->write(record(1)), std::nullopt);
  arm_faults("file.write:1:enospc,file.write:2:enospc,file.write:3:eio,file.write:4:enospc");
  const std::optional<std::string> told = log->write(record(2));
  ASSERT_TRUE(told);
  EXPECT_NE(told->find(path_), std::string::npos) << *told;
  EXPECT_NE(told->find("kept"), std::string::npos) << *told;
  EXPECT_EQ(log->write(record(3)), std::nullopt) << "told twice";
  arm_faults("");
  EXPECT_EQ(*read_file(path_), to_json_line(record(1)) + "\n");
  EXPECT_EQ(log->metrics().steps.size(), 3u);
  EXPECT_NE(log->write(record(4)).value_or("").find("all of it"), std::string::npos);
  EXPECT_EQ(log->write(held_out(4)), std::nullopt);
  EXPECT_EQ(*read_file(path_), whole);
  EXPECT_EQ(events(join_path(folder_, "tensorboard")), all_events);
  EXPECT_EQ(log->finish(), std::nullopt);
  // Nor is one of the two a reason not to write the other; what is kept is tried a last time.
  arm_faults("file.write:1:enospc");
  EXPECT_TRUE(log->write(record(5)));
  arm_faults("");
  EXPECT_GT(events(join_path(folder_, "tensorboard")).size(), all_events.size());
  EXPECT_EQ(log->finish(), std::nullopt);
  EXPECT_EQ(*read_file(path_), whole + to_json_line(record(5)) + "\n");
  arm_faults("file.write:1:enospc,file.write:2:enospc,file.write:3:enospc,file.write:4:enospc");
  EXPECT_TRUE(log->write(record(6)));
  EXPECT_NE(log->finish().value_or("").find("lost"), std::string::npos);
  arm_faults("");
}

// Whoever opens it may be the successor of one whom the full disk did not end.
TEST_F(MetricsFolder, AFullDiskIsNoReasonNotToBegin) {
  write(0, 1, 4);
  const auto events = [&] {
    const std::string folder = join_path(folder_, "tensorboard");
    return *read_file(join_path(folder, list_folder(folder)->back()));
  };
  const std::string all_events = events(), whole = *read_file(path_);
  ASSERT_TRUE(remove_tree(folder_));
  arm_faults("file.write:1:enospc");
  auto log = MetricsLog::open(folder_, 0, true, clock_);
  arm_faults("");
  ASSERT_TRUE(log) << log.error().message;
  ASSERT_EQ(log->notes().size(), 1u);
  EXPECT_NE(log->notes()[0].find("it is kept"), std::string::npos) << log->notes()[0];
  EXPECT_NE(log->write(record(1)).value_or("").find("all of it"), std::string::npos);
  for (int64_t step = 2; step <= 4; ++step) EXPECT_EQ(log->write(record(step)), std::nullopt);
  EXPECT_EQ(log->write(held_out(4)), std::nullopt);
  EXPECT_EQ(*read_file(path_), whole);
  EXPECT_EQ(events(), all_events);
}

/// As after a run's first loss spike, to step 4, from step 6.
class MetricsOfUndoneSteps : public MetricsFolder {
 protected:
  static std::string line(int64_t step, int64_t rewinds) {
    return to_json_line(after(step, rewinds)) + "\n";
  }
  static std::string line_held_out(int64_t step) { return to_json_line(held_out(step)) + "\n"; }
  static StepRecord after(int64_t step, int64_t rewinds) {
    StepRecord r = record(step);
    if (rewinds > 0) r.rewinds = static_cast<double>(rewinds);
    return r;
  }
  std::string undone() const { return *read_file(join_path(folder_, kUndoneName)); }
  std::string events() const {
    const std::string folder = join_path(folder_, "tensorboard");
    return *read_file(join_path(folder, list_folder(folder)->back()));
  }
  void until_step_6() {
    log_ = *MetricsLog::open(folder_, 0, true, clock_);
    for (int64_t s = 1; s <= 6; ++s) {
      ASSERT_EQ(log_->write(record(s)), std::nullopt);
      if (s % 2 == 0) {
        ASSERT_EQ(log_->write(held_out(s)), std::nullopt);
      }
      if (s == 4) until_4_ = *read_file(path_);
    }
  }
  std::optional<MetricsLog> log_;
  std::string until_4_;
  const std::string undone_ = line(5, 0) + line(6, 0) + line_held_out(6);
};

TEST_F(MetricsOfUndoneSteps, TheyAreSetAsideAndForgotten) {
  until_step_6();
  EXPECT_EQ(log_->go_back(4, clock_), std::nullopt);
  EXPECT_EQ(*read_file(path_), until_4_);
  EXPECT_EQ(undone(), undone_);
  EXPECT_EQ(log_->metrics().steps.size(), 4u);
  EXPECT_EQ(log_->metrics().held_out.size(), 2u);
  EXPECT_TRUE(*log_->in_place());
  EXPECT_NE(events().find(tensorboard::framed(tensorboard::session_start_event(1700000000.25, 5))),
            std::string::npos);
  EXPECT_EQ(log_->write(after(5, 1)), std::nullopt);
  EXPECT_EQ(log_->write(after(6, 1)), std::nullopt);
  EXPECT_EQ(log_->write(held_out(6)), std::nullopt) << "its evaluation is another one's";
  EXPECT_EQ(*read_file(path_), until_4_ + line(5, 1) + line(6, 1) + line_held_out(6));
  // Once more, further back: what was undone before stays so.
  EXPECT_EQ(log_->go_back(3, clock_), std::nullopt);
  EXPECT_EQ(undone(),
            undone_ + line(4, 0) + line_held_out(4) + line(5, 1) + line(6, 1) + line_held_out(6));
  EXPECT_EQ(read_metrics(path_)->steps.size(), 3u);
}

/// A full disk ends no run here, either: nothing is lost, and nothing is written before what stands in front of it.
TEST_F(MetricsOfUndoneSteps, AFullDiskIsOutlived) {
  for (int n = 1; n <= 3; ++n) {
    ASSERT_TRUE(remove_tree(folder_));
    until_step_6();
    // With room for the n-1 first of what is written: the undone lines, the others.
    std::string faults;
    for (int i = n; i < 40; ++i)
      faults += (i == n ? "file.write:" : ",file.write:") + std::to_string(i) + ":enospc";
    arm_faults(faults);
    const std::optional<std::string> told = log_->go_back(4, clock_);
    ASSERT_TRUE(told) << n;
    EXPECT_NE(told->find("kept"), std::string::npos) << *told;
    EXPECT_EQ(log_->write(after(5, 1)), std::nullopt) << "told twice";
    EXPECT_EQ(log_->metrics().steps.size(), 5u);
    EXPECT_EQ(log_->go_back(4, clock_), std::nullopt);
    EXPECT_EQ(log_->write(after(5, 2)), std::nullopt);
    arm_faults("");
    EXPECT_NE(log_->write(after(6, 2)).value_or("").find("all of it"), std::string::npos);
    EXPECT_EQ(*read_file(path_), until_4_ + line(5, 2) + line(6, 2)) << n;
    EXPECT_EQ(undone(), undone_ + line(5, 1)) << n;
    EXPECT_EQ(log_->finish(), std::nullopt);
  }
}

/// Whoever takes the place of one that was lost on the way finds records that it has to set aside. Of the same part of
/// the run they are steps that nobody has any more.
TEST_F(MetricsOfUndoneSteps, ASuccessorSetsThemAsideToo) {
  until_step_6();
  log_.reset();
  log_ = *MetricsLog::open(folder_, 5, false, clock_, {.rewinds = 1, .after = 4});
  EXPECT_EQ(*read_file(path_), until_4_);
  EXPECT_EQ(undone(), undone_);
  EXPECT_EQ(log_->metrics().steps.size(), 4u);
  EXPECT_EQ(log_->write(after(5, 1)), std::nullopt);
  EXPECT_EQ(log_->write(after(6, 1)), std::nullopt);
  log_ = *MetricsLog::open(folder_, 5, false, clock_, {.rewinds = 1, .after = 4});
  EXPECT_EQ(*read_file(path_), until_4_ + line(5, 1));
  EXPECT_EQ(undone(), undone_);
}

/// A run that is killed behind a spike meets it again: its steps were undone once.
TEST_F(MetricsOfUndoneSteps, ThoseThatAreMadeAgainAndUndoneAgainAreThereOnce) {
  until_step_6();
  ASSERT_EQ(log_->go_back(4, clock_), std::nullopt);
  log_ = *MetricsLog::open(folder_, 2, false, clock_);
  for (int64_t s = 3; s <= 6; ++s) ASSERT_EQ(log_->write(record(s)), std::nullopt);
  ASSERT_EQ(log_->write(held_out(6)), std::nullopt);
  ASSERT_EQ(log_->go_back(4, clock_), std::nullopt);
  EXPECT_EQ(undone(), undone_);
}

/// The folder was taken away meanwhile: what lies there now is left alone, and told when it is begun anew.
TEST_F(MetricsOfUndoneSteps, AnotherFolderInPlaceOfTheRunsIsNotTouched) {
  until_step_6();
  ASSERT_TRUE(rename_path(folder_, folder_ + ".away"));
  ASSERT_TRUE(make_folders(folder_));
  ASSERT_TRUE(write_file_atomic(path_, line(9, 0)));
  EXPECT_NE(log_->go_back(4, clock_).value_or("").find("not the file any more"), std::string::npos);
  EXPECT_EQ(*read_file(path_), line(9, 0));
  EXPECT_FALSE(path_exists(join_path(folder_, kUndoneName)));
  ASSERT_TRUE(log_->begin_anew(folder_, clock_));
  EXPECT_EQ(log_->write(after(5, 1)), std::nullopt);
  EXPECT_EQ(*read_file(path_), until_4_ + line(5, 1));
  EXPECT_EQ(undone(), undone_);
  ASSERT_TRUE(remove_tree(folder_ + ".away"));
}

// ---- The progress line
// ------------------------------------------------------------------------------

TEST(ProgressLine, SaysAll) {
  StepRecord r = record(41);
  r.loss = 3.21456;
  r.loss_z = 0.31;
  r.gradient_norm_z = -1.14;
  r.tokens_per_s = 12345;
  EXPECT_EQ(progress_line(r, 0.5, {.steps = 1000}),
            "  41/1000   4%  loss 3.2146 (+0.3σ)  2.000 bits/byte  |g| 0.700 (-1.1σ)  lr 1.00e-03  "
            "12.3 k tok/s  MFU 40%  "
            "ETA 8 min 00 s");
  r.skipped = "the loss is not finite";
  EXPECT_TRUE(
      progress_line(r, 0, {.steps = 41}).ends_with("update refused: the loss is not finite"));
  r.gradient_norm_z = 4.5;
  EXPECT_NE(progress_line(r, 0, {.steps = 41, .colour = true}).find("\x1b[31m (+4.5σ)"),
            std::string::npos);
  const HeldOutRecord before = held_out(1), now = held_out(2);
  EXPECT_EQ(held_out_line(now, &before, {}),
            "held-out after step 2: loss 4.0000, 1.5000 bits per byte (best so far; before 1.5000 "
            "after step 1)");
}

TEST(ProgressLine, SaysWhatIsWrongWithAnswers) {
  StepRecord r = record(41);
  r.reward = 0.25;
  r.useful_groups = 0.5;
  const std::string well = progress_line(r, 0.5, {.steps = 1000});
  EXPECT_NE(well.find("  50% of groups tell"), std::string::npos) << well;
  for (const char* part : {"empty", "failed", "no update"})
    EXPECT_EQ(well.find(part), std::string::npos) << well;
  r.useful_groups = r.updates = 0;
  r.empty_answers = 0.03;
  r.program_failed = 2;
  const std::string ill = progress_line(r, 0.5, {.steps = 1000});
  for (const char* part : {"  0% of groups tell",
                           "  3% empty",
                           "  2 programs failed",
                           "  nothing to learn: no update"})
    EXPECT_NE(ill.find(part), std::string::npos) << ill;
}

TEST(ProgressLine, TheBestIsOfEarlierStepsAndANumber) {
  Metrics m;
  EXPECT_EQ(best_before(9, m), nullptr);
  for (int64_t step = 1; step <= 4; ++step) m.held_out.push_back(held_out(step));
  m.held_out[0].loss = std::numeric_limits<double>::quiet_NaN();
  m.held_out[2].loss = 1;
  EXPECT_EQ(best_before(2, m), nullptr);
  EXPECT_EQ(best_before(3, m), &m.held_out[1]);
  EXPECT_EQ(best_before(9, m), &m.held_out[2]);
}

TEST(MetricsFollower, ReadsOnWhereItWas) {
  const std::string path = ::testing::TempDir() + "ferry_metrics_followed.jsonl";
  MetricsFollower file(path);
  ASSERT_TRUE(file.look());
  const auto line = [](int64_t step) { return to_json_line(record(step)) + "\n"; };
  ASSERT_TRUE(write_file_atomic(path, line(1) + line(2) + "{\"kind"));
  ASSERT_TRUE(file.look());
  EXPECT_EQ(file.metrics().steps.size(), 2u);
  const std::string held = to_json_line(held_out(2)) + "\n";
  ASSERT_TRUE(write_file_atomic(path, line(1) + line(2) + held + line(3)));
  ASSERT_TRUE(file.look());
  EXPECT_EQ(file.metrics().steps.size(), 3u);
  EXPECT_EQ(file.metrics().held_out.size(), 1u);
  // A run that went on from before: records are others, or fewer.
  StepRecord again = record(2);
  again.unix_ms += 5000;
  for (const std::string& tail : {to_json_line(again) + "\n" + line(3), std::string()}) {
    ASSERT_TRUE(write_file_atomic(path, line(1) + tail));
    ASSERT_TRUE(file.look());
    const Result<Metrics> whole = read_metrics(path);
    ASSERT_EQ(file.metrics().steps.size(), whole->steps.size());
    EXPECT_EQ(file.metrics().steps.back().unix_ms, whole->steps.back().unix_ms);
    EXPECT_TRUE(file.metrics().held_out.empty());
  }
  // What was read is not read again; what comes must be records, by the number of its line.
  ASSERT_TRUE(write_file_atomic(path, line(1) + "nonsense\n"));
  for (int look = 0; look < 2; ++look)
    EXPECT_NE(file.look().error().message.find(path + ":2:"), std::string::npos);
  ASSERT_TRUE(remove_tree(path));
  ASSERT_TRUE(file.look());
  EXPECT_TRUE(file.metrics().steps.empty());
}

TEST(MetricsLog, IsBegunAnewWithAllThatItTold) {
  const std::string folder = ::testing::TempDir() + "ferry_metrics_anew", moved = folder + ".1",
                    path = folder + "/metrics.jsonl";
  for (const std::string& f : {folder, moved}) ASSERT_TRUE(remove_tree(f));
  auto log = MetricsLog::open(folder, 0, true, system_clock());
  ASSERT_TRUE(log) << log.error().message;
  for (int64_t step = 1; step <= 3; ++step) {
    EXPECT_FALSE(log->write(record(step)));
    if (step < 3) {
      EXPECT_FALSE(log->write(held_out(step)));
    }
  }
  const std::string before = *read_file(path);
  EXPECT_TRUE(*log->in_place());
  ASSERT_TRUE(rename_path(folder, moved));
  EXPECT_FALSE(*log->in_place());
  // Another run's are not written over.
  {
    auto other = MetricsLog::open(folder, 0, false, system_clock());
    ASSERT_TRUE(other);
    EXPECT_FALSE(other->write(record(1)));
  }
  const auto anew = log->begin_anew(folder, system_clock());
  ASSERT_TRUE(anew) << anew.error().message;
  EXPECT_TRUE(*log->in_place());
  EXPECT_EQ(*read_file(path), before);
  EXPECT_EQ(read_metrics(folder + "/metrics.1.jsonl")->steps.size(), 1u);
  EXPECT_EQ(log->notes().size(), 1u);
  EXPECT_EQ(list_folder(folder + "/tensorboard")->size(), 1u);
  EXPECT_FALSE(log->write(record(4)));
  EXPECT_EQ(*read_file(path), before + to_json_line(record(4)) + "\n");
  EXPECT_EQ(*read_file(moved + "/metrics.jsonl"), before);
  for (const std::string& f : {folder, moved}) ASSERT_TRUE(remove_tree(f));
}

TEST(ProgressLine, LeavesOutWhatMattersLeastWhereColumnsAreFew) {
  StepRecord r = record(41);
  r.loss_z = 0.31;
  r.gradient_norm_z = -1.14;
  const std::string whole = progress_line(r, 0.5, {.steps = 1000});
  int widest = 0;
  for (int columns = 200; columns >= 9; --columns) {
    for (const bool colour : {false, true}) {
      const std::string line =
          progress_line(r, 0.5, {.steps = 1000, .colour = colour, .columns = columns});
      EXPECT_LE(display_width(line), columns) << line;
      EXPECT_NE(line.find("41/1000"), std::string::npos) << line;
      widest = std::max(widest, display_width(line));
    }
  }
  EXPECT_EQ(widest, display_width(whole));
  const std::string narrow = progress_line(r, 0.5, {.steps = 1000, .columns = 79});
  for (const char* part : {"loss", "tok/s", "ETA", "bits/byte"})
    EXPECT_NE(narrow.find(part), std::string::npos) << narrow;
}

std::string shown(const ProgressSettings& settings, bool terminal = false) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = ::open_memstream(&text, &size);
  {
    PatientOutput output(out);
    Progress progress(settings, output, Terminal(out, terminal, false), "auto");
    for (int64_t s = 1; s <= 25; ++s) progress.step(record(s));
    progress.note("saved");
  }
  std::fclose(out);
  std::string s(text, size);
  std::free(text);
  return s;
}

TEST(Metrics, ReadingALongRunsIsHeard) {
  const std::string folder = testing::TempDir() + "ferry_metrics_alive";
  std::filesystem::remove_all(folder);
  {
    Result<MetricsLog> log = MetricsLog::open(folder, 0, false, FixedClock());
    ASSERT_TRUE(log) << log.error().message;
    for (int64_t s = 1; s <= 50; ++s) ASSERT_EQ(log->write(record(s)), std::nullopt);
  }
  int heard = 0;
  const AliveListener listener([&](uint64_t) { ++heard; });
  ASSERT_TRUE(MetricsLog::open(folder, 50, false, FixedClock()));
  EXPECT_GE(heard, 50);
}

TEST(Progress, WhatIsNoNumberIsNotTheBestSoFar) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = ::open_memstream(&text, &size);
  {
    PatientOutput output(out);
    Progress progress({.steps = 25, .every = 10}, output, Terminal(out, false, false), "auto");
    HeldOutRecord r = held_out(1);
    r.loss = std::numeric_limits<double>::quiet_NaN();
    Metrics so_far{.held_out = {r}};
    progress.held_out(r, &so_far);
    progress.held_out(held_out(2), &so_far);
    so_far.held_out.push_back(held_out(2));
    progress.held_out(held_out(3), &so_far);
    progress.held_out(held_out(4), nullptr);
  }
  std::fclose(out);
  const std::string said(text, size);
  std::free(text);
  EXPECT_EQ(said.find("after step 1)"), std::string::npos) << said;
  EXPECT_NE(said.find("before 1.5000 after step 2)"), std::string::npos) << said;
}

TEST(Progress, OneLineOnATerminalALineEverySoOftenElsewhere) {
  const std::string plain = shown({.steps = 25, .every = 10});
  EXPECT_EQ(std::count(plain.begin(), plain.end(), '\n'), 5);  // 1, 10, 20, 25, the note
  EXPECT_EQ(plain.find('\r'), std::string::npos);
  EXPECT_EQ(plain.find('\x1b'), std::string::npos);
  const std::string live = shown({.steps = 25, .every = 10}, true);
  EXPECT_EQ(std::count(live.begin(), live.end(), '\n'), 2);  // the note, the end
  EXPECT_EQ(std::count(live.begin(), live.end(), '\r'), 26);
  EXPECT_EQ(live.find('\x1b'), std::string::npos);
  EXPECT_TRUE(live.ends_with(progress_line(record(25), 0.5, {.steps = 25, .columns = 79}) + "\n"));
}

// ---- The curve
// --------------------------------------------------------------------------------------

TEST(Curve, IsAFunctionOfTheRecordsAndOfBoundedSize) {
  Metrics m;
  for (int64_t s = 1; s <= 40000; ++s) m.steps.push_back(record(s));
  for (int64_t s = 4000; s <= 40000; s += 4000) m.held_out.push_back(held_out(s));
  m.steps[100].loss = std::numeric_limits<double>::quiet_NaN();
  const std::string svg = loss_curve_svg(m, {.title = "a < b & c"});
  EXPECT_EQ(svg, loss_curve_svg(m, {.title = "a < b & c"}));
  EXPECT_LT(svg.size(), 120000u);
  EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

TEST(Curve, DrawsNothingOneAndTwoPoints) {
  for (size_t n = 0; n < 3; ++n) {
    Metrics m;
    for (size_t i = 0; i < n; ++i) m.steps.push_back(record(static_cast<int64_t>(i) + 1));
    const std::string svg = loss_curve_svg(m, {});
    EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
    EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
  }
}

}  // namespace
}  // namespace ferry
