// Fuzzer of what reads text: gzip and zstd, one in the other, JSON lines, cutting into documents. The
// first byte chooses how to read; any bytes after it are refused with words, or give documents that
// are all of the text.
#include <algorithm>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "data/text_source.h"

namespace {

using namespace ferry;
using namespace ferry::data;

constexpr size_t kTextBytesMax = size_t{4} << 20;  // of what a few bytes may unfold to

/// The decompressed bytes, up to kTextBytesMax; nothing if they cannot be read whole.
Result<std::string> unpacked(const std::string& bytes) {
  TRY_ASSIGN(ByteStream stream, ByteStream::of(bytes, "fuzz"));
  std::string all;
  char block[4096];
  for (;;) {
    TRY_ASSIGN(const size_t n, stream.read(block, sizeof block));
    all.append(block, n);
    if (n == 0 || all.size() > kTextBytesMax) return all;
  }
}

Result<std::string> documents(const std::string& bytes, const SourceOptions& options) {
  TRY_ASSIGN(ByteStream stream, ByteStream::of(bytes, "fuzz"));
  TRY_ASSIGN(TextStream text, TextStream::over(std::move(stream), options.text));
  TRY_ASSIGN(DocumentReader reader, DocumentReader::over(std::move(text), options));
  std::string all;
  Piece piece;
  bool open = false;
  for (;;) {
    TRY_ASSIGN(const bool more, reader.next(piece));
    if (!more) break;
    check(piece.text.size() <= kPieceBytes, "fuzz: a piece of {} bytes", piece.text.size());
    open = !piece.last;
    all += piece.text;
    if (all.size() > kTextBytesMax) return all;
  }
  check(!open, "fuzz: the last document does not end");
  check(reader.file_hash().size() == 64, "fuzz: no hash");
  check(reader.damage().skipped <= options.text.skip_bad, "fuzz: too many lines left out");
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  constexpr Split kSplits[] = {
      Split::kFile, Split::kParagraph, Split::kEntry, Split::kLine, Split::kPrefix};
  SourceOptions options;
  options.split = kSplits[(data[0] & 7) % std::size(kSplits)];
  options.prefix = "#";
  options.text.as_text = (data[0] & 8) != 0;
  options.text.skip_bad = (data[0] & 16) != 0 ? 3 : 0;
  const Result<std::string> raw = unpacked(bytes);
  const Result<std::string> text = documents(bytes, options);
  if (!text) check(!text.error().message.empty(), "fuzz: refused without a word");
  if (!raw) check(!raw.error().message.empty(), "fuzz: refused without a word");
  if (!options.text.as_text || (raw && raw->size() > kTextBytesMax)) return 0;
  check(text.has_value() == raw.has_value(), "fuzz: taken as text, and refused");
  if (text) check(*text == *raw, "fuzz: {} bytes of text, {} given", raw->size(), text->size());
  return 0;
}
