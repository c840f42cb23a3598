// Our linear against oneDNN's matmul, in turns within one run: the shapes of training (f32 master
// weights, converted and packed in every call; oneDNN is given bf16 ones) and of decoding (bf16
// weights, which each side has packed once as it prefers).
// Each call takes another copy of the weights, so that they come from beyond L2 as in a model. Ends
// with a line of JSON. With an argument (square, train, d_x, d_w, decode) only that part.
#include <dnnl.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "base/cpu_tier.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul.h"

namespace ferry {
namespace {

constexpr double kWeightBytes = 48e6;  // of all copies of a shape's weight
constexpr int kRepetitions = 9;
constexpr double kWarm_s = 0.05, kMeasured_s = 0.015;

double now_s() { return system_clock().monotonic_s(); }

/// Seconds per call over kMeasured_s, after calling for kWarm_s: the other side's threads spin for
/// up to that long (OpenMP's: 300,000 pauses).
double time_calls(const std::function<void()>& call) {
  const double warm = now_s() + kWarm_s;
  do call();
  while (now_s() < warm);
  int calls = 0;
  const double begin = now_s();
  double end = begin;
  do {
    call();
    ++calls;
    end = now_s();
  } while (end < begin + kMeasured_s);
  return (end - begin) / calls;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<long>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

struct Comparison {
  double ours_s, theirs_s, ratio;
};  // medians; ratio: theirs / ours, pair by pair

Comparison compare(const std::function<void()>& ours, const std::function<void()>& theirs) {
  std::vector<double> a, b, ratios;
  for (int r = 0; r < kRepetitions; ++r) {
    a.push_back(time_calls(ours));
    b.push_back(time_calls(theirs));
    ratios.push_back(b.back() / a.back());
  }
  return {median(a), median(b), median(ratios)};
}

std::vector<float> normal_values(int64_t count, uint64_t stream) {
  // A short period is enough: arithmetic does not depend on the values.
  constexpr int64_t kPeriod = 4099;
  const Random random(1, RandomPurpose::kTest, stream);
  std::vector<float> v(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    v[static_cast<size_t>(i)] = i < kPeriod
                                    ? static_cast<float>(random.normal(static_cast<uint64_t>(i)))
                                    : v[static_cast<size_t>(i - kPeriod)];
  return v;
}

Tensor normal(const Shape& shape, DType dtype, uint64_t stream) {
  Tensor t = Tensor::empty(shape, dtype, cpu_device());
  t.assign_f32(normal_values(shape.count(), stream));
  return t;
}

dnnl::engine& engine() {
  static dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}

dnnl::memory::data_type dnnl_type(DType t) {
  return t == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

/// c[m, n] = a b with the strides given, on the tensors' memory; b packed beforehand if asked to.
class Peer {
 public:
  using Tag = dnnl::memory::format_tag;

  Peer(const Tensor& a,
       Tag a_tag,
       const std::vector<Tensor>& bs,
       Tag b_tag,
       bool pack_b,
       int64_t m,
       int64_t n,
       int64_t k,
       DType out)
      : stream_(engine()), c_(Tensor::empty({m, n}, out, cpu_device())) {
    using dnnl::memory;
    const memory::desc a_desc({m, k}, dnnl_type(a.dtype()), a_tag),
        b_plain({k, n}, dnnl_type(bs[0].dtype()), b_tag);
    const memory::desc b_desc =
        pack_b ? memory::desc({k, n}, dnnl_type(bs[0].dtype()), Tag::any) : b_plain;
    const memory::desc c_desc({m, n}, dnnl_type(out), Tag::ab);
    const dnnl::matmul::primitive_desc desc({a_desc, b_desc, c_desc}, engine());
    matmul_ = dnnl::matmul(desc);
    name_ = desc.impl_info_str();
    a_ = memory(a_desc, engine(), a.data());
    out_ = memory(c_desc, engine(), c_.data());
    for (const Tensor& b : bs) {
      memory plain(b_plain, engine(), b.data());
      if (!pack_b) {
        bs_.push_back(plain);
        continue;
      }
      memory packed(desc.weights_desc(), engine());
      dnnl::reorder(plain, packed).execute(stream_, plain, packed);
      bs_.push_back(packed);
    }
    stream_.wait();
  }

  void operator()() {
    next_ = (next_ + 1) % bs_.size();
    matmul_.execute(stream_,
                    {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, bs_[next_]}, {DNNL_ARG_DST, out_}});
    stream_.wait();
  }
  const std::string& name() const { return name_; }

 private:
  dnnl::stream stream_;
  Tensor c_;
  dnnl::matmul matmul_;
  dnnl::memory a_, out_;
  std::vector<dnnl::memory> bs_;
  size_t next_ = 0;
  std::string name_;
};

struct LinearShape {
  int64_t tokens, inputs, outputs;
};

std::vector<Weight> make_weights(const LinearShape& s, DType dtype) {
  const double bytes =
      static_cast<double>(s.inputs * s.outputs) * static_cast<double>(size_of(dtype));
  const int copies = std::max(1, static_cast<int>(kWeightBytes / bytes));
  std::vector<Weight> weights;
  weights.reserve(static_cast<size_t>(copies));
  for (int i = 0; i < copies; ++i)
    weights.push_back({.name = "w",
                       .global_shape = {s.outputs, s.inputs},
                       .shard = {},
                       .value = normal({s.outputs, s.inputs}, dtype, 10)});
  return weights;
}

std::vector<Tensor> values(const std::vector<Weight>& weights) {
  std::vector<Tensor> out;
  out.reserve(weights.size());
  for (const Weight& w : weights) out.push_back(w.value);
  return out;
}

nlohmann::json report(const char* what, DType dtype, const LinearShape& s, const Comparison& c) {
  const double flops = 2.0 * static_cast<double>(s.tokens * s.inputs * s.outputs);
  fmt::print(
      "{:8} {:4} {:5} x {:5} -> {:5}  {:9.1f} us {:6.0f} GFLOP/s   oneDNN {:9.1f} us {:6.0f} "
      "GFLOP/s   {:.2f}x\n",
      what,
      to_string(dtype),
      s.tokens,
      s.inputs,
      s.outputs,
      c.ours_s * 1e6,
      flops / c.ours_s / 1e9,
      c.theirs_s * 1e6,
      flops / c.theirs_s / 1e9,
      c.ratio);
  std::fflush(stdout);
  return {{"what", what},
          {"dtype", to_string(dtype)},
          {"tokens", s.tokens},
          {"inputs", s.inputs},
          {"outputs", s.outputs},
          {"ours_us", c.ours_s * 1e6},
          {"onednn_us", c.theirs_s * 1e6},
          {"ratio", c.ratio}};
}

nlohmann::json training(DType dtype, const LinearShape& s) {
  const Tensor x = normal({s.tokens, s.inputs}, dtype, 1);
  const std::vector<Weight> weights = make_weights(s, DType::kF32);
  std::vector<Tensor> plain;
  for (const Weight& w : make_weights(s, dtype)) plain.push_back(w.value);
  Peer peer(x, Peer::Tag::ab, plain, Peer::Tag::ba, false, s.tokens, s.outputs, s.inputs, dtype);
  size_t next = 0;
  return report("train",
                dtype,
                s,
                compare([&] { ops::linear(x, weights[next = (next + 1) % weights.size()]); },
                        [&] { peer(); }));
}

/// d_w[outputs, inputs] = d_yᵀ x: the contraction is over tokens.
nlohmann::json weight_gradient(DType dtype, const LinearShape& s) {
  const Tensor x = normal({s.tokens, s.inputs}, dtype, 1),
               d_y = normal({s.tokens, s.outputs}, dtype, 2);
  Peer peer(
      d_y, Peer::Tag::ba, {x}, Peer::Tag::ab, false, s.outputs, s.inputs, s.tokens, DType::kF32);
  return report("d_w",
                dtype,
                s,
                compare([&] { ops::matmul(d_y, x, {.transpose_a = true, .out = DType::kF32}); },
                        [&] { peer(); }));
}

nlohmann::json input_gradient(DType dtype, const LinearShape& s) {
  const Tensor d_y = normal({s.tokens, s.outputs}, dtype, 2);
  const std::vector<Weight> weights = make_weights(s, DType::kF32);
  std::vector<Tensor> plain;
  for (const Weight& w : make_weights(s, dtype)) plain.push_back(w.value);
  Peer peer(d_y, Peer::Tag::ab, plain, Peer::Tag::ab, false, s.tokens, s.inputs, s.outputs, dtype);
  size_t next = 0;
  return report(
      "d_x",
      dtype,
      s,
      compare([&] { ops::matmul(d_y, weights[next = (next + 1) % weights.size()].value); },
              [&] { peer(); }));
}

nlohmann::json decoding(const LinearShape& s) {
  const Tensor x = normal({s.tokens, s.inputs}, DType::kBF16, 1);
  const std::vector<Weight> weights = make_weights(s, DType::kBF16);
  Peer peer(x,
            Peer::Tag::ab,
            values(weights),
            Peer::Tag::ba,
            true,
            s.tokens,
            s.outputs,
            s.inputs,
            DType::kBF16);
  size_t next = 0;
  return report("decode",
                DType::kBF16,
                s,
                compare([&] { ops::linear(x, weights[next = (next + 1) % weights.size()]); },
                        [&] { peer(); }));
}

nlohmann::json large(DType dtype) {
  const LinearShape s{2048, 2048, 2048};
  const Tensor a = normal({2048, 2048}, dtype, 1), b = normal({2048, 2048}, dtype, 2);
  Peer peer(a, Peer::Tag::ab, {b}, Peer::Tag::ab, false, 2048, 2048, 2048, dtype);
  return report("square", dtype, s, compare([&] { ops::matmul(a, b); }, [&] { peer(); }));
}

#if defined(__x86_64__)
constexpr int64_t kSteps = 200000;
constexpr int kChains = 24;

// The rate of the instruction alone: independent chains in registers, nothing loaded. asm, because
// the compiler would fold chains of constants.
#define FERRY_CHAINS(instruction)                                                               \
  for (int64_t i = 0; i < kSteps; ++i)                                                          \
  asm volatile(instruction(2) instruction(3) instruction(4) instruction(5) instruction(6)       \
                   instruction(7) instruction(8) instruction(9) instruction(10) instruction(11) \
                       instruction(12) instruction(13) instruction(14) instruction(15)          \
                           instruction(16) instruction(17) instruction(18) instruction(19)      \
                               instruction(20) instruction(21) instruction(22) instruction(23)  \
                                   instruction(24) instruction(25)::                            \
                                       : "xmm2",                                                \
                                         "xmm3",                                                \
                                         "xmm4",                                                \
                                         "xmm5",                                                \
                                         "xmm6",                                                \
                                         "xmm7",                                                \
                                         "xmm8",                                                \
                                         "xmm9",                                                \
                                         "xmm10",                                               \
                                         "xmm11",                                               \
                                         "xmm12",                                               \
                                         "xmm13",                                               \
                                         "xmm14",                                               \
                                         "xmm15",                                               \
                                         "xmm16",                                               \
                                         "xmm17",                                               \
                                         "xmm18",                                               \
                                         "xmm19",                                               \
                                         "xmm20",                                               \
                                         "xmm21",                                               \
                                         "xmm22",                                               \
                                         "xmm23",                                               \
                                         "xmm24",                                               \
                                         "xmm25")
#define FERRY_DOT(r) "vdpbf16ps %%zmm0, %%zmm1, %%zmm" #r "\n"
#define FERRY_FMA(r) "vfmadd231ps %%zmm0, %%zmm1, %%zmm" #r "\n"

__attribute__((target("avx512f"))) void dot_chains() { FERRY_CHAINS(FERRY_DOT); }
__attribute__((target("avx512f"))) void fma_chains() { FERRY_CHAINS(FERRY_FMA); }

/// GFLOP/s of all threads together.
double register_rate(void (*chains)(), double flops_per_instruction) {
  std::vector<double> rates;
  const int threads = cpu_pool().threads();
  for (int r = 0; r < 5; ++r) {
    const double begin = now_s();
    cpu_pool().parallel_for(threads * 8, [&](int64_t, int) { chains(); });
    rates.push_back(8.0 * threads * kSteps * kChains * flops_per_instruction / (now_s() - begin) /
                    1e9);
  }
  return median(rates);
}
#endif

int run(std::string_view part) {
  const auto wanted = [part](std::string_view what) { return part.empty() || part == what; };
  const int threads = cpu_pool().threads();
  // oneDNN's threads are OpenMP's.
  setenv("OMP_NUM_THREADS", std::to_string(threads).c_str(), 1);
  fmt::print("{} threads, tier {}; x is ours against oneDNN {}.{}.{}: above 1 we are faster\n",
             threads,
             to_string(cpu_tier()),
             dnnl::version()->major,
             dnnl::version()->minor,
             dnnl::version()->patch);
  nlohmann::json json{{"bench", "linear"}, {"threads", threads}, {"tier", to_string(cpu_tier())}};
#if defined(__x86_64__)
  if (cpu_has(CpuTier::kAvx512)) {
    json["register_bf16_gflops"] = register_rate(&dot_chains, 64);
    json["register_f32_gflops"] = register_rate(&fma_chains, 32);
    fmt::print("registers only: vdpbf16ps {:.0f} GFLOP/s, f32 fma {:.0f} GFLOP/s\n",
               json["register_bf16_gflops"].get<double>(),
               json["register_f32_gflops"].get<double>());
  }
#endif
  auto& rows = json["rows"] = nlohmann::json::array();
  for (const DType t : {DType::kBF16, DType::kF32})
    if (wanted("square")) rows.push_back(large(t));
  const LinearShape training_shapes[] = {{4096, 320, 320},
                                         {4096, 320, 1152},
                                         {8192, 768, 768},
                                         {8192, 768, 3072},
                                         {8192, 3072, 768},
                                         {1024, 768, 6144},
                                         {1024, 6144, 768}};
  for (const DType t : {DType::kBF16, DType::kF32})
    for (const LinearShape& s : training_shapes)
      if (wanted("train")) rows.push_back(training(t, s));
  for (const DType t : {DType::kBF16, DType::kF32})
    for (const LinearShape& s : {LinearShape{4096, 320, 1152}, LinearShape{8192, 768, 3072}}) {
      if (wanted("d_x")) rows.push_back(input_gradient(t, s));
      if (wanted("d_w")) rows.push_back(weight_gradient(t, s));
    }
  const LinearShape decoding_shapes[] = {{1, 320, 1152},
                                         {1, 768, 768},
                                         {1, 768, 3072},
                                         {1, 3072, 768},
                                         {1, 768, 6144},
                                         {1, 6144, 768}};
  for (LinearShape s : decoding_shapes)
    for (const int64_t tokens : {1, 2, 4, 8}) {
      s.tokens = tokens;
      if (wanted("decode")) rows.push_back(decoding(s));
    }
  fmt::print("{}\n", json.dump());
  return 0;
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) { return ferry::run(argc > 1 ? argv[1] : ""); }
