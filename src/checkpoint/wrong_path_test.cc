#include "checkpoint/wrong_path.h"

#include "checkpoint/test_support.h"

namespace ferry {
namespace {

void put(const std::string& path, const std::string& content = "{}") {
  ASSERT_TRUE(make_folders(parent_folder(path)));
  ASSERT_TRUE(write_file_atomic(path, content));
}

testing::AssertionResult says(const std::string& path, const std::vector<std::string>& words) {
  return fails(ModelDir::open(path),
               is_folder(path) || !path_exists(path) ? Code::kNotFound : Code::kInvalidInput,
               words);
}

/// A hub cache of one model: blobs, a snapshot of links into them, refs/main.
std::string hub_cache(const std::string& name, const std::string& ref, int snapshots) {
  const std::string cache = fresh_folder(name) + "/models--deepseek-ai--DeepSeek-V2-Lite";
  put(cache + "/blobs/aaaa");
  if (!ref.empty()) put(cache + "/refs/main", ref);
  for (int i = 0; i < snapshots; ++i) {
    const std::string snapshot = fmt::format("{}/snapshots/{:040}", cache, i);
    EXPECT_TRUE(make_folders(snapshot));
    EXPECT_EQ(::symlink("../../blobs/aaaa", (snapshot + "/config.json").c_str()), 0);
  }
  return cache;
}

TEST(WrongPath, TheHubsCacheLeadsToItsSnapshot) {
  const std::string second = fmt::format("{:040}", 1);
  const std::string cache = hub_cache("hub", second + "\n", 3);
  const std::string snapshot = cache + "/snapshots/" + second;
  EXPECT_TRUE(says(cache, {"hub's cache", snapshot}));
  EXPECT_TRUE(says(parent_folder(cache), {"hub's cache of 1 model;", snapshot}));
  // HF_HOME has the cache below "hub".
  const std::string home = fresh_folder("home");
  ASSERT_TRUE(rename_path(parent_folder(cache), home + "/hub"));
  EXPECT_TRUE(says(home, {"/hub/models--deepseek-ai--DeepSeek-V2-Lite/snapshots/" + second}));

  const std::string parts = hub_cache("parts", second, 2);
  for (const char* part : {"/blobs", "/refs", "/snapshots", "/snapshots/"})
    EXPECT_TRUE(says(parts + part, {parts + ", which is the hub's cache", "/snapshots/" + second}));

  const std::string one = hub_cache("one", "", 1);
  EXPECT_TRUE(says(one, {one + "/snapshots/" + fmt::format("{:040}", 0)}));
  const std::string two = hub_cache("two", "../../etc", 2);
  EXPECT_TRUE(says(two, {"2 snapshots", "name one of them"}));
  const std::string none = hub_cache("none", "abc", 0);
  EXPECT_TRUE(says(none, {"not finished"}));
}

TEST(WrongPath, UnfinishedDownloadsAreNamed) {
  const std::string cache = hub_cache("unfinished", fmt::format("{:040}", 0), 1);
  const std::string snapshot = fmt::format("{}/snapshots/{:040}", cache, 0);
  EXPECT_TRUE(says(snapshot, {"neither model.safetensors nor"}));
  put(cache + "/blobs/bbbb.incomplete");
  EXPECT_TRUE(says(snapshot, {"1 of its downloads are not finished", "*.incomplete"}));
  ASSERT_EQ(::symlink("../../blobs/bbbb", (snapshot + "/model.safetensors").c_str()), 0);
  EXPECT_TRUE(says(snapshot, {"is a link to ../../blobs/bbbb, which is not there"}));
  ASSERT_TRUE(remove_tree(cache + "/blobs/aaaa"));
  EXPECT_TRUE(says(snapshot, {"config.json", "is a link to ../../blobs/aaaa"}));

  const std::string local = fresh_folder("local");
  put(local + "/config.json");
  put(local + "/.cache/huggingface/download/model.safetensors.abc.incomplete");
  EXPECT_TRUE(says(local, {"1 of its downloads are not finished"}));
}

TEST(WrongPath, OtherThingsAreCalledByTheirNames) {
  EXPECT_TRUE(says("deepseek-ai/DeepSeek-V2-Lite", {"hf download deepseek-ai/DeepSeek-V2-Lite"}));
  EXPECT_TRUE(says("/no/such/place", {"no such model directory"}));
  const std::string folder = fresh_folder("things");
  put(folder + "/lora/adapter_config.json");
  EXPECT_TRUE(says(folder + "/lora", {"adapter", "--adapter"}));
  put(folder + "/pickled/config.json");
  put(folder + "/pickled/pytorch_model.bin");
  EXPECT_TRUE(says(folder + "/pickled", {"pickled", "safe_serialization"}));
  put(folder + "/gguf/model.gguf", "GGUF and more");
  const std::string convert = "ferry convert " + folder + "/gguf/model.gguf --to f32 --out DIR";
  EXPECT_TRUE(says(folder + "/gguf", {"GGUF", "name the file", convert}));
  EXPECT_TRUE(says(folder + "/gguf/model.gguf", {"GGUF", convert}));
  EXPECT_TRUE(says(folder + "/pickled/config.json", {"its folder, " + folder + "/pickled"}));
  put(folder + "/data/manifest.json");
  EXPECT_TRUE(says(folder + "/data", {"dataset"}));
  put(folder + "/run/step-00000010/config.json");
  put(folder + "/run/step-00000020/config.json");
  EXPECT_TRUE(says(folder + "/run", {"run", folder + "/run/step-00000020"}));
  put(folder + "/trainer/checkpoint-500/config.json");
  EXPECT_TRUE(says(folder + "/trainer", {folder + "/trainer/checkpoint-500"}));
  put(folder + "/trainer/checkpoint-1000/config.json");
  put(folder + "/trainer/checkpoint-best/config.json");
  EXPECT_TRUE(says(folder + "/trainer", {"checkpoints", folder + "/trainer/checkpoint-1000"}));
  put(folder + "/run/step-00000020/state/state.json");
  for (const char* end : {"", "/"})
    EXPECT_TRUE(says(folder + "/run/step-00000020/state" + end,
                     {"training state", "directory is " + folder + "/run/step-00000020"}));
  put(folder + "/llama/original/consolidated.00.pth");
  EXPECT_TRUE(says(folder + "/llama", {"original/", "Meta's own form"}));
  EXPECT_TRUE(says(folder + "/llama/original", {"Meta's own form"}));
  put(folder + "/zero/zero_to_fp32.py");
  put(folder + "/zero/global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt");
  EXPECT_TRUE(says(folder + "/zero", {"DeepSpeed", folder + "/zero/zero_to_fp32.py"}));
  for (const char* address : {"https://huggingface.co/deepseek-ai/DeepSeek-V2-Lite",
                              "https://huggingface.co/deepseek-ai/DeepSeek-V2-Lite/tree/main",
                              "hf://huggingface.co/deepseek-ai/DeepSeek-V2-Lite?download=true"})
    EXPECT_TRUE(says(address, {"is an address", "hf download deepseek-ai/DeepSeek-V2-Lite --"}));
  EXPECT_TRUE(says("https://example.org/model", {"is an address"}));
  EXPECT_TRUE(says("https://huggingface.co/gpt2/tree/main", {"is an address", "as that place"}));
  EXPECT_EQ(instead_of_model_dir("https://huggingface.co/datasets/roneneldan/TinyStories"),
            "is the address of a dataset on the hub, not of a model");
  const std::string pipe = folder + "/a: pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(instead_of_model_dir(pipe), "is a pipe; name a regular file");
  ASSERT_EQ(::symlink("nowhere", (folder + "/link").c_str()), 0);
  EXPECT_TRUE(says(folder + "/link", {"is a link to nowhere"}));
}

TEST(WrongPath, WeightsUnderOtherNamesAreNamed) {
  const std::string folder = fresh_folder("other_names");
  put(folder + "/shards/config.json");
  put(folder + "/shards/model-00001-of-00002.safetensors");
  put(folder + "/shards/model-00002-of-00002.safetensors");
  EXPECT_TRUE(says(folder + "/shards", {"its 2 parts", "model.safetensors.index.json, too"}));
  // The index is there, and a shard is not; nor is what has nothing to do with weights explained by them.
  put(folder + "/shards/model.safetensors.index.json");
  EXPECT_EQ(why_missing(folder + "/shards", "model-00003-of-00003.safetensors"), "");
  EXPECT_EQ(why_missing(folder + "/shards", "tokenizer.json"), "");
  put(folder + "/mistral/config.json");
  put(folder + "/mistral/consolidated.safetensors");
  EXPECT_TRUE(says(folder + "/mistral", {"consolidated.safetensors", "Mistral's own names"}));
  put(folder + "/named/config.json");
  put(folder + "/named/weights.safetensors");
  EXPECT_TRUE(says(folder + "/named", {"weights.safetensors is here"}));

  const std::string name = "model.norm.weight";
  EXPECT_NE(why_no_tensor({"_orig_mod.model.norm.weight"}, name).find("torch.compile"),
            std::string::npos);
  EXPECT_NE(why_no_tensor({"module.model.norm.weight"}, name).find("\"module.model.norm.weight\""),
            std::string::npos);
  EXPECT_EQ(why_no_tensor({"model.layers.0.weight", "xmodel.norm.weight"}, name), "");
  EXPECT_NE(why_no_tensor({"norm.weight"}, name).find("AutoModelForCausalLM"), std::string::npos);
  EXPECT_NE(why_no_tensor({"model.layers.1.mlp.experts.gate_up_proj"},
                          "model.layers.1.mlp.experts.0.gate_proj.weight")
                .find("fused"),
            std::string::npos);
  EXPECT_EQ(why_no_tensor({"model.layers.2.mlp.experts.gate_up_proj"},
                          "model.layers.1.mlp.experts.0.gate_proj.weight"),
            "");
  EXPECT_NE(why_no_tensor({"a.weight", "a.weight_scale"}, "a.weight_scale_inv").find("float8"),
            std::string::npos);
  EXPECT_EQ(why_no_tensor({"a.weight"}, "a.weight_scale_inv"), "");
  EXPECT_NE(
      why_no_tensor({"model.embed_tokens.weight"}, "lm_head.weight").find("tie_word_embeddings"),
      std::string::npos);
  EXPECT_EQ(why_no_tensor({"model.norm.weight"}, "lm_head.weight"), "");
}

/// What is said to be missing is missing. (Fails with the older words, which called every description absent.)
TEST(WrongPath, QuantisedWeightsThatAreNotReadAreToldWhy) {
  const std::string folder = fresh_folder("codes");
  const auto why = [&](std::initializer_list<const char*> names,
                       const char* missing = "model.safetensors") {
    EXPECT_TRUE(remove_tree(folder));
    for (const char* name : names) put(folder + "/" + name);
    return why_missing(folder, missing);
  };
  EXPECT_EQ(why({"quant_model_weights.safetensors"}),
            "; quant_model_weights.safetensors is here, and quant_model_description.json, in which "
            "msModelSlim says what its codes mean, is not: fetch it, too");
  // Another kind of its own, which MindIE reads.
  const std::string other =
      why({"quant_model_weight_w8a8.safetensors", "quant_model_description_w8a8.json"});
  EXPECT_NE(other.find("quant_model_weight_w8a8.safetensors and quant_model_description_w8a8.json "
                       "are here, which msModelSlim wrote of another kind"),
            std::string::npos)
      << other;
  EXPECT_NE(other.find("it reads W8A8_DYNAMIC"), std::string::npos) << other;
  const std::string parts = why({"quant_model_weights-00001-of-00002.safetensors",
                                 "quant_model_weights-00002-of-00002.safetensors",
                                 "quant_model_description.json"});
  EXPECT_NE(parts.find("2 parts of weights"), std::string::npos) << parts;
  EXPECT_NE(parts.find("fetch quant_model_weights.safetensors.index.json, too"), std::string::npos)
      << parts;
  const std::string named =
      why({"quant_model_weight_w8a16.safetensors", "quant_model_description.json"});
  EXPECT_NE(named.find("rename the file if it is these"), std::string::npos) << named;
  // One shard that the index names: the rest is no reason.
  EXPECT_EQ(why({"quant_model_weights-00001-of-00002.safetensors",
                 "quant_model_weights.safetensors.index.json",
                 "quant_model_description.json"},
                "quant_model_weights-00002-of-00002.safetensors"),
            "");
}

TEST(WrongPath, StandInsAreNoFiles) {
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4096\n";
  const std::string folder = fresh_folder("lfs");
  put(folder + "/config.json", pointer);
  put(folder + "/model.safetensors", pointer);
  EXPECT_TRUE(fails(ModelDir::open(folder), Code::kCorrupt, {"config.json", "git lfs pull"}));
  put(folder + "/config.json");
  EXPECT_TRUE(fails(ModelDir::open(folder), Code::kCorrupt, {"model.safetensors", "git lfs pull"}));
  put(folder + "/config.json", "<!DOCTYPE html>\n<html>");
  EXPECT_TRUE(fails(ModelDir::open(folder), Code::kCorrupt, {"web page"}));

  // What a file is, its bytes say, not its name.
  const std::string gguf = folder + "/model.gguf";
  for (const auto& [content, what] : {std::pair<std::string, const char*>{pointer, "git lfs pull"},
                                      {"<!DOCTYPE html>\n<html>", "web page"},
                                      {"", "is empty"},
                                      {"something else", "no GGUF file"}}) {
    put(gguf, content);
    EXPECT_TRUE(says(gguf, {what}));
    EXPECT_EQ(instead_of_model_dir(gguf).find("ferry convert"), std::string::npos) << content;
  }
  ASSERT_TRUE(remove_tree(gguf));
  ASSERT_EQ(::mkfifo(gguf.c_str(), 0600), 0);
  EXPECT_TRUE(says(gguf, {"is a pipe"}));
}

}  // namespace
}  // namespace ferry
