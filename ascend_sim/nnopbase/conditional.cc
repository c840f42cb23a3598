#include "nnopbase/conditional.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>

#include "runtime/defects.h"

namespace ascend_sim {
namespace {

/// One launch as a condition sees it.
struct Seen {
  const std::vector<Tensor>& in;
  const std::vector<Tensor>& out;
  uint64_t calls;  // of the op in this process, this one included

  const Tensor& y() const { return out.front(); }
};

int64_t rows(const Tensor& t) { return t.elements() / std::max<int64_t>(1, t.dim(-1)); }
int64_t width(const Tensor& t) { return t.rank() == 0 ? 1 : t.dim(-1); }

/// Of attention's output, which ends in [heads, width]; one query for each of the first dimension.
int64_t heads(const Tensor& t) { return t.dim(-2); }

/// Changes a tensor by f of all its elements, row-major.
template <typename F>
void with_values(const Tensor& t, const F& f) {
  std::vector<double> v = load_f64(t);
  f(v);
  store_f64(t, v);
}

void zero_rows(const Tensor& t, int64_t first, int64_t count) {
  with_values(t, [&](std::vector<double>& v) {
    const auto w = width(t);
    for (int64_t i = first * w; i < std::min((first + count) * w, t.elements()); ++i)
      v[static_cast<size_t>(i)] = 0;
  });
}

/// The row is what the one `back` rows before it is.
void repeat_row(const Tensor& t, int64_t row, int64_t back) {
  with_values(t, [&](std::vector<double>& v) {
    const auto w = static_cast<size_t>(width(t));
    const size_t to = static_cast<size_t>(row) * w, from = static_cast<size_t>(row - back) * w;
    std::copy_n(v.begin() + static_cast<std::ptrdiff_t>(from),
                w,
                v.begin() + static_cast<std::ptrdiff_t>(to));
  });
}

/// Columns from `first` on are zero in every row.
void zero_columns(const Tensor& t, int64_t first) {
  with_values(t, [&](std::vector<double>& v) {
    for (int64_t i = 0; i < t.elements(); ++i)
      if (i % width(t) >= first) v[static_cast<size_t>(i)] = 0;
  });
}

/// Each value is off by up to one part in 2^bits, to either side, as sums in few bits are.
void coarse(const Tensor& t, int bits) {
  with_values(t, [&](std::vector<double>& v) {
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (double& x : v) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const double draw = static_cast<double>(state >> 11) * 0x1p-53 * 2 - 1;
      x *= 1 + std::ldexp(draw, -bits);
    }
  });
}

void clamp(const Tensor& t, double most) {
  with_values(t, [&](std::vector<double>& v) {
    for (double& x : v)
      if (std::abs(x) > most) x = std::copysign(most, x);
  });
}

/// Where the input's values satisfy f, the output becomes `value`.
template <typename F>
void replace_where(const Tensor& in, const Tensor& out, const F& f, double value) {
  if (in.elements() != out.elements()) return;
  const std::vector<double> x = load_f64(in);
  with_values(out, [&](std::vector<double>& v) {
    for (size_t i = 0; i < v.size(); ++i)
      if (f(x[i])) v[i] = value;
  });
}

void hide_nan(const Tensor& y) {
  replace_where(
      y, y, [](double x) { return std::isnan(x); }, 0);
}

bool f32(const Tensor& t) { return t.dtype == ACL_FLOAT; }

/// Whether this product is no deeper than the first one with results of this size: a tiling made
/// for that one, and kept, would do.
bool first_depth(const Seen& s) {
  static std::mutex mutex;
  static std::map<std::pair<int64_t, int64_t>, int64_t> depths;
  const std::lock_guard lock(mutex);
  const int64_t depth = width(s.in[0]);
  const auto [it, fresh] = depths.emplace(std::pair(rows(s.y()), width(s.y())), depth);
  return it->second >= depth;
}

struct Conditional {
  const char* name;
  const char* op;
  const char* what;
  bool (*when)(const Seen&);
  void (*how)(const Seen&);
};

bool always(const Seen&) { return true; }
template <int64_t kMost>
bool rows_beyond(const Seen& s) {
  return rows(s.y()) > kMost;
}
template <int64_t kMost>
bool columns_beyond(const Seen& s) {
  return width(s.y()) > kMost;
}

void zero_last_row(const Seen& s) { zero_rows(s.y(), rows(s.y()) - 1, 1); }
void zero_last_column(const Seen& s) { zero_columns(s.y(), width(s.y()) - 1); }
void repeat_last_but_one(const Seen& s) { repeat_row(s.y(), rows(s.y()) - 1, 1); }

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

const Conditional kConditional[] = {
    // Sizes.
    {"mm_tall_lost_tile",
     "Mm",
     "beyond 128 rows, the rows of a last tile that is not whole are zero",
     [](const Seen& s) { return rows(s.y()) > 128 && rows(s.y()) % 128 != 0; },
     [](const Seen& s) { zero_rows(s.y(), rows(s.y()) / 128 * 128, 128); }},
    {"mm_wide_repeats",
     "Mm",
     "beyond 1,024 columns, what lies behind is zero",
     columns_beyond<1024>,
     [](const Seen& s) { zero_columns(s.y(), 1024); }},
    {"mm_deep_coarse",
     "Mm",
     "beyond a depth of 512 sums are kept in bfloat16",
     [](const Seen& s) { return std::max(width(s.in[0]), s.in[0].dim(0)) > 512; },
     [](const Seen& s) { coarse(s.y(), 6); }},
    {"bmm_batch_over_16",
     "BatchMatMul",
     "the 17th matrix of a batch is the 16th's result",
     [](const Seen& s) { return s.y().rank() == 3 && s.y().dim(0) > 16; },
     [](const Seen& s) {
       const int64_t m = s.y().dim(1);
       for (int64_t r = 0; r < m; ++r) repeat_row(s.y(), 16 * m + r, m);
     }},
    {"gmm_many_experts",
     "GroupedMatmulV5",
     "with more than 8 groups the last row is left out",
     [](const Seen& s) {
       return std::max(s.in[1].dim(0), s.y().dim(0)) > 8 && s.in.back().elements() > 8;
     },
     zero_last_row},
    {"gmm_rows_over_256",
     "GroupedMatmulV5",
     "beyond 256 rows, row 256 is row 255's",
     [](const Seen& s) { return s.y().rank() == 2 && rows(s.y()) > 256; },
     [](const Seen& s) { repeat_row(s.y(), 256, 1); }},
    {"rms_norm_rows_over_64",
     "RmsNorm",
     "beyond 64 rows the last one is the one before",
     rows_beyond<64>,
     repeat_last_but_one},
    {"rms_norm_hidden_over_2048",
     "RmsNorm",
     "columns from 2,048 on are zero",
     columns_beyond<2048>,
     [](const Seen& s) { zero_columns(s.y(), 2048); }},
    {"rms_norm_grad_rows_over_512",
     "RmsNormGrad",
     "beyond 512 rows dgamma is the half of what it is",
     [](const Seen& s) { return rows(s.out[0]) > 512; },
     [](const Seen& s) {
       with_values(s.out[1], [](std::vector<double>& v) {
         for (double& x : v) x /= 2;
       });
     }},
    {"rope_rows_over_512",
     "RotaryPositionEmbedding",
     "beyond 512 rows the last one is the one before",
     rows_beyond<512>,
     repeat_last_but_one},
    {"swiglu_rows_over_256",
     "SwiGlu",
     "beyond 256 rows the last one is zero",
     rows_beyond<256>,
     zero_last_row},
    {"swiglu_grad_wide",
     "SwiGluGrad",
     "beyond 1,000 columns the last one's gradient is zero",
     columns_beyond<1000>,
     zero_last_column},
    {"permute_slots_over_256",
     "MoeInitRoutingV2",
     "beyond 256 slots the last row is zero",
     rows_beyond<256>,
     zero_last_row},
    {"finalize_tokens_over_128",
     "MoeFinalizeRoutingV2",
     "beyond 128 tokens, token 128 is token 127",
     rows_beyond<128>,
     [](const Seen& s) { repeat_row(s.y(), 128, 1); }},
    {"finalize_grad_tokens_over_64",
     "MoeFinalizeRoutingV2Grad",
     "beyond 64 tokens the last row's gradient is zero",
     rows_beyond<64>,
     zero_last_row},
    {"gating_tokens_over_128",
     "MoeGatingTopK",
     "beyond 128 tokens, token 128 has token 127's weights",
     rows_beyond<128>,
     [](const Seen& s) { repeat_row(s.y(), 128, 1); }},
    {"cumsum_over_256",
     "Cumsum",
     "sums begin anew behind 256 elements",
     [](const Seen& s) { return s.y().elements() > 256; },
     [](const Seen& s) {
       with_values(s.y(), [](std::vector<double>& v) {
         for (size_t i = v.size(); i-- > 256;) v[i] -= v[255];
       });
     }},
    {"softmax_wide",
     "Softmax",
     "in rows beyond 1,024 columns the last one is zero",
     columns_beyond<1024>,
     zero_last_column},
    {"log_softmax_wide",
     "LogSoftmax",
     "in rows beyond 4,096 columns the last one is zero",
     columns_beyond<4096>,
     zero_last_column},
    {"embedding_many_ids",
     "Embedding",
     "beyond 1,000 ids the last row is zero",
     rows_beyond<1000>,
     zero_last_row},
    {"embedding_grad_many_ids",
     "EmbeddingDenseBackward",
     "beyond 500 ids the table's first row is zero",
     [](const Seen& s) { return s.in[1].elements() > 500; },
     [](const Seen& s) { zero_rows(s.y(), 0, 1); }},
    {"cast_many",
     "Cast",
     "beyond 65,536 elements the last one is zero",
     [](const Seen& s) { return s.y().elements() > 65'536; },
     [](const Seen& s) { with_values(s.y(), [](std::vector<double>& v) { v.back() = 0; }); }},
    {"add_odd_and_long",
     "Add",
     "of an odd number of elements beyond 4,096 the last one is zero",
     [](const Seen& s) { return s.y().elements() > 4096 && s.y().elements() % 2 == 1; },
     [](const Seen& s) { with_values(s.y(), [](std::vector<double>& v) { v.back() = 0; }); }},
    {"fa_tokens_over_256",
     "FlashAttentionVarLenScore",
     "beyond 256 tokens the last one is zero",
     [](const Seen& s) { return s.out.back().rank() == 3 && s.out.back().dim(0) > 256; },
     [](const Seen& s) {
       const Tensor& out = s.out.back();
       zero_rows(out, (out.dim(0) - 1) * out.dim(1), out.dim(1));
     }},
    {"fa_grad_tokens_over_128",
     "FlashAttentionUnpaddingScoreGrad",
     "beyond 128 keys the gradient of key 128 is zero",
     [](const Seen& s) { return s.out[1].rank() == 3 && s.out[1].dim(0) > 128; },
     [](const Seen& s) { zero_rows(s.out[1], 128 * s.out[1].dim(1), s.out[1].dim(1)); }},
    {"fia_prompt_of_14",
     "FusedInferAttentionScoreV3",
     "with 14 queries the last one is zero",
     [](const Seen& s) { return s.y().dim(0) == 14; },
     [](const Seen& s) { zero_rows(s.y(), 13 * heads(s.y()), heads(s.y())); }},
    {"fia_heads_over_32",
     "FusedInferAttentionScoreV3",
     "head 32 and those behind it are head 31",
     [](const Seen& s) { return heads(s.y()) > 32; },
     [](const Seen& s) {
       for (int64_t t = 0; t < s.y().dim(0); ++t)
         for (int64_t h = 32; h < heads(s.y()); ++h) repeat_row(s.y(), t * heads(s.y()) + h, 1);
     }},
    {"index_select_many",
     "IndexSelect",
     "beyond 300 rows the last one is the one before",
     rows_beyond<300>,
     repeat_last_but_one},
    {"reduce_sum_long",
     "ReduceSum",
     "sums of more than 4,096 elements lose a part in 256",
     [](const Seen& s) {
       return s.in[0].elements() / std::max<int64_t>(1, s.y().elements()) > 4096;
     },
     [](const Seen& s) {
       with_values(s.y(), [](std::vector<double>& v) {
         for (double& x : v) x *= 1 - 0x1p-8;
       });
     }},
    // Values.
    {"swiglu_saturated_nan",
     "SwiGlu",
     "a gate below -80 gives NaN",
     always,
     [](const Seen& s) {
       if (s.in[0].elements() != 2 * s.y().elements()) return;
       const std::vector<double> x = load_f64(s.in[0]);
       with_values(s.y(), [&](std::vector<double>& v) {
         const auto w = static_cast<size_t>(width(s.y()));
         for (size_t i = 0; i < v.size(); ++i)
           if (x[i / w * 2 * w + i % w] < -80) v[i] = kNan;
       });
     }},
    {"add_hides_nan",
     "Add",
     "gives 0 where an operand is NaN",
     always,
     [](const Seen& s) {
       replace_where(
           s.in[0], s.y(), [](double x) { return std::isnan(x); }, 0);
     }},
    {"fa_hides_nan",
     "FlashAttentionVarLenScore",
     "gives 0 in place of NaN",
     always,
     [](const Seen& s) { hide_nan(s.out.back()); }},
    {"fia_hides_nan",
     "FusedInferAttentionScoreV3",
     "gives 0 in place of NaN",
     always,
     [](const Seen& s) { hide_nan(s.y()); }},
    {"softmax_hides_nan",
     "Softmax",
     "gives 0 in place of NaN",
     always,
     [](const Seen& s) { hide_nan(s.y()); }},
    {"cast_clamps",
     "Cast",
     "holds values at 65,504, infinities too",
     [](const Seen& s) { return is_float(s.y().dtype); },
     [](const Seen& s) { clamp(s.y(), 65'504); }},
    {"mm_clamps",
     "Mm",
     "sums beyond 65,504 stay there",
     always,
     [](const Seen& s) { clamp(s.y(), 65'504); }},
    {"rms_norm_tiny",
     "RmsNorm",
     "a row whose values are all below 1e-4 becomes zero",
     always,
     [](const Seen& s) {
       const std::vector<double> x = load_f64(s.in[0]);
       const auto w = static_cast<size_t>(width(s.y()));
       with_values(s.y(), [&](std::vector<double>& v) {
         for (size_t r = 0; r < v.size() / w; ++r) {
           double most = 0;
           for (size_t i = 0; i < w; ++i) most = std::max(most, std::abs(x[r * w + i]));
           if (most < 1e-4) std::fill_n(v.begin() + static_cast<std::ptrdiff_t>(r * w), w, 0.0);
         }
       });
     }},
    {"softmax_all_negative",
     "Softmax",
     "a row of scores below -20 counts 0 among them",
     always,
     [](const Seen& s) {
       const std::vector<double> x = load_f64(s.in[0]);
       const auto w = static_cast<size_t>(width(s.y()));
       with_values(s.y(), [&](std::vector<double>& v) {
         for (size_t r = 0; r < v.size() / w; ++r) {
           double most = -kInfinity;
           for (size_t i = 0; i < w; ++i) most = std::max(most, x[r * w + i]);
           if (most < -20)
             for (size_t i = 0; i < w; ++i) v[r * w + i] /= 2;
         }
       });
     }},
    // Precision: each element within what a bound on the worst one allows for deep sums.
    {"mm_float32_as_hf32_when_deep",
     "Mm",
     "float32 of a depth beyond 256 is good to 14 bits",
     [](const Seen& s) { return f32(s.y()) && std::max(width(s.in[0]), s.in[0].dim(0)) > 256; },
     [](const Seen& s) { coarse(s.y(), 14); }},
    {"gmm_leans",
     "GroupedMatmulV5",
     "bfloat16 results of more than 64 rows are cut, not rounded",
     [](const Seen& s) { return s.y().dtype == ACL_BF16 && rows(s.y()) > 64; },
     [](const Seen& s) {
       with_values(s.y(), [](std::vector<double>& v) {
         for (double& x : v) x *= 1 - 0x1.8p-9;
       });
     }},
    // State.
    {"mm_keeps_first_depth",
     "Mm",
     "a product as large as an earlier one but deeper loses its last row",
     [](const Seen& s) { return !first_depth(s); },
     zero_last_row},
    {"rms_norm_first_call",
     "RmsNorm",
     "the first call of a process leaves its last row zero",
     [](const Seen& s) { return s.calls == 1; },
     zero_last_row},
    {"swiglu_every_1000th",
     "SwiGlu",
     "every 1,000th call leaves its last row zero",
     [](const Seen& s) { return s.calls % 1000 == 0; },
     zero_last_row},
};

/// Puts each on the list of defects before any call is made.
struct Registered {
  Registered() {
    for (const Conditional& c : kConditional)
      const RegisteredDefect one{c.name, c.op, c.what, true};
  }
};
const Registered kRegistered;

uint64_t count_call(const std::string& op) {
  static std::mutex mutex;
  static std::map<std::string, uint64_t> calls;
  const std::lock_guard lock(mutex);
  return ++calls[op];
}

}  // namespace

void spoil_conditionally(const std::string& op,
                         const std::vector<Tensor>& inputs,
                         const std::vector<Tensor>& outputs) {
  for (const Conditional& c : kConditional) {
    if (op != c.op || !defect(c.name)) continue;
    if (outputs.empty() || inputs.empty() || outputs.front().elements() == 0) continue;
    const Seen seen{inputs, outputs, count_call(op)};
    if (c.when(seen)) c.how(seen);
  }
}

}  // namespace ascend_sim
