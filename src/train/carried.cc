#include "train/carried.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "base/json_fields.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;
constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
constexpr int64_t kIdMax = std::numeric_limits<int32_t>::max();

constexpr double kNotFinite = std::numeric_limits<double>::quiet_NaN();

/// Null stands for what is not finite: that it was found is what everybody must know.
double number_of(const nlohmann::json& j, const char* name, JsonFields& f) {
  if (!j.is_number() && !j.is_null()) f.refuse(name, "is not made of numbers");
  return j.is_number() ? j.get<double>() : kNotFinite;
}

std::optional<HeldOutLoss> held_out_of(JsonFields& f) {
  if (!f.has("held_out")) return std::nullopt;
  const nlohmann::json& both = f.list("held_out");
  if (both.size() != 2) {
    f.refuse("held_out", "is not two numbers");
    return std::nullopt;
  }
  return HeldOutLoss{.nats_per_token = number_of(both[0], "held_out", f),
                     .bits_per_byte = number_of(both[1], "held_out", f)};
}

template <typename Word>
Result<std::optional<Word>> hand(comm::Communicator& ranks,
                                 const RecoveryPlan& plan,
                                 const comm::Tag& tag,
                                 const std::function<Word()>& mine,
                                 Result<Word> (*of)(const std::string& text),
                                 double patience_s,
                                 uint64_t bytes_max) {
  const std::string told = comm::hand_text(ranks,
                                           tag,
                                           plan.teller,
                                           plan.fresh,
                                           plan.teller == ranks.rank() ? to_text(mine()) : "",
                                           patience_s,
                                           bytes_max);
  if (!plan.fresh[static_cast<size_t>(ranks.rank())]) return std::nullopt;
  TRY_ASSIGN(Word word, of(told));
  return word;
}

}  // namespace

std::string to_text(const RankWord& word) {
  Json j = {{"stage", static_cast<int>(word.standing.stage)},
            {"done", word.standing.done},
            {"saved", word.saved_step},
            {"saved_figure", word.saved_figure ? 1 : 0},
            {"rewinds", word.rewinds},
            {"rewound_to", word.rewound_to}};
  if (word.held_out) j["held_out"] = {word.held_out->nats_per_token, word.held_out->bits_per_byte};
  return json_text(j);
}

Result<RankWord> rank_word_of(const std::string& text, int rank) {
  const std::string where = fmt::format("where rank {} says it stands", rank);
  TRY_ASSIGN(const nlohmann::json document, parse_json(text, where));
  JsonProblem problem;
  JsonFields f(document, where, problem);
  RankWord word;
  word.standing.stage = static_cast<Standing::Stage>(
      f.integer("stage", 0, static_cast<int>(Standing::Stage::kCommitted)));
  word.standing.done = f.integer("done", 0, kAny);
  word.saved_step = f.integer("saved", -1, kAny);
  word.saved_figure = f.integer("saved_figure", 0, 1) != 0;
  word.held_out = held_out_of(f);
  word.rewinds = f.integer("rewinds", 0, kAny);
  word.rewound_to = f.integer("rewound_to", 0, kAny);
  TRY(problem.done());
  return word;
}

/// A line of JSON, then the files as they are: what is in them need not be text.
std::string to_text(const ModelWord& word) {
  Json j = {{"config", word.config_json}};
  std::string files;
  if (word.texts) {
    Json& t = j["texts"] = {{"begins", word.texts->begins}, {"eos", word.texts->eos}};
    if (word.texts->bos) t["bos"] = *word.texts->bos;
    t["names"] = Json::array();
    t["sizes"] = Json::array();
    for (const auto& [name, content] : word.texts->files) {
      t["names"].push_back(name);
      t["sizes"].push_back(content.size());
      files += content;
    }
  }
  return json_text(j) + "\n" + files;
}

Result<ModelWord> model_word_of(const std::string& text) {
  const std::string where = "what model a successor is told of";
  const size_t end = text.find('\n');
  if (end == std::string::npos) return fail(Code::kCorrupt, "{}: has no end", where);
  TRY_ASSIGN(const nlohmann::json document, parse_json(text.substr(0, end), where));
  std::string_view files = std::string_view(text).substr(end + 1);
  JsonProblem problem;
  JsonFields f(document, where, problem);
  ModelWord word{.config_json = f.text("config"), .texts = {}};
  if (f.has("texts")) {
    JsonFields t = f.object("texts");
    ModelTexts& texts = word.texts.emplace();
    texts.begins = t.boolean("begins");
    if (t.has("bos")) texts.bos = static_cast<int32_t>(t.integer("bos", 0, kIdMax));
    for (const int64_t id : t.integers("eos", 0, kIdMax))
      texts.eos.push_back(static_cast<int32_t>(id));
    const std::vector<std::string> names = t.texts("names");
    const std::vector<int64_t> sizes = t.integers("sizes", 0, std::ssize(files));
    if (names.size() != sizes.size()) t.refuse("sizes", "are not as many as names");
    for (size_t i = 0; i < names.size() && !problem; ++i) {
      const auto size = static_cast<size_t>(sizes[i]);
      if (size > files.size()) t.refuse("sizes", "are more than there is");
      texts.files[names[i]] = files.substr(0, size);
      files.remove_prefix(std::min(size, files.size()));
    }
  }
  TRY(problem.done());
  return word;
}

std::string to_text(const Carried& c) {
  Json j = {
      {"state", c.state},
      {"refusals_of", c.refusals_of},
      {"refusals_in_a_row", c.refusals_in_a_row},
      {"figures", {c.figures.flops_step, c.figures.flops_mtp_step, c.figures.peak_flops_per_s}},
      {"last_record", c.last_record}};
  if (c.last_loss) j["last_loss"] = *c.last_loss;
  return json_text(j);
}

Result<Carried> carried_of(const std::string& text) {
  const std::string where = "what a successor is told of the run";
  TRY_ASSIGN(const nlohmann::json document, parse_json(text, where));
  JsonProblem problem;
  JsonFields f(document, where, problem);
  Carried c;
  c.state = f.text("state");
  c.refusals_of = f.integer("refusals_of", 0, kAny);
  c.refusals_in_a_row = f.integer("refusals_in_a_row", 0, c.refusals_of);
  const std::vector<double> figures = f.reals("figures");
  if (figures.size() == 3)
    c.figures = {figures[0], figures[1], figures[2]};
  else
    f.refuse("figures", "are not three");
  c.last_record = f.text("last_record");
  if (const auto loss = document.find("last_loss"); loss != document.end())
    c.last_loss = number_of(*loss, "last_loss", f);
  TRY(problem.done());
  return c;
}

Result<std::vector<RankWord>> exchange_words(comm::Communicator& ranks,
                                             const RankWord& mine,
                                             double patience_s) {
  std::vector<RankWord> words;
  for (const std::string& text :
       comm::all_gather_texts(ranks, {comm::Purpose::kStanding}, to_text(mine), patience_s)) {
    TRY_ASSIGN(RankWord word, rank_word_of(text, static_cast<int>(words.size())));
    words.push_back(word);
  }
  return words;
}

Result<std::optional<ModelWord>> hand_model(comm::Communicator& ranks,
                                            const RecoveryPlan& plan,
                                            const std::function<ModelWord()>& mine,
                                            double patience_s) {
  constexpr uint64_t kBytesMax = uint64_t{1} << 30;
  return hand(
      ranks, plan, {comm::Purpose::kModel, plan.done}, mine, model_word_of, patience_s, kBytesMax);
}

Result<std::optional<Carried>> hand_carried(comm::Communicator& ranks,
                                            const RecoveryPlan& plan,
                                            const std::function<Carried()>& mine,
                                            double patience_s) {
  constexpr uint64_t kBytesMax = uint64_t{1} << 26;
  return hand(
      ranks, plan, {comm::Purpose::kCarried, plan.done}, mine, carried_of, patience_s, kBytesMax);
}

}  // namespace ferry
