// The Ascend device on software Ascend: what it opens and refuses, memory and copies, and that each
// fault of a chip ends in a DeviceError that says which, where and what it means. Each case runs in
// a process of its own: the libraries read their settings once.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "device/ascend/ascend_device.h"
#include "device/ascend/chips.h"
#include "device/ascend/errors.h"
#include "device_process.h"
#include "ops/add/add.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/scale/scale.h"
#include "tensor/tensor.h"

namespace ferry {
namespace {

namespace fs = std::filesystem;
using device_process::Environment;
using device_process::expect_says;
using device_process::numbers;

std::string in_process(Environment environment, const std::function<std::string()>& body) {
  environment.try_emplace("FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM);
  return device_process::in_process(environment, body);
}

AscendDevice& device() {
  const Result<AscendDevice*> opened = AscendDevice::open(0);
  if (!opened) throw DeviceError("ascend:0", -1, opened.error().message);
  return **opened;
}

std::string work() { return device_process::work(device()); }

// --- opening -----------------------------------------------------------------------------------

TEST(AscendOpen, SaysThatItIsSoftware) {
  const std::string said = in_process({}, [] { return device().describe(); });
  EXPECT_EQ(said.rfind("software Ascend", 0), 0u) << said;
  expect_says(said, {"ascend:0", "Ascend910B1"});
}

TEST(AscendOpen, NamesWhatIsNotThere) {
  const auto open = [](const char* name) {
    return [name]() -> std::string {
      const Result<Device*> d = open_device(name);
      return d ? "opened" : d.error().message;
    };
  };
  expect_says(in_process({{"FERRY_ASCEND_LIBRARIES", "/nowhere"}}, open("ascend")),
              {"no Ascend here: libascendcl.so not found",
               "/nowhere",
               "FERRY_ASCEND_LIBRARIES",
               "docs/ascend.md"});
  expect_says(in_process({}, open("ascend:7")), {"ascend:7", "this machine has 1"});
  expect_says(in_process({}, open("ascend:x")), {"a number"});
  EXPECT_EQ(in_process({{"FERRY_ASCEND_SIM_DEVICES", "2"}}, open("ascend:1")), "opened");
  expect_says(in_process({{"FERRY_ASCEND_REPLAY", "yes"}}, open("ascend")), {"must be 0 or 1"});
}

TEST(AscendOpen, HalfAnInstallationIsSaidPlainly) {
  std::string name = (fs::temp_directory_path() / "ferry-ascend-XXXXXX").string();
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  fs::copy(fs::path(FERRY_ASCEND_SIM) / "libascendcl.so", fs::path(name) / "libascendcl.so");
  const auto open = [&]() -> std::string {
    const auto library = acl::open_library_in(name);
    return library ? "opened" : library.error().message;
  };
  expect_says(in_process({}, open), {"half of CANN is installed", "libnnopbase.so"});
  // Libraries of the right name without the functions.
  Dl_info other{};
  ASSERT_NE(::dladdr(reinterpret_cast<void*>(&::dlsym), &other), 0);
  fs::copy(other.dli_fname, fs::path(name) / "libnnopbase.so");
  fs::copy(other.dli_fname, fs::path(name) / "libopapi.so");
  expect_says(in_process({}, open), {"lacks what Ferry needs", "aclCreateTensor"});
  fs::remove_all(name);
}

TEST(AscendOpen, RefusesChipsByName) {
  const auto open = [](const char* chip) {
    return in_process({{"FERRY_ASCEND_SIM_CHIP", chip}}, []() -> std::string {
      const Result<Device*> d = open_device("ascend:0");
      return d ? (*d)->describe() : d.error().message;
    });
  };
  for (const char* chip : {"Ascend910B2", "Ascend910B3", "Ascend910B4", "Ascend910_9391"})
    expect_says(open(chip), {"software Ascend", chip});
  expect_says(open("Ascend310P3"), {"Ascend310P3", "310P", "bfloat16", "910B"});
  expect_says(open("Ascend950PR_9599"), {"Ascend950PR_9599", "950", "910B"});
}

TEST(AscendChips, TheLongestPrefixDecides) {
  EXPECT_EQ(acl::find_chip("Ascend910B4-1")->refused, nullptr);
  EXPECT_NE(acl::find_chip("Ascend910A")->refused, nullptr);
  EXPECT_NE(acl::find_chip("Ascend910B")->refused, nullptr);  // the first 910's name too
  EXPECT_EQ(acl::find_chip("H100"), nullptr);
  EXPECT_NEAR(acl::find_chip("Ascend910B1")->tflops_bf16(), 364, 1);
}

// --- memory and copies -------------------------------------------------------------------------

TEST(AscendMemory, CopiesGoThereAndBack) {
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
TEST(AscendMemory, SmallUploadsDoNotWaitAndLargeOnesArriveWhole) {
  EXPECT_EQ(
      in_process({},
                 [] {
                   Device& d = **open_device("ascend:0");
                   std::vector<Tensor> sent;
                   const uint64_t waits = d.stream().waits();
                   for (int i = 0; i < 100; ++i)
                     sent.push_back(Tensor::from_i32(std::vector<int32_t>(1000, i), {1000}, d));
                   if (d.stream().waits() != waits) return std::string("waited");
                   for (int i = 0; i < 100; ++i)
                     if (sent[static_cast<size_t>(i)].to_i32() != std::vector<int32_t>(1000, i))
                       return std::string("altered");
                   sent.clear();
                   for (int i = 0; i < 300; ++i)  // more than the ring remembers
                     sent.push_back(Tensor::from_i32(std::vector<int32_t>(10, i), {10}, d));
                   for (int i = 0; i < 300; ++i)
                     if (sent[static_cast<size_t>(i)].to_i32() != std::vector<int32_t>(10, i))
                       return std::string("one of many was altered");
                   for (int round = 0; round < 3; ++round) {  // each more than the ring holds
                     std::vector<float> large(5000001 + static_cast<size_t>(round));
                     std::iota(large.begin(), large.end(), static_cast<float>(round));
                     const Tensor t =
                         Tensor::from_f32(large, {static_cast<int64_t>(large.size())}, d);
                     if (t.to_f32() != large) return std::string("a large one was altered");
                   }
                   return std::string("right");
                 }),
      "right");
}

TEST(AscendMemory, IsReusedInStreamOrderAndGivenBackWhenTheChipIsFull) {
  EXPECT_EQ(in_process({{"FERRY_ASCEND_SIM_MEMORY", "67108864"}},
                       [] {
                         AscendDevice& d = device();
                         void* const first = d.allocate(1 << 20);
                         d.deallocate(first, 1 << 20);
                         void* const again = d.allocate(1 << 20);
                         if (again != first) return std::string("not reused");
                         d.deallocate(again, 1 << 20);
                         // 40 MiB beside the cached one, then 50: only if the 40 go back first.
                         d.deallocate(d.allocate(40 << 20), 40 << 20);
                         void* const large = d.allocate(50 << 20);
                         d.deallocate(large, 50 << 20);
                         return std::string("good");
                       }),
            "good");
}

TEST(AscendMemory, OutOfMemoryIsADeviceError) {
  const std::string said = in_process({{"FERRY_ASCEND_SIM_MEMORY", "67108864"}}, [] {
    Tensor::zeros({1 << 20, 100}, DType::kF32, device());
    return std::string("fits");
  });
  expect_says(said, {"DeviceError 207", "out of memory", "asking for 416", "ascend:0"});
}

// --- faults ------------------------------------------------------------------------------------

TEST(AscendFaults, WithoutAFaultTheWorkIsDone) {
  EXPECT_EQ(in_process({}, work), "sum of one row 15");
  EXPECT_EQ(in_process({{"FERRY_ASCEND_REPLAY", "1"}}, work), "sum of one row 15");
}

TEST(AscendFaults, EachEndsInADeviceErrorThatNamesItsCodeItsMeaningAndTheOps) {
  for (const int code : {507000,
                         507010,
                         507011,
                         507014,
                         507015,
                         507016,
                         507017,
                         507018,
                         507034,
                         507035,
                         507053,
                         507054,
                         507055,
                         507056,
                         507899}) {
    const std::string said =
        in_process({{"FERRY_ASCEND_SIM_FAULT", fmt::format("{}@7:Muls", code)}}, work);
    expect_says(said,
                {fmt::format("DeviceError {} |", code),
                 acl::meaning_of(code)->name,
                 acl::meaning_of(code)->text,
                 "scale (aclnnMuls)",
                 "ascend:0"});
  }
}

TEST(AscendFaults, ReplayNamesTheOneOp) {
  const Environment fault = {{"FERRY_ASCEND_SIM_FAULT", "507035@7:Muls"}};
  expect_says(in_process(fault, work), {"one of launches", "add (aclnnAdd)", "scale (aclnnMuls)"});
  Environment replay = fault;
  replay["FERRY_ASCEND_REPLAY"] = "1";
  expect_says(in_process(replay, work), {"DeviceError 507035 | scale (aclnnMuls) | ascend:0"});
}

TEST(AscendFaults, AHangEndsByTheTimeout) {
  const auto start = std::chrono::steady_clock::now();
  const std::string said = in_process(
      {{"FERRY_ASCEND_SIM_FAULT", "507046@7:Muls"}, {"FERRY_ASCEND_TIMEOUT_S", "0.5"}}, work);
  expect_says(said, {"DeviceError 507046", "hangs", "scale (aclnnMuls)"});
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(AscendFaults, OutOfMemoryAtAMallocIsSaid) {
  expect_says(in_process({{"FERRY_ASCEND_SIM_FAULT", "207001@1"}}, work),
              {"DeviceError 207001", "out of memory"});
}

TEST(AscendFaults, WhatAnOpRefusesIsSaidInItsOwnWords) {
  const std::string said = in_process({}, [] {
    Device& d = device();
    const Tensor x = Tensor::zeros({4, 8}, DType::kBF16, d);
    // Shapes are checked above the kernels: this goes past them.
    const Weight weight{
        .name = "w", .global_shape = {8}, .shard = {}, .value = Tensor::zeros({8}, DType::kF64, d)};
    ops::rms_norm(x, weight, 1e-6f);
    d.stream().synchronize();
    return std::string("done");
  });
  expect_says(said, {"DeviceError 161002", "rms_norm (aclnnRmsNorm)", "refuses"});
}

TEST(AscendErrors, EveryCodeHasWordsAndUnknownOnesAreSaidToBe) {
  expect_says(acl::describe_code(507054), {"507054", "HBM_MULTI_BIT_ECC_ERROR", "bits"});
  expect_says(acl::describe_code(999), {"999", "does not know"});
}

}  // namespace
}  // namespace ferry
