// What the first bytes of a file say that it is: text, JSON lines, or one of the many things that
// are no text. Names decide only where bytes do not: of a table, and of JSON whose first line does not
// fit.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry::data {

enum class TextKind { kText, kJsonLines };

/// `head`: the first bytes after decompression. `packing`: what they were compressed with, or "".
/// Errors: kInvalidInput for what is neither text in UTF-8 nor JSON lines (archives, columns, JSON
/// that is not one object a line, web pages, other encodings), with its name and the command that
/// converts it.
/// With `json` a document of JSON is what is wanted, laid out over any number of lines, a list too:
/// then what begins as JSON, or is named so, is kJsonLines.
Result<TextKind> identify_text(std::string_view head,
                               const std::string& path,
                               const std::string& packing,
                               bool json = false);

/// The encoding that a text which is no UTF-8 is most likely in, by the name that iconv knows, or
/// "" if none stands out. A guess, to be told as one.
std::string guess_encoding(std::string_view text);

/// "iconv -f ENCODING -t UTF-8 FILE > FILE.utf8", fit for a shell; of a packed file, unpacked first.
std::string conversion_from(const std::string& encoding,
                            const std::string& path,
                            const std::string& packing);

/// The command, of FILE, that makes JSON lines of a list whose elements are of that kind ("object",
/// "string"): of the document itself, or of its field `name`. Empty where there is none.
std::string lines_of_list(std::string_view name, std::string_view element);

/// A command of FILE for this file, fit for a shell; of a packed one, unpacked first.
std::string for_this_file(std::string_view command,
                          const std::string& path,
                          const std::string& packing);

/// The length of a byte-order mark of UTF-8 at the start: 3 or 0.
size_t byte_order_mark(std::string_view head);

}  // namespace ferry::data
