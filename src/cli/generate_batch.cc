#include "cli/generate_batch.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_fields.h"
#include "base/named_file.h"
#include "base/ordered_json.h"
#include "base/stopping.h"
#include "base/units.h"
#include "checkpoint/checksums.h"
#include "checkpoint/made_from.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/model_source.h"
#include "checkpoint/passport.h"
#include "cli/command.h"
#include "cli/given_template.h"
#include "cli/hash_progress.h"
#include "data/text_stream.h"
#include "engine/answer_fields.h"
#include "engine/generate.h"
#include "text/answer_text.h"

namespace ferry::cli {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr int64_t kAnswersMax = 1024;  // of one line
constexpr double kSyncSeconds = 5;     // what a machine that goes down may cost

/// A line of the input.
struct Line {
  size_t index = 0;
  std::string where;  // "in.jsonl:3"
  std::string id;
  std::string text;   // the line itself
  std::string named;  // the request's name: a hash of all that its answers depend on
  int64_t answers = 1;
  AnswerOptions options;
  bool readable = true;
};

/// Lines that cannot be asked: all are told together, so that a file is mended in one go.
class WrongLines {
 public:
  explicit WrongLines(std::string path) : path_(std::move(path)) {}

  /// Whether the line of this index is right. `why` names it. Errors: those that are not the line's own.
  Result<bool> is_right(size_t index, const Result<void>& why) {
    if (why) return true;
    const Code code = why.error().code;
    if (code != Code::kInvalidInput && code != Code::kCorrupt) return tl::unexpected(why.error());
    ++count_;
    told_[index] = why.error().message;
    if (told_.size() > kTold) told_.erase(std::prev(told_.end()));
    return false;
  }
  Result<void> done(size_t lines) const {
    if (count_ == 0) return {};
    if (count_ == 1) return fail(Code::kInvalidInput, "{}", told_.begin()->second);
    std::string all;
    for (const auto& [index, why] : told_) all += "\n  " + why;
    if (count_ > told_.size()) all += fmt::format("\n  and {} more", count_ - told_.size());
    return fail(Code::kInvalidInput,
                "{}: {} of {} requests cannot be asked; nothing was computed{}",
                path_,
                count_,
                lines,
                all);
  }

 private:
  static constexpr size_t kTold = 20;
  std::string path_;
  std::map<size_t, std::string> told_;  // the first, by index
  size_t count_ = 0;
};

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1);
    std::string_view line = text.substr(0, end + 1);
    text.remove_prefix(end + 1);
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
    lines.push_back(line);
  }
  return lines;
}

/// The settings that a line gives.
Result<void> read_settings(const Json& object, Line& line) {
  const std::string& where = line.where;
  JsonProblem problem{.code = Code::kInvalidInput, .advice = "", .status = {}};
  JsonFields fields(object, where, problem);
  line.id = fields.text("id", "");
  line.answers = fields.integer("n", 1, kAnswersMax, 1);
  engine::GenerateOptions& g = line.options.generate;
  g.tokens_max = fields.integer("max_tokens", 1, int64_t{1} << 24, g.tokens_max);
  engine::read_sampling(fields, g.sampling);
  if (fields.has("logprobs")) g.top_log_probs = fields.integer("logprobs", 0, 64);
  engine::read_stop(fields, line.options.stop);
  const bool prompt = fields.has("prompt"), messages = fields.has("messages");
  if (prompt && messages)
    fields.refuse("", "has both \"prompt\" and \"messages\"; give one of them");
  else if (!prompt && fields.has("body"))
    fields.refuse("", "has a \"body\": what is in it is the line that is wanted here");
  else if (!prompt && !messages)
    fields.refuse("", "needs \"prompt\" or \"messages\"");
  if (messages)
    for (const char* name : {"tools", "add_generation_prompt", "chat_template_kwargs"})
      fields.has(name);
  fields.refuse_unknown({}, "is no setting of an answer");
  TRY(problem.done());
  if (const auto valid = check_answer_options(line.options); !valid)
    return fail(Code::kInvalidInput, "{}: {}", where, valid.error().message);
  return {};
}

Result<void> read_line(Line& line) {
  TRY_ASSIGN(const Json object, parse_json(line.text, line.where));
  if (!object.is_object()) return fail(Code::kInvalidInput, "{}: not a JSON object", line.where);
  return read_settings(object, line);
}

/// All of the input, before anything is computed.
Result<std::vector<Line>> read_lines(const std::string& path,
                                     const AnswerOptions& defaults,
                                     WrongLines& wrong) {
  TRY_ASSIGN(const std::string text, data::read_text(path));
  std::vector<Line> lines;
  size_t number = 0;
  for (const std::string_view line : lines_of(text)) {
    ++number;
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    lines.push_back({.index = lines.size(),
                     .where = fmt::format("{}:{}", path, number),
                     .id = "",
                     .text = std::string(line),
                     .named = "",
                     .options = defaults});
    TRY_ASSIGN(lines.back().readable, wrong.is_right(lines.back().index, read_line(lines.back())));
  }
  if (lines.empty()) return fail(Code::kInvalidInput, "{}: has no requests", path);
  return lines;
}

/// Nobody else asks: what waits is what this command holds back itself.
engine::EngineOptions options_for(const AnswerOptions& defaults,
                                  const models::CausalLm& model,
                                  int64_t running) {
  engine::EngineOptions o = engine_options(defaults, model, running, 0);
  o.waiting_tokens = INT64_MAX / 2;
  return o;
}

/// Of the texts in a folder, their names and all they say: settings, tokenizer, templates.
Result<void> add_texts(const std::string& folder, const std::string& prefix, Hasher& hasher) {
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  for (const std::string& name : names) {
    if (!name.ends_with(".json") && !name.ends_with(".jinja")) continue;
    // What vouches for a model changes no answer of it.
    if (name == kPassportName || name == kChecksumsName || name == kVerifiedName ||
        name == kMadeFromName)
      continue;
    TRY_ASSIGN(const std::string text, read_file(join_path(folder, name)));
    const std::string head = fmt::format("{}{} {} ", prefix, name, text.size());
    hasher.update(head.data(), head.size());
    hasher.update(text.data(), text.size());
  }
  return {};
}

/// Of all that a model is, wherever it lies: weights that no passport has summed up are read once more for it. Two
/// models of one make differ in their weights alone.
Result<std::string> fingerprint_of(const OpenOptions& opened) {
  Hasher hasher;
  TRY_ASSIGN(const std::unique_ptr<ModelSource> source, open_source(opened));
  ProgressLine line;
  const Result<std::string> root = source->weights_root(shown_hashing(line, "the model's weights"));
  line.clear();
  if (!root) return tl::unexpected(root.error());
  hasher.update(root->data(), root->size());
  if (is_folder(opened.directory)) {
    TRY(add_texts(opened.directory, "", hasher));
    const std::string templates = "additional_chat_templates";
    const std::string more = join_path(opened.directory, templates);
    if (is_folder(more)) TRY(add_texts(more, templates + "/", hasher));
  }
  if (!opened.adapter.empty()) {
    TRY(add_texts(opened.adapter, "adapter/", hasher));
    TRY_ASSIGN(const std::vector<std::string> names, list_folder(opened.adapter));
    for (const std::string& name : names) {
      if (!name.ends_with(".safetensors")) continue;
      TRY_ASSIGN(const MappedFile file, MappedFile::open(join_path(opened.adapter, name)));
      const std::string head = fmt::format("adapter/{} {} ", name, file.bytes().size());
      hasher.update(head.data(), head.size());
      hasher.update(file.bytes().data(), file.bytes().size());
    }
  }
  return hasher.hex();
}

/// What an answer depends on beside its line.
Result<std::string> settings_of(const OpenedModel& model,
                                const OpenOptions& opened,
                                const BatchFiles& batch,
                                const AnswerOptions& o) {
  TRY_ASSIGN(const std::string files, fingerprint_of(opened));
  const engine::SamplingOptions& s = o.generate.sampling;
  OrderedJson j = {{"model", files},
                   {"quantize", opened.quantize},
                   {"device", verified_as(model.model->device())},
                   {"dtype", to_string(model.model->compute())},
                   {"max_tokens", o.generate.tokens_max},
                   {"temperature", s.temperature},
                   {"top_p", s.top_p},
                   {"top_k", s.top_k},
                   {"min_p", s.min_p},
                   {"repetition_penalty", s.repetition_penalty},
                   {"presence_penalty", s.presence_penalty},
                   {"frequency_penalty", s.frequency_penalty},
                   {"seed", s.seed},
                   {"stop", o.stop}};
  if (!batch.own_template) {
    TRY_ASSIGN(j["chat_template"], chat_templates_fingerprint(model.texts, opened.directory));
  }
  return json_text(j);
}

/// Whether a line that was cut off is the beginning of one of our answers: a file with another line may be anybody's.
bool begins_answer(std::string_view line, const std::vector<Line>& lines) {
  constexpr std::string_view kIndex = "{\"index\":", kChoice = ",\"choice\":";
  size_t index = 0;
  int64_t choice = 0;
  const auto number_at = [&](size_t at, auto& number) {
    const char* const end = line.data() + line.size();
    const char* const begin = std::min(line.data() + at, end);
    return static_cast<size_t>(std::from_chars(begin, end, number).ptr - line.data());
  };
  const size_t at = number_at(kIndex.size(), index);
  number_at(at + kChoice.size(), choice);
  if (index >= lines.size()) return false;
  const std::string head = fmt::format(
      "{}{}{}{},\"request\":\"{}\"", kIndex, index, kChoice, choice, lines[index].named);
  return head.starts_with(line) || line.starts_with(head);
}

/// What an earlier go has answered.
struct Answered {
  std::set<std::pair<size_t, int64_t>> done;  // (index, choice) of each
  /// On the file, which is there: two that write the same answers would cut each other's lines, and what one
  /// reads here must be all that the other wrote.
  std::optional<FileHold> hold = {};
};

/// The lines of answers that were written before; a last one that was cut off is taken away, and so
/// are those with an error, which are asked again.
Result<Answered> answered_before(const std::string& path, const std::vector<Line>& lines) {
  Answered before;
  if (!path_exists(path)) return before;
  TRY_ASSIGN(before.hold, FileHold::alone(path));
  std::set<std::pair<size_t, int64_t>>& done = before.done;
  std::set<size_t> dropped;  // lines, from 1 on
  size_t number = 0;
  TRY_ASSIGN(LineReader text, LineReader::open(path));
  while (true) {
    TRY_ASSIGN(const std::string_view line, text.next());
    if (line.empty()) break;
    const std::string where = fmt::format("{}:{}", path, ++number);
    if (line.back() != '\n' && begins_answer(line, lines)) {
      dropped.insert(number);
      break;
    }
    const Result<Json> object = parse_json(line, where);
    JsonProblem problem{.code = Code::kInvalidInput, .advice = "", .status = {}};
    const Json none = Json::object();
    JsonFields fields(object && object->is_object() ? *object : none, where, problem);
    const int64_t index = fields.integer("index", 0, std::ssize(lines) - 1);
    const int64_t choice = fields.integer("choice", 0, kAnswersMax);
    const std::string named = fields.text("request");
    if (problem || named != lines[static_cast<size_t>(index)].named ||
        choice >= lines[static_cast<size_t>(index)].answers)
      return fail(Code::kInvalidInput,
                  "{}: is no answer to these requests with this model and these settings; nothing "
                  "was changed there: give another --out",
                  where);
    if (fields.has("error"))
      dropped.insert(number);
    else
      done.emplace(static_cast<size_t>(index), choice);
  }
  if (dropped.empty()) return before;
  const auto keep = [&](FileWriter& out) -> Result<void> {
    TRY_ASSIGN(LineReader again, LineReader::open(path));
    for (size_t n = 1; n <= number; ++n) {
      TRY_ASSIGN(const std::string_view line, again.next());
      if (!dropped.contains(n)) TRY(out.write(line));
    }
    return {};
  };
  TRY(write_file_atomic(path, keep));
  const std::optional<FileHold> replaced = std::move(before.hold);  // until the new one is held
  TRY_ASSIGN(before.hold, FileHold::alone(path));
  return before;
}

class Batch {
 public:
  Batch(const OpenedModel& model,
        const std::string& directory,
        const AnswerOptions& defaults,
        const BatchFiles& files,
        const std::vector<Line>& lines)
      : model_(model),
        directory_(directory),
        files_(files),
        lines_(lines),
        engine_(*model.model, options_for(defaults, *model.model, files.running)) {}

  /// Those whose prompt cannot be made, or could never be answered.
  Result<void> check_prompts(WrongLines& wrong) {
    size_t checked = 0;
    for (const Line& line : lines_) {
      if (line.readable) TRY(wrong.is_right(line.index, askable(line)));
      ++checked;
      progress_.show([&] { return fmt::format("{} of {} lines checked", checked, lines_.size()); });
    }
    progress_.clear();
    return {};
  }

  Result<void> run(const Answered& before) {
    const auto& done = before.done;
    for (const Line& line : lines_) total_ += line.answers;
    done_ = std::ssize(done);
    if (done_ > 0)
      tell(fmt::format("ferry: {} has {} of {} answers{}",
                       files_.out,
                       done_,
                       total_,
                       done_ < total_ ? "; the others are made now" : ": nothing is left to do"));
    TRY(require_cache(engine_, *model_.model));
    TRY_ASSIGN(out_, FileWriter::append(files_.out));
    std::optional<FileHold> hold;
    if (!before.hold) {
      TRY_ASSIGN(hold, FileHold::alone(files_.out));
      TRY_ASSIGN(const uint64_t bytes, file_size(files_.out));
      if (bytes > 0)
        return fail(Code::kInvalidInput,
                    "{}: somebody else has begun to write it; start again",
                    files_.out);
    }
    stop_by_signals();
    const double begin = clock();
    next_sync_ = begin + kSyncSeconds;
    size_t next = 0;
    int64_t choice = 0;
    while (next < lines_.size() || !engine_.idle()) {
      if (const int signal = stop_signal(); signal != 0) return stopped_by(signal);
      while (next < lines_.size() && engine_.running() + engine_.waiting() < 2 * files_.running) {
        if (!done.contains({next, choice})) TRY(submit(lines_[next], choice));
        if (++choice == lines_[next].answers) {
          ++next;
          choice = 0;
        }
      }
      for (const engine::Progress& p : engine::step_through_faults(engine_)) TRY(take(p));
      progress_.show([&] { return status(begin); });
      if (clock() >= next_sync_) {
        TRY(out_->sync());
        next_sync_ = clock() + kSyncSeconds;
      }
    }
    progress_.clear();
    TRY(out_->sync());
    TRY(out_->close());
    const double seconds = clock() - begin;
    TRY(printed_besides(
        print_json({{"requests", answered_},
                    {"tokens", tokens_},
                    {"tokens_per_s", seconds > 0 ? static_cast<double>(tokens_) / seconds : 0},
                    {"seconds", seconds},
                    {"refused", refused_},
                    {"prompt_tokens_reused", engine_.counts().tokens_reused}})));
    if (refused_ > 0)
      return fail(Code::kVerdict,
                  "{}: {} of {} answers could not be made; their lines say why (\"error\")",
                  files_.out,
                  refused_,
                  total_);
    return {};
  }

 private:
  struct Asked {
    const Line* line;
    int64_t choice;
    int64_t prompt_tokens;
    text::AnswerText pieces;
    std::string text;
    std::vector<engine::Token> tokens;
  };

  /// What was answered stays; what was under way is asked again.
  Result<void> stopped_by(int signal) {
    progress_.clear();
    TRY(out_->sync());
    TRY(out_->close());
    return fail(Code::kUnavailable,
                "stopped by {}: {} has {} of {} answers; the same command makes the others",
                signal_name(signal),
                files_.out,
                done_,
                total_);
  }

  static double clock() { return system_clock().monotonic_s(); }

  std::string status(double begin) const {
    const double seconds = clock() - begin, rate = static_cast<double>(tokens_) / seconds;
    std::string line = fmt::format("{} of {} answers, {:.1f} tokens/s", done_, total_, rate);
    if (answered_ > 0)
      line += fmt::format(", {} left",
                          format_duration(seconds / static_cast<double>(answered_) *
                                          static_cast<double>(total_ - done_)));
    return line;
  }

  Result<std::vector<int32_t>> prompt_of(const Line& line) const {
    TRY_ASSIGN(const OrderedJson object, parse_ordered_json(line.text, "the line"));
    if (object.contains("messages") && !object["messages"].is_null()) {
      OrderedJson conversation = OrderedJson::object();
      for (const char* name :
           {"messages", "tools", "add_generation_prompt", "chat_template_kwargs"})
        if (object.contains(name)) conversation[name] = object[name];
      TRY_ASSIGN(
          ChatPrompt chat,
          chat_prompt(model_.texts, json_text(conversation), "the conversation", directory_));
      return std::move(chat.ids);
    }
    const OrderedJson& prompt = object["prompt"];
    std::vector<int32_t> ids;
    if (prompt.is_array()) {
      for (const OrderedJson& id : prompt) {
        if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
          return fail(Code::kInvalidInput, "\"prompt\" has {}, which is no token", json_text(id));
        ids.push_back(id.get<int32_t>());
      }
      return ids;
    }
    if (!prompt.is_string())
      return fail(Code::kInvalidInput, "\"prompt\" must be text or a list of token ids");
    return model_.texts.prompt(
        prompt.get<std::string>(), text::Tokenizer::Specials::kAsText, directory_);
  }

  /// What the engine is asked for the line's first answer. Errors: naming the line.
  Result<engine::Request> request_of(const Line& line) const {
    Result<std::vector<int32_t>> ids = prompt_of(line);
    if (!ids) return fail(ids.error().code, "{}: {}", line.where, ids.error().message);
    engine::Request request{
        .prompt = std::move(*ids), .options = line.options.generate, .salt = ""};
    request.options.end_tokens = model_.texts.eos;
    if (const auto can = engine_.answerable(request); !can)
      return fail(can.error().code, "{}: {}", line.where, can.error().message);
    return request;
  }

  Result<void> askable(const Line& line) const {
    TRY(request_of(line));
    return {};
  }

  Result<void> submit(const Line& line, int64_t choice) {
    TRY_ASSIGN(engine::Request request, request_of(line));
    const int64_t length = std::ssize(request.prompt);
    request.options.sampling.seed += static_cast<uint64_t>(choice);
    TRY_ASSIGN(const engine::RequestId id, engine_.submit(std::move(request)));
    asked_.emplace(
        id,
        Asked{
            &line, choice, length, text::AnswerText(*model_.tokenizer, line.options.stop), "", {}});
    return {};
  }

  OrderedJson head(const Line& line, int64_t choice) const {
    OrderedJson j = {{"index", line.index}, {"choice", choice}, {"request", line.named}};
    if (!line.id.empty()) j["id"] = line.id;
    return j;
  }

  Result<void> write(const OrderedJson& j) {
    ++done_;
    return out_->write(json_text(j) + "\n");
  }

  Result<void> refuse(const Line& line, int64_t choice, const std::string& why) {
    ++refused_;
    OrderedJson j = head(line, choice);
    j["error"] = why;
    return write(j);
  }

  Result<void> take(const engine::Progress& p) {
    const auto it = asked_.find(p.id);
    if (it == asked_.end()) return {};
    Asked& a = it->second;
    if (p.finish == engine::Finish::kFailed) {
      const Asked failed = std::move(a);
      asked_.erase(it);
      return refuse(*failed.line, failed.choice, p.error.message);
    }
    for (const engine::Token& t : p.tokens) {
      if (a.pieces.stopped()) break;
      a.text += a.pieces.push(t.id);
      a.tokens.push_back(t);
      ++tokens_;
    }
    const bool stopped = a.pieces.stopped();
    if (p.finish == engine::Finish::kNone && !stopped) return {};
    if (p.finish == engine::Finish::kNone) engine_.cancel(p.id);
    a.text += a.pieces.flush();
    OrderedJson j = head(*a.line, a.choice);
    j["text"] = a.text;
    j["finish"] = stopped ? "stop" : to_string(p.finish);
    j["prompt_tokens"] = a.prompt_tokens;
    j["tokens"] = a.tokens.size();
    if (a.line->options.generate.top_log_probs) add_log_probs(a, j);
    ++answered_;
    asked_.erase(it);
    return write(j);
  }

  static void add_log_probs(const Asked& a, OrderedJson& j) {
    OrderedJson ids = OrderedJson::array(), log_probs = ids, top = ids;
    for (const engine::Token& t : a.tokens) {
      ids.push_back(t.id);
      log_probs.push_back(t.log_prob);
      OrderedJson best = OrderedJson::array();
      for (const auto& [id, log_prob] : t.top) best.push_back({id, log_prob});
      top.push_back(std::move(best));
    }
    j["ids"] = std::move(ids);
    j["log_probs"] = std::move(log_probs);
    if (*a.line->options.generate.top_log_probs > 0) j["top"] = std::move(top);
  }

  const OpenedModel& model_;
  const std::string& directory_;
  const BatchFiles& files_;
  const std::vector<Line>& lines_;
  engine::Engine engine_;
  std::optional<FileWriter> out_;
  std::map<engine::RequestId, Asked> asked_;
  ProgressLine progress_;
  double next_sync_ = 0;
  int64_t total_ = 0, done_ = 0, answered_ = 0, refused_ = 0, tokens_ = 0;
};

/// The questions are not to be lost to their answers.
Result<void> check_apart(const BatchFiles& files) {
  if (!path_exists(files.out)) return {};
  TRY_ASSIGN(const NamedFile in, NamedFile::of_input(files.in));
  TRY_ASSIGN(const NamedFile out, NamedFile::at(files.out));
  if (!in.is(out)) return {};
  return fail(Code::kInvalidInput,
              "{}: is the file with the requests; give another --out for the answers",
              files.out);
}

}  // namespace

Result<void> generate_batch(const OpenedModel& model,
                            const OpenOptions& opened,
                            const AnswerOptions& defaults,
                            const BatchFiles& given) {
  print_besides();
  WrongLines wrong(given.in);
  BatchFiles files = given;
  TRY_ASSIGN(files.out, behind_links(given.out));  // a file that is replaced, not a link to it
  TRY(check_apart(files));
  TRY_ASSIGN(std::vector<Line> lines, read_lines(files.in, defaults, wrong));
  Batch batch(model, opened.directory, defaults, files, lines);
  TRY(batch.check_prompts(wrong));
  TRY(wrong.done(lines.size()));
  TRY_ASSIGN(const std::string settings, settings_of(model, opened, files, defaults));
  for (Line& line : lines) {
    const std::string all = settings + '\n' + line.text;
    line.named = blake2b_hex(all.data(), all.size()).substr(0, 32);
  }
  TRY_ASSIGN(const Answered before, answered_before(files.out, lines));
  return batch.run(before);
}

}  // namespace ferry::cli
