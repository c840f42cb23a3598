// Cuts text files into documents, streaming: a document comes in pieces of bounded size, and the
// pieces of a file, one after the other, are every byte of it or, of JSON lines, of their text
// fields.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "data/text_stream.h"

namespace ferry::data {

/// Where a document of a text file ends and the next begins. Blank lines belong to what they
/// follow.
enum class Split {
  kFile,       // never: the file is one document
  kParagraph,  // at a line that follows a blank line
  kEntry,      // at an unindented line that follows a blank line (dictionaries, address books)
  kLine,       // at every line
  kPrefix,     // at a line that begins with SourceOptions::prefix
};

/// How the files are to be read.
struct SourceOptions {
  Split split = Split::kFile;
  std::string prefix;               // of kPrefix; at most 1 KiB
  uint64_t min_document_bytes = 1;  // shorter documents of a text file are joined with what follows
  std::string field = "text";       // of each line of JSON
  /// If given, inputs must be lines of JSON, and each whole line of at most kPieceBytes that it takes
  /// is a document. Its failures are told as those of lines are.
  std::function<Result<void>(std::string_view line)> takes = {};
  TextOptions text;
};

/// Sets split and prefix from "file", "paragraph", "entry", "line" or "prefix:TEXT".
/// Errors: kInvalidInput, naming what is possible.
Result<void> parse_split(std::string_view name, SourceOptions& options);
std::string split_name(const SourceOptions& options);

/// A longer document comes in pieces that are cut before white space, where there is some, and
/// never inside a well-formed UTF-8 character.
constexpr size_t kPieceBytes = size_t{1} << 20;
struct Piece {
  std::string text;   // may be empty if `last`
  bool last = false;  // ends its document
};

/// One file. For one thread at a time. Memory: 2 * kPieceBytes and TextStream's; for JSON lines four
/// times the longest. Whether a file is text or JSON lines its first bytes say (identify_text).
class DocumentReader {
 public:
  static Result<DocumentReader> open(const std::string& path, const SourceOptions& options);
  static Result<DocumentReader> over(TextStream stream, const SourceOptions& options);
  DocumentReader(DocumentReader&&) noexcept;
  DocumentReader& operator=(DocumentReader&&) noexcept;
  ~DocumentReader();

  /// False at the end of the file.
  /// Errors: TextStream's; kCorrupt for a line that is not JSON; kInvalidInput for one without the
  /// field, if no more may be left out (TextOptions::skip_bad), or above kLineBytesMax. They name
  /// the line and its offset in the decompressed text.
  Result<bool> next(Piece& piece);

  uint64_t file_bytes_read() const;
  std::string file_hash();       // after next gave false
  const Damage& damage() const;  // so far

 private:
  struct State;
  explicit DocumentReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Gives each document of a file whole, one after the other; one above `bytes_max` comes in parts of
/// about as many bytes, cut as pieces are. `take` says whether more is wanted.
/// Errors: DocumentReader::next's; take's.
Result<void> each_document(DocumentReader& reader,
                           size_t bytes_max,
                           const std::function<Result<bool>(std::string_view text)>& take);

}  // namespace ferry::data
