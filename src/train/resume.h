// What may become of a run's settings when it goes on: each field of the list says it of itself
// (train/config_list.cc); the architecture is compared with that of the checkpoint.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/config.h"
#include "train/run_data.h"

namespace ferry {

/// Where a run goes on from.
struct ResumePoint {
  std::string path;  // of the checkpoint
  std::string
      config_json;    // of the checkpoint; of an adapter's, its base's as the run computes with it
  Settings settings;  // those that it was written under
};

/// For people: what of the checkpoint a new run begins from.
std::string weights_to_begin_with(const ResumePoint& point);

/// The changes that what follows depends on, to be told. Errors: kInvalidInput for a change of what
/// was learnt, with what it is in the checkpoint, and that a new run can begin from its weights.
Result<std::vector<SettingChange>> changes_on_resume(const ResumePoint& point,
                                                     const Settings& now,
                                                     const RunData& data);

}  // namespace ferry
