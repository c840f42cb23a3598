// libnnopbase.so: tensors, executors, the two phases, what every op gets from the frame (mutants,
// faults, orders of accumulation), on two small ops of its own.
#include <gtest/gtest.h>

#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "nnopbase/numbers.h"
#include "nnopbase/op.h"
#include "tests/acl_calls.h"

using namespace ascend_sim;

// out = 3 self, by way of the workspace.
ASCEND_OP(TestTriple, const aclTensor* self, const aclTensor* out) {
  return plan("TestTriple", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self), y = op.output("out", out);
    op.require_type("self", x, {ACL_FLOAT, ACL_BF16, ACL_FLOAT16});
    op.require_shape("out", y, x.shape);
    const size_t bytes = static_cast<size_t>(x.elements()) * sizeof(float);
    op.workspace(bytes);
    op.launch([=](Launch& at) {
      std::vector<float> values = load(x);
      for (float& v : values) v *= 3;
      unsigned char* scratch = at.workspace();
      for (size_t i = 0; i < bytes; ++i)
        if (scratch[i] != 0xFF)
          at.fault(code::kVectorCoreException, "the workspace is not poisoned");
      std::memcpy(scratch, values.data(), bytes);
      std::memcpy(values.data(), scratch, bytes);
      store(y, values);
    });
  });
}

// out[0] = sum of self; out[1] = the order that was given for out's number of rows.
ASCEND_REDUCES(TestSum)
ASCEND_OP(TestSum, const aclTensor* self, const aclTensor* out) {
  return plan("TestSum", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self), y = op.output("out", out);
    op.launch([=](Launch& at) {
      const std::vector<float> values = load(x);
      float sum = 0;
      for (int64_t i = 0; i < at.reduction(x.elements()); ++i)
        sum += values[static_cast<size_t>(i)];
      const float results[2] = {sum, static_cast<float>(at.order(x.elements()))};
      store(y, results);
    });
  });
}

namespace ascend_sim_test {
namespace {

using Call = int (*)(const aclTensor*, const aclTensor*, uint64_t*, aclOpExecutor**);
using Execute = int (*)(void*, uint64_t, aclOpExecutor*, void*);

aclTensor* tensor(void* data,
                  const std::vector<int64_t>& shape,
                  aclDataType dtype = ACL_FLOAT,
                  const std::vector<int64_t>& strides = {},
                  int64_t offset = 0) {
  return aclCreateTensor(shape.data(),
                         shape.size(),
                         dtype,
                         strides.empty() ? nullptr : strides.data(),
                         offset,
                         ACL_FORMAT_ND,
                         shape.data(),
                         shape.size(),
                         data);
}

/// Both phases on the default stream; the first answer that is not 0.
int call(Call first, Execute second, const aclTensor* self, const aclTensor* out) {
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  if (const int code = first(self, out, &size, &executor); code != 0) return code;
  void* workspace = size > 0 ? device_memory(size) : nullptr;
  const int code = second(workspace, size, executor, nullptr);
  return code != 0 ? code : aclrtSynchronizeStream(nullptr);
}

int triple(const aclTensor* self, const aclTensor* out) {
  return call(aclnnTestTripleGetWorkspaceSize, aclnnTestTriple, self, out);
}

int sum(const aclTensor* self, const aclTensor* out) {
  return call(aclnnTestSumGetWorkspaceSize, aclnnTestSum, self, out);
}

/// What triple makes of these values, in place of `before`.
std::vector<float> tripled(const std::vector<float>& values,
                           const std::vector<int64_t>& shape,
                           float before = -1) {
  void* from = device_floats(values);
  void* to = device_floats(std::vector<float>(values.size(), before));
  aclTensor* x = tensor(from, shape);
  aclTensor* y = tensor(to, shape);
  EXPECT_EQ(triple(x, y), 0) << last_message();
  aclDestroyTensor(x);
  aclDestroyTensor(y);
  return read_floats(to, values.size());
}

// --- numbers ------------------------------------------------------------------------------------

TEST(Numbers, EveryHalfAndBf16ComesBack) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float h = decode(Half{bits}), b = decode(Bf16{bits});
    if (!std::isnan(h)) {
      EXPECT_EQ(encode_half(h, false).bits, bits);
      EXPECT_EQ(encode_half(h, true).bits, bits);
    }
    if (!std::isnan(b)) {
      EXPECT_EQ(encode_bf16(b, false).bits, bits);
    }
  }
  EXPECT_EQ(decode(Half{0x3C00}), 1.0f);
  EXPECT_EQ(decode(Half{0x0001}), 0x1p-24f);
  EXPECT_EQ(decode(Half{0x7BFF}), 65504.0f);
}

TEST(Numbers, AreRoundedToNearestEven) {
  EXPECT_EQ(rounded(1 + 0x1p-8f, ACL_BF16), 1.0f);
  EXPECT_EQ(rounded(1 + 0x3p-8f, ACL_BF16), 1 + 0x1p-6f);
  EXPECT_EQ(rounded(1 + 0x1.01p-8f, ACL_BF16), 1 + 0x1p-7f);
  EXPECT_EQ(rounded_double(1 + 0x1p-8 + 0x1p-40, ACL_BF16), 1 + 0x1p-7f) << "rounded once";
  EXPECT_EQ(rounded(1 + 0x1p-11f, ACL_FLOAT16), 1.0f);
  EXPECT_EQ(rounded(1 + 0x3p-11f, ACL_FLOAT16), 1 + 0x1p-9f);
  EXPECT_EQ(rounded(65519.0f, ACL_FLOAT16), 65504.0f);
  EXPECT_TRUE(std::isinf(rounded(65520.0f, ACL_FLOAT16)));
  EXPECT_EQ(rounded(0x3p-26f, ACL_FLOAT16), 0x1p-24f);
  EXPECT_EQ(rounded(0x1p-25f, ACL_FLOAT16), 0.0f);
  EXPECT_TRUE(std::isnan(rounded(std::nanf(""), ACL_FLOAT16)));
  EXPECT_EQ(rounded(2.7f, ACL_INT32), 2.0f);
  EXPECT_EQ(rounded(-200.0f, ACL_INT8), -128.0f);
}

// --- views --------------------------------------------------------------------------------------

TEST(Views, OfAnyStridesAreReadAndWritten) {
  const Simulation simulation;
  void* from = device_floats({0, 1, 2, 3, 4, 5, 6, 7});
  void* to = device_floats(std::vector<float>(8, -1));
  aclTensor* x = tensor(from, {3, 2}, ACL_FLOAT, {1, 4}, 1);  // columns 1..3 of [2, 4], transposed
  aclTensor* y = tensor(to, {3, 2}, ACL_FLOAT, {2, 1}, 0);
  ASSERT_EQ(triple(x, y), 0);
  EXPECT_EQ(read_floats(to, 8), std::vector<float>({3, 15, 6, 18, 9, 21, -1, -1}));
  int64_t* strides = nullptr;
  uint64_t rank = 0;
  ASSERT_EQ(aclGetViewStrides(x, &strides, &rank), 0);
  const std::unique_ptr<int64_t[]> owner(strides);  // the caller's, by the interface
  EXPECT_EQ(std::vector<int64_t>(strides, strides + rank), std::vector<int64_t>({1, 4}));
  aclTensor* z = tensor(to, {2, 3}, ACL_FLOAT, {1, 2}, 2);
  aclTensor* twos = tensor(from, {2, 3}, ACL_FLOAT, {0, 0}, 2);
  ASSERT_EQ(triple(twos, z), 0);
  EXPECT_EQ(read_floats(to, 8), std::vector<float>({3, 15, 6, 6, 6, 6, 6, 6}));
}

TEST(Views, Helpers) {
  Tensor t;
  t.shape = {2, 3, 4};
  t.strides = {12, 4, 1};
  EXPECT_TRUE(t.contiguous());
  EXPECT_FALSE(t.transposed(0, -1).contiguous());
  EXPECT_EQ(t.select(1, 2).offset, 8);
  EXPECT_EQ(t.select(1, 2).shape, Shape({2, 4}));
  EXPECT_EQ(t.narrow(-1, 1, 2).offset, 1);
  EXPECT_EQ(t.select(0, 0).broadcast_to({5, 3, 4})->strides, Shape({0, 4, 1}));
  EXPECT_FALSE(t.broadcast_to({2, 3, 5}).has_value());
  EXPECT_EQ(broadcast_shapes({3, 1}, {2, 1, 4}), Shape({2, 3, 4}));
  EXPECT_FALSE(broadcast_shapes({3}, {2}).has_value());
}

// --- the two phases -----------------------------------------------------------------------------

TEST(Phases, RefuseByTheDocumentedCodes) {
  const Simulation simulation;
  void* p = device_floats({1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  aclTensor* good = tensor(p, {2});
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  EXPECT_EQ(triple(nullptr, good), code::kNullptr);
  EXPECT_NE(last_message().find("self is null"), std::string::npos);
  EXPECT_EQ(aclnnTestTripleGetWorkspaceSize(good, good, nullptr, &executor), code::kNullptr);
  EXPECT_EQ(triple(tensor(nullptr, {2}), good), code::kNullptr);
  EXPECT_EQ(triple(tensor(static_cast<char*>(p) + 4, {2}), good), code::kInvalid);
  EXPECT_NE(last_message().find("not aligned to 32 bytes"), std::string::npos);
  alignas(32) float on_the_host[2] = {};
  EXPECT_EQ(triple(tensor(on_the_host, {2}), good), code::kInvalid);
  EXPECT_EQ(triple(tensor(p, {2}, ACL_INT32), good), code::kInvalid);
  EXPECT_EQ(triple(tensor(p, {3}), good), code::kInvalid);
  EXPECT_EQ(triple(tensor(p, {2}, static_cast<aclDataType>(36)), good), code::kInvalid);
  EXPECT_EQ(tensor(p, {-1}), nullptr);

  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(good, good, &size, &executor), 0);
  EXPECT_EQ(size, 8u);
  EXPECT_EQ(aclnnTestTriple(nullptr, size, executor, nullptr), code::kNullptr);
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(good, good, &size, &executor), 0);
  EXPECT_EQ(aclnnTestTriple(p, 4, executor, nullptr), code::kInvalid);
  EXPECT_EQ(aclnnTestTriple(p, 8, nullptr, nullptr), code::kExecutorNull);
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(good, good, &size, &executor), 0);
  int not_a_stream = 0;
  EXPECT_EQ(aclnnTestTriple(device_memory(8), 8, executor, &not_a_stream), code::kRuntimeError);
}

TEST(Phases, OfAChipWithoutBf16) {
  const Simulation simulation({{"CHIP", "Ascend310P3"}});
  aclTensor* x = tensor(device_memory(64), {4}, ACL_BF16);
  EXPECT_EQ(triple(x, x), code::kInvalid);
  EXPECT_NE(last_message().find("Ascend310P3 has no BFLOAT16"), std::string::npos);
}

TEST(Phases, TheSecondEndsTheExecutorAndFreesTheArguments) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Simulation simulation({{"DELAY_US", "2000"}});
  void* p = device_floats({1, 2});
  void* workspace = device_memory(8);
  aclTensor* x = tensor(p, {2});
  uint64_t size = 0;
  aclOpExecutor *used = nullptr, *early = nullptr, *other = nullptr;
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(x, x, &size, &used), 0);
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(x, x, &size, &early), 0);
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(x, x, &size, &other), 0);
  EXPECT_DEATH(aclnnTestSum(workspace, 8, other, nullptr),
               "is given an executor of aclnnTestTriple");
  ASSERT_EQ(aclnnTestTriple(workspace, 8, used, nullptr), 0);
  EXPECT_DEATH(aclnnTestTriple(workspace, 8, used, nullptr), "an executor that was used before");
  ASSERT_EQ(aclDestroyTensor(x), 0);  // phase 2 of `used` is over: its tensors may go
  EXPECT_DEATH(aclnnTestTriple(workspace, 8, early, nullptr), "destroyed before its second phase");
  EXPECT_DEATH(aclDestroyTensor(x), "what is not there");
  EXPECT_EQ(aclDestroyTensor(nullptr), 0);
  EXPECT_EQ(aclDestroyAclOpExecutor(other), 0);
  ASSERT_EQ(aclrtSynchronizeStream(nullptr), 0);
  EXPECT_EQ(read_floats(p, 2), std::vector<float>({3, 6}));
}

TEST(Phases, MemoryOfALaunchMustStay) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Simulation simulation;
  void* p = device_floats({1, 2});
  void* workspace = device_memory(8);
  aclTensor* x = tensor(p, {2});
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(x, x, &size, &executor), 0);
  ASSERT_EQ(aclnnTestTriple(workspace, 8, executor, nullptr), 0);
  EXPECT_DEATH(aclrtFree(workspace), "aclnnTestTriple.*uses, and nothing has waited");
  EXPECT_DEATH(aclrtFree(p), "aclnnTestTriple.*uses, and nothing has waited");
  ASSERT_EQ(aclrtSynchronizeStream(nullptr), 0);
  EXPECT_EQ(aclrtFree(workspace), 0);
  // A view beyond its allocation is a fault of the device, and a late one.
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(tensor(p, {64}), tensor(p, {64}), &size, &executor), 0);
  ASSERT_EQ(aclnnTestTriple(device_memory(size), size, executor, nullptr), 0);
  EXPECT_EQ(aclrtSynchronizeStream(nullptr), code::kAicoreException);
}

TEST(Phases, WorkspacesAreOverwrittenAfterTheOp) {
  const Simulation simulation;
  void* workspace = device_floats({0, 0});
  aclTensor* x = tensor(device_floats({1, 2}), {2});
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(x, x, &size, &executor), 0);
  ASSERT_EQ(aclnnTestTriple(workspace, 8, executor, nullptr), 0);
  ASSERT_EQ(aclrtSynchronizeStream(nullptr), 0);
  EXPECT_TRUE(std::isnan(read_floats(workspace, 2)[0]));
}

TEST(Phases, ListsTakeTheirMembersAlong) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Simulation simulation;
  const aclTensor* members[2] = {tensor(device_memory(8), {2}), tensor(device_memory(8), {2})};
  aclTensorList* list = aclCreateTensorList(members, 2);
  ASSERT_EQ(aclDestroyTensorList(list), 0);
  EXPECT_DEATH(aclDestroyTensor(members[1]), "what is not there");
}

// --- faults -------------------------------------------------------------------------------------

TEST(Faults, ComeAtTheirCallAndBackWithTheSameTensors) {
  const Simulation simulation({{"FAULT", "507035@2:TestTriple"}});
  aclTensor* a = tensor(device_floats({1, 2}), {2});
  aclTensor* b = tensor(device_floats({1, 2}), {2});
  EXPECT_EQ(triple(a, a), 0);
  EXPECT_EQ(sum(a, b), 0);
  EXPECT_EQ(triple(b, b), code::kVectorCoreException);
  EXPECT_EQ(triple(a, a), 0);
  EXPECT_EQ(triple(b, b), code::kVectorCoreException) << "running it again finds it again";
}

TEST(Faults, OfALinkPass) {
  const Simulation simulation({{"FAULT", "507056@1"}});
  aclTensor* a = tensor(device_floats({1, 2}), {2});
  EXPECT_EQ(triple(a, a), code::kLinkError);
  EXPECT_EQ(triple(a, a), 0);
}

TEST(Faults, OfMemoryStayWithTheirPage) {
  const Simulation simulation({{"FAULT", "507054@1:TestTriple"}});
  void* bad = device_floats(std::vector<float>(2048, 1));
  aclTensor* a = tensor(bad, {2048});
  aclTensor* b = tensor(device_floats(std::vector<float>(2048, 1)), {2048});
  EXPECT_EQ(triple(b, a), code::kHbmMultiBitEcc);
  EXPECT_EQ(triple(b, b), 0);
  EXPECT_EQ(triple(a, b), code::kHbmMultiBitEcc) << "whoever reads the page";
  struct {
    void* address;
    size_t size;
    size_t reserved[14];
  } pages[4];
  size_t count = 0;
  ASSERT_EQ(aclrtGetMemUceInfo(0, pages, 4, &count), 0);
  ASSERT_EQ(count, 1u);
  EXPECT_EQ(pages[0].size, 4096u);
  EXPECT_LE(reinterpret_cast<uintptr_t>(pages[0].address), reinterpret_cast<uintptr_t>(bad));
  ASSERT_EQ(aclrtMemUceRepair(0, pages, 1), 0);
  EXPECT_EQ(triple(a, b), 0);
}

TEST(Faults, ThatNeverEndAreGivenUp) {
  const Simulation simulation({{"FAULT", "507046@1:TestTriple"}});
  void* p = device_floats({1, 2});
  aclTensor* a = tensor(p, {2});
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(a, a, &size, &executor), 0);
  ASSERT_EQ(aclnnTestTriple(device_memory(8), 8, executor, nullptr), 0);
  EXPECT_EQ(aclrtSynchronizeStreamWithTimeout(nullptr, 20), code::kStreamSyncTimeout);
  ASSERT_EQ(aclrtDeviceTaskAbort(0, 1000), 0);
  EXPECT_EQ(triple(a, a), 0);
  EXPECT_EQ(read_floats(p, 2), std::vector<float>({3, 6}));
}

TEST(Faults, CanBeLimitedToOneProcess) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("once." + std::to_string(getpid()))).string();
  for (const bool first : {true, false}) {
    const Simulation simulation({{"FAULT", "507899@1"}, {"FAULT_ONCE", path.c_str()}});
    aclTensor* a = tensor(device_floats({1, 2}), {2});
    EXPECT_EQ(triple(a, a), first ? 507899 : 0);
    EXPECT_EQ(triple(a, a), 0);
  }
  std::filesystem::remove(path);
}

TEST(Faults, ThatStopTheContextAreFoundBehindAclnnsCode) {
  const Simulation simulation({{"FAULT", "507035@1"}});
  void* stream = make_stream();
  ASSERT_EQ(aclrtSetStreamFailureMode(stream, 1), 0);
  aclTensor* a = tensor(device_floats({1, 2}), {2});
  void* workspace = device_memory(8);
  const auto launch = [&] {
    uint64_t size = 0;
    aclOpExecutor* executor = nullptr;
    EXPECT_EQ(aclnnTestTripleGetWorkspaceSize(a, a, &size, &executor), 0);
    return aclnnTestTriple(workspace, size, executor, stream);
  };
  ASSERT_EQ(launch(), 0);
  ASSERT_EQ(aclrtSynchronizeStream(stream), code::kVectorCoreException);
  EXPECT_EQ(aclrtGetLastError(0), code::kVectorCoreException);
  EXPECT_EQ(launch(), code::kRuntimeError);
  EXPECT_NE(last_message().find("[507035] vector core exception"), std::string::npos);
  EXPECT_EQ(aclrtGetLastError(0), code::kVectorCoreException) << "the runtime's own code";
}

// --- orders -------------------------------------------------------------------------------------

/// The order that TestSum was given, for so many rows.
float order_of(int64_t rows) {
  void* to = device_memory(8);
  EXPECT_EQ(sum(tensor(device_memory(4 * static_cast<size_t>(rows)), {rows}), tensor(to, {2})), 0);
  return read_floats(to, 2)[1];
}

TEST(Orders, FollowTheLevel) {
  const Simulation simulation;
  std::set<float> drawn;
  for (int i = 0; i < 8; ++i) drawn.insert(order_of(4));
  EXPECT_GT(drawn.size(), 6u) << "level 0: another at each call";
  ASSERT_EQ(aclrtCtxSetSysParamOpt(0, 1), 0);
  EXPECT_EQ(order_of(4), order_of(4));
  EXPECT_NE(order_of(4), order_of(5)) << "level 1: by the number of rows";
  ASSERT_EQ(aclrtCtxSetSysParamOpt(0, 3), 0);
  EXPECT_EQ(order_of(4), order_of(5)) << "level 3: one";
}

TEST(Orders, IgnoreTheLevelUnderTheDefect) {
  const Simulation simulation({{"DEFECT", "determinism_ignored"}});
  ASSERT_EQ(aclrtCtxSetSysParamOpt(0, 3), 0);
  EXPECT_NE(order_of(4), order_of(4));
}

// --- mutants and defects of any op --------------------------------------------------------------

std::vector<float> numbers(size_t n) {
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(i + 1);
  return out;
}

std::vector<float> times_three(std::vector<float> values) {
  for (float& v : values) v *= 3;
  return values;
}

TEST(Mutants, OfOutputs) {
  {
    const Simulation simulation({{"MUTANT", "TestTriple:scaled"}});
    EXPECT_EQ(tripled({64}, {1}), std::vector<float>({195}));
  }
  {
    const Simulation simulation({{"MUTANT", "TestTriple:stale"}});
    EXPECT_EQ(tripled({64}, {1}), std::vector<float>({-1}));
  }
  {
    const Simulation simulation({{"MUTANT", "TestTriple:rows"}});
    EXPECT_EQ(tripled({1, 2, 3, 4, 5, 6}, {3, 2}), std::vector<float>({15, 18, 9, 12, 3, 6}));
    EXPECT_EQ(tripled({1, 2}, {1, 2}), std::vector<float>({6, 3}));
  }
  {
    const Simulation simulation({{"MUTANT", "TestTriple:tail"}});
    std::vector<float> expected = times_three(numbers(18));
    expected[16] = expected[17] = -1;
    EXPECT_EQ(tripled(numbers(18), {18}), expected);
  }
  {
    const Simulation simulation({{"MUTANT", "TestTriple:rounding"}});
    EXPECT_EQ(tripled({1 + 0x1p-12f}, {1}), std::vector<float>({3}));
  }
}

TEST(Mutants, OfSumsAndTime) {
  {
    const Simulation simulation({{"MUTANT", "TestSum:k_minus_1"}});
    void* to = device_memory(8);
    ASSERT_EQ(sum(tensor(device_floats({1, 2, 3}), {3}), tensor(to, {2})), 0);
    EXPECT_EQ(read_floats(to, 1)[0], 3.0f);
    EXPECT_EQ(tripled({1}, {1}), std::vector<float>({3})) << "another op";
  }
  {
    const Simulation simulation({{"MUTANT", "TestTriple:late_copy"}});
    void* p = device_floats({1});
    void* q = device_floats({2});
    ASSERT_EQ(triple(tensor(p, {1}), tensor(q, {1})), 0);
    EXPECT_EQ(read_floats(q, 1)[0], 2.0f);
    ASSERT_EQ(sum(tensor(p, {1}), tensor(device_memory(8), {2})), 0);
    EXPECT_EQ(read_floats(q, 1)[0], 3.0f);
  }
}

TEST(Defects, OfAnyOp) {
  {
    const Simulation simulation({{"DEFECT", "bit_flip"}});
    aclTensor* x = tensor(device_floats({1, 1, 1, 1}), {4});
    void* result = device_memory(16 * 1000);
    void* workspace = device_memory(16);
    int flips = 0;
    for (int64_t i = 0; i < 30'000; ++i) {
      uint64_t size = 0;
      aclOpExecutor* executor = nullptr;
      aclTensor* y = tensor(result, {4}, ACL_FLOAT, {1}, i % 1000 * 4);
      ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(x, y, &size, &executor), 0);
      ASSERT_EQ(aclnnTestTriple(workspace, size, executor, nullptr), 0);
      aclDestroyTensor(y);
      if (i % 1000 != 999) continue;
      ASSERT_EQ(aclrtSynchronizeStream(nullptr), 0);
      for (const float v : read_floats(result, 4000)) flips += v != 3;
    }
    EXPECT_GE(flips, 1);
    EXPECT_LE(flips, 20);
  }
  {
    const Simulation simulation({{"DEFECT", "workspace_reused_early"}});
    void* workspace = device_memory(8);
    void* p = device_floats({1, 2});
    aclTensor* x = tensor(p, {2});
    for (int i = 0; i < 2; ++i) {
      uint64_t size = 0;
      aclOpExecutor* executor = nullptr;
      ASSERT_EQ(aclnnTestTripleGetWorkspaceSize(x, x, &size, &executor), 0);
      ASSERT_EQ(aclnnTestTriple(workspace, 8, executor, nullptr), 0);
      ASSERT_EQ(aclrtSynchronizeStream(nullptr), 0);
      EXPECT_EQ(std::isnan(read_floats(p, 1)[0]), i == 1);
    }
  }
}

// --- deviations ---------------------------------------------------------------------------------

/// A file for FERRY_ASCEND_SIM_DEVIATIONS, gone with its owner.
class DeviationsFile {
 public:
  DeviationsFile() {
    std::string name = (std::filesystem::temp_directory_path() / "deviations-XXXXXX").string();
    const int file = ::mkstemp(name.data());
    EXPECT_GE(file, 0);
    ::close(file);
    path_ = name;
  }
  DeviationsFile(const DeviationsFile&) = delete;
  DeviationsFile& operator=(const DeviationsFile&) = delete;
  ~DeviationsFile() { std::filesystem::remove(path_); }
  const char* path() const { return path_.c_str(); }
  std::string text() const {
    std::ifstream in(path_);
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  std::string path_;
};

/// What is written when these values are tripled, as two rows, with this planted.
std::string deviations(const char* kind, const char* name, const std::vector<float>& values) {
  const DeviationsFile file;
  const Simulation simulation({{kind, name}, {"DEVIATIONS", file.path()}});
  tripled(values, {2, static_cast<int64_t>(values.size() / 2)}, 3);
  return file.text();
}

TEST(Deviations, AreRelativeToTheRowsLargestElement) {
  const std::string launched = "TestTriple\tFLOAT\t0\n";
  const auto planted = [](const char* mutant, const std::vector<float>& values) {
    return deviations("MUTANT", mutant, values);
  };
  EXPECT_EQ(planted("TestTriple:scaled", {1, 4, 64, 1}),
            launched + "TestTriple\tFLOAT\t0.015625\n");
  EXPECT_EQ(planted("TestTriple:rows", {1, 4, 1, 2}), launched + "TestTriple\tFLOAT\t1\n");
  EXPECT_EQ(planted("TestTriple:rows", {1, 2, 1, 2}), launched) << "equal rows";
  EXPECT_EQ(planted("TestTriple:rows", {0, 0, 1, 2}), launched + "TestTriple\tFLOAT\tinf\n");
  EXPECT_EQ(planted("TestTriple:stale", {1, 2, 1, 1}), launched + "TestTriple\tFLOAT\t0.5\n");
  EXPECT_EQ(planted("TestTriple:stale", {1, 1, 1, 1}), launched) << "that was there before";
  EXPECT_EQ(planted("TestTriple:rounding", {1, 1, 1, 1}), launched) << "nothing to round";
  EXPECT_EQ(planted("TestSum:scaled", {1, 1, 1, 1}), launched) << "of another op";
}

TEST(Deviations, OfAnUntouchedSimulationAreZero) {
  const DeviationsFile file;
  const Simulation simulation({{"DEVIATIONS", file.path()}});
  tripled({1}, {1});
  tripled({2}, {1});
  EXPECT_EQ(file.text(), "TestTriple\tFLOAT\t0\n");
}

TEST(Deviations, GrowLineByLine) {
  const DeviationsFile file;
  const Simulation simulation({{"MUTANT", "TestTriple:stale"}, {"DEVIATIONS", file.path()}});
  for (const float before : {1.5f, 2.5f, 1.5f, 0.0f}) tripled({1}, {1}, before);
  EXPECT_EQ(file.text(), "TestTriple\tFLOAT\t0\nTestTriple\tFLOAT\t0.5\nTestTriple\tFLOAT\t1\n");
}

TEST(Deviations, OfWhatLandsLateCountForTheTaskThatMeetsIt) {
  for (const bool met : {false, true}) {
    const DeviationsFile file;
    const Simulation simulation({{"MUTANT", "TestTriple:late_copy"}, {"DEVIATIONS", file.path()}});
    void* result = device_floats({2});
    ASSERT_EQ(triple(tensor(device_floats({1}), {1}), tensor(result, {1})), 0);
    void* read = met ? result : device_floats({5});
    ASSERT_EQ(sum(tensor(read, {1}), tensor(device_memory(8), {2})), 0);
    EXPECT_EQ(file.text().find("TestTriple\tFLOAT\t0.333333\n") != std::string::npos, met);
  }
}

TEST(Deviations, NameTheOpsThatWereSpoiled) {
  const DeviationsFile file;
  const Simulation simulation({{"DEFECT", "determinism_ignored"}, {"DEVIATIONS", file.path()}});
  ASSERT_EQ(aclrtCtxSetSysParamOpt(0, 3), 0);
  static_cast<void>(order_of(4));
  tripled({1}, {1});
  EXPECT_NE(file.text().find("TestSum\tFLOAT\tinf\n"), std::string::npos) << file.text();
  EXPECT_EQ(file.text().find("TestTriple\tFLOAT\t0\n") + 19, file.text().size()) << file.text();
}

TEST(Deviations, NeedAFileThatCanBeWritten) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Simulation simulation({{"DEVIATIONS", "/nowhere/deviations"}});
  EXPECT_DEATH(tripled({1}, {1}), "/nowhere/deviations cannot be written");
}

TEST(Lists, NameOpsDefectsAndMutants) {
  const std::string ops = ferrySoftwareAscendList("ops");
  EXPECT_NE(ops.find("TestSum\tTestSum\taclnnTestSum\n"), std::string::npos);
  EXPECT_NE(ops.find("InplaceZero\t"), std::string::npos);
  const std::string defects = ferrySoftwareAscendList("defects");
  EXPECT_NE(defects.find("bit_flip\tany\t"), std::string::npos);
  const std::string mutants = ferrySoftwareAscendList("mutants");
  EXPECT_NE(mutants.find("TestSum:k_minus_1\tTestSum\t"), std::string::npos);
  EXPECT_EQ(mutants.find("TestTriple:k_minus_1"), std::string::npos);
  EXPECT_EQ(ferrySoftwareAscendList("nonsense"), nullptr);
}

TEST(Lists, RefuseNamesThatAreNotOnThem) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  {
    const Simulation simulation({{"DEFECT", "no_such_defect"}});
    EXPECT_DEATH(tripled({1}, {1}), "there is no such defect");
  }
  for (const char* mutant :
       {"NoSuchOp:scaled", "TestTriple:no_such_kind", "TestTriple:k_minus_1"}) {
    const Simulation simulation({{"MUTANT", mutant}});
    EXPECT_DEATH(tripled({1}, {1}), "there is no such mutant");
  }
}

}  // namespace
}  // namespace ascend_sim_test
