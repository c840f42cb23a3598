// Which file a path named once: whether it is the one still that somebody has open.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace ferry {

/// What a path names when it is looked at. Whoever holds that file open meanwhile (a lock, a log) keeps its number from
/// being given to another.
class NamedFile {
 public:
  /// Errors: kNotFound, kUnavailable, kExhausted (no permission).
  static Result<NamedFile> at(std::string path);

  /// Whether the path names the same file: it does not once the file, or a folder above it, was removed, moved away
  /// or replaced. Errors: kUnavailable, kExhausted: it cannot be told just now.
  Result<bool> in_place() const;

 private:
  std::string path_;
  uint64_t device_ = 0, inode_ = 0;
};

}  // namespace ferry
