#include "ops/call_check.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "device/cpu/cpu_device.h"
#include "device/tensor_products.h"
#include "tensor/bf16.h"

namespace ferry::ops {
namespace {

// A quiet NaN that no kernel makes, and as an integer no index: where it is still found, nothing
// was written.
constexpr uint32_t kUnwritten = 0x7FC0FEED;

Shape shape_of(const View& v) {
  std::vector<int64_t> dims;
  for (int d = 0; d < v.rank; ++d) dims.push_back(v.shape[d]);
  return Shape(dims);
}

double element(const View& v, int64_t at) {
  switch (v.dtype) {
    case DType::kF32: return static_cast<double>(v.as<float>()[at]);
    case DType::kBF16: return static_cast<double>(bf16_to_f32(v.as<bf16_t>()[at]));
    case DType::kF64: return v.as<double>()[at];
    case DType::kI32: return static_cast<double>(v.as<int32_t>()[at]);
    default: check(false, "call check: elements of {}", to_string(v.dtype)); return 0;
  }
}

RefTensor values_of(const View& v) {
  RefTensor out(shape_of(v));
  for_each_element(v, [&](int64_t at, int64_t i) { out[i] = element(v, at); });
  return out;
}

/// A copy of the view's extent on the host, ready for the CPU's kernel.
struct HostCopy {
  Tensor memory;
  View view;
};

int64_t extent_elements(const View& v) {
  return static_cast<int64_t>(extent_of(v).bytes / size_of(v.dtype));
}

HostCopy same(const View& v) {
  HostCopy copy{Tensor::empty({static_cast<int64_t>(extent_of(v).bytes)}, DType::kU8, cpu_device()),
                v};
  std::memcpy(copy.memory.data(), v.data, copy.memory.bytes());
  copy.view.data = copy.memory.data();
  return copy;
}

void make_absolute(const View& v) {
  const int64_t count = extent_elements(v);
  for (int64_t i = 0; i < count; ++i)
    if (v.dtype == DType::kBF16) {
      v.as<bf16_t>()[i] &= 0x7FFF;
    } else {
      v.as<float>()[i] = std::abs(v.as<float>()[i]);
    }
}

bool is_float(DType t) { return t == DType::kF32 || t == DType::kBF16; }

/// Puts the least normal number of its sign for each number below it that is not zero, if asked to; how many there are.
/// By their bits: where the CPU takes such numbers for zero, it does so in comparisons and conversions, too.
template <class Bits>
int64_t lift_denormals(Bits* x, int64_t count, Bits least_normal, bool lift) {
  constexpr Bits kSign = Bits{1} << (sizeof(Bits) * 8 - 1);
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Bits magnitude = static_cast<Bits>(x[i] & static_cast<Bits>(~kSign));
    if (magnitude == 0 || magnitude >= least_normal) continue;
    ++found;
    if (lift) x[i] = static_cast<Bits>((x[i] & kSign) | least_normal);
  }
  return found;
}

int64_t lift_denormals(const View& v, bool lift) {
  const int64_t count = extent_elements(v);
  if (v.dtype == DType::kBF16) return lift_denormals(v.as<bf16_t>(), count, bf16_t{0x0080}, lift);
  if (v.dtype == DType::kF32)
    return lift_denormals(v.as<uint32_t>(), count, uint32_t{0x00800000}, lift);
  return 0;
}

/// The same numbers in f32, laid out alike.
HostCopy widened(const View& v) {
  HostCopy copy{Tensor::empty({extent_elements(v)}, DType::kF32, cpu_device()), v};
  copy.view.data = copy.memory.data();
  copy.view.dtype = DType::kF32;
  float* const to = copy.view.as<float>();
  const int64_t count = extent_elements(v);
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(element(v, i));
  return copy;
}

HostCopy unwritten_output(const View& v) {
  View like = v;
  if (v.dtype == DType::kBF16) like.dtype = DType::kF32;
  const size_t bytes = static_cast<size_t>(extent_elements(v)) * size_of(like.dtype);
  HostCopy copy{Tensor::empty({static_cast<int64_t>(bytes)}, DType::kU8, cpu_device()), like};
  copy.view.data = copy.memory.data();
  for (size_t i = 0; i + 4 <= bytes; i += 4)
    std::memcpy(static_cast<std::byte*>(copy.view.data) + i, &kUnwritten, 4);
  return copy;
}

/// The distance of neighbours in `type` at `value`.
double ulp(DType type, double value) {
  if (!is_float(type)) return 1;
  if (!std::isfinite(value)) return NAN;
  const int digits = type == DType::kBF16 ? 8 : 24;
  const double magnitude = std::max(std::abs(value), kLeastNormal);
  return std::ldexp(1.0, std::ilogb(magnitude) - digits + 1);
}

std::string list_of(const std::vector<KeptView>& views) {
  std::string text;
  for (const KeptView& v : views)
    text += fmt::format("{}{} {} {}",
                        text.empty() ? "" : ", ",
                        v.name,
                        shape_of(v.view).str(),
                        to_string(v.view.dtype));
  return text;
}

/// NaNs are equal, whose payloads are no part of the numerics. So are 0 and the smallest normal number, which on NVIDIA
/// is what rounding alone lifts to it (docs/numerics.md).
bool equal_bits(const View& a, const View& b, int64_t at) {
  const size_t size = size_of(a.dtype);
  const auto place = static_cast<size_t>(at) * size;
  if (std::memcmp(a.as<std::byte>() + place, b.as<std::byte>() + place, size) == 0) return true;
  if (!is_float(a.dtype)) return false;
  const double x = element(a, at), y = element(b, at);
  if (std::isnan(x) && std::isnan(y)) return true;
  const bool lifted = std::abs(x) + std::abs(y) == kLeastNormal && x * y == 0;
  return lifted && std::signbit(x) == std::signbit(y);
}

/// Element `at`, in row order, of a fetched call's output.
CallFinding finding_at(
    const RecordedCall& call, size_t output, int64_t at, double got, double expected) {
  const KeptView& out = call.outputs()[output];
  CallFinding f{.op = call.op(),
                .output = out.name,
                .shapes = list_of(call.inputs()) + " -> " + list_of(call.outputs()),
                .got = got,
                .expected = expected};
  f.ulps = std::abs(got - expected) / ulp(out.view.dtype, expected);
  const Shape shape = shape_of(out.view);
  for (int d = shape.rank() - 1; d >= 0; --d) {
    f.element.insert(f.element.begin(), at % shape[d]);
    at /= shape[d];
  }
  return f;
}

void fetch_one(KeptView& v, Device& device) {
  const Extent extent = extent_of(v.view);
  Tensor host = Tensor::empty({static_cast<int64_t>(extent.bytes)}, DType::kU8, cpu_device());
  if (extent.bytes > 0)
    device.copy_to_host(host.data(),
                        v.copy.defined() ? v.copy.data() : static_cast<const void*>(extent.begin),
                        extent.bytes);
  v.copy = host;
}

}  // namespace

Extent extent_of(const View& v) {
  if (v.count() == 0) return {static_cast<const std::byte*>(v.data), 0};
  int64_t last = 0;
  for (int d = 0; d < v.rank; ++d) last += (v.shape[d] - 1) * v.stride[d];
  return {static_cast<const std::byte*>(v.data),
          (static_cast<size_t>(last) + 1) * size_of(v.dtype)};
}

View KeptView::here() const {
  View v = view;
  v.data = copy.data();
  return v;
}

RecordedCall::RecordedCall(const OpCall& call, const std::function<bool(const View&)>& stays)
    : op_(call.op), device_(&call.device), numbers_(call.numbers), relaunch_(call.relaunch) {
  for (const NamedView& in : call.inputs) {
    KeptView kept{in.name, in.view, {}};
    const Extent extent = extent_of(in.view);
    if (!stays(in.view)) {
      kept.copy = Tensor::empty({static_cast<int64_t>(extent.bytes)}, DType::kU8, call.device);
      if (extent.bytes > 0) call.device.copy(kept.copy.data(), extent.begin, extent.bytes);
    }
    inputs_.push_back(std::move(kept));
  }
}

void RecordedCall::launched(const OpCall& call) {
  for (const NamedView& out : call.outputs) {
    const Extent extent = extent_of(out.view);
    KeptView kept{out.name,
                  out.view,
                  Tensor::empty({static_cast<int64_t>(extent.bytes)}, DType::kU8, call.device)};
    if (extent.bytes > 0) call.device.copy(kept.copy.data(), extent.begin, extent.bytes);
    outputs_.push_back(std::move(kept));
  }
}

void RecordedCall::fetch() {
  std::vector<KeptView> device_copies;  // live until the stream has read them
  for (std::vector<KeptView>* views : {&inputs_, &outputs_})
    for (KeptView& v : *views) {
      device_copies.push_back(v);
      fetch_one(v, *device_);
    }
  device_->stream().synchronize();
}

const KeptView* CallFacts::find(const std::vector<KeptView>& in, const std::string& name) {
  for (const KeptView& v : in)
    if (v.name == name) return &v;
  return nullptr;
}

const KeptView& CallFacts::any(const std::string& name) const {
  const KeptView* v = find(call_.inputs_, name);
  if (v == nullptr) v = find(call_.outputs_, name);
  check(v != nullptr, "call check: {} has no {}", call_.op_, name);
  return *v;
}

DType CallFacts::type(const std::string& name) const { return any(name).view.dtype; }
Shape CallFacts::shape(const std::string& name) const { return shape_of(any(name).view); }

double CallFacts::number(const std::string& name) const {
  for (const NamedNumber& n : call_.numbers_)
    if (name == n.name) return n.value;
  check(false, "call check: {} has no number {}", call_.op_, name);
  return 0;
}

int64_t CallFacts::roundings(int64_t k) const {
  return k + (tensor_cores() ? std::max(k, tensor_roundings(k)) : k);
}

bool CallFacts::tensor_cores() const { return on_tensor_cores(call_); }

const RefTensor& CallFacts::input(const std::string& name) {
  const auto it = values_.find(name);
  if (it != values_.end()) return it->second;
  return values_[name] = values_of(any(name).here());
}

bool CallFacts::unwritten(double value) {
  return value == static_cast<double>(kUnwritten) ||
         (std::isnan(value) && std::bit_cast<uint32_t>(static_cast<float>(value)) == kUnwritten);
}

std::vector<RefTensor> CallFacts::run(
    const std::function<void(std::string_view, const View&)>& change) const {
  std::map<std::string, HostCopy> placed;
  const auto place = [&](const char* name, const View& v) {
    const KeptView* in = find(call_.inputs_, name);
    HostCopy copy;
    if (in == nullptr) {
      copy = unwritten_output(v);
    } else {
      copy = same(in->here());
      // Before it is widened, which takes numbers below the least normal one for zero.
      if (change) change(name, copy.view);
      if (!mixed_ && v.dtype == DType::kBF16) copy = widened(copy.view);
    }
    return placed.emplace(name, std::move(copy)).first->second.view;
  };
  call_.relaunch_(cpu_device(), place);
  std::vector<RefTensor> out;
  for (const KeptView& v : call_.outputs_) out.push_back(values_of(placed.at(v.name).view));
  return out;
}

RefTensor CallFacts::magnitudes(std::initializer_list<std::string> inputs,
                                const std::string& output) const {
  std::vector<RefTensor> all = run([&](std::string_view name, const View& v) {
    if (std::find(inputs.begin(), inputs.end(), name) != inputs.end()) make_absolute(v);
  });
  for (size_t o = 0; o < all.size(); ++o)
    if (call_.outputs_[o].name == output) return std::move(all[o]);
  check(false, "call check: {} has no output {}", call_.op_, output);
  return {};
}

std::vector<RefTensor> CallFacts::slack_of_denormals(const std::vector<RefTensor>& expected) const {
  const bool any = std::any_of(call_.inputs_.begin(), call_.inputs_.end(), [](const KeptView& in) {
    return lift_denormals(in.here(), false) > 0;
  });
  if (!any) return {};
  std::vector<RefTensor> slack =
      run([](std::string_view, const View& v) { lift_denormals(v, true); });
  for (size_t o = 0; o < slack.size(); ++o)
    for (int64_t i = 0; i < slack[o].shape.count(); ++i) {
      const double moved = std::abs(slack[o][i] - expected[o][i]);
      slack[o][i] = is_float(call_.outputs_[o].view.dtype) && std::isfinite(moved) ? moved : 0;
    }
  return slack;
}

std::vector<RefTensor> CallFacts::written() const {
  std::vector<RefTensor> out;
  for (const KeptView& v : call_.outputs_) out.push_back(values_of(v.here()));
  return out;
}

std::optional<CallFinding> CallFacts::other_bits() const {
  const FlushDenormals flush;
  const Unobserved nobody;
  std::map<std::string, HostCopy> placed;
  call_.relaunch_(cpu_device(), [&](const char* name, const View&) {
    // What is only written begins as the device left it: what the kernel leaves alone is equal then.
    const KeptView* kept = find(call_.inputs_, name);
    if (kept == nullptr) kept = find(call_.outputs_, name);
    return placed.emplace(name, same(kept->here())).first->second.view;
  });
  std::optional<CallFinding> first;
  for (size_t o = 0; o < call_.outputs_.size(); ++o) {
    const View got = call_.outputs_[o].here();
    const View& expected = placed.at(call_.outputs_[o].name).view;
    for_each_element(got, [&](int64_t at, int64_t nth) {
      if (equal_bits(got, expected, at)) return;
      if (!first) first = finding_at(call_, o, nth, element(got, at), element(expected, at));
      if (first->output == call_.outputs_[o].name) ++first->elements_out;
    });
  }
  return first;
}

CallRules::CallRules() {
  for (const OpSpec& spec : all_op_specs())
    for (const CallRule& rule : spec.calls) rules_.emplace(rule.kernel, rule);
  rules_.emplace("copy", CallRule{.kernel = "copy", .bound = rule_exact});
}

const CallRules& CallRules::all() {
  static const CallRules rules;
  return rules;
}

const CallRule* CallRules::find(const std::string& kernel) const {
  const auto it = rules_.find(kernel);
  return it == rules_.end() ? nullptr : &it->second;
}

CallVerdict CallRules::judge(const RecordedCall& call) const {
  const CallRule* const found = find(call.op());
  if (found == nullptr) return {};
  const CallRule& rule = *found;
  const FlushDenormals flush;
  const Unobserved nobody;
  CallFacts facts(call, rule.mixed_types);
  std::vector<RefTensor> expected = facts.expected();
  const std::vector<RefTensor> got = facts.written(), slack = facts.slack_of_denormals(expected);
  if (rule.settle) rule.settle(facts, expected, got);
  CallVerdict verdict{.judged = true};
  double worst = 0;
  for (size_t o = 0; o < got.size(); ++o) {
    const KeptView& out = call.outputs()[o];
    const std::vector<double> bound = rule.bound(facts, out.name.c_str(), expected[o]);
    int64_t elements_out = 0, at = -1;
    double output_worst = 0;
    for (int64_t i = 0; i < got[o].shape.count(); ++i) {
      if (CallFacts::unwritten(expected[o][i])) continue;
      double b = bound.size() == 1 ? bound[0] : bound[static_cast<size_t>(i)];
      if (!slack.empty()) b += slack[o][i];
      const double ratio = error_ratio(got[o][i], expected[o][i], b);
      if (ratio > 1) ++elements_out;
      if (ratio > output_worst) {
        output_worst = ratio;
        at = i;
      }
    }
    verdict.worst = std::max(verdict.worst, output_worst);
    if (output_worst <= 1 || (verdict.finding && output_worst <= worst)) continue;
    worst = output_worst;
    CallFinding f = finding_at(call, o, at, got[o][at], expected[o][at]);
    f.bound = bound.size() == 1 ? bound[0] : bound[static_cast<size_t>(at)];
    f.elements_out = elements_out;
    verdict.finding = std::move(f);
  }
  return verdict;
}

std::string describe(const CallFinding& f) {
  std::string element;
  for (const int64_t i : f.element) element += fmt::format("{}{}", element.empty() ? "" : ", ", i);
  return fmt::format(
      "{}: {} [{}]: got {:.9g}, the reference gives {:.9g} (bound {:.3g}; {:.3g} "
      "ulp; {} element{} out)",
      f.op,
      f.output,
      element,
      f.got,
      f.expected,
      f.bound,
      f.ulps,
      f.elements_out,
      f.elements_out == 1 ? "" : "s");
}

bool on_tensor_cores(const RecordedCall& call) {
  if (!tensor_products(call.device())) return false;
  const CallRule* const rule = CallRules::all().find(call.op());
  return rule != nullptr && rule->on_tensor_cores &&
         rule->on_tensor_cores(CallFacts(call, rule->mixed_types));
}

bool promises_cpu_bits(const RecordedCall& call) {
  return call.device().kind() != DeviceKind::kAscend && !on_tensor_cores(call);
}

std::vector<double> rule_exact(CallFacts&, const char*, const RefTensor&) { return {0.0}; }

std::vector<double> rule_elementwise(CallFacts& facts,
                                     const char* output,
                                     const RefTensor& expected,
                                     double relative) {
  // The reference itself is rounded to f32 once.
  return elementwise_tolerance(facts.type(output), relative + 0x1p-24)(0, {}, expected);
}

}  // namespace ferry::ops
