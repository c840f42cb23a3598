// The engine on a thread of its own: it takes requests, steps while there are any, and tells what each
// pass brought. Nobody waits for it: everything travels in messages.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/work_thread.h"
#include "engine/engine.h"
#include "serve/loaded_model.h"

namespace ferry::serve {

/// One client's question; each of its answers is a request of the engine's.
using QuestionId = uint64_t;

/// What became of a question.
struct EngineNews {
  enum class Kind {
    kAccepted,  // all its requests wait for the engine
    kRefused,   // none of them does: see error
    kProgress,  // of one of its answers
  };
  Kind kind = Kind::kProgress;
  QuestionId question = 0;
  size_t answer = 0;
  engine::Progress progress = {};
  double began_s = 0;  // when the pass began that brought it (base/clock.h)
  Status error = {};
};

struct EngineState {
  bool loaded = false;
  bool busy = false;      // has work
  double progress_s = 0;  // when it last ended a pass, or got work (base/clock.h)
  int64_t running = 0, waiting = 0;
  double cache_usage = 0;  // of its pages, those in somebody's use
  engine::EngineCounts counts = {};
};

class EngineLoop {
 public:
  using Load = std::function<Result<std::shared_ptr<const LoadedModel>>()>;
  struct Listener {
    // All are called on the engine's thread, one after the other.
    std::function<void(std::shared_ptr<const LoadedModel>)> loaded;
    std::function<void(std::vector<EngineNews>)> news;  // of one pass, or of what was asked
    std::function<void(Status)> not_loaded;
    std::function<void(std::exception_ptr)> failed;  // it is over
  };

  /// Loads the model on the thread, then serves. Errors: kExhausted: no thread.
  static Result<std::unique_ptr<EngineLoop>> start(Load load, Listener listener);
  /// Waits for the pass that runs.
  ~EngineLoop();

  // Any thread:
  /// All of the requests, or none, are taken; news say which.
  void submit(QuestionId question, std::vector<engine::Request> requests);
  /// No news of it come any more, but for those that are on their way.
  void cancel(QuestionId question);
  void cancel(QuestionId question, size_t answer);
  EngineState state() const;

 private:
  explicit EngineLoop(Listener listener) : listener_(std::move(listener)) {}
  void load(const Load& load);
  bool step();
  void take(QuestionId question, std::vector<engine::Request> requests);
  void drop(QuestionId question, std::optional<size_t> answer);
  void publish(bool busy);

  Listener listener_;
  mutable std::mutex state_mutex_;
  EngineState state_;

  // The thread's own:
  std::shared_ptr<const LoadedModel> model_;
  std::unique_ptr<engine::Engine> engine_;
  std::map<engine::RequestId, std::pair<QuestionId, size_t>> asked_;
  std::map<std::pair<QuestionId, size_t>, engine::RequestId> requests_;

  std::unique_ptr<WorkThread> thread_;  // the last: it ends before what it uses
};

}  // namespace ferry::serve
