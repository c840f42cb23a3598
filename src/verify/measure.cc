// How fast a device is: matrix products against its peak, memory, copies, launches, links.
#include <algorithm>
#include <functional>
#include <limits>

#include "base/check.h"
#include "base/cpu_tier.h"
#include "base/random.h"
#include "base/units.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"
#include "ops/linear/linear.h"
#include "verify/checks.h"
#include "verify/peak_kernels.h"

namespace ferry::doctor {

double fma_chain_flops(int64_t rounds) { return 2.0 * 16 * 12 * static_cast<double>(rounds); }

namespace {

/// Seconds of the fastest of several runs of `work`, at least two.
double fastest(const Running& r, double budget_s, const std::function<void()>& work) {
  const auto once = [&] {
    const double begin_s = r.clock.monotonic_s();
    work();
    r.device.stream().synchronize();
    return r.clock.monotonic_s() - begin_s;
  };
  const double until_s = r.clock.monotonic_s() + budget_s;
  double best_s = once();
  do best_s = std::min(best_s, once());
  while (r.clock.monotonic_s() < until_s);
  return best_s;
}

float fma_chains(int64_t rounds) {
  switch (cpu_tier()) {
#if defined(__x86_64__)
    case CpuTier::kAvx512Dot:
    case CpuTier::kAvx512: return avx512::fma_chains(rounds);
    case CpuTier::kAvx2: return avx2::fma_chains(rounds);
#else
    case CpuTier::kAvx512Dot:
    case CpuTier::kAvx512:
    case CpuTier::kAvx2:
#endif
    case CpuTier::kPlain: return plain::fma_chains(rounds);
  }
  return 0;
}

/// Operations per second of all of the processor's threads together, with nothing but fma, or what
/// products of bf16 take in its place.
double cpu_peak(const Running& r, [[maybe_unused]] DType dtype) {
  constexpr int64_t kRounds = 100'000;
  ThreadPool& pool = cpu_pool();
  std::vector<float> kept(static_cast<size_t>(pool.threads()));
  float (*chains)(int64_t) = fma_chains;
  double flops = fma_chain_flops(kRounds);
#if defined(__x86_64__)
  if (dtype == DType::kBF16 && cpu_tier() == CpuTier::kAvx512Dot) {
    chains = avx512::dot_chains;
    flops *= 2;
  }
#endif
  const double s = fastest(r, 0.1, [&] {
    pool.parallel_for(pool.threads(), [&](int64_t task, int) {
      kept[static_cast<size_t>(task)] = chains(kRounds);
    });
  });
  for (const float x : kept) check(x > 0, "doctor: a chain of fma came to nothing");
  return flops * pool.threads() / s;
}

/// What the chip could do with `dtype` at best, operations per second; 0 if that is not known.
double chip_peak(const Running& r, DType dtype) {
  if (r.device.kind() == DeviceKind::kCpu) return cpu_peak(r, dtype);
  return dtype == DType::kBF16 ? r.device.peak_flops_bf16() : 0;
}

/// Normal numbers, a few thousand of them over and over: zeros would cost a chip less power.
Tensor some_matrix(int64_t n, DType dtype, Device& device) {
  const Random random(1, RandomPurpose::kTest, 0);
  std::vector<float> few(8192), all(static_cast<size_t>(n * n));
  for (size_t i = 0; i < few.size(); ++i) few[i] = static_cast<float>(random.normal(i));
  for (size_t i = 0; i < all.size(); ++i) all[i] = few[(i * 5 + i / 8192) % few.size()];
  Tensor t = Tensor::empty({n, n}, dtype, device);
  t.assign_f32(all);
  return t;
}

/// The best rate over growing squares; stops where one product alone takes long. What is too small
/// to tell is passed even when time is up.
void measure_matmul(Running& r, DType dtype) {
  double best = 0;
  const double until_s = r.clock.monotonic_s() + (r.options.quick ? 0.1 : 0.6);
  constexpr int64_t kTelling = 512;
  for (int64_t n = 128; n <= 4096 && (n <= kTelling || r.clock.monotonic_s() < until_s); n *= 2) {
    const Tensor a = some_matrix(n, dtype, r.device);
    const Weight w{
        .name = "w", .global_shape = {n, n}, .shard = {}, .value = some_matrix(n, dtype, r.device)};
    r.device.stream().synchronize();
    const double s = fastest(r, 0, [&] { (void)ops::linear(a, w); });
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / s);
    if (s > 0.05) break;
  }
  r.listener.measured({.name = dtype == DType::kF32 ? "matmul f32" : "matmul bf16",
                       .unit = "GFLOP/s",
                       .value = best * 1e-9,
                       .peak = chip_peak(r, dtype) * 1e-9});
}

size_t large_bytes(const Running& r) {
  return r.options.quick ? size_t{4} << 20 : size_t{64} << 20;
}

void measure_memory(Running& r) {
  const auto bytes = static_cast<int64_t>(large_bytes(r));
  const double size = static_cast<double>(bytes), budget_s = r.options.quick ? 0.02 : 0.2;
  const Tensor a = Tensor::zeros({bytes / 4}, DType::kF32, r.device),
               b = Tensor::zeros({bytes / 4}, DType::kF32, r.device);
  const double copy_s = fastest(r, budget_s, [&] { r.device.copy(a.data(), b.data(), a.bytes()); });
  r.listener.measured({"memory, copy", "GB/s", 2 * size / copy_s * 1e-9});
  const double add_s = fastest(r, budget_s, [&] { ops::accumulate(a, b); });
  r.listener.measured({"memory, add", "GB/s", 3 * size / add_s * 1e-9});
}

void measure_copies(Running& r) {
  const double budget_s = r.options.quick ? 0.02 : 0.15;
  for (const size_t bytes : {size_t{4} << 10, large_bytes(r)}) {
    std::vector<char> host(bytes, 1);
    const Tensor t = Tensor::zeros({static_cast<int64_t>(bytes / 4)}, DType::kF32, r.device);
    const std::string size = format_bytes(static_cast<double>(bytes));
    const auto report = [&](const char* what, double s) {
      r.listener.measured(
          {fmt::format("{}, {}", what, size), "GB/s", static_cast<double>(bytes) / s * 1e-9});
    };
    report("host to device",
           fastest(r, budget_s, [&] { r.device.copy_from_host(t.data(), host.data(), bytes); }));
    report("device to host",
           fastest(r, budget_s, [&] { r.device.copy_to_host(host.data(), t.data(), bytes); }));
  }
}

void measure_launches(Running& r) {
  constexpr int kLaunches = 200;
  const Tensor a = Tensor::zeros({16}, DType::kF32, r.device),
               b = Tensor::zeros({16}, DType::kF32, r.device);
  const double waited_s = fastest(r, r.options.quick ? 0.01 : 0.1, [&] { ops::accumulate(a, b); });
  double queued_s = std::numeric_limits<double>::max(), all_s = queued_s;
  for (int round = 0; round < 3; ++round) {
    const double begin_s = r.clock.monotonic_s();
    for (int i = 0; i < kLaunches; ++i) ops::accumulate(a, b);
    queued_s = std::min(queued_s, r.clock.monotonic_s() - begin_s);
    r.device.stream().synchronize();
    all_s = std::min(all_s, r.clock.monotonic_s() - begin_s);
  }
  r.listener.measured({"launch, until the call returns", "us", queued_s / kLaunches * 1e6});
  r.listener.measured({"launch, one of many in a row", "us", all_s / kLaunches * 1e6});
  r.listener.measured({"launch and wait", "us", waited_s * 1e6});
}

/// The other chips of this machine, by number, opened as the one under examination is ("cuda-tensor:0"), which is among
/// them.
std::vector<Device*> chips_of(const Device& device) {
  std::vector<Device*> chips;
  if (device.kind() == DeviceKind::kCpu) return chips;
  const std::string name = device.name(), as = name.substr(0, name.find(':'));
  for (int i = 0; i < 64; ++i) {
    const Result<Device*> chip = open_device(fmt::format("{}:{}", as, i));
    if (!chip) break;
    chips.push_back(*chip);
  }
  return chips;
}

/// Copy speed between every pair of chips, in both directions, and the slowest by name.
void measure_links(Running& r) {
  const std::vector<Device*> chips = chips_of(r.device);
  if (chips.size() < 2) return r.listener.noted("links not tested: one device");
  const size_t bytes = large_bytes(r) / 4;
  const std::vector<char> sent(bytes, 0x5C);
  std::string slowest;
  double slowest_rate = std::numeric_limits<double>::max();
  for (Device* from : chips)
    for (Device* to : chips) {
      if (from == to) continue;
      const auto count = static_cast<int64_t>(bytes / 4);
      Tensor source = Tensor::empty({count}, DType::kF32, *from);
      const Tensor target = Tensor::zeros({count}, DType::kF32, *to);
      source.copy_bytes_from(sent.data());
      std::vector<char> between(bytes);
      double best_s = std::numeric_limits<double>::max();
      for (int round = 0; round < 3; ++round) {
        const double begin_s = r.clock.monotonic_s();
        from->copy_to_host(between.data(), source.data(), bytes);
        from->stream().synchronize();
        to->copy_from_host(target.data(), between.data(), bytes);
        to->stream().synchronize();
        best_s = std::min(best_s, r.clock.monotonic_s() - begin_s);
      }
      const std::string link = fmt::format("{} to {}, through the host", from->name(), to->name());
      const double rate = static_cast<double>(bytes) / best_s * 1e-9;
      r.listener.measured({link, "GB/s", rate});
      if (rate < slowest_rate) {
        slowest_rate = rate;
        slowest = link;
      }
      std::vector<char> arrived(bytes);
      target.copy_bytes_to(arrived.data());
      if (arrived != sent) r.found("links", "{}: what arrived is not what was sent", link);
    }
  r.listener.noted(fmt::format("slowest link: {}, {:.2f} GB/s", slowest, slowest_rate));
}

Check speed_check(const char* subject, const char* what, std::function<void(Running&)> run) {
  return {.head = {.name = fmt::format("{}, {}", subject, what),
                   .subject = subject,
                   .level = Level::kSpeed},
          .run = std::move(run)};
}

}  // namespace

std::vector<Check> measurements() {
  std::vector<Check> checks;
  for (const DType dtype : {DType::kF32, DType::kBF16})
    checks.push_back(
        speed_check("speed",
                    dtype == DType::kF32 ? "matrix product, f32" : "matrix product, bf16",
                    [dtype](Running& r) { measure_matmul(r, dtype); }));
  checks.push_back(speed_check("speed", "memory", measure_memory));
  checks.push_back(speed_check("speed", "copies", measure_copies));
  checks.push_back(speed_check("speed", "launches", measure_launches));
  checks.push_back(speed_check("links", "every pair of chips", measure_links));
  return checks;
}

}  // namespace ferry::doctor
