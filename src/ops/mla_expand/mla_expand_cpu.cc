// Copies, in parallel over tokens; only d_k_pe needs arithmetic.
#include "device/cpu/cpu_device.h"
#include "ops/cpu/simd.h"
#include "ops/mla_expand/mla_expand_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kTokensPerTask = 16;

template <typename F>
void for_tokens(int64_t tokens, F&& f) {
  cpu_pool().parallel_for((tokens + kTokensPerTask - 1) / kTokensPerTask, [&](int64_t task, int) {
    for (int64_t t = task * kTokensPerTask; t < tokens && t < (task + 1) * kTokensPerTask; ++t)
      f(t);
  });
}

template <typename T>
T* row(const View& v, int64_t token, int64_t head) {
  return v.as<T>() + token * v.stride[0] + head * v.stride[1];
}

template <typename T>
void copy(T* to, const T* from, int64_t count) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
}

template <typename T>
void forward(const MlaExpandArgs& a) {
  const int64_t d_v = a.v.shape[2], rotary = a.k_pe.shape[1], nope = a.k.shape[2] - rotary;
  for_tokens(a.kv.shape[0], [&](int64_t t) {
    for (int64_t h = 0; h < a.kv.shape[1]; ++h) {
      const T* kv = row<T>(a.kv, t, h);
      copy(row<T>(a.k, t, h), kv, nope);
      copy(row<T>(a.k, t, h) + nope, row<T>(a.k_pe, t, 0), rotary);
      copy(row<T>(a.v, t, h), kv + nope, d_v);
    }
  });
}

template <typename T>
void backward(const MlaExpandBackwardArgs& a) {
  const int64_t heads = a.d_k.shape[1], d_v = a.d_v.shape[2], rotary = a.d_k_pe.shape[1],
                nope = a.d_k.shape[2] - rotary;
  for_tokens(a.d_k.shape[0], [&](int64_t t) {
    for (int64_t h = 0; h < heads; ++h) {
      copy(row<T>(a.d_kv, t, h), row<T>(a.d_k, t, h), nope);
      copy(row<T>(a.d_kv, t, h) + nope, row<T>(a.d_v, t, h), d_v);
    }
    for (int64_t d = 0; d < rotary; d += kLanes) {
      const int n = static_cast<int>(rotary - d < kLanes ? rotary - d : kLanes);
      F32x16 sum = splat(0);
      for (int64_t h = 0; h < heads; ++h) sum = sum + load_n(row<T>(a.d_k, t, h) + nope + d, n);
      store_n(row<T>(a.d_k_pe, t, 0) + d, sum, n);
    }
  });
}

}  // namespace

void mla_expand_forward(const Plan&, const MlaExpandArgs& a, void*, Stream&) {
  if (a.kv.dtype == DType::kF32)
    forward<float>(a);
  else
    forward<bf16_t>(a);
}

void mla_expand_backward(const Plan&, const MlaExpandBackwardArgs& a, void*, Stream&) {
  if (a.d_k.dtype == DType::kF32)
    backward<float>(a);
  else
    backward<bf16_t>(a);
}

}  // namespace ferry::ops::FERRY_TIER
