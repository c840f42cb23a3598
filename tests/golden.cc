#include "golden.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/file.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"

namespace ferry {
namespace {

uint64_t mixed(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

std::vector<std::string> checkpoint_names(const Weight& w) {
  const size_t star = w.name.find('*');
  if (star == std::string::npos) return {w.name};
  std::vector<std::string> names;
  for (int64_t e = 0; e < w.value.dim(0); ++e)
    names.push_back(w.name.substr(0, star) + std::to_string(e) + w.name.substr(star + 1));
  return names;
}

Golden::Golden(const std::string& name)
    : json_(std::make_shared<nlohmann::json>(
          nlohmann::json::parse(*read_file(kGoldens + name + ".json")))),
      file_(*SafetensorsFile::open(kGoldens + name + ".safetensors")) {}

std::unique_ptr<models::TrainableLm> Golden::model() const {
  auto model = models::make_model(
      json_->at("config").dump(), "config.json", cpu_device(), DType::kF32, DType::kF32);
  if (!model) throw std::runtime_error(model.error().message);
  for (Weight* w : (*model)->weights()) fill(*w);
  return std::move(*model);
}

std::vector<float> Golden::floats(const std::string& name) const {
  return file_.load(name, cpu_device())->to_f32();
}

std::vector<int32_t> Golden::ints(const std::string& name) const {
  return file_.load(name, cpu_device())->to_i32();
}

void Golden::fill(Weight& w) const {
  std::vector<float> values;
  for (const std::string& name : checkpoint_names(w)) {
    const auto& p = json_->at("params").at(name);
    const float offset = p.at("offset").get<float>(), scale = p.at("scale").get<float>();
    const uint64_t seed = json_->at("seed").get<uint64_t>() * 0x9E3779B97F4A7C15;
    const uint64_t start = name_hash(name.data(), name.size()) ^ seed;
    int64_t count = 1;
    for (const auto& d : p.at("shape")) count *= d.get<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t h = mixed(start + static_cast<uint64_t>(i) * 0xD1B54A32D192ED03);
      const float u = static_cast<float>(h >> 40) * 0x1p-24f;
      values.push_back(offset + scale * (u - 0.5f));
    }
  }
  w.value.assign_f32(values);
  w.changed();
}

double relative_error(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) return INFINITY;
  double largest = 0, error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    const double e = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    error = std::isnan(e) ? INFINITY : std::max(error, e);
  }
  return largest == 0 ? error : error / largest;
}

models::TokenBatch batch_of(const Golden& golden) {
  const std::vector<int32_t> tokens = golden.ints("tokens");
  const auto n = static_cast<int32_t>(tokens.size());
  std::vector<int32_t> labels(tokens.begin() + 1, tokens.end());
  labels.push_back(-1);
  models::TokenBatch b;
  b.tokens = Tensor::from_i32(tokens, {n}, cpu_device());
  b.labels = Tensor::from_i32(labels, {n}, cpu_device());
  b.segments = ops::Segments::packed({&n, 1}, cpu_device());
  return b;
}

}  // namespace ferry
