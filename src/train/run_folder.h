// Whether checkpoint.dir can be the folder of a run: looked at before anything is made in it.
#pragma once

#include <functional>
#include <string>

#include "base/file.h"
#include "base/result.h"

namespace ferry {

/// False: it is not there yet. Errors: kInvalidInput: it holds a dataset, a model or metrics that are no
/// run's, where what a run writes would lie between.
Result<bool> check_run_folder(const std::string& folder);

/// Takes the folder for this run alone, and removes what killed ones left half-written. say() is told what
/// a person is to know: that it was not there although the run is to go on, that nothing keeps others out.
/// Errors: of check_run_folder and FolderLock::acquire.
Result<FolderLock> enter_run_folder(const std::string& folder,
                                    bool resume,
                                    const std::function<void(const std::string&)>& say);

}  // namespace ferry
