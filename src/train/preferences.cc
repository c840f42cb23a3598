#include "train/preferences.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/alive.h"
#include "base/calendar.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/hash.h"
#include "data/permutation.h"
#include "train/model_setup.h"

namespace ferry {
namespace {

constexpr size_t kPairsAtOnce = 8;  // of passes that are no step's: a stop waits for so many

}  // namespace

/// Some pairs, ready to be run.
struct Preferences::Part {
  std::vector<size_t> numbers;  // of the pairs
  std::vector<size_t>
      answers;  // of each lesson, whose it is: 2 i, what pair i of these has chosen, 2 i + 1, rejected
  std::vector<LessonBatch> batches;

  /// Of each answer, without a reference: the sum over its tokens, in their order, rounded to what a checkpoint keeps
  /// of the reference's. So a model that is its reference differs from it by nothing.
  std::vector<AnswerLogProb> sums(const std::vector<std::vector<float>>& log_probs) const {
    std::vector<AnswerLogProb> all(2 * numbers.size(), AnswerLogProb{.tokens = 0});
    for (size_t l = 0; l < answers.size(); ++l) {
      for (const float p : log_probs[l]) all[answers[l]].policy += static_cast<double>(p);
      all[answers[l]].tokens += std::ssize(log_probs[l]);
    }
    for (AnswerLogProb& a : all) a.policy = static_cast<double>(static_cast<float>(a.policy));
    return all;
  }
};

Preferences::Preferences(const DpoSettings& dpo,
                         const TrainSettings& train,
                         std::vector<PreferencePair> pairs,
                         std::vector<PreferencePair> held_out)
    : loss_{.type = dpo_loss_type(dpo.loss_type),
            .beta = dpo.beta,
            .label_smoothing = dpo.label_smoothing,
            .rpo_alpha = dpo.rpo_alpha},
      pairs_per_step_(dpo.pairs_per_step),
      micro_batch_tokens_(train.micro_batch_tokens),
      seed_(static_cast<uint64_t>(train.seed)),
      mla_form_(mla_form_of(train)),
      pairs_(std::move(pairs)),
      held_out_(std::move(held_out)) {
  check(!pairs_.empty(), "preferences: no pairs");
  int64_t tokens = 0;
  for (const PreferencePair& p : pairs_) tokens += tokens_of(p);
  const double each = static_cast<double>(tokens) / static_cast<double>(pairs_.size());
  tokens_per_step_ = static_cast<int64_t>(std::ceil(each * static_cast<double>(pairs_per_step_)));
}

Result<Preferences> Preferences::read(const Settings& settings,
                                      const ModelTexts& texts,
                                      const std::string& directory,
                                      const std::function<void(const std::string&)>& say,
                                      const std::function<bool()>& go_on) {
  constexpr size_t kTold = 5;
  // A template that asks for the day is told this one: it is the same whenever the run goes on, and wherever.
  const std::optional<Moment> noon = noon_of(settings.dpo.date);
  check(noon.has_value(), "dpo.date {} was not checked", settings.dpo.date);
  bool dated = false;
  const auto read_from = [&](const std::string& path) -> Result<std::vector<PreferencePair>> {
    TRY_ASSIGN(PreferencePairs read,
               read_preference_pairs(path,
                                     texts,
                                     {.directory = directory,
                                      .tokens_max = settings.data.sequence_length,
                                      .bad_max = settings.dpo.skip_bad,
                                      .now = *noon,
                                      .go_on = go_on}));
    for (size_t i = 0; i < std::min(kTold, read.left_out.size()); ++i)
      say("left out   " + read.left_out[i]);
    if (read.left_out.size() > kTold)
      say(fmt::format("left out   {}: {} lines in all", path, read.left_out.size()));
    dated = dated || read.dated;
    return std::move(read.pairs);
  };
  TRY_ASSIGN(std::vector<PreferencePair> pairs, read_from(settings.dpo.pairs));
  std::vector<PreferencePair> held_out;
  if (!settings.dpo.held_out.empty()) {
    TRY_ASSIGN(held_out, read_from(settings.dpo.held_out));
  }
  for (const std::string& doubt :
       doubts_of(pairs, settings.dpo.pairs, held_out, settings.dpo.held_out))
    say("note       " + doubt);
  if (dated)
    say(fmt::format("note       the chat template asks for the date: it is told {} (dpo.date)",
                    settings.dpo.date));
  return Preferences(settings.dpo, settings.train, std::move(pairs), std::move(held_out));
}

std::string Preferences::fingerprint() const {
  Hasher hash;
  const auto add = [&](const void* data, size_t bytes) { hash.update(data, bytes); };
  const auto add_count = [&](uint64_t n) { add(&n, sizeof n); };
  for (const auto* set : {&pairs_, &held_out_}) {
    add_count(set->size());
    for (const PreferencePair& p : *set)
      for (const auto* side : {&p.chosen, &p.rejected}) {
        add_count(side->size());
        for (const text::Lesson& l : *side) {
          add_count(l.ids.size());
          add(l.ids.data(), l.ids.size() * sizeof(int32_t));
          const std::string learnt(l.learnt.begin(), l.learnt.end());
          add(learnt.data(), learnt.size());
        }
      }
  }
  return hash.hex();
}

int64_t Preferences::tokens() const {
  int64_t tokens = 0;
  for (const auto* set : {&pairs_, &held_out_})
    for (const PreferencePair& p : *set) tokens += tokens_of(p);
  return tokens;
}

Preferences::Part Preferences::part(std::vector<size_t> numbers) const {
  Part part{.numbers = std::move(numbers), .answers = {}, .batches = {}};
  std::vector<const text::Lesson*> lessons;
  for (size_t i = 0; i < part.numbers.size(); ++i) {
    const PreferencePair& p = pair(part.numbers[i]);
    for (const auto* side : {&p.chosen, &p.rejected})
      for (const text::Lesson& l : *side) {
        lessons.push_back(&l);
        part.answers.push_back(2 * i + (side == &p.rejected ? 1 : 0));
      }
  }
  part.batches = pack_lessons(lessons, micro_batch_tokens_);
  return part;
}

LessonScores Preferences::score(models::CausalLm& model,
                                const Part& part,
                                const std::function<void()>& alive) const {
  return score_lessons(
      model, part.batches, part.answers.size(), {.mla_form = mla_form_, .alive = [&] {
                                                   static_cast<void>(fault_point("dpo.score"));
                                                   alive();
                                                 }});
}

/// Of pairs [begin, end), in parts.
std::optional<std::vector<AnswerLogProb>> Preferences::scored(
    models::CausalLm& model,
    size_t begin,
    size_t end,
    const std::function<bool(int64_t)>& go_on) const {
  std::vector<AnswerLogProb> all;
  for (size_t next = begin; next < end; next += kPairsAtOnce) {
    if (!go_on(static_cast<int64_t>(next - begin))) return std::nullopt;
    std::vector<size_t> numbers;
    for (size_t n = next; n < std::min(end, next + kPairsAtOnce); ++n) numbers.push_back(n);
    const Part some = part(std::move(numbers));
    const std::vector<AnswerLogProb> sums =
        some.sums(score(model, some, [] { still_alive(); }).log_probs);
    all.insert(all.end(), sums.begin(), sums.end());
  }
  return all;
}

bool Preferences::add_reference(models::CausalLm& model,
                                std::vector<float>& log_probs,
                                const std::function<bool(int64_t)>& go_on) const {
  const size_t all = pairs_.size() + held_out_.size();
  check(log_probs.size() % 2 == 0 && log_probs.size() <= 2 * all,
        "preferences: {} log-probabilities of {} pairs",
        log_probs.size(),
        all);
  while (log_probs.size() < 2 * all) {
    const size_t next = log_probs.size() / 2, end = std::min(all, next + kPairsAtOnce);
    if (!go_on(static_cast<int64_t>(next))) return false;
    const auto answers = scored(model, next, end, [](int64_t) { return true; });
    for (const AnswerLogProb& a : *answers) log_probs.push_back(static_cast<float>(a.policy));
  }
  return true;
}

void Preferences::set_reference(const Tensor& log_probs) {
  reference_ = log_probs.to_f32();
  check(std::ssize(reference_) == answers(),
        "preferences: {} reference log-probabilities of {} answers",
        reference_.size(),
        answers());
}

DpoLoss Preferences::loss_of(std::span<const size_t> numbers,
                             std::vector<AnswerLogProb> answers) const {
  std::vector<PairLogProbs> pairs;
  for (size_t i = 0; i < numbers.size(); ++i) {
    for (const size_t a : {size_t{0}, size_t{1}})
      answers[2 * i + a].reference = static_cast<double>(reference_[2 * numbers[i] + a]);
    pairs.push_back({answers[2 * i], answers[2 * i + 1]});
  }
  return dpo_loss(pairs, loss_);
}

PreferenceStep Preferences::gradients(models::TrainableLm& model,
                                      TrainStep& step,
                                      int64_t position,
                                      const std::function<void()>& alive) const {
  const auto n = std::ssize(pairs_);
  std::vector<size_t> numbers;
  for (int64_t p = position; p < position + pairs_per_step_; ++p) {
    const data::Permutation order(
        static_cast<uint64_t>(n),
        Random(seed_, RandomPurpose::kShuffle, static_cast<uint64_t>(p / n)));
    numbers.push_back(order(static_cast<uint64_t>(p % n)));
  }
  Part part = this->part(std::move(numbers));
  const LessonScores now = score(model, part, alive);
  const DpoLoss loss = loss_of(part.numbers, part.sums(now.log_probs));
  std::vector<WeightedBatch> batches;
  for (LessonBatch& b : part.batches) {
    b.weigh([&](size_t lesson, size_t) {
      const size_t answer = part.answers[lesson];
      const DpoLoss::Weights& w = loss.weights[answer / 2];
      return answer % 2 == 0 ? w.chosen : w.rejected;
    });
    batches.push_back(b.weighted);
  }
  const WeightedGradients g = step.gradients(batches, [&](int64_t) { alive(); });
  PreferenceStep out{.of = g.of, .figures = loss.figures};
  out.of.loss = loss.loss;
  out.of.finite = g.of.finite && std::isfinite(loss.loss);
  std::vector<std::vector<float>> seen(part.answers.size());
  for (size_t b = 0; b < part.batches.size(); ++b)
    part.batches[b].take_log_probs(g.token_losses[b], seen);
  for (size_t l = 0; l < seen.size(); ++l)
    for (size_t t = 0; t < seen[l].size(); ++t) {
      ++out.compared;
      out.mismatches +=
          std::bit_cast<uint32_t>(seen[l][t]) != std::bit_cast<uint32_t>(now.log_probs[l][t]);
    }
  out.of.labels = out.compared;
  return out;
}

std::optional<DpoLoss> Preferences::evaluate(models::CausalLm& model,
                                             int64_t tokens_max,
                                             const std::function<bool(int64_t)>& go_on) const {
  std::vector<size_t> numbers;
  int64_t tokens = 0;
  for (size_t n = 0; n < held_out_.size(); ++n) {
    tokens += tokens_of(held_out_[n]);
    if (n > 0 && tokens > tokens_max) break;
    numbers.push_back(pairs_.size() + n);
  }
  if (numbers.empty()) return std::nullopt;
  auto answers = scored(model, numbers.front(), numbers.back() + 1, go_on);
  if (!answers) return std::nullopt;
  return loss_of(numbers, *std::move(answers));
}

}  // namespace ferry
