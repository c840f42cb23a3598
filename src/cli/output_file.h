// Files that a command is told to write: whether they may be, asked before the work and not after it.
#pragma once

#include <string>

#include "base/result.h"

namespace ferry::cli {

/// What a command writes. A file that is there already is replaced only if Ferry wrote it, as something of the same
/// kind: --out with the name of a text, of weights or of another's file is a slip, not a wish.
enum class OutputKind {
  kTokenizer,    // a tokenizer.json: never replaced, since it does not say whose it is
  kPage,         // a report as a page of HTML
  kPlot,         // an SVG file of base/plot.h
  kExamination,  // what doctor --json writes
  kLogits,       // what logits --out writes
  kModelConfig,  // a config.json: nor that
  kIds,          // what tokenizer bench --out writes
};

/// Nothing is asked of an empty path. Errors: kNotFound (its folder), kInvalidInput (a folder, a
/// link, a device; a file of another kind).
Result<void> check_output_path(const std::string& path, OutputKind kind);

}  // namespace ferry::cli
