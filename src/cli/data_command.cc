#include "cli/data_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/clock.h"
#include "base/counted.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/stopping.h"
#include "base/units.h"
#include "checkpoint/chat_lessons.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/wrong_path.h"
#include "cli/command.h"
#include "cli/text_options.h"
#include "cli/tokenizer_path.h"
#include "data/dataset.h"
#include "data/prepare.h"

namespace ferry::cli {
namespace {

using Json = nlohmann::ordered_json;

// --- prepare -------------------------------------------------------------------------------------

struct PrepareArgs {
  data::PrepareOptions options;
  std::string split = "file";
  std::string chat;        // model directory; empty: the inputs are text
  int64_t max_tokens = 0;  // of a conversation; 0: any
};

/// Conversations in the words of a model: its templates, its tokenizer, its begin and end tokens.
Result<void> write_for(const std::string& directory, int64_t max_tokens, data::PrepareOptions& o) {
  TRY_ASSIGN(const std::unique_ptr<ModelSource> from, open_model_source(directory));
  if (!is_folder(directory))
    return fail(
        Code::kInvalidInput,
        "{}: is a GGUF file, and conversations are written by a directory's files; `{}` makes one",
        directory,
        command_to_convert(directory));
  TRY_ASSIGN(ModelTexts read, read_model_texts(*from));
  TRY(require_tokenizer(*from, read));
  for (const std::string& n : read.notes) tell("ferry: note: " + n);
  TRY_ASSIGN(const std::string fingerprint, chat_fingerprint(read, directory));
  const auto texts = std::make_shared<const ModelTexts>(std::move(read));
  const auto token_text = [&](int32_t id) {
    return std::string(texts->tokenizer->token_bytes(id));
  };
  if (o.eos.empty() && !texts->eos.empty()) o.eos = token_text(texts->eos[0]);
  if (o.bos.empty() && texts->bos) o.bos = token_text(*texts->bos);
  o.tokenizer = join_path(directory, kTokenizerName);
  o.source.text.hint.clear();  // --as-text is for text
  o.near_duplicate = 2;        // conversations share what they are told, and short answers
  o.conversations = data::Conversations{
      .template_blake2b = fingerprint,
      .lessons = [texts, directory, max_tokens, now = Moment::now()](
                     std::string_view line) -> Result<std::vector<text::Lesson>> {
        TRY_ASSIGN(std::vector<text::Lesson> lessons, chat_lessons(*texts, line, directory, now));
        for (const text::Lesson& lesson : lessons)
          if (max_tokens > 0 && std::ssize(lesson.ids) - 1 > max_tokens)
            return fail(Code::kInvalidInput,
                        "is read as {} tokens, more than --max-tokens",
                        lesson.ids.size() - 1);
        return lessons;
      }};
  return {};
}

/// Options of the one kind of data that mean nothing to the other.
Result<void> check_kind(const PrepareArgs& args) {
  const data::PrepareOptions& o = args.options;
  const data::PrepareOptions usual;
  if (o.tokenizer.empty() == args.chat.empty())
    return fail(Code::kInvalidInput,
                "data prepare: give either --tokenizer FILE, for text, or --chat MODEL_DIR, for "
                "conversations");
  if (args.chat.empty() && args.max_tokens > 0)
    return fail(Code::kInvalidInput, "data prepare: --max-tokens is for conversations (--chat)");
  if (!args.chat.empty() &&
      (args.split != PrepareArgs().split || o.source.field != usual.source.field ||
       o.source.min_document_bytes != usual.source.min_document_bytes ||
       o.near_duplicate != usual.near_duplicate || o.source.text.as_text))
    return fail(Code::kInvalidInput,
                "data prepare: --split, --field, --min-document-bytes, --near-duplicate and "
                "--as-text are for text, not for conversations (--chat)");
  return {};
}

void show(ProgressLine& line, const data::PrepareProgress& p, double phase_start_s) {
  const double now = system_clock().monotonic_s();
  line.show([&] {
    const double seconds = std::max(now - phase_start_s, 1e-3);
    const double share =
        p.total == 0 ? 1 : static_cast<double>(p.done) / static_cast<double>(p.total);
    return fmt::format(
        "{}: {:3.0f} %, {} of text, {:.1f} MB/s, {} left",
        p.phase == data::PrepareProgress::Phase::kScan ? "1/2 reading" : "2/2 tokenising",
        100 * share,
        format_bytes(static_cast<double>(p.text_bytes)),
        static_cast<double>(p.text_bytes) / 1e6 / seconds,
        share > 0 ? format_duration(seconds / share * (1 - share)) : "?");
  });
}

Json part_json(const data::Part& part) {
  return {{"documents", part.documents()},
          {"tokens", part.tokens()},
          {"bytes", part.bytes()},
          {"shards", part.shards.size()}};
}

Result<void> prepare(PrepareArgs& args) {
  TRY(data::parse_split(args.split, args.options.source));
  TRY(check_kind(args));
  print_besides();
  stop_files_by_signals();
  if (!args.chat.empty()) TRY(write_for(args.chat, args.max_tokens, args.options));
  ProgressLine line;
  const double start_s = system_clock().monotonic_s();
  double phase_start_s = start_s;
  auto phase = data::PrepareProgress::Phase::kScan;
  args.options.progress = [&](const data::PrepareProgress& p) {
    if (p.phase != phase) phase_start_s = system_clock().monotonic_s();
    phase = p.phase;
    show(line, p, phase_start_s);
  };
  args.options.note = [](const std::string& text) { tell("ferry: note: " + text); };
  TRY(check_tokenizer_path(args.options.tokenizer));
  TRY_ASSIGN(const data::Manifest m, data::prepare(args.options));
  line.clear();
  uint64_t skipped_lines = 0;
  for (const data::InputInfo& input : m.inputs) {
    tell_damage(input.path, input.damage);
    skipped_lines += input.damage.skipped;
  }
  const double seconds = system_clock().monotonic_s() - start_s;
  const uint64_t bytes = m.train.bytes() + m.held_out.bytes();
  const uint64_t tokens = m.train.tokens() + m.held_out.tokens();
  fmt::print("{}: {}, {} tokens; held out {}, {}\n",
             args.options.out,
             counted(m.train.documents(), "training document"),
             format_count(static_cast<double>(m.train.tokens())),
             counted(m.held_out.documents(), "document"),
             format_bytes(static_cast<double>(m.held_out.bytes())));
  if (m.held_out.bytes() < args.options.held_out_bytes)
    fmt::print(
        "held out is less than the {} bytes asked for: at most a tenth of the text is held out, "
        "and {} left out because the training text has it as well\n",
        args.options.held_out_bytes,
        counted(m.near_duplicates, "document was", "documents were"));
  return printed_besides(
      print_json({{"command", "data prepare"},
                  {"out", args.options.out},
                  {"documents", m.train.documents() + m.held_out.documents()},
                  {"tokens", tokens},
                  {"bytes", bytes},
                  {"bytes_per_token",
                   static_cast<double>(bytes) / static_cast<double>(std::max<uint64_t>(tokens, 1))},
                  {"train", part_json(m.train)},
                  {"held_out", part_json(m.held_out)},
                  {"duplicates", m.duplicates},
                  {"near_duplicates", m.near_duplicates},
                  {"conversations", m.conversations()},
                  {"skipped_lines", skipped_lines},
                  {"fingerprint", m.fingerprint()},
                  {"seconds", seconds},
                  {"mb_per_s", static_cast<double>(bytes) / 1e6 / std::max(seconds, 1e-6)}}));
}

void add_prepare(Command& parent) {
  auto args = std::make_shared<PrepareArgs>();
  data::PrepareOptions& o = args->options;
  Command command = parent.add("prepare", "Turn text files into a dataset to train on");
  command
      .option("inputs",
              o.inputs,
              "Text in UTF-8 or JSON lines, plain or compressed with gzip or zstd, whatever their "
              "names")
      .required();
  command.option("--out", o.out, "Folder of the dataset").required();
  command.option("--tokenizer", o.tokenizer, "The tokenizer.json; the inputs are text");
  command.option("--chat",
                 args->chat,
                 "A model directory: the inputs are conversations, one in JSON a line, as its chat "
                 "template writes them; what the assistant says is learnt");
  command
      .option("--max-tokens",
              args->max_tokens,
              "Conversations with more, as data.sequence_length counts them, are bad lines (see "
              "--skip-bad); 0: any length")
      .within(0, 1 << 24)
      .shows_default();
  command
      .option("--split",
              args->split,
              "Where documents of text files begin: file, paragraph (after a blank line), "
              "entry (the same, at a "
              "line without indentation), line, prefix:TEXT")
      .shows_default();
  command
      .option("--min-document-bytes",
              o.source.min_document_bytes,
              "Join shorter documents with the next (text files)")
      .shows_default();
  add_document_options(command, o.source);
  command
      .option(
          "--held-out-bytes", o.held_out_bytes, "Bytes of text to hold out, at most a tenth of all")
      .size_in_bytes();
  command
      .option("--near-duplicate",
              o.near_duplicate,
              "Leave out held-out documents of whose word 5-grams this share stands in "
              "training text; 2: none")
      .shows_default();
  command.flag("--keep-duplicates", o.keep_duplicates, "Keep equal documents");
  command.option("--seed", o.seed, "Of the choice of held-out documents").shows_default();
  command.option("--shard-bytes", o.shard_bytes, "Size of a shard").size_in_bytes();
  command.option("--bos", o.bos, "The tokenizer's begin token, if its name is unusual").any_text();
  command.option("--eos", o.eos, "The tokenizer's end token, if its name is unusual").any_text();
  command.option("--threads", o.threads, "0: one per processor").within(0, 1024).shows_default();
  command.flag("--force", o.force, "Replace the dataset that the folder holds");
  command.runs([args] { return report(prepare(*args)); });
}

// --- inspect -------------------------------------------------------------------------------------

struct InspectArgs {
  std::string folder;
  bool verify = false;
  int documents = 1;
};

/// Printable on a terminal: control characters and bytes that are not ASCII text are shown as they
/// stand in a JSON string, so that a document cannot move the cursor.
std::string printable(const std::string& text) { return json_text(Json(text)); }

void show_documents(const data::Dataset& dataset,
                    const data::Documents& documents,
                    const char* name,
                    int count) {
  constexpr int64_t kTokensShown = 48;
  for (int64_t i = 0; i < std::min<int64_t>(count, documents.size()); ++i) {
    const data::Documents::Document d = documents[i];
    std::string shown;
    bool learnt = false;
    for (int64_t t = d.begin; t < std::min(d.end, d.begin + kTokensShown); ++t) {
      const bool marked = dataset.manifest().conversations() && d.shard->learnt(t);
      if (marked != learnt) shown += marked ? "[" : "]";
      learnt = marked;
      shown += dataset.tokenizer().token_bytes(d.shard->token(t));
    }
    fmt::print("  {} document {}: {} tokens, {} bytes: {}{}\n",
               name,
               i,
               d.tokens(),
               d.bytes,
               printable(shown),
               d.tokens() > kTokensShown ? " ..." : "");
  }
}

Result<void> inspect(const InspectArgs& args) {
  ProgressLine line;
  const auto progress = [&](uint64_t done, uint64_t total) {
    line.show([&] {
      return fmt::format("verifying: {} of {}",
                         format_bytes(static_cast<double>(done)),
                         format_bytes(static_cast<double>(total)));
    });
  };
  TRY_ASSIGN(
      const auto dataset,
      data::Dataset::open(args.folder,
                          args.verify ? data::Dataset::Verify::kAll : data::Dataset::Verify::kSizes,
                          progress));
  line.clear();
  const data::Manifest& m = dataset->manifest();
  fmt::print("{}: {}vocabulary {}, begin token {}, end token {}, split {}\n",
             args.folder,
             m.conversations() ? "conversations, in [ ] what is learnt; " : "",
             m.vocab_size,
             m.bos,
             m.eos,
             m.split);
  for (const data::InputInfo& input : m.inputs)
    fmt::print("  from {} ({}, {})\n",
               input.path,
               format_bytes(static_cast<double>(input.file_bytes)),
               counted(input.documents, "document"));
  show_documents(*dataset, dataset->train(), "training", args.documents);
  show_documents(*dataset, dataset->held_out(), "held-out", args.documents);
  return print_json({{"command", "data inspect"},
                     {"folder", args.folder},
                     {"train", part_json(m.train)},
                     {"held_out", part_json(m.held_out)},
                     {"duplicates", m.duplicates},
                     {"near_duplicates", m.near_duplicates},
                     {"verified", args.verify},
                     {"fingerprint", m.fingerprint()}});
}

void add_inspect(Command& parent) {
  auto args = std::make_shared<InspectArgs>();
  Command command = parent.add("inspect", "Show what a dataset holds");
  command.option("folder", args->folder, "The dataset").required();
  command.flag("--verify", args->verify, "Compare every file with its checksum");
  command.option("--documents", args->documents, "How many of each part to show")
      .within(0, 1000)
      .shows_default();
  command.runs([args] { return report(inspect(*args)); });
}

}  // namespace

void add_data_command(Command& program) {
  Command data = program.add("data", "Prepare and look at training data");
  add_prepare(data);
  add_inspect(data);
}

}  // namespace ferry::cli
