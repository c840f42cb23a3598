// Every op's spec on the CPU: one test for each case.
#include <gtest/gtest.h>

#include "device/cpu/cpu_device.h"
#include "ops/spec_check.h"

namespace ferry::ops {
namespace {

class SpecCase : public ::testing::Test {
 public:
  explicit SpecCase(OpCase c) : case_(std::move(c)) {}
  void TestBody() override {
    for (const Finding& f : check_case(case_, cpu_device())) ADD_FAILURE() << f.property << ": " << f.detail;
  }

 private:
  OpCase case_;
};

std::string identifier(const std::string& text) {
  std::string out;
  for (const char ch : text) out += std::isalnum(static_cast<unsigned char>(ch)) ? ch : '_';
  return out;
}

const bool kRegistered = [] {
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : spec.cases) {
      if (c.benchmark) continue;  // for ./run bench ops: too large to difference
      ::testing::RegisterTest(identifier("Spec_" + spec.op).c_str(), c.name.c_str(), nullptr, nullptr, __FILE__,
                              __LINE__, [c]() -> ::testing::Test* { return new SpecCase(c); });
    }
  return true;
}();

}  // namespace
}  // namespace ferry::ops
