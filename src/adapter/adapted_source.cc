#include "adapter/adapted_source.h"

#include "adapter/low_rank.h"
#include "base/json.h"
#include "checkpoint/convert.h"
#include "checkpoint/model_texts.h"
#include "device/cpu/cpu_device.h"
#include "text/tokenizer.h"

namespace ferry {
namespace {

/// What was merged on the CPU, where and as it is wanted. Errors: kCorrupt, naming adapter and tensor: finite
/// factors whose product is not.
Result<Tensor> as_wanted(
    const Adapter& adapter, std::string_view name, Tensor merged, Device& device, DType want) {
  const std::span bytes(static_cast<const std::byte*>(merged.data()), merged.bytes());
  if (const auto at = first_not_finite(DType::kF32, bytes))
    return fail(Code::kCorrupt,
                "{}: with it, element {} of {} is not a finite number",
                adapter.path(),
                *at,
                printable(name));
  if (want == DType::kF32 && device.kind() == DeviceKind::kCpu) return merged;
  Tensor value = Tensor::empty(merged.shape(), want, device);
  fill_from(value, DType::kF32, bytes);
  return value;
}

}  // namespace

Result<AdaptedSource> AdaptedSource::create(std::unique_ptr<ModelSource> base,
                                            Adapter adapter,
                                            DType compute) {
  TRY(adapter.check_fits(*base));
  return AdaptedSource(std::move(base), std::move(adapter), compute);
}

std::optional<StoredTensor> AdaptedSource::stored(std::string_view name) const {
  std::optional<StoredTensor> stored = base_->stored(name);
  const bool stays = compute_ == DType::kBF16 && stored && stored->dtype == DType::kBF16;
  if (stored && adapter_.find(name) != nullptr && !stays) stored->dtype = DType::kF32;
  return stored;
}

std::optional<WeightCodes> AdaptedSource::codes(std::string_view name) const {
  return adapter_.find(name) != nullptr ? std::nullopt : base_->codes(name);
}

Result<Tensor> AdaptedSource::load(std::string_view name, Device& device, DType want) {
  const AdapterFactors* const f = adapter_.find(name);
  if (f == nullptr) return base_->load(name, device, want);
  return load_rows(name, 0, f->b.dim(0), device, want);
}

Result<Tensor> AdaptedSource::load_rows(
    std::string_view name, int64_t first, int64_t rows, Device& device, DType want) {
  const AdapterFactors* const f = adapter_.find(name);
  if (f == nullptr) return base_->load_rows(name, first, rows, device, want);
  TRY_ASSIGN(Tensor merged, base_->load_rows(name, first, rows, cpu_device(), DType::kF32));
  add_low_rank(merged, f->b.slice(0, first, first + rows), f->a, adapter_.config().scale());
  return as_wanted(adapter_, name, std::move(merged), device, want);
}

Result<Tensor> AdaptedSource::load_stacked(std::string_view name_with_star,
                                           int64_t experts,
                                           Device& device,
                                           DType want) {
  std::vector<const AdapterFactors*> adapted;
  bool any = false;
  for (int64_t e = 0; e < experts; ++e) {
    adapted.push_back(adapter_.find(expert_name(name_with_star, e)));
    any |= adapted.back() != nullptr;
  }
  if (!any) return base_->load_stacked(name_with_star, experts, device, want);
  TRY_ASSIGN(Tensor merged,
             base_->load_stacked(name_with_star, experts, cpu_device(), DType::kF32));
  const Shape one = {merged.dim(1), merged.dim(2)};
  for (int64_t e = 0; e < experts; ++e)
    if (const AdapterFactors* const f = adapted[static_cast<size_t>(e)])
      add_low_rank(merged.slice(0, e, e + 1).reshape(one), f->b, f->a, adapter_.config().scale());
  return as_wanted(adapter_, name_with_star, std::move(merged), device, want);
}

Result<std::optional<std::string>> AdaptedSource::optional_text(const std::string& file_name) {
  TRY_ASSIGN(std::optional<std::string> text, base_->optional_text(file_name));
  const std::optional<text::VocabularyId>& wanted = adapter_.base_vocabulary();
  if (file_name != kTokenizerName || !text || !wanted) return text;
  TRY_ASSIGN(const text::Tokenizer tokenizer,
             text::Tokenizer::parse(*text, base_->path_of(file_name)));
  if (tokenizer.holds(*wanted)) return text;
  return fail(Code::kInvalidInput,
              "{}: is another tokenizer than the one by which the adapter {} learnt (its passport "
              "says {} ids of {:.16}..., this has {} of {:.16}...): ids would mean something else "
              "to it; put the base's own {} back",
              base_->path_of(file_name),
              adapter_.path(),
              wanted->ids,
              wanted->hash,
              tokenizer.vocab_size(),
              tokenizer.vocabulary().hash,
              kTokenizerName);
}

Result<std::unique_ptr<ModelSource>> open_adapted(const std::string& path,
                                                  const std::string& adapter,
                                                  DType compute) {
  if (adapter.empty()) return open_model_source(path);
  TRY_ASSIGN(Adapter opened, Adapter::open(adapter));
  TRY_ASSIGN(std::unique_ptr<ModelSource> base, open_model_source(path));
  TRY_ASSIGN(AdaptedSource adapted,
             AdaptedSource::create(std::move(base), std::move(opened), compute));
  return std::make_unique<AdaptedSource>(std::move(adapted));
}

}  // namespace ferry
