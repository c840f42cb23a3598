#include "cli/eval_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/file.h"
#include "base/shell.h"
#include "cli/command.h"
#include "cli/compressors.h"
#include "cli/model_options.h"
#include "cli/text_options.h"
#include "data/dataset.h"
#include "engine/evaluate.h"

namespace ferry::cli {
namespace {

struct Arguments {
  OpenOptions open;
  std::string text, data;
  data::SourceOptions source;
  engine::EvaluateOptions evaluate;
  int64_t context = 0;  // tokens of a window; 0: not given
  bool compressors = true;
};

struct Subject {
  std::vector<std::vector<int32_t>> documents;
  int64_t bytes = 0;
  std::string text;  // the same as one text, for the compressors
};

/// A text is one document; JSON lines are one each.
Result<Subject> from_text(const Arguments& args, const OpenedModel& m) {
  constexpr size_t kTextBytesMax = (size_t{1} << 31) - 1;  // held in memory
  TRY_ASSIGN(data::DocumentReader reader, data::DocumentReader::open(args.text, args.source));
  Subject s;
  TRY(data::each_document(reader, kTextBytesMax, [&](std::string_view text) -> Result<bool> {
    if (s.text.size() + text.size() > kTextBytesMax)
      return fail(
          Code::kInvalidInput, "{}: holds more than {} bytes of text", args.text, kTextBytesMax);
    s.documents.emplace_back();
    m.tokenizer->encode(text, text::Tokenizer::Specials::kAsText, s.documents.back());
    s.text += text;
    return true;
  }));
  tell_damage(args.text, reader.damage());
  if (s.text.empty())
    return fail(Code::kInvalidInput, "{}: empty; there is nothing to predict", args.text);
  s.bytes = static_cast<int64_t>(s.text.size());
  return s;
}

/// The held-out documents of a prepared dataset, each with its end token.
Result<Subject> from_dataset(const Arguments& args, const OpenedModel& m) {
  TRY_ASSIGN(const std::shared_ptr<const data::Dataset> dataset,
             data::Dataset::open(args.data, data::Dataset::Verify::kAll));
  if (const auto difference = m.tokenizer->difference_from(dataset->tokenizer()))
    return fail(
        Code::kInvalidInput,
        "{}: was prepared with another tokenizer than {}'s ({}); prepare the text again with {}",
        args.data,
        args.open.directory,
        *difference,
        tokenizer_option(args.open.directory));
  if (dataset->tokenizer().vocab_size() > m.model->vocab_size())
    return fail(Code::kInvalidInput,
                "{}: its tokenizer has {} ids, the model {}; prepare the text again with {}",
                args.data,
                dataset->tokenizer().vocab_size(),
                m.model->vocab_size(),
                tokenizer_option(args.open.directory));
  if (dataset->manifest().conversations())
    return fail(Code::kInvalidInput,
                "{}: holds conversations, of which ferry train tells the held-out loss; ferry eval "
                "scores text",
                args.data);
  const data::Documents& held_out = dataset->held_out();
  if (held_out.size() == 0)
    return fail(Code::kInvalidInput, "{}: no documents were held out", args.data);
  Subject s;
  TRY_ASSIGN(s.text, read_file(dataset->held_out_text_path()));
  s.bytes = held_out.bytes();
  for (int64_t d = 0; d < held_out.size(); ++d) {
    const data::Documents::Document document = held_out[d];
    s.documents.emplace_back();
    for (int64_t t = document.begin; t < document.end; ++t)
      s.documents.back().push_back(document.shard->token(t));
  }
  return s;
}

Result<void> evaluate(Arguments& args) {
  if (args.text.empty() == args.data.empty())
    return fail(Code::kInvalidInput, "eval: give either --text FILE or --data DATASET");
  TRY_ASSIGN(const OpenedModel m, open_model(args.open));
  TRY_ASSIGN(const Subject s, args.text.empty() ? from_dataset(args, m) : from_text(args, m));
  TRY_ASSIGN(const int32_t first_context, m.texts.context_of_first(args.open.directory));
  const int64_t positions = m.model->max_positions();
  if (args.context > positions)
    return fail(Code::kInvalidInput,
                "--context {}: {} knows {} positions; give at most that many",
                args.context,
                args.open.directory,
                positions);
  args.evaluate.context =
      args.context != 0 ? args.context : std::min(args.evaluate.context, positions);
  int64_t total = 0;
  for (const auto& d : s.documents) total += static_cast<int64_t>(d.size());
  ProgressLine line;
  const double begin = system_clock().monotonic_s();
  engine::Evaluation e;
  e.bytes = s.bytes;
  engine::evaluate(*m.model, s.documents, first_context, args.evaluate, e, [&](int64_t scored) {
    line.show([&] { return fmt::format("{} of {} tokens scored", scored, total); });
  });
  line.clear();
  const double seconds = system_clock().monotonic_s() - begin;
  if (!std::isfinite(e.nats))
    return fail(
        Code::kVerdict,
        "{}: gives no probability for some of the text ({} nats in all): numbers within the "
        "model are not finite",
        args.open.directory,
        e.nats);
  nlohmann::ordered_json j = {{"bits_per_byte", e.bits_per_byte()},
                              {"nats_per_token", e.nats_per_token()},
                              {"bytes", e.bytes},
                              {"tokens", e.tokens},
                              {"context", args.evaluate.context},
                              {"seconds", seconds}};
  fmt::print("{:<12} {:.4f} bits per byte ({:.4f} nats a token; {} bytes, {} tokens)\n",
             "this model",
             e.bits_per_byte(),
             e.nats_per_token(),
             e.bytes,
             e.tokens);
  if (args.compressors) {
    TRY_ASSIGN(const double xz, xz_bits_per_byte(s.text));
    TRY_ASSIGN(const double zstd, zstd_bits_per_byte(s.text));
    fmt::print("{:<12} {:.4f} bits per byte\n{:<12} {:.4f} bits per byte\n",
               "xz -9e",
               xz,
               "zstd -19",
               zstd);
    j["xz_bits_per_byte"] = xz;
    j["zstd_bits_per_byte"] = zstd;
  }
  return print_json(j);
}

}  // namespace

void add_eval_command(Command& program) {
  Command command = program.add("eval", "How well a model predicts a text, beside xz and zstd");
  const auto args = std::make_shared<Arguments>();
  add_open_options(command, args->open);
  command.option(
      "--text",
      args->text,
      "a file: text in UTF-8, one document, or JSON lines, plain or compressed with gzip "
      "or zstd");
  add_document_options(command, args->source);
  command.option("--data", args->data, "a prepared dataset: its held-out documents");
  command
      .option("--context",
              args->context,
              "tokens of a window; not given: 1,024, or what the model knows if that is less")
      .within(int64_t{2}, int64_t{1} << 24);
  command.option("--overlap", args->evaluate.overlap, "part of each window that only gives context")
      .within(0.0, 0.99);
  command.flag("!--no-compressors", args->compressors, "leave xz and zstd out");
  command.runs([args] { return report(evaluate(*args)); });
}

}  // namespace ferry::cli
