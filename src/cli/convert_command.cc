#include "cli/convert_command.h"

#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/shell.h"
#include "base/units.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/model_texts.h"
#include "checkpoint/weights.h"
#include "cli/command.h"
#include "device/cpu/cpu_device.h"
#include "probe/directory_model.h"

namespace ferry::cli {
namespace {

struct Arguments {
  std::string source, to = "bf16", out;
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
  if (!path_exists(path)) return {};
  if (is_folder(path)) {
    TRY_ASSIGN(const std::vector<std::string> names, list_folder(path));
    if (names.empty()) return {};
  }
  return fail(Code::kInvalidInput, "{}: is there already; name a new directory", path);
}

Result<void> convert(const Arguments& args) {
  const double begin = system_clock().monotonic_s();
  TRY(check_new(args.out));
  TRY_ASSIGN(const std::unique_ptr<ModelSource> from, open_model_source(args.source));
  TRY_ASSIGN(const probe::DirectoryModel opened,
             probe::model_of(*from, cpu_device(), DType::kF32, false));
  TRY_ASSIGN(const ModelTexts texts, read_model_texts(*from));
  for (const auto* notes : {&opened.notes, &texts.notes})
    for (const std::string& n : *notes) tell("ferry: note: " + n);
  const bool f32 = args.to == "f32";
  models::TrainableLm& model = *opened.model;
  ModelContents contents;
  TRY_ASSIGN(contents.texts, text_files(*from, texts));
  contents.texts[kConfigName] = model.config_json(f32 ? "float32" : "bfloat16");
  ProgressLine line;
  size_t done = 0, all = 0;
  contents.tensors = weights_to_convert(
      *from, model.weights(), f32 ? DType::kF32 : DType::kBF16, [&line, &done, &all] {
        ++done;
        line.show([&] { return fmt::format("{} of {} tensors written", done, all); });
      });
  all = contents.tensors.size();
  const Result<SaveReport> saved = write_model_dir(args.out, contents);
  line.clear();
  if (!saved) return tl::unexpected(saved.error());
  for (const std::string& warning : saved->warnings) tell("ferry: note: " + warning);
  tell(fmt::format("{}: {}; ferry passport {} makes its passport",
                   saved->path,
                   format_bytes(static_cast<double>(saved->bytes)),
                   shell_quoted(saved->path)));
  return print_json({{"out", saved->path},
                     {"to", args.to},
                     {"tensors", all},
                     {"parameters", model.parameters_total()},
                     {"bytes", saved->bytes},
                     {"seconds", system_clock().monotonic_s() - begin}});
}

}  // namespace

void add_convert_command(Command& program) {
  Command command = program.add(
      "convert", "Write a model as a directory of safetensors, tensor by tensor: it need not fit");
  const auto args = std::make_shared<Arguments>();
  command.option("model", args->source, "a model directory or a GGUF file").required();
  command
      .option("--to",
              args->to,
              "the type of its matrices: f32 keeps every number as it is, bf16 rounds (vectors are "
              "f32 always)")
      .among({"f32", "bf16"});
  command.option("--out", args->out, "the new directory").required();
  command.runs([args] { return report(convert(*args)); });
}

}  // namespace ferry::cli
