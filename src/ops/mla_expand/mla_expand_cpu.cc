// Copies, token by token; backward also sums the shared part over heads.
#include <cstring>

#include "device/cpu/cpu_device.h"
#include "ops/cpu/simd.h"
#include "ops/mla_expand/mla_expand_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kTokensPerTask = 16;

template <typename F>
void for_tokens(int64_t tokens, F&& f) {
  cpu_pool().parallel_for((tokens + kTokensPerTask - 1) / kTokensPerTask, [&](int64_t task, int) {
    for (int64_t t = task * kTokensPerTask; t < tokens && t < (task + 1) * kTokensPerTask; ++t) f(t);
  });
}

template <typename T>
void copy(T* to, const T* from, int64_t n) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
}

template <typename T>
void forward(const MlaExpandArgs& a) {
  const int64_t heads = a.kv.shape[1], rope = a.k_pe.shape[1], nope = a.k.shape[2] - rope, value = a.v.shape[2];
  for_tokens(a.kv.shape[0], [&](int64_t t) {
    const T* pe = a.k_pe.as<T>() + t * a.k_pe.stride[0];
    for (int64_t h = 0; h < heads; ++h) {
      const T* kv = a.kv.as<T>() + (t * heads + h) * (nope + value);
      T* k = a.k.as<T>() + (t * heads + h) * (nope + rope);
      copy(k, kv, nope);
      copy(k + nope, pe, rope);
      copy(a.v.as<T>() + (t * heads + h) * value, kv + nope, value);
    }
  });
}

template <typename T>
void backward(const MlaExpandBackwardArgs& a) {
  const int64_t heads = a.d_kv.shape[1], rope = a.d_k_pe.shape[1], nope = a.d_k.shape[2] - rope, value = a.d_v.shape[2];
  for_tokens(a.d_kv.shape[0], [&](int64_t t) {
    for (int64_t h = 0; h < heads; ++h) {
      T* d_kv = a.d_kv.as<T>() + (t * heads + h) * (nope + value);
      copy(d_kv, a.d_k.as<T>() + (t * heads + h) * (nope + rope), nope);
      copy(d_kv + nope, a.d_v.as<T>() + (t * heads + h) * value, value);
    }
    const T* d_pe = a.d_k.as<T>() + t * heads * (nope + rope) + nope;
    for (int64_t i = 0; i < rope; i += kLanes) {
      const int n = static_cast<int>(rope - i < kLanes ? rope - i : kLanes);
      F32x16 sum = splat(0);
      for (int64_t h = 0; h < heads; ++h) sum = sum + load_n(d_pe + h * (nope + rope) + i, n);
      store_n(a.d_k_pe.as<T>() + t * rope + i, sum, n);
    }
  });
}

}  // namespace

void mla_expand(const Plan&, const MlaExpandArgs& a, void*, Stream&) {
  if (a.kv.dtype == DType::kF32) forward<float>(a);
  else forward<bf16_t>(a);
}

void mla_expand_backward(const Plan&, const MlaExpandBackwardArgs& a, void*, Stream&) {
  if (a.d_kv.dtype == DType::kF32) backward<float>(a);
  else backward<bf16_t>(a);
}

}  // namespace ferry::ops::FERRY_TIER
