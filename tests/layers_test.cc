// Who may include whom (ARCHITECTURE.md), checked on the whole tree; and each rule on a breach of
// it.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "source_rules.h"

namespace ferry::rules {
namespace {

const std::vector<SourceFile>& tree() {
  static const std::vector<SourceFile> files = read_sources(FERRY_SOURCE_DIR);
  return files;
}

std::string file(const std::string& name) {
  std::ifstream in(FERRY_SOURCE_DIR "/" + name, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

const Layers& layers() {
  static const Layers table = layers_of_build(file("CMakeLists.txt"));
  return table;
}

std::vector<Violation> check_layers(const std::vector<SourceFile>& files) {
  return check_layers(files, layers());
}

TEST(Layers, TheDocumentSaysWhatTheBuildDoes) {
  Layers told = layers_of_document(file("ARCHITECTURE.md")), linked = layers();
  ASSERT_GT(linked.size(), 15u) << "found too few folders in CMakeLists.txt";
  EXPECT_EQ(told["cli"], std::vector<std::string>{"everything"});
  EXPECT_EQ(visible_from(linked, "cli").size(), linked.size());
  told.erase("cli");
  linked.erase("cli");
  EXPECT_EQ(told, linked);
  // What differs is seen: a folder that is not there, and one more below another.
  EXPECT_EQ(layers_of_document("x\n## Who may include whom\n\n    ops: a b   c: d\n\n## Next\n"),
            (Layers{{"base", {}}, {"ops", {"a", "b"}}, {"c", {"d"}}}));
  EXPECT_EQ(layers_of_build("ferry_module(a   DEPS)\n  ferry_program(x b DEPS a c)  # why\n"),
            (Layers{{"a", {}}, {"b", {"a", "c"}}}));
}

TEST(Layers, TheTreeIsRead) {
  ASSERT_GT(tree().size(), 100u) << "found too few sources under " << FERRY_SOURCE_DIR;
}
TEST(Layers, IncludesGoDownOnly) { EXPECT_EQ(describe(check_layers(tree())), ""); }
TEST(Layers, NoFileIncludesItself) { EXPECT_EQ(describe(check_cycles(tree())), ""); }
TEST(Layers, LibrariesStayInTheirFolders) { EXPECT_EQ(describe(check_libraries(tree())), ""); }

/// How many breaches there are when `path` includes `include` and both exist.
size_t layer_breaches(const std::string& path, const std::string& include) {
  return check_layers({{path, "#include \"" + include + "\"\n"}, {"src/" + include, ""}}).size();
}

TEST(LayerRules, DownIsAllowedAndUpIsNot) {
  EXPECT_EQ(layer_breaches("src/ops/add/add.cc", "base/check.h"), 0u);
  EXPECT_EQ(layer_breaches("src/ops/add/add.cc", "comm/group.h"), 0u);
  EXPECT_EQ(layer_breaches("src/train/step.cc", "text/tokenizer.h"), 0u);
  EXPECT_EQ(layer_breaches("src/cli/main.cc", "train/step.h"), 0u);
  EXPECT_EQ(layer_breaches("src/base/check.cc", "device/device.h"), 1u);
  EXPECT_EQ(layer_breaches("src/tensor/tensor.cc", "ops/spec.h"), 1u);
  EXPECT_EQ(layer_breaches("src/text/tokenizer.cc", "tensor/tensor.h"), 1u);
  EXPECT_EQ(layer_breaches("src/models/registry.cc", "checkpoint/model_dir.h"), 1u);
  EXPECT_EQ(layer_breaches("src/optim/adamw.cc", "models/causal_lm.h"), 1u);
}

TEST(LayerRules, TrainAndEngineNeverSeeEachOther) {
  EXPECT_EQ(layer_breaches("src/train/step.cc", "engine/sampler.h"), 1u);
  EXPECT_EQ(layer_breaches("src/engine/sampler.cc", "train/step.h"), 1u);
  EXPECT_EQ(layer_breaches("src/serve/http.cc", "train/step.h"), 1u);
  EXPECT_EQ(layer_breaches("src/rl/rollout.cc", "train/step.h"), 0u);
}

TEST(LayerRules, SimulatorsShareNothing) {
  EXPECT_EQ(layer_breaches("ascend_sim/acl.cc", "base/check.h"), 1u);
  EXPECT_EQ(
      check_layers({{"src/device/ascend/a.cc", "#include \"acl.h\"\n"}, {"ascend_sim/acl.h", ""}})
          .size(),
      1u);
  EXPECT_EQ(check_layers({{"src/device/ascend/a.cc", "#include \"../ascend_sim/acl.h\"\n"},
                          {"ascend_sim/acl.h", ""}})
                .size(),
            1u);
  EXPECT_EQ(
      check_layers({{"tests/a.cc", "#include \"../ascend_sim/acl.h\"\n"}, {"ascend_sim/acl.h", ""}})
          .size(),
      1u);
  EXPECT_EQ(check_layers({{"ascend_sim/nnopbase/op.cc", "#include \"runtime/stream.h\"\n"},
                          {"ascend_sim/runtime/stream.h", ""}})
                .size(),
            0u);
  EXPECT_EQ(
      check_layers({{"ascend_sim/a.cc", "#include \"b.h\"\n"}, {"ascend_sim/b.h", ""}}).size(), 0u);
  EXPECT_EQ(layer_breaches("nvidia_sim/exec/warp.cc", "base/check.h"), 1u);
  EXPECT_EQ(
      check_layers({{"nvidia_sim/a.cc", "#include \"b.h\"\n"}, {"nvidia_sim/b.h", ""}}).size(), 0u);
  EXPECT_EQ(
      check_layers({{"nvidia_sim/a.cc", "#include \"b.h\"\n"}, {"ascend_sim/b.h", ""}}).size(), 1u);
}

TEST(LayerRules, UnknownFoldersAndFilesAreReported) {
  EXPECT_EQ(check_layers({{"src/misc/a.cc", ""}}).size(), 1u);
  EXPECT_EQ(check_layers({{"src/base/a.cc", "#include \"base/absent.h\"\n"}}).size(), 1u);
}

TEST(LayerRules, CyclesAreFound) {
  const std::vector<SourceFile> round = {{"src/base/a.h", "#include \"base/b.h\"\n"},
                                         {"src/base/b.h", "  #  include \"base/c.h\"\n"},
                                         {"src/base/c.h", "#include \"base/a.h\"\n"}};
  ASSERT_EQ(check_cycles(round).size(), 1u);
  EXPECT_NE(check_cycles(round)[0].what.find(
                "src/base/a.h -> src/base/b.h -> src/base/c.h -> src/base/a.h"),
            std::string::npos);
  EXPECT_EQ(check_cycles({round[0], round[1], {"src/base/c.h", ""}}).size(), 0u);
}

size_t library_breaches(const std::string& path, const std::string& header) {
  return check_libraries({{path, "// x\n#include <" + header + ">\n"}}).size();
}

TEST(LayerRules, LibrariesHaveTheirPlaces) {
  EXPECT_EQ(library_breaches("src/ops/add/add.cc", "cuda_runtime.h"), 1u);
  EXPECT_EQ(library_breaches("src/ops/add/add_cuda.cu", "cuda_runtime.h"), 0u);
  EXPECT_EQ(library_breaches("src/ops/add/add.cc", "acl/acl.h"), 1u);
  EXPECT_EQ(library_breaches("src/ops/add/add_ascend.cc", "aclnnop/aclnn_add.h"), 0u);
  EXPECT_EQ(library_breaches("src/device/cuda/cuda_device.cc", "acl/acl.h"), 1u);
  EXPECT_EQ(library_breaches("src/ops/add/add.cc", "immintrin.h"), 1u);
  EXPECT_EQ(library_breaches("src/ops/add/add_cpu.cc", "immintrin.h"), 0u);
  EXPECT_EQ(library_breaches("src/models/registry.h", "nlohmann/json.hpp"), 1u);
  EXPECT_EQ(library_breaches("src/models/registry.h", "nlohmann/json_fwd.hpp"), 0u);
  EXPECT_EQ(library_breaches("src/train/step.cc", "CLI/CLI.hpp"), 1u);
  EXPECT_EQ(library_breaches("src/train/step.cc", "thread"), 1u);
  EXPECT_EQ(library_breaches("src/train/step.cc", "chrono"), 1u);
  EXPECT_EQ(library_breaches("src/data/shard.cc", "fstream"), 1u);
  EXPECT_EQ(library_breaches("src/data/shard.cc", "vector"), 0u);
  EXPECT_EQ(library_breaches("src/ops/add/add_cpu.cc", "cmath"), 1u);
  EXPECT_EQ(library_breaches("src/ops/add/add_reference.cc", "cmath"), 0u);
}

}  // namespace
}  // namespace ferry::rules
