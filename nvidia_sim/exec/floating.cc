// Floating point: exactly rounded operations alone. Approximations (.approx, ex2, lg2, tanh) are
// refused, as are a product and a sum without .rn, which ptxas may fuse: their bits are no promise.
#include <cmath>

#include "exec/decoder.h"
#include "exec/fast.h"
#include "exec/lanewise.h"
#include "exec/numbers.h"

namespace nvidia_sim {
namespace {

// What most of a kernel's time goes to, in loops that the compiler makes vectors of.

NVIDIA_SIM_FAST void sums(float* out, const float* a, const float* b) {
  for (int l = 0; l < kWarpSize; ++l) out[l] = settled(flushed(a[l]) + flushed(b[l]));
}
NVIDIA_SIM_FAST void products(float* out, const float* a, const float* b) {
  for (int l = 0; l < kWarpSize; ++l) out[l] = settled(flushed(a[l]) * flushed(b[l]));
}
NVIDIA_SIM_FAST void fused(float* out, const float* a, const float* b, const float* c) {
  for (int l = 0; l < kWarpSize; ++l)
    out[l] = settled(__builtin_fmaf(flushed(a[l]), flushed(b[l]), flushed(c[l])));
}

template <auto f>
void run_two(Warp& w, const Instruction& i, uint32_t lanes) {
  float out[kWarpSize];
  f(out, w.lanes<float>(i.a[0]), w.lanes<float>(i.a[1]));
  keep(w.lanes<float>(i.d[0]), out, lanes);
}

void run_fused(Warp& w, const Instruction& i, uint32_t lanes) {
  float out[kWarpSize];
  fused(out, w.lanes<float>(i.a[0]), w.lanes<float>(i.a[1]), w.lanes<float>(i.a[2]));
  keep(w.lanes<float>(i.d[0]), out, lanes);
}

/// The number if the other is NaN; NaN if both are. -0 is less than +0.
float least(float a, float b) {
  if (a != a || b != b) return a == a ? a : b == b ? b : std::bit_cast<float>(kNan32);
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
float greatest(float a, float b) {
  if (a != a || b != b) return a == a ? a : b == b ? b : std::bit_cast<float>(kNan32);
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

Instruction::Run run_f32(Decoder& d, bool ftz) {
  const std::string& base = d.base();
  if (base == "add")
    return ftz ? run_two<sums>
               : lanewise<float, float, float>([](float a, float b) { return canonical(a + b); });
  if (base == "sub")
    return ftz ? lanewise<float, float, float>(
                     [](float a, float b) { return settled(flushed(a) - flushed(b)); })
               : lanewise<float, float, float>([](float a, float b) { return canonical(a - b); });
  if (base == "mul")
    return ftz ? run_two<products>
               : lanewise<float, float, float>([](float a, float b) { return canonical(a * b); });
  if (base == "div")
    return ftz ? lanewise<float, float, float>(
                     [](float a, float b) { return settled(flushed(a) / flushed(b)); })
               : lanewise<float, float, float>([](float a, float b) { return canonical(a / b); });
  if (base == "fma")
    return ftz ? run_fused : lanewise<float, float, float, float>([](float a, float b, float c) {
      return canonical(__builtin_fmaf(a, b, c));
    });
  if (base == "min")
    return ftz ? lanewise<float, float, float>(
                     [](float a, float b) { return least(flushed(a), flushed(b)); })
               : lanewise<float, float, float>([](float a, float b) { return least(a, b); });
  if (base == "max")
    return ftz ? lanewise<float, float, float>(
                     [](float a, float b) { return greatest(flushed(a), flushed(b)); })
               : lanewise<float, float, float>([](float a, float b) { return greatest(a, b); });
  if (base == "sqrt")
    return ftz ? lanewise<float, float>([](float a) { return settled(std::sqrt(flushed(a))); })
               : lanewise<float, float>([](float a) { return canonical(std::sqrt(a)); });
  if (base == "rcp")
    return ftz ? lanewise<float, float>([](float a) { return settled(1.0f / flushed(a)); })
               : lanewise<float, float>([](float a) { return canonical(1.0f / a); });
  if (base == "neg")
    return ftz ? lanewise<float, float>([](float a) { return -flushed(a); })
               : lanewise<float, float>([](float a) { return -a; });
  return ftz ? lanewise<float, float>([](float a) { return std::fabs(flushed(a)); })
             : lanewise<float, float>([](float a) { return std::fabs(a); });
}

Instruction::Run run_f64(Decoder& d) {
  const std::string& base = d.base();
  if (base == "add")
    return lanewise<double, double, double>([](double a, double b) { return a + b; });
  if (base == "sub")
    return lanewise<double, double, double>([](double a, double b) { return a - b; });
  if (base == "mul")
    return lanewise<double, double, double>([](double a, double b) { return a * b; });
  if (base == "div")
    return lanewise<double, double, double>([](double a, double b) { return a / b; });
  if (base == "fma")
    return lanewise<double, double, double, double>(
        [](double a, double b, double c) { return __builtin_fma(a, b, c); });
  if (base == "sqrt") return lanewise<double, double>([](double a) { return std::sqrt(a); });
  if (base == "rcp") return lanewise<double, double>([](double a) { return 1.0 / a; });
  if (base == "neg") return lanewise<double, double>([](double a) { return -a; });
  if (base == "abs") return lanewise<double, double>([](double a) { return std::fabs(a); });
  d.refuse();
}

}  // namespace

bool decode_float(Decoder& d) {
  const std::string& base = d.base();
  const bool rounded = base == "add" || base == "sub" || base == "mul" || base == "div" ||
                       base == "fma" || base == "sqrt" || base == "rcp";
  const bool exact = base == "min" || base == "max" || base == "neg" || base == "abs";
  if (!rounded && !exact) return false;
  if (rounded && !d.take("rn"))
    d.refuse(
        "without .rn its bits are not promised (nvcc: -fmad=false -prec-div=true "
        "-prec-sqrt=true)");
  const bool ftz = d.take("ftz");
  const Type type = d.take_type();
  if (!is_float(type)) d.refuse("not of this type");
  const int bytes = size_of(type);
  d.out().run = type == Type::kF32 ? run_f32(d, ftz) : run_f64(d);
  if (base == "fma")
    d.map(bytes, {bytes, bytes, bytes});
  else if (base == "sqrt" || base == "rcp" || base == "neg" || base == "abs")
    d.map(bytes, {bytes});
  else
    d.map(bytes, {bytes, bytes});
  return true;
}

}  // namespace nvidia_sim
