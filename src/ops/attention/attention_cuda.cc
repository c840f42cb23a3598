// One kernel forward; on the way back one for the rows' sums, one for queries, and one for the keys
// of each run of queries.
#include "ops/attention/attention_cuda.h"

#include "ops/attention/attention_blocks.h"
#include "ops/attention/attention_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("attention");
  return code;
}

AttentionOperand operand(const View& v) {
  return v.given() ? AttentionOperand{v.data, v.stride[0], v.stride[1]} : AttentionOperand{};
}

void check_depth(const View& v, Stream& stream) {
  if (v.shape[2] > kAttentionDepthMax)
    throw DeviceError(
        stream.device().name(),
        0,
        fmt::format("attention: {} has a kernel for heads of up to {} columns, not {}",
                    stream.device().name(),
                    kAttentionDepthMax,
                    v.shape[2]));
}

unsigned narrow(int64_t size) {
  constexpr int64_t kGridYMax = 65535;
  check(size <= kGridYMax, "attention: {} heads on CUDA", size);
  return static_cast<unsigned>(size);
}

}  // namespace

void attention_forward(const Plan&, const AttentionArgs& a, void*, Stream& stream) {
  check_depth(a.q, stream);
  check_depth(a.v, stream);
  if (a.q.shape[0] == 0) return;
  const AttentionCuda args{.q = operand(a.q),
                           .k = operand(a.k),
                           .k_tail = operand(a.k_tail),
                           .v = operand(a.v),
                           .out = operand(a.out),
                           .position = a.position.as<int32_t>(),
                           .key_begin = a.key_begin.as<int32_t>(),
                           .pages = a.pages.as<int32_t>(),
                           .lse = a.lse.as<float>(),
                           .heads = a.q.shape[1],
                           .key_heads = a.k.shape[1],
                           .d_qk = a.q.shape[2],
                           .d_k = a.k.shape[2],
                           .d_v = a.v.shape[2],
                           .scale = a.scale};
  code().launch(stream,
                by_type(a.q.dtype, "attention_f32", "attention_bf16"),
                {blocks_of(a.q.shape[0], 1), narrow(args.heads)},
                {kAttentionThreads},
                args);
}

Plan attention_backward_plan(const AttentionBackwardArgs& a) {
  return {.workspace_bytes = static_cast<size_t>(a.q.shape[0] * a.q.shape[1]) * sizeof(float)};
}

void attention_backward(const Plan& plan,
                        const AttentionBackwardArgs& a,
                        void* workspace,
                        Stream& stream) {
  check_depth(a.q, stream);
  check_depth(a.v, stream);
  for (const View* v : {&a.d_k, &a.d_v})  // keys that no query looks at
    if (v->given())
      stream.device().fill_zero(v->data, static_cast<size_t>(v->count()) * size_of(v->dtype));
  stream.begin("attention_backward");
  if (a.q.shape[0] == 0) return;
  AttentionBackwardCuda args{.q = operand(a.q),
                             .k = operand(a.k),
                             .v = operand(a.v),
                             .out = operand(a.out),
                             .d_out = operand(a.d_out),
                             .d_q = operand(a.d_q),
                             .d_k = operand(a.d_k),
                             .d_v = operand(a.d_v),
                             .position = a.position.as<int32_t>(),
                             .key_begin = a.key_begin.as<int32_t>(),
                             .lse = a.lse.as<float>(),
                             .delta = static_cast<float*>(workspace),
                             .tokens = a.q.shape[0],
                             .heads = a.q.shape[1],
                             .key_heads = a.k.shape[1],
                             .d_qk = a.q.shape[2],
                             .d_v_columns = a.v.shape[2],
                             .scale = a.scale};
  code().launch(stream,
                by_type(a.q.dtype, "attention_delta_f32", "attention_delta_bf16"),
                rows_grid(args.tokens * args.heads),
                kRowsBlock,
                args);
  code().launch(stream,
                by_type(a.q.dtype, "attention_queries_f32", "attention_queries_bf16"),
                {blocks_of(args.tokens, 1), narrow(args.heads)},
                {kAttentionThreads},
                args);
  for (const QueryRun& run : find_runs(*plan.segments)) {
    args.run_begin = run.begin;
    args.run_end = run.end;
    args.run_key_begin = run.key_begin;
    code().launch(stream,
                  by_type(a.q.dtype, "attention_keys_f32", "attention_keys_bf16"),
                  {blocks_of(run.keys, 1), narrow(args.key_heads)},
                  {kAttentionThreads},
                  args);
  }
}

}  // namespace ferry::ops::cuda
