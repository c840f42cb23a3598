// Which kernel each device uses for an op. A Kernel has no default: a table that leaves a device
// out does not compile, and an absent kernel says why it is absent. Light: included by kernels.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include "base/cpu_tier.h"
#include "base/threads.h"
#include "device/device.h"

namespace ferry::ops {

struct HostSegments;  // ops/segments.h

/// What a launch needs to know beyond its arguments. A pure function of shapes, types and scalars.
struct Plan {
  size_t workspace_bytes = 0;
  int variant = 0;  // the kernel's own numbering
  /// Of ops that take Segments: the documents as the host knows them, for vendors' libraries that
  /// want lists there. Lives as long as the call. Kernels of our own read the device's arrays.
  const HostSegments* segments = nullptr;
};

/// How a kernel is made where a vendor's library does the maths.
enum class Branch {
  kOwn,       // our own code
  kFused,     // the vendor's op for it
  kComposed,  // several of the vendor's smaller ops
  kEither,    // fused for the shapes that the vendor's op takes, composed for the others
};

struct NoTraits {};

namespace detail {
template <class Args>
struct TraitsOf {
  using type = NoTraits;
};
template <class Args>
requires requires { typename Args::Traits; }
struct TraitsOf<Args> {
  using type = typename Args::Traits;
};
}  // namespace detail

/// Args is plain data, so that a call can be kept and launched again (OpCall::relaunch) or captured
/// in a graph: views of device memory and scalars, no pointer to the host's. Where the devices'
/// kernels want different things of the op's front-end, Args has a struct Traits that says what,
/// and each kernel of the table answers; a front-end never asks which device it is on.
template <class Args>
struct Kernel {
  static_assert(std::is_trivially_copyable_v<Args>);
  using PlanFn = Plan (*)(const Args&);  // never reads data
  using LaunchFn = void (*)(const Plan&, const Args&, void* workspace, Stream&);
  using Traits = typename detail::TraitsOf<Args>::type;

  constexpr explicit Kernel(LaunchFn l, PlanFn p = nullptr, Branch b = Branch::kOwn)
      : launch(l), plan(p), missing_because(nullptr), branch(b) {}
  static constexpr Kernel missing(const char* because) { return Kernel(because); }
  constexpr Kernel with(const Traits& t) const {
    Kernel k = *this;
    k.traits = t;
    return k;
  }

  bool present() const { return launch != nullptr; }

  LaunchFn launch;
  PlanFn plan;
  const char* missing_because;
  Branch branch;
  Traits traits = {};

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

namespace detail {
template <auto plain, auto avx2, auto avx512>
struct ByTier;
/// What a kernel computes outside parallel_for flushes too, whoever's thread it is.
template <class R, class... A, R (*plain)(A...), R (*avx2)(A...), R (*avx512)(A...)>
struct ByTier<plain, avx2, avx512> {
  static R call(A... a) {
    const FlushDenormals flush;
    switch (cpu_tier()) {
      case CpuTier::kAvx512Dot:
      case CpuTier::kAvx512: return avx512(a...);
      case CpuTier::kAvx2: return avx2(a...);
      case CpuTier::kPlain: break;
    }
    return plain(a...);
  }
};
}  // namespace detail

template <class Args>
constexpr Kernel<Args> ascend_kernel(typename Kernel<Args>::LaunchFn launch,
                                     Branch branch,
                                     typename Kernel<Args>::PlanFn plan = nullptr) {
  return Kernel<Args>(launch, plan, branch);
}

}  // namespace ferry::ops

/// One source, several instruction sets: a function that <op>_cpu.cc defines in namespace
/// ferry::ops::FERRY_TIER. DECLARE_CPU_FUNCTION in <op>_kernels.h, inside namespace ferry::ops,
/// declares that of every tier; CPU_FUNCTION(name) is a pointer to what calls the tier in use.
#if defined(__x86_64__)
#define DECLARE_CPU_FUNCTION(Result, name, ...) \
  namespace plain {                             \
  Result name(__VA_ARGS__);                     \
  }                                             \
  namespace avx2 {                              \
  Result name(__VA_ARGS__);                     \
  }                                             \
  namespace avx512 {                            \
  Result name(__VA_ARGS__);                     \
  }
#define CPU_FUNCTION(name) \
  (&::ferry::ops::detail::ByTier<plain::name, avx2::name, avx512::name>::call)
#else
#define DECLARE_CPU_FUNCTION(Result, name, ...) \
  namespace plain {                             \
  Result name(__VA_ARGS__);                     \
  }
#define CPU_FUNCTION(name) \
  (&::ferry::ops::detail::ByTier<plain::name, plain::name, plain::name>::call)
#endif

/// The kernel, and what plans for it. In <op>.cc: CPU_KERNEL(Args, name) or CPU_KERNEL(Args, name,
/// plan_function) in the table, where the plan is often CPU_FUNCTION(name_plan).
#define DECLARE_CPU_KERNEL(Args, name) \
  DECLARE_CPU_FUNCTION(void, name, const Plan&, const Args&, void*, Stream&)
#define DECLARE_CPU_PLAN(Args, name) DECLARE_CPU_FUNCTION(Plan, name, const Args&)
#define CPU_KERNEL(Args, name, ...) \
  ::ferry::ops::Kernel<Args>(CPU_FUNCTION(name) __VA_OPT__(, ) __VA_ARGS__)

/// In <op>_kernels.h, inside namespace ferry::ops: declares the Ascend kernel, which is defined in
/// <op>_ascend.cc in namespace ferry::ops::ascend. In <op>.cc: ASCEND_KERNEL(Args, branch, name) or
/// ASCEND_KERNEL(Args, branch, name, plan_function) in the table.
#define DECLARE_ASCEND_KERNEL(Args, name)              \
  namespace ascend {                                   \
  void name(const Plan&, const Args&, void*, Stream&); \
  }
#define ASCEND_KERNEL(Args, branch, name, ...) \
  ::ferry::ops::ascend_kernel<Args>(&ascend::name, branch __VA_OPT__(, ) __VA_ARGS__)
