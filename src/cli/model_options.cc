#include "cli/model_options.h"

namespace ferry::cli {

void add_open_options(Command& command, OpenOptions& options) {
  command.option("model", options.directory, "a model directory or a GGUF file").required();
  command.option("--adapter",
                 options.adapter,
                 "a LoRA adapter of that model (PEFT's files, or a checkpoint of ferry train)");
  command.option("--device", options.device, "cpu, cuda[:N], cuda-tensor[:N], ascend[:N]");
  command.option("--dtype", options.dtype, "compute in bf16 (as trained by default) or f32");
  command
      .option(
          "--quantize",
          options.quantize,
          "round projections and experts to int8 or int4 codes while loading (on the CPU); none: "
          "compute with the numbers that a GGUF file's codes stand for")
      .among({"int8", "int4", "none"});
}

}  // namespace ferry::cli
