// Whether checkpoint.dir can be the folder of a run: looked at before anything is made in it.
#pragma once

#include <string>

#include "base/result.h"

namespace ferry {

/// False: it is not there yet. Errors: kInvalidInput: it holds a dataset, a model or metrics that are no
/// run's, where what a run writes would lie between.
Result<bool> check_run_folder(const std::string& folder);

}  // namespace ferry
