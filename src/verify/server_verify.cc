#include "verify/server_verify.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "base/json.h"
#include "base/math.h"
#include "base/units.h"
#include "base/version.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weights.h"
#include "verify/answer_reader.h"
#include "verify/server_client.h"
#include "verify/server_questions.h"

namespace ferry::verify {
namespace {

using Thoughts = std::vector<std::vector<std::optional<Thought>>>;

/// What is asked beyond the comparison may go unanswered: refused, or not within the time.
bool unanswered(const Status& why) {
  return why.code == Code::kUnavailable || why.code == Code::kTimeout;
}

constexpr int64_t kAnswerTokens = 12;
constexpr int64_t kChatTokens = 24;
constexpr int64_t kSampledTokens = 24;
constexpr size_t kCrowd = 16;
// Caches of prompts keep whole blocks, of 16 to 128 tokens as a rule: such a text has some of them.
constexpr int64_t kSomeBlocks = 256;
constexpr double kChanceMax = 1e-6;  // what chance gives more seldom proves something
constexpr double kDeviations = 6;    // of a sum of log-probabilities that chance does not give
constexpr int kDraws = 48, kDrawsAtOnce = 4;  // answers at temperature 1, beside those for seeds

/// What a server may have taken the prompt for.
struct Heard {
  std::string fault;  // empty: as it should
  std::string words;
  std::function<std::vector<int32_t>(const Exchange&)> prompt;
};

/// What may be the matter.
struct Hypothesis {
  std::string fault, words;
  const Heard* heard;
  Variant variant;
};

/// Which part of a text is read that is cut.
struct CutText {
  const char* part;
  const char* words;
  bool first = false;   // its first tokens; otherwise its last
  bool begins = false;  // behind the begin token
};
constexpr CutText kCuts[] = {{"last", "its beginning cut off"},
                             {"last", "its middle cut out", false, true},
                             {"first", "its end cut off", true}};

struct Group {
  std::string name, words;
  std::vector<Exchange> exchanges;
};

std::vector<int32_t> prompt_of(const Exchange& e) {
  return {e.text.begin(), e.text.begin() + e.prompt};
}

/// Tokens that a server drew, by the reference: sums of log-probabilities.
struct Drawn {
  int64_t tokens = 0;
  double sum = 0;                     // of the tokens
  double expected = 0, variance = 0;  // at temperature 1
  double cool = 0;                    // expected at kCoolTemperature
  void operator+=(const Drawn& more) {
    tokens += more.tokens;
    sum += more.sum;
    expected += more.expected;
    variance += more.variance;
    cool += more.cool;
  }
  double deviations(double of) const {
    return variance > 0 ? (of - expected) / std::sqrt(variance) : 0;
  }
  /// Whether another temperature would be beyond the limit as surely as this one is within it.
  bool enough() const { return deviations(cool) >= 2 * kDeviations; }
};

class Interview {
 public:
  Interview(const ServerOptions& options, Reference& reference, ServerClient& client)
      : options_(options),
        reference_(reference),
        client_(client),
        reader_(reference.tokenizer(), reference.texts()) {}

  Result<ServerReport> run() {
    TRY(describe());
    TRY(check_key());
    TRY(check_texts());
    TRY(check_chat());
    TRY(check_long());
    TRY(check_again_and_crowd());
    TRY(check_sampling());
    TRY(check_ends());
    TRY(check_overlong());
    TRY(conclude());
    return std::move(report_);
  }

 private:
  void say(const std::string& text) const {
    if (options_.progress) options_.progress(text);
  }
  void fault(const std::string& name, std::string words) {
    for (const ServerFault& f : report_.faults)
      if (f.name == name) return;
    report_.faults.push_back({name, std::move(words)});
  }
  bool at_fault() const { return !report_.faults.empty(); }
  /// These faults it may have: nobody looked.
  void not_tried(std::initializer_list<const char*> faults, const std::string& why) {
    std::string names;
    for (const char* name : faults) {
      report_.not_tried.push_back(name);
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    report_.notes.push_back(fmt::format("not tried ({}): {}", names, why));
  }
  /// These faults nobody looked for, because what would have told was not answered. Errors: any other reason.
  Result<void> not_answered(std::initializer_list<const char*> faults,
                            const std::string& what,
                            const Status& why) {
    if (!unanswered(why)) return tl::unexpected(why);
    not_tried(faults, what + " was not answered: " + why.message);
    return {};
  }
  /// A question as a request: as a text, or as the conversation that it is.
  static Ask asking(const TextQuestion& q, Ask how) {
    how.chat = !q.messages.empty();
    how.prompt = how.chat ? q.messages : q.text;
    return how;
  }
  /// A long text in the form in which this server is asked. Errors: of render_chat.
  Result<TextQuestion> long_text(int64_t tokens, bool other_ending = false) const {
    if (client_.completes()) return long_question(reference_, tokens, other_ending);
    return long_conversation(reference_, tokens, other_ending);
  }
  bool right(const char* group) const {
    return std::none_of(report_.groups.begin(), report_.groups.end(), [&](const ServerGroup& g) {
      return g.name == group && !g.within;
    });
  }
  /// In the form in which they are asked.
  bool short_ones_right() const { return right(client_.completes() ? "text" : "chat"); }
  int64_t positions() const { return reference_.model().max_positions(); }

  Result<void> describe();
  Result<void> check_key();
  Result<void> check_texts();
  Result<void> check_chat();
  Result<void> check_long();
  Result<void> check_again_and_crowd();
  Result<void> check_sampling();
  using Draw =
      std::function<Result<std::pair<std::string, Exchange>>(const TextQuestion&, uint64_t seed)>;
  Result<void> check_temperature(const Draw& draw, Drawn drawn, bool all_equal);
  Result<Drawn> drawn_of(const Group& group);
  Result<void> check_ends();
  Result<void> check_overlong();
  Result<void> conclude();

  Result<Exchange> ask(const TextQuestion& question, const Ask& how, const std::string& group);
  Result<Exchange> exchange_of(const TextQuestion& question,
                               const Ask& how,
                               ServerAnswer answer,
                               const std::string& group);
  Result<void> settle(Exchange& e, int64_t tokens);
  void compare_prompt(const TextQuestion& question, const ServerAnswer& answer);
  void count_answer(const TextQuestion& question, const Ask& how, const ServerAnswer& answer);
  Result<void> compare_tokenizers();
  Result<void> judge(const Group& group, const std::vector<Heard>& others);
  Result<bool> explain(const Group& group,
                       const std::vector<Heard>& others,
                       const Closeness& found,
                       const Noise& rounding);
  Result<void> explain_strays(const Group& group,
                              const std::vector<Heard>& others,
                              std::vector<Exchange> astray);
  Result<bool> explain_as_heard(const Group& group,
                                const std::vector<Heard>& others,
                                const Closeness& found,
                                const Noise& rounding);
  bool not_as_before(const Group& group, std::string what);
  void not_judged(const Group& group);
  Result<void> check_shown(const Group& group);
  std::vector<std::string> newly_wrong() const;
  Result<void> judge_round(const std::function<Result<Group>()>& ask_round);
  Result<void> ask_into(Group& again, const TextQuestion& q);
  Result<Group> ask_again();
  Result<Group> ask_crowd();
  Result<bool> seen_elsewhere(WeightCodes codes);
  static bool fits(const Closeness& c, const Noise& rounding);
  static bool fits_itself(const Closeness& c) { return c.against_itself <= c.tokens / 50; }
  static int64_t others_of(const Thoughts& a, const Thoughts& b);
  Result<bool> explain_by_cut(const Group& group, const Thoughts& base, const Noise& rounding);
  Result<Thoughts> thoughts(const Group& group, const Heard& heard, const Variant& variant);
  Result<Noise> noise_of(const Group& group, const Heard& heard, const Thoughts& base);
  Result<void> check_endings(const Group& group, const Noise& rounding);
  std::vector<Heard> other_begins() const;
  static Heard cut_to(const CutText& kind, int64_t n);
  std::vector<Heard> cut_texts(const Group& group) const;
  std::vector<Heard> other_templates() const;
  std::string shown(std::span<const int32_t> ids) const {
    return reference_.tokenizer().decode(ids);
  }

  const ServerOptions& options_;
  Reference& reference_;
  ServerClient& client_;
  AnswerReader reader_;
  ServerReport report_;
  const Heard as_asked_{.fault = "", .words = "", .prompt = prompt_of};
  Variant computed_;                               // how the server was found to compute
  std::optional<WeightCodes> rounded_;             // weights as rough as these
  std::map<std::string, int64_t> counted_apart_;   // of texts: the server's count less ours
  std::map<std::string, std::string> read_apart_;  // of texts: how its tokens part from ours
  bool numbers_mean_nothing_ = false;  // another model, another tokenizer: no more comparing
  bool tokens_told_ = false;           // of texts: by count, by id or by /tokenize
  int64_t tried_ = 0;  // checks that were made beyond the comparison of single answers
  std::vector<TextQuestion> texts_;
  std::vector<TextQuestion> short_;  // what is asked again: texts, else conversations
  int64_t longest_ = 0;              // of the long texts that were answered, as it was asked for
  int64_t longest_again_ = 0;        // tokens of the longest text that was asked again
  std::string drawn_proof_;          // what the tokens that it drew would have shown
  std::optional<int64_t> cached_;    // the most that it says it had kept of what came again
  std::vector<Group> judged_;
  std::vector<Thoughts> judged_thoughts_;
  std::vector<Noise> judged_noise_;
};

Result<void> Interview::describe() {
  report_.directory = options_.directory;
  report_.address = client_.address();
  report_.model = client_.model();
  report_.program = fmt::format("ferry {}", kVersion);
  report_.notes = reference_.notes();
  report_.notes.insert(report_.notes.end(), client_.notes().begin(), client_.notes().end());
  if (options_.weights == "int8" ||
      (options_.weights.empty() && dynamic_cast<const GgufModel*>(&reference_.source()) != nullptr))
    rounded_ = WeightCodes::kInt8;
  if (options_.weights == "int4") rounded_ = WeightCodes::kInt4;
  if (options_.weights.empty() && !rounded_) rounded_ = stored_codes(reference_.source());
  if (const auto* dir = dynamic_cast<const ModelDir*>(&reference_.source());
      dir != nullptr && dir->passport() != nullptr) {
    report_.root = dir->passport()->root;
    if (dir->passport()->signature) report_.signed_by = dir->passport()->signature->public_key;
  }
  if (client_.gives_prompt_log_probs())
    report_.evidence = "log-probabilities of prompts and answers";
  else if (client_.gives_log_probs(!client_.completes()))
    report_.evidence = "log-probabilities of its answers";
  else
    report_.evidence = "tokens alone";
  return {};
}

/// A server that was given a key must ask for it wherever the model runs.
Result<void> Interview::check_key() {
  if (options_.key.empty()) return {};
  say("asking without the key");
  std::set<std::string> busy;
  for (const std::string& key : {std::string(), options_.key + "x"}) {
    TRY_ASSIGN(const ServerClient::Paths paths, client_.open_with(key));
    busy.insert(paths.busy.begin(), paths.busy.end());
    if (!paths.open.empty())
      fault("key",
            fmt::format("{} answers {}",
                        fmt::join(paths.open, ", "),
                        key.empty() ? "without a key" : "to a wrong key"));
  }
  if (!busy.empty())
    not_tried({"key"},
              fmt::format("whether they ask for it was not said, for want of time, by {}",
                          fmt::join(busy, ", ")));
  return {};
}

/// The server's count of a prompt's tokens, and these where it tells them, beside ours.
void Interview::compare_prompt(const TextQuestion& question, const ServerAnswer& answer) {
  if (answer.prompt_tokens)
    counted_apart_[question.what] = *answer.prompt_tokens - std::ssize(question.ids);
  if (answer.prompt_ids.empty()) return;
  tokens_told_ = true;
  if (const auto words = reader_.tokens_differ(question.ids, answer.prompt_ids))
    read_apart_[question.what] = *words;
}

/// No answer may have more tokens than were asked for.
void Interview::count_answer(const TextQuestion& question,
                             const Ask& how,
                             const ServerAnswer& answer) {
  int64_t given = answer.answer_tokens.value_or(0);
  // Where it repeats a prompt and does not count, the prompt's may be among them.
  if (!how.prompt_log_probs) given = std::max(given, std::ssize(answer.tokens));
  if (given > how.tokens)
    fault("length",
          fmt::format("answers {} with {} tokens where at most {} were asked for",
                      question.what,
                      given,
                      how.tokens));
}

Result<Exchange> Interview::ask(const TextQuestion& question,
                                const Ask& how,
                                const std::string& group) {
  TRY_ASSIGN(ServerAnswer answer, client_.ask(how));
  return exchange_of(question, how, std::move(answer), group);
}

Result<Exchange> Interview::exchange_of(const TextQuestion& question,
                                        const Ask& how,
                                        ServerAnswer answer,
                                        const std::string& group) {
  compare_prompt(question, answer);
  count_answer(question, how, answer);
  Exchange e = reader_.read(question.ids, answer, how.temperature == 0);
  e.what = question.what;
  if (group == "again" && answer.cached_tokens)
    cached_ = std::max(cached_.value_or(0), *answer.cached_tokens);
  if (answer.tokens.empty()) TRY(settle(e, how.tokens));
  report_.texts.push_back({group, question.what, question.text, answer.reasoning + answer.text});
  return e;
}

/// An answer that is only a text was cut into tokens as the tokenizer does. Where the model would have
/// written the same bytes in other tokens, it probably did. Each try settles one token at least, and
/// there are no more than were asked for.
Result<void> Interview::settle(Exchange& e, int64_t tokens) {
  for (int64_t tries = 0; tries < tokens; ++tries) {
    const Group one{"", "", {e}};
    TRY_ASSIGN(const Thoughts t, thoughts(one, as_asked_, {}));
    if (!reader_.cut_as(e, t.front())) return {};
  }
  return {};
}

Result<Thoughts> Interview::thoughts(const Group& group,
                                     const Heard& heard,
                                     const Variant& variant) {
  std::vector<Question> questions;
  Thoughts out;
  struct Place {
    size_t exchange, seen;
  };
  std::vector<std::vector<Place>> places;         // of each question's rows
  std::map<std::vector<int32_t>, size_t> before;  // what was answered alike is computed once
  for (size_t i = 0; i < group.exchanges.size(); ++i) {
    const Exchange& e = group.exchanges[i];
    out.emplace_back(e.seen.size());
    Question q{.tokens = heard.prompt(e), .rows = {}};
    if (q.tokens.empty()) continue;
    const int64_t moved = std::ssize(q.tokens) - e.prompt;
    q.tokens.insert(q.tokens.end(), e.text.begin() + e.prompt, e.text.end());
    if (std::ssize(q.tokens) > positions()) continue;
    const size_t at = before.try_emplace(q.tokens, questions.size()).first->second;
    if (at == questions.size()) {
      questions.push_back(std::move(q));
      places.emplace_back();
    }
    for (size_t k = 0; k < e.seen.size(); ++k) {
      const int64_t row = e.seen[k].at - 1 + moved;
      // Of a prompt's first tokens that the server did not see, nothing can be said.
      if (row < 0 || (moved < 0 && e.seen[k].at < e.prompt && row < 1)) continue;
      questions[at].rows.push_back({row, ids_of(e.seen[k])});
      places[at].push_back({i, k});
    }
  }
  if (questions.empty()) return out;
  TRY_ASSIGN(const auto answers, reference_.ask(variant, questions));
  for (size_t q = 0; q < questions.size(); ++q)
    for (size_t r = 0; r < places[q].size(); ++r)
      out[places[q][r].exchange][places[q][r].seen] = answers[q][r];
  return out;
}

/// How far honest servers are from the reference: their rounding is that of bf16 and, where weights
/// are codes or said to be, that of the codes. (Whoever multiplies codes rounds activations, too.)
Result<Noise> Interview::noise_of(const Group& group, const Heard& heard, const Thoughts& base) {
  Variant rounded = computed_;
  rounded.compute = DType::kBF16;
  TRY_ASSIGN(const Thoughts in_bf16, thoughts(group, heard, rounded));
  Noise n = noise(group.exchanges, base, in_bf16);
  if (!rounded_) return n;
  Variant codes = computed_;
  codes.codes = rounded_;
  TRY_ASSIGN(const Thoughts in_codes, thoughts(group, heard, codes));
  const Noise more = noise(group.exchanges, base, in_codes);
  n.kl = std::max(n.kl, more.kl);
  n.kl_max = std::max(n.kl_max, more.kl_max);
  n.margin = std::max(n.margin, more.margin);
  for (size_t e = 0; e < n.kl_of.size(); ++e) n.kl_of[e] = std::max(n.kl_of[e], more.kl_of[e]);
  return n;
}

/// At how many places two computations hold another token most probable.
int64_t Interview::others_of(const Thoughts& a, const Thoughts& b) {
  int64_t count = 0;
  for (size_t e = 0; e < a.size(); ++e)
    for (size_t i = 0; i < a[e].size(); ++i)
      count += a[e][i] && b[e][i] && a[e][i]->best != b[e][i]->best;
  return count;
}

bool Interview::fits(const Closeness& c, const Noise& rounding) {
  return (c.compared == 0 || c.kl_typical <= kl_bound(rounding)) && c.wrong <= c.tokens / 50;
}

/// Compares a group; if it does not fit, finds out why. `others`: what the server may have heard.
Result<void> Interview::judge(const Group& group, const std::vector<Heard>& others) {
  if (group.exchanges.empty() || numbers_mean_nothing_) return {};
  say(fmt::format("comparing: {}", group.words));
  TRY_ASSIGN(Thoughts base, thoughts(group, as_asked_, computed_));
  TRY_ASSIGN(const Noise rounding, noise_of(group, as_asked_, base));
  ServerGroup g{.name = group.name,
                .words = group.words,
                .exchanges = std::ssize(group.exchanges),
                .closeness = closeness(group.exchanges, base, rounding.margin),
                .bound = kl_bound(rounding)};
  const bool together = fits(g.closeness, rounding);
  std::vector<Exchange> astray = strays(group.exchanges, base, rounding);
  g.within = together && astray.empty();
  if (g.closeness.compared + g.closeness.tokens == 0) not_judged(group);
  report_.groups.push_back(g);
  judged_.push_back(group);
  judged_thoughts_.push_back(std::move(base));
  judged_noise_.push_back(rounding);
  // Of few tokens, as a rule, so that most places are right nevertheless.
  if (penalises(group.exchanges, judged_thoughts_.back(), rounding.margin)) {
    fault("temperature",
          "holds tokens that the text has already less probable than the model does, and all "
          "others right "
          "among themselves: it penalises repetition without being asked");
    return {};
  }
  if (g.within) return check_endings(group, rounding);
  if (together) return explain_strays(group, others, std::move(astray));
  TRY(explain(group, others, g.closeness, rounding));
  return {};
}

/// Nothing of the answers could be compared.
void Interview::not_judged(const Group& group) {
  const std::string why = group.words + ": nothing of the answers could be compared";
  if (group.name == "chat")
    not_tried({"template"}, why);
  else if (group.name == "long")
    not_tried({"context-cut", "garbled"}, why);
  else if (group.name == "again")
    not_tried({"cache"}, why);
  else if (group.name == "crowd")
    not_tried({"load"}, why);
  else if (group.name == "text" && counted_apart_.empty() && !tokens_told_)
    not_tried({"bos-lost", "bos-doubled"}, why);
  else
    report_.notes.push_back(why + "; this part is not judged");
}

/// What comes again, or among others, was right before: no more is to be found out of it. `what`: of its
/// answers; empty: all.
bool Interview::not_as_before(const Group& group, std::string what) {
  if (!what.empty()) what += " ";
  if (group.name == "again")
    fault("cache",
          fmt::format("asked once more, it answers {}otherwise than the model: what it kept of the "
                      "first time is not what it computes",
                      what));
  else if (group.name == "crowd")
    fault("load", fmt::format("among other requests it answers {}otherwise than alone", what));
  else
    return false;
  return true;
}

/// Most of a group is within rounding, and these are not: it is no other model.
Result<void> Interview::explain_strays(const Group& group,
                                       const std::vector<Heard>& others,
                                       std::vector<Exchange> astray) {
  const std::string what =
      fmt::format("{} of {} ({})", astray.size(), group.exchanges.size(), astray.front().what);
  if (not_as_before(group, what)) return {};
  const Group some{group.name, group.words, std::move(astray)};
  TRY_ASSIGN(const Thoughts base, thoughts(some, as_asked_, computed_));
  TRY_ASSIGN(const Noise rounding, noise_of(some, as_asked_, base));
  const Closeness found = closeness(some.exchanges, base, rounding.margin);
  TRY_ASSIGN(bool explained, explain_as_heard(some, others, found, rounding));
  if (!explained && group.name == "long") {
    TRY_ASSIGN(explained, explain_by_cut(some, base, rounding));
  }
  if (explained) return {};
  if (group.name == "chat")
    fault(
        "template",
        fmt::format(
            "{} of {} conversations ({}) are not answered as the model would, the others are: they "
            "become another text than its chat template makes",
            some.exchanges.size(),
            group.exchanges.size(),
            some.exchanges.front().what));
  else
    fault("garbled",
          fmt::format("{} of {} texts ({}) are not continued as the model would, the others are",
                      some.exchanges.size(),
                      group.exchanges.size(),
                      some.exchanges.front().what));
  return {};
}

/// Each hypothesis is computed: the one that brings the reference nearest to the server is told,
/// if it brings it within rounding.
Result<bool> Interview::explain(const Group& group,
                                const std::vector<Heard>& others,
                                const Closeness& found,
                                const Noise& rounding) {
  if (not_as_before(group, "")) return true;
  // Numbers that are right beside tokens that are not the most probable ones.
  const bool numbers_fit = found.compared > 0 && found.kl_typical <= kl_bound(rounding);
  if (numbers_fit) {
    if (const auto end = reader_.end_passed(group.exchanges, judged_thoughts_.back())) {
      fault("eos", fmt::format("goes on behind {}, which ends an answer of this model", *end));
      return true;
    }
    // Of one that agrees with itself at the places in question, the numbers are wrong just there.
    if (!fits_itself(found)) {
      fault("temperature",
            fmt::format("at temperature 0 it writes {} of {} tokens that its own numbers hold less "
                        "probable than others: it samples, or penalises without being asked",
                        found.against_itself,
                        found.tokens));
      return true;
    }
  }
  TRY_ASSIGN(const bool explained, explain_as_heard(group, others, found, rounding));
  if (explained) return true;
  if (group.name == "long") {
    TRY_ASSIGN(const bool cut, explain_by_cut(group, judged_thoughts_.back(), rounding));
    if (cut) return true;
    // From some place on.
    if (const std::optional<int64_t> from = reader_.garbled_from(
            group.exchanges, judged_thoughts_.back(), kl_bound(rounding), rounding.margin)) {
      fault("garbled",
            fmt::format("right up to about token {} of a text, and wrong behind", *from));
      return true;
    }
  }
  // As far away as rougher weights are?
  TRY_ASSIGN(const Thoughts base, thoughts(group, as_asked_, computed_));
  for (const WeightCodes codes : {WeightCodes::kInt8, WeightCodes::kInt4}) {
    if (rounded_ && bits_of(*rounded_) <= bits_of(codes)) continue;
    Variant v = computed_;
    v.codes = codes;
    const Result<Thoughts> rough = thoughts(group, as_asked_, v);
    if (!rough) {  // weights that are codes already
      report_.notes.push_back(rough.error().message);
      break;
    }
    const Noise n = noise(group.exchanges, base, *rough);
    const Closeness c = closeness(group.exchanges, base, n.margin);
    if (!fits(c, n)) continue;
    // Of tokens alone: such weights do not choose many more others, and none of use most.
    if (found.compared == 0 &&
        (found.other > 2 * others_of(base, *rough) + 3 || 2 * found.other > found.tokens))
      continue;
    TRY_ASSIGN(const bool excluded, seen_elsewhere(codes));
    if (excluded) continue;
    fault("quantised",
          found.compared > 0
              ? fmt::format(
                    "as far from the model ({:.2g} nats) as weights of about {} bits are "
                    "({:.2g}), where rounding explains {:.2g}: rougher weights than it says, or "
                    "a model that was trained further",
                    found.kl_typical,
                    bits_of(codes),
                    n.kl,
                    kl_bound(rounding))
              : fmt::format(
                    "{} of {} tokens are others than the model's, as with weights of about {} "
                    "bits",
                    found.wrong,
                    found.tokens,
                    bits_of(codes)));
    rounded_ = codes;
    return true;
  }
  if (group.name == "chat" && !at_fault() && client_.completes()) {
    fault("template",
          "texts are continued as the model would, conversations are not: they become another text "
          "than its chat template makes");
    return true;
  }
  if (group.name == "long" && !at_fault()) {
    fault("garbled", "short texts are continued as the model would, long ones are not");
    return true;
  }
  if (at_fault()) return false;  // what was found already may be the reason
  const std::string apart =
      found.compared > 0 && !numbers_fit
          ? fmt::format("{:.2g} nats from this one where rounding explains {:.2g}",
                        found.kl_typical,
                        kl_bound(rounding))
          : fmt::format("{} of {} tokens are not this one's", found.wrong, found.tokens);
  fault("model",
        fmt::format("another model{}: {}; nothing else that was tried explains it",
                    group.name == "chat" ? ", or a template that is not known (there are only "
                                           "conversations to tell by)"
                                         : "",
                    apart));
  numbers_mean_nothing_ = true;
  return false;
}

/// Whether such weights would have been seen in a group that is within rounding.
Result<bool> Interview::seen_elsewhere(WeightCodes codes) {
  Variant v = computed_;
  v.codes = codes;
  for (size_t i = 0; i < judged_.size(); ++i) {
    const ServerGroup& g = report_.groups[i];
    if (!g.within || g.closeness.compared == 0) continue;
    TRY_ASSIGN(const Thoughts rough, thoughts(judged_[i], as_asked_, v));
    if (noise(judged_[i].exchanges, judged_thoughts_[i], rough).kl > g.bound) return true;
  }
  return false;
}

/// Whether one of the hypotheses brings the reference within rounding of the server; the nearest is told.
Result<bool> Interview::explain_as_heard(const Group& group,
                                         const std::vector<Heard>& others,
                                         const Closeness& found,
                                         const Noise& rounding) {
  std::vector<Hypothesis> hypotheses;
  for (const Heard& h : others) hypotheses.push_back({h.fault, h.words, &h, computed_});
  if (computed_ == Variant{})
    for (auto& [words, variant] : reference_.other_rope())
      hypotheses.push_back({"rope", words, &as_asked_, variant});
  const Hypothesis* best = nullptr;
  Closeness nearest = found;
  const auto nearer = [&](const Closeness& a, const Closeness& b) {
    return a.compared > 0 ? a.kl_typical < b.kl_typical
                          : std::pair(a.wrong, -a.log_chance) < std::pair(b.wrong, -b.log_chance);
  };
  for (const Hypothesis& h : hypotheses) {
    say(fmt::format("{}: would it explain that {}?", group.words, h.words));
    TRY_ASSIGN(const Thoughts t, thoughts(group, *h.heard, h.variant));
    const Closeness c = closeness(group.exchanges, t, rounding.margin);
    // Of fewer than half of the places nothing is concluded.
    if (2 * c.compared < found.compared || 2 * c.tokens < found.tokens) continue;
    if (!nearer(c, nearest)) continue;
    nearest = c;
    best = &h;
  }
  if (best == nullptr || !fits(nearest, rounding)) return false;
  fault(best->fault, best->words);
  if (best->fault == "rope") computed_ = best->variant;
  return true;
}

/// Whether texts are cut, at a length that is not known: sought with the shortest one that is not
/// answered rightly, first roughly, since a few words more or less of a long text change little, then
/// exactly.
Result<bool> Interview::explain_by_cut(const Group& group,
                                       const Thoughts& base,
                                       const Noise& rounding) {
  const Exchange* shortest = nullptr;
  for (size_t e = 0; e < group.exchanges.size(); ++e) {
    const auto one = std::span(group.exchanges).subspan(e, 1);
    const Closeness c = closeness(one, std::span(base).subspan(e, 1), rounding.margin);
    const Exchange& exchange = group.exchanges[e];
    if (!fits(c, rounding) && (shortest == nullptr || exchange.prompt < shortest->prompt))
      shortest = &exchange;
  }
  if (shortest == nullptr) return false;
  Group one{"", "", {*shortest}};
  std::erase_if(one.exchanges[0].seen, [&](const Seen& s) { return s.at < shortest->prompt; });
  for (const CutText& kind : kCuts) {
    if (kind.begins && !reference_.texts().begins) continue;
    const int64_t longest = shortest->prompt - 1, step = std::max<int64_t>(1, longest / 32);
    int64_t best = 0;
    double nearest = INFINITY;
    const auto try_from_to = [&](int64_t from, int64_t to, int64_t by) -> Result<void> {
      for (int64_t n = std::max<int64_t>(from, 2); n <= std::min(to, longest); n += by) {
        TRY_ASSIGN(const Thoughts t, thoughts(one, cut_to(kind, n), computed_));
        const Closeness c = closeness(one.exchanges, t, rounding.margin);
        const double distance = c.compared > 0 ? c.kl_typical : -c.log_chance;
        if (distance >= nearest) continue;
        nearest = distance;
        best = n;
      }
      return {};
    };
    say(fmt::format("{}: is {}?", group.words, kind.words));
    TRY(try_from_to(step, longest, step));
    TRY(try_from_to(best - step, best + step, 1));
    const Heard heard = cut_to(kind, best);
    TRY_ASSIGN(const Thoughts t, thoughts(group, heard, computed_));
    if (!fits(closeness(group.exchanges, t, rounding.margin), rounding)) continue;
    fault(heard.fault, heard.words);
    return true;
  }
  return false;
}

std::vector<Heard> Interview::other_begins() const {
  const ModelTexts& texts = reference_.texts();
  std::vector<Heard> out;
  if (!texts.bos) return out;
  const int32_t bos = *texts.bos;
  const auto add = [&](const char* fault_name, const char* words, int more) {
    out.push_back({fault_name, words, [bos, more](const Exchange& e) {
                     std::vector<int32_t> p = prompt_of(e);
                     const bool begins = !p.empty() && p.front() == bos;
                     if (more < 0) return begins ? std::vector(p.begin() + 1, p.end()) : p;
                     p.insert(p.begin(), bos);
                     return p;
                   }});
  };
  add("bos-lost", "the begin token before a text is missing", -1);
  add("bos-doubled", "a begin token too many stands before a text", 1);
  return out;
}

Heard Interview::cut_to(const CutText& kind, int64_t n) {
  return {"context-cut",
          fmt::format("of a long text only the {} {} tokens are read", kind.part, n),
          [kind, n](const Exchange& e) {
            const std::vector<int32_t> p = prompt_of(e);
            if (std::ssize(p) <= n) return p;
            if (kind.first) return std::vector(p.begin(), p.begin() + n);
            std::vector<int32_t> cut(p.end() - n + (kind.begins ? 1 : 0), p.end());
            if (kind.begins) cut.insert(cut.begin(), p.front());
            return cut;
          }};
}

/// By the server's own count of a text's tokens, if that is not ours.
std::vector<Heard> Interview::cut_texts(const Group& group) const {
  std::vector<Heard> out = other_begins();
  for (const Exchange& e : group.exchanges)
    if (const auto it = counted_apart_.find(e.what);
        it != counted_apart_.end() && it->second < -1 && e.prompt + it->second > 1)
      for (const CutText& kind : kCuts)
        if (!kind.begins || reference_.texts().begins)
          out.push_back(cut_to(kind, e.prompt + it->second));
  return out;
}

/// Chat as other models are used to it.
std::vector<Heard> Interview::other_templates() const {
  std::vector<Heard> out = other_begins();
  for (const OtherTemplate& other : kOtherTemplates)
    out.push_back(
        {"template",
         fmt::format("conversations are answered as if they had become {}", other.words),
         [this, &other](const Exchange& e) { return chat_otherwise(reference_, other, e.what); }});
  return out;
}

/// Where the server says that the model ended an answer, the reference must agree.
Result<void> Interview::check_endings(const Group& group, const Noise& rounding) {
  for (const Exchange& e : group.exchanges) {
    if (!e.stopped || reference_.texts().eos.empty()) continue;
    const Question q{.tokens = e.text, .rows = {{std::ssize(e.text) - 1, reference_.texts().eos}}};
    TRY_ASSIGN(const auto answers, reference_.ask(computed_, {&q, 1}));
    const Thought& t = answers.front().front();
    const double end = *std::max_element(t.log_probs.begin(), t.log_probs.end());
    if (t.best_log_prob - end > rounding.margin)
      fault("eos",
            fmt::format("ends an answer after {} tokens where the model goes on (its end has "
                        "probability {:.2g})",
                        std::ssize(e.text) - e.prompt,
                        math::exp(end)));
  }
  return {};
}

/// Texts to continue, given as text and, if the server takes them, others as ids: a text that was
/// asked before might come from a cache.
Result<void> Interview::check_texts() {
  if (!client_.completes()) {
    report_.notes.push_back("it has no /v1/completions: all that it is asked are conversations");
    for (TextQuestion& q : text_questions(reference_))
      if (!q.text.empty()) texts_.push_back(std::move(q));
    return compare_tokenizers();
  }
  Group ids{"ids", "token ids to continue", {}}, text{"text", "texts to continue", {}};
  std::vector<TextQuestion> by_ids;
  for (TextQuestion& q : text_questions(reference_))
    (q.text.empty() ? by_ids : texts_).push_back(std::move(q));
  for (const int64_t tokens : {24, 40, 56})
    if (tokens + kAnswerTokens < positions()) by_ids.push_back(long_question(reference_, tokens));
  if (!client_.takes_ids()) by_ids.clear();
  for (const TextQuestion& q : by_ids) {
    say(fmt::format("asking: {}, as ids", q.what));
    const Ask how{.prompt = q.ids, .tokens = kAnswerTokens, .prompt_log_probs = true};
    TRY_ASSIGN(Exchange e, ask(q, how, "ids"));
    ids.exchanges.push_back(std::move(e));
  }
  for (const TextQuestion& q : texts_) {
    say(fmt::format("asking: {}", q.what));
    const Ask how{.prompt = q.text, .tokens = kAnswerTokens, .prompt_log_probs = true};
    TRY_ASSIGN(Exchange e, ask(q, how, "text"));
    text.exchanges.push_back(std::move(e));
  }
  short_ = texts_;
  TRY(judge(ids, {}));
  TRY(compare_tokenizers());
  return judge(text, other_begins());
}

/// Whether the server cuts texts into the same tokens: by its own count, by its tokens where it tells
/// them.
Result<void> Interview::compare_tokenizers() {
  const auto differs = [&](const std::string& words) {
    fault("tokenizer", words);
    numbers_mean_nothing_ = true;
  };
  std::map<int64_t, int64_t> apart;  // by how many tokens, how often
  std::string first;
  for (const TextQuestion& q : texts_) {
    const auto it = counted_apart_.find(q.what);
    if (it == counted_apart_.end()) continue;
    if (it->second != 0 && first.empty())
      first = fmt::format("{}: {} tokens, {} of this model",
                          q.what,
                          std::ssize(q.ids) + it->second,
                          std::ssize(q.ids));
    ++apart[it->second];
  }
  const bool begins_otherwise =
      apart.size() == 1 && std::abs(apart.begin()->first) == 1 && reference_.texts().bos;
  if (begins_otherwise) {
    const bool lost = apart.begin()->first < 0;
    fault(lost ? "bos-lost" : "bos-doubled",
          lost ? "the begin token before a text is missing: each has one token less than it should"
               : "a begin token too many stands before a text: each has one token more than it "
                 "should");
    return {};
  }
  if (!first.empty()) {
    differs("cuts texts into other tokens: " + first);
    return {};
  }
  for (const TextQuestion& q : texts_)
    if (const auto it = read_apart_.find(q.what); it != read_apart_.end()) {
      differs(fmt::format("reads {} as other tokens: {}", q.what, it->second));
      return {};
    }
  for (const TextQuestion& q : texts_) {
    const Result<std::optional<std::vector<int32_t>>> tokens = client_.tokens_of(q.text);
    if (!tokens) {
      if (!unanswered(tokens.error())) return tl::unexpected(tokens.error());
      report_.notes.push_back(
          fmt::format("the tokens of {} were not told: {}", q.what, tokens.error().message));
      break;
    }
    if (!*tokens) break;
    tokens_told_ = true;
    if (const auto words = reader_.tokens_differ(q.ids, **tokens)) {
      differs(fmt::format("cuts {} into other tokens: {}", q.what, *words));
      return {};
    }
  }
  if (const auto words = reader_.echo_differs())
    differs("repeats prompts in other tokens: " + *words);
  if (apart.empty() && !tokens_told_)
    not_tried({"tokenizer"}, "it neither counts the tokens of a text alone nor tells them");
  return {};
}

Result<void> Interview::check_chat() {
  if (!client_.chats()) {
    not_tried({"template"}, "it has no /v1/chat/completions");
    return {};
  }
  Group group{"chat", "conversations", {}};
  for (const Conversation& c : kConversations) {
    Result<TextQuestion> q = conversation_question(reference_, c.what, c.messages);
    if (!q) {
      // A model without a template, or one that refuses a system message: it is not for this.
      report_.notes.push_back("conversation not asked: " + q.error().message);
      continue;
    }
    if (std::ssize(q->ids) + kChatTokens > positions()) continue;
    say(fmt::format("asking: {}", q->what));
    TRY_ASSIGN(Exchange e, ask(*q, asking(*q, {.prompt = {}, .tokens = kChatTokens}), "chat"));
    group.exchanges.push_back(std::move(e));
    if (!client_.completes()) short_.push_back(std::move(*q));
  }
  if (group.exchanges.empty())
    not_tried({"template"}, "none of the conversations can be asked of this model");
  TRY(judge(group, other_templates()));
  TRY(check_shown(group));
  // A server that counts otherwise and yet answers right only counts otherwise.
  const auto of_chat = std::find_if(report_.groups.begin(),
                                    report_.groups.end(),
                                    [](const ServerGroup& g) { return g.name == "chat"; });
  if (of_chat == report_.groups.end() || of_chat->closeness.compared > 0 ||
      (of_chat->closeness.tokens > 0 && of_chat->closeness.wrong == 0))
    return {};
  for (const Exchange& e : group.exchanges)
    if (const auto it = counted_apart_.find(e.what); it != counted_apart_.end() && it->second != 0)
      fault("template",
            fmt::format("{} becomes {} tokens, by this model's chat template {}",
                        e.what,
                        e.prompt + it->second,
                        e.prompt));
  return {};
}

/// An answer of which nothing is shown must be one that the model ends at once.
Result<void> Interview::check_shown(const Group& group) {
  constexpr double kEndMin = 0.01;
  for (const Exchange& e : group.exchanges) {
    if (!e.unshown) continue;
    bool goes_on = std::ssize(e.text) > e.prompt;  // it tells the tokens all the same
    if (!goes_on) {
      const Question q{.tokens = e.text,
                       .rows = {{std::ssize(e.text) - 1, reference_.texts().eos}}};
      TRY_ASSIGN(const auto answers, reference_.ask(computed_, {&q, 1}));
      const Thought& t = answers.front().front();
      goes_on = reader_.has_words({&t.best, 1}) &&
                std::all_of(t.log_probs.begin(), t.log_probs.end(), [](double end) {
                  return end < math::log(kEndMin);
                });
    }
    if (goes_on)
      fault("empty",
            fmt::format("shows nothing of its answer to {}, which the model does not end there: "
                        "what it writes is lost, to a parser of thoughts or calls perhaps",
                        e.what));
  }
  return {};
}

/// Long texts, each with words of its own, so that no cache helps: what fails there only is what a
/// page of documents would meet.
Result<void> Interview::check_long() {
  if (numbers_mean_nothing_) return {};
  Group group{"long", "long texts to continue", {}};
  const int64_t longest = std::min(options_.positions, positions()) - kAnswerTokens;
  for (const int64_t part : {8, 4, 2, 1}) {
    const int64_t tokens = longest / part;
    if (tokens < 24) continue;
    const Result<TextQuestion> text = long_text(tokens);
    if (!text) break;
    const TextQuestion& q = *text;
    if (std::ssize(q.ids) + kAnswerTokens > positions()) continue;
    say(fmt::format("asking: {}", q.what));
    const Result<Exchange> e =
        ask(q,
            asking(q, {.prompt = {}, .tokens = kAnswerTokens, .prompt_log_probs = part == 1}),
            "long");
    if (!e && !unanswered(e.error())) return tl::unexpected(e.error());
    if (!e) {
      report_.notes.push_back(fmt::format(
          "a text of {} tokens was not answered: {}", std::ssize(q.ids), e.error().message));
      break;
    }
    group.exchanges.push_back(*e);
    longest_ = tokens;
  }
  if (group.exchanges.empty())
    not_tried({"context-cut", "garbled"}, "no long text could be asked");
  else
    ++tried_;
  return judge(group, cut_texts(group));
}

/// Of the group that was judged last, the questions whose answers have a token that is not the model's by
/// more than rounding, although the first time they had none. What has no first time is not among them.
std::vector<std::string> Interview::newly_wrong() const {
  const auto wrong = [&](size_t group, size_t e, double margin) {
    return closeness(std::span(judged_[group].exchanges).subspan(e, 1),
                     std::span(judged_thoughts_[group]).subspan(e, 1),
                     margin)
               .wrong > 0;
  };
  std::vector<std::string> out;
  const size_t last = judged_.size() - 1;
  for (size_t e = 0; e < judged_[last].exchanges.size(); ++e) {
    const std::string& what = judged_[last].exchanges[e].what;
    bool asked_before = false, newly = true;
    for (size_t g = 0; g < last; ++g) {
      if (judged_[g].name == "again" || judged_[g].name == "crowd") continue;
      // Groups have other places, and other margins by them: what is right by one is not wrong by the other.
      const double margin = std::max(judged_noise_[g].margin, judged_noise_[last].margin);
      for (size_t i = 0; i < judged_[g].exchanges.size(); ++i) {
        if (judged_[g].exchanges[i].what != what) continue;
        asked_before = true;
        newly &= wrong(last, e, margin) && !wrong(g, i, margin);
      }
    }
    if (asked_before && newly) out.push_back(what);
  }
  return out;
}

/// Judges a round of questions that were asked before, all but the other ending of a long text, and answered
/// rightly. Where a single token is wrong now, the round is asked once more: what fails of one answer in many
/// does so again.
Result<void> Interview::judge_round(const std::function<Result<Group>()>& ask_round) {
  std::vector<std::string> before;
  int64_t answered = 0;
  for (const bool once_more : {false, true}) {
    TRY_ASSIGN(const Group round, ask_round());
    const size_t faults = report_.faults.size();
    if (round.exchanges.empty()) {
      not_judged(round);
      return {};
    }
    TRY(judge(round, {}));
    if (report_.faults.size() > faults || judged_.empty()) return {};
    const std::vector<std::string> wrong = newly_wrong();
    if (wrong.empty()) {
      if (once_more && std::ssize(round.exchanges) < answered)
        not_tried(
            {round.name == "again" ? "cache" : "load"},
            fmt::format("{}: the answer to {} had a token that is not the model's; asked all of "
                        "it once more, fewer were answered",
                        round.words,
                        before.front()));
      else if (once_more)
        report_.notes.push_back(
            fmt::format("{}: the answer to {} had a token that is not the model's; asked all of it "
                        "once more, none had",
                        round.words,
                        before.front()));
      return {};
    }
    if (once_more)
      not_as_before(
          round, fmt::format("{} of {} ({})", wrong.size(), round.exchanges.size(), wrong.front()));
    before = wrong;
    answered = std::ssize(round.exchanges);
  }
  return {};
}

/// Adds the answer, if there is one, to what is asked again.
Result<void> Interview::ask_into(Group& again, const TextQuestion& q) {
  Result<Exchange> e = ask(q, asking(q, {.prompt = {}, .tokens = kAnswerTokens}), again.name);
  if (e)
    again.exchanges.push_back(std::move(*e));
  else if (unanswered(e.error()))
    report_.notes.push_back(
        fmt::format("asked once more, {} was not answered: {}", q.what, e.error().message));
  else
    return tl::unexpected(e.error());
  return {};
}

Result<Group> Interview::ask_again() {
  Group again{"again", "the same once more", {}};
  for (const TextQuestion& q : short_) {
    say(fmt::format("asking again: {}", q.what));
    TRY(ask_into(again, q));
  }
  if (longest_ == 0 || !right("long")) return again;
  // Where a text with its own log-probabilities is not kept, the second time keeps it: the third one, with
  // another ending, and the fourth find it.
  for (const bool other_ending : {false, true, false}) {
    TRY_ASSIGN(const TextQuestion q, long_text(longest_, other_ending));
    if (std::ssize(q.ids) + kAnswerTokens > positions()) continue;
    say(fmt::format("asking again: {}", q.what));
    const size_t before = again.exchanges.size();
    TRY(ask_into(again, q));
    if (again.exchanges.size() > before)
      longest_again_ = std::max(longest_again_, std::ssize(q.ids));
  }
  return again;
}

Result<Group> Interview::ask_crowd() {
  Group crowd{"crowd", "among other requests", {}};
  say("asking all of it at the same time");
  std::vector<Ask> asks;
  // Where there are only a few, each several times: one may be answered before the next one comes.
  const size_t crowd_size = std::max<size_t>(short_.size(), kCrowd);
  for (size_t i = 0; i < crowd_size; ++i)
    asks.push_back(asking(short_[i % short_.size()], {.prompt = {}, .tokens = kAnswerTokens}));
  std::vector<Result<ServerAnswer>> answers = client_.ask_together(asks);
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i]) {
      if (!unanswered(answers[i].error())) return tl::unexpected(answers[i].error());
      report_.notes.push_back("among others a request was not answered: " +
                              answers[i].error().message);
      continue;
    }
    TRY_ASSIGN(Exchange e,
               exchange_of(short_[i % short_.size()], asks[i], std::move(*answers[i]), "crowd"));
    crowd.exchanges.push_back(std::move(e));
  }
  return crowd;
}

/// The same questions once more, and all together with others.
Result<void> Interview::check_again_and_crowd() {
  if (numbers_mean_nothing_) return {};
  if (short_.empty()) {
    not_tried({"cache", "load"}, "no short text could be asked");
    return {};
  }
  // What was found wrong of single questions is not the cache's fault.
  if (!short_ones_right()) return {};
  ++tried_;
  TRY(judge_round([&] { return ask_again(); }));
  if (at_fault()) return {};
  if (cached_ == 0)
    not_tried({"cache"}, "it says that of what came again it had kept nothing (cached_tokens)");
  else if (!cached_ && longest_again_ < kSomeBlocks)
    not_tried({"cache"},
              fmt::format("no text of {} tokens was asked again, and caches keep whole blocks",
                          kSomeBlocks));
  return judge_round([&] { return ask_crowd(); });
}

/// Temperature and seed: what is drawn twice with one seed is equal, what is drawn with several is
/// not, and all of it is as probable as the model's own distribution lets expect.
Result<void> Interview::check_sampling() {
  if (numbers_mean_nothing_) return {};
  if (short_.empty()) {
    not_tried({"seed", "temperature"}, "no short text could be asked");
    return {};
  }
  const TextQuestion& q = short_.front();
  say("asking with seeds");
  const auto draw = [&](const TextQuestion& of,
                        uint64_t seed) -> Result<std::pair<std::string, Exchange>> {
    TRY_ASSIGN(ServerAnswer answer,
               client_.ask(asking(
                   of, {.prompt = {}, .tokens = kSampledTokens, .temperature = 1, .seed = seed})));
    std::string text = answer.reasoning + answer.text;
    Exchange e = reader_.read(of.ids, answer, false);
    return std::pair(std::move(text), std::move(e));
  };
  const char* const with_seed = "a question with a seed";
  std::vector<std::pair<std::string, Exchange>> same;
  while (same.size() < 2 || (same.size() == 2 && same[0].first != same[1].first)) {
    auto one = draw(q, 7);
    if (!one) return not_answered({"seed", "temperature"}, with_seed, one.error());
    same.push_back(std::move(*one));
  }
  ++tried_;
  const auto& first = same[0];
  bool all_equal = same.size() == 2;
  if (!all_equal) {
    if (same[2].first != first.first && same[2].first != same[1].first)
      fault("seed", "three requests with the same seed get three answers");
    else
      report_.notes.push_back(
          "of three requests with the same seed one got another answer: near ties that fall "
          "otherwise, or a seed that is not always honoured");
  }
  Group others{"", "", {}};
  for (const uint64_t seed : {8, 9}) {
    auto other = draw(q, seed);
    if (!other && all_equal) return not_answered({"seed", "temperature"}, with_seed, other.error());
    if (!other) return not_answered({"temperature"}, with_seed, other.error());
    all_equal &= other->first == first.first;
    others.exchanges.push_back(std::move(other->second));
  }
  if (!short_ones_right()) return {};  // probabilities that are not the model's
  TRY_ASSIGN(Drawn drawn, drawn_of({"", "", {first.second}}));
  const double of_first = drawn.sum;
  // The same answer again tells nothing more.
  if (!all_equal) {
    TRY_ASSIGN(const Drawn more, drawn_of(others));
    drawn += more;
  }
  if (drawn.tokens == 0) {
    not_tried({"temperature"}, "of what it draws it tells no tokens");
    if (all_equal)
      not_tried({"seed"}, "three seeds get the same answer, of which it tells no tokens");
    return {};
  }
  if (all_equal && of_first < math::log(kChanceMax)) {
    const Result<ServerAnswer> greedy =
        client_.ask(asking(q, {.prompt = {}, .tokens = kSampledTokens}));
    if (!greedy && !unanswered(greedy.error())) return tl::unexpected(greedy.error());
    // Without it, what is said of the seeds is true all the same.
    if (!greedy)
      report_.notes.push_back("whether it draws at all was not answered: " +
                              greedy.error().message);
    if (greedy && greedy->reasoning + greedy->text == first.first)
      fault("temperature",
            "at temperature 1 it writes the most probable tokens, whatever the seed");
    else
      fault("seed", "different seeds get the same answer");
    return {};
  }
  if (all_equal)
    not_tried({"seed"},
              "three seeds get the same answer, which is so short or so probable that chance may "
              "be the reason");
  return check_temperature(draw, drawn, all_equal);
}

/// How probable what was drawn is, beside how probable it may be expected to be: of more and more answers, until
/// a server that takes another temperature for 1 would be seen for certain.
Result<void> Interview::check_temperature(const Draw& draw, Drawn drawn, bool all_equal) {
  // A text that is cut into tokens afterwards is cut into more probable ones than were drawn, or less.
  const bool tokens_told = client_.gives_log_probs(!client_.completes());
  uint64_t seed = 10;
  bool answers = true;
  for (int i = 0; i < kDraws && tokens_told && !all_equal && !drawn.enough() && answers;
       i += kDrawsAtOnce) {
    say("asking with more seeds");
    Group more{"", "", {}};
    for (int k = 0; k < kDrawsAtOnce && answers; ++k, ++seed) {
      auto another = draw(short_[seed % short_.size()], seed);
      answers = another.has_value();
      if (answers)
        more.exchanges.push_back(std::move(another->second));
      else if (unanswered(another.error()))  // what was drawn is judged
        report_.notes.push_back("asked to draw more, it did not answer: " +
                                another.error().message);
      else
        return tl::unexpected(another.error());
    }
    TRY_ASSIGN(const Drawn of_more, drawn_of(more));
    drawn += of_more;
  }
  const double deviations = drawn.deviations(drawn.sum);
  // What is drawn from weights that are off by so much is less probable by about as much.
  double off = 0;
  for (const Noise& n : judged_noise_) off = std::max(off, kl_bound(n));
  const double of_rounding =
      drawn.deviations(drawn.expected + off * static_cast<double>(drawn.tokens));
  const bool hot = deviations < -kDeviations - of_rounding;
  const bool cold = deviations > kDeviations && !all_equal;
  const std::string how_probable =
      fmt::format("{:.2g} nats a token where {:.2g} are expected, {} tokens",
                  -drawn.sum / static_cast<double>(drawn.tokens),
                  -drawn.expected / static_cast<double>(drawn.tokens),
                  drawn.tokens);
  if (hot || (cold && client_.samples_plainly()))
    fault("temperature",
          fmt::format("what it draws at temperature 1 is {} probable than that: {}",
                      hot ? "less" : "more",
                      how_probable));
  else if (cold)
    not_tried({"temperature"},
              "what it draws at temperature 1 is more probable than that (" + how_probable +
                  "), but it refuses the fields that switch off limits of its own (top_k)");
  else if (!drawn.enough())
    not_tried({"temperature"},
              fmt::format("of {} tokens that it drew, a temperature of {} would be {:.2g} "
                          "deviations off, where {} are wanted",
                          drawn.tokens,
                          kCoolTemperature,
                          drawn.deviations(drawn.cool),
                          2 * kDeviations));
  else
    drawn_proof_ = fmt::format(
        "a temperature of {} where 1 is asked for: would have been seen (of {} drawn tokens, "
        "{:.2g} "
        "deviations off; these are {:.2g})",
        kCoolTemperature,
        drawn.tokens,
        drawn.deviations(drawn.cool),
        deviations);
  return {};
}

/// By the weights that the server says it has: of rougher ones the distribution is flatter.
Result<Drawn> Interview::drawn_of(const Group& group) {
  Variant v = computed_;
  v.codes = rounded_;
  TRY_ASSIGN(const Thoughts t, thoughts(group, as_asked_, v));
  Drawn d;
  for (size_t e = 0; e < t.size(); ++e)
    for (size_t i = 0; i < t[e].size(); ++i) {
      if (!t[e][i] || group.exchanges[e].seen[i].at < group.exchanges[e].prompt) continue;
      ++d.tokens;
      d.sum += t[e][i]->log_probs[0];
      d.expected += t[e][i]->mean_log_prob;
      d.cool += t[e][i]->cool_log_prob;
      d.variance += t[e][i]->variance;
    }
  return d;
}

/// Each end token, made far more probable than all others, must end the answer at once.
Result<void> Interview::check_ends() {
  if (short_.empty()) {
    not_tried({"eos"}, "no short text could be asked");
    return {};
  }
  say("asking for ends");
  const TextQuestion& q = short_.front();
  Ask how = asking(q, {.prompt = {}, .tokens = kAnswerTokens, .log_probs = false});
  const Result<ServerAnswer> plain = client_.ask(how);
  if (!plain) return not_answered({"eos"}, q.what, plain.error());
  for (const int32_t end : reference_.texts().eos) {
    how.favoured = end;
    const Result<ServerAnswer> answer = client_.ask(how);
    if (!answer && !unanswered(answer.error())) return tl::unexpected(answer.error());
    if (!answer || (answer->text == plain->text && answer->reasoning == plain->reasoning &&
                    answer->finish == plain->finish)) {
      not_tried({"eos"}, "it does not honour logit_bias, so that ends come as they will");
      return {};
    }
    ++tried_;
    if (answer->finish == "stop") continue;
    fault("eos",
          fmt::format("does not end an answer at token {} ({}), which ends one of this model",
                      end,
                      printable(reference_.tokenizer().token_bytes(end))));
  }
  return {};
}

/// A text that the model has no positions for is to be refused, and not cut.
Result<void> Interview::check_overlong() {
  constexpr int64_t kPositionsMax = 1 << 17;
  if (numbers_mean_nothing_) return {};
  if (positions() > kPositionsMax) {
    not_tried({"context-cut"},
              fmt::format("whether too long a text is answered: the model has {} positions, and "
                          "no text of more than {} is asked",
                          positions(),
                          kPositionsMax));
    return {};
  }
  say("asking too long a text");
  // Sentences that follow one another may become fewer tokens than they are alone.
  Result<TextQuestion> text = long_text(positions() + 64);
  for (int64_t more = 128; text && std::ssize(text->ids) <= positions(); more *= 2)
    text = long_text(positions() + more);
  if (!text) {
    not_tried({"context-cut"},
              "whether too long a text is answered: the model has no template for it");
    return {};
  }
  const TextQuestion& q = *text;
  const Result<ServerAnswer> answer =
      client_.ask(asking(q, {.prompt = {}, .tokens = 1, .log_probs = false}));
  ++tried_;
  if (!answer) {
    if (!unanswered(answer.error())) return tl::unexpected(answer.error());
    if (answer.error().code == Code::kTimeout)
      not_tried({"context-cut"}, "whether too long a text is answered: " + answer.error().message);
    return {};
  }
  fault("context-cut",
        fmt::format("answers a text of {} tokens, of which the model has room for {}, as if it had "
                    "read it",
                    std::ssize(q.ids),
                    positions()));
  return {};
}

Result<void> Interview::conclude() {
  double sum = 0;
  int64_t compared = 0;
  for (const ServerGroup& g : report_.groups) {
    const Closeness& c = g.closeness;
    sum += c.kl_mean * static_cast<double>(c.compared);
    compared += c.compared;
    report_.kl_max = std::max(report_.kl_max, c.kl_max);
    report_.compared_tokens += c.compared > 0 ? c.compared : c.tokens;
    report_.tokens += c.tokens;
    if (g.name != "again" && g.name != "crowd") report_.log_chance += c.log_chance;
  }
  if (compared > 0) report_.kl_mean = sum / static_cast<double>(compared);
  report_.requests = client_.requests();
  for (size_t i = 0; i < judged_.size(); ++i) {
    if (judged_[i].name == "again" || judged_[i].name == "crowd" || at_fault()) continue;
    // What would rougher weights have looked like, in the group that tells most?
    if (i > 0) break;
    for (const WeightCodes codes : {WeightCodes::kInt8, WeightCodes::kInt4}) {
      if (rounded_ && bits_of(*rounded_) <= bits_of(codes)) continue;
      say(fmt::format("what weights of {} bits would answer", bits_of(codes)));
      Variant v;
      v.codes = codes;
      const Result<Thoughts> rough = thoughts(judged_[i], as_asked_, v);
      if (!rough) break;
      const Noise n = noise(judged_[i].exchanges, judged_thoughts_[i], *rough);
      // Tokens that such weights would clearly have chosen otherwise.
      const Closeness c = closeness(judged_[i].exchanges, *rough, judged_noise_[i].margin);
      report_.excluded.push_back({fmt::format("weights of {} bits", bits_of(codes)),
                                  n.kl,
                                  report_.groups[i].closeness.compared > 0
                                      ? n.kl > report_.groups[i].bound
                                      : c.wrong > 0});
    }
  }
  const bool numbers = compared > 0;
  const double digits = -report_.log_chance / math::log(10.0);
  if (report_.compared_tokens > 0)
    report_.proof.push_back(
        numbers
            ? fmt::format("{} places compared by log-probabilities: {:.2g} nats apart on average, "
                          "{:.2g} at most",
                          compared,
                          report_.kl_mean,
                          report_.kl_max)
            : fmt::format("{} tokens compared, no log-probabilities", report_.tokens));
  if (report_.tokens > 0)
    report_.proof.push_back(
        fmt::format("the chance to draw the tokens of its answers from this very model at "
                    "temperature 1 is 1 in "
                    "10^{:.0f}; of another model that chooses the most probable tokens nothing is "
                    "known but that "
                    "it would have to agree at each of them",
                    digits));
  for (const Excluded& x : report_.excluded)
    report_.proof.push_back(
        fmt::format("{}: {} ({:.2g} nats from the model)",
                    x.words,
                    x.shown ? "would have been seen" : "would NOT have been seen",
                    x.kl));
  if (!drawn_proof_.empty()) report_.proof.push_back(drawn_proof_);
  std::sort(report_.not_tried.begin(), report_.not_tried.end());
  report_.not_tried.erase(std::unique(report_.not_tried.begin(), report_.not_tried.end()),
                          report_.not_tried.end());
  if (at_fault())
    report_.verdict = ServerVerdict::kDiffers;
  else if (tried_ == 0)
    report_.proof.push_back("beside single answers nothing could be tried");
  else if (numbers ? compared >= 32 : report_.log_chance < math::log(kChanceMax))
    report_.verdict = ServerVerdict::kSame;
  else
    report_.proof.push_back(
        numbers ? "too few places for a verdict"
                : "tokens that are this probable anyway prove nothing; a server that gives "
                  "log-probabilities can be judged by them");
  return {};
}

}  // namespace

const char* to_string(ServerVerdict verdict) {
  switch (verdict) {
    case ServerVerdict::kSame: return "same";
    case ServerVerdict::kDiffers: return "differs";
    case ServerVerdict::kNotProved: return "not proved";
  }
  return "";
}

Result<ServerReport> verify_server(const ServerOptions& options) {
  const auto say = [&](const std::string& text) {
    if (options.progress) options.progress(text);
  };
  TRY_ASSIGN(HttpClient http,
             HttpClient::open(options.address, {.timeout_ms = options.timeout_ms}));
  say("asking what the server can do");
  Patience patience(options.patience_s, [&](double wait_s) {
    say(fmt::format("the server has no time; asking again in {}", format_duration(wait_s)));
  });
  TRY_ASSIGN(ServerClient client,
             ServerClient::open(std::move(http), options.model, options.key, std::move(patience)));
  say("loading the reference");
  TRY_ASSIGN(Reference reference, Reference::open(options.directory));
  if (!options.public_key.empty()) {
    const auto* const dir = dynamic_cast<const ModelDir*>(&reference.source());
    TRY(check_signer(
        dir != nullptr ? dir->passport() : nullptr, options.public_key, options.directory));
  }
  return Interview(options, reference, client).run();
}

std::string to_json(const Status& why) {
  nlohmann::ordered_json j = nlohmann::ordered_json::parse(to_json(ServerReport()));
  j["error"] = why.message;
  return json_text(j);
}

std::string to_json(const ServerReport& r) {
  nlohmann::ordered_json j = {{"verdict", to_string(r.verdict)},
                              {"fault", nullptr},
                              {"compared_tokens", r.compared_tokens},
                              {"kl_mean", r.kl_mean},
                              {"kl_max", r.kl_max}};
  if (!r.faults.empty()) j["fault"] = r.faults.front().name;
  j["faults"] = nlohmann::ordered_json::array();
  for (const ServerFault& f : r.faults)
    j["faults"].push_back({{"name", f.name}, {"words", f.words}});
  j["not_tried"] = r.not_tried;
  j["evidence"] = r.evidence;
  j["requests"] = r.requests;
  return json_text(j);
}

}  // namespace ferry::verify
