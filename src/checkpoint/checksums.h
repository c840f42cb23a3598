// checksums.json: the size and BLAKE2b of every file of a folder that Ferry wrote. It is written
// last, so a folder that has it was written whole.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

constexpr const char* kChecksumsName = "checksums.json";

struct FileDigest {
  uint64_t bytes = 0;
  std::string blake2b;  // 256 bits, lower-case hex
  bool operator==(const FileDigest&) const = default;
};

/// Thread rule: one thread at a time (it remembers which files were found right).
class Checksums {
 public:
  /// Reads FOLDER/checksums.json. Errors: kNotFound (not a folder that Ferry wrote), kCorrupt.
  static Result<Checksums> open(const std::string& folder);
  static std::string to_json(const std::map<std::string, FileDigest>& files);

  const std::map<std::string, FileDigest>& files() const { return files_; }  // by relative path
  const std::string& text() const { return text_; }  // the file as it was read

  /// Takes the files of a subfolder off the list if none of them is there, and says whether it did:
  /// then it was left out as a whole. If some are there, the others are missing. Errors:
  /// kUnavailable, kExhausted.
  Result<bool> leave_out(const std::string& subfolder);
  /// Every listed file exists and has the listed size. Cheap.
  Result<void> check_sizes() const;
  /// The bytes, which are FOLDER/relative's, are the listed ones. Hashes them the first time only.
  Result<void> check_bytes(const std::string& relative, const void* data, size_t size);
  /// Hashes every listed file that was not yet.
  Result<void> check_all();

 private:
  std::string folder_, text_;
  std::map<std::string, FileDigest> files_;
  std::set<std::string, std::less<>> right_;
};

}  // namespace ferry
