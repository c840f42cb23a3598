// Experts are found in the tensors that hold a layer's together, and in no others.
#include "checkpoint/fused_experts.h"

#include <algorithm>

#include "checkpoint/test_support.h"

namespace ferry {
namespace {

TEST(FusedExperts, LieOneBehindTheOtherGateBeforeUp) {
  const auto both = experts_in({.name = "model.layers.3.mlp.experts.gate_up_proj",
                                .dtype = DType::kBF16,
                                .shape = {2, 6, 5},
                                .begin = 1000,
                                .end = 1120});
  ASSERT_EQ(both.size(), 4u);
  const char* const names[] = {"0.gate_proj", "0.up_proj", "1.gate_proj", "1.up_proj"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(both[i].name, "model.layers.3.mlp.experts." + std::string(names[i]) + ".weight");
    EXPECT_EQ(both[i].shape, (Shape{3, 5}));
    EXPECT_EQ(both[i].dtype, DType::kBF16);
    EXPECT_EQ(both[i].begin, 1000 + 30 * i);
    EXPECT_EQ(both[i].end, 1030 + 30 * i);
  }
  const auto down = experts_in({.name = "model.layers.3.mlp.experts.down_proj",
                                .dtype = DType::kF32,
                                .shape = {2, 5, 3},
                                .begin = 0,
                                .end = 120});
  ASSERT_EQ(down.size(), 2u);
  EXPECT_EQ(down[1].name, "model.layers.3.mlp.experts.1.down_proj.weight");
  EXPECT_EQ(down[1].shape, (Shape{5, 3}));
  EXPECT_EQ(down[1].begin, 60u);
  EXPECT_EQ(down[1].end, 120u);
}

TEST(FusedExperts, OtherTensorsAreLeftAlone) {
  const struct {
    const char* name;
    Shape shape;
  } others[] = {{"model.layers.3.mlp.experts.0.down_proj.weight", {5, 3}},
                {"model.layers.3.mlp.experts.down_proj", {5, 3}},
                {"model.layers.3.mlp.experts.gate_up_proj", {2, 5, 3}},  // an odd number of rows
                {"model.layers.3.mlp.experts.gate_up_proj", {1000000, 2, 1}},
                {"model.layers.3.mlp.experts.down_proj", {2, 0, 3}},
                {"model.layers.3.mlp.shared_experts.down_proj", {2, 5, 3}}};
  for (const auto& o : others)
    EXPECT_TRUE(experts_in({.name = o.name, .dtype = DType::kF32, .shape = o.shape}).empty())
        << o.name << " " << o.shape.str();
}

TEST(FusedExperts, WhoStandsTwiceIsRefused) {
  const std::string path = fresh_folder("fused") + "/model";
  ModelContents c;
  c.tensors = {{"model.layers.0.mlp.experts.down_proj", random_tensor({2, 4, 3}, 1)},
               {"model.layers.0.mlp.experts.1.down_proj.weight", random_tensor({4, 3}, 2)}};
  c.texts[kConfigName] = "{}";
  ASSERT_TRUE(write_model_dir(path, c));
  const auto opened = ModelDir::open(path);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::kCorrupt);
  EXPECT_NE(opened.error().message.find("experts.1.down_proj.weight' stands by itself and in"),
            std::string::npos)
      << opened.error().message;
}

}  // namespace
}  // namespace ferry
