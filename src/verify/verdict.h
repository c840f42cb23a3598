// The end of a verification: what its texts say in words, and the reasons of a verdict.
#pragma once

#include "checkpoint/model_dir.h"
#include "verify/verify.h"

namespace ferry::verify {

/// What the ids of the texts say; the ids themselves where there is no tokenizer.
void write_texts(Report& report, ModelDir& dir);

/// Puts the reasons in their order, the culprit first, and adds notes.
void conclude(Report& report);

}  // namespace ferry::verify
