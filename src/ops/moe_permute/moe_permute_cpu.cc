// The plan is a counting sort on one thread (two passes over a few ten thousand integers); the rows
// move in parallel, by destination, so that nothing is written twice.
#include "ops/cpu/loops.h"
#include "ops/moe_permute/moe_permute_kernels.h"

namespace ferry::ops::FERRY_TIER {

void plan_experts(const Plan&, const PlanExpertsArgs& a, void* workspace, Stream&) {
  const int64_t top_k = a.chosen.shape[1], slots = a.chosen.count(),
                experts = a.offsets.shape[0] - 1;
  const int32_t* chosen = a.chosen.as<int32_t>();
  int32_t* offsets = a.offsets.as<int32_t>();
  auto* next =
      static_cast<int32_t*>(workspace);  // [experts]: the row that the expert's next slot gets
  const auto exists = [experts](int32_t e) { return 0 <= e && e < experts; };
  for (int64_t e = 0; e < experts; ++e) next[e] = 0;
  for (int64_t s = 0; s < slots; ++s)
    if (exists(chosen[s])) ++next[chosen[s]];
  int32_t row = 0;
  for (int64_t e = 0; e < experts; ++e) {
    offsets[e] = row;
    row += next[e];
    next[e] = offsets[e];
  }
  offsets[experts] = row;
  for (int64_t r = row; r < slots; ++r) a.token_of_row.as<int32_t>()[r] = -1;
  for (int64_t s = 0; s < slots; ++s) {
    const int32_t r = exists(chosen[s]) ? next[chosen[s]]++ : -1;
    a.row_of_slot.as<int32_t>()[s] = r;
    if (r >= 0) a.token_of_row.as<int32_t>()[r] = static_cast<int32_t>(s / top_k);
  }
}

void permute(const Plan&, const PermuteArgs& a, void*, Stream&) {
  const int64_t rows = a.y.shape[0], hidden = a.y.shape[1];
  const size_t size = size_of(a.y.dtype);
  parallel_rows(rows, hidden, [&](int64_t r) {
    const int32_t token = a.token_of_row.as<int32_t>()[r];
    char* to = a.y.as<char>() + static_cast<size_t>(r * hidden) * size;
    if (token < 0)
      std::memset(to, 0, static_cast<size_t>(hidden) * size);
    else
      std::memcpy(to,
                  a.x.as<char>() + static_cast<size_t>(token * a.x.stride[0]) * size,
                  static_cast<size_t>(hidden) * size);
  });
}

void combine(const Plan&, const CombineArgs& a, void*, Stream&) {
  const int64_t tokens = a.y.shape[0], hidden = a.y.shape[1], top_k = a.row_of_slot.shape[1];
  with_type(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_rows(tokens, hidden * top_k, [&](int64_t t) {
      const int32_t* rows = a.row_of_slot.as<int32_t>() + t * top_k;
      T* y = a.y.as<T>() + t * hidden;
      for_lanes(0, hidden, [&](int64_t i, int n) {
        F32x16 sum = splat(0);
        for (int64_t j = 0; j < top_k; ++j) {
          if (rows[j] < 0) continue;
          const F32x16 weight =
              splat(a.weights.given() ? a.weights.as<float>()[t * top_k + j] : 1.0f);
          sum = fma(weight, load_n(a.x.as<T>() + rows[j] * a.x.stride[0] + i, n), sum);
        }
        store_n(y + i, sum, n);
      });
    });
  });
}

void combine_backward(const Plan&, const CombineBackwardArgs& a, void*, Stream&) {
  const int64_t tokens = a.d_y.shape[0], hidden = a.d_y.shape[1], top_k = a.row_of_slot.shape[1];
  with_type(a.d_y.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_rows(tokens, hidden * top_k, [&](int64_t t) {
      const T* d_y = a.d_y.as<T>() + t * a.d_y.stride[0];
      for (int64_t s = t * top_k; s < (t + 1) * top_k; ++s) {
        const int64_t row = a.row_of_slot.as<int32_t>()[s];
        F32x16 dot = splat(0);
        if (row >= 0) {
          const F32x16 weight = splat(a.weights.as<float>()[s]);
          const T* x = a.x.as<T>() + row * a.x.stride[0];
          T* d_x = a.d_x.as<T>() + row * hidden;
          for_lanes(0, hidden, [&](int64_t i, int n) {
            const F32x16 d = load_n(d_y + i, n);
            dot = fma(d, load_n(x + i, n), dot);
            store_n(d_x + i, weight * d, n);
          });
        }
        a.d_weights.as<float>()[s] = sum_lanes(dot);
      }
    });
    const int64_t used = a.offsets.as<int32_t>()[a.offsets.shape[0] - 1];
    const auto unused = static_cast<size_t>((a.d_x.shape[0] - used) * hidden);
    std::memset(a.d_x.as<T>() + used * hidden, 0, unused * sizeof(T));
  });
}

}  // namespace ferry::ops::FERRY_TIER
