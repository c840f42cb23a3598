// Options that several commands take: which model, and where it runs.
#pragma once

#include "cli/command_line.h"
#include "cli/open_model.h"

namespace ferry::cli {

/// The model as the first argument, --adapter, --device, --dtype and --quantize.
void add_open_options(Command& command, OpenOptions& options);

}  // namespace ferry::cli
