// Which file a path names: whether it is the one still that somebody has open, or the same as another path.
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
  /// The same, where "-" is standard input (InputFile::open).
  static Result<NamedFile> of_input(const std::string& path);

  /// Whether the path names the same file: it does not once the file, or a folder above it, was removed, moved away
  /// or replaced. Errors: kUnavailable, kExhausted: it cannot be told just now.
  Result<bool> in_place() const;

  /// Whether the other path named the same one: through links, too.
  bool is(const NamedFile& other) const {
    return device_ == other.device_ && inode_ == other.inode_;
  }

 private:
  std::string path_;
  uint64_t device_ = 0, inode_ = 0;
};

/// The path of what `path` leads to, through links, as far as it is there. Errors: os_error's, of links
/// that go round in circles, folders that may not be looked into.
Result<std::string> behind_links(const std::string& path);

}  // namespace ferry
