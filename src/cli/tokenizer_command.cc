#include "cli/tokenizer_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/output_file.h"
#include "cli/text_options.h"
#include "cli/tokenizer_path.h"
#include "text/bpe_trainer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace ferry::cli {
namespace {

using text::Tokenizer;

Result<std::string> read_stdin() {
  std::string all;
  char buffer[1 << 16];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, stdin)) all.append(buffer, n);
  if (std::ferror(stdin) != 0)
    return fail(Code::kUnavailable, "standard input: {}", std::strerror(errno));
  return all;
}

// --- train ---------------------------------------------------------------------------------------

struct TrainArgs {
  std::string out;
  std::vector<std::string> files;
  std::string split = "deepseek";
  text::BpeTrainerOptions options;
  data::SourceOptions source;
};

/// Feeds a file's documents, each in parts of about 4 MiB that end at a line's end where there is
/// one.
Result<uint64_t> feed_file(text::BpeTrainer& trainer,
                           const std::string& path,
                           data::SourceOptions& source,
                           uint64_t bytes_before,
                           ProgressLine& progress) {
  constexpr size_t kPart = size_t{4} << 20;
  TRY_ASSIGN(data::DocumentReader reader, data::DocumentReader::open(path, source));
  uint64_t bytes = 0;
  std::string text;  // of the document, not yet fed
  data::Piece piece;
  for (;;) {
    TRY_ASSIGN(const bool more, reader.next(piece));
    if (!more) break;
    text += piece.text;
    bytes += piece.text.size();
    size_t begin = 0;
    while (text.size() - begin > kPart) {
      size_t end = begin + kPart;
      const size_t line = text.rfind('\n', end - 1);
      if (line != std::string::npos && line > begin) end = line;  // it begins the next part
      trainer.feed(std::string_view(text).substr(begin, end - begin));
      begin = end;
    }
    if (piece.last) {
      trainer.feed(std::string_view(text).substr(begin));
      begin = text.size();
    }
    text.erase(0, begin);
    progress.show([&] {
      return fmt::format("counting words: {}",
                         format_bytes(static_cast<double>(bytes_before + bytes)));
    });
  }
  progress.clear();
  tell_damage(path, reader.damage());
  source.text.skipped += reader.damage().skipped;
  return bytes;
}

Result<void> train(TrainArgs& args) {
  print_besides();
  using text::SplitStyle;
  args.options.split = args.split == "deepseek" ? SplitStyle::kDeepseek
                       : args.split == "llama3" ? SplitStyle::kLlama3
                       : args.split == "qwen2"  ? SplitStyle::kQwen2
                                                : SplitStyle::kGpt2;
  TRY_ASSIGN(text::BpeTrainer trainer, text::BpeTrainer::create(args.options));
  TRY(check_output_path(args.out, OutputKind::kTokenizer));
  ProgressLine progress;
  const double start_s = system_clock().monotonic_s();
  uint64_t bytes = 0;
  for (const std::string& path : args.files) {
    TRY_ASSIGN(const uint64_t size, feed_file(trainer, path, args.source, bytes, progress));
    bytes += size;
  }
  if (bytes == 0)
    return fail(Code::kInvalidInput,
                "{}: {} no text; name files that hold some",
                args.files[0],
                args.files.size() == 1 ? "holds" : "and the others hold");
  const text::BpeTrainer::Trained trained = trainer.train([&](int32_t made, int32_t wanted) {
    progress.show([&] { return fmt::format("merging: {} of {} tokens", made, wanted); });
  });
  progress.clear();
  TRY(write_file_atomic(args.out, trained.json));
  if (trained.forgotten > 0) {
    tell(
        fmt::format("ferry: note: the text holds more different words than are kept ({}, and {} of "
                    "them): {} times the rarest was "
                    "forgotten, and is not learnt from. Of text without words (sequences, encoded "
                    "data) nearly all pieces differ: "
                    "less of it does as well.",
                    args.options.words_max,
                    format_bytes(static_cast<double>(args.options.word_bytes_max)),
                    trained.forgotten));
  }
  if (trained.vocab_size < args.options.vocab_size) {
    tell(
        fmt::format("ferry: note: the text holds no more pairs that occur {} times and make a "
                    "token of at most {} bytes: "
                    "{} tokens instead of {}. Give more text, or a smaller --vocab.",
                    args.options.frequency_min,
                    args.options.token_bytes_max,
                    trained.vocab_size,
                    args.options.vocab_size));
  }
  const nlohmann::ordered_json line = {{"command", "tokenizer train"},
                                       {"out", text::replace_ill_formed(args.out)},
                                       {"vocab", trained.vocab_size},
                                       {"bytes", bytes},
                                       {"words", trained.words},
                                       {"seconds", system_clock().monotonic_s() - start_s}};
  return printed_besides(print_json(line));
}

void add_train(Command& parent) {
  auto args = std::make_shared<TrainArgs>();
  Command command = parent.add("train", "Learn a byte-level BPE vocabulary from text files");
  command.option("--out", args->out, "The tokenizer.json to write").required();
  command.option("--vocab", args->options.vocab_size, "Tokens, special ones and bytes included")
      .shows_default();
  command.option("--split", args->split, "How words are cut")
      .among({"deepseek", "llama3", "qwen2", "gpt2"})
      .shows_default();
  command
      .option("--special",
              args->options.specials,
              "A special token, ids from 0; the first is the BOS. Give it once for each")
      .once_per_value()
      .any_text()
      .shows_default();
  command.option("--min-frequency", args->options.frequency_min, "Merge only pairs seen as often")
      .shows_default();
  add_document_options(command, args->source);
  command
      .option("files",
              args->files,
              "Text in UTF-8 or JSON lines, plain or compressed with gzip or zstd")
      .required();
  command.runs([args] { return report(train(*args)); });
}

// --- encode, decode ------------------------------------------------------------------------------

struct CodeArgs {
  std::string tokenizer;
  std::string specials = "text";
  bool skip_specials = false;
  std::string file;
  data::SourceOptions source;
  std::vector<std::string> items;
};

Tokenizer::Specials specials_of(const std::string& name) {
  return name == "parse"   ? Tokenizer::Specials::kParse
         : name == "plain" ? Tokenizer::Specials::kPlain
                           : Tokenizer::Specials::kAsText;
}

/// Of each text a line: an argument, a file, or each document of JSON lines.
Result<void> encode(const CodeArgs& args) {
  constexpr size_t kDocumentBytesMax = (size_t{1} << 31) - 1;  // held in memory, with its ids
  TRY(check_tokenizer_path(args.tokenizer));
  TRY_ASSIGN(const Tokenizer tokenizer, Tokenizer::load(args.tokenizer));
  std::vector<int32_t> ids;
  const auto print_ids = [&](std::string_view bytes) -> Result<void> {
    ids.clear();
    tokenizer.encode(bytes, specials_of(args.specials), ids);
    std::string line;
    for (const int32_t id : ids) line += fmt::format("{}{}", line.empty() ? "" : " ", id);
    line += '\n';
    if (std::fwrite(line.data(), 1, line.size(), stdout) < line.size()) return flush_output();
    return {};
  };
  for (const std::string& bytes : args.items) TRY(print_ids(bytes));
  if (!args.items.empty() && args.file.empty()) return flush_output();

  const bool file = !args.file.empty();
  const std::string name = file ? args.file : "standard input";
  TRY_ASSIGN(data::TextStream stream,
             file ? data::TextStream::open(args.file, args.source.text)
                  : data::TextStream::standard_input(args.source.text));
  const bool is_text = stream.kind() == data::TextKind::kText;
  TRY_ASSIGN(data::DocumentReader reader,
             data::DocumentReader::over(std::move(stream), args.source));
  bool any = false;
  const auto print_document = [&](std::string_view text) -> Result<bool> {
    if (text.size() >= kDocumentBytesMax)
      return fail(
          Code::kInvalidInput, "{}: holds more than {} bytes of text", name, kDocumentBytesMax);
    TRY(print_ids(text));
    return any = true;
  };
  TRY(data::each_document(reader, kDocumentBytesMax, print_document));
  if (is_text && !any) TRY(print_ids(""));
  tell_damage(name, reader.damage());
  return flush_output();
}

Result<std::vector<int32_t>> parse_ids(const std::vector<std::string>& words,
                                       const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < words.size(); ++i) {
    int32_t id = -1;
    const char* end = words[i].data() + words[i].size();
    const auto [stop, error] = std::from_chars(words[i].data(), end, id);
    if (error != std::errc() || stop != end || id < 0 || id >= tokenizer.vocab_size()) {
      return fail(Code::kInvalidInput,
                  "item {} is \"{}\": give token ids from 0 to {}, white space between them",
                  i + 1,
                  text::replace_ill_formed(words[i].substr(0, 40)),
                  tokenizer.vocab_size() - 1);
    }
    ids.push_back(id);
  }
  return ids;
}

Result<void> decode(const CodeArgs& args) {
  TRY(check_tokenizer_path(args.tokenizer));
  TRY_ASSIGN(const Tokenizer tokenizer, Tokenizer::load(args.tokenizer));
  std::vector<std::string> words = args.items;
  if (words.empty()) {
    TRY_ASSIGN(const std::string all, read_stdin());
    constexpr std::string_view kSpace = " \t\r\n,[]";
    for (size_t i = all.find_first_not_of(kSpace); i != std::string::npos;) {
      const size_t end = std::min(all.find_first_of(kSpace, i), all.size());
      words.push_back(all.substr(i, end - i));
      i = all.find_first_not_of(kSpace, end);
    }
  }
  TRY_ASSIGN(const std::vector<int32_t> ids, parse_ids(words, tokenizer));
  const std::string bytes = tokenizer.decode(ids, args.skip_specials);
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  return flush_output();
}

void add_tokenizer_option(Command& command, std::string& path) {
  command.option("--tokenizer", path, "The tokenizer.json").required();
}
void add_specials_option(Command& command, std::string& specials) {
  command
      .option("--specials",
              specials,
              "Text of special tokens: text (ordinary tokens), parse (the control token), plain "
              "(ordinary, and that of other added tokens too)")
      .among({"text", "parse", "plain"})
      .shows_default();
}

void add_encode(Command& parent) {
  auto args = std::make_shared<CodeArgs>();
  Command command = parent.add(
      "encode", "Print the ids of each argument, of a file, or of standard input, one line each");
  add_tokenizer_option(command, args->tokenizer);
  add_specials_option(command, args->specials);
  command.option(
      "--file", args->file, "A file to encode: text, or JSON lines, a line of ids for each");
  add_document_options(command, args->source);
  command.option("text", args->items, "Texts; none: standard input").any_text();
  command.runs([args] { return report(encode(*args)); });
}

void add_decode(Command& parent) {
  auto args = std::make_shared<CodeArgs>();
  Command command = parent.add("decode", "Print the bytes of ids, exactly");
  add_tokenizer_option(command, args->tokenizer);
  command.flag("--skip-specials", args->skip_specials, "Leave special tokens out");
  command.option("ids", args->items, "Token ids; none: standard input");
  command.runs([args] { return report(decode(*args)); });
}

// --- bench ---------------------------------------------------------------------------------------

struct BenchArgs {
  std::string tokenizer;
  std::string specials = "text";
  std::string frames;
  std::string out;
  int repeat = 1;
};

/// Documents as frames: a 32-bit little-endian byte count, then the bytes.
Result<std::vector<std::string_view>> split_frames(std::string_view all, const std::string& path) {
  std::vector<std::string_view> documents;
  for (size_t i = 0; i < all.size();) {
    uint32_t size = 0;
    if (all.size() - i >= sizeof size) std::memcpy(&size, all.data() + i, sizeof size);
    if (all.size() - i < sizeof size || all.size() - i - sizeof size < size) {
      return fail(Code::kCorrupt,
                  "{}: the frame at byte {} is cut short (the file has {} bytes)",
                  path,
                  i,
                  all.size());
    }
    documents.push_back(all.substr(i + sizeof size, size));
    i += sizeof size + size;
  }
  return documents;
}

Result<void> bench(const BenchArgs& args) {
  const double load_start_s = system_clock().monotonic_s();
  TRY(check_tokenizer_path(args.tokenizer));
  TRY(check_output_path(args.out, OutputKind::kIds));
  TRY_ASSIGN(const Tokenizer tokenizer, Tokenizer::load(args.tokenizer));
  const double load_s = system_clock().monotonic_s() - load_start_s;
  TRY_ASSIGN(const MappedFile file, MappedFile::open(args.frames));
  const std::string_view all(reinterpret_cast<const char*>(file.bytes().data()),
                             file.bytes().size());
  TRY_ASSIGN(const std::vector<std::string_view> documents, split_frames(all, args.frames));

  uint64_t bytes = 0;
  uint64_t tokens = 0;
  std::string out;
  std::vector<int32_t> ids;
  double seconds = 0;
  for (int round = 0; round < args.repeat; ++round) {
    bytes = tokens = 0;
    const double start_s = system_clock().monotonic_s();
    for (const std::string_view document : documents) {
      ids.clear();
      tokenizer.encode(document, specials_of(args.specials), ids);
      bytes += document.size();
      tokens += ids.size();
      if (!args.out.empty() && round == 0) {
        const auto count = static_cast<uint32_t>(ids.size());
        out.append(reinterpret_cast<const char*>(&count), sizeof count);
        out.append(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t));
      }
    }
    const double took_s = system_clock().monotonic_s() - start_s;
    seconds = round == 0 ? took_s : std::min(seconds, took_s);
  }
  if (!args.out.empty()) TRY(write_file_atomic(args.out, out));
  const nlohmann::ordered_json line = {
      {"command", "tokenizer bench"},
      {"documents", documents.size()},
      {"bytes", bytes},
      {"tokens", tokens},
      {"load_s", load_s},
      {"seconds", seconds},
      {"mb_per_s", static_cast<double>(bytes) / 1e6 / std::max(seconds, 1e-9)}};
  fmt::print("{}\n", json_text(line));
  return flush_output();
}

void add_bench(Command& parent) {
  auto args = std::make_shared<BenchArgs>();
  Command command =
      parent.add("bench", "Measure encoding of a file of framed documents, one thread");
  add_tokenizer_option(command, args->tokenizer);
  add_specials_option(command, args->specials);
  command
      .option(
          "--frames", args->frames, "Documents: 32-bit little-endian byte count, bytes, and so on")
      .required();
  command.option("--out", args->out, "Write the ids the same way: count, 32-bit ids");
  command.option("--repeat", args->repeat, "Rounds; the fastest counts")
      .within(1, 1000)
      .shows_default();
  command.runs([args] { return report(bench(*args)); });
}

}  // namespace

void add_tokenizer_command(Command& program) {
  Command tokenizer = program.add("tokenizer", "Train and use byte-level BPE tokenizers");
  add_train(tokenizer);
  add_encode(tokenizer);
  add_decode(tokenizer);
  add_bench(tokenizer);
}

}  // namespace ferry::cli
