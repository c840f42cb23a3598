// Which kernel each device uses for an op. A Kernel has no default: a table that leaves a device
// out does not compile, and an absent kernel says why it is absent. Light: included by kernels.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <vector>

#include "base/cpu_tier.h"
#include "base/threads.h"
#include "device/device.h"

namespace ferry::ops {

/// What a launch needs to know beyond its arguments. A pure function of shapes, types and scalars.
struct Plan {
  size_t workspace_bytes = 0;
  int variant = 0;  // the kernel's own numbering
};

/// How a kernel is made where a vendor's library does the maths.
enum class Branch {
  kOwn,       // our own code
  kFused,     // the vendor's op for it
  kComposed,  // several of the vendor's smaller ops
  kEither,    // fused for the shapes that the vendor's op takes, composed for the others
};

template <class Args>
struct Kernel {
  using PlanFn = Plan (*)(const Args&);  // never reads data
  using LaunchFn = void (*)(const Plan&, const Args&, void* workspace, Stream&);

  constexpr explicit Kernel(LaunchFn l, PlanFn p = nullptr, Branch b = Branch::kOwn)
      : launch(l), plan(p), missing_because(nullptr), branch(b) {}
  static constexpr Kernel missing(const char* because) { return Kernel(because); }

  LaunchFn launch;
  PlanFn plan;
  const char* missing_because;
  Branch branch;

 private:
  constexpr explicit Kernel(const char* because)
      : launch(nullptr), plan(nullptr), missing_because(because), branch(Branch::kOwn) {}
};

/// One kernel and which devices have it: a row of the op x device table.
struct KernelRow {
  const char* kernel;
  const char* cpu;  // nullptr: present; otherwise why it is missing
  const char* cuda;
  const char* ascend;
  Branch ascend_branch;
};

/// A row in the list of all tables of the program. Every table has one and enters itself with it,
/// so that none can be forgotten.
class KernelListing {
 public:
  explicit KernelListing(const KernelRow& row) noexcept;
  KernelListing(const KernelListing&) = delete;
  KernelListing& operator=(const KernelListing&) = delete;

 private:
  friend std::vector<KernelRow> all_kernel_rows();
  KernelRow row_;
  const KernelListing* next_;
};

/// The rows of all tables, by name.
std::vector<KernelRow> all_kernel_rows();

/// The rows of the kernels with these names, each of which there must be.
std::vector<KernelRow> kernel_rows(std::initializer_list<const char*> kernels);

/// Lives as long as the program.
template <class Args>
struct KernelTable {
  const char* op;
  Kernel<Args> cpu;
  Kernel<Args> cuda;
  Kernel<Args> ascend;
  KernelListing listing = KernelListing(KernelRow{
      op, cpu.missing_because, cuda.missing_because, ascend.missing_because, ascend.branch});

  const Kernel<Args>& on(DeviceKind kind) const {
    return kind == DeviceKind::kCpu ? cpu : kind == DeviceKind::kCuda ? cuda : ascend;
  }
};

inline constexpr const char* kNoCudaYet = "the CUDA backend is not part of this version";

/// One source, several instruction sets: the tier in use is looked up at each launch. What a kernel
/// computes outside parallel_for flushes too, whoever's thread it is.
template <class Args, auto plain, auto avx2, auto avx512>
void launch_tier(const Plan& plan, const Args& args, void* workspace, Stream& stream) {
  const FlushDenormals flush;
  switch (cpu_tier()) {
    case CpuTier::kAvx512Dot:
    case CpuTier::kAvx512: return avx512(plan, args, workspace, stream);
    case CpuTier::kAvx2: return avx2(plan, args, workspace, stream);
    case CpuTier::kPlain: return plain(plan, args, workspace, stream);
  }
}

template <class Args>
constexpr Kernel<Args> ascend_kernel(typename Kernel<Args>::LaunchFn launch,
                                     Branch branch,
                                     typename Kernel<Args>::PlanFn plan = nullptr) {
  return Kernel<Args>(launch, plan, branch);
}

}  // namespace ferry::ops

/// In <op>_kernels.h, inside namespace ferry::ops: declares the CPU kernel of every tier.
/// In <op>_cpu.cc it is defined in namespace ferry::ops::FERRY_TIER.
/// In <op>.cc: CPU_KERNEL(Args, name) or CPU_KERNEL(Args, name, plan_function) in the table.
#if defined(__x86_64__)
#define DECLARE_CPU_KERNEL(Args, name)                 \
  namespace plain {                                    \
  void name(const Plan&, const Args&, void*, Stream&); \
  }                                                    \
  namespace avx2 {                                     \
  void name(const Plan&, const Args&, void*, Stream&); \
  }                                                    \
  namespace avx512 {                                   \
  void name(const Plan&, const Args&, void*, Stream&); \
  }
#define CPU_KERNEL(Args, name, ...)                                                          \
  ::ferry::ops::Kernel<Args>(                                                                \
      &::ferry::ops::launch_tier<Args, plain::name, avx2::name, avx512::name> __VA_OPT__(, ) \
          __VA_ARGS__)
#else
#define DECLARE_CPU_KERNEL(Args, name)                 \
  namespace plain {                                    \
  void name(const Plan&, const Args&, void*, Stream&); \
  }
#define CPU_KERNEL(Args, name, ...) \
  ::ferry::ops::Kernel<Args>(&plain::name __VA_OPT__(, ) __VA_ARGS__)
#endif

/// In <op>_kernels.h, inside namespace ferry::ops: declares the Ascend kernel, which is defined in
/// <op>_ascend.cc in namespace ferry::ops::ascend. In <op>.cc: ASCEND_KERNEL(Args, branch, name) or
/// ASCEND_KERNEL(Args, branch, name, plan_function) in the table.
#define DECLARE_ASCEND_KERNEL(Args, name)              \
  namespace ascend {                                   \
  void name(const Plan&, const Args&, void*, Stream&); \
  }
#define ASCEND_KERNEL(Args, branch, name, ...) \
  ::ferry::ops::ascend_kernel<Args>(&ascend::name, branch __VA_OPT__(, ) __VA_ARGS__)
