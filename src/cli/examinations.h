// What `ferry doctor` last found of each chip of this machine: a small file for each in the user's
// state folder ($XDG_STATE_HOME/ferry/doctor, or ~/.local/state/ferry/doctor), for `ferry train` to
// ask. Notes, not proofs: without them nothing is refused.
#pragma once

#include <string>

#include "base/result.h"
#include "device/device.h"
#include "verify/doctor.h"

namespace ferry::cli {

/// Notes the verdict on the device that was examined, and how much was tried (`for_run`: at whose
/// sizes, too). A failure stands until an examination that tried as much finds nothing; one subject
/// alone does not make a chip fit. Returns what a person should know of it, if anything.
/// Errors: as of writing files; kNotFound if the user has no state folder.
Result<std::string> remember_examination(const doctor::Report& report, const std::string& for_run);

/// Says on standard error, if so, that the device was never examined here, only quickly, or not
/// found fit to train. The CPU is what others are judged by: nothing is said of it.
void warn_unexamined(const Device& device);

}  // namespace ferry::cli
