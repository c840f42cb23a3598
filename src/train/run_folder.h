// Whether checkpoint.dir can be the folder of a run: looked at before anything is made in it.
#pragma once

#include <functional>
#include <string>

#include "base/file.h"
#include "base/named_file.h"
#include "base/result.h"
#include "train/metrics.h"

namespace ferry {

/// False: it is not there yet. Errors: kInvalidInput: it holds a dataset, a model or metrics that are no
/// run's, where what a run writes would lie between.
Result<bool> check_run_folder(const std::string& folder);

/// A folder that is this run's alone.
struct RunFolder {
  FolderLock lock;
  NamedFile lock_file;  // the folder's, as long as nobody takes the folder away
};

/// Takes the folder for this run alone, and removes what killed ones left half-written. say() is told what
/// a person is to know: that it was not there although the run is to go on, that nothing keeps others out.
/// Errors: of check_run_folder and FolderLock::acquire.
Result<RunFolder> enter_run_folder(const std::string& folder,
                                   bool resume,
                                   const std::function<void(const std::string&)>& say);

/// Before each save: a folder that was removed or moved away under the run has taken its lock along, so that
/// another run may have gone into what is there now. It is taken anew where nobody is, and the log of metrics
/// begun anew in it, which is told; where another run is, or was, both would remove each other's checkpoints.
/// Errors: kExhausted (no restart mends it), kUnavailable.
Result<void> stay_in_run_folder(const std::string& folder,
                                RunFolder& held,
                                MetricsLog& metrics,
                                const std::function<void(const std::string&)>& say);

}  // namespace ferry
