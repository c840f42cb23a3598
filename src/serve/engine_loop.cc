#include "serve/engine_loop.h"

#include <utility>

#include "base/clock.h"
#include "base/fault.h"
#include "engine/generate.h"

namespace ferry::serve {

Result<std::unique_ptr<EngineLoop>> EngineLoop::start(Load load, Listener listener) {
  auto loop = std::unique_ptr<EngineLoop>(new EngineLoop(std::move(listener)));
  EngineLoop* const it = loop.get();
  TRY_ASSIGN(loop->thread_,
             WorkThread::start([it] { return it->step(); },
                               [it](std::exception_ptr e) { it->listener_.failed(std::move(e)); }));
  loop->thread_->post([it, load = std::move(load)] { it->load(load); });
  return loop;
}

EngineLoop::~EngineLoop() { thread_.reset(); }

void EngineLoop::load(const Load& load) {
  Result<std::shared_ptr<const LoadedModel>> model = load();
  if (!model) return listener_.not_loaded(model.error());
  model_ = *std::move(model);
  engine_ = std::make_unique<engine::Engine>(*model_->model, model_->engine);
  listener_.loaded(model_);
  publish(false);
}

void EngineLoop::submit(QuestionId question, std::vector<engine::Request> requests) {
  thread_->post(
      [this, question, r = std::move(requests)]() mutable { take(question, std::move(r)); });
}

void EngineLoop::cancel(QuestionId question) {
  thread_->post([this, question] { drop(question, std::nullopt); });
}

void EngineLoop::cancel(QuestionId question, size_t answer) {
  thread_->post([this, question, answer] { drop(question, answer); });
}

EngineState EngineLoop::state() const {
  const std::lock_guard lock(state_mutex_);
  return state_;
}

void EngineLoop::take(QuestionId question, std::vector<engine::Request> requests) {
  const Result<std::vector<engine::RequestId>> ids = engine_->submit(std::move(requests));
  if (!ids)
    return listener_.news(
        {{.kind = EngineNews::Kind::kRefused, .question = question, .error = ids.error()}});
  for (size_t answer = 0; answer < ids->size(); ++answer) {
    asked_.emplace((*ids)[answer], std::pair{question, answer});
    requests_.emplace(std::pair{question, answer}, (*ids)[answer]);
  }
  listener_.news({{.kind = EngineNews::Kind::kAccepted, .question = question}});
}

void EngineLoop::drop(QuestionId question, std::optional<size_t> answer) {
  auto it = requests_.lower_bound({question, answer.value_or(0)});
  while (it != requests_.end() && it->first.first == question &&
         (!answer || it->first.second == *answer)) {
    engine_->cancel(it->second);
    asked_.erase(it->second);
    it = requests_.erase(it);
  }
  publish(!engine_->idle());
}

/// One pass, if there is anything to do.
bool EngineLoop::step() {
  if (engine_ == nullptr || engine_->idle()) return false;
  publish(true);
  const bool nothing = fault_point("serve.step") != 0;  // as if there were nothing that could run
  const double began_s = system_clock().monotonic_s();
  std::vector<engine::Progress> brought;
  if (!nothing) brought = engine::step_through_faults(*engine_);
  std::vector<EngineNews> all;
  for (engine::Progress& p : brought) {
    const auto it = asked_.find(p.id);
    if (it == asked_.end()) continue;
    const auto [question, answer] = it->second;
    if (p.finish != engine::Finish::kNone) {
      requests_.erase(it->second);
      asked_.erase(it);
    }
    all.push_back(
        {.question = question, .answer = answer, .progress = std::move(p), .began_s = began_s});
  }
  publish(!engine_->idle());
  if (!all.empty()) listener_.news(std::move(all));
  return !engine_->idle();
}

/// Steps alone are no progress: one that finds nothing to run, though requests wait, would be for ever.
void EngineLoop::publish(bool busy) {
  const std::lock_guard lock(state_mutex_);
  const bool progress = !state_.busy || engine_->counts().passes > state_.counts.passes;
  state_ = {.loaded = true,
            .busy = busy,
            .progress_s = progress ? system_clock().monotonic_s() : state_.progress_s,
            .running = engine_->running(),
            .waiting = engine_->waiting(),
            .cache_usage = engine_->cache_usage(),
            .counts = engine_->counts()};
}

}  // namespace ferry::serve
