#include "cli/convert_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "adapter/adapted_source.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/math.h"
#include "base/shell.h"
#include "base/stopping.h"
#include "base/units.h"
#include "checkpoint/made_from.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/model_texts.h"
#include "checkpoint/quant_description.h"
#include "checkpoint/weights.h"
#include "cli/command.h"
#include "cli/hash_progress.h"
#include "cli/open_model.h"
#include "cli/text_options.h"
#include "data/text_source.h"
#include "device/cpu/cpu_device.h"
#include "probe/directory_model.h"
#include "probe/quantisation_cost.h"
#include "text/tokenizer.h"

namespace ferry::cli {
namespace {

constexpr double kLinesEveryS = 10;  // of progress, where lines cannot be written over

struct Arguments {
  std::string source, adapter, to = "bf16", out, text;
  int64_t text_tokens = 4096;
  data::SourceOptions documents;  // how the text is read
};

/// What the source says of texts, as files. A GGUF file's are made from its header.
Result<std::map<std::string, std::string>> text_files(ModelSource& from, const ModelTexts& texts) {
  std::map<std::string, std::string> files = texts.files;
  TRY_ASSIGN(const auto tokenizer, from.optional_text(kTokenizerName));
  if (tokenizer) files[kTokenizerName] = *tokenizer;
  return files;
}

/// A model that is there already, the source among them, is not to be replaced by a slip.
Result<void> check_new(const std::string& path) {
  TRY_ASSIGN(const bool there, is_there(path));
  if (!there) return {};
  if (is_folder(path)) {
    TRY_ASSIGN(const std::vector<std::string> names, list_folder(path));
    if (names.empty()) return {};
  }
  return fail(Code::kInvalidInput, "{}: is there already; name a new directory", path);
}

/// What the two models are to be compared on, the first tokens of the text; asked before hours are
/// spent on writing one.
Result<std::vector<int32_t>> text_to_compare_on(const ModelSource& from,
                                                const ModelTexts& texts,
                                                const Arguments& args) {
  constexpr size_t kTokenBytes = 16;  // more than tokens have on average
  std::vector<int32_t> ids;
  if (args.text.empty()) return ids;
  TRY_ASSIGN(const auto tokenizer, require_tokenizer(from, texts));
  const auto wanted = static_cast<size_t>(args.text_tokens);
  TRY_ASSIGN(data::DocumentReader reader, data::DocumentReader::open(args.text, args.documents));
  TRY(data::each_document(reader, kTokenBytes * wanted, [&](std::string_view text) -> Result<bool> {
    tokenizer->encode(text, text::Tokenizer::Specials::kAsText, ids);
    return ids.size() < wanted;
  }));
  tell_damage(args.text, reader.damage());
  ids.resize(std::min(ids.size(), wanted));
  if (ids.size() < 2)
    return fail(Code::kInvalidInput, "{}: too short; two tokens are needed", args.text);
  return ids;
}

/// How the new model differs from its source on a text, as fields of the last line.
Result<nlohmann::ordered_json> cost_of(const Arguments& args,
                                       const std::string& made,
                                       const std::vector<int32_t>& ids) {
  constexpr size_t kWorst = 5;
  TRY_ASSIGN(const OpenedModel source,
             open_model({.directory = args.source,
                         .adapter = args.adapter,
                         .quantize = "none",
                         .tokenizer = false}));
  TRY_ASSIGN(const std::unique_ptr<ModelSource> from, open_model_source(made));
  TRY_ASSIGN(const probe::DirectoryModel quantised,
             probe::model_of(*from, cpu_device(), DType::kBF16, true));
  ProgressLine line(kLinesEveryS);
  const auto told = [&](const probe::CostProgress& at) {
    line.show([&] {
      return at.layers == 0
                 ? fmt::format("{} of {} tokens compared", at.tokens, at.tokens_total)
                 : fmt::format("{} of {} blocks judged alone", at.layers, at.layers_total);
    });
  };
  told({.tokens_total = std::ssize(ids)});
  const probe::QuantisationCost cost =
      probe::quantisation_cost(*source.model, *quantised.model, ids, {}, told);
  line.clear();
  const double before = math::exp(cost.nats), after = math::exp(cost.nats_quantised);
  fmt::print(
      "KL divergence {:.5f} nats a token (at most {:.3f}); perplexity {:.4f}, was {:.4f}; the "
      "same most probable token in {:.2f} % of {} tokens\n",
      cost.kl,
      cost.kl_largest,
      after,
      before,
      100 * cost.same_choice,
      cost.tokens);
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (size_t i = 0; i < std::min(kWorst, cost.layers.size()); ++i) {
    const auto& [layer, kl] = cost.layers[i];
    fmt::print("  block {} alone: {:.6f}\n", layer - 1, kl);
    layers.push_back({{"block", layer - 1}, {"kl", kl}});
  }
  return nlohmann::ordered_json{{"kl", cost.kl},
                                {"kl_largest", cost.kl_largest},
                                {"perplexity", after},
                                {"perplexity_source", before},
                                {"same_choice", cost.same_choice},
                                {"text_tokens", cost.tokens},
                                {"worst_blocks", std::move(layers)}};
}

/// What weights are stored as, and what says so.
std::vector<NamedTensor> tensors_of(ModelSource& from,
                                    models::TrainableLm& model,
                                    const Arguments& args,
                                    ModelContents& contents,
                                    const std::function<void()>& loaded) {
  if (args.to == "f32" || args.to == "bf16")
    return weights_to_convert(from,
                              model.weights(),
                              model.weight_aliases(),
                              args.to == "f32" ? DType::kF32 : DType::kBF16,
                              loaded);
  const WeightCodes codes = args.to == "int8" ? WeightCodes::kInt8 : WeightCodes::kInt4;
  std::vector<NamedTensor> tensors = weights_to_quantise(from, model.weights(), codes, loaded);
  // Embedding and head, which stay numbers.
  for (NamedTensor& t : weights_to_convert(from, {}, model.weight_aliases(), DType::kBF16, loaded))
    tensors.push_back(std::move(t));
  std::vector<std::string> names;
  std::set<std::string> quantised;
  for (const NamedTensor& t : tensors) {
    names.push_back(t.name);
    const std::string scale = t.name + kCodeScaleSuffix;
    const bool is_code = t.stored == DType::kI8 || t.stored == DType::kU8;
    if (is_code) quantised.insert({t.name, scale, t.name + kCodeOffsetSuffix});
  }
  contents.texts[kQuantDescriptionName] = quant_description(
      codes, names, [&](const std::string& name) { return quantised.contains(name); });
  return tensors;
}

Result<void> convert(const Arguments& args) {
  const double begin = system_clock().monotonic_s();
  print_besides();
  stop_files_by_signals();
  TRY(check_new(args.out));
  if (!args.text.empty() && args.to != "int8" && args.to != "int4")
    return fail(Code::kInvalidInput, "--text: tells what int8 and int4 cost; --to is {}", args.to);
  // Whatever the base is stored as, what is merged is rounded once, to what is written.
  TRY_ASSIGN(const std::unique_ptr<ModelSource> from,
             open_adapted(args.source, args.adapter, DType::kF32));
  TRY_ASSIGN(const probe::DirectoryModel opened,
             probe::model_of(*from, cpu_device(), DType::kF32, false));
  TRY_ASSIGN(const ModelTexts texts, read_model_texts(*from));
  for (const auto* notes : {&opened.notes, &texts.notes})
    for (const std::string& n : *notes) tell("ferry: note: " + n);
  TRY_ASSIGN(const std::vector<int32_t> ids, text_to_compare_on(*from, texts, args));
  const bool f32 = args.to == "f32";
  models::TrainableLm& model = *opened.model;
  ModelContents contents;
  TRY_ASSIGN(contents.texts, text_files(*from, texts));
  contents.texts[kConfigName] = model.config_json(f32 ? "float32" : "bfloat16");
  // Of a merged model the passport that counts is the base's.
  const auto* const adapted = dynamic_cast<const AdaptedSource*>(from.get());
  ProgressLine line(kLinesEveryS);
  const Result<MadeFrom> made = made_from(adapted != nullptr ? adapted->base() : *from,
                                          args.adapter,
                                          args.to,
                                          shown_hashing(line, "the source's weights"));
  line.clear();
  if (!made) return tl::unexpected(made.error());
  contents.texts[kMadeFromName] = made_from_text(*made);
  size_t done = 0, all = 0;
  contents.tensors = tensors_of(*from, model, args, contents, [&line, &done, &all] {
    ++done;
    line.show([&] { return fmt::format("{} of {} tensors written", done, all); });
  });
  all = contents.tensors.size();
  const Result<SaveReport> saved = write_model_dir(args.out, contents);
  line.clear();
  if (!saved) return tl::unexpected(saved.error());
  answer_stop_signals_no_more();  // the comparison writes nothing
  for (const std::string& warning : saved->warnings) tell("ferry: note: " + warning);
  tell(fmt::format("{}: {}; ferry passport {} makes its passport",
                   saved->path,
                   format_bytes(static_cast<double>(saved->bytes)),
                   shell_quoted(saved->path)));
  nlohmann::ordered_json j = {{"out", saved->path},
                              {"to", args.to},
                              {"tensors", all},
                              {"parameters", model.parameters_total()},
                              {"bytes", saved->bytes},
                              {"seconds", system_clock().monotonic_s() - begin}};
  if (!args.text.empty()) {
    if (const int signal = stop_signal(); signal != 0)
      return fail(Code::kUnavailable,
                  "stopped by {}: {} is written whole; what it costs was not measured",
                  signal_name(signal),
                  saved->path);
    const Result<nlohmann::ordered_json> cost = cost_of(args, saved->path, ids);
    if (!cost) {
      tell(fmt::format("ferry: note: {} is whole; only what it costs could not be told",
                       saved->path));
      return tl::unexpected(cost.error());
    }
    j.update(*cost);
    j["seconds"] = system_clock().monotonic_s() - begin;
  }
  return printed_besides(print_json(j));
}

}  // namespace

void add_convert_command(Command& program) {
  Command command = program.add(
      "convert", "Write a model as a directory of safetensors, tensor by tensor: it need not fit");
  const auto args = std::make_shared<Arguments>();
  command.option("model", args->source, "a model directory or a GGUF file").required();
  command.option("--adapter", args->adapter, "a LoRA adapter of the model, to be merged into it");
  command
      .option("--to",
              args->to,
              "the type of its matrices: f32 keeps every number as it is, bf16 rounds (vectors are "
              "f32 always); int8 and int4 make codes of projections and experts (int8 as "
              "msModelSlim does, W8A8_DYNAMIC)")
      .among({"f32", "bf16", "int8", "int4"})
      .shows_default();
  command.option("--out", args->out, "the new directory").required();
  command.option(
      "--text",
      args->text,
      "a text or JSON lines, as docs/text.md says: tells what int8 or int4 cost on it (KL "
      "divergence, perplexity, the worst layers)");
  add_document_options(command, args->documents);
  command.option("--tokens", args->text_tokens, "of the text, at most")
      .within(int64_t{2}, int64_t{1} << 24)
      .shows_default();
  command.runs([args] { return report(convert(*args)); });
}

}  // namespace ferry::cli
