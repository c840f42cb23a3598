// Checkpoints of undone steps: nothing of them is lost, nothing of them is taken for the run's, and they do not fill
// the disk; whoever dies or fails on the way.
#include "checkpoint/undone_checkpoints.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "checkpoint/test_support.h"

namespace ferry {
namespace {

using Steps = std::vector<int64_t>;

void save(const std::string& folder,
          int64_t step,
          std::optional<double> loss = {},
          const Steps& rewound = {}) {
  ModelContents model;
  model.tensors = {{"w", random_tensor({7, 3}, static_cast<uint64_t>(step))}};
  model.texts = {{"config.json", "{}"}};
  TrainingStateContents state;
  state.document = fmt::format(R"({{"step": {}{}, "rewound": [{}]}})",
                               step,
                               loss ? fmt::format(R"(, "held_out_loss": {})", *loss) : "",
                               fmt::join(rewound, ", "));
  state.parts.push_back({StatePiece::whole("m", random_tensor({5}, static_cast<uint64_t>(step)))});
  ASSERT_TRUE(save_checkpoint(folder, step, model, state));
}

/// All of later steps than this one.
Result<std::vector<std::string>> set_later_aside(const std::string& folder, int64_t step) {
  const Steps there = *step_folders(folder);
  return set_aside(folder, {std::upper_bound(there.begin(), there.end(), step), there.end()});
}

/// Of all that is set aside and whole, every byte of it: "30.1": of step 30, of the first time.
std::vector<std::string> aside(const std::string& folder) {
  std::vector<std::string> names;
  const Result<std::vector<CheckpointInfo>> there = list_undone(folder);
  EXPECT_TRUE(there) << there.error().message;
  for (const CheckpointInfo& c : *there) {
    Result<ModelDir> dir = ModelDir::open(c.path);
    EXPECT_TRUE(dir && dir->verify()) << c.path;
    names.push_back(fmt::format("{}{}", c.step, c.path.substr(c.path.rfind('.'))));
  }
  return names;
}
using Names = std::vector<std::string>;

TEST(UndoneCheckpoints, AreMovedWholeAndAreTheRunsNoMore) {
  const std::string folder = fresh_folder("undone");
  for (const int64_t step : {10, 20, 30, 40, 50}) save(folder, step);
  // A model that somebody keeps, a file that somebody put there, and a folder that is none of a run.
  ASSERT_TRUE(remove_tree(join_path(checkpoint_path(folder, 30), "state")));
  ASSERT_TRUE(write_file_atomic(join_path(checkpoint_path(folder, 40), "mine.txt"), "x"));
  ASSERT_TRUE(make_folders(join_path(folder, "step-60")));
  const Result<std::vector<std::string>> moved = set_later_aside(folder, 20);
  ASSERT_TRUE(moved) << moved.error().message;
  EXPECT_EQ(moved->size(), 3u);
  for (const std::string& path : *moved) EXPECT_TRUE(is_folder(path)) << path;
  EXPECT_EQ(*step_folders(folder), (Steps{10, 20}));
  const Result<CheckpointList> list = list_checkpoints(folder);
  EXPECT_EQ(list->complete.size(), 2u);
  EXPECT_TRUE(list->ignored.empty());
  EXPECT_EQ(newest_checkpoint(folder)->step, 20);
  EXPECT_TRUE(path_exists(join_path(folder, "step-60")));
  const std::string there = join_path(folder, kUndoneFolder);
  EXPECT_EQ(*list_folder(there), (Names{"step-00000030.1", "step-00000040.1", "step-00000050.1"}));
  EXPECT_EQ(*read_file(join_path(there, "step-00000040.1/mine.txt")), "x");
  // Saving, listing and pruning the run's touch none of it.
  save(folder, 30);
  ASSERT_TRUE(prune_checkpoints(folder, {.keep_last = 1, .keep_best = 0}));
  EXPECT_EQ(list_folder(there)->size(), 3u);
  // The same step again is another one.
  ASSERT_TRUE(set_later_aside(folder, 20));
  EXPECT_EQ(*step_folders(folder), Steps{});
  EXPECT_EQ(aside(folder), (Names{"40.1", "50.1", "30.2"}));
  EXPECT_TRUE(set_later_aside(folder, 0)->empty());
  EXPECT_TRUE(set_later_aside(join_path(folder, "none"), 0)->empty());
  // Somebody takes one back.
  ASSERT_TRUE(rename_path(join_path(there, "step-00000050.1"), checkpoint_path(folder, 50)));
  EXPECT_EQ(newest_checkpoint(folder)->step, 50);
}

TEST(UndoneCheckpoints, AreKeptAsThoseOfTheRunAre) {
  const std::string folder = fresh_folder("undone_kept");
  save(folder, 10, 1.0);
  save(folder, 30, 2.0);
  save(folder, 40, 4.0);
  ASSERT_TRUE(set_later_aside(folder, 10));
  save(folder, 20, 2.0);
  save(folder, 30, 3.0);
  ASSERT_TRUE(set_later_aside(folder, 10));
  EXPECT_EQ(aside(folder), (Names{"30.1", "40.1", "20.2", "30.2"}));
  const std::string there = join_path(folder, kUndoneFolder);
  ASSERT_TRUE(write_file_atomic(join_path(there, "notes.txt"), "x"));
  EXPECT_EQ(prune_undone(folder, {.keep_last = 4, .keep_best = 1})->size(), 0u);
  EXPECT_EQ(prune_undone(folder, {.keep_last = 1, .keep_best = 1})->size(), 2u);
  EXPECT_EQ(aside(folder), (Names{"20.2", "30.2"})) << "of equals the newer one is the best";
  EXPECT_EQ(prune_undone(folder, {.keep_last = 1, .keep_best = 0})->size(), 1u);
  EXPECT_EQ(aside(folder), Names{"30.2"});
  EXPECT_EQ(*read_file(join_path(there, "notes.txt")), "x");
  EXPECT_EQ(*step_folders(folder), Steps{10});
  EXPECT_TRUE(prune_undone(join_path(folder, "none"), {})->empty());
  // What is not whole, or somebody put something into, is nobody's to remove.
  save(folder, 50);
  ASSERT_TRUE(write_file_atomic(join_path(checkpoint_path(folder, 50), "mine.txt"), "x"));
  ASSERT_TRUE(set_later_aside(folder, 10));
  save(folder, 60);
  ASSERT_TRUE(remove_tree(join_path(checkpoint_path(folder, 60), "state")));
  save(folder, 70);
  ASSERT_TRUE(set_later_aside(folder, 10));
  EXPECT_FALSE(prune_undone(folder, {.keep_last = 1, .keep_best = 0}));
  EXPECT_EQ(*list_folder(there),
            (Names{"notes.txt", "step-00000050.3", "step-00000060.4", "step-00000070.4"}));
}

// Each checkpoint is in one of the two places, whole, at any moment; and what is left in the run's is a beginning of
// what there was.
TEST(UndoneCheckpoints, AreLostToNobodyWhoIsKilledOrFails) {
  for (const char* action : {"kill", "eio"})
    for (const char* point : {"file.rename", "file.sync_folder", "file.make_folders"}) {
      bool clean = false;
      for (int n = 1; !clean; ++n) {
        const std::string folder = fresh_folder("undone_kill");
        for (const int64_t step : {10, 20, 30, 40}) save(folder, step);
        const std::string fault = fmt::format("{}:{}:{}", point, n, action);
        if (std::string(action) == "kill") {
          clean = survives(fault, [&] { EXPECT_TRUE(set_later_aside(folder, 10)); });
        } else {
          arm_faults(fault);
          const bool moved = set_later_aside(folder, 10).has_value();
          clean = fault_point_count(point) < n;
          arm_faults("");
          EXPECT_EQ(moved, clean) << fault;
        }
        const Steps left = *step_folders(folder);
        for (size_t i = 0; i < left.size(); ++i)
          EXPECT_EQ(left[i], 10 * static_cast<int64_t>(i + 1)) << fault;
        EXPECT_EQ(list_checkpoints(folder)->complete.size(), left.size());
        EXPECT_EQ(aside(folder).size() + left.size(), 4u) << fault;
        ASSERT_TRUE(set_later_aside(folder, 10));
        EXPECT_EQ(*step_folders(folder), Steps{10});
        EXPECT_EQ(aside(folder).size(), 3u) << fault;
      }
    }
}

TEST(UndoneCheckpoints, AreRemovedWholeByWhoeverIsKilledNext) {
  for (const char* point : {"file.rename", "file.sync_folder", "file.remove"}) {
    bool clean = false;
    for (int n = 1; !clean; ++n) {
      const std::string folder = fresh_folder("undone_prune_kill");
      for (const int64_t step : {10, 20, 30}) save(folder, step);
      ASSERT_TRUE(set_later_aside(folder, 0));
      clean = survives(fmt::format("{}:{}:kill", point, n), [&] {
        EXPECT_TRUE(prune_undone(folder, {.keep_last = 1, .keep_best = 0}));
      });
      EXPECT_FALSE(aside(folder).empty());
      ASSERT_TRUE(prune_undone(folder, {.keep_last = 1, .keep_best = 0}));
      EXPECT_EQ(*list_folder(join_path(folder, kUndoneFolder)), Names{"step-00000030.1"});
    }
  }
}

Steps steps_of(const std::vector<CheckpointInfo>& list) {
  Steps steps;
  for (const CheckpointInfo& c : list) steps.push_back(c.step);
  return steps;
}

// Whoever looks into the folder knows them by what later ones say, as long as they cannot be moved.
TEST(UndoneCheckpoints, AreKnownBeforeTheyAreSetAside) {
  const std::string folder = fresh_folder("undone_known");
  for (const int64_t step : {10, 20, 25, 30}) save(folder, step);
  EXPECT_EQ(newest_checkpoint(folder)->step, 30) << "nothing says more yet";
  save(folder, 22, {}, {20});
  EXPECT_EQ(steps_of(list_checkpoints(folder)->complete), (Steps{10, 20, 22}));
  EXPECT_EQ(steps_of(list_checkpoints(folder)->undone), (Steps{25, 30}));
  // To before that, and to behind it: what lies between was undone by the former.
  save(folder, 40, {}, {20, 10, 30});
  EXPECT_EQ(steps_of(list_checkpoints(folder)->complete), (Steps{10, 40}));
  EXPECT_EQ(steps_of(list_checkpoints(folder)->undone), (Steps{20, 22, 25, 30}));
  ASSERT_TRUE(prune_checkpoints(folder, {.keep_last = 1, .keep_best = 0}));
  EXPECT_EQ(*step_folders(folder), (Steps{20, 22, 25, 30, 40})) << "not the run's to remove";
  ASSERT_TRUE(set_aside(folder, {20, 25, 30, 35}));
  EXPECT_EQ(*step_folders(folder), (Steps{22, 40}));
  EXPECT_EQ(aside(folder), (Names{"20.1", "25.1", "30.1"}));
}

// What a run could not go on from must not be left without a newer one that it can.
TEST(UndoneCheckpoints, ThatNothingGoesOnFromAreMovedFirst) {
  const std::string folder = fresh_folder("undone_order");
  for (const int64_t step : {10, 20, 30, 40, 50}) save(folder, step);
  for (const int64_t step : {20, 40})
    ASSERT_TRUE(remove_tree(join_path(checkpoint_path(folder, step), "state")));
  arm_faults("undone.move:4:eio");
  EXPECT_FALSE(set_later_aside(folder, 10));
  arm_faults("");
  EXPECT_EQ(*step_folders(folder), (Steps{10, 30}));
}

// A disk that does not answer says nothing of what is set aside.
TEST(UndoneCheckpoints, ThatCannotBeReadAreNotPassedOver) {
  const std::string folder = fresh_folder("undone_unread");
  save(folder, 10);
  ASSERT_TRUE(set_later_aside(folder, 0));
  for (const char* point : {"file.open", "file.read_whole", "file.stat", "file.list"}) {
    bool clean = false;
    for (int n = 1; !clean; ++n) {
      arm_faults(fmt::format("{}:{}:eio", point, n));
      const Result<std::vector<CheckpointInfo>> list = list_undone(folder);
      clean = fault_point_count(point) < n;
      arm_faults("");
      EXPECT_EQ(list.has_value(), clean) << point << " " << n;
    }
  }
}

}  // namespace
}  // namespace ferry
