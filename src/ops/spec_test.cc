// Every op's spec on the CPU: one test for each case. With FERRY_SPECS=smallest in the environment
// only the smallest case of each op (for emulated processors).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "device/cpu/cpu_device.h"
#include "ops/spec_check.h"

namespace ferry::ops {
namespace {

class SpecCase : public ::testing::Test {
 public:
  explicit SpecCase(OpCase c) : case_(std::move(c)) {}
  void TestBody() override {
    for (const Finding& f : check_case(case_, cpu_device()))
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

/// The cases to test: benchmark shapes are for ./run bench ops, too large to difference.
std::vector<OpCase> cases_of(const OpSpec& spec) {
  std::vector<OpCase> cases;
  std::copy_if(
      spec.cases.begin(), spec.cases.end(), std::back_inserter(cases), [](const OpCase& c) {
        return !c.benchmark;
      });
  const char* which = std::getenv("FERRY_SPECS");
  if (which == nullptr || std::string_view(which) != "smallest" || cases.empty()) return cases;
  return {*std::min_element(cases.begin(), cases.end(), [](const OpCase& a, const OpCase& b) {
    return elements(a) < elements(b);
  })};
}

const bool kRegistered = [] {
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : cases_of(spec))
      ::testing::RegisterTest(identifier("Spec_" + spec.op).c_str(),
                              c.name.c_str(),
                              nullptr,
                              nullptr,
                              __FILE__,
                              __LINE__,
                              [c]() -> ::testing::Test* { return new SpecCase(c); });
  return true;
}();

}  // namespace
}  // namespace ferry::ops
