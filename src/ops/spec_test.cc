// Every op's spec on one device: a test for each case. Built four times: for the CPU in ops_test, for Ascend in
// ascend_ops_test, which wants FERRY_ASCEND_LIBRARIES in the environment (software Ascend lies in build/ascend_sim),
// for CUDA in cuda_ops_test, which wants FERRY_CUDA_LIBRARIES (build/nvidia_sim), and in cuda_tensor_ops_test for the
// ops that tensor cores multiply in. With FERRY_SPECS=smallest only the smallest case of each op (for emulated
// processors).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "device/device.h"
#include "device/tensor_products.h"
#include "ops/run_records.h"
#include "ops/spec_check.h"

void register_tests();  // tests/test_main.cc calls it

#ifndef FERRY_SPECS_DEVICE
#define FERRY_SPECS_DEVICE "cpu"
#endif

namespace ferry::ops {
namespace {

class SpecCase : public ::testing::Test {
 public:
  explicit SpecCase(OpCase c) : case_(std::move(c)) {}
  void TestBody() override {
    const Result<Device*> device = open_device(FERRY_SPECS_DEVICE);
    ASSERT_TRUE(device) << device.error().message;
    for (const Finding& f : check_case(case_, **device))
      ADD_FAILURE() << f.property << ": " << f.detail;
  }

 private:
  OpCase case_;
};

std::string identifier(const std::string& text) {
  std::string out;
  for (const char ch : text) out += std::isalnum(static_cast<unsigned char>(ch)) ? ch : '_';
  return out;
}

int64_t elements(const OpCase& c) {
  int64_t n = 0;
  for (const InputSpec& in : c.inputs) n += in.shape.count();
  return n;
}

bool only_smallest() {
  const char* which = std::getenv("FERRY_SPECS");
  return which != nullptr && std::string_view(which) == "smallest";
}

DeviceKind tested_kind() {
  for (const DeviceKind kind : {DeviceKind::kCuda, DeviceKind::kAscend})
    if (std::string_view(FERRY_SPECS_DEVICE).starts_with(to_string(kind))) return kind;
  return DeviceKind::kCpu;
}

/// Software NVIDIA interprets: cases of more operations are left to CudaBits, which runs each once
/// (tests/cuda_test.cc). FERRY_SPECS=all runs them, too.
constexpr double kInterpretedFlops = 2e7;

bool takes_too_long(const OpCase& c) {
  const char* which = std::getenv("FERRY_SPECS");
  const bool all = which != nullptr && std::string_view(which) == "all";
  return tested_kind() == DeviceKind::kCuda && !all && c.flops > kInterpretedFlops;
}

/// The cases to test: benchmark shapes are for ./run bench ops, too large for the reference.
/// What the device has no kernel for is not tried.
std::vector<OpCase> cases_of(const OpSpec& spec) {
  std::vector<OpCase> cases;
  // Of a device that has part of the ops: the first kernel of each is the one that all cases need.
  if (!spec.kernels.empty() && !has_kernel(spec.kernels[0], tested_kind())) return cases;
  // What tensor cores have no part in is the same kernel as without them.
  if (names_tensor_products(FERRY_SPECS_DEVICE) &&
      std::none_of(spec.cases.begin(), spec.cases.end(), [](const OpCase& c) {
        return c.tensor_tolerance != nullptr;
      }))
    return cases;
  std::copy_if(
      spec.cases.begin(), spec.cases.end(), std::back_inserter(cases), [](const OpCase& c) {
        return !c.benchmark && !takes_too_long(c) && can_run(c, tested_kind());
      });
  if (!only_smallest() || cases.empty()) return cases;
  return {*std::min_element(cases.begin(), cases.end(), [](const OpCase& a, const OpCase& b) {
    return elements(a) < elements(b);
  })};
}

/// With FERRY_RUN_RECORDS=FILE, notes there which ops' specs passed here (ops/run_records.h): whole
/// ones, not the smallest case of each.
class Records final : public ::testing::Environment {
 public:
  void TearDown() override {
    const char* const path = std::getenv("FERRY_RUN_RECORDS");
    if (path == nullptr || only_smallest()) return;
    const Result<Device*> device = open_device(FERRY_SPECS_DEVICE);
    if (!device) return;
    std::vector<RunRecord> records;
    const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
    for (int i = 0; i < all.total_test_suite_count(); ++i) {
      const ::testing::TestSuite& suite = *all.GetTestSuite(i);
      constexpr std::string_view kPrefix = "Spec_";
      const std::string_view name = suite.name();
      if (!name.starts_with(kPrefix) || suite.failed_test_count() > 0 ||
          suite.successful_test_count() < suite.total_test_count())
        continue;
      records.push_back(record_of((*device)->kind(), (*device)->describe()));
      records.back().op = name.substr(kPrefix.size());
    }
    const Result<void> written = add_run_records(path, records);
    EXPECT_TRUE(written) << written.error().message;
  }
};

/// Whether the filter may take a test of this suite: a pattern is compared up to its first
/// wildcard.
bool may_match(std::string_view filter, const std::string& suite) {
  filter = filter.substr(0, filter.find('-'));
  if (filter.empty()) return true;
  const std::string name = suite + ".";
  while (!filter.empty()) {
    const std::string_view pattern = filter.substr(0, filter.find(':'));
    filter.remove_prefix(std::min(pattern.size() + 1, filter.size()));
    const std::string_view begin = pattern.substr(0, pattern.find_first_of("*?"));
    if (begin.starts_with(name) || std::string_view(name).starts_with(begin)) return true;
  }
  return false;
}

/// Bounds hold for every draw of the inputs, not for one: FERRY_SPECS_SEEDS draws more (200 when
/// bounds are derived anew), FERRY_SPECS_OP those of one op.
TEST(Specs, NoHealthyDrawLeavesItsBounds) {
  const char* text = std::getenv("FERRY_SPECS_SEEDS");
  const uint64_t seeds = text == nullptr ? 2 : std::strtoull(text, nullptr, 10);
  const Result<Device*> device = open_device(FERRY_SPECS_DEVICE);
  ASSERT_TRUE(device) << device.error().message;
  const char* op = std::getenv("FERRY_SPECS_OP");
  int64_t runs = 0;
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : op == nullptr || spec.op == op ? cases_of(spec) : std::vector<OpCase>())
      for (uint64_t seed = 2; seed < 2 + seeds; ++seed, ++runs)
        for (const Finding& f : CaseJudge(c, **device, seed).once())
          ADD_FAILURE() << spec.op << ", " << c.name << ", seed " << seed << ": " << f.property
                        << ": " << f.detail;
  EXPECT_GT(runs, 0);
  RecordProperty("runs", std::to_string(runs));
}

}  // namespace
}  // namespace ferry::ops

/// Only the specs that the filter asks for are made: all of them take longer than most of a test.
void register_tests() {
  using namespace ferry::ops;
  for (const OpSpecMaker& maker : op_spec_makers()) {
    const std::string suite = identifier(std::string("Spec_") + maker.op);
    if (!may_match(::testing::GTEST_FLAG(filter), suite)) continue;
    for (const OpCase& c : cases_of(maker.make()))
      ::testing::RegisterTest(suite.c_str(),
                              c.name.c_str(),
                              nullptr,
                              nullptr,
                              __FILE__,
                              __LINE__,
                              [c]() -> ::testing::Test* { return new SpecCase(c); });
  }
  ::testing::AddGlobalTestEnvironment(std::make_unique<Records>().release());  // it owns it now
}
