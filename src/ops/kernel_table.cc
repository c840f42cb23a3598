#include "ops/kernel_table.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"

namespace ferry::ops {
namespace {

// Set before any code runs that could find it otherwise: tables enter themselves while the
// program starts, in whatever order the linker gives their files.
constinit const KernelListing* g_first = nullptr;

}  // namespace

KernelListing::KernelListing(const KernelRow& row) noexcept : row_(row), next_(g_first) {
  g_first = this;
}

std::vector<KernelRow> all_kernel_rows() {
  std::vector<KernelRow> rows;
  for (const KernelListing* l = g_first; l != nullptr; l = l->next_) rows.push_back(l->row_);
  std::sort(rows.begin(), rows.end(), [](const KernelRow& a, const KernelRow& b) {
    return std::string_view(a.kernel) < b.kernel;
  });
  return rows;
}

std::vector<KernelRow> kernel_rows(std::initializer_list<const char*> kernels) {
  const std::vector<KernelRow> all = all_kernel_rows();
  std::vector<KernelRow> rows;
  for (const std::string_view kernel : kernels) {
    const auto row = std::find_if(
        all.begin(), all.end(), [&](const KernelRow& r) { return kernel == r.kernel; });
    check(row != all.end(), "no table has a kernel {}", kernel);
    rows.push_back(*row);
  }
  return rows;
}

}  // namespace ferry::ops
