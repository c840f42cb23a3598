// Rotates pairs; each is two products and one sum, so every tier rounds alike.
#include <cstring>

#include "device/cpu/cpu_device.h"
#include "ops/cpu/simd.h"
#include "ops/rope/rope_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kTokensPerTask = 32;

float value(float v) { return v; }
float value(bf16_t v) { return bf16_to_f32(v); }
void put(float* p, float v) { *p = v; }
void put(bf16_t* p, float v) { *p = f32_to_bf16(v); }

/// (a, b) -> (a cos - b sin, a sin + b cos), each product rounded, then the sum. A null row: no position.
template <typename T>
void rotate(const T* x, const float* cosine, const float* sine, float sign, T* y, int64_t half, bool interleaved) {
  const int64_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
  for (int64_t i = 0; i < half; ++i) {
    const float c = cosine == nullptr ? __builtin_nanf("") : cosine[i], s = cosine == nullptr ? c : sign * sine[i];
    const float a = value(x[i * step]), b = value(x[i * step + apart]);
    put(y + i * step, a * c - b * s);
    put(y + i * step + apart, a * s + b * c);
  }
}

template <typename T>
void run(const RopeArgs& args) {
  const int64_t tokens = args.x.shape[0], heads = args.x.rank == 3 ? args.x.shape[1] : 1;
  const int64_t width = args.x.shape[args.x.rank - 1], half = args.cosine.shape[1], end = args.begin + 2 * half;
  const int64_t x_head = args.x.rank == 3 ? args.x.stride[1] : 0, y_head = args.y.rank == 3 ? args.y.stride[1] : 0;
  const float sign = args.inverse ? -1.0f : 1.0f;
  cpu_pool().parallel_for((tokens + kTokensPerTask - 1) / kTokensPerTask, [&](int64_t task, int) {
    for (int64_t t = task * kTokensPerTask; t < tokens && t < (task + 1) * kTokensPerTask; ++t) {
      const int32_t position = args.position.as<int32_t>()[t];
      const bool known = position >= 0 && position < args.cosine.shape[0];
      const float* cosine = known ? args.cosine.as<float>() + position * half : nullptr;
      const float* sine = known ? args.sine.as<float>() + position * half : nullptr;
      for (int64_t h = 0; h < heads; ++h) {
        const T* x = args.x.as<T>() + t * args.x.stride[0] + h * x_head;
        T* y = args.y.as<T>() + t * args.y.stride[0] + h * y_head;
        std::memcpy(y, x, static_cast<size_t>(args.begin) * sizeof(T));
        rotate(x + args.begin, cosine, sine, sign, y + args.begin, half, args.interleaved);
        std::memcpy(y + end, x + end, static_cast<size_t>(width - end) * sizeof(T));
      }
    }
  });
}

}  // namespace

void rope(const Plan&, const RopeArgs& args, void*, Stream&) {
  if (args.x.dtype == DType::kF32) run<float>(args);
  else run<bf16_t>(args);
}

}  // namespace ferry::ops::FERRY_TIER
