// Products of bf16 on tensor cores (device cuda-tensor), on software NVIDIA: that each bit is what
// the published model of the hardware gives for sixteen products at a time, k ascending, whatever the
// shape and however the operands lie; that everything else keeps the CPU's bits; that bounds hold,
// and find what is planted. Each case runs in a process of its own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>

#include "autograd/tape.h"
#include "base/random.h"
#include "device/cuda/cuda_device.h"
#include "device_process.h"
#include "ops/add/add.h"
#include "ops/call_check.h"
#include "ops/cast/cast.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/grouped_linear/grouped_linear.h"
#include "ops/head_linear/head_linear.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_cuda_launch.h"
#include "ops/scale/scale.h"
#include "ops/spec_check.h"
#include "tensor/bf16.h"
#include "verify/call_judge.h"
#include "verify/checks.h"

namespace ferry {
namespace {

using device_process::Environment;
using device_process::expect_says;

/// On software NVIDIA; of a person who has a card on what there is (tools/gpu_check.sh).
std::string in_process(Environment environment, const std::function<std::string()>& body) {
  if (std::getenv("FERRY_TESTS_ON_THIS_DEVICE") == nullptr)
    environment.try_emplace("FERRY_CUDA_LIBRARIES", FERRY_NVIDIA_SIM);
  return device_process::in_process(environment, body);
}

Device& device() {
  const Result<Device*> opened = open_device("cuda-tensor");
  if (!opened) throw DeviceError("cuda-tensor:0", -1, opened.error().message);
  return **opened;
}

// --- the model, in float64, of numbers that are normal ----------------------------------------

struct Unit {
  int together;  // products that are added at once
  int bits;      // behind the point of the largest addend
};
constexpr Unit kAmpere{8, 24}, kHopper{16, 25};

double exponent(double x) {
  return x == 0 ? -126 : std::max(std::floor(std::log2(std::abs(x))), -126.0);
}

float cut_to_f32(double x) {
  const auto nearest = static_cast<float>(x);
  return std::abs(static_cast<double>(nearest)) > std::abs(x) ? std::nextafter(nearest, 0.0f)
                                                              : nearest;
}

/// c and the products of so many k from a on, and from b.
float add_products(const Unit& unit, float c, const float* a, const float* b, int64_t count) {
  double largest = exponent(static_cast<double>(c));
  for (int64_t k = 0; k < count; ++k)
    if (a[k] != 0 && b[k] != 0)
      largest = std::max(largest,
                         exponent(static_cast<double>(a[k])) + exponent(static_cast<double>(b[k])));
  const double least = std::exp2(largest - unit.bits);
  double sum = std::trunc(static_cast<double>(c) / least);
  for (int64_t k = 0; k < count; ++k)
    sum += std::trunc(static_cast<double>(a[k]) * static_cast<double>(b[k]) / least);
  return cut_to_f32(sum * least);
}

/// a [m, k] times b [n, k] transposed.
std::vector<float> product(const Unit& unit,
                           const std::vector<float>& a,
                           const std::vector<float>& b,
                           int64_t m,
                           int64_t n,
                           int64_t k,
                           std::vector<float> c = {}) {
  if (c.empty()) c.assign(static_cast<size_t>(m * n), 0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float& sum = c[static_cast<size_t>(i * n + j)];
      for (int64_t at = 0; at < k; at += unit.together)
        sum = add_products(unit,
                           sum,
                           a.data() + i * k + at,
                           b.data() + j * k + at,
                           std::min<int64_t>(unit.together, k - at));
    }
  return c;
}

std::vector<float> bf16_numbers(int64_t count, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 5);
  std::vector<float> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = bf16_to_f32(f32_to_bf16(static_cast<float>(random.normal(i))));
  return out;
}

std::vector<float> transposed(const std::vector<float>& x, int64_t rows, int64_t columns) {
  std::vector<float> out(x.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      out[static_cast<size_t>(c * rows + r)] = x[static_cast<size_t>(r * columns + c)];
  return out;
}

// --- products ----------------------------------------------------------------------------------

/// How an operand is handed over: the numbers are the same.
enum class Handed { kWhole, kOneOff, kF32 };

/// x [rows, columns] of bf16; one element further than where it could be copied from in pieces; or in f32.
Tensor handed(const std::vector<float>& x, int64_t rows, int64_t columns, Handed how) {
  if (how == Handed::kF32) return Tensor::from_f32(x, {rows, columns}, device());
  if (how == Handed::kWhole)
    return ops::cast(Tensor::from_f32(x, {rows, columns}, device()), DType::kBF16);
  std::vector<float> wide(static_cast<size_t>(rows * (columns + 8)));
  for (int64_t r = 0; r < rows; ++r)
    std::copy_n(x.begin() + r * columns, columns, wide.begin() + r * (columns + 8) + 1);
  return ops::cast(Tensor::from_f32(wide, {rows, columns + 8}, device()), DType::kBF16)
      .slice(1, 1, columns + 1);
}

/// What is other than the model says of a product of this shape, in each way to lie.
std::string other_bits(const Unit& unit, int64_t m, int64_t n, int64_t k) {
  const std::vector<float> a = bf16_numbers(m * k, 1), b = bf16_numbers(n * k, 2),
                           expected = product(unit, a, b, m, n, k);
  std::string said;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const Handed of_a : {Handed::kWhole, Handed::kOneOff})
        for (const Handed of_b : {Handed::kWhole, Handed::kOneOff, Handed::kF32}) {
          const Tensor x = ta ? handed(transposed(a, m, k), k, m, of_a) : handed(a, m, k, of_a),
                       y = tb ? handed(b, n, k, of_b) : handed(transposed(b, n, k), k, n, of_b);
          for (const DType out : {DType::kF32, DType::kBF16}) {
            const std::vector<float> got =
                ops::matmul(x, y, {.transpose_a = ta, .transpose_b = tb, .out = out}).to_f32();
            for (size_t i = 0; i < got.size(); ++i) {
              const float its =
                  out == DType::kF32 ? expected[i] : bf16_to_f32(f32_to_bf16(expected[i]));
              if (std::memcmp(&got[i], &its, sizeof its) == 0) continue;
              said += fmt::format("[{}, {}, {}]{}{}, a {}, b {}, {}: element {}: {} for {}; ",
                                  m,
                                  n,
                                  k,
                                  ta ? " a^T" : "",
                                  tb ? " b^T" : "",
                                  static_cast<int>(of_a),
                                  static_cast<int>(of_b),
                                  to_string(out),
                                  i,
                                  got[i],
                                  its);
              break;
            }
          }
        }
  return said;
}

TEST(CudaTensor, SaysWhatItIs) {
  const std::string said =
      in_process({}, [] { return device().name() + ": " + device().describe(); });
  EXPECT_EQ(said.rfind("cuda-tensor:0: software NVIDIA", 0), 0u) << said;
  expect_says(said, {"sm_90", "bf16 products on tensor cores"});
  expect_says(
      in_process({{"FERRY_NVIDIA_SIM_ARCHITECTURE", "80"}}, [] { return device().describe(); }),
      {"sm_80"});
  expect_says(in_process({},
                         [] {
                           const Result<Device*> other = open_device("cuda-matrix");
                           return other ? "opened" : other.error().message;
                         }),
              {"cuda-tensor[:N]"});
}

TEST(CudaTensor, EachBitIsTheModels) {
  const auto try_shapes = [](const Unit& unit) {
    std::string said;
    for (const int64_t k : {1, 15, 16, 17, 40, 72, 129}) said += other_bits(unit, 19, 11, k);
    for (const int64_t m : {1, 16, 128, 130}) said += other_bits(unit, m, 40, 40);
    return said + other_bits(unit, 24, 136, 104) + other_bits(unit, 8, 129, 33);
  };
  EXPECT_EQ(in_process({}, [&] { return try_shapes(kHopper); }), "");
  EXPECT_EQ(
      in_process({{"FERRY_NVIDIA_SIM_ARCHITECTURE", "80"}},
                 [&] { return other_bits(kAmpere, 19, 40, 72) + other_bits(kAmpere, 1, 8, 129); }),
      "");
}

TEST(CudaTensor, SumsGoOnFromWhatIsThere) {
  EXPECT_EQ(in_process({},
                       [] {
                         constexpr int64_t kM = 72, kN = 136, kK = 24;
                         const std::vector<float> a = bf16_numbers(kM * kK, 1),
                                                  b = bf16_numbers(kN * kK, 2),
                                                  before = bf16_numbers(kM * kN, 3);
                         const Tensor x = handed(transposed(a, kM, kK), kK, kM, Handed::kWhole),
                                      y = handed(transposed(b, kN, kK), kK, kN, Handed::kWhole),
                                      c = Tensor::from_f32(before, {kM, kN}, device());
                         ops::cuda::launch_matmul(device().stream(),
                                                  {.a = x.data(),
                                                   .b = y.data(),
                                                   .c = c.data(),
                                                   .m = kM,
                                                   .n = kN,
                                                   .k = kK,
                                                   .a_row = 1,
                                                   .a_k = kM,
                                                   .b_column = 1,
                                                   .b_k = kN,
                                                   .c_row = kN,
                                                   .a_bf16 = 1,
                                                   .b_bf16 = 1,
                                                   .accumulate = 1},
                                                  1,
                                                  true);
                         return std::string(c.to_f32() == product(kHopper, a, b, kM, kN, kK, before)
                                                ? "as the model"
                                                : "otherwise");
                       }),
            "as the model");
}

// The model that the device should be, by its architecture: what a card answers to this judges software NVIDIA.
TEST(ThisDevice, ProductsAreTheModelsOfItsArchitecture) {
  static constexpr std::string_view kNone = "no model of ";
  const std::string said = in_process({}, [] {
    const std::string is = device().describe();
    const auto try_shapes = [](const Unit& unit) {
      return other_bits(unit, 19, 11, 129) + other_bits(unit, 130, 40, 72) +
             other_bits(unit, 8, 129, 33) + other_bits(unit, 1, 40, 16);
    };
    if (is.find("sm_90,") != std::string::npos) return try_shapes(kHopper);
    if (is.find("sm_80,") != std::string::npos) return try_shapes(kAmpere);
    return std::string(kNone) + is;
  });
  // Software NVIDIA is always one of the two: there a missing model is a failure.
  const bool software = said.find("software NVIDIA") != std::string::npos;
  if (said.starts_with(kNone) && !software) GTEST_SKIP() << said;
  EXPECT_EQ(said, "");
}

// A tile of few rows, of many, and the rest of one: another kernel each, or another place.
TEST(CudaTensor, ARowDoesNotDependOnTheRowsBesideIt) {
  EXPECT_EQ(in_process(
                {},
                [] {
                  constexpr int64_t kRows = 131, kN = 136, kK = 200;
                  const Tensor x = handed(bf16_numbers(kRows * kK, 1), kRows, kK, Handed::kWhole),
                               w = handed(bf16_numbers(kN * kK, 2), kN, kK, Handed::kWhole);
                  const auto rows_of = [&](int64_t begin, int64_t end) {
                    return ops::matmul(
                               x.slice(0, begin, end), w, {.transpose_b = true, .out = DType::kF32})
                        .to_f32();
                  };
                  const std::vector<float> all = rows_of(0, kRows);
                  std::string said;
                  for (const auto& [begin, end] :
                       {std::pair{0, 1}, {7, 8}, {3, 19}, {3, 20}, {100, 131}}) {
                    const std::vector<float> part = rows_of(begin, end);
                    if (!std::equal(part.begin(), part.end(), all.begin() + begin * kN))
                      said += fmt::format("rows {} to {}; ", begin, end);
                  }
                  return said;
                }),
            "");
}

// --- grouped products --------------------------------------------------------------------------

/// An f32 weight on the device, as training has it.
Weight trained_weight(const std::vector<float>& values, const Shape& shape) {
  Weight w{.name = "w",
           .global_shape = shape,
           .shard = {},
           .value = Tensor::from_f32(values, shape, device())};
  w.value.set_needs_grad(true);
  return w;
}

/// What is other than the model says of grouped_linear and of its gradients, for experts with so many rows.
std::string other_grouped_bits(const Unit& unit,
                               const std::vector<int64_t>& rows_of,
                               int64_t inputs,
                               int64_t outputs,
                               Handed how) {
  const auto experts = static_cast<int64_t>(rows_of.size());
  std::vector<int32_t> offsets = {0};
  for (const int64_t rows : rows_of) offsets.push_back(offsets.back() + static_cast<int32_t>(rows));
  const int64_t rows = offsets.back();
  const std::vector<float> x = bf16_numbers(rows * inputs, 1),
                           w = bf16_numbers(experts * outputs * inputs, 2),
                           d = bf16_numbers(rows * outputs, 3);
  const Weight weight = trained_weight(w, {experts, outputs, inputs});
  Tensor in = handed(x, rows, inputs, how);
  in.set_needs_grad(true);
  Tape tape(&ops::accumulate);
  Tensor y;
  {
    const Tape::Recording recording(&tape);
    y = ops::grouped_linear(in, weight, Tensor::from_i32(offsets, {experts + 1}, device()));
  }
  tape.backward(y, handed(d, rows, outputs, Handed::kWhole));

  std::vector<float> of_y, of_x, of_w;
  const auto add = [](std::vector<float>& to, const std::vector<float>& more, bool bf16) {
    for (const float v : more) to.push_back(bf16 ? bf16_to_f32(f32_to_bf16(v)) : v);
  };
  for (size_t e = 0; e < rows_of.size(); ++e) {
    const int64_t m = rows_of[e];
    const auto part = [&](const std::vector<float>& all, int64_t begin, int64_t count) {
      return std::vector<float>(all.begin() + begin, all.begin() + begin + count);
    };
    const std::vector<float> its_x = part(x, offsets[e] * inputs, m * inputs),
                             its_d = part(d, offsets[e] * outputs, m * outputs),
                             its_w = part(
                                 w, static_cast<int64_t>(e) * outputs * inputs, outputs * inputs);
    add(of_y, product(unit, its_x, its_w, m, outputs, inputs), true);
    add(of_x, product(unit, its_d, transposed(its_w, outputs, inputs), m, inputs, outputs), true);
    add(of_w,
        product(
            unit, transposed(its_d, m, outputs), transposed(its_x, m, inputs), outputs, inputs, m),
        false);
  }
  std::string said;
  const auto compare = [&](const char* what, const Tensor& t, const std::vector<float>& expected) {
    const std::vector<float> got = t.to_f32();
    if (got.size() != expected.size())
      said += fmt::format("{}: {} numbers for {}; ", what, got.size(), expected.size());
    for (size_t i = 0; i < std::min(got.size(), expected.size()); ++i)
      if (std::memcmp(&got[i], &expected[i], sizeof(float)) != 0) {
        said += fmt::format("{} experts, {} -> {}, handed {}: {}: element {}: {} for {}; ",
                            experts,
                            inputs,
                            outputs,
                            static_cast<int>(how),
                            what,
                            i,
                            got[i],
                            expected[i]);
        return;
      }
  };
  compare("y", y, of_y);
  compare("d_x", tape.grad(in), of_x);
  compare("d_w", tape.grad(weight.value), of_w);
  return said;
}

// Several experts, some without rows (the first, the last, two in a row), one with a row, one with more than a tile's
// and one with a tile's; sizes that are aligned, in which each operand is read as it lies, and that are not.
TEST(CudaTensor, GroupedProductsAreTheModelsToo) {
  const std::vector<int64_t> some = {0, 5, 130, 0, 0, 1, 128, 17, 0}, few = {3, 0, 19, 1};
  EXPECT_EQ(in_process({},
                       [&] {
                         return other_grouped_bits(kHopper, some, 40, 72, Handed::kWhole) +
                                other_grouped_bits(kHopper, few, 24, 136, Handed::kWhole) +
                                other_grouped_bits(kHopper, few, 33, 21, Handed::kWhole) +
                                other_grouped_bits(kHopper, few, 40, 24, Handed::kOneOff) +
                                other_grouped_bits(kHopper, few, 24, 131, Handed::kWhole) +
                                other_grouped_bits(kHopper, {0, 0}, 16, 16, Handed::kWhole) +
                                other_grouped_bits(kHopper, {129}, 16, 8, Handed::kWhole);
                       }),
            "");
  EXPECT_EQ(in_process({{"FERRY_NVIDIA_SIM_ARCHITECTURE", "80"}},
                       [&] { return other_grouped_bits(kAmpere, few, 40, 24, Handed::kWhole); }),
            "");
}

// --- the rest ----------------------------------------------------------------------------------

/// Judges each call by its rule; of those that were not summed on tensor cores each bit.
class Judge final : public ops::Observer {
 public:
  void before(const ops::OpCall& call) override {
    call_.emplace(call, [](const View&) { return false; });
  }
  void after(const ops::OpCall& call) override {
    call_->launched(call);
    call_->fetch();
    const ops::CallVerdict verdict = ops::CallRules::all().judge(*call_);
    if (verdict.finding) note("bounds", *verdict.finding);
    tensor_ += ops::on_tensor_cores(*call_) ? 1 : 0;
    if (!ops::promises_cpu_bits(*call_)) return;
    ++equal_;
    if (const auto other = ops::CallFacts(*call_, true).other_bits()) note("bits", *other);
  }

  int64_t tensor() const { return tensor_; }
  int64_t equal() const { return equal_; }
  const std::string& said() const { return said_; }

 private:
  void note(const char* property, const ops::CallFinding& finding) {
    if (said_.size() < 2000) said_ += fmt::format("{}: {}; ", property, describe(finding));
  }
  std::optional<ops::RecordedCall> call_;
  int64_t tensor_ = 0, equal_ = 0;
  std::string said_;
};

/// Runs the specs of these ops (all: those with a kernel) under the judge.
void run_specs(Judge& judge, const std::vector<std::string>& which) {
  for (const ops::OpSpec& spec : ops::all_op_specs()) {
    if (spec.kernels.empty() || !ops::has_kernel(spec.kernels[0], DeviceKind::kCuda)) continue;
    if (!which.empty() && std::find(which.begin(), which.end(), spec.op) == which.end()) continue;
    for (const ops::OpCase& c : spec.cases) {
      if (c.benchmark || !ops::can_run(c, DeviceKind::kCuda)) continue;
      std::vector<Tensor> inputs = ops::make_inputs(c, device(), 1);
      std::vector<Tensor> cotangents;
      if (ops::has_gradient(c)) cotangents = ops::make_cotangents(c, c.run(inputs), 1);
      const ops::Observing observing(judge);
      if (ops::has_gradient(c))
        ops::run_with_gradients(c, inputs, cotangents);
      else
        c.run(inputs);
    }
  }
}

const std::vector<std::string> kProducts = {
    "matmul", "linear", "head_linear", "grouped_linear", "cross_entropy"};

TEST(CudaTensor, ProductsKeepTheirBoundsAndTheRestItsBits) {
  EXPECT_EQ(in_process({},
                       [] {
                         Judge judge;
                         std::vector<std::string> which = kProducts;
                         which.insert(which.end(), {"rms_norm", "swiglu", "add", "adamw"});
                         run_specs(judge, which);
                         if (judge.tensor() < 30 || judge.equal() < 30)
                           return fmt::format("{} and {} calls", judge.tensor(), judge.equal());
                         return judge.said();
                       }),
            "");
}

/// What is found by the specs of these ops, in cases that do not take long to interpret.
std::string findings_of(const std::vector<std::string>& which) {
  constexpr double kInterpretedFlops = 1e6;
  std::string said;
  int64_t cases = 0;
  for (const ops::OpSpec& spec : ops::all_op_specs())
    for (const ops::OpCase& c : spec.cases) {
      if (std::find(which.begin(), which.end(), spec.op) == which.end() || c.benchmark ||
          c.flops > kInterpretedFlops || !ops::can_run(c, DeviceKind::kCuda))
        continue;
      ++cases;
      for (const ops::Finding& f : ops::check_case(c, device()))
        said += fmt::format("{}, {}: {}: {}; ", spec.op, c.name, f.property, f.detail);
    }
  return cases < 8 ? fmt::format("{} cases", cases) : said;
}

TEST(CudaTensor, TheSpecsOfProductsHold) {
  EXPECT_EQ(in_process({}, [] { return findings_of(kProducts); }), "");
  EXPECT_EQ(in_process({{"FERRY_NVIDIA_SIM_ARCHITECTURE", "80"}},
                       [] {
                         return findings_of({"linear", "grouped_linear"});
                       }),
            "");
}

// What rounds to nearest, in place of cutting, is within the bounds: the model's test finds it.
TEST(CudaTensor, DefectsOfTensorCoresLeaveTheBounds) {
  for (const char* const defect : {"mma_swaps_lanes",
                                   "mma_half_lost",
                                   "mma_few_bits",
                                   "ldmatrix_untransposed",
                                   "ldmatrix_row_repeats",
                                   "async_copy_short",
                                   "async_wait_early"}) {
    SCOPED_TRACE(defect);
    expect_says(in_process({{"FERRY_NVIDIA_SIM_DEFECT", defect}},
                           [] {
                             Judge judge;
                             run_specs(judge, {"matmul"});
                             return judge.said();
                           }),
                {"bounds: matmul"});
  }
  EXPECT_NE(in_process({{"FERRY_NVIDIA_SIM_DEFECT", "mma_rounds"}},
                       [] { return other_bits(kHopper, 8, 8, 72); }),
            "");
}

// --- what needs no clock -----------------------------------------------------------------------

/// The counters of each launch, by kernel: of software NVIDIA's file.
std::map<std::string, std::map<std::string, uint64_t>> counted(const std::function<void()>& work) {
  const std::string path = ::testing::TempDir() + fmt::format("counters-{}", ::getpid());
  std::remove(path.c_str());
  EXPECT_EQ(in_process({{"FERRY_NVIDIA_SIM_COUNTERS", path}},
                       [&] {
                         work();
                         device().stream().synchronize();
                         return std::string("done");
                       }),
            "done");
  std::map<std::string, std::map<std::string, uint64_t>> all;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string kernel, name;
    words >> kernel;
    ++all[kernel]["launches"];
    for (uint64_t number = 0; words >> name >> number;) all[kernel][name] += number;
  }
  std::remove(path.c_str());
  return all;
}

/// A product of whole tiles.
void multiply(int64_t m, bool ta, bool tb, Handed how) {
  constexpr int64_t kN = 256, kK = 128;
  const Tensor a = ta ? handed(bf16_numbers(m * kK, 1), kK, m, how)
                      : handed(bf16_numbers(m * kK, 1), m, kK, how),
               b = tb ? handed(bf16_numbers(kN * kK, 2), kN, kK, how)
                      : handed(bf16_numbers(kN * kK, 2), kK, kN, how);
  ops::matmul(a, b, {.transpose_a = ta, .transpose_b = tb, .out = DType::kBF16});
}

TEST(CudaTensor, NoBankConflictsAndNoMoreBytesThanTilesHave) {
  const auto all = counted([] {
    multiply(256, false, true, Handed::kWhole);
    multiply(256, false, false, Handed::kWhole);
    multiply(256, true, false, Handed::kWhole);
    multiply(16, false, true, Handed::kWhole);
    multiply(256, false, true, Handed::kOneOff);
  });
  for (const char* const kernel : {"matmul_tensor_kk",
                                   "matmul_tensor_kr",
                                   "matmul_tensor_rr",
                                   "matmul_tensor_few_rows",
                                   "matmul_tensor_any"}) {
    SCOPED_TRACE(kernel);
    ASSERT_TRUE(all.contains(kernel));
    const auto& its = all.at(kernel);
    const uint64_t m = std::string_view(kernel) == "matmul_tensor_few_rows" ? 16 : 256, n = 256,
                   k = 128;
    EXPECT_EQ(its.at("bank_conflicts"), 0u);
    EXPECT_EQ(its.at("matrix_products"), m / 16 * (n / 8) * (k / 16));
    // Each block of 128 columns reads all of its rows of a, each of 128 rows all of its columns of b.
    const uint64_t floor = 2 * k * (m * (n / 128) + n * std::max<uint64_t>(m / 128, 1));
    EXPECT_EQ(its.at("bytes_read"), floor);
    EXPECT_EQ(its.at("bytes_written"), 2 * m * n);
    if (std::string_view(kernel) == "matmul_tensor_any") continue;
    // Whole sectors of 32 bytes.
    EXPECT_EQ(its.at("global_sectors") * 32, its.at("bytes_read") + its.at("bytes_written"));
  }
}

// Blocks are as many as tiles of rows can be, not as many as if each expert had them all.
TEST(CudaTensor, GroupedProductsHaveNoIdleBlocks) {
  struct Case {
    std::vector<int64_t> rows_of;
    uint64_t tiles;  // of 128 rows, at most, with so many experts and rows
  };
  std::vector<int64_t> one_each(70, 1);  // more experts than a warp has lanes
  one_each[68] = 300;
  for (const Case& c : {Case{one_each, 70 + 299 / 128},
                        Case{{0, 0, 0, 640, 0, 0, 0, 0}, 8 + 632 / 128},
                        Case{{0, 1, 0, 0}, 1}}) {
    const auto work = [&] {
      return other_grouped_bits(kHopper, c.rows_of, 8, 136, Handed::kWhole);
    };
    EXPECT_EQ(in_process({}, work), "");
    const auto all = counted([&] { work(); });
    // Two tiles of outputs forward, one of inputs back.
    EXPECT_EQ(all.at("grouped_tensor_kk").at("blocks"), 2 * c.tiles);
    EXPECT_EQ(all.at("grouped_tensor_kr").at("blocks"), c.tiles);
    EXPECT_EQ(all.at("grouped_tensor_rr").at("blocks"), 2 * c.rows_of.size());
  }
}

// --- weights that are trained ------------------------------------------------------------------

/// Numbers that bf16 does not hold.
std::vector<float> numbers_of(int64_t count, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 6);
  std::vector<float> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(random.normal(i));
  return out;
}

/// Rounded by the host, so that no kernel is launched for it.
Tensor bf16_tensor(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::kBF16, device());
  t.assign_f32(bf16_numbers(shape.count(), seed));
  return t;
}

/// An op that multiplies a weight, whose sizes are all multiples of 8.
struct WeightOp {
  const char* name;
  Shape x, weight;
  std::function<Tensor(const Tensor& x, const Weight& w)> run;
};

std::vector<WeightOp> weight_ops() {
  std::vector<WeightOp> all;
  all.push_back({"linear", {24, 40}, {32, 40}, [](const Tensor& x, const Weight& w) {
                   return ops::linear(x, w);
                 }});
  all.push_back({"head_linear", {24, 2, 16}, {2 * 24, 40}, [](const Tensor& x, const Weight& w) {
                   return ops::head_linear(x, w, {.rows_per_head = 24, .begin = 8, .rows = 16});
                 }});
  all.push_back({"grouped_linear", {24, 40}, {3, 32, 40}, [](const Tensor& x, const Weight& w) {
                   return ops::grouped_linear(
                       x, w, Tensor::from_i32(std::vector<int32_t>{0, 8, 8, 24}, {4}, device()));
                 }});
  all.push_back(
      {"cross_entropy", {24, 40}, {32, 40}, [](const Tensor& x, const Weight& w) {
         std::vector<int32_t> labels(24);
         for (size_t t = 0; t < labels.size(); ++t) labels[t] = static_cast<int32_t>(t * 5 % 32);
         return ops::cross_entropy(x, w, Tensor::from_i32(labels, {24}, device()), 0.25f).loss;
       }});
  return all;
}

struct Passed {
  std::vector<float> y, d_x, d_w;
  bool operator==(const Passed&) const = default;
};

/// Forward and back.
Passed pass(const WeightOp& op, const Weight& w) {
  Tensor x = bf16_tensor(op.x, 1);
  x.set_needs_grad(true);
  Tape tape(&ops::accumulate);
  Tensor y;
  {
    const Tape::Recording recording(&tape);
    y = op.run(x, w);
  }
  Tensor d_y = Tensor::empty(y.shape(), y.dtype(), device());
  d_y.assign_f32(bf16_numbers(y.count(), 4));
  tape.backward(y, d_y);
  return {y.to_f32(),
          tape.grad(x).to_f32(),
          w.value.needs_grad() ? tape.grad(w.value).to_f32() : std::vector<float>()};
}

// Two micro-batches, then the optimizer's step, then another: the f32 weight is rounded twice, and no
// product fetches it element by element.
TEST(CudaTensor, ATrainedWeightIsRoundedOnceAStepAndReadAsItLies) {
  for (const WeightOp& op : weight_ops()) {
    SCOPED_TRACE(op.name);
    const auto all = counted([&] {
      Weight w = trained_weight(numbers_of(op.weight.count(), 2), op.weight);
      pass(op, w);
      pass(op, w);
      w.changed();
      pass(op, w);
    });
    ASSERT_TRUE(all.contains("cast_f32_bf16"));
    EXPECT_EQ(all.at("cast_f32_bf16").at("launches"), 2u);
    const std::string products =
        std::string_view(op.name) == "grouped_linear" ? "grouped_tensor_" : "matmul_tensor_";
    uint64_t launches = 0;
    for (const auto& [kernel, its] : all)
      if (kernel.rfind(products, 0) == 0) {
        EXPECT_NE(kernel, products + "any");
        launches += its.at("launches");
      }
    EXPECT_EQ(launches, 9u);  // forward, and of two gradients, in three passes
    for (const char* const lies : {"kk", "kr", "rr"})
      EXPECT_TRUE(all.contains(products + lies)) << lies;
  }
}

TEST(CudaTensor, RoundedBeforeIsRoundedInTheProductToTheBit) {
  EXPECT_EQ(in_process({},
                       [] {
                         std::string said;
                         for (const WeightOp& op : weight_ops()) {
                           Weight w = trained_weight(numbers_of(op.weight.count(), 2), op.weight);
                           const Passed once = pass(op, w);
                           if (once.d_w.empty()) said += "no gradient of the weight; ";
                           // A weight that holds the rounded numbers gives what follows from them.
                           Weight narrow = w;
                           narrow.packed.reset();
                           narrow.value = ops::cast(w.value, DType::kBF16);
                           narrow.value.set_needs_grad(false);
                           const Passed rounded = pass(op, narrow);
                           if (rounded.y != once.y || rounded.d_x != once.d_x)
                             said += fmt::format("{}: other bits; ", op.name);
                           // Another value is another product, when it is said that there is one.
                           const std::vector<float> others = numbers_of(op.weight.count(), 3);
                           w.value.assign_f32(others);
                           w.changed();
                           if (pass(op, w) != pass(op, trained_weight(others, op.weight)))
                             said += fmt::format("{}: of the value before; ", op.name);
                         }
                         // The product that rounds what it fetches.
                         const Weight w = trained_weight(numbers_of(32 * 40, 2), {32, 40});
                         const Tensor x = bf16_tensor({24, 40}, 1);
                         if (ops::linear(x, w).to_f32() !=
                             ops::matmul(x, w.value, {.transpose_b = true}).to_f32())
                           said += "linear: other bits than of the f32 weight itself";
                         return said;
                       }),
            "");
  // Where nothing is gained nothing is kept.
  EXPECT_EQ(in_process({},
                       [] {
                         Device& plain = **open_device("cuda");
                         Weight w{.name = "w", .global_shape = {8, 8}, .shard = {}};
                         w.value = Tensor::from_f32(numbers_of(64, 1), {8, 8}, plain);
                         Tensor x = Tensor::empty({24, 8}, DType::kBF16, plain);
                         x.assign_f32(bf16_numbers(24 * 8, 1));
                         ops::linear(x, w);
                         return std::string(w.packed == nullptr ? "nothing" : "something");
                       }),
            "nothing");
}

// --- bounds ------------------------------------------------------------------------------------

/// Puts another number for an output's first one, after the kernel and before whoever judges it.
class Tamper final : public ops::Observer {
 public:
  Tamper(std::string output, std::function<float(float)> change)
      : output_(std::move(output)), change_(std::move(change)) {}
  void after(const ops::OpCall& call) override {
    for (const ops::NamedView& out : call.outputs) {
      if (out.name != output_) continue;
      float first = 0;
      call.device.copy_to_host(&first, out.view.data, sizeof first);
      first = change_(first);
      call.device.copy_from_host(out.view.data, &first, sizeof first);
    }
  }

 private:
  std::string output_;
  std::function<float(float)> change_;
};

/// What is said of a product of ones, 64 deep, whose first element is off by so many times its bound.
std::string said_of_ones(double bounds) {
  constexpr int64_t kK = 64;
  // docs/numerics.md: K + 2 ceil(K / 8) of tensor cores, and the CPU's K.
  constexpr double kBound = 1.01 * (kK + kK + 2 * kK / 8) * 0x1p-24 * kK;
  Tensor ones = Tensor::empty({16, kK}, DType::kBF16, device());
  ones.assign_f32(std::vector<float>(16 * kK, 1.0f));
  Tamper tamper("c", [=](float x) { return x + static_cast<float>(bounds * kBound); });
  Judge judge;
  const ops::Observing first(tamper), then(judge);
  ops::matmul(ones, ones, {.transpose_b = true, .out = DType::kF32});
  return judge.said();
}

TEST(CudaTensor, ABoundIsWiderByWhatTensorCoresRoundAndNoMore) {
  EXPECT_EQ(in_process({}, [] { return said_of_ones(0.95); }), "");
  expect_says(in_process({}, [] { return said_of_ones(1.05); }), {"bounds: matmul"});
}

// Of the token losses that are there, whoever made the logits: the CPU's bits.
TEST(CudaTensor, ALossIsTheSumOfItsTokensToTheBit) {
  const auto said = [](float ulps) {
    return in_process({}, [=] {
      const WeightOp op = weight_ops().back();
      const Weight w = trained_weight(numbers_of(op.weight.count(), 2), op.weight);
      Tamper tamper("loss", [=](float x) { return ulps > 0 ? std::nextafter(x, 2 * x) : x; });
      Judge judge;
      const ops::Observing first(tamper), then(judge);
      op.run(bf16_tensor(op.x, 1), w);
      return fmt::format("{} on tensor cores. {}", judge.tensor(), judge.said());
    });
  };
  EXPECT_EQ(said(0), "1 on tensor cores. ");
  expect_says(said(1), {"bounds: cross_entropy: loss"});
}

// The bounds of an op that multiplies nothing are those of any device, in bf16, too.
TEST(CudaTensor, WhatIsNotOnTensorCoresHasNoWiderBounds) {
  constexpr double kError = 0x1p-10;
  ops::OpCase c{
      .name = "off by a thousandth",
      .inputs = {{.name = "x",
                  .shape = {8},
                  .dtype = DType::kBF16,
                  .fill = ops::InputSpec::Fill::kGiven,
                  .given = std::vector<double>(8, 1.0)}},
      .run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        return {ops::scale(ops::cast(in[0], DType::kF32), 1 + static_cast<float>(kError))};
      },
      .reference = [](const std::vector<ops::RefTensor>& in) { return in; }};
  const auto findings = [&](double bound) {
    c.tolerance = [=](int, const std::vector<ops::RefTensor>&, const ops::RefTensor&) {
      return std::vector<double>{bound};
    };
    return in_process({}, [&] { return fmt::format("{}", ops::check_case(c, device()).size()); });
  };
  EXPECT_EQ(findings(kError), "0");
  EXPECT_EQ(findings(0.75 * kError), "1");
}

// Ampere's sums, of numbers of one sign, end two thousandths of bf16's steps nearer to zero for each thousand products.
TEST(CudaTensor, ThatSumsOfOneSignLeanIsNoFinding) {
  EXPECT_EQ(in_process({{"FERRY_NVIDIA_SIM_ARCHITECTURE", "80"}},
                       [] {
                         constexpr int64_t kM = 16, kN = 128, kK = 65536;
                         std::vector<float> few = bf16_numbers(4093, 1);
                         for (float& x : few) x = 0.5f + std::abs(x);
                         const auto positive = [&](int64_t rows) {
                           std::vector<float> all(static_cast<size_t>(rows * kK));
                           for (size_t i = 0; i < all.size(); ++i) all[i] = few[i % few.size()];
                           Tensor t = Tensor::empty({rows, kK}, DType::kBF16, device());
                           t.assign_f32(all);
                           return t;
                         };
                         const Tensor a = positive(kM), b = positive(kN);
                         std::string said;
                         doctor::CallJudge judge(
                             [&](const std::string& property, const ops::CallFinding& finding) {
                               said += fmt::format("{}: {}; ", property, ops::describe(finding));
                             });
                         const ops::Observing observing(judge);
                         ops::matmul(a, b, {.transpose_b = true});
                         return fmt::format("{} judged. {}", judge.calls(), said);
                       }),
            "1 judged. ");
}

// --- the doctor --------------------------------------------------------------------------------

// Not those of another device of the same GPU, with a stream and kernels of its own.
TEST(CudaTensor, TheDoctorTriesTheLinksOfTheDevicesThatItExamines) {
  class Heard final : public doctor::Listener {
   public:
    void measured(const doctor::Measurement& m) override { said += m.name + "; "; }
    std::string said;
  };
  expect_says(in_process({{"FERRY_NVIDIA_SIM_DEVICES", "2"}},
                         [] {
                           Heard heard;
                           const doctor::Options options{
                               .device = "cuda-tensor:1", .quick = true, .only = "links"};
                           const auto examined = doctor::examine(options, 0, heard);
                           return examined ? heard.said : examined.error().message;
                         }),
              {"cuda-tensor:0 to cuda-tensor:1, through the host",
               "cuda-tensor:1 to cuda-tensor:0, through the host"});
}

// What a run does is tried as it does it: products of a trained weight read it as rounded numbers.
TEST(CudaTensor, ARehearsedStepRoundsItsWeights) {
  const auto types_of_b = [](bool tensor_products) {
    doctor::Rehearsal rehearsal(DeviceKind::kCuda, tensor_products);
    {
      Tensor x = Tensor::empty({24, 40}, DType::kBF16, rehearsal.device());
      Weight w{.name = "w", .global_shape = {32, 40}, .shard = {}};
      w.value = Tensor::empty({32, 40}, DType::kF32, rehearsal.device());
      ops::linear(x, w);
    }
    std::string said;
    for (const doctor::RunCall& call : rehearsal.take("a step").calls)
      said +=
          fmt::format("{} {}; ",
                      call.sized_op,
                      call.choices.contains("b")
                          ? to_string(static_cast<DType>(static_cast<int>(call.choices.at("b"))))
                          : "");
    return said;
  };
  EXPECT_EQ(types_of_b(false), "matmul F32; ");
  EXPECT_EQ(types_of_b(true), "elementwise ; matmul BF16; ");
}

}  // namespace
}  // namespace ferry
