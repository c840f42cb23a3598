#include "nnopbase/deviations.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "nnopbase/numbers.h"
#include "runtime/settings.h"

namespace ascend_sim {
namespace {

using Bytes = std::vector<unsigned char>;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

std::vector<double> decoded(const Bytes& bits, aclDataType type) {
  std::vector<double> out(bits.size() / size_of(type));
  with_type(type, [&](auto element) {
    for (size_t i = 0; i < out.size(); ++i) {
      std::memcpy(&element, bits.data() + i * sizeof element, sizeof element);
      out[i] = as_double(element);
    }
  });
  return out;
}

double distance(double spoiled, double right) {
  if (spoiled == right || (std::isnan(spoiled) && std::isnan(right))) return 0;
  const double apart = std::abs(spoiled - right);
  return std::isnan(apart) ? kInfinite : apart;
}

/// Rows without any difference do not count, whatever they hold.
double largest_in_rows(const std::vector<double>& spoiled,
                       const std::vector<double>& right,
                       size_t row) {
  double largest = 0;
  for (size_t begin = 0; begin < right.size(); begin += row) {
    double apart = 0, size = 0;
    for (size_t i = begin; i < begin + row; ++i) {
      apart = std::max(apart, distance(spoiled[i], right[i]));
      if (std::isfinite(right[i])) size = std::max(size, std::abs(right[i]));
    }
    if (apart > 0) largest = std::max(largest, size > 0 ? apart / size : kInfinite);
  }
  return largest;
}

/// In one piece: other processes append to the same file.
void append(const std::string& path, const std::string& line) {
  std::FILE* file = std::fopen(path.c_str(), "ae");
  const bool taken = file && std::fwrite(line.data(), 1, line.size(), file) == line.size();
  const bool written = file && std::fclose(file) == 0 && taken;
  if (!written) violation("FERRY_ASCEND_SIM_DEVIATIONS=" + path + " cannot be written");
}

}  // namespace

bool writes_deviations() { return !settings().deviations.empty(); }

RightOutputs::RightOutputs(const std::vector<Tensor>& outputs, const std::function<void()>& launch)
    : outputs_(outputs) {
  std::vector<Bytes> before;
  before.reserve(outputs.size());
  for (const Tensor& t : outputs) before.push_back(load_bits(t));
  launch();
  for (const Tensor& t : outputs) right_.push_back(load_bits(t));
  for (size_t i = 0; i < outputs.size(); ++i) store_bits(outputs[i], before[i]);
}

std::vector<Deviation> RightOutputs::compare() const {
  std::vector<Deviation> out;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const Tensor& t = outputs_[i];
    const Bytes now = load_bits(t);
    Deviation deviation{&t};
    if (now != right_[i])
      deviation.relative = largest_in_rows(decoded(now, t.dtype),
                                           decoded(right_[i], t.dtype),
                                           static_cast<size_t>(t.rank() > 0 ? t.dim(-1) : 1));
    out.push_back(deviation);
  }
  return out;
}

void write_deviation(const std::string& op, const Deviation& deviation) {
  using Key = std::tuple<std::string, std::string, std::string>;  // file, op, type
  static std::mutex& mutex = *std::make_unique<std::mutex>().release();
  static std::map<Key, double>& written = *std::make_unique<std::map<Key, double>>().release();
  const std::string type = to_string(deviation.tensor->dtype);
  const std::lock_guard lock(mutex);
  const auto [it, first] =
      written.try_emplace({settings().deviations, op, type}, deviation.relative);
  if (!first && deviation.relative <= it->second) return;
  it->second = deviation.relative;
  char number[32];
  std::snprintf(number, sizeof number, "%.6g", deviation.relative);
  append(settings().deviations, op + "\t" + type + "\t" + number + "\n");
}

}  // namespace ascend_sim
