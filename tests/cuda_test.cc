// The CUDA device on software NVIDIA: what it opens and refuses, memory and copies, that each fault
// of a chip ends in a DeviceError that says which, where and what it means, and that kernels give
// the CPU's bits. Each case runs in a process of its own: the driver reads its settings once.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "device/cpu/cpu_device.h"
#include "device/cuda/cuda_device.h"
#include "device/cuda/errors.h"
#include "device_process.h"
#include "ops/add/add.h"
#include "ops/call_check.h"
#include "ops/scale/scale.h"
#include "ops/spec_check.h"
#include "tensor/tensor.h"

namespace ferry {
namespace {

using device_process::Environment;
using device_process::expect_says;
using device_process::numbers;

std::string in_process(Environment environment, const std::function<std::string()>& body) {
  environment.try_emplace("FERRY_CUDA_LIBRARIES", FERRY_NVIDIA_SIM);
  return device_process::in_process(environment, body);
}

CudaDevice& device() {
  const Result<CudaDevice*> opened = CudaDevice::open(0);
  if (!opened) throw DeviceError("cuda:0", -1, opened.error().message);
  return **opened;
}

std::string work() { return device_process::work(device()); }

// --- opening -----------------------------------------------------------------------------------

TEST(CudaOpen, SaysThatItIsSoftware) {
  const std::string said = in_process({}, [] { return device().describe(); });
  EXPECT_EQ(said.rfind("software NVIDIA", 0), 0u) << said;
  expect_says(said, {"cuda:0", "sm_90", "2.00 GiB"});
}

TEST(CudaOpen, NamesWhatIsNotThere) {
  const auto open = [](const char* name) {
    return [name]() -> std::string {
      const Result<Device*> d = open_device(name);
      return d ? "opened" : d.error().message;
    };
  };
  expect_says(in_process({{"FERRY_CUDA_LIBRARIES", "/nowhere"}}, open("cuda")),
              {"no NVIDIA device: libcuda.so.1 not found", "/nowhere", "FERRY_CUDA_LIBRARIES"});
  expect_says(in_process({{"FERRY_NVIDIA_SIM_DEVICES", "0"}}, open("cuda")),
              {"no NVIDIA device: cuInit: 100 NO_DEVICE"});
  expect_says(in_process({}, open("cuda:7")), {"cuda:7", "this machine has 1"});
  expect_says(in_process({}, open("cuda:x")), {"a number"});
  EXPECT_EQ(in_process({{"FERRY_NVIDIA_SIM_DEVICES", "2"}}, open("cuda:1")), "opened");
  expect_says(in_process({{"FERRY_CUDA_REPLAY", "yes"}}, open("cuda")), {"must be 0 or 1"});
  expect_says(in_process({{"FERRY_CUDA_TIMEOUT_S", "-1"}}, open("cuda")), {"must be seconds"});
}

TEST(CudaOpen, TwoAreUsedInTurns) {
  const auto use = [](Device& d) {
    const std::vector<float> v = numbers(1000);
    return Tensor::from_f32(v, {1000}, d).to_f32() == v;
  };
  EXPECT_EQ(in_process({{"FERRY_NVIDIA_SIM_DEVICES", "2"}},
                       [use] {
                         Device& first = *open_device("cuda:0").value();
                         bool right = use(first);
                         Device& second = *open_device("cuda:1").value();
                         right = use(first) && right;  // opening another binds nobody for good
                         right = use(second) && right;
                         right = use(first) && right;
                         return std::string(right ? "right" : "wrong");
                       }),
            "right");
}

TEST(CudaOpen, AnOpWithoutAKernelIsNamed) {
  const std::string said = in_process({}, [] {
    for (const ops::OpSpec& spec : ops::all_op_specs())
      if (spec.op == "quantized_linear") ops::check_case(spec.cases[0], device());
    return std::string("done");
  });
  expect_says(said, {"quantized_linear", "no kernel for cuda:0", "no CUDA kernel in this version"});
}

// --- memory and copies -------------------------------------------------------------------------

TEST(CudaMemory, CopiesGoThereAndBack) {
  EXPECT_EQ(in_process({},
                       [] {
                         Device& d = device();
                         const std::vector<float> v =
                             numbers(3'000'000);  // more than the staging buffers hold
                         Tensor t = Tensor::from_f32(v, {3000, 1000}, d);
                         if (t.to_f32() != v) return std::string("other numbers came back");
                         const Tensor copy = Tensor::zeros(t.shape(), t.dtype(), d);
                         d.copy(copy.data(), t.data(), t.bytes());
                         t = {};
                         if (copy.to_f32() != v) return std::string("the copy has other numbers");
                         const std::vector<float> part =
                             copy.slice(1, 3, 5).slice(0, 7, 9).to_f32();
                         if (part != std::vector<float>{7003, 7004, 8003, 8004})
                           return std::string("slice");
                         d.fill_zero(copy.data(), copy.bytes());
                         for (const float f : copy.to_f32())
                           if (f != 0) return std::string("not zero");
                         return std::string("good");
                       }),
            "good");
}

// A step uploads some small arrays for each micro-batch; none of them may wait for the chip.
TEST(CudaMemory, SmallUploadsDoNotWaitAndLargeOnesArriveWhole) {
  EXPECT_EQ(
      in_process({},
                 [] {
                   Device& d = device();
                   std::vector<Tensor> sent;
                   const uint64_t waits = d.stream().waits();
                   for (int i = 0; i < 100; ++i)
                     sent.push_back(Tensor::from_i32(std::vector<int32_t>(1000, i), {1000}, d));
                   if (d.stream().waits() != waits) return std::string("waited");
                   for (int i = 0; i < 100; ++i)
                     if (sent[static_cast<size_t>(i)].to_i32() != std::vector<int32_t>(1000, i))
                       return std::string("altered");
                   std::vector<float> large(5000001);  // more than the ring holds
                   std::iota(large.begin(), large.end(), 1.0f);
                   const Tensor t = Tensor::from_f32(large, {5000001}, d);
                   return std::string(t.to_f32() == large ? "right" : "a large one was altered");
                 }),
      "right");
}

TEST(CudaMemory, WhatWasFreedIsThereAgainAndWhatIsNotIsADeviceError) {
  EXPECT_EQ(in_process({{"FERRY_NVIDIA_SIM_MEMORY", "67108864"}},
                       [] {
                         CudaDevice& d = device();
                         for (int i = 0; i < 8; ++i) Tensor::zeros({10 << 20}, DType::kF32, d);
                         const MemoryUse use = d.memory_use();
                         return fmt::format("{} live, peak {}", use.live_bytes, use.peak_bytes);
                       }),
            "0 live, peak 41943040");
  const std::string said = in_process({{"FERRY_NVIDIA_SIM_MEMORY", "67108864"}}, [] {
    Tensor::zeros({1 << 20, 100}, DType::kF32, device());
    return std::string("fits");
  });
  expect_says(said, {"DeviceError 2 |", "out of memory", "asking for 400", "cuda:0"});
}

// --- faults ------------------------------------------------------------------------------------

TEST(CudaFaults, WithoutAFaultTheWorkIsDone) {
  EXPECT_EQ(in_process({}, work), "sum of one row 15");
  EXPECT_EQ(in_process({{"FERRY_CUDA_REPLAY", "1"}}, work), "sum of one row 15");
}

TEST(CudaFaults, EachEndsInADeviceErrorThatNamesItsCodeItsMeaningAndTheOps) {
  for (const int code : {214, 220, 700, 702, 716, 719, 999}) {
    const std::string said =
        in_process({{"FERRY_NVIDIA_SIM_FAULT", fmt::format("{}@7:scale_f32", code)}}, work);
    expect_says(said,
                {fmt::format("DeviceError {} |", code),
                 cuda::meaning_of(code)->name,
                 cuda::meaning_of(code)->text,
                 "scale (scale_f32)",
                 "cuda:0"});
  }
}

TEST(CudaFaults, ReplayNamesTheOneOp) {
  const Environment fault = {{"FERRY_NVIDIA_SIM_FAULT", "700@7:scale_f32"}};
  expect_says(in_process(fault, work), {"one of launches", "add (add_f32)", "scale (scale_f32)"});
  Environment replay = fault;
  replay["FERRY_CUDA_REPLAY"] = "1";
  expect_says(in_process(replay, work), {"DeviceError 700 | scale (scale_f32) | cuda:0"});
}

TEST(CudaFaults, AHangEndsByTheTimeout) {
  const std::string said = in_process(
      {{"FERRY_NVIDIA_SIM_FAULT", "hang@7:scale_f32"}, {"FERRY_CUDA_TIMEOUT_S", "0.3"}}, work);
  expect_says(said, {"DeviceError 702", "nothing ended for", "scale (scale_f32)"});
}

TEST(CudaErrors, EveryCodeHasWordsAndUnknownOnesAreSaidToBe) {
  expect_says(cuda::describe_code(214), {"214", "ECC_UNCORRECTABLE", "bits"});
  expect_says(cuda::describe_code(12345), {"12345", "does not know"});
}

// --- bits --------------------------------------------------------------------------------------

/// Launches each call again on the CPU with the same inputs; counts, and says where bits differ.
class CompareWithCpu final : public ops::Observer {
 public:
  void before(const ops::OpCall& call) override {
    copies_.clear();
    for (const ops::NamedView& in : call.inputs) copies_[in.name] = bytes_of(call, in.view);
  }

  void after(const ops::OpCall& call) override {
    Device& cpu = cpu_device();
    std::map<std::string, Tensor> memory;
    call.relaunch(cpu, [&](const char* name, const View& view) {
      Tensor& t = memory[name];
      if (!t.defined()) {
        const auto copy = copies_.find(name);
        const std::vector<char> bytes = copy != copies_.end() ? copy->second : bytes_of(call, view);
        t = Tensor::empty({static_cast<int64_t>(bytes.size())}, DType::kU8, cpu);
        if (!bytes.empty()) std::memcpy(t.data(), bytes.data(), bytes.size());
      }
      View there = view;
      there.data = t.data();
      return there;
    });
    for (const ops::NamedView& out : call.outputs) {
      const std::vector<char> device = bytes_of(call, out.view);
      const char* const expected = static_cast<const char*>(memory[out.name].data());
      const size_t size = size_of(out.view.dtype);
      ops::for_each_element(out.view, [&](int64_t at, int64_t nth) {
        const size_t place = static_cast<size_t>(at) * size;
        if (same(out.view.dtype, device.data() + place, expected + place)) return;
        if (differences_++ == 0) first_ = fmt::format("{}: {}: element {}", call.op, out.name, nth);
      });
      ++compared_;
    }
  }

  int64_t compared() const { return compared_; }
  int64_t differences() const { return differences_; }
  const std::string& first() const { return first_; }

 private:
  /// Equal bits; or NaN both, whose payloads are no part of the numerics.
  static bool same(DType dtype, const char* a, const char* b) {
    if (std::memcmp(a, b, size_of(dtype)) == 0) return true;
    const auto is_nan = [&](const char* x) {
      uint32_t bits = 0;
      const size_t size = size_of(dtype);
      std::memcpy(reinterpret_cast<char*>(&bits) + (4 - size), x, size);  // bf16: the upper half
      return (bits & 0x7FFFFFFF) > 0x7F800000;
    };
    return (dtype == DType::kF32 || dtype == DType::kBF16) && is_nan(a) && is_nan(b);
  }

  static std::vector<char> bytes_of(const ops::OpCall& call, const View& view) {
    const ops::Extent extent = ops::extent_of(view);
    std::vector<char> out(extent.bytes);
    call.device.copy_to_host(out.data(), extent.begin, extent.bytes);
    return out;
  }

  std::map<std::string, std::vector<char>> copies_;
  int64_t compared_ = 0, differences_ = 0;
  std::string first_;
};

// The orders and roundings of docs/numerics.md, on both devices, forward and backward. Not the NaN
// in special cases, whose payloads are no part of the numerics.
TEST(CudaBits, AreTheCpus) {
  const std::string said = in_process({}, [] {
    std::string all;
    for (const ops::OpSpec& spec : ops::all_op_specs()) {
      if (spec.kernels.empty() || !ops::has_kernel(spec.kernels[0], DeviceKind::kCuda)) continue;
      CompareWithCpu compare;
      for (const ops::OpCase& c : spec.cases) {
        if (c.benchmark || !ops::can_run(c, DeviceKind::kCuda)) continue;
        std::vector<Tensor> inputs = ops::make_inputs(c, device(), 1);
        std::vector<Tensor> cotangents;
        if (ops::has_gradient(c)) cotangents = ops::make_cotangents(c, c.run(inputs), 1);
        const ops::Observing observing(compare);
        if (ops::has_gradient(c))
          ops::run_with_gradients(c, inputs, cotangents);
        else
          c.run(inputs);
      }
      if (compare.compared() == 0) all += spec.op + ": nothing compared; ";
      if (compare.differences() > 0)
        all += fmt::format("{} ({} elements); ", compare.first(), compare.differences());
    }
    return all;
  });
  EXPECT_EQ(said, "");
}

}  // namespace
}  // namespace ferry
