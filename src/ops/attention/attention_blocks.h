// How the CPU kernels of attention cut their work: runs of queries that share their keys, blocks of
// rows, and the workspace that all this takes. No arithmetic: the cuts change speed, never bits.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/attention/attention_kernels.h"
#include "ops/segments.h"

namespace ferry::ops {

/// Consecutive queries [begin, end) whose documents begin at the same key row. A "row" of a run and
/// a key head is one query of one of the `group` heads that share the key head: token-major.
struct QueryRun {
  int32_t begin, end;
  int32_t key_begin;
  int32_t keys;  // that any of them sees
};

/// Rows [row_begin, row_end) of a run, for one key head.
struct QueryBlock {
  QueryRun run;
  int32_t head;  // of k and v
  int32_t row_begin, row_end;
};

/// Time it takes, in units that only compare.
inline int64_t cost(const QueryBlock& b) { return int64_t{b.row_end - b.row_begin} * b.run.keys; }

constexpr int64_t kBlockRows = 64;     // rows that are lanes of one product
constexpr int64_t kTaskRows = 4 * 64;  // of one forward task: blocks that share packed values

/// Writes the runs in order and returns their number (at most `tokens`).
int64_t find_runs(const int32_t* position,
                  const int32_t* key_begin,
                  int64_t tokens,
                  QueryRun* runs);
std::vector<QueryRun> find_runs(const HostSegments& segments);

/// Writes the tasks of the forward pass, dearest first, and returns their number. Where there would
/// be fewer than threads (one sequence that is answered, its heads sharing their keys), rows are cut
/// finer: no bit depends on it.
int64_t forward_tasks(const AttentionArgs& args, int threads, QueryRun* runs, QueryBlock* tasks);

/// Writes one task for each run and key head, dearest first, and returns their number.
int64_t backward_tasks(const AttentionBackwardArgs& args, QueryRun* runs, QueryBlock* tasks);

/// Hands out parts of the workspace, each at a multiple of 64 bytes. With a null base it only
/// counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  T* take(int64_t count) {
    char* const p = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(p);
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

/// Where the forward pass works. Operands are f32 whatever q's type (see ops/cpu/tile_product.h);
/// depths, and keys as a contraction, are padded by zeros to an even number.
struct ForwardLayout {
  QueryRun* runs;
  QueryBlock* tasks;
  struct PerBlock {
    float* q;        // [Dqk][64 rows]
    float* sum;      // [Dv][64]: sum of p v, transposed
    float* top;      // [64] largest score so far
    float* total;    // [64] sum of e^(score - top)
    float* visible;  // [64] keys that the row sees
  } block[kTaskRows / kBlockRows];
  float* k_rows;     // [64 keys][Dqk], unless k's own rows serve as they lie
  float* v_columns;  // [Dv][64 keys]
  float* scores;     // [64 keys][64 rows]; then the weights p
  float* shrink;     // [64] e^(old top - new top)
};

/// The same for the gradient.
struct BackwardLayout {
  QueryRun* runs;
  QueryBlock* tasks;
  // Of a run and key head; one set for each thread, or the first for all if they share a run.
  struct PerRun {
    float* k_columns;                  // [Dqk][keys]
    float *d_k, *d_v;                  // [keys][D up to whole vectors]: sums
    float* d_s;                        // [keys][64 rows] of one block of rows
    float *q_lanes, *d_out_lanes;      // [D][64 rows]
    float *q_columns, *d_out_columns;  // [64 rows][D up to whole vectors]
    float *lse, *delta, *visible;      // [64]
  } run;
  // Of a thread.
  struct PerThread {
    float *k_rows, *v_rows;  // [64 keys][D], unless k's and v's own rows serve
    float* p;                // [64 keys][64 rows]: scores, then P
    float* d_p;              // [64 keys][64 rows]
    float* d_q;              // [Dqk][64 rows]
  } thread;
};

ForwardLayout forward_layout(
    const AttentionArgs& args, void* workspace, int thread, int threads, size_t* bytes);
BackwardLayout backward_layout(
    const AttentionBackwardArgs& args, void* workspace, int thread, int threads, size_t* bytes);

Plan plan_attention_forward(const AttentionArgs& args);
Plan plan_attention_backward(const AttentionBackwardArgs& args);

}  // namespace ferry::ops
