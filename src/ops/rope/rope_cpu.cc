// Sixteen pairs at a time; which columns make a pair only changes how they are gathered.
#include "device/cpu/cpu_device.h"
#include "ops/cpu/simd.h"
#include "ops/rope/rope_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kElementsPerTask = 16384;

struct Pairs {
  F32x16 a, b;
};

template <typename T>
Pairs load_pairs(const T* x, int64_t i, int64_t pairs, bool interleaved, int n) {
  if (!interleaved) return {load_n(x + i, n), load_n(x + pairs + i, n)};
  float both[2 * kLanes], a[kLanes], b[kLanes];
  store(both, load_n(x + 2 * i, 2 * n < kLanes ? 2 * n : kLanes));
  store(both + kLanes, load_n(x + 2 * i + kLanes, 2 * n > kLanes ? 2 * n - kLanes : 0));
  for (int e = 0; e < kLanes; ++e) {
    a[e] = both[2 * e];
    b[e] = both[2 * e + 1];
  }
  return {load(a), load(b)};
}

template <typename T>
void store_pairs(T* y, int64_t i, int64_t pairs, bool interleaved, int n, const Pairs& p) {
  if (!interleaved) {
    store_n(y + i, p.a, n);
    store_n(y + pairs + i, p.b, n);
    return;
  }
  float both[2 * kLanes], a[kLanes], b[kLanes];
  store(a, p.a);
  store(b, p.b);
  for (int e = 0; e < kLanes; ++e) {
    both[2 * e] = a[e];
    both[2 * e + 1] = b[e];
  }
  store_n(y + 2 * i, load(both), 2 * n < kLanes ? 2 * n : kLanes);
  if (2 * n > kLanes) store_n(y + 2 * i + kLanes, load(both + kLanes), 2 * n - kLanes);
}

template <typename T>
void rotate_row(const RopeArgs& args, const T* x, T* y, const float* cos, const float* sin) {
  const int64_t depth = args.x.shape[2], pairs = args.cos.shape[1], end = args.begin + 2 * pairs;
  std::memcpy(y, x, static_cast<size_t>(args.begin) * sizeof(T));
  std::memcpy(y + end, x + end, static_cast<size_t>(depth - end) * sizeof(T));
  for (int64_t i = 0; i < pairs; i += kLanes) {
    const int n = static_cast<int>(pairs - i < kLanes ? pairs - i : kLanes);
    const Pairs p = load_pairs(x + args.begin, i, pairs, args.interleaved, n);
    const F32x16 c = load_n(cos + i, n), s = load_n(sin + i, n);
    const Pairs turned = args.inverse ? Pairs{p.a * c + p.b * s, p.b * c - p.a * s}
                                      : Pairs{p.a * c - p.b * s, p.b * c + p.a * s};
    store_pairs(y + args.begin, i, pairs, args.interleaved, n, turned);
  }
}

template <typename T>
void run(const RopeArgs& a) {
  const int64_t tokens = a.x.shape[0], heads = a.x.shape[1], pairs = a.cos.shape[1];
  const int64_t row = heads * a.x.shape[2];
  const int64_t per_task = row >= kElementsPerTask ? 1 : kElementsPerTask / (row > 0 ? row : 1);
  cpu_pool().parallel_for((tokens + per_task - 1) / per_task, [&](int64_t task, int) {
    for (int64_t t = task * per_task; t < tokens && t < (task + 1) * per_task; ++t) {
      const int64_t angle = int64_t{a.position.as<int32_t>()[t]} * pairs;
      for (int64_t h = 0; h < heads; ++h)
        rotate_row(a,
                   a.x.as<T>() + t * a.x.stride[0] + h * a.x.stride[1],
                   a.y.as<T>() + t * a.y.stride[0] + h * a.y.stride[1],
                   a.cos.as<float>() + angle,
                   a.sin.as<float>() + angle);
    }
  });
}

}  // namespace

void rope(const Plan&, const RopeArgs& a, void*, Stream&) {
  if (a.x.dtype == DType::kF32)
    run<float>(a);
  else
    run<bf16_t>(a);
}

}  // namespace ferry::ops::FERRY_TIER
