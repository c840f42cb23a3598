#include "ops/attention/attention_blocks.h"

#include <algorithm>

#include "device/cpu/cpu_device.h"

namespace ferry::ops {
namespace {

constexpr int64_t kRowsLeast = 16;  // of a task: a vector of them

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/// Dearest first, so that threads end together; equal ones in order.
void sort_by_cost(QueryBlock* tasks, int64_t count) {
  std::sort(tasks, tasks + count, [](const QueryBlock& a, const QueryBlock& b) {
    if (cost(a) != cost(b)) return cost(a) > cost(b);
    if (a.run.begin != b.run.begin) return a.run.begin < b.run.begin;
    if (a.head != b.head) return a.head < b.head;
    return a.row_begin < b.row_begin;
  });
}

}  // namespace

int64_t find_runs(const int32_t* position,
                  const int32_t* key_begin,
                  int64_t tokens,
                  QueryRun* runs) {
  int64_t count = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    if (count == 0 || runs[count - 1].key_begin != key_begin[t])
      runs[count++] = {static_cast<int32_t>(t), 0, key_begin[t], 0};
    QueryRun& run = runs[count - 1];
    run.end = static_cast<int32_t>(t + 1);
    run.keys = std::max(run.keys, position[t] + 1);
  }
  return count;
}

std::vector<QueryRun> find_runs(const HostSegments& segments) {
  std::vector<QueryRun> runs(segments.position.size());
  const int64_t count = find_runs(segments.position.data(),
                                  segments.key_begin.data(),
                                  static_cast<int64_t>(runs.size()),
                                  runs.data());
  runs.resize(static_cast<size_t>(count));
  return runs;
}

int64_t forward_tasks(const AttentionArgs& args, int threads, QueryRun* runs, QueryBlock* tasks) {
  const int64_t heads = args.k.shape[1], group = args.q.shape[1] / heads;
  const auto* position = args.position.as<int32_t>();
  const int64_t run_count =
      find_runs(position, args.key_begin.as<int32_t>(), args.q.shape[0], runs);
  const int64_t all_rows = args.q.shape[0] * group * heads,
                together = std::clamp(round_up((all_rows + threads - 1) / threads, kRowsLeast),
                                      kRowsLeast,
                                      kTaskRows);
  int64_t count = 0;
  for (int64_t i = 0; i < run_count; ++i) {
    const int64_t rows = (runs[i].end - runs[i].begin) * group;
    for (int64_t row = 0; row < rows; row += together) {
      QueryBlock task{runs[i],
                      0,
                      static_cast<int32_t>(row),
                      static_cast<int32_t>(std::min(rows, row + together))};
      task.run.keys = 0;
      for (int64_t t = row / group; t <= (task.row_end - 1) / group; ++t)
        task.run.keys = std::max(task.run.keys, position[runs[i].begin + t] + 1);
      for (int64_t head = 0; head < heads; ++head) {
        task.head = static_cast<int32_t>(head);
        tasks[count++] = task;
      }
    }
  }
  sort_by_cost(tasks, count);
  return count;
}

int64_t backward_tasks(const AttentionBackwardArgs& args, QueryRun* runs, QueryBlock* tasks) {
  const int64_t heads = args.k.shape[1], group = args.q.shape[1] / heads;
  const int64_t run_count =
      find_runs(args.position.as<int32_t>(), args.key_begin.as<int32_t>(), args.q.shape[0], runs);
  int64_t count = 0;
  for (int64_t i = 0; i < run_count; ++i)
    for (int64_t head = 0; head < heads; ++head)
      tasks[count++] = {runs[i],
                        static_cast<int32_t>(head),
                        0,
                        static_cast<int32_t>((runs[i].end - runs[i].begin) * group)};
  sort_by_cost(tasks, count);
  return count;
}

ForwardLayout forward_layout(
    const AttentionArgs& a, void* workspace, int thread, int threads, size_t* bytes) {
  const int64_t tokens = a.q.shape[0], heads = a.k.shape[1], group = a.q.shape[1] / heads;
  const int64_t d_qk = round_up(a.q.shape[2], 2), d_v = a.v.shape[2];
  Carver carver(workspace);
  ForwardLayout l{};
  l.runs = carver.take<QueryRun>(tokens);
  // Rows are cut finer than kTaskRows where all of them make few tasks for the threads.
  l.tasks = carver.take<QueryBlock>((tokens + tokens * group / kTaskRows + threads) * heads);
  for (int i = 0; i < (workspace == nullptr ? threads : thread + 1); ++i) {
    for (auto& b : l.block) {
      b.q = carver.take<float>(d_qk * kBlockRows);
      b.sum = carver.take<float>(d_v * kBlockRows);
      b.top = carver.take<float>(kBlockRows);
      b.total = carver.take<float>(kBlockRows);
      b.visible = carver.take<float>(kBlockRows);
    }
    l.k_rows = carver.take<float>(kKeyTile * d_qk);
    l.v_columns = carver.take<float>(d_v * kKeyTile);
    l.scores = carver.take<float>(kKeyTile * kBlockRows);
    l.shrink = carver.take<float>(kBlockRows);
  }
  if (bytes != nullptr) *bytes = carver.used();
  return l;
}

BackwardLayout backward_layout(
    const AttentionBackwardArgs& a, void* workspace, int thread, int threads, size_t* bytes) {
  const int64_t tokens = a.q.shape[0], heads = a.k.shape[1];
  const int64_t d_qk = round_up(a.q.shape[2], 16), d_v = round_up(a.v.shape[2], 16);
  const int64_t keys = round_up(a.longest, kKeyTile);
  Carver carver(workspace);
  BackwardLayout l{};
  l.runs = carver.take<QueryRun>(tokens);
  l.tasks = carver.take<QueryBlock>(tokens * heads);
  for (int i = 0; i < (workspace == nullptr ? threads : thread + 1); ++i) {
    auto& run = l.run;
    run.k_columns = carver.take<float>(d_qk * keys);
    run.d_k = carver.take<float>(keys * d_qk);
    run.d_v = carver.take<float>(keys * d_v);
    run.d_s = carver.take<float>(keys * kBlockRows);
    run.q_lanes = carver.take<float>(d_qk * kBlockRows);
    run.q_columns = carver.take<float>(d_qk * kBlockRows);
    run.d_out_lanes = carver.take<float>(d_v * kBlockRows);
    run.d_out_columns = carver.take<float>(d_v * kBlockRows);
    run.lse = carver.take<float>(kBlockRows);
    run.delta = carver.take<float>(kBlockRows);
    run.visible = carver.take<float>(kBlockRows);
    auto& own = l.thread;
    own.k_rows = carver.take<float>(kKeyTile * d_qk);
    own.v_rows = carver.take<float>(kKeyTile * d_v);
    own.p = carver.take<float>(kKeyTile * kBlockRows);
    own.d_p = carver.take<float>(kKeyTile * kBlockRows);
    own.d_q = carver.take<float>(d_qk * kBlockRows);
  }
  if (bytes != nullptr) *bytes = carver.used();
  return l;
}

Plan plan_attention_forward(const AttentionArgs& args) {
  Plan plan;
  forward_layout(args, nullptr, 0, cpu_pool().threads(), &plan.workspace_bytes);
  return plan;
}

Plan plan_attention_backward(const AttentionBackwardArgs& args) {
  Plan plan;
  backward_layout(args, nullptr, 0, cpu_pool().threads(), &plan.workspace_bytes);
  return plan;
}

}  // namespace ferry::ops
