// The one opener of text: whatever a command reads as text comes through here, decompressed, in
// UTF-8, and refused by name where it is something else.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/byte_stream.h"
#include "data/formats.h"

namespace ferry::data {

/// Lines that were left out of a file, and bytes in it that are no UTF-8.
struct Damage {
  struct Line {
    uint64_t number;  // from 1
    std::string why;
  };
  uint64_t skipped = 0;          // lines left out
  std::vector<Line> lines;       // the first kDamageLinesMax of them
  uint64_t ill_formed = 0;       // bytes that were kept as they are
  uint64_t ill_formed_line = 0;  // of the first of these
};
constexpr size_t kDamageLinesMax = 1000;

struct TextOptions {
  /// Every byte is text: neither other formats and encodings nor JSON lines are recognised (gzip and
  /// zstd are).
  bool as_text = false;
  /// One document of JSON is wanted, in any layout: lists and several lines are no fault.
  bool json = false;
  /// Lines that cannot be read are left out, so many at most: over all files, of which those before
  /// this one had `skipped`.
  uint64_t skip_bad = 0, skipped = 0;
  /// What the command offers for text that is refused, and for a line among others that can be read:
  /// ends the message.
  std::string hint = {}, line_hint = {};
};

/// Where a bad line is told of, or counted.
class BadLines {
 public:
  BadLines(std::string path, const TextOptions& options)
      : path_(std::move(path)),
        allowed_(options.skip_bad),
        before_(options.skipped),
        hint_(options.hint),
        line_hint_(options.line_hint) {}

  /// `offset` in the decompressed text. `among_good`: it would help to leave out lines like this one, for others can be
  /// read. Errors: `code`, naming all of it, if one more is not allowed.
  Result<void> add(Code code,
                   uint64_t line,
                   uint64_t offset,
                   const std::string& why,
                   const std::string& advice,
                   bool among_good);
  Damage& damage() { return damage_; }
  bool allows_any() const { return allowed_ > 0; }

 private:
  std::string path_;
  uint64_t allowed_, before_;
  std::string hint_, line_hint_;
  Damage damage_;
};

constexpr size_t kLineBytesMax = size_t{64} << 20;  // of a line that has to be held whole

/// For one thread at a time. Memory: ByteStream's; with skip_bad twice the longest line.
///
/// Text is UTF-8; a mark at its start (BOM) is left out. Bytes that are ill-formed, and zeros, are
/// damage as long as they are rare (one in 64 KiB of text, one beside eight characters that are
/// well-formed and beyond ASCII): they are counted, and kept as they are. Where they are not rare,
/// the text is in another encoding and is refused. With skip_bad each line that holds some is left
/// out instead, and counts.
class TextStream {
 public:
  /// Errors: ByteStream's; identify_text's.
  static Result<TextStream> open(const std::string& path, const TextOptions& options);
  static Result<TextStream> standard_input(const TextOptions& options);
  static Result<TextStream> over(ByteStream bytes, const TextOptions& options);
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;
  ~TextStream();

  /// JSON lines are given as they are: whoever reads the lines judges them, one by one.
  TextKind kind() const;

  /// At most `size` bytes; 0 only at the end. Errors: ByteStream's; kInvalidInput as above.
  Result<size_t> read(char* out, size_t size);

  BadLines& bad_lines();
  ByteStream& bytes();

 private:
  struct State;
  explicit TextStream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// All of the text in a file, JSON or not. Errors: TextStream's; kInvalidInput above bytes_max.
Result<std::string> read_text(const std::string& path,
                              const TextOptions& options = {},
                              uint64_t bytes_max = (uint64_t{1} << 31) - 1);
/// Why a line that is no UTF-8 cannot be read, what to do, and whether four lines of the sample for each like it can
/// be: for BadLines::add.
struct IllFormed {
  std::string why, advice;
  bool among_good = false;
};
IllFormed describe_ill_formed(std::string_view sample, size_t at, const ByteStream& file);

}  // namespace ferry::data
