#include "checkpoint/weights.h"

#include <cmath>

#include "base/alive.h"
#include "checkpoint/wrong_path.h"
#include "device/cpu/cpu_device.h"
#include "device/require_memory.h"
#include "tensor/f8.h"

namespace ferry {
namespace {

constexpr const char* kScaleSuffix = "_scale_inv";  // of what a block of codes is multiplied with

bool stacked(const std::string& name) { return name.find('*') != std::string::npos; }

Result<void> expect_tensor(const ModelSource& from, const std::string& name, const Shape& shape) {
  const std::optional<StoredTensor> info = from.stored(name);
  if (!info)
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is missing; config.json asks for it{}",
                from.path(),
                name,
                why_no_tensor(from.names(), name));
  if (info->shape != shape)
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is {}, config.json asks for {}",
                from.path(),
                name,
                info->shape.str(),
                shape.str());
  return {};
}

/// The names under which a weight's parts are stored, and their shape.
struct StoredParts {
  std::vector<std::string> names;
  Shape shape;
};

StoredParts parts_of(const Weight& w, const char* suffix = "") {
  const Shape& shape = w.global_shape;
  if (!stacked(w.name)) return {{w.name + suffix}, shape};
  StoredParts parts{{}, {shape[1], shape[2]}};
  for (int64_t e = 0; e < shape[0]; ++e) parts.names.push_back(expert_name(w.name, e) + suffix);
  return parts;
}

Result<void> expect_parts(const ModelSource& from,
                          const StoredParts& parts,
                          std::set<std::string>& unread) {
  for (const std::string& name : parts.names) {
    TRY(expect_tensor(from, name, parts.shape));
    unread.erase(name);
  }
  return {};
}

Result<Tensor> load_whole(
    ModelSource& from, const Weight& w, const char* suffix, Device& device, DType want) {
  const std::string name = w.name + suffix;
  return stacked(name) ? from.load_stacked(name, w.global_shape[0], device, want)
                       : from.load(name, device, want);
}

/// Codes with scales, as numbers.
std::vector<float> numbers_of(const Tensor& codes,
                              const std::vector<float>& scales,
                              const ScaleBlocks& blocks) {
  std::vector<uint8_t> bytes(codes.bytes());
  codes.copy_bytes_to(bytes.data());
  const Shape scale_shape = blocks.scales_of(codes.shape());
  const int64_t rows = codes.dim(-2), columns = codes.dim(-1),
                scale_rows = scale_shape[codes.rank() - 2],
                scale_columns = scale_shape[codes.rank() - 1];
  std::vector<float> numbers(bytes.size());
  for (int64_t row = 0; row < codes.count() / columns; ++row) {
    still_alive();
    const int64_t scale_row = row / rows * scale_rows + row % rows / blocks.rows;
    for (int64_t c = 0; c < columns; ++c)
      numbers[static_cast<size_t>(row * columns + c)] =
          f8e4m3_to_f32(bytes[static_cast<size_t>(row * columns + c)]) *
          scales[static_cast<size_t>(scale_row * scale_columns + c / blocks.columns)];
  }
  return numbers;
}

/// Float8 codes and, beside them, what each block is to be multiplied with.
Result<void> load_f8(ModelSource& from, Device& device, Weight& w, std::set<std::string>& unread) {
  StoredParts parts = parts_of(w, kScaleSuffix);
  parts.shape = kF8Blocks.scales_of(parts.shape);
  TRY(expect_parts(from, parts, unread));
  Device& to = w.value.defined() ? cpu_device() : device;
  TRY_ASSIGN(const Tensor codes, load_whole(from, w, "", to, DType::kF8E4M3));
  TRY_ASSIGN(const Tensor scales, load_whole(from, w, kScaleSuffix, to, DType::kF32));
  const std::vector<float> values = scales.to_f32();
  for (const float scale : values)
    if (!(scale > 0 && std::isfinite(scale)))
      return fail(Code::kCorrupt,
                  "{}: tensor \"{}{}\": a scale is {}; it must be a positive number",
                  from.path(),
                  w.name,
                  kScaleSuffix,
                  scale);
  if (!w.value.defined()) {
    w.store(codes, scales, kF8Blocks);
    return {};
  }
  w.value.assign_f32(numbers_of(codes, values, kF8Blocks));
  w.changed();
  return {};
}

/// The type in which memory holds what is stored so.
DType kept_as(const Weight& w, DType stored) {
  const bool as_stored = stored == DType::kBF16 || stored == DType::kF8E4M3;
  return w.matrix() && as_stored ? stored : DType::kF32;
}

Result<void> load_weight(ModelSource& from,
                         Device& device,
                         Weight& w,
                         std::set<std::string>& unread) {
  const StoredParts parts = parts_of(w);
  TRY(expect_parts(from, parts, unread));
  const DType stored = from.stored(parts.names.front())->dtype;
  if (stored == DType::kF8E4M3 && w.matrix()) return load_f8(from, device, w, unread);
  const DType want = w.value.defined() ? w.value.dtype() : kept_as(w, stored);
  TRY_ASSIGN(Tensor value, load_whole(from, w, "", device, want));
  w.store(std::move(value));
  return {};
}

Result<void> check_alias(ModelSource& from,
                         const WeightAlias& alias,
                         std::set<std::string>& unread) {
  if (!unread.contains(alias.first)) return {};
  const Weight& w = *alias.second;
  Weight copy{.name = alias.first, .role = w.role, .global_shape = w.global_shape};
  if (!w.scaled()) copy.value = Tensor::empty(w.global_shape, w.value.dtype(), w.value.device());
  TRY(load_weight(from, w.value.device(), copy, unread));
  const auto same = [](const Tensor& x, const Tensor& y) {
    if (!x.defined() || !y.defined()) return x.defined() == y.defined();
    std::vector<char> a(x.bytes()), b(y.bytes());
    x.copy_bytes_to(a.data());
    y.copy_bytes_to(b.data());
    return a == b;
  };
  if (!same(w.value, copy.value) || !same(w.scales, copy.scales))
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" differs from \"{}\"; Ferry shares the two",
                from.path(),
                alias.first,
                w.name);
  return {};
}

/// What the weights without memory will take of it.
double bytes_to_take(const ModelSource& from, const std::vector<Weight*>& weights) {
  double bytes = 0;
  for (const Weight* w : weights) {
    if (w->value.defined()) continue;
    for (const char* suffix : {"", kScaleSuffix})
      for (const std::string& name : parts_of(*w, suffix).names)
        if (const std::optional<StoredTensor> info = from.stored(name))
          bytes += static_cast<double>(info->shape.count()) *
                   static_cast<double>(size_of(kept_as(*w, info->dtype)));
  }
  return bytes;
}

}  // namespace

Result<void> load_weight(ModelSource& from, Device& device, Weight& weight) {
  std::set<std::string> unread;
  return load_weight(from, device, weight, unread);
}

Result<void> load_weights(ModelSource& from,
                          Device& device,
                          const std::vector<Weight*>& weights,
                          const std::vector<WeightAlias>& aliases,
                          const std::set<std::string>& unused) {
  const std::vector<std::string> names = from.names();
  std::set<std::string> unread(names.begin(), names.end());
  for (const std::string& name : unused) unread.erase(name);
  TRY(require_memory(device, bytes_to_take(from, weights), from.path()));
  for (Weight* w : weights) TRY(load_weight(from, device, *w, unread));
  for (const WeightAlias& alias : aliases) TRY(check_alias(from, alias, unread));
  if (!unread.empty())
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is not part of the model that config.json describes",
                from.path(),
                *unread.begin());
  return {};
}

std::vector<NamedTensor> weights_to_convert(ModelSource& from,
                                            const std::vector<Weight*>& weights,
                                            DType matrices,
                                            const std::function<void()>& loaded) {
  std::vector<NamedTensor> out;
  for (const Weight* w : weights) {
    const StoredParts parts = parts_of(*w);
    for (const std::string& name : parts.names) {
      NamedTensor t{.name = name, .value = {}, .stored = w->matrix() ? matrices : DType::kF32};
      t.shape = parts.shape;
      t.load = [&from, w, name, loaded, shape = parts.shape]() -> Result<Tensor> {
        Weight part{.name = name,
                    .role = w->role,
                    .global_shape = shape,
                    .value = Tensor::empty(shape, DType::kF32, cpu_device())};
        TRY(load_weight(from, cpu_device(), part));
        loaded();
        return part.value;
      };
      out.push_back(std::move(t));
    }
  }
  return out;
}

std::vector<NamedTensor> stored_weights(const std::vector<Weight*>& weights,
                                        const std::vector<WeightAlias>& aliases,
                                        DType matrices) {
  std::vector<NamedTensor> out;
  const auto add = [&](const std::string& name, const Weight& w) {
    out.push_back({name, w.value, w.matrix() ? matrices : DType::kF32});
  };
  for (const Weight* w : weights) add(w->name, *w);
  for (const WeightAlias& alias : aliases) add(alias.first, *alias.second);
  return out;
}

}  // namespace ferry
