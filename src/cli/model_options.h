// Options that several commands take: which model, where it runs, how it chooses tokens.
#pragma once

#include "cli/command_line.h"
#include "cli/open_model.h"
#include "engine/session.h"

namespace ferry::cli {

/// The model as the first argument, --device, --dtype and --quantize.
void add_open_options(Command& command, OpenOptions& options);
/// --tokens, --temperature, --top-p, --seed.
void add_generate_options(Command& command, engine::GenerateOptions& options);

}  // namespace ferry::cli
