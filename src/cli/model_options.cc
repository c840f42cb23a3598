#include "cli/model_options.h"

namespace ferry::cli {

void add_open_options(Command& command, OpenOptions& options) {
  command.option("model", options.directory, "a model directory or a GGUF file").required();
  command.option("--device", options.device, "cpu, cuda[:N], ascend[:N]");
  command.option("--dtype", options.dtype, "compute in bf16 (as trained by default) or f32");
  command
      .option("--quantize",
              options.quantize,
              "round projections and experts to int8 or int4 codes while loading (on the CPU)")
      .among({"int8", "int4"});
}

void add_generate_options(Command& command, engine::GenerateOptions& options) {
  command.option("--tokens", options.tokens_max, "at most so many new tokens")
      .within(int64_t{1}, int64_t{1} << 24)
      .shows_default();
  command.option("--temperature", options.sampling.temperature, "0: always the most probable token")
      .shows_default();
  command
      .option("--top-p",
              options.sampling.top_p,
              "sample among the fewest tokens that reach this probability")
      .shows_default();
  command.option("--seed", options.sampling.seed, "the same seed gives the same text")
      .shows_default();
}

}  // namespace ferry::cli
