#include "rl/mismatch.h"

#include <algorithm>
#include <cmath>

#include "base/alive.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/math.h"
#include "models/kv_cache.h"
#include "verify/call_judge.h"
#include "verify/recorder.h"

namespace ferry::rl {
namespace {

/// Judges each call, and keeps the first that is out of its bounds. After it, and when it is to stop, calls are let by.
class FirstParting final : public ops::Observer {
 public:
  FirstParting(const models::CausalLm& model, const std::function<bool()>& go_on)
      : go_on_(go_on),
        place_(model.device().name()),
        blocks_(static_cast<int>(model.blocks())),
        judge_([this](const std::string& property, const ops::CallFinding& f) {
          // Beside calls that leave their bounds the judge tells of outputs that lean, which a sound chip's may.
          if (doctor::of_an_element(property) && !found_)
            found_ = fmt::format("{} in {} on {}: {}",
                                 f.op,
                                 verify::name_of_layer(layer_, blocks_),
                                 place_,
                                 ops::describe(f));
        }) {}

  void before(const ops::OpCall& call) override {
    judging_ = !found_ && go_on_();
    if (judging_) judge_.before(call);
  }
  void after(const ops::OpCall& call) override {
    if (judging_) judge_.after(call);
    still_alive();
  }
  void layer(int number) override { layer_ = number; }
  const std::optional<std::string>& found() const { return found_; }

 private:
  const std::function<bool()>& go_on_;
  bool judging_ = false;  // the call that is under way
  std::string place_;
  int blocks_, layer_ = 0;
  std::optional<std::string> found_;
  doctor::CallJudge judge_;
};

}  // namespace

Mismatch mismatch_of(std::span<const std::span<const float>> drawn,
                     std::span<const std::vector<float>> trained,
                     double cap) {
  check(drawn.size() == trained.size(), "mismatch: {} answers", drawn.size());
  Mismatch m;
  int64_t tokens = 0, capped = 0;
  double sum = 0, worst = -1;
  for (size_t a = 0; a < drawn.size(); ++a) {
    check(drawn[a].size() == trained[a].size(), "mismatch: {} tokens", drawn[a].size());
    double own = 0;
    for (size_t t = 0; t < drawn[a].size(); ++t) {
      const double apart = static_cast<double>(trained[a][t]) - static_cast<double>(drawn[a][t]);
      const double ratio = math::exp(apart), larger = math::exp(std::abs(apart));
      own += ratio - apart - 1;
      if (!(larger <= m.ratio_max)) m.ratio_max = larger;
      capped += ratio > cap;
    }
    tokens += std::ssize(drawn[a]);
    sum += own;
    if (drawn[a].empty()) continue;
    own /= static_cast<double>(drawn[a].size());
    if (!(own <= worst) && !std::isnan(worst)) {  // a number that is none is worse than any other
      worst = own;
      m.worst = a;
    }
  }
  if (tokens == 0) return m;
  m.kl = sum / static_cast<double>(tokens);
  m.capped = static_cast<double>(capped) / static_cast<double>(tokens);
  if (std::isnan(m.kl)) m.ratio_max = m.kl;
  return m;
}

std::optional<std::string> first_parting(const models::CausalLm& model,
                                         const std::function<bool()>& go_on,
                                         const std::function<void()>& work) {
  FirstParting parting(model, go_on);
  const ops::Observing observing(parting);
  work();
  return parting.found();
}

Result<std::vector<Rollout>> answer_again(models::CausalLm& model,
                                          std::span<const RolloutRequest> requests,
                                          const ModelTexts& texts,
                                          const RolloutOptions& options,
                                          int64_t tokens) {
  if (fault_point("rl.answer_again") != 0) return fail(Code::kUnavailable, "a fault was injected");
  RolloutOptions few = options;
  few.generate.tokens_max = std::min(tokens, options.generate.tokens_max);
  int64_t pages = 0;
  for (const RolloutRequest& r : requests)
    pages += models::pages_for(std::ssize(r.prompt->ids) + few.generate.tokens_max) + 1;
  engine::Engine engine(
      model, {.cache_tokens = pages * models::kPageTokens, .running = std::ssize(requests)});
  return roll_out(engine, requests, texts, few);
}

}  // namespace ferry::rl
