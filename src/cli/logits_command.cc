#include "cli/logits_command.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output_file.h"
#include "data/text_stream.h"

namespace ferry::cli {
namespace {

struct Arguments {
  OpenOptions open;
  std::string tokens, out;
};

/// One sequence of ids a line, separated by spaces or commas.
Result<std::vector<std::vector<int32_t>>> read_sequences(const std::string& path,
                                                         int64_t vocab,
                                                         int64_t positions) {
  TRY_ASSIGN(const std::string text, data::read_text(path));
  std::vector<std::vector<int32_t>> sequences;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    ++line_number;
    std::vector<int32_t> ids;
    const char* p = text.data() + begin;
    const char* const stop = text.data() + end;
    while (p < stop) {
      if (*p == ' ' || *p == ',' || *p == '\t' || *p == '\r') {
        ++p;
        continue;
      }
      int32_t id = 0;
      const auto [next, error] = std::from_chars(p, stop, id);
      if (error != std::errc() || id < 0 || id >= vocab)
        return fail(Code::kInvalidInput,
                    "{}:{}: column {}: not an id from 0 to {}",
                    path,
                    line_number,
                    p - (text.data() + begin) + 1,
                    vocab - 1);
      ids.push_back(id);
      p = next;
    }
    if (static_cast<int64_t>(ids.size()) > positions)
      return fail(Code::kInvalidInput,
                  "{}:{}: {} ids, the model has {} positions",
                  path,
                  line_number,
                  ids.size(),
                  positions);
    if (ids.empty()) return fail(Code::kInvalidInput, "{}:{}: no ids", path, line_number);
    sequences.push_back(std::move(ids));
    begin = end + 1;
  }
  if (sequences.empty())
    return fail(Code::kInvalidInput, "{}: empty; one sequence of ids a line is expected", path);
  return sequences;
}

Result<void> write_logits(const OpenedModel& m,
                          const std::vector<std::vector<int32_t>>& sequences,
                          const std::string& path) {
  std::vector<TensorDecl> declared;
  for (size_t i = 0; i < sequences.size(); ++i)
    declared.push_back({std::to_string(i),
                        DType::kF32,
                        {static_cast<int64_t>(sequences[i].size()), m.model->vocab_size()}});
  TRY_ASSIGN(SafetensorsWriter writer,
             SafetensorsWriter::create(path, declared, {{"device", m.model->device().name()}}));
  for (const TensorInfo& info : writer.layout()) {
    const std::vector<int32_t>& ids = sequences[std::stoul(info.name)];
    const auto length = static_cast<int32_t>(ids.size());
    const ops::Segments segments = ops::Segments::packed({&length, 1}, m.model->device());
    const Tensor hidden =
        m.model->forward(Tensor::from_i32(ids, {length}, m.model->device()), segments, {}, nullptr);
    std::vector<int64_t> every(ids.size());
    std::iota(every.begin(), every.end(), 0);
    const Tensor rows = m.model->logits(hidden, every);
    std::vector<std::byte> bytes(rows.bytes());
    rows.copy_bytes_to(bytes.data());
    TRY(writer.write(info.name, bytes));
  }
  TRY(writer.finish());
  return {};
}

Result<void> logits(Arguments& args) {
  print_besides();
  TRY(check_output_path(args.out, OutputKind::kLogits));
  args.open.tokenizer = false;
  TRY_ASSIGN(const OpenedModel m, open_model(args.open));
  TRY_ASSIGN(const auto sequences,
             read_sequences(args.tokens, m.model->vocab_size(), m.model->max_positions()));
  const std::string temporary = fmt::format("{}.tmp.{}", args.out, ::getpid());
  Result<void> written = write_logits(m, sequences, temporary);
  if (written) written = rename_path(temporary, args.out);
  if (!written) {
    (void)remove_tree(temporary);  // what failed has been said
    return written;
  }
  const nlohmann::ordered_json j = {
      {"out", args.out}, {"sequences", sequences.size()}, {"vocab", m.model->vocab_size()}};
  return printed_besides(print_json(j));
}

}  // namespace

void add_logits_command(Command& program) {
  Command command =
      program.add("logits", "Write the logits of given ids, for whoever wants to check us");
  const auto args = std::make_shared<Arguments>();
  add_open_options(command, args->open);
  command.option("--tokens", args->tokens, "one sequence of ids a line").required();
  command
      .option("--out",
              args->out,
              "a safetensors file: for line i, from 0, tensor \"i\" [ids, vocab] f32")
      .required();
  command.runs([args] { return report(logits(*args)); });
}

}  // namespace ferry::cli
