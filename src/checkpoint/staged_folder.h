// A folder that appears whole or not at all: it is written beside its destination under a temporary
// name, synced, and put in place by one rename. Model directories and checkpoints are such folders.
//
// Names beside FOLDER/NAME:  .NAME.tmp.PID.N    being written, or left by a process that died
//                            .NAME.old.PID.N    the previous one, for the moment of a replacement,
//                                               where the file system cannot exchange two names
//                            .NAME.trash.PID.N  being deleted
// PID and N are digits, and an .old folder holds checksums.json (or nothing): what a person called
// almost so is his. A .tmp folder is claimed (base/file.h, FolderClaim) by its writer, so one that can be claimed has
// no writer any more. Renames happen with FOLDER claimed, so writers and recoveries take turns.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "checkpoint/checksums.h"

namespace ferry {

/// Owner: whoever writes. Destroyed without commit() it removes what it wrote. One thread.
class StagedFolder {
 public:
  /// Makes the temporary folder and removes those of dead writers. An existing destination must be
  /// empty or a folder that Ferry wrote and nobody added to: commit() will replace it.
  /// Errors: kInvalidInput (the destination is something else), kExhausted, kUnavailable.
  static Result<StagedFolder> create(const std::string& destination);
  StagedFolder(StagedFolder&&) noexcept;
  StagedFolder& operator=(StagedFolder&&) = delete;
  ~StagedFolder();

  const std::string& destination() const { return destination_; }
  std::string file(const std::string& relative) const {
    return join_path(path_, relative);
  }  // where to write it
  Result<void> make_subfolder(const std::string& name);
  Result<void> write_text(const std::string& relative, std::string_view text);
  /// Lists a file that was written and synced at file(relative).
  void add(const std::string& relative, FileDigest digest);
  uint64_t bytes() const;
  std::vector<std::string> names() const;  // of the files so far, sorted

  /// Writes checksums.json, syncs, renames into place. On failure the destination is what it was,
  /// unless published().
  Result<void> commit();
  /// The new folder is in place (although a later step, such as syncing its parent, may have
  /// failed).
  bool published() const { return published_; }
  /// What went wrong without harm to the result: leftovers that could not be removed.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  StagedFolder(std::string destination, std::string path, FolderClaim claim);
  Result<void> publish();

  std::string destination_, path_;
  std::optional<FolderClaim> claim_;
  std::map<std::string, FileDigest> files_;
  std::vector<std::string> subfolders_, warnings_;
  bool published_ = false, done_ = false;
};

/// Replacing and removing delete what is there, so it must be ours: nothing, an empty folder, or
/// one whose files checksums.json lists (what Ferry adds to a model later aside). Errors:
/// kInvalidInput, naming what is not; kUnavailable, kExhausted.
Result<void> check_replaceable(const std::string& destination);

/// Brings back a destination that a replacement, killed between its two renames, left without a
/// name. Does nothing if there is none. Waits for a replacement under way.
Result<void> recover_folder(const std::string& destination);

/// While the claim is held, nobody replaces `destination`.
Result<FolderClaim> keep_from_being_replaced(const std::string& destination);

/// Removes temporary folders of dead writers and unfinished deletions of `destination`. Returns
/// what could not be removed, in words.
std::vector<std::string> remove_leftovers(const std::string& destination);

/// Takes the folder out of sight by one rename, then deletes it. Killed in between, it is a
/// leftover. Errors: those of check_replaceable(), and then it stays; kUnavailable, kExhausted.
Result<void> remove_folder(const std::string& path);

/// The NAME of a hidden sibling ".NAME.tmp.PID.N" (or old, trash); nothing for other names.
std::optional<std::string> leftover_of(std::string_view hidden_name);

/// Errors: kExhausted with what is needed and what is free, unless `folder` has room for `bytes`
/// and 1 %.
Result<void> require_space(const std::string& folder, uint64_t bytes);

}  // namespace ferry
