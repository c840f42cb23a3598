// Every kernel table belongs to one op's spec: what `ferry ops` lists and doctor tries is all there
// is. And what a launch promises the kernel.
#include "ops/kernel_table.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>

#include "base/check.h"
#include "device/cpu/cpu_device.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

TEST(KernelTable, EveryTableIsNamedByOneSpec) {
  std::map<std::string, int> named;
  for (const KernelRow& row : all_kernel_rows()) EXPECT_TRUE(named.emplace(row.kernel, 0).second);
  for (const OpSpec& spec : all_op_specs())
    for (const KernelRow& row : spec.kernels) ++named.at(row.kernel);
  EXPECT_GE(named.size(), 33u);
  for (const auto& [kernel, specs] : named) EXPECT_EQ(specs, 1) << kernel;
}

TEST(KernelTable, AKernelThatNoTableHasIsABug) {
  EXPECT_THROW(kernel_rows({"no_such_kernel"}), Bug);
}

struct Flushed {
  bool* seen;
};

void look(const Plan&, const Flushed& args, void*, Stream&) {
  *args.seen = denormals_are_flushed();
}

TEST(ByTier, FlushesDenormalsWhateverThreadItIs) {
  bool here = false, there = false;
  const auto launch = &detail::ByTier<&look, &look, &look>::call;
  launch({}, {&here}, nullptr, cpu_device().stream());
  std::thread([&] { launch({}, {&there}, nullptr, cpu_device().stream()); }).join();
  EXPECT_TRUE(here);
  EXPECT_TRUE(there);
  EXPECT_FALSE(denormals_are_flushed());
}

}  // namespace
}  // namespace ferry::ops
