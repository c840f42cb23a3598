#include "cli/bench_train_command.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "base/cpu_tier.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/output_file.h"
#include "train/benchmark.h"

namespace ferry::cli {
namespace {

struct Arguments {
  std::string config, write_config;
  int64_t steps = 5, warmup = 2;
};

Result<void> bench(const Arguments& args, const std::vector<std::string>& overrides) {
  TRY(check_output_path(args.write_config, OutputKind::kModelConfig));
  // The tokens are random: whatever is learnt from, nobody opens it, and nobody needs to give it.
  std::vector<std::string> all = {"--data.dir=none", "--dpo.pairs=", "--dpo.held_out="};
  all.insert(all.end(), overrides.begin(), overrides.end());
  TRY_ASSIGN(const Settings settings, read_settings(args.config, all));
  TRY_ASSIGN(const BenchmarkResult r, benchmark_training(settings, args.steps, args.warmup));
  if (!args.write_config.empty()) TRY(write_file_atomic(args.write_config, r.config_json));
  const nlohmann::ordered_json j = {{"tokens_per_s", r.tokens_per_s},
                                    {"mean_tokens_per_s", r.mean_tokens_per_s},
                                    {"best_tokens_per_s", r.best_tokens_per_s},
                                    {"mfu", r.mfu},
                                    {"peak_gflops", r.peak_gflops},
                                    {"peak_mb", r.peak_mb},
                                    {"live_mb", r.live_mb},
                                    {"parameters", r.parameters},
                                    {"tier", to_string(cpu_tier())},
                                    {"mla_form", settings.train.mla_form},
                                    {"mtp_steps", r.mtp_steps},
                                    {"tokens_per_step", settings.train.tokens_per_step},
                                    {"micro_batch_tokens", settings.train.micro_batch_tokens},
                                    {"sequence_length", settings.data.sequence_length}};
  return print_json(j);
}

}  // namespace

void add_bench_train_command(Command& program) {
  Command command =
      program.add("bench-train", "Speed and memory of training steps on random tokens");
  const auto args = std::make_shared<Arguments>();
  command.option("--config", args->config, "settings, a TOML file").required();
  command.option("--steps", args->steps, "steps measured").within(1, 1000000);
  command.option("--warmup", args->warmup, "steps before them").within(0, 1000000);
  command.option("--write-config", args->write_config, "write the model's config.json here");
  command.allow_more();
  command.runs([command, args] { return report(bench(*args, command.remaining())); });
}

}  // namespace ferry::cli
