// Files: reading whole or mapped, and writing so that a reader never sees half of one. Every step
// that can fail in the real world is a fault point (base/fault.h), so that tests can make it fail.
// What a second try would meet again (no space, a read-only file system, no permission, a limit) is
// kExhausted; kUnavailable is what may pass. Long reading and writing shows that it goes on
// (base/alive.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry {

/// The whole file. Errors: kNotFound, kExhausted (no permission), kUnavailable (unreadable),
/// kInvalidInput (above bytes_max).
Result<std::string> read_file(const std::string& path, uint64_t bytes_max = uint64_t{1} << 32);

/// Replaces `path` with `content`: writes a temporary file beside it, syncs, renames, syncs the
/// folder. After a crash at any moment `path` holds the old content or the new, whole.
/// Errors: kExhausted (no space, read-only, ...), kUnavailable.
Result<void> write_file_atomic(const std::string& path, std::string_view content);

class FileWriter;
/// The same of what `write` writes, which need not be in memory whole.
Result<void> write_file_atomic(const std::string& path,
                               const std::function<Result<void>(FileWriter&)>& write);

/// Writes a new file that nobody but its owner may read. Errors: kInvalidInput (it exists),
/// kExhausted, kUnavailable.
Result<void> write_private_file(const std::string& path, std::string_view content);

/// A file mapped read-only. Movable; unmaps when destroyed. A file that another process truncates
/// while it is mapped raises SIGBUS (base/mapped_faults.h): map only files that Ferry or its user does not rewrite in
/// place.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  /// Lets go of the pages that were read; reading brings them back. Whoever has copied what it came
  /// for would else count as holding the file beside the copy.
  void release() const;

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Reads a regular file from its start to its end, in blocks that the caller sizes.
class FileReader {
 public:
  /// Errors: kNotFound, kExhausted (no permission), kUnavailable (unreadable), kInvalidInput (a
  /// folder, a pipe: not a regular file).
  static Result<FileReader> open(const std::string& path);
  FileReader(FileReader&&) noexcept;
  FileReader& operator=(FileReader&&) noexcept;
  ~FileReader();

  /// Bytes read, at most `size`; 0 only at the end.
  Result<size_t> read(void* out, size_t size);
  const std::string& path() const { return path_; }

 private:
  FileReader() = default;
  std::string path_;
  int fd_ = -1;
};

/// The lines of a regular file, one after the other: the file need not fit into memory, a line must.
class LineReader {
 public:
  /// Errors: of FileReader::open.
  static Result<LineReader> open(const std::string& path);

  /// The next line with its "\n", which the last one may lack, until the next call; empty at the end.
  Result<std::string_view> next();

 private:
  explicit LineReader(FileReader file) : file_(std::move(file)) {}
  FileReader file_;
  std::string read_;  // of the file
  size_t at_ = 0;     // where in it the next line begins
};

/// Appends to a new file; buffered by the caller. Not atomic: write to a temporary name or folder.
class FileWriter {
 public:
  static Result<FileWriter> create(const std::string& path);  // truncates
  static Result<FileWriter> append(const std::string& path);  // creates if absent
  FileWriter(FileWriter&&) noexcept;
  FileWriter& operator=(FileWriter&&) noexcept;
  ~FileWriter();  // closes without syncing

  Result<void> write(const void* data, size_t size);
  Result<void> write(std::string_view text) { return write(text.data(), text.size()); }
  Result<void> sync();  // fsync
  Result<void> close();
  uint64_t bytes_written() const { return bytes_; }

 private:
  FileWriter() = default;
  std::string path_;
  int fd_ = -1;
  uint64_t bytes_ = 0;
};

Result<void> sync_folder(const std::string& path);
Result<void> rename_path(const std::string& from, const std::string& to);  // then syncs the parent
/// Swaps two paths of one file system in one step. False where the kernel or the file system cannot
/// (or the step failed): then nothing has changed. The caller syncs the parent.
bool exchange_paths(const std::string& a, const std::string& b);
Result<void> make_folders(const std::string& path);
Result<bool> create_folder(const std::string& path);  // false: the name is taken
Result<void> remove_tree(const std::string& path);    // no error when it does not exist
Result<std::vector<std::string>> list_folder(const std::string& path);  // names, sorted
/// Whether something is there. Only ENOENT and ENOTDIR say that nothing is: a disk that does not
/// answer, or a folder that may not be looked into, is an error, never an absence. Errors:
/// kUnavailable, kExhausted (no permission), kInvalidInput.
Result<bool> is_there(const std::string& path);
/// The same where the answer only chooses words, or where "no" and "cannot be told" lead to one and
/// the same: false then, too. What is read, written or removed depends on is_there().
bool path_exists(const std::string& path);
bool is_folder(const std::string& path);
/// Where a symbolic link leads, as it is written in the link; empty if `path` is none.
std::string link_target(const std::string& path);
Result<uint64_t> file_size(const std::string& path);
Result<uint64_t> free_disk_bytes(const std::string& path);  // of the nearest existing parent
std::string parent_folder(const std::string& path);
std::string join_path(std::string_view folder, std::string_view name);
/// Whether `text` is "PID.N", as names of temporary files and folders of Ferry end. Such names are
/// removed when their writer is dead, so nothing that a person may have called his own counts.
bool is_process_and_serial(std::string_view text);

/// An exclusive lock on a folder, held until destroyed or the process ends (flock on DIR/.lock).
/// A folder that is not there is made, and taken away again with the lock if nothing came into it.
/// Errors: kInvalidInput, naming the process that holds it; kUnavailable, kExhausted.
class FolderLock {
 public:
  static Result<FolderLock> acquire(const std::string& folder);
  FolderLock(FolderLock&&) noexcept;
  FolderLock& operator=(FolderLock&&) noexcept;
  ~FolderLock();

  /// False on file systems that cannot lock files (Lustre without flock): then acquiring succeeds
  /// and says nothing about others. To be told to whoever starts the work.
  bool exclusive() const { return exclusive_; }

 private:
  FolderLock() = default;
  void take_back() const;
  int fd_ = -1;
  bool exclusive_ = true;
  std::vector<std::string> made_;  // folders that acquire made: the locked one, its parents
};

/// A hold on a file that is there (flock on it; nothing is written), held until destroyed or the
/// process ends: readers share one, and who would replace what it stands for asks for it alone. Where
/// files cannot be locked it succeeds and keeps nobody away.
class FileHold {
 public:
  /// Errors: kNotFound, kExhausted (no permission), kUnavailable: somebody has it alone.
  static Result<FileHold> shared(const std::string& path);
  /// Errors: the same; kInvalidInput: others hold it, with what the system says of who they are.
  static Result<FileHold> alone(const std::string& path);
  FileHold(FileHold&&) noexcept;
  FileHold& operator=(FileHold&&) noexcept;
  ~FileHold();

 private:
  FileHold() = default;
  int fd_ = -1;
};

/// A hold on a folder itself (flock on the folder; no file is made in it), for work on its entries.
/// It ends when destroyed or when the process ends, however it ends, so a folder that can be
/// claimed belongs to nobody alive: no process numbers, which may be reused, need to be compared.
class FolderClaim {
 public:
  static Result<FolderClaim> wait(const std::string& folder);  // until the holder lets go
  /// Nothing if somebody else holds it, or if `folder` no longer names the folder that was claimed.
  static Result<std::optional<FolderClaim>> try_now(const std::string& folder);
  FolderClaim(FolderClaim&&) noexcept;
  FolderClaim& operator=(FolderClaim&&) noexcept;
  ~FolderClaim();

  /// False on file systems that cannot lock folders (NFS): then claiming succeeds and says nothing
  /// about others.
  bool exclusive() const { return exclusive_; }

 private:
  FolderClaim() = default;
  int fd_ = -1;
  bool exclusive_ = true;
};

}  // namespace ferry
