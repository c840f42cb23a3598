// One request, from its prompt to its end, for who asks one at a time.
#pragma once

#include <functional>
#include <vector>

#include "engine/engine.h"

namespace ferry::engine {

/// step(), again where the device failed: what is underway begins anew, and nobody sees a difference.
/// Throws the DeviceError that comes three times in a row, and at once that memory is out.
std::vector<Progress> step_through_faults(Engine& engine);

struct Generated {
  std::vector<Token> prompt;      // Progress::prompt
  std::vector<int32_t> tokens;    // the end token excluded
  Finish finish = Finish::kNone;  // kNone: a callback stopped it
};

/// Calls on_token for each new token as it comes; generation stops when it returns false, at an end
/// token, or at the request's length. `on_pass`, if given, is called after each pass before the first
/// token, and ends it by returning false: then nothing is generated. The engine has no other request.
/// Errors: submit()'s, sample()'s.
Result<Generated> generate(Engine& engine,
                           Request request,
                           const std::function<bool(const Token&)>& on_token,
                           const std::function<bool()>& on_pass = nullptr);

}  // namespace ferry::engine
