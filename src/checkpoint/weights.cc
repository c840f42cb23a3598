#include "checkpoint/weights.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/alive.h"
#include "checkpoint/quant_description.h"
#include "checkpoint/wrong_path.h"
#include "device/cpu/cpu_device.h"
#include "device/require_memory.h"
#include "tensor/f8.h"
#include "tensor/quantise.h"

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
                "{}: tensor \"{}\" is {}, config.json asks for {}{}",
                from.path(),
                name,
                info->shape.str(),
                shape.str(),
                info->shape.count() > 0 || shape.count() == 0
                    ? ""
                    : "; DeepSpeed's ZeRO-3 saves it empty where its parts lie in several "
                      "processes: save again with "
                      "stage3_gather_16bit_weights_on_model_save, or make weights of the "
                      "checkpoint with zero_to_fp32.py");
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

std::optional<WeightCodes> codes_of(DType stored) {
  if (stored == DType::kI8) return WeightCodes::kInt8;
  if (stored == DType::kU8) return WeightCodes::kInt4;
  return std::nullopt;
}

/// Codes have scales beside them, and may have offsets.
Result<void> expect_codes(const ModelSource& from,
                          WeightCodes kind,
                          StoredParts parts,
                          std::set<std::string>& unread) {
  const CodePanels layout{kind, parts.shape[0], parts.shape[1]};
  const Shape scales = {parts.shape[0], layout.groups()};
  parts.shape = stored_codes_shape(kind, parts.shape);
  TRY(expect_parts(from, parts, unread));
  for (const std::string& name : parts.names) {
    TRY(expect_parts(from, {{name + kCodeScaleSuffix}, scales}, unread));
    if (from.stored(name + kCodeOffsetSuffix))
      TRY(expect_parts(from, {{name + kCodeOffsetSuffix}, scales}, unread));
  }
  return {};
}

/// All that a weight is read from.
Result<void> expect_weight(const ModelSource& from,
                           const Weight& w,
                           std::set<std::string>& unread) {
  StoredParts parts = parts_of(w);
  const std::optional<StoredTensor> first = from.stored(parts.names.front());
  if (const auto kind = first && w.matrix() ? codes_of(first->dtype) : std::nullopt)
    return expect_codes(from, *kind, std::move(parts), unread);
  TRY(expect_parts(from, parts, unread));
  if (first->dtype != DType::kF8E4M3 || !w.matrix()) return {};
  StoredParts scales = parts_of(w, kScaleSuffix);
  scales.shape = kF8Blocks.scales_of(scales.shape);
  return expect_parts(from, scales, unread);
}

Result<Tensor> load_whole(
    ModelSource& from, const Weight& w, const char* suffix, Device& device, DType want) {
  const std::string name = w.name + suffix;
  return stacked(name) ? from.load_stacked(name, w.global_shape[0], device, want)
                       : from.load(name, device, want);
}

/// Fails unless every scale is one that codes can be multiplied with.
Result<void> check_f8_scales(const ModelSource& from,
                             const std::string& name,
                             const std::vector<float>& scales) {
  for (const float scale : scales)
    if (!(scale > 0 && std::isfinite(scale)))
      return fail(Code::kCorrupt,
                  "{}: tensor \"{}{}\": a scale is {}; it must be a positive number",
                  from.path(),
                  name,
                  kScaleSuffix,
                  scale);
  return {};
}

/// The numbers of float8 rows from `first` on, a multiple of the blocks' height.
Result<std::vector<float>> load_f8_rows(
    ModelSource& from, const std::string& name, int64_t first, int64_t rows, int64_t columns) {
  TRY_ASSIGN(const Tensor codes, from.load_rows(name, first, rows, cpu_device(), DType::kF8E4M3));
  const Shape blocks = kF8Blocks.scales_of({rows, columns});
  TRY_ASSIGN(
      const Tensor scale_rows,
      from.load_rows(
          name + kScaleSuffix, first / kF8Blocks.rows, blocks[0], cpu_device(), DType::kF32));
  const std::vector<float> scales = scale_rows.to_f32();
  TRY(check_f8_scales(from, name, scales));
  std::vector<uint8_t> bytes(codes.bytes());
  codes.copy_bytes_to(bytes.data());
  std::vector<float> numbers(bytes.size());
  for (int64_t row = 0; row < rows; ++row) {
    still_alive();
    for (int64_t c = 0; c < columns; ++c)
      numbers[static_cast<size_t>(row * columns + c)] =
          f8e4m3_to_f32(bytes[static_cast<size_t>(row * columns + c)]) *
          scales[static_cast<size_t>(row / kF8Blocks.rows * blocks[1] + c / kF8Blocks.columns)];
  }
  return numbers;
}

/// Float8 codes and, beside them, what each block is to be multiplied with.
Result<void> load_f8(ModelSource& from, Device& device, Weight& w) {
  TRY_ASSIGN(const Tensor codes, load_whole(from, w, "", device, DType::kF8E4M3));
  TRY_ASSIGN(const Tensor scales, load_whole(from, w, kScaleSuffix, device, DType::kF32));
  TRY(check_f8_scales(from, w.name, scales.to_f32()));
  w.store(codes, scales, kF8Blocks);
  return {};
}

/// The type in which memory holds what is stored so.
DType kept_as(const Weight& w, DType stored) {
  const bool as_stored = stored == DType::kBF16 || stored == DType::kF8E4M3;
  return w.matrix() && as_stored ? stored : DType::kF32;
}

/// Some rows of codes, checked.
Result<CodeRows> load_code_rows(ModelSource& from,
                                WeightCodes kind,
                                const std::string& name,
                                int64_t first,
                                int64_t count,
                                int64_t columns) {
  const std::string scale_name = name + kCodeScaleSuffix, offset_name = name + kCodeOffsetSuffix;
  const auto part = [&](const std::string& of, DType want) {
    return from.load_rows(of, first, count, cpu_device(), want);
  };
  CodeRows rows;
  TRY_ASSIGN(const Tensor scales, part(scale_name, DType::kF32));
  rows.scales = scales.to_f32();
  for (float& scale : rows.scales) {
    if (!(scale > 0 && std::isfinite(scale)))
      return fail(Code::kCorrupt,
                  "{}: tensor \"{}\": a scale is {}; it must be a positive number",
                  from.path(),
                  scale_name,
                  scale);
    // A flushed scale would make zeros of what was not.
    if (scale < 0x1p-120f)
      return fail(Code::kInvalidInput,
                  "{}: tensor \"{}\": a scale is {}; below 2^-120 products are lost",
                  from.path(),
                  scale_name,
                  scale);
  }
  if (from.stored(offset_name)) {
    TRY_ASSIGN(const Tensor offsets, part(offset_name, DType::kF32));
    for (const float offset : offsets.to_f32())
      if (!(offset == 0))
        return fail(
            Code::kInvalidInput,
            "{}: tensor \"{}\": an offset is {}; Ferry reads symmetric codes, whose offsets "
            "are 0",
            from.path(),
            offset_name,
            offset);
  }
  TRY_ASSIGN(const Tensor codes, part(name, kind == WeightCodes::kInt8 ? DType::kI8 : DType::kU8));
  rows.codes.resize(static_cast<size_t>(count * columns));
  if (kind == WeightCodes::kInt8) {
    codes.copy_bytes_to(rows.codes.data());
  } else {
    std::vector<uint8_t> pairs(codes.bytes());
    codes.copy_bytes_to(pairs.data());
    unpack_int4(pairs, columns, rows.codes);
  }
  return rows;
}

}  // namespace

Result<void> for_each_piece_of_rows(const Shape& matrix,
                                    const std::function<Result<void>(int64_t, int64_t)>& take) {
  constexpr int64_t kElements = int64_t{1} << 20;
  static_assert(kF8Blocks.rows % kPanelRows == 0 && kF8Blocks.rows % kPairPanelRows == 0);
  const int64_t blocks = std::max<int64_t>(1, kElements / (kF8Blocks.rows * matrix[1]));
  const int64_t step = blocks * kF8Blocks.rows;
  for (int64_t first = 0; first < matrix[0]; first += step) {
    TRY(take(first, std::min(step, matrix[0] - first)));
    still_alive();
  }
  return {};
}

Result<std::vector<float>> load_numbers(
    ModelSource& from, const std::string& name, int64_t first, int64_t rows, int64_t columns) {
  const DType stored = from.stored(name)->dtype;
  std::vector<float> values;
  if (const auto kind = codes_of(stored)) {
    TRY_ASSIGN(const CodeRows codes, load_code_rows(from, *kind, name, first, rows, columns));
    const CodePanels layout{*kind, rows, columns};
    values.resize(codes.codes.size());
    for (int64_t r = 0; r < rows; ++r)
      numbers_of_row(layout,
                     codes.codes.data() + r * columns,
                     codes.scales.data() + r * layout.groups(),
                     values.data() + r * columns);
  } else if (stored == DType::kF8E4M3) {
    TRY_ASSIGN(values, load_f8_rows(from, name, first, rows, columns));
  } else {
    TRY_ASSIGN(const Tensor part, from.load_rows(name, first, rows, cpu_device(), DType::kF32));
    values = part.to_f32();
  }
  for (const float v : values)
    if (!std::isfinite(v))
      return fail(
          Code::kCorrupt, "{}: tensor \"{}\" holds {}, which has no code", from.path(), name, v);
  return values;
}

namespace {

/// What is stored as codes of any kind becomes numbers in the weight's memory.
Result<void> load_as_numbers(ModelSource& from, Device& device, Weight& w) {
  const StoredParts parts = parts_of(w);
  if (!w.value.defined()) w.value = Tensor::empty(w.global_shape, DType::kF32, device);
  const int64_t count = static_cast<int64_t>(parts.names.size()), columns = parts.shape[1];
  const Tensor by_row = w.value.reshape({count * parts.shape[0], columns});
  for (int64_t m = 0; m < count; ++m) {
    const std::string& name = parts.names[static_cast<size_t>(m)];
    TRY(for_each_piece_of_rows(parts.shape, [&](int64_t first, int64_t rows) -> Result<void> {
      TRY_ASSIGN(const std::vector<float> numbers, load_numbers(from, name, first, rows, columns));
      const int64_t at = m * parts.shape[0] + first;
      by_row.slice(0, at, at + rows).assign_f32(numbers);
      return {};
    }));
  }
  w.changed();
  return {};
}

/// Codes as they are stored, or, of what is stored otherwise, made here.
Result<void> load_as_codes(ModelSource& from, WeightCodes kind, Weight& w) {
  const StoredParts parts = parts_of(w);
  const int64_t columns = parts.shape[1];
  PanelsInMaking made(kind, w.global_shape);
  for (size_t m = 0; m < parts.names.size(); ++m) {
    const auto matrix = static_cast<int64_t>(m);
    const std::string& name = parts.names[m];
    if (from.codes(name) == kind) {
      TRY(from.take_codes(name, made, matrix));
      still_alive();
      continue;
    }
    const bool stored = codes_of(from.stored(name)->dtype) == kind;
    TRY(for_each_piece_of_rows(parts.shape, [&](int64_t first, int64_t count) -> Result<void> {
      CodeRows rows;
      if (stored) {
        TRY_ASSIGN(rows, load_code_rows(from, kind, name, first, count, columns));
      } else {
        TRY_ASSIGN(const std::vector<float> numbers,
                   load_numbers(from, name, first, count, columns));
        rows = quantise_rows(kind, numbers, columns);
      }
      made.put(matrix, first, rows);
      return {};
    }));
  }
  made.store_in(w);
  return {};
}

/// The codes that a weight without memory is to hold, with all its parts known to be there. `tied`:
/// the embedding is the head.
std::optional<WeightCodes> codes_to_hold(const ModelSource& from,
                                         const Device& device,
                                         const Weight& w,
                                         bool tied,
                                         const WeightLoading& loading) {
  if (!w.matrix() || w.value.defined()) return std::nullopt;
  const std::string first = parts_of(w).names.front();
  const bool product = takes_codes(w) || w.role == WeightRole::kHead,
             looked_up = w.role == WeightRole::kEmbedding;
  if (const auto stored = codes_of(from.stored(first)->dtype);
      stored && (!product || !loading.quantise || loading.quantise == stored))
    return product && (loading.keep_codes || loading.quantise) ? stored : std::nullopt;
  if (loading.quantise) {
    if (takes_codes(w)) return loading.quantise;
    if (product || (tied && looked_up)) return WeightCodes::kInt8;
  }
  const bool keeps = loading.keep_codes && device.kind() == DeviceKind::kCpu;
  if (!keeps || !(product || looked_up)) return std::nullopt;
  const std::optional<WeightCodes> codes = from.codes(first);
  for (const std::string& part : parts_of(w).names)  // of a stack all, or numbers
    if (from.codes(part) != codes) return std::nullopt;
  return codes;
}

/// Whether a weight without memory that is to hold no codes is to hold pairs, with all its parts known
/// to be there.
bool pairs_to_hold(const ModelSource& from,
                   const Device& device,
                   const Weight& w,
                   bool tied,
                   const WeightLoading& loading) {
  if (!loading.pairs || device.kind() != DeviceKind::kCpu || w.value.defined()) return false;
  const DType stored = from.stored(parts_of(w).names.front())->dtype;
  const bool numbers = !codes_of(stored) && stored != DType::kF8E4M3;
  return numbers && takes_pairs(w, tied);
}

Shape pairs_shape(const Weight& w) { return {w.matrices(), w.pair_panels().count()}; }

/// What is stored as numbers, some rows after the other.
Result<void> load_as_pairs(ModelSource& from, Weight& w) {
  const StoredParts parts = parts_of(w);
  const PairPanels layout = w.pair_panels();
  Tensor pairs = Tensor::empty(pairs_shape(w), DType::kI32, cpu_device());
  for (size_t m = 0; m < parts.names.size(); ++m) {
    auto* const panels =
        static_cast<uint32_t*>(pairs.data()) + static_cast<int64_t>(m) * layout.count();
    TRY(for_each_piece_of_rows(parts.shape, [&](int64_t first, int64_t rows) -> Result<void> {
      TRY_ASSIGN(const Tensor numbers,
                 from.load_rows(parts.names[m], first, rows, cpu_device(), DType::kBF16));
      put_pairs(
          layout, first / kPairPanelRows, rows, static_cast<const bf16_t*>(numbers.data()), panels);
      return {};
    }));
  }
  w.store_pairs(std::move(pairs));
  return {};
}

/// How a weight is to be held.
struct Held {
  std::optional<WeightCodes> codes;
  bool pairs = false;
};

Held to_hold(const ModelSource& from,
             const Device& device,
             const Weight& w,
             bool tied,
             const WeightLoading& loading) {
  const std::optional<WeightCodes> codes = codes_to_hold(from, device, w, tied, loading);
  return {codes, !codes && pairs_to_hold(from, device, w, tied, loading)};
}

/// With all parts known to be there.
Result<void> load_expected(ModelSource& from, Device& device, Weight& w, const Held& as) {
  if (as.codes) return load_as_codes(from, *as.codes, w);
  if (as.pairs) return load_as_pairs(from, w);
  const DType stored = from.stored(parts_of(w).names.front())->dtype;
  if (w.matrix() && codes_of(stored)) return load_as_numbers(from, device, w);
  if (w.matrix() && stored == DType::kF8E4M3)
    return w.value.defined() ? load_as_numbers(from, device, w) : load_f8(from, device, w);
  const DType want = w.value.defined() ? w.value.dtype() : kept_as(w, stored);
  TRY_ASSIGN(Tensor value, load_whole(from, w, "", device, want));
  w.store(std::move(value));
  return {};
}

/// What `w` is stored as a second time, if it is; without memory.
std::optional<Weight> stored_again(const ModelSource& from, const WeightAlias& alias) {
  if (!from.stored(alias.first)) return std::nullopt;
  const Weight& w = *alias.second;
  return Weight{.name = alias.first, .role = w.role, .global_shape = w.global_shape};
}

/// Whether a copy has the values of its weight, which is loaded.
Result<void> check_values(ModelSource& from, const Weight& w, Weight copy) {
  const auto differs = [&] {
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" differs from \"{}\"; Ferry shares the two",
                from.path(),
                copy.name,
                w.name);
  };
  if (w.paired) {  // rounded: what is stored is compared
    const StoredParts parts = parts_of(w), copies = parts_of(copy);
    for (size_t m = 0; m < parts.names.size(); ++m)
      TRY(for_each_piece_of_rows(parts.shape, [&](int64_t first, int64_t rows) -> Result<void> {
        const auto numbers = [&](const std::string& name) {
          return load_numbers(from, name, first, rows, parts.shape[1]);
        };
        TRY_ASSIGN(const std::vector<float> a, numbers(parts.names[m]));
        TRY_ASSIGN(const std::vector<float> b, numbers(copies.names[m]));
        if (a != b) return differs();
        return {};
      }));
    return {};
  }
  if (!w.scaled()) copy.value = Tensor::empty(w.global_shape, w.value.dtype(), w.value.device());
  const bool other_codes = w.codes() && code_scales_dtype(*w.codes()) == DType::kU8 &&
                           from.codes(copy.name) != w.codes();
  if (!other_codes) TRY(load_expected(from, w.value.device(), copy, {w.codes(), false}));
  const auto same = [](const Tensor& x, const Tensor& y) {
    if (!x.defined() || !y.defined()) return x.defined() == y.defined();
    std::vector<char> a(x.bytes()), b(y.bytes());
    x.copy_bytes_to(a.data());
    y.copy_bytes_to(b.data());
    return a == b;
  };
  if (!same(w.value, copy.value) || !same(w.scales, copy.scales)) return differs();
  return {};
}

/// By names and shapes alone.
Result<void> check_names(const ModelSource& from,
                         const std::vector<Weight*>& weights,
                         const std::vector<WeightAlias>& aliases,
                         const std::set<std::string>& unused) {
  const std::vector<std::string> names = from.names();
  std::set<std::string> unread(names.begin(), names.end());
  for (const std::string& name : unused) unread.erase(name);
  for (const Weight* w : weights) TRY(expect_weight(from, *w, unread));
  for (const WeightAlias& alias : aliases)
    if (const std::optional<Weight> copy = stored_again(from, alias))
      TRY(expect_weight(from, *copy, unread));
  if (!unread.empty())
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is not part of the model that config.json describes",
                from.path(),
                *unread.begin());
  return {};
}

bool heads_are_tied(const std::vector<Weight*>& weights) {
  return std::none_of(
      weights.begin(), weights.end(), [](const Weight* w) { return w->role == WeightRole::kHead; });
}

/// Codes are multiplied on the CPU alone.
Result<void> check_device(const ModelSource& from,
                          const Device& device,
                          std::optional<WeightCodes> quantise) {
  if (device.kind() == DeviceKind::kCpu) return {};
  if (quantise)
    return fail(Code::kInvalidInput,
                "--quantize {}: runs on the CPU alone so far, not on {}; without it the model runs "
                "there in bf16",
                to_string(*quantise),
                device.name());
  if (const std::optional<std::string> name = stored_as_codes(from))
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is stored as whole numbers, which run on the CPU alone so far, "
                "not on {}; ferry convert {} --to bf16 --out DIR makes a directory that runs there",
                from.path(),
                *name,
                device.name(),
                from.path());
  return {};
}

}  // namespace

double bytes_of_weights(const ModelSource& from,
                        const Device& device,
                        const std::vector<Weight*>& weights,
                        const WeightLoading& loading) {
  double bytes = 0;
  const bool tied = heads_are_tied(weights);
  for (const Weight* w : weights) {
    if (w->value.defined()) continue;
    const std::vector<std::string> parts = parts_of(*w).names;
    if (!from.stored(parts.front())) continue;
    const Held held = to_hold(from, device, *w, tied, loading);
    if (const auto kind = held.codes) {
      const int rank = w->global_shape.rank();
      const CodePanels l{*kind, w->global_shape[rank - 2], w->global_shape[rank - 1]};
      bytes += static_cast<double>(parts.size()) *
               static_cast<double>(l.bytes() + l.panels() * l.panel_scale_bytes());
      continue;
    }
    if (held.pairs) {
      bytes +=
          static_cast<double>(pairs_shape(*w).count()) * static_cast<double>(size_of(DType::kI32));
      continue;
    }
    for (const char* suffix : {"", kScaleSuffix})
      for (const std::string& name : parts_of(*w, suffix).names)
        if (const std::optional<StoredTensor> info = from.stored(name))
          bytes += static_cast<double>(info->shape.count()) *
                   static_cast<double>(size_of(kept_as(*w, info->dtype)));
  }
  return bytes;
}

bool takes_codes(const Weight& weight) {
  return weight.role == WeightRole::kProjection || weight.role == WeightRole::kExperts;
}

bool takes_pairs(const Weight& weight, bool tied) {
  return takes_codes(weight) || weight.role == WeightRole::kRouter ||
         weight.role == WeightRole::kHead || (tied && weight.role == WeightRole::kEmbedding);
}

std::optional<std::string> stored_as_codes(const ModelSource& from) {
  for (const std::string& name : from.names())
    if (codes_of(from.stored(name)->dtype)) return name;
  return std::nullopt;
}

std::optional<WeightCodes> stored_codes(const ModelSource& from) {
  const std::optional<std::string> name = stored_as_codes(from);
  return name ? codes_of(from.stored(*name)->dtype) : std::nullopt;
}

Result<void> check_stored_weights(ModelSource& from,
                                  const std::vector<Weight*>& weights,
                                  const std::vector<WeightAlias>& aliases,
                                  const std::set<std::string>& unused) {
  TRY(check_names(from, weights, aliases, unused));
  for (const WeightAlias& alias : aliases) {
    std::optional<Weight> copy = stored_again(from, alias);
    if (!copy) continue;
    const Weight& w = *alias.second;
    Weight stored{.name = w.name, .role = w.role, .global_shape = w.global_shape};
    TRY(load_weight(from, cpu_device(), stored));
    TRY(check_values(from, stored, *std::move(copy)));
  }
  return {};
}

Result<void> load_weight(
    ModelSource& from, Device& device, Weight& weight, bool tied, const WeightLoading& loading) {
  std::set<std::string> unread;
  TRY(expect_weight(from, weight, unread));
  return load_expected(from, device, weight, to_hold(from, device, weight, tied, loading));
}

Result<void> load_weights(ModelSource& from,
                          Device& device,
                          const std::vector<Weight*>& weights,
                          const std::vector<WeightAlias>& aliases,
                          const WeightLoading& loading) {
  TRY(check_names(from, weights, aliases, loading.unused));
  bool without_memory = false;
  for (const Weight* w : weights) without_memory |= !w->value.defined();
  if (without_memory) TRY(check_device(from, device, loading.quantise));
  TRY(require_memory_for_weights(
      device, bytes_of_weights(from, device, weights, loading), from.path()));
  const bool tied = heads_are_tied(weights);
  for (Weight* w : weights)
    TRY(load_expected(from, device, *w, to_hold(from, device, *w, tied, loading)));
  for (const WeightAlias& alias : aliases)
    if (std::optional<Weight> copy = stored_again(from, alias))
      TRY(check_values(from, *alias.second, *std::move(copy)));
  return {};
}

Result<void> make_room_for_weights(const ModelSource& from,
                                   Device& device,
                                   const std::vector<Weight*>& weights,
                                   const std::vector<WeightAlias>& aliases,
                                   const WeightLoading& loading) {
  TRY(check_names(from, weights, aliases, loading.unused));
  TRY(check_device(from, device, loading.quantise));
  const bool tied = heads_are_tied(weights);
  for (Weight* w : weights) {
    const Shape& shape = w->global_shape;
    const Held held = to_hold(from, device, *w, tied, loading);
    if (const auto kind = held.codes) {
      const int rank = shape.rank();
      const int64_t matrices = w->matrices();
      const CodePanels l{*kind, shape[rank - 2], shape[rank - 1]};
      w->store_codes(
          *kind,
          Tensor::empty(code_panels_shape(l, matrices), code_panels_dtype(l), device),
          Tensor::empty(code_scales_shape(l, matrices), code_scales_dtype(*kind), device));
      continue;
    }
    if (held.pairs) {
      w->store_pairs(Tensor::empty(pairs_shape(*w), DType::kI32, device));
      continue;
    }
    const DType kept = kept_as(*w, from.stored(parts_of(*w).names.front())->dtype);
    if (kept == DType::kF8E4M3)
      w->store(Tensor::empty(shape, kept, device),
               Tensor::empty(kF8Blocks.scales_of(shape), DType::kF32, device),
               kF8Blocks);
    else
      w->store(Tensor::empty(shape, kept, device));
  }
  return {};
}

std::vector<NamedTensor> weights_to_quantise(ModelSource& from,
                                             const std::vector<Weight*>& weights,
                                             WeightCodes codes,
                                             const std::function<void()>& loaded) {
  std::vector<NamedTensor> out;
  const auto convert_one = [&](Weight* w) {
    for (NamedTensor& t : weights_to_convert(from, {w}, {}, DType::kBF16, loaded))
      out.push_back(std::move(t));
  };
  for (Weight* w : weights) {
    if (!takes_codes(*w)) {
      convert_one(w);
      continue;
    }
    const StoredParts parts = parts_of(*w);
    const CodePanels layout{codes, parts.shape[0], parts.shape[1]};
    for (const std::string& name : parts.names) {
      // The file's order of tensors has all scales before all codes: each is made when its turn
      // comes, from numbers that are read again, so that one matrix is in memory at a time.
      const auto rows_of = [&from, name, codes, shape = parts.shape]() -> Result<CodeRows> {
        CodeRows all;
        TRY(for_each_piece_of_rows(shape, [&](int64_t first, int64_t count) -> Result<void> {
          TRY_ASSIGN(const std::vector<float> numbers,
                     load_numbers(from, name, first, count, shape[1]));
          const CodeRows rows = quantise_rows(codes, numbers, shape[1]);
          all.codes.insert(all.codes.end(), rows.codes.begin(), rows.codes.end());
          all.scales.insert(all.scales.end(), rows.scales.begin(), rows.scales.end());
          return {};
        }));
        return all;
      };
      const bool int8 = codes == WeightCodes::kInt8;
      NamedTensor t{.name = name, .value = {}, .stored = int8 ? DType::kI8 : DType::kU8};
      t.shape = stored_codes_shape(codes, parts.shape);
      t.load =
          [rows_of, loaded, int8, stored = t.shape, columns = parts.shape[1]]() -> Result<Tensor> {
        TRY_ASSIGN(const CodeRows rows, rows_of());
        Tensor value = Tensor::empty(stored, int8 ? DType::kI8 : DType::kU8, cpu_device());
        if (int8)
          value.copy_bytes_from(rows.codes.data());
        else
          value.copy_bytes_from(pack_int4(rows.codes, columns).data());
        loaded();
        return value;
      };
      NamedTensor scale{.name = name + kCodeScaleSuffix,
                        .value = {},
                        .stored = int8 ? DType::kF32 : DType::kBF16};
      scale.shape = {layout.rows, layout.groups()};
      scale.load = [rows_of, loaded, shape = scale.shape]() -> Result<Tensor> {
        TRY_ASSIGN(const CodeRows rows, rows_of());
        loaded();
        return Tensor::from_f32(rows.scales, shape, cpu_device());
      };
      out.push_back(std::move(t));
      out.push_back(std::move(scale));
      if (!int8) continue;
      // Symmetric codes have none, but vllm-ascend has a place for it.
      NamedTensor offset{.name = name + kCodeOffsetSuffix, .value = {}, .stored = DType::kF32};
      offset.shape = {layout.rows, 1};
      offset.load = [loaded, shape = offset.shape]() -> Result<Tensor> {
        loaded();
        return Tensor::zeros(shape, DType::kF32, cpu_device());
      };
      out.push_back(std::move(offset));
    }
  }
  return out;
}

std::vector<NamedTensor> weights_to_convert(ModelSource& from,
                                            const std::vector<Weight*>& weights,
                                            const std::vector<WeightAlias>& aliases,
                                            DType matrices,
                                            const std::function<void()>& loaded) {
  std::vector<NamedTensor> out;
  const auto add = [&](const std::vector<std::string>& names, const Weight* w) {
    const StoredParts parts = parts_of(*w);
    for (size_t i = 0; i < names.size(); ++i) {
      NamedTensor t{.name = names[i], .value = {}, .stored = w->matrix() ? matrices : DType::kF32};
      t.shape = parts.shape;
      t.load = [&from, w, of = parts.names[i], loaded, shape = parts.shape]() -> Result<Tensor> {
        Weight part{.name = of,
                    .role = w->role,
                    .global_shape = shape,
                    .value = Tensor::empty(shape, DType::kF32, cpu_device())};
        TRY(load_weight(from, cpu_device(), part));
        loaded();
        return part.value;
      };
      out.push_back(std::move(t));
    }
  };
  for (const Weight* w : weights) add(parts_of(*w).names, w);
  for (const WeightAlias& alias : aliases) add({alias.first}, alias.second);
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
