#include "verify/call_judge.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/check.h"
#include "base/cpu_tier.h"
#include "device/cpu/cpu_device.h"
#include "ops/grouped_linear/grouped_linear_kernels.h"
#include "ops/spec_check.h"
#include "tensor/bf16.h"

namespace ferry::doctor {
namespace {

/// The plainest tier that is not in use; nothing if the processor has no other.
std::optional<CpuTier> other_tier() {
  for (const CpuTier t : {CpuTier::kPlain, CpuTier::kAvx2, CpuTier::kAvx512})
    if (t != cpu_tier() && cpu_has(t)) return t;
  return std::nullopt;
}

/// While it lives, CPU kernels run as another tier than the one in use, if the processor has one:
/// a CPU that is examined is not to be its own judge.
class OtherTier {
 public:
  explicit OtherTier(bool wanted) : was_(cpu_tier()) {
    const std::optional<CpuTier> other = other_tier();
    if (wanted && other) set_cpu_tier(*other);
  }
  ~OtherTier() { set_cpu_tier(was_); }
  OtherTier(const OtherTier&) = delete;
  OtherTier& operator=(const OtherTier&) = delete;

 private:
  CpuTier was_;
};

/// Sums of products, whose errors grow with the depth if they are summed in too few bits, and whose
/// bound on the worst element grows faster.
constexpr std::array<std::string_view, 2> kProducts = {"matmul", "grouped_matmul"};
/// One value of f32 each, rounded once: what is left of the error leans to no side.
constexpr std::array<std::string_view, 6> kRoundedOnce = {
    "matmul", "grouped_matmul", "swiglu", "add", "scale", "cast"};

template <size_t N>
bool among(const std::array<std::string_view, N>& all, const std::string& op) {
  return std::find(all.begin(), all.end(), op) != all.end();
}

/// Memory that the call will write and does not read.
bool only_written(const ops::OpCall& call, const View& out) {
  const ops::Extent e = ops::extent_of(out);
  return std::none_of(call.inputs.begin(), call.inputs.end(), [&](const ops::NamedView& in) {
    const ops::Extent i = ops::extent_of(in.view);
    return i.begin < e.begin + e.bytes && e.begin < i.begin + i.bytes;
  });
}

const ops::KeptView& named(const std::vector<ops::KeptView>& views, std::string_view name) {
  const auto v =
      std::find_if(views.begin(), views.end(), [&](const auto& k) { return k.name == name; });
  check(v != views.end(), "call judge: there is no {}", name);
  return *v;
}

double number_at(const View& v, int64_t place) {
  return static_cast<double>(v.dtype == DType::kBF16 ? bf16_to_f32(v.as<bf16_t>()[place])
                                                     : v.as<float>()[place]);
}

/// Of so many rows or columns some: the ends, both sides of the first and the last multiple of 64 and of 128, and
/// one in between.
std::vector<int64_t> places_in(int64_t count) {
  if (count == 0) return {};
  std::set<int64_t> places = {0, count / 3, count - 1};
  for (const int64_t tile : {64, 128})
    for (const int64_t edge : {tile, (count - 1) / tile * tile})
      if (edge > 0 && edge < count) places.insert({edge - 1, edge});
  return {places.begin(), places.end()};
}

/// Tensor cores cut toward zero: for each eight products, each of them and the sum so far by half of
/// 2^-24 of the largest and the new sum by half of 2^-23, on average. Of a sum that grows to what it
/// is in the end that is 0.35 * 2^-24 for each product at most.
constexpr double kCutPerProduct = 0x1p-25;

bool whole(const View& v) {
  int64_t stride = 1;
  for (int d = v.rank - 1; d >= 0; stride *= v.shape[d--])
    if (v.shape[d] > 1 && v.stride[d] != stride) return false;
  return true;
}

}  // namespace

bool of_an_element(std::string_view property) {
  return property == "call" || property == "float64" || property == "bits";
}

bool has_other_tier() { return other_tier().has_value(); }

namespace {

/// The errors of sampled elements, each in units of what sums of its terms in f32 walk at random: a bound on the worst
/// one of a deep sum is wide enough to lose whole terms in.
struct SampledSums {
  double squares = 0;
  int64_t count = 0;

  bool tensor_cores = false;

  void add(double error, double sum, double term_squares, double depth, DType type, double least) {
    // Partial sums of n terms grow as the root of n, and each is rounded: in all sqrt(n) / sqrt(2) roundings of
    // sums as large as sqrt(Σ term²). Sums whose terms have one sign grow faster, up to their own size.
    const double large = std::max(std::sqrt(term_squares), std::abs(sum));
    const double walk = 4 * 0x1p-24 * std::sqrt(depth) * large +
                        (tensor_cores ? kCutPerProduct * depth * large : 0) +
                        (type == DType::kF32 ? 0 : unit_roundoff(type) * std::abs(sum)) + least;
    squares += (error / walk) * (error / walk);
    ++count;
  }
  double rms() const {
    return std::sqrt(squares / static_cast<double>(std::max<int64_t>(1, count)));
  }
  bool coarse() const {
    constexpr int64_t kLeast = 4;
    return count >= kLeast && rms() > 1;
  }
};

}  // namespace

std::optional<ops::CallFinding> beside_float64(const ops::RecordedCall& product) {
  const View a = named(product.inputs(), "a").here(), b = named(product.inputs(), "b").here(),
             c = named(product.outputs(), "c").here();
  ops::CallFacts facts(product, true);
  const bool transpose_a = facts.number("transpose_a") != 0,
             transpose_b = facts.number("transpose_b") != 0, bf16 = facts.number("bf16") != 0;
  const int r = c.rank - 2;  // of rows; before it, if at all, the batch
  const int64_t rows = c.shape[r], columns = c.shape[r + 1],
                depth = a.shape[transpose_a ? r : r + 1], batches = r == 1 ? c.shape[0] : 1;
  std::optional<ops::CallFinding> worst;
  double worst_ratio = 1;
  SampledSums all{.tensor_cores = ops::on_tensor_cores(product)};
  for (const int64_t batch : places_in(batches))
    for (const int64_t row : places_in(rows))
      for (const int64_t column : places_in(columns)) {
        const auto factor = [&](const View& v, bool transposed, int64_t at, int64_t k, bool first) {
          const bool depth_first = first == transposed;  // [k, at]
          const int64_t place = (r == 1 ? batch * v.stride[0] : 0) +
                                (depth_first ? k : at) * v.stride[r] +
                                (depth_first ? at : k) * v.stride[r + 1];
          const double x = number_at(v, place);
          return bf16 ? static_cast<double>(bf16_to_f32(f32_to_bf16(static_cast<float>(x)))) : x;
        };
        double sum = 0, size = 0, squares = 0;
        for (int64_t k = 0; k < depth; ++k) {
          const double term =
              factor(a, transpose_a, row, k, true) * factor(b, transpose_b, column, k, false);
          sum += term;
          size += std::abs(term);
          squares += term * term;
        }
        const double got = number_at(
            c, (r == 1 ? batch * c.stride[0] : 0) + row * c.stride[r] + column * c.stride[r + 1]);
        // What float32 cannot hold depends on the order.
        if (!std::isfinite(size) || size > 0x1p127) continue;
        // Each term may be flushed, as may what it is added to.
        const double least = static_cast<double>(2 * depth + 2) * 0x1p-126;
        // That of tensor cores is no wider (tensor_roundings).
        const double bound = static_cast<double>(2 * depth + 2) * 0x1p-24 * size +
                             unit_roundoff(c.dtype) * std::abs(sum) + least;
        const double ratio =
            ops::error_ratio(got, static_cast<double>(static_cast<float>(sum)), bound);
        all.add(got - sum, sum, squares, static_cast<double>(depth), c.dtype, least);
        if (ratio <= worst_ratio) continue;
        worst_ratio = ratio;
        worst = ops::CallFinding{.op = product.op(),
                                 .output = "c",
                                 .shapes = fmt::format("depth {}", depth),
                                 .element = r == 1 ? std::vector<int64_t>{batch, row, column}
                                                   : std::vector<int64_t>{row, column},
                                 .got = got,
                                 .expected = sum,
                                 .bound = bound,
                                 .elements_out = 1};
      }
  if (!worst && all.coarse())
    worst =
        ops::CallFinding{.op = product.op(),
                         .output = "c",
                         .shapes = fmt::format("depth {}, RMS of {} elements", depth, all.count),
                         .got = all.rms(),
                         .bound = 1,
                         .elements_out = all.count};
  return worst;
}

double depth_of(const ops::RecordedCall& product) {
  const ops::CallFacts facts(product, true);
  const Shape a = facts.shape("a");
  const bool columns =
      product.op() == "matmul"
          ? facts.number("transpose_a") != 0
          : facts.number("product") == static_cast<double>(ops::GroupedProduct::kWeights);
  return static_cast<double>(a[columns ? a.rank() - 2 : a.rank() - 1]);
}

Precision precision_of(const ops::RefTensor& got, const ops::RefTensor& expected, DType type) {
  double squares = 0, size = 0, lean = 0, n = 0;
  for (size_t i = 0; i < got.values.size(); ++i) {
    const double e = expected.values[i];
    if (ops::CallFacts::unwritten(e) || !std::isfinite(e) || !std::isfinite(got.values[i]))
      continue;
    const double error = got.values[i] - e;
    const auto nearest = static_cast<float>(e);
    const double beside =
        got.values[i] -
        static_cast<double>(type == DType::kBF16 ? bf16_to_f32(f32_to_bf16(nearest)) : nearest);
    squares += error * error;
    size += e * e;
    lean += e < 0 ? -beside : beside;  // towards or away from zero
    ++n;
  }
  Precision p;
  if (size > 0) p.rms = std::sqrt(squares / size);
  if (squares > 0) p.bias = lean / std::sqrt(squares);
  return p;
}

void CallJudge::before(const ops::OpCall& call) {
  // What a launch leaves as it was must not look right by luck: the pool gives out memory that held
  // an earlier result. Filled first, so that what the call reads is copied behind it.
  for (const ops::NamedView& out : call.outputs)
    if (only_written(call, out.view) && whole(out.view)) {
      const std::vector<char> ones(ops::extent_of(out.view).bytes, '\xff');
      call.device.copy_from_host(out.view.data, ones.data(), ones.size());
      call.device.stream().synchronize();
    }
  call_.emplace(call, [](const View&) { return false; });
}

void CallJudge::after(const ops::OpCall& call) {
  call_->launched(call);
  call_->fetch();
  ++calls_;
  const OtherTier other(call.device.kind() == DeviceKind::kCpu);
  const ops::CallVerdict verdict = ops::CallRules::all().judge(*call_);
  if (!verdict.judged) {
    unjudged_.insert(call_->op());
    return;
  }
  if (verdict.finding) return found_("call", *verdict.finding);
  judge_precision();
  judge_sums();
  if (ops::promises_cpu_bits(*call_)) judge_bits();
}

void CallJudge::judge_sums() {
  if (call_->op() != "matmul") return;
  if (const auto finding = beside_float64(*call_)) found_("float64", *finding);
}

void CallJudge::judge_bits() {
  if (const auto finding = ops::CallFacts(*call_, true).other_bits()) found_("bits", *finding);
}

void CallJudge::judge_precision() {
  constexpr double kOutputsLeast = 64, kDepthLeast = 64;
  const std::string& op = call_->op();
  if (!among(kProducts, op) && !among(kRoundedOnce, op)) return;
  ops::CallFacts facts(*call_, among(kProducts, op));
  const std::vector<ops::RefTensor> expected = facts.expected(), got = facts.written();
  for (size_t o = 0; o < got.size(); ++o) {
    const auto count = static_cast<double>(got[o].shape.count());
    if (count < kOutputsLeast) continue;
    const ops::KeptView& out = call_->outputs()[o];
    const double u = unit_roundoff(out.view.dtype);
    const Precision p = precision_of(got[o], expected[o], out.view.dtype);
    const double depth = among(kProducts, op) ? depth_of(*call_) : 1;
    // Rounding to nearest is off by u / sqrt(3) at most in the mean square; sums of n terms of any
    // sign in f32 walk sqrt(n) roundings. Four times that for orders of summing that are not ours.
    // By how much sums lean at most, relative to an output whose terms have one sign.
    const double cut = ops::on_tensor_cores(*call_) ? kCutPerProduct * depth : 0;
    const double allowed =
        (out.view.dtype == DType::kF32 ? 0 : u) + 4 * 0x1p-24 * std::sqrt(depth) + cut;
    const bool coarse = depth >= kDepthLeast && p.rms > allowed;
    // Beyond seven standard errors, and a fifth of what cutting instead of rounding does. Sums that lean towards zero
    // by themselves have that besides.
    const double allowed_lean = 0.1 * u + (p.bias < 0 ? cut : 0);
    const bool leans = out.view.dtype == DType::kBF16 && among(kRoundedOnce, op) &&
                       std::abs(p.bias) > 7 &&
                       std::abs(p.bias) * p.rms / std::sqrt(count) > allowed_lean;
    if (!coarse && !leans) continue;
    found_(coarse ? "precision" : "bias",
           {.op = op,
            .output = out.name,
            .shapes = fmt::format("{} elements", got[o].shape.str()),
            .got = coarse ? p.rms : p.bias,
            .expected = 0,
            .bound = coarse ? allowed : 7,
            .elements_out = got[o].shape.count()});
  }
}

}  // namespace ferry::doctor
