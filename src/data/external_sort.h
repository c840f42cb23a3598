// Sorts more records than memory should hold: sorted runs in files, merged while they are read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry::data {

/// What is sorted: by key, then by value.
struct Record {
  uint64_t key, value;
  auto operator<=>(const Record&) const = default;
};

/// Add all, then read all. For one thread at a time. Memory: 16 bytes each of `records`, half as
/// much again while they grow, and 4 MiB. More of them lie on disk, 16 bytes each, twice that while
/// runs are merged. Its files (FOLDER/NAME-*.sort) are removed with it.
class ExternalSort {
 public:
  ExternalSort(std::string folder, std::string name, size_t records);
  ExternalSort(ExternalSort&&) noexcept;
  ExternalSort& operator=(ExternalSort&&) noexcept;
  ~ExternalSort();

  /// Errors: kExhausted (no space), kUnavailable.
  Result<void> add(const Record& record);
  /// No add after it.
  Result<void> finish();
  /// The records in order; false after the last. Errors: kUnavailable, kCorrupt (a file that
  /// changed).
  Result<bool> next(Record& record);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ferry::data
