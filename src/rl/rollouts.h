// Answers of a model to tasks: many at once by the engine, each a function of the weights, the prompt and
// its seed.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/calendar.h"
#include "checkpoint/model_texts.h"
#include "engine/engine.h"
#include "rl/tasks.h"

namespace ferry::rl {

struct TaskPrompt {
  std::vector<int32_t> ids;
  bool thinking = false;  // its text has opened the answer's thought
};

/// Texts are encoded as `ferry generate --prompt` does it, conversations by the model's chat template.
/// `directory` is the model's, for messages; `now` the time that a template which asks for it is told, so that the
/// prompts are the same whenever they are made. Errors: of render_chat, naming the task by its number.
Result<std::vector<TaskPrompt>> prompts_of(std::span<const Task> tasks,
                                           const ModelTexts& texts,
                                           const std::string& directory,
                                           const Moment& now);
/// Whether the template writes the first conversation otherwise on another day. `prompts`: of the tasks, at `now`.
bool are_dated(std::span<const Task> tasks,
               std::span<const TaskPrompt> prompts,
               const ModelTexts& texts,
               const Moment& now);

struct RolloutRequest {
  const TaskPrompt* prompt = nullptr;
  uint64_t seed = 0;
};

struct Rollout {
  std::vector<int32_t> tokens;                    // the end token, if it came, is the last one
  std::vector<float> log_probs;                   // of each under the model, if they were asked for
  engine::Finish finish = engine::Finish::kNone;  // kNone: a stop string came
  std::string text;                               // without the end token
};

struct RolloutOptions {
  engine::GenerateOptions generate;  // its seed is not used
  std::vector<std::string> stop;
  std::function<bool(int64_t done)> on_pass;  // after each pass of the model; false: give up
};

/// In the order of the requests. The engine has no other. Errors: of Engine::submit, and what an answer
/// failed of; kTimeout: on_pass gave up. Throws DeviceError.
Result<std::vector<Rollout>> roll_out(engine::Engine& engine,
                                      std::span<const RolloutRequest> requests,
                                      const ModelTexts& texts,
                                      const RolloutOptions& options);

}  // namespace ferry::rl
