// Where the specs of an op were run and passed: a line of text for each op and place, which tests and
// the doctor leave and docs/ops.md is written from.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "device/device.h"

namespace ferry::ops {

struct RunRecord {
  std::string op;
  std::string device;     // "cpu", "ascend"
  bool software = false;  // an emulator or a simulator
  std::string where;      // "x86-64: avx512, avx2, plain"; "Ascend910B1"
  std::string date;       // "2026-11-28"
};

/// A device of this kind that describes itself so, today, as a record without an op. FERRY_EMULATOR
/// names the emulator that runs the program, if one does.
RunRecord record_of(DeviceKind kind, const std::string& description);

/// Adds a record; one of the same op and place is replaced. Makes the file.
/// Errors: kUnavailable; kCorrupt as read_run_records.
Result<void> add_run_records(const std::string& path, const std::vector<RunRecord>& records);

/// Errors: kNotFound, kUnavailable, kCorrupt: a line that is no record, by its number.
Result<std::vector<RunRecord>> read_run_records(const std::string& path);

}  // namespace ferry::ops
