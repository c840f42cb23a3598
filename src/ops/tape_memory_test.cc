// What a tape keeps until the gradients are computed: what they need, and no copy of what a cheap
// op can make again.
#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "base/check.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"
#include "ops/linear/linear.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/swiglu/swiglu.h"
#include "ops/test_support.h"

namespace ferry::ops {
namespace {

constexpr int64_t kTokens = 512, kWidth = 64;
constexpr size_t kActivation = kTokens * kWidth * sizeof(float);

Weight weight(const Shape& shape, uint64_t stream) {
  Weight w;
  w.name = "w";
  w.global_shape = shape;
  w.value = normal(shape, DType::kF32, stream);
  w.value.set_needs_grad(true);
  return w;
}

size_t live_bytes() { return cpu_device().memory_use().live_bytes; }

class TapeMemory : public ::testing::Test {
 protected:
  Tape tape_{&accumulate};
  const Tensor x_ = normal({kTokens, kWidth}, DType::kF32, 1);
};

TEST_F(TapeMemory, AnOutputIsNotHeldForItsName) {
  const Weight w = weight({kWidth, kWidth}, 2);
  const size_t before = live_bytes();
  Tensor sum;
  {
    const Tape::Recording recording(&tape_);
    sum = add(x_, linear(x_, w));  // nothing needs the values of linear's output
  }
  EXPECT_LT(live_bytes() - before, kActivation + kActivation / 2);
  tape_.backward(sum, normal({kTokens, kWidth}, DType::kF32, 3));
  EXPECT_TRUE(tape_.grad(w.value).defined());
}

TEST_F(TapeMemory, WhatIsMadeAgainGivesTheGradientsThatKeepingGives) {
  const Weight norm = weight({kWidth}, 4), gate = weight({kWidth, kWidth}, 5),
               up = weight({kWidth, kWidth}, 6), down = weight({kWidth, kWidth}, 7);
  const Tensor d = normal({kTokens, kWidth}, DType::kF32, 8);
  std::vector<std::vector<float>> gradients[2];
  for (const bool again : {false, true}) {
    const size_t before = live_bytes();
    Tensor y;
    {
      const Tape::Recording recording(&tape_);
      const auto kept = [&](Tensor t) {
        if (!again) t.set_again({});
        return t;
      };
      const Tensor n = kept(rms_norm(x_, norm, 1e-6F));
      y = linear(kept(swiglu(linear(n, gate), linear(n, up, {.keep = !again}))), down);
    }
    // Kept: n, gate, up, their product, y. Made again: all but gate, up (swiglu's own) and y.
    const size_t most = (again ? 3 : 5) * kActivation;
    EXPECT_LT(live_bytes() - before, most + kActivation / 2) << again;
    EXPECT_GT(live_bytes() - before, most - kActivation / 2) << again;
    tape_.backward(y, d);
    for (const Weight* w : {&norm, &gate, &up, &down})
      gradients[again].push_back(tape_.grad(w->value).to_f32());
    tape_.clear_grads();
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

TEST_F(TapeMemory, ReadingWhatWasNotKeptIsAnError) {
  EXPECT_THROW(x_.without_memory().to_f32(), Bug);
}

}  // namespace
}  // namespace ferry::ops
