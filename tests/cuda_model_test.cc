// The small models on software NVIDIA: losses, gradients and logits are the CPU's, bit for bit, and a
// row is a row there too. Wants FERRY_CUDA_LIBRARIES in the environment (software NVIDIA lies in
// build/nvidia_sim).
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>

#include "device/cpu/cpu_device.h"
#include "small_model.h"

namespace ferry {
namespace {

using models::MlaForm;

Device& cuda() {
  const Result<Device*> device = open_device("cuda");
  if (!device) throw std::runtime_error(device.error().message);
  return **device;
}

class EachModel : public ::testing::TestWithParam<SmallModel> {
 protected:
  std::unique_ptr<models::TrainableLm> model_on(Device& device) const {
    return small_model(GetParam().architecture, GetParam().compute, device);
  }
};

TEST_P(EachModel, LossesGradientsAndLogitsAreTheCpusBits) {
  const auto on_cpu = model_on(cpu_device()), on_cuda = model_on(cuda());
  const Packed p = pack(small_documents(), cpu_device()), q = pack(small_documents(), cuda());
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    models::Losses expected, got;
    const auto grads = gradients(*on_cpu, p, {.mla_form = form}, &expected);
    const auto grads_there = gradients(*on_cuda, q, {.mla_form = form}, &got);
    EXPECT_EQ(bytes_of(got.token_losses), bytes_of(expected.token_losses));
    ASSERT_EQ(grads.size(), grads_there.size());
    for (const auto& [name, g] : grads)
      EXPECT_TRUE(bytes_of(grads_there.at(name)) == bytes_of(g)) << name;
    const auto logits = [&](auto& model, const Packed& packed) {
      return bytes_of(all_logits(
          *model,
          model->forward(packed.batch.tokens, packed.batch.segments, {.mla_form = form}, nullptr)));
    };
    EXPECT_TRUE(logits(on_cuda, q) == logits(on_cpu, p)) << "logits";
  }
}

TEST_P(EachModel, CachedIsTheCpusCached) {
  const auto on_cpu = model_on(cpu_device()), on_cuda = model_on(cuda());
  EXPECT_TRUE(cached_logits(*on_cuda, small_documents(), 5) ==
              cached_logits(*on_cpu, small_documents(), 5));
}

INSTANTIATE_TEST_SUITE_P(Small,
                         EachModel,
                         ::testing::ValuesIn(small_models()),
                         [](const auto& model) { return name_of(model.param); });

}  // namespace
}  // namespace ferry
