// Products of bf16 on tensor cores (device cuda-tensor), on software NVIDIA: that each bit is what
// the published model of the hardware gives for sixteen products at a time, k ascending, whatever the
// shape and however the operands lie; that everything else keeps the CPU's bits; that bounds hold,
// and find what is planted. Each case runs in a process of its own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/random.h"
#include "device/cuda/cuda_device.h"
#include "device_process.h"
#include "ops/call_check.h"
#include "ops/cast/cast.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_cuda_launch.h"
#include "ops/spec_check.h"
#include "tensor/bf16.h"

namespace ferry {
namespace {

using device_process::Environment;
using device_process::expect_says;

std::string in_process(Environment environment, const std::function<std::string()>& body) {
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

}  // namespace
}  // namespace ferry
