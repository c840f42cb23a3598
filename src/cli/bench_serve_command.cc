#include "cli/bench_serve_command.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/cpu_tier.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "device/cpu/cpu_device.h"
#include "engine/benchmark.h"

namespace ferry::cli {
namespace {

struct Arguments {
  OpenOptions open;
  engine::ServingLoad load;
};

Result<void> bench(Arguments& args) {
  args.open.tokenizer = false;
  TRY_ASSIGN(const OpenedModel m, open_model(args.open));
  const uint64_t loading_peak = memory_peak_bytes();  // before the bandwidth's half a gigabyte
  const int64_t positions = m.model->max_positions();
  if (args.load.prompt >= positions || args.load.context + args.load.steps + 72 > positions)
    return fail(Code::kInvalidInput,
                "bench-serve: the model has {} positions; ask for a shorter --prompt, or fewer "
                "--steps",
                positions);
  const engine::ServingSpeed s = engine::measure_serving(*m.model, args.load);
  nlohmann::ordered_json decode = nlohmann::ordered_json::object();
  for (const auto& [n, tokens_per_s] : s.decode_tokens_per_s)
    decode[std::to_string(n)] = tokens_per_s;
  nlohmann::ordered_json j = {{"prefill_tokens_per_s", s.prefill_tokens_per_s},
                              {"decode_tokens_per_s", decode},
                              {"weight_mb", s.weight_bytes / 1e6},
                              {"bandwidth_gb_s", s.bytes_per_s / 1e9}};
  // A multiply-add is two operations.
  if (s.peak.codes > 0)
    j["peak_tops"] = {{"int8", 2e-12 * s.peak.codes}, {"bf16", 2e-12 * s.peak.bf16}};
  // Of a mixture of experts a pass reads those that its tokens chose: how many is not counted.
  if (const auto alone = s.decode_tokens_per_s.find(1);
      alone != s.decode_tokens_per_s.end() && m.model->experts() == 0)
    j["of_bandwidth"] = alone->second * s.weight_bytes / s.bytes_per_s;
  j["loading_peak_mb"] = static_cast<double>(loading_peak) / 1e6;
  j["peak_mb"] = static_cast<double>(memory_peak_bytes()) / 1e6;
  j["tier"] = to_string(cpu_tier());
  j["threads"] = cpu_pool().threads();
  j["processor"] = processor_name();
  return print_json(j);
}

}  // namespace

void add_bench_serve_command(Command& program) {
  Command command = program.add("bench-serve", "How fast a model answers, on random prompts");
  const auto args = std::make_shared<Arguments>();
  add_open_options(command, args->open);
  command.option("--prompt", args->load.prompt, "tokens of the prompt that is timed")
      .within(int64_t{1}, int64_t{1} << 20)
      .shows_default();
  command.option("--context", args->load.context, "tokens before those that are decoded")
      .within(int64_t{1}, int64_t{1} << 20)
      .shows_default();
  command.option("--steps", args->load.steps, "tokens that each request decodes")
      .within(int64_t{1}, int64_t{1} << 20)
      .shows_default();
  command.option("--rounds", args->load.rounds, "of which the fastest counts")
      .within(int64_t{1}, int64_t{1000})
      .shows_default();
  command.runs([args] { return report(bench(*args)); });
}

}  // namespace ferry::cli
