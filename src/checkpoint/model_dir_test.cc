// Tests of the model dir code: round trips, every refusal, and failures and kills at every step.
#include "checkpoint/model_dir.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "checkpoint/convert.h"
#include "checkpoint/test_support.h"
#include "checkpoint/weights.h"
#include "device/stand_in_device.h"
#include "tensor/bf16.h"

namespace ferry {
namespace {

ModelContents contents(uint64_t seed, uint64_t shard_bytes = uint64_t{4} << 30) {
  ModelContents c;
  c.tensors = {{"model.embed_tokens.weight", random_tensor({16, 8}, seed)},
               {"model.layers.1.mlp.experts.*.gate_proj.weight",
                random_tensor({12, 4, 8}, seed + 1),
                DType::kBF16},
               {"model.norm.weight", random_tensor({8}, seed + 2)}};
  c.texts = {{"config.json", fmt::format("{{\"seed\": {}}}", seed)}, {"tokenizer.json", "{}"}};
  c.shard_bytes = shard_bytes;
  return c;
}

/// Whole, verified, and what contents(seed) gives; returns the seed. `replaced_meanwhile`: others
/// write, so verify(), which reads the files by name again, may meet the next directory's and is
/// left out.
uint64_t seed_of(const std::string& path, bool replaced_meanwhile = false) {
  Result<ModelDir> dir = ModelDir::open(path);
  EXPECT_TRUE(dir) << dir.error().message;
  if (!dir) return 0;
  if (!replaced_meanwhile) {
    const Result<void> verified = dir->verify();
    EXPECT_TRUE(verified) << verified.error().message;
  }
  const auto seed = nlohmann::json::parse(dir->config_json())["seed"].get<uint64_t>();
  const Result<Tensor> norm = dir->load("model.norm.weight", cpu(), DType::kF32);
  EXPECT_TRUE(norm && bytes_of(*norm) == bytes_of(random_tensor({8}, seed + 2)));
  return seed;
}

TEST(ModelDir, RoundTripWholeAndSharded) {
  for (const uint64_t shard_bytes : {uint64_t{1} << 30, uint64_t{600}, uint64_t{1}}) {
    const std::string path = join_path(fresh_folder("round"), "model");
    const ModelContents c = contents(10, shard_bytes);
    const Result<SaveReport> report = write_model_dir(path, c);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->warnings.empty());
    EXPECT_LE(report->bytes, bytes_needed(c));
    EXPECT_EQ(path_exists(join_path(path, "model.safetensors.index.json")), shard_bytes < 1000);
    if (shard_bytes == 1) {
      EXPECT_TRUE(path_exists(join_path(path, "model-00014-of-00014.safetensors")));
    }
    Result<ModelDir> dir = ModelDir::open(path);
    ASSERT_TRUE(dir) << dir.error().message;
    ASSERT_TRUE(dir->verify());
    EXPECT_EQ(dir->names().size(), 14U);
    EXPECT_EQ(*dir->text("tokenizer.json"), "{}");
    EXPECT_TRUE(
        fails(dir->text("generation_config.json"), Code::kNotFound, {"generation_config.json"}));

    const Tensor embed = *dir->load("model.embed_tokens.weight", cpu(), DType::kF32);
    EXPECT_EQ(bytes_of(embed), bytes_of(c.tensors[0].value));
    const Tensor narrow = *dir->load("model.embed_tokens.weight", cpu(), DType::kBF16);
    const std::vector<float> exact = embed.to_f32(), rounded = narrow.to_f32();
    for (size_t i = 0; i < exact.size(); ++i)
      EXPECT_EQ(rounded[i], bf16_to_f32(f32_to_bf16(exact[i])));

    const std::string stack = c.tensors[1].name;
    const Tensor experts = *dir->load_stacked(stack, 12, cpu(), DType::kF32);
    EXPECT_EQ(experts.shape(), (Shape{12, 4, 8}));
    const std::vector<float> want = c.tensors[1].value.to_f32(), got = experts.to_f32();
    for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got[i], bf16_to_f32(f32_to_bf16(want[i])));
    const Tensor eleven =
        *dir->load("model.layers.1.mlp.experts.11.gate_proj.weight", cpu(), DType::kBF16);
    EXPECT_EQ(eleven.to_f32(), experts.slice(0, 11, 12).to_f32());
    EXPECT_TRUE(
        fails(dir->load_stacked(stack, 13, cpu(), DType::kF32), Code::kNotFound, {"experts.12."}));
    EXPECT_TRUE(fails(dir->load_stacked(stack, 11, cpu(), DType::kF32),
                      Code::kInvalidInput,
                      {"experts.11.", "11 experts"}));
    EXPECT_THROW(static_cast<void>(dir->load_stacked("no.star", 2, cpu(), DType::kF32)), Bug);
    EXPECT_TRUE(fails(dir->load("nope", cpu(), DType::kF32), Code::kNotFound, {path, "'nope'"}));
  }
}

TEST(ModelDir, RefusesTypesThatDoNotConvert) {
  const std::string path = join_path(fresh_folder("types"), "model");
  ModelContents c = contents(1);
  c.tensors.push_back({"f8", Tensor::zeros({2, 2}, DType::kF8E4M3, cpu())});
  c.tensors.push_back({"ids", Tensor::zeros({2}, DType::kI64, cpu())});
  ASSERT_TRUE(write_model_dir(path, c));
  Result<ModelDir> dir = ModelDir::open(path);
  EXPECT_TRUE(
      fails(dir->load("f8", cpu(), DType::kBF16), Code::kInvalidInput, {"f8", "scales", "BF16"}));
  EXPECT_TRUE(fails(dir->load("ids", cpu(), DType::kF32),
                    Code::kInvalidInput,
                    {"ids", "I64", "F32, BF16 or F16"}));
  EXPECT_TRUE(dir->load("ids", cpu(), DType::kI64));
}

TEST(ModelDir, TensorsThatZero3LeftEmptyAreCalledSo) {
  const std::string path = join_path(fresh_folder("zero3"), "model");
  ModelContents c = contents(1);
  c.tensors.push_back({"part", Tensor::zeros({0}, DType::kF32, cpu())});
  ASSERT_TRUE(write_model_dir(path, c));
  Result<ModelDir> dir = ModelDir::open(path);
  Weight part{.name = "part", .global_shape = {2, 3}};
  EXPECT_TRUE(fails(load_weights(*dir, cpu(), {&part}, {}),
                    Code::kInvalidInput,
                    {"part", "[0]", "[2, 3]", "ZeRO-3", "zero_to_fp32.py"}));
}

TEST(ModelDir, NumbersThatAreNotFiniteAreNoWeights) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::string folder = join_path(fresh_folder("not_finite"), "model");
  for (const DType stored : {DType::kF32, DType::kBF16})
    for (const float bad : {nan, infinity, -infinity})
      for (const int64_t at : {int64_t{0}, int64_t{5000}, int64_t{9999}}) {
        std::vector<float> values(10000, 3e38f);
        values[static_cast<size_t>(at)] = bad;
        ModelContents contents;
        contents.texts = {{"config.json", "{}"}};
        contents.tensors = {{"w", Tensor::from_f32(values, {100, 100}, cpu()), stored}};
        ASSERT_TRUE(write_model_dir(folder, contents));
        Result<ModelDir> dir = ModelDir::open(folder);
        ASSERT_TRUE(dir) << dir.error().message;
        const Result<Tensor> loaded = dir->load("w", cpu(), DType::kF32);
        ASSERT_FALSE(loaded);
        EXPECT_EQ(loaded.error().code, Code::kCorrupt);
        EXPECT_NE(
            loaded.error().message.find(fmt::format("w holds a number that is not finite (NaN "
                                                    "or infinite), element {} ",
                                                    at)),
            std::string::npos)
            << loaded.error().message;
      }
  const auto first = [](DType type, std::vector<uint8_t> bytes) {
    return first_not_finite(type, std::as_bytes(std::span(bytes)));
  };
  EXPECT_EQ(first(DType::kF8E4M3, {0x7E, 0xFE, 0xFF}), 2u);
  EXPECT_EQ(first(DType::kF8E4M3, {0x7E, 0xFE}), std::nullopt);
  EXPECT_EQ(first(DType::kF16, {0xFF, 0x7B, 0x00, 0xFC}), 1u);
  EXPECT_EQ(first(DType::kI32, {0xFF, 0xFF, 0xFF, 0xFF}), std::nullopt);
}

TEST(ModelDir, FindsDamage) {
  const std::string path = join_path(fresh_folder("damage"), "model");
  const auto rewrite = [&](uint64_t shard_bytes) {
    ASSERT_TRUE(write_model_dir(path, contents(3, shard_bytes)));
  };
  const std::string single = join_path(path, "model.safetensors"),
                    config = join_path(path, "config.json");

  rewrite(1 << 30);
  flip_bit(single, *file_size(single) - 1);
  Result<ModelDir> dir = ModelDir::open(path);
  ASSERT_TRUE(dir);  // contents are checked when they are used
  EXPECT_TRUE(fails(dir->load("model.norm.weight", cpu(), DType::kF32),
                    Code::kCorrupt,
                    {single, "checksum", "restore"}));
  EXPECT_TRUE(fails(dir->verify(), Code::kCorrupt, {single}));

  rewrite(1 << 30);
  flip_bit(config, 2);
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {config, "checksum"}));

  rewrite(1 << 30);
  flip_bit(join_path(path, "tokenizer.json"), 0);
  EXPECT_TRUE(fails(ModelDir::open(path)->verify(), Code::kCorrupt, {"tokenizer.json"}));

  rewrite(1 << 30);
  ASSERT_TRUE(write_file_atomic(single, read_file(single)->substr(0, 100)));
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {single, "100 bytes"}));
  ASSERT_TRUE(remove_tree(single));
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {single, "missing"}));

  for (const char* sums :
       {"",
        "{",
        "[]",
        R"({"format":"ferry-checksums-1"})",
        R"({"format":"other","files":{}})",
        R"({"format":"ferry-checksums-1","files":{"../x":{"bytes":1,"blake2b":""}}})",
        R"({"format":"ferry-checksums-1","files":{"x":{"bytes":-1,"blake2b":""}}})",
        R"({"format":"ferry-checksums-1","format":"ferry-checksums-1","files":{}})"}) {
    ASSERT_TRUE(write_file_atomic(join_path(path, kChecksumsName), sums));
    EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {kChecksumsName})) << sums;
  }
  EXPECT_TRUE(fails(ModelDir::open(path + "x"), Code::kNotFound, {path + "x"}));
  EXPECT_TRUE(fails(ModelDir::open("/nowhere/at/all"), Code::kNotFound, {"/nowhere/at/all"}));
  EXPECT_TRUE(fails(ModelDir::open(config), Code::kInvalidInput, {config, "not a directory"}));
}

TEST(ModelDir, IndexAndShardsMustAgree) {
  const std::string path = join_path(fresh_folder("index"), "model");
  ASSERT_TRUE(write_model_dir(path, contents(3, 600)));
  ASSERT_TRUE(remove_tree(join_path(path, kChecksumsName)));  // as a directory from elsewhere
  const std::string index_path = join_path(path, "model.safetensors.index.json");
  const auto good = nlohmann::json::parse(*read_file(index_path));
  ASSERT_TRUE(ModelDir::open(path));
  EXPECT_TRUE(fails(ModelDir::open(path)->verify(), Code::kNotFound, {kChecksumsName}));
  const auto with = [&](auto&& change) {
    nlohmann::json index = good;
    change(index);
    EXPECT_TRUE(write_file_atomic(index_path, index.dump()));
    return ModelDir::open(path);
  };
  const std::string norm = "model.norm.weight";
  EXPECT_TRUE(fails(with([&](auto& i) { i["weight_map"].erase(norm); }),
                    Code::kCorrupt,
                    {norm, "does not name"}));
  EXPECT_TRUE(fails(with([&](auto& i) { i["weight_map"]["ghost"] = i["weight_map"][norm]; }),
                    Code::kCorrupt,
                    {"ghost", "does not have"}));
  EXPECT_TRUE(fails(
      with([&](auto& i) { i["weight_map"][norm] = i["weight_map"]["model.embed_tokens.weight"]; }),
      Code::kCorrupt,
      {norm, "places it"}));
  EXPECT_TRUE(fails(
      with([&](auto& i) { i["weight_map"][norm] = 3; }), Code::kCorrupt, {norm, "file's name"}));
  EXPECT_TRUE(fails(with([&](auto& i) { i["weight_map"] = 3; }), Code::kCorrupt, {"weight_map"}));
  for (const char* outside :
       {"../model.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", "config.json"})
    EXPECT_TRUE(fails(with([&](auto& i) { i["weight_map"][norm] = outside; }),
                      Code::kCorrupt,
                      {norm, "not the name"}))
        << outside;
  EXPECT_TRUE(fails(with([&](auto& i) { i["weight_map"][norm] = "model-9.safetensors"; }),
                    Code::kNotFound,
                    {"model-9.safetensors", "missing"}));
  ASSERT_TRUE(
      write_file_atomic(index_path, R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})"));
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {"'a'", "twice"}));
  ASSERT_TRUE(write_file_atomic(index_path, std::string(1000, '[')));
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {index_path}));
  // The same tensor in two shards.
  ASSERT_TRUE(write_file_atomic(index_path, good.dump()));
  const std::string first = good["weight_map"]["model.embed_tokens.weight"];
  ASSERT_TRUE(
      write_safetensors(join_path(path, first),
                        std::vector{NamedTensor{"model.embed_tokens.weight", random_tensor({2}, 1)},
                                    NamedTensor{norm, random_tensor({8}, 1)}}));
  EXPECT_FALSE(ModelDir::open(path));
  EXPECT_TRUE(fails(ModelDir::open(path), Code::kCorrupt, {first}));
  ASSERT_TRUE(write_file_atomic(join_path(path, "model.safetensors"), "x"));
  EXPECT_TRUE(
      fails(ModelDir::open(path), Code::kCorrupt, {"model.safetensors", "index", "remove"}));
}

TEST(ModelDir, ReplacesOnlyWhatFerryWrote) {
  const std::string folder = fresh_folder("replace"), path = join_path(folder, "model");
  ASSERT_TRUE(make_folders(path));
  ASSERT_TRUE(write_model_dir(path, contents(20)));  // an empty folder
  ASSERT_TRUE(write_model_dir(path + "/", contents(21)));
  EXPECT_EQ(seed_of(path), 21U);
  ASSERT_TRUE(write_file_atomic(join_path(path, "notes.txt"), "mine"));
  EXPECT_TRUE(
      fails(write_model_dir(path, contents(22)), Code::kInvalidInput, {"notes.txt", "move it"}));
  EXPECT_EQ(*read_file(join_path(path, "notes.txt")), "mine");
  EXPECT_TRUE(fails(write_model_dir(folder, contents(22)),
                    Code::kInvalidInput,
                    {folder, "not a folder that Ferry wrote"}));
  EXPECT_TRUE(fails(write_model_dir(join_path(path, "notes.txt"), contents(22)),
                    Code::kInvalidInput,
                    {"not a folder"}));
  EXPECT_TRUE(fails(write_model_dir("/", contents(22)), Code::kInvalidInput, {"/"}));
  EXPECT_EQ(seed_of(path), 21U);
  EXPECT_TRUE(leftovers(folder).empty());
}

TEST(ModelDir, ReplacesWhatALinkNamesAndKeepsTheLink) {
  const std::string folder = fresh_folder("link"), path = join_path(folder, "model");
  const std::string link = join_path(folder, "latest"), chain = join_path(folder, "chain");
  ASSERT_TRUE(write_model_dir(path, contents(25)));
  std::filesystem::create_directory_symlink("model", link);
  std::filesystem::create_directory_symlink(link, chain);
  for (const std::string& name : {link, chain + "/", join_path(path, "../latest")})
    ASSERT_TRUE(write_model_dir(name, contents(26))) << name;
  EXPECT_TRUE(std::filesystem::is_symlink(link) && std::filesystem::is_symlink(chain));
  EXPECT_FALSE(std::filesystem::is_symlink(path));
  EXPECT_EQ(seed_of(path), 26U);
  const std::string loop = join_path(folder, "loop");
  std::filesystem::create_directory_symlink("loop", loop);
  EXPECT_TRUE(fails(write_model_dir(loop, contents(27)), Code::kInvalidInput, {loop, "symbolic"}));
  EXPECT_TRUE(leftovers(folder).empty());
}

TEST(ModelDir, AnErrorAtAnyStepLeavesTheOldOne) {
  for (const char* exchange : {"", ",file.exchange:1:eio"}) {
    const std::string folder = fresh_folder("enospc"), path = join_path(folder, "model");
    ASSERT_TRUE(write_model_dir(path, contents(30, 600)));
    for (const char* action : {"enospc", "erofs", "eio"}) {
      for (const char* point : {"file.mkdir",
                                "file.create",
                                "file.write",
                                "file.sync",
                                "file.rename",
                                "file.sync_folder"}) {
        bool clean = false;
        for (int n = 1; !clean; ++n) {
          arm_faults(fmt::format("{}:{}:{}{}", point, n, action, exchange));
          const Result<SaveReport> saved = write_model_dir(path, contents(31, 600));
          clean = fault_point_count(point) < n;
          arm_faults("");
          const uint64_t seed = seed_of(path);
          if (clean) {
            EXPECT_TRUE(saved) << saved.error().message;
          } else if (saved) {  // only a leftover could not be put away
            ADD_FAILURE() << point << " " << n << " had no effect";
          } else {
            EXPECT_EQ(saved.error().code,
                      std::string(action) == "eio" ? Code::kUnavailable : Code::kExhausted);
            const bool says_new = saved.error().message.find("is the new one") != std::string::npos;
            EXPECT_EQ(seed, says_new ? 31U : 30U) << saved.error().message;
          }
          ASSERT_TRUE(write_model_dir(path, contents(30, 600)));
          EXPECT_TRUE(leftovers(folder).empty()) << point << " " << n;
        }
      }
    }
  }
}

TEST(ModelDir, ALeftoverThatStaysIsAWarning) {
  const std::string folder = fresh_folder("warn"), path = join_path(folder, "model");
  ASSERT_TRUE(write_model_dir(path, contents(1)));
  arm_faults("file.remove:1:eio");
  const Result<SaveReport> saved = write_model_dir(path, contents(2));
  arm_faults("");
  ASSERT_TRUE(saved) << saved.error().message;
  EXPECT_EQ(saved->warnings.size(), 1U);
  EXPECT_EQ(seed_of(path), 2U);
  EXPECT_EQ(leftovers(folder).size(), 1U);
  ASSERT_TRUE(recover_model_dir(path));
  EXPECT_TRUE(leftovers(folder).empty());
}

TEST(ModelDir, KilledAtAnyStepLeavesTheOldOrTheNew) {
  for (const char* exchange : {"", ",file.exchange:1:eio"}) {
    const std::string folder = fresh_folder("kill"), path = join_path(folder, "model");
    for (const bool replacing : {false, true}) {
      for (const char* point : kSteps) {
        bool survived = false;
        for (int n = 1; !survived; ++n) {
          ASSERT_TRUE(remove_tree(path));
          if (replacing) {
            ASSERT_TRUE(write_model_dir(path, contents(40)));
          }
          survived = survives(fmt::format("{}:{}:kill{}", point, n, exchange),
                              [&] { EXPECT_TRUE(write_model_dir(path, contents(41))); });
          const Result<ModelDir> dir = ModelDir::open(path);
          if (dir || replacing) {
            const uint64_t seed = seed_of(path);
            EXPECT_TRUE(seed == 41U || (replacing && !survived && seed == 40U))
                << point << " " << n;
          } else {
            EXPECT_TRUE(fails(dir, Code::kNotFound, {path}));
            EXPECT_FALSE(survived);
          }
          ASSERT_TRUE(write_model_dir(path, contents(42)));
          EXPECT_TRUE(leftovers(folder).empty())
              << point << " " << n << " " << leftovers(folder).front();
          EXPECT_EQ(seed_of(path), 42U);
        }
      }
    }
  }
}

TEST(ModelDir, AReplacementWithoutExchangeIsRolledBackByOpen) {
  const std::string folder = fresh_folder("rollback"), path = join_path(folder, "model");
  ASSERT_TRUE(write_model_dir(path, contents(50)));
  EXPECT_FALSE(survives("file.exchange:1:eio,file.rename:2:kill",
                        [&] { EXPECT_TRUE(write_model_dir(path, contents(51))); }));
  EXPECT_FALSE(path_exists(path));
  EXPECT_EQ(seed_of(path), 50U);
  ASSERT_TRUE(recover_model_dir(path));
  EXPECT_TRUE(leftovers(folder).empty());
}

TEST(ModelDir, WritersAndReadersAtOnce) {
  for (const char* faults : {"", "file.exchange:1:eio,file.exchange:2:eio,file.exchange:3:eio"}) {
    const std::string folder = fresh_folder("race"), path = join_path(folder, "model");
    ASSERT_TRUE(write_model_dir(path, contents(60)));
    std::vector<pid_t> children;
    for (uint64_t writer = 1; writer <= 2; ++writer) {
      const pid_t child = ::fork();
      if (child == 0) {
        arm_faults(faults);
        for (uint64_t i = 0; i < 12; ++i) {
          const Result<SaveReport> saved = write_model_dir(path, contents(60 + writer * 100 + i));
          if (saved) continue;
          fmt::print(stderr, "writer {}: {}\n", writer, saved.error().message);
          ::_exit(1);
        }
        ::_exit(0);
      }
      children.push_back(child);
    }
    for (int i = 0; i < 60; ++i) EXPECT_GE(seed_of(path, true), 60U);
    for (const pid_t child : children) {
      int status = 1;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      EXPECT_EQ(status, 0);
    }
    const uint64_t last = seed_of(path);
    EXPECT_TRUE(last == 171 || last == 271) << last;
    EXPECT_TRUE(leftovers(folder).empty());
  }
}

/// What is widened while it is loaded takes more memory than it does of the file.
TEST(ModelDir, WeightsNeedTheRoomThatTheyTakeInMemory) {
  for (const auto& [stored, bytes] :
       {std::pair{DType::kF16, 4}, std::pair{DType::kBF16, 2}, std::pair{DType::kF32, 4}}) {
    const std::string path = join_path(fresh_folder("room"), "model");
    ModelContents c = contents(3);
    c.tensors = {{"matrix", random_tensor({64, 64}, 3), stored}};
    ASSERT_TRUE(write_model_dir(path, c));
    const auto load = [&](uint64_t memory) {
      ModelDir dir = *ModelDir::open(path);
      StandInDevice device(DeviceKind::kCpu, memory);  // outlives what lies on it
      Weight matrix{.name = "matrix", .global_shape = {64, 64}};
      return load_weights(dir, device, {&matrix}, {});
    };
    const auto needed = static_cast<uint64_t>(64 * 64 * bytes);
    EXPECT_TRUE(fails(load(needed - 1), Code::kExhausted, {"the weights take"})) << bytes;
    EXPECT_TRUE(load(needed)) << bytes;
  }
}

TEST(ModelDir, RefusesToStartWithoutSpace) {
  EXPECT_TRUE(fails(require_space(fresh_folder("space"), uint64_t{1} << 60),
                    Code::kExhausted,
                    {"saving needs", "are free"}));
  EXPECT_TRUE(require_space(fresh_folder("space"), 1 << 20));
}

}  // namespace
}  // namespace ferry
