// Tests of the checkpoints code: round trips, every refusal, and failures and kills at every step.
#include "checkpoint/checkpoints.h"

#include <map>

#include "base/check.h"
#include "checkpoint/test_support.h"

namespace ferry {
namespace {

ModelContents model(uint64_t seed) {
  ModelContents c;
  c.tensors = {{"w", random_tensor({7, 3}, seed)}};
  c.texts = {{"config.json", "{}"}};
  return c;
}

TrainingStateContents state(int64_t step, const std::string& more = "", int parts = 2) {
  TrainingStateContents c;
  c.document = fmt::format("{{\"step\": {}, \"seed\": 18446744073709551615{}}}", step, more);
  const auto seed = static_cast<uint64_t>(step);
  const Tensor m = random_tensor({7, 3}, seed), v = random_tensor({5}, seed + 1);
  c.parts.resize(static_cast<size_t>(parts));
  for (int p = 0; p < parts; ++p) {
    const int64_t from = 7 * p / parts, to = 7 * (p + 1) / parts;
    c.parts[static_cast<size_t>(p)].push_back({"adamw.m/w", {7, 3}, from, m.slice(0, from, to)});
  }
  c.parts.back().push_back(StatePiece::whole("adamw.v/w", v));
  return c;
}

/// Verified, model and state of the same step; returns the step.
int64_t step_in(const CheckpointInfo& info) {
  Result<ModelDir> dir = ModelDir::open(info.path);
  EXPECT_TRUE(dir && dir->verify()) << info.path;
  Result<TrainingStateReader> reader = TrainingStateReader::open(info.path);
  EXPECT_TRUE(reader) << reader.error().message;
  if (!dir || !reader) return -1;
  EXPECT_EQ(bytes_of(*reader->load("adamw.m/w", cpu())),
            bytes_of(random_tensor({7, 3}, static_cast<uint64_t>(info.step))));
  return info.step;
}

TEST(TrainingState, AnyRangeFromAnyParts) {
  for (const int parts : {1, 2, 3, 7}) {
    const std::string folder = fresh_folder("ranges");
    ASSERT_TRUE(save_checkpoint(folder, 9, model(9), state(9, "", parts)));
    Result<TrainingStateReader> reader = TrainingStateReader::open(checkpoint_path(folder, 9));
    ASSERT_TRUE(reader) << reader.error().message;
    EXPECT_EQ(reader->document(), state(9).document);
    EXPECT_EQ(reader->names(), (std::vector<std::string>{"adamw.m/w", "adamw.v/w"}));
    EXPECT_EQ(reader->info("adamw.m/w")->shape, (Shape{7, 3}));
    EXPECT_EQ(reader->info("x"), nullptr);
    const Tensor whole = random_tensor({7, 3}, 9);
    for (int64_t begin = 0; begin <= 7; ++begin)
      for (int64_t end = begin; end <= 7; ++end) {
        const Result<Tensor> rows = reader->load_range("adamw.m/w", begin, end, cpu());
        ASSERT_TRUE(rows) << rows.error().message;
        EXPECT_EQ(rows->shape(), (Shape{end - begin, 3}));
        EXPECT_EQ(bytes_of(*rows), bytes_of(whole.slice(0, begin, end)));
      }
    EXPECT_TRUE(fails(reader->load("x", cpu()), Code::kNotFound, {"'x'"}));
    EXPECT_THROW(static_cast<void>(reader->load_range("adamw.m/w", 0, 8, cpu())), Bug);
  }
}

TEST(TrainingState, PiecesMustTile) {
  const std::string folder = fresh_folder("tile");
  const auto save = [&](auto&& change) {
    TrainingStateContents c = state(1);
    change(c);
    static_cast<void>(save_checkpoint(folder, 1, model(1), c));
  };
  EXPECT_THROW(save([](auto& c) { c.parts[0].pop_back(); }), Bug);  // rows missing in front
  EXPECT_THROW(save([](auto& c) { c.parts[1].erase(c.parts[1].begin()); }), Bug);  // at the end
  EXPECT_THROW(save([](auto& c) { c.parts[1].push_back(c.parts[0][0]); }), Bug);   // twice
  EXPECT_THROW(save([](auto& c) {
                 c.parts[0][0].global_shape = {8, 3};
               }),
               Bug);  // of another tensor
  EXPECT_THROW(save([](auto& c) { c.document = "{\"step\": 2}"; }), Bug);
  EXPECT_THROW(save([](auto& c) { c.document = "{"; }), Bug);
  EXPECT_TRUE(list_folder(folder)->empty());
}

TEST(TrainingState, FindsDamage) {
  const std::string folder = fresh_folder("state_damage"), path = checkpoint_path(folder, 4);
  const auto save = [&] { ASSERT_TRUE(save_checkpoint(folder, 4, model(4), state(4))); };
  save();
  const std::string part = join_path(path, "state/part-00001.safetensors");
  flip_bit(part, *file_size(part) - 1);
  Result<TrainingStateReader> reader = TrainingStateReader::open(path);
  ASSERT_TRUE(reader);
  EXPECT_TRUE(reader->load_range("adamw.m/w", 0, 2, cpu()));  // not in the damaged part
  EXPECT_TRUE(fails(reader->load("adamw.m/w", cpu()), Code::kCorrupt, {part, "checksum"}));
  EXPECT_TRUE(fails(ModelDir::open(path)->verify(), Code::kCorrupt, {part}));
  for (const char* name : {"state/tensors.json", "state/state.json"}) {
    save();
    flip_bit(join_path(path, name), 3);
    EXPECT_TRUE(fails(TrainingStateReader::open(path), Code::kCorrupt, {name}));
  }
  save();
  ASSERT_TRUE(remove_tree(part));
  EXPECT_TRUE(fails(TrainingStateReader::open(path), Code::kCorrupt, {part, "missing"}));
  EXPECT_TRUE(fails(newest_checkpoint(folder), Code::kNotFound, {folder, "ignored", part}));
  ASSERT_TRUE(write_model_dir(join_path(folder, "model"), model(1)));
  EXPECT_TRUE(fails(TrainingStateReader::open(join_path(folder, "model")),
                    Code::kNotFound,
                    {"without training state"}));
}

TEST(TrainingState, RefusesContradictoryTables) {
  const std::string folder = fresh_folder("tables");
  const auto write = [&](const std::string& tensors) -> Result<TrainingStateReader> {
    const std::string path = checkpoint_path(folder, 4);
    TRY_ASSIGN(StagedFolder staged, StagedFolder::create(path));
    TRY(staged.make_subfolder(kStateFolder));
    TRY_ASSIGN(FileDigest digest,
               write_safetensors(staged.file("state/part-00000.safetensors"),
                                 std::vector{NamedTensor{"a[0:2]", random_tensor({2, 3}, 1)}}));
    staged.add("state/part-00000.safetensors", digest);
    TRY(staged.write_text(kStateDocument, "{\"step\": 4}"));
    TRY(staged.write_text("state/tensors.json",
                          R"({"format":"ferry-state-1","tensors":{"a":)" + tensors + "}}"));
    TRY(staged.commit());
    return TrainingStateReader::open(path);
  };
  EXPECT_TRUE(write(R"({"dtype":"F32","shape":[2,3],"pieces":[[0,2,0]]})"));
  for (const char* bad : {R"({"dtype":"F32","shape":[3,3],"pieces":[[0,2,0]]})",
                          R"({"dtype":"F32","shape":[2,4],"pieces":[[0,2,0]]})",
                          R"({"dtype":"I32","shape":[2,3],"pieces":[[0,2,0]]})",
                          R"({"dtype":"F32","shape":[2,3],"pieces":[[0,2,1]]})",
                          R"({"dtype":"F32","shape":[2,3],"pieces":[[0,1,0]]})",
                          R"({"dtype":"F32","shape":[2,3],"pieces":[]})",
                          R"({"dtype":"F32","shape":[2,3],"pieces":[[2,0,0]]})",
                          R"({"dtype":"F32","shape":[-2,3],"pieces":[]})",
                          R"({"dtype":"F32","shape":[],"pieces":[]})",
                          R"({"dtype":"F32","shape":[0,4611686018427387904,4],"pieces":[]})",
                          R"({"dtype":"F9","shape":[2,3],"pieces":[[0,2,0]]})",
                          R"({"dtype":"F32","shape":[2,3],"pieces":[[0,18446744073709551615,0]]})",
                          "3",
                          "{}"})
    EXPECT_TRUE(fails(write(bad), Code::kCorrupt, {"state/tensors.json", "'a'"}) ||
                fails(write(bad), Code::kCorrupt, {"state/tensors.json", "are not in"}))
        << bad;
}

TEST(Checkpoints, ListsAndPrunes) {
  const std::string folder = fresh_folder("prune");
  EXPECT_TRUE(list_checkpoints(join_path(folder, "none"))->complete.empty());
  EXPECT_TRUE(fails(newest_checkpoint(folder), Code::kNotFound, {folder}));
  const std::map<int64_t, std::string> losses = {{100, ", \"held_out_loss\": 2.5"},
                                                 {200, ", \"held_out_loss\": 1.5"},
                                                 {300, ", \"held_out_loss\": 1.5"},
                                                 {400, ""},
                                                 {123456789, ", \"held_out_loss\": 3.0"}};
  for (const auto& [step, loss] : losses)
    ASSERT_TRUE(save_checkpoint(folder, step, model(1), state(step, loss)));
  ASSERT_TRUE(make_folders(join_path(folder, "step-00000500")));  // not complete
  ASSERT_TRUE(make_folders(join_path(folder, "step-600")));       // not ours
  ASSERT_TRUE(
      rename_path(checkpoint_path(folder, 100), checkpoint_path(folder, 700)));  // says it is 100
  Result<CheckpointList> list = list_checkpoints(folder);
  ASSERT_EQ(list->complete.size(), 4U);
  EXPECT_EQ(list->ignored.size(), 2U);
  EXPECT_EQ(list->complete[0].step, 200);
  EXPECT_EQ(list->complete[0].held_out_loss, 1.5);
  EXPECT_EQ(list->complete[2].held_out_loss, std::nullopt);
  EXPECT_EQ(newest_checkpoint(folder)->step, 123456789);
  EXPECT_EQ(prune_checkpoints(folder, {.keep_last = 2, .keep_best = 1})->size(), 1U);
  EXPECT_FALSE(path_exists(checkpoint_path(folder, 200)));  // 300 is as good, and newer
  EXPECT_TRUE(
      path_exists(checkpoint_path(folder, 700)));  // never removed: perhaps somebody's only copy
  EXPECT_EQ(prune_checkpoints(folder, {.keep_last = 0, .keep_best = 0})->size(), 2U);
  list = list_checkpoints(folder);
  ASSERT_EQ(list->complete.size(), 1U);
  EXPECT_EQ(step_in(list->complete[0]), 123456789);
}

// Beside the newest, and beside the best: whichever of these it is itself.
TEST(Checkpoints, OneThatIsNamedIsKeptBesideTheOthers) {
  const auto of = [](int64_t step, std::optional<double> loss) {
    return CheckpointInfo{.step = step, .path = {}, .held_out_loss = loss};
  };
  const std::vector<CheckpointInfo> list = {
      of(10, 2.0), of(20, 1.0), of(30, std::nullopt), of(40, 3.0), of(50, 3.0)};
  const auto removed = [&](int last, int best, int64_t step) {
    std::vector<int64_t> steps;
    for (const CheckpointInfo& c :
         not_kept(list, {.keep_last = last, .keep_best = best, .keep_step = step}))
      steps.push_back(c.step);
    return steps;
  };
  using Steps = std::vector<int64_t>;
  EXPECT_EQ(removed(1, 0, 10), (Steps{20, 30, 40}));
  EXPECT_EQ(removed(1, 1, 10), (Steps{30, 40}));
  EXPECT_EQ(removed(1, 1, 20), (Steps{10, 30, 40})) << "it is the best one: no second one instead";
  EXPECT_EQ(removed(2, 0, 30), (Steps{10, 20}));
  EXPECT_EQ(removed(2, 0, 40), (Steps{10, 20, 30})) << "it is among the newest: no third one";
  EXPECT_EQ(removed(1, 0, 50), (Steps{10, 20, 30, 40}));
  EXPECT_EQ(removed(1, 0, 35), (Steps{10, 20, 30, 40})) << "there is none of that step";
  EXPECT_EQ(removed(1, 0, -1), (Steps{10, 20, 30, 40}));
  EXPECT_EQ(removed(5, 0, -1), Steps{});

  const std::string folder = fresh_folder("named");
  for (const int64_t step : {10, 20, 30, 40, 50})
    ASSERT_TRUE(save_checkpoint(folder, step, model(1), state(step)));
  const auto there = [&] { return *step_folders(folder); };
  ASSERT_TRUE(prune_checkpoints(folder, {.keep_last = 2, .keep_best = 0, .keep_step = 20}));
  EXPECT_EQ(there(), (Steps{20, 40, 50}));
  ASSERT_TRUE(prune_checkpoints(folder, {.keep_last = 1, .keep_best = 0, .keep_step = 20}));
  EXPECT_EQ(there(), (Steps{20, 50}));
  ASSERT_TRUE(prune_checkpoints(folder, {.keep_last = 1, .keep_best = 0}));
  EXPECT_EQ(there(), Steps{50});
}

/// Whoever keeps a model without what training needs has a whole model; what else is missing stays missing.
TEST(Checkpoints, WithoutItsStateItIsAModelThatTrainingCannotGoOnFrom) {
  const std::string folder = fresh_folder("stateless"), path = checkpoint_path(folder, 4);
  const auto save = [&] { ASSERT_TRUE(save_checkpoint(folder, 4, model(4), state(4))); };
  save();
  EXPECT_TRUE(ModelDir::open(path)->notes().empty());
  ASSERT_TRUE(remove_tree(join_path(path, "state")));
  Result<ModelDir> dir = ModelDir::open(path);
  ASSERT_TRUE(dir) << dir.error().message;
  EXPECT_TRUE(dir->verify());
  ASSERT_EQ(dir->notes().size(), 1U);
  EXPECT_NE(dir->notes()[0].find("state/"), std::string::npos) << dir->notes()[0];
  const std::vector<std::string> says = {path, "state/", "put the folder back", "model.init"};
  EXPECT_TRUE(fails(TrainingStateReader::open(path), Code::kNotFound, says));
  EXPECT_TRUE(fails(newest_checkpoint(folder), Code::kNotFound, says));
  EXPECT_TRUE(list_checkpoints(folder)->ignored.at(0).state_left_out);
  EXPECT_TRUE(prune_checkpoints(folder, {.keep_last = 1, .keep_best = 0})->empty());
  EXPECT_TRUE(make_folders(join_path(path, "state")));  // an empty one is none
  EXPECT_TRUE(ModelDir::open(path));
  ASSERT_TRUE(remove_tree(join_path(path, "config.json")));
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {"config.json", "missing"}));
  save();
  ASSERT_TRUE(remove_tree(join_path(path, "state/part-00000.safetensors")));
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {"part-00000", "missing"}));
  EXPECT_TRUE(fails(newest_checkpoint(folder), Code::kNotFound, {"part-00000", "missing"}));
  EXPECT_FALSE(list_checkpoints(folder)->ignored.at(0).state_left_out);
}

/// A disk that does not answer, a permission, a limit: nothing is known about the checkpoint then,
/// least of all that it is damaged.
TEST(Checkpoints, WhatCannotBeReadIsNotIgnored) {
  const std::string folder = fresh_folder("unread"), path = checkpoint_path(folder, 4);
  ASSERT_TRUE(save_checkpoint(folder, 4, model(4), state(4)));
  for (const char* point : {"file.open", "file.read_whole", "file.size", "file.stat", "file.list"})
    for (const auto& [action, code] :
         {std::pair("eio", Code::kUnavailable), std::pair("eacces", Code::kExhausted)}) {
      bool clean = false;
      for (int n = 1; !clean; ++n) {
        arm_faults(fmt::format("{}:{}:{}", point, n, action));
        const Result<CheckpointList> list = list_checkpoints(folder);
        clean = fault_point_count(point) < n;
        arm_faults("");
        ASSERT_EQ(list.has_value(), clean) << point << " " << n;
        if (clean) {
          EXPECT_EQ(list->complete.size(), 1U);
        } else {
          EXPECT_TRUE(fails(list, code, {folder})) << point << " " << n;
        }
      }
    }
  ASSERT_TRUE(remove_tree(join_path(path, kChecksumsName)));
  const Result<CheckpointList> damaged = list_checkpoints(folder);
  ASSERT_TRUE(damaged);
  ASSERT_EQ(damaged->ignored.size(), 1U);
  EXPECT_EQ(damaged->ignored[0].path, path);
  EXPECT_EQ(damaged->ignored[0].step, 4);
}

TEST(Checkpoints, RemovesNothingThatFerryDidNotWrite) {
  const std::string folder = fresh_folder("mine");
  for (const int64_t step : {1, 2, 3})
    ASSERT_TRUE(save_checkpoint(folder, step, model(1), state(step)));
  const std::string mine = join_path(checkpoint_path(folder, 1), "notes.txt");
  ASSERT_TRUE(write_file_atomic(mine, "mine"));
  EXPECT_TRUE(
      fails(prune_checkpoints(folder, {1, 0}), Code::kUnavailable, {mine, "did not write it"}));
  EXPECT_EQ(*read_file(mine), "mine");
  EXPECT_EQ(*list_folder(folder), (std::vector<std::string>{"step-00000001", "step-00000003"}));
  // Names that only look like Ferry's: they stay, whatever is saved, listed or removed beside them.
  const char* const names[] = {".step-00000003.tmp.backup",
                               ".step-00000003.old.2026",
                               ".step-00000003.trash.1.2.3",
                               ".step-00000009.old.mine.1",
                               ".step-00000009.old.7.1"};  // the name of one, but not what is in it
  for (const char* name : names) {
    ASSERT_TRUE(make_folders(join_path(folder, name)));
    ASSERT_TRUE(write_file_atomic(join_path(join_path(folder, name), "notes.txt"), name));
  }
  ASSERT_TRUE(save_checkpoint(folder, 3, model(3), state(3)));
  ASSERT_TRUE(list_checkpoints(folder));
  EXPECT_FALSE(prune_checkpoints(folder, {1, 0}));
  for (const char* name : names)
    EXPECT_EQ(*read_file(join_path(join_path(folder, name), "notes.txt")), name);
  EXPECT_FALSE(path_exists(checkpoint_path(folder, 9)));
}

TEST(Checkpoints, PruningKilledOrFailingLosesNothingKept) {
  for (const char* action : {"kill", "eio"}) {
    for (const char* point : {"file.rename", "file.sync_folder", "file.remove"}) {
      bool clean = false;
      for (int n = 1; !clean; ++n) {
        const std::string folder = fresh_folder("prune_kill");
        for (const int64_t step : {1, 2, 3})
          ASSERT_TRUE(save_checkpoint(folder, step, model(1), state(step)));
        if (std::string(action) == "kill") {
          clean = survives(fmt::format("{}:{}:kill", point, n), [&] {
            EXPECT_TRUE(prune_checkpoints(folder, {1, 0}));
          });
        } else {
          arm_faults(fmt::format("{}:{}:eio", point, n));
          const auto removed = prune_checkpoints(folder, {1, 0});
          clean = fault_point_count(point) < n;
          arm_faults("");
          EXPECT_EQ(removed.has_value(), clean);
        }
        const CheckpointList list = *list_checkpoints(folder);
        EXPECT_TRUE(list.ignored.empty());
        ASSERT_FALSE(list.complete.empty());
        for (const CheckpointInfo& info : list.complete) EXPECT_EQ(step_in(info), info.step);
        EXPECT_EQ(list.complete.back().step, 3);
        ASSERT_TRUE(prune_checkpoints(folder, {1, 0}));
        EXPECT_EQ(*list_folder(folder), std::vector<std::string>{"step-00000003"});
      }
    }
  }
}

TEST(Checkpoints, NoSpaceAtAnyWriteLeavesThePreviousAndSaysSo) {
  const std::string folder = fresh_folder("nospace");
  ASSERT_TRUE(save_checkpoint(folder, 1, model(1), state(1)));
  for (const char* action : {"enospc", "erofs"}) {
    bool clean = false;
    for (int n = 1; !clean; ++n) {
      arm_faults(fmt::format("file.write:{}:{}", n, action));
      const Result<SaveReport> saved = save_checkpoint(folder, 2, model(2), state(2));
      clean = fault_point_count("file.write") < n;
      arm_faults("");
      EXPECT_EQ(step_in(*newest_checkpoint(folder)), clean ? 2 : 1);
      if (clean) {
        EXPECT_TRUE(saved);
      } else {
        EXPECT_TRUE(
            fails(saved, Code::kExhausted, {"step-00000002", "not saved", "are untouched"}));
      }
      EXPECT_TRUE(leftovers(folder).empty());
    }
    ASSERT_TRUE(remove_tree(checkpoint_path(folder, 2)));
  }
}

TEST(Checkpoints, AReadOnlyFolderIsNamed) {
  const std::string folder = fresh_folder("readonly");
  if (::geteuid() == 0) {
    arm_faults("file.mkdir:1:erofs");
    std::puts(
        "  running as root, whom permissions do not stop: a read-only file system is simulated "
        "instead");
  } else {
    ASSERT_EQ(::chmod(folder.c_str(), 0555), 0);
  }
  const Result<SaveReport> saved = save_checkpoint(folder, 1, model(1), state(1));
  arm_faults("");
  ::chmod(folder.c_str(), 0755);
  EXPECT_TRUE(fails(saved, Code::kExhausted, {folder, "choose another folder", "not saved"}));
}

TEST(Checkpoints, KilledAtAnyStepOfASave) {
  for (const char* exchange : {"", ",file.exchange:1:eio"}) {
    const std::string folder = fresh_folder("kill_save");
    ASSERT_TRUE(save_checkpoint(folder, 1, model(1), state(1)));
    for (const int64_t step : {1, 2}) {  // replacing, and new
      for (const char* point : kSteps) {
        bool survived = false;
        for (int n = 1; !survived; ++n) {
          survived = survives(fmt::format("{}:{}:kill{}", point, n, exchange), [&] {
            EXPECT_TRUE(save_checkpoint(folder, step, model(5), state(step)));
          });
          const Result<CheckpointInfo> newest = newest_checkpoint(folder);
          ASSERT_TRUE(newest) << point << " " << n << ": " << newest.error().message;
          EXPECT_TRUE(newest->step == 1 || newest->step == step);
          EXPECT_TRUE(!survived || newest->step == step);
          EXPECT_EQ(step_in(*newest), newest->step);
          EXPECT_TRUE(list_checkpoints(folder)->ignored.empty());
          ASSERT_TRUE(save_checkpoint(folder, 1, model(1), state(1)));
          ASSERT_TRUE(remove_tree(checkpoint_path(folder, 2)));
          EXPECT_EQ(*list_folder(folder), std::vector<std::string>{"step-00000001"})
              << point << " " << n;
        }
      }
    }
  }
}

}  // namespace
}  // namespace ferry
