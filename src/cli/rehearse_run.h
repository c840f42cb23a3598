// `ferry doctor --for RUN`: which calls a step of this run makes, of whatever it learns from and with the adapter
// that it trains, the scoring of held-out text, a long prefill and a decode; told without a model in memory.
#pragma once

#include <string>
#include <string_view>

#include "verify/rehearsal.h"

namespace ferry::cli {

/// `run`: a model directory, a TOML file of settings, or "v3", "v2-lite" (as DeepSeek published
/// them, with the default settings of training). `on`: a device's name, such as "cuda:1". Errors:
/// kNotFound, kInvalidInput, kCorrupt.
Result<doctor::RunCalls> rehearse_run(const std::string& run, std::string_view on);

}  // namespace ferry::cli
