// How far a command is with hashing a model's weights: minutes for large ones, in which it says nothing else.
#pragma once

#include <string>

#include "checkpoint/hash_tree.h"
#include "cli/command.h"

namespace ferry::cli {

/// To be told of what is hashed; shows it in `line`, which must outlive it. `whose`: "the source's weights".
HashedBytes shown_hashing(ProgressLine& line, std::string whose);

}  // namespace ferry::cli
