// Files that a person names for a command to read: regular ones, and what stands for one on a command
// line, a pipe (a shell's `<(...)`), a terminal, standard input. What lies in a directory that a
// command opens is read with base/file.h, which takes nothing but regular files: a pipe in it would be
// waited for without end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

/// The name by which standard input is asked for; a file of that name is ./-
constexpr const char* kStandardInput = "-";

/// Reads from the start to the end, in blocks that the caller sizes. For one thread at a time.
class InputFile {
 public:
  /// A pipe that nobody writes to yet is open, too: the first read waits. Errors: kNotFound, kExhausted (no
  /// permission), kUnavailable (unreadable), kInvalidInput (a folder, a socket).
  static Result<InputFile> open(const std::string& path);
  /// The process's own, which open() gives for "-"; named "standard input" in messages; it is left open.
  static InputFile standard_input();
  /// Whether somebody has given this process a file or a pipe to read, in which there is something.
  static bool standard_input_has_text();
  InputFile(InputFile&&) noexcept;
  InputFile& operator=(InputFile&&) noexcept;
  ~InputFile();

  /// Bytes read, at most `size`; 0 only at the end. Errors: kUnavailable: the process was told to stop
  /// (base/stopping.h), also while it waits for whoever writes.
  Result<size_t> read(void* out, size_t size);
  const std::string& path() const { return path_; }

 private:
  InputFile() = default;
  Result<void> wait_for_bytes() const;
  std::string path_;
  int fd_ = -1;
};

/// Refuses what gives its bytes but once, a pipe say, where it is wanted again; `again` says so: "what is prepared is
/// read twice". What is not there, or is a folder, is told of when it is opened. Errors: kInvalidInput, os_error's.
Result<void> check_rereadable(const std::string& path, std::string_view again);

/// The whole of it. Errors: InputFile's; kInvalidInput above bytes_max, without reading further.
Result<std::string> read_input(const std::string& path, uint64_t bytes_max);

}  // namespace ferry
