#include "cli/open_model.h"

#include <fmt/core.h>

#include "adapter/adapted_source.h"
#include "base/shell.h"
#include "checkpoint/model_dir.h"
#include "cli/command.h"
#include "models/registry.h"
#include "ops/pair_linear/pair_linear.h"
#include "probe/directory_model.h"

namespace ferry::cli {

namespace {

/// Says on standard error what nobody has proved of this directory on this device.
Result<void> warn_unverified(const ModelSource& from, const Device& device, DType compute) {
  const auto note = [&](const std::string& what) {
    tell(fmt::format("ferry: note: {}: {}", from.path(), what));
  };
  if (const auto* const adapted = dynamic_cast<const AdaptedSource*>(&from)) {
    const std::string& adapter = adapted->adapter().path();
    if (!adapted->adapter().base_root())
      note(fmt::format("the adapter {} does not say whose weights it belongs to", adapter));
    note(fmt::format(
        "no passport speaks of it with the adapter {} (ferry convert {} --adapter {} --out "
        "DIR merges them)",
        adapter,
        shell_quoted(from.path()),
        shell_quoted(adapter)));
    return {};
  }
  const auto* const directory = dynamic_cast<const ModelDir*>(&from);
  if (directory == nullptr) {
    note("a GGUF file has no passport: nothing vouches for these weights");
    return {};
  }
  const ModelDir& dir = *directory;
  if (dir.passport() == nullptr) {
    note("has no passport: nothing vouches for these weights (ferry passport, ferry verify)");
    return {};
  }
  TRY_ASSIGN(const std::vector<Verification> list,
             read_verifications(dir.path(), dir.passport()->root));
  const std::string identity = verified_as(device);
  for (const Verification& v : list) {
    if (v.device != identity || v.dtype != compute) continue;
    if (!v.passed) note(fmt::format("FAILED its verification on {}", identity));
    return {};
  }
  note(fmt::format("never verified on {} in {}; ferry verify {} --device {} --dtype {} does it",
                   identity,
                   to_string(compute),
                   shell_quoted(dir.path()),
                   device.name(),
                   compute == DType::kF32 ? "f32" : "bf16"));
  return {};
}

}  // namespace

Result<DType> compute_of(const OpenOptions& o) {
  if (!o.dtype.empty() && o.dtype != "f32" && o.dtype != "bf16")
    return fail(Code::kInvalidInput, "--dtype {}: must be f32 or bf16", o.dtype);
  return o.dtype == "f32" ? DType::kF32 : DType::kBF16;
}

Result<std::unique_ptr<ModelSource>> open_source(const OpenOptions& o) {
  TRY_ASSIGN(const DType compute, compute_of(o));
  return open_adapted(o.directory, o.adapter, compute);
}

Result<OpenedModel> open_model(const OpenOptions& o) {
  TRY_ASSIGN(Device * device, open_device(o.device));
  TRY_ASSIGN(const DType compute, compute_of(o));
  WeightLoading loading{.keep_codes = o.quantize != "none",
                        .pairs = ops::pairs_wanted(*device, compute)};
  if (o.quantize == "int8") loading.quantise = WeightCodes::kInt8;
  if (o.quantize == "int4") loading.quantise = WeightCodes::kInt4;
  TRY_ASSIGN(const std::unique_ptr<ModelSource> from, open_source(o));
  TRY(warn_unverified(*from, *device, compute));
  OpenedModel m;
  // Weights stay as they are stored: computing in bf16 rounds f32 ones as training did, so the bits
  // are training's.
  TRY_ASSIGN(probe::DirectoryModel opened, probe::model_of(*from, *device, compute, true, loading));
  m.model = std::move(opened.model);
  if (o.tokenizer) {
    TRY_ASSIGN(m.texts, read_model_texts(*from));
    TRY_ASSIGN(m.tokenizer, require_tokenizer(*from, m.texts));
  }
  for (const auto* notes : {&opened.notes, &m.texts.notes})
    for (const std::string& n : *notes) tell("ferry: note: " + n);
  if (!o.tokenizer) return m;
  if (m.tokenizer->vocab_size() > m.model->vocab_size())
    return fail(Code::kInvalidInput,
                "{}: the tokenizer has {} ids, the model {}",
                o.directory,
                m.tokenizer->vocab_size(),
                m.model->vocab_size());
  return m;
}

}  // namespace ferry::cli
