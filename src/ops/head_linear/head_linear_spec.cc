// What head_linear promises, on every device. Its kernel is matmul's.
#include "ops/head_linear/head_linear.h"
#include "ops/head_linear/head_linear_reference.h"
#include "ops/matmul/matmul_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct HeadShape {
  int64_t tokens, heads, rank;
  int64_t wider = 0;  // x is a slice of a last dimension wider by this
};

OpCase head_case(
    DType x, DType w, const HeadShape& s, const HeadLinear& options, bool benchmark = false) {
  const int64_t inputs = options.transpose ? s.rank : options.rows,
                outputs = options.transpose ? options.rows : s.rank;
  const Shape w_shape{s.heads * options.rows_per_head, s.rank};
  OpCase c;
  c.name = fmt::format("{} x {} [{}, {}, {}+{}] rows {}+{} of {} rank {}{}",
                       to_string(x),
                       to_string(w),
                       s.tokens,
                       s.heads,
                       inputs,
                       s.wider,
                       options.begin,
                       options.rows,
                       options.rows_per_head,
                       s.rank,
                       options.transpose ? " transposed" : "");
  c.inputs = {{.name = "x",
               .shape = {s.tokens, s.heads, inputs + s.wider},
               .dtype = x,
               .gradient = true,
               .rows = true},
              bf16_exact_input("w", w_shape, w, 7)};
  c.inputs[1].gradient = w == DType::kF32;  // trained weights are f32
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight weight{.name = "w", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    return {head_linear(in[0].slice(2, 0, inputs), weight, options)};
  };
  const auto sliced = [=]<class T>(const RefArray<T>& wide) {
    RefArray<T> narrow({wide.shape[0], s.heads, inputs});
    for (int64_t r = 0; r < wide.shape[0] * s.heads; ++r)
      for (int64_t i = 0; i < inputs; ++i)
        narrow[r * inputs + i] = wide[r * (inputs + s.wider) + i];
    return narrow;
  };
  c.reference = [=](const auto& in) {
    return std::vector{head_linear_reference(sliced(in[0]), in[1], options)};
  };
  const auto tolerance = [=](int64_t roundings) {
    return [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
      return matmul_tolerance(
          y,
          head_linear_reference(absolute(sliced(in[0])), absolute(in[1]), options),
          roundings,
          x);
    };
  };
  c.tolerance = tolerance(inputs);
  if (x == DType::kBF16) c.tensor_tolerance = tolerance(tensor_roundings(inputs));
  c.flops = 2.0 * static_cast<double>(s.tokens * s.heads * inputs * outputs);
  c.bytes = static_cast<double>(s.tokens * s.heads * (inputs + outputs)) *
                static_cast<double>(size_of(x)) +
            static_cast<double>(s.heads * options.rows * s.rank) * static_cast<double>(size_of(w));
  c.benchmark = benchmark;
  return c;
}

}  // namespace

OpSpec head_linear_spec() {
  OpSpec spec{.op = "head_linear", .kernels = {}, .cases = {}};
  for (const DType x : {DType::kF32, DType::kBF16})
    for (const bool transpose : {false, true}) {
      spec.cases.push_back(head_case(
          x, DType::kF32, {1, 1, 1}, {.rows_per_head = 1, .rows = 1, .transpose = transpose}));
      spec.cases.push_back(
          head_case(x,
                    DType::kF32,
                    {7, 3, 33},
                    {.rows_per_head = 30, .begin = 11, .rows = 17, .transpose = transpose}));
      spec.cases.push_back(head_case(x,
                                     DType::kF32,
                                     {19, 2, 64, 9},
                                     {.rows_per_head = 48, .rows = 32, .transpose = transpose}));
      spec.cases.push_back(
          head_case(x,
                    DType::kBF16,
                    {1, 4, 129},
                    {.rows_per_head = 32, .begin = 16, .rows = 16, .transpose = transpose}));
      spec.cases.push_back(head_case(x,
                                     DType::kF32,
                                     {2048, 12, 256, 32},
                                     {.rows_per_head = 128, .rows = 64, .transpose = transpose},
                                     true));
    }
  return spec;
}

}  // namespace ferry::ops
