#include "data/formats.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/shell.h"
#include "text/utf8.h"

namespace ferry::data {
namespace {

using std::string_view_literals::operator""sv;

/// `bytes` at `offset` mean `name`; `command` makes text of FILE.
struct Magic {
  size_t offset;
  std::string_view bytes;
  const char* name;
  const char* command;
};

constexpr const char* kNoText = "";  // there is no text in it to be had
// Tables with columns of lists and objects give each row the fields of all, as nulls: these are no part of what was
// said in a conversation, and are taken out again.
constexpr const char* kFromPandas =
    "python3 -c \"import sys, pandas; pandas.read_parquet(sys.argv[1]).to_json(sys.stdout, "
    "orient='records', lines=True)\" FILE | jq -c 'del(..|nulls)' > FILE.jsonl";
constexpr const char* kFromTable =
    "python3 -c \"import sys, pandas; pandas.read_csv(sys.argv[1], sep=None, engine='python')"
    ".to_json(sys.argv[2], orient='records', lines=True)\" FILE FILE.jsonl";
constexpr const char* kFromNotebook =
    "jq -r '.cells[].source | if type == \"array\" then add else . end | . // \"\"' FILE > "
    "FILE.txt";
constexpr const char* kFromFeather =
    "python3 -c \"import sys, pandas; pandas.read_feather(sys.argv[1]).to_json(sys.stdout, "
    "orient='records', lines=True)\" FILE | jq -c 'del(..|nulls)' > FILE.jsonl";
constexpr const char* kFromArrowStream =
    "python3 -c \"import sys, datasets; datasets.Dataset.from_file(sys.argv[1])"
    ".to_json(sys.stdout.buffer)\" FILE | jq -c 'del(..|nulls)' > FILE.jsonl";

constexpr Magic kMagics[] = {
    // Compressed with what is not read here.
    {0,
     "\xFD"
     "7zXZ\0"sv,
     "compressed with xz",
     "xz -dc FILE > FILE.txt"},
    {0, "\x5D\0\0"sv, "compressed with lzma", "xz --format=lzma -dc FILE > FILE.txt"},
    {0, "LZIP\1"sv, "compressed with lzip", "lzip -dc FILE > FILE.txt"},
    {4, "1AY&SY"sv, "compressed with bzip2", "bzip2 -dc FILE > FILE.txt"},
    {4,
     "\x17\x72\x45\x38\x50\x90"sv,
     "compressed with bzip2 (and empty)",
     "bzip2 -dc FILE > FILE.txt"},
    {0, "\x04\x22\x4D\x18"sv, "compressed with lz4", "lz4 -dc FILE > FILE.txt"},
    {0, "\x02\x21\x4C\x18"sv, "compressed with lz4", "lz4 -dc FILE > FILE.txt"},
    {0, "\x89LZO\0"sv, "compressed with lzop", "lzop -dc FILE > FILE.txt"},
    {0, "\xFF\x06\0\0sNaPpY"sv, "compressed with snappy", "python3 -m snappy -d FILE FILE.txt"},
    {0, "\x1F\x9D"sv, "compressed with compress", "gzip -dc FILE > FILE.txt"},
    {0, "\x1F\x1E"sv, "compressed with pack", "gzip -dc FILE > FILE.txt"},
    // Archives.
    {30, "mimetypeapplication/epub"sv, "an e-book (EPUB)", "pandoc -t plain FILE -o FILE.txt"},
    {30, "[Content_Types].xml"sv, "an Office document", "pandoc -t plain FILE -o FILE.txt"},
    {30,
     "mimetypeapplication/vnd.oasis"sv,
     "an OpenDocument file",
     "pandoc -t plain FILE -o FILE.txt"},
    {0, "PK\3\4"sv, "a zip archive", "unzip FILE"},
    {0, "PK\5\6"sv, "an empty zip archive", "unzip FILE"},
    {0, "PK\7\x08"sv, "a zip archive in parts", "unzip FILE"},
    {0, "7z\xBC\xAF\x27\x1C"sv, "a 7z archive", "7z x FILE"},
    {0, "Rar!\x1A\7"sv, "a rar archive", "unrar x FILE"},
    {257, "ustar"sv, "a tar archive", "tar -xf FILE"},
    {0, "!<arch>\n"sv, "an ar archive", "ar x FILE"},
    {0,
     "WARC/"sv,
     "a web archive (WARC)",
     "take the text out of its records, for example with trafilatura or warcio"},
    // Tables and columns.
    {0, "PAR1"sv, "a Parquet file", kFromPandas},
    {0, "PARE"sv, "an encrypted Parquet file", kFromPandas},
    {0, "ARROW1\0\0"sv, "an Arrow (Feather) file", kFromFeather},
    {0, "FEA1"sv, "a Feather file", kFromFeather},
    {0, "\xFF\xFF\xFF\xFF"sv, "an Arrow stream", kFromArrowStream},
    {0,
     "ORC\x08"sv,
     "an ORC file",
     "python3 -c \"import sys, pandas; pandas.read_orc(sys.argv[1]).to_json(sys.stdout, "
     "orient='records', lines=True)\" FILE | jq -c 'del(..|nulls)' > FILE.jsonl"},
    {0, "\x1E{"sv, "a sequence of JSON texts", "jq --seq -c . FILE > FILE.jsonl"},
    {0, "Obj\1"sv, "an Avro file", "avro cat FILE > FILE.jsonl"},
    {0,
     "SQLite format 3\0"sv,
     "an SQLite database",
     "sqlite3 -json FILE 'select COLUMN as text from TABLE' | jq -c '.[]' > FILE.jsonl"},
    {0, "\x89HDF\r\n\x1A\n"sv, "an HDF5 file", kNoText},
    {0, "\x93NUMPY"sv, "a NumPy array", kNoText},
    {8, "{\"__metadata__\""sv, "a safetensors file", kNoText},
    {0, "GGUF"sv, "a GGUF file", kNoText},
    {0, "\x80\2}"sv, "a pickle", kNoText},
    {0, "\x80\3"sv, "a pickle", kNoText},
    {0, "\x80\4\x95"sv, "a pickle", kNoText},
    {0, "\x80\5\x95"sv, "a pickle", kNoText},
    // Documents.
    {0, "%PDF-"sv, "a PDF", "pdftotext FILE FILE.txt"},
    {0, "%!PS"sv, "PostScript", "ps2ascii FILE > FILE.txt"},
    {0, "{\\rtf"sv, "an RTF document", "unrtf --text FILE > FILE.txt"},
    {0,
     "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv,
     "an old Office document",
     "soffice --headless --convert-to txt FILE"},
    {0, "AT&TFORM"sv, "a DjVu document", "djvutxt FILE FILE.txt"},
    // What people name by mistake.
    {0, "\x89PNG\r\n"sv, "a picture (PNG)", kNoText},
    {0, "\xFF\xD8\xFF"sv, "a picture (JPEG)", kNoText},
    {0, "GIF8"sv, "a picture (GIF)", kNoText},
    {0,
     "\x7F"
     "ELF"sv,
     "a program (ELF)",
     kNoText},
    {0, "RIFF"sv, "a RIFF container (sound, pictures)", kNoText},
    {0,
     "version https://git-lfs.github.com/spec/"sv,
     "a Git LFS pointer, which stands for the file and is not it",
     "git lfs pull"},
    {0, "FERRYTOK"sv, "a shard of a dataset that ferry data prepare wrote", kNoText},
};

/// The command for this file; of one that is packed ("gzip in zstd"), unpacked first. Neither writes
/// over a file that may lie beside it under the name without .gz.
/// What came through standard input has no name: FILE stays.
std::string for_file(std::string_view command, std::string path, std::string_view packing) {
  if (path == "standard input") path = "FILE";
  std::string out;
  if (!packing.empty() && command.find("FILE") != ""sv.npos) {
    std::string unpack;
    for (size_t outer; !packing.empty(); packing = packing.substr(0, outer)) {
      outer = packing.rfind(" in ");
      const bool only = outer == ""sv.npos;
      if (only) outer = 0;
      const std::string_view tool = packing.substr(only ? 0 : outer + 4);
      unpack += fmt::format(
          "{}{} -dc{}", unpack.empty() ? "" : " | ", tool, unpack.empty() ? " FILE" : "");
    }
    out = for_file(unpack + " > FILE.unpacked", path, "") + " && ";
    path += ".unpacked";
  }
  for (size_t at = 0; at < command.size();) {
    if (command.substr(at, 4) != "FILE") {
      out += command[at++];
      continue;
    }
    at += 4;
    std::string name = path;  // FILE.jsonl: one word
    if (command.substr(at, 1) == ".")
      while (at < command.size() && command[at] != ' ' && command[at] != '\'')
        name += command[at++];
    out += shell_quoted(name.starts_with('-') ? "./" + name : name);
  }
  return out;
}

tl::unexpected<Status> refuse(const std::string& path,
                              const std::string& packing,
                              std::string_view name,
                              std::string_view command) {
  const std::string where = packing.empty() ? "" : fmt::format(" (inside {})", packing);
  if (command.empty())
    return fail(Code::kInvalidInput,
                "{}: is {}{}, not text; name text in UTF-8 or JSON lines, plain or compressed with "
                "gzip or zstd",
                path,
                name,
                where);
  return fail(Code::kInvalidInput,
              "{}: is {}{}, which is not read; convert it first: {}",
              path,
              name,
              where,
              for_file(command, path, packing));
}

/// Headers of tar from before "ustar": the sum that each carries is the sum of its bytes.
bool is_old_tar(std::string_view head) {
  constexpr size_t kBlock = 512, kSum = 148;
  if (head.size() < kBlock || head[0] == '\0') return false;
  uint64_t written = 0, sum = 0;
  size_t at = kSum;
  while (at < kSum + 8 && head[at] == ' ') ++at;
  const size_t digits = at;
  for (; at < kSum + 8 && head[at] >= '0' && head[at] <= '7'; ++at)
    written = written * 8 + static_cast<uint64_t>(head[at] - '0');
  if (at == digits) return false;
  for (size_t i = 0; i < kBlock; ++i)
    sum += i >= kSum && i < kSum + 8 ? ' ' : static_cast<unsigned char>(head[i]);
  return sum == written;
}

bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Whether nine in ten of these units of UTF-16 are letters and marks that texts consist of, and no more than half of
/// them two letters of ASCII, which as a unit are Chinese.
bool are_utf16_letters(std::string_view sample, bool big) {
  constexpr std::pair<unsigned, unsigned> kLetters[] = {{0x20, 0x7E},
                                                        {0xA0, 0x6FF},
                                                        {0x900, 0xEFF},
                                                        {0x1E00, 0x1FFF},
                                                        {0x2010, 0x206F},
                                                        {0x3000, 0x30FF},
                                                        {0x4E00, 0x9FFF},
                                                        {0xAC00, 0xD7A3},
                                                        {0xFF00, 0xFFEF}};
  size_t letters = 0, ascii = 0;
  const auto printable = [](unsigned byte) { return byte >= ' ' && byte <= '~'; };
  for (size_t i = 0; i + 1 < sample.size(); i += 2) {
    const auto low = static_cast<unsigned char>(sample[i + (big ? 1 : 0)]),
               high = static_cast<unsigned char>(sample[i + (big ? 0 : 1)]);
    const unsigned unit = low | unsigned{high} << 8;
    ascii += printable(low) && printable(high);
    letters += unit == '\n' || unit == '\r' || unit == '\t' ||
               std::any_of(std::begin(kLetters), std::end(kLetters), [&](const auto& range) {
                 return unit >= range.first && unit <= range.second;
               });
  }
  const size_t units = sample.size() / 2;
  return letters * 10 >= units * 9 && ascii * 2 <= units;
}

/// Whether this is UTF-8 of other letters than ASCII's, which a zero here and there does not change: eight of them for
/// each byte that is ill-formed or a control character, as every other byte of Russian in UTF-16 is.
bool are_utf8_letters(std::string_view sample) {
  size_t letters = 0, faults = 0;
  for (size_t i = 0; i < sample.size();) {
    const text::Utf8Char c = text::decode_utf8(sample, i);
    if (c.cut_short) break;
    const bool control =
        c.bytes == 1 && sample[i] > '\0' && sample[i] < ' ' && !is_white(sample[i]);
    faults += control || !c.well_formed;
    letters += c.well_formed && c.bytes > 1;
    i += c.bytes;
  }
  return letters > 0 && faults * 8 <= letters;
}

/// Escapes to two-byte letters, in a text of seven bits.
bool is_iso_2022_jp(std::string_view head) {
  if (head.find("\x1B$B"sv) == ""sv.npos && head.find("\x1B$@"sv) == ""sv.npos) return false;
  return std::all_of(head.begin(), head.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x80 && (byte >= ' ' || is_white(c) || c == '\x1B');
  });
}

/// UTF-16 and UTF-32 by their marks, or by where their zeros stand.
std::string wide_encoding(std::string_view head) {
  if (head.starts_with("\xFF\xFE\0\0"sv)) return "UTF-32";
  if (head.starts_with("\0\0\xFE\xFF"sv)) return "UTF-32";
  if (head.starts_with("\xFF\xFE"sv) || head.starts_with("\xFE\xFF"sv)) return "UTF-16";
  const std::string_view sample = head.substr(0, std::min<size_t>(head.size(), 4096) & ~size_t{3});
  if (sample.size() < 4) {
    if (head.size() >= 2 && head[0] != '\0' && head[1] == '\0') return "UTF-16LE";
    if (head.size() >= 2 && head[0] == '\0' && head[1] != '\0') return "UTF-16BE";
    return "";
  }
  std::array<size_t, 4> zeros{};
  for (size_t i = 0; i < sample.size(); ++i) zeros[i % 4] += sample[i] == '\0';
  const size_t words = sample.size() / 4;
  const auto mostly = [&](size_t place) { return zeros[place] * 10 >= words * 9; };
  const auto hardly = [&](size_t place) { return zeros[place] * 10 <= words; };
  if (hardly(0) && mostly(2) && mostly(3)) return "UTF-32LE";
  if (mostly(0) && mostly(1) && hardly(3)) return "UTF-32BE";
  const auto often = [&](size_t a, size_t b) { return (zeros[a] + zeros[b]) * 5 >= words * 2; };
  if (often(1, 3) && hardly(0) && hardly(2)) return "UTF-16LE";
  if (often(0, 2) && hardly(1) && hardly(3)) return "UTF-16BE";
  // Where few letters have a zero byte, as of Chinese or Russian, the units themselves must tell.
  if (zeros[0] + zeros[1] + zeros[2] + zeros[3] == 0 || are_utf8_letters(sample)) return "";
  for (const bool big : {false, true})
    if (are_utf16_letters(sample, big)) return big ? "UTF-16BE" : "UTF-16LE";
  return "";
}

size_t skip_white(std::string_view text, size_t at) {
  while (at < text.size() && is_white(text[at])) ++at;
  return at;
}

bool begins_as(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return false;
  for (size_t i = 0; i < lower.size(); ++i)
    if (std::tolower(static_cast<unsigned char>(text[i])) != lower[i]) return false;
  return true;
}

/// Past the JSON string that begins at `at`, or npos if none does that ends in `text`.
size_t skip_string(std::string_view text, size_t at) {
  if (at >= text.size() || text[at] != '"') return ""sv.npos;
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\n') return ""sv.npos;
    if (text[at] == '\\') ++at;
  }
  return at < text.size() ? at + 1 : ""sv.npos;
}

enum class JsonShape { kNone, kLines, kArray, kDocument };

/// The kind of JSON value that begins at `at`: "object", "array", "string", or "" for another.
std::string_view json_kind(std::string_view text, size_t at) {
  if (at >= text.size()) return "";
  return text[at] == '{' ? "object" : text[at] == '[' ? "array" : text[at] == '"' ? "string" : "";
}

/// How the text begins: {"a": on one line is a line of JSON lines; with the brace alone on its line
/// it is a document that somebody laid out; [{" and [" are lists.
JsonShape json_shape(std::string_view text) {
  const size_t first = skip_white(text, 0);
  if (first == text.size() || (text[first] != '{' && text[first] != '[')) return JsonShape::kNone;
  const size_t second = skip_white(text, first + 1);
  if (second == text.size()) return JsonShape::kNone;
  const bool same_line = text.substr(first, second - first).find('\n') == ""sv.npos;
  if (text[first] == '{') {
    if (text[second] == '}') return JsonShape::kLines;
    const size_t colon = skip_string(text, second);
    if (colon == ""sv.npos) return JsonShape::kNone;
    const size_t at = skip_white(text, colon);
    if (at == text.size() || text[at] != ':') return JsonShape::kNone;
    return same_line ? JsonShape::kLines : JsonShape::kDocument;
  }
  if (text[second] == '{') {
    const size_t key = skip_white(text, second + 1);
    const size_t end = skip_string(text, key);
    if (key < text.size() && text[key] == '}') return JsonShape::kArray;
    if (end == ""sv.npos) return JsonShape::kNone;
    const size_t at = skip_white(text, end);
    return at < text.size() && text[at] == ':' ? JsonShape::kArray : JsonShape::kNone;
  }
  const size_t end = skip_string(text, second);
  if (end == ""sv.npos) return JsonShape::kNone;
  const size_t at = skip_white(text, end);
  return at < text.size() && (text[at] == ',' || text[at] == ']') ? JsonShape::kArray
                                                                  : JsonShape::kNone;
}

/// The list that a document begins with, {"data": [, by its name; empty: it begins otherwise.
struct FirstList {
  std::string_view name, element;  // the kind of its first element
};
FirstList first_list(std::string_view text) {
  const size_t key = skip_white(text, skip_white(text, 0) + 1), end = skip_string(text, key);
  if (end == ""sv.npos) return {};
  const size_t colon = skip_white(text, end), value = skip_white(text, colon + 1);
  if (json_kind(text, value) != "array") return {};
  return {text.substr(key + 1, end - key - 2), json_kind(text, skip_white(text, value + 1))};
}

/// Refuses one list, whose first element is of that kind.
tl::unexpected<Status> refuse_list(const std::string& path,
                                   const std::string& packing,
                                   std::string_view element) {
  const std::string command = lines_of_list("", element);
  return refuse(path,
                packing,
                command.empty() ? "one JSON list, of neither objects nor texts"
                                : "one JSON list, not an object a line",
                command);
}

std::string_view without_packing(std::string_view path) {
  for (const std::string_view packed : {".gz"sv, ".dz"sv, ".zst"sv, ".zstd"sv})
    if (path.ends_with(packed)) return path.substr(0, path.size() - packed.size());
  return path;
}

}  // namespace

std::string lines_of_list(std::string_view name, std::string_view element) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
  if (!plain || (element != "object" && element != "string")) return "";
  return fmt::format(
      "jq -c '.{}[]{}' FILE > FILE.jsonl", name, element == "string" ? " | {text: .}" : "");
}

std::string for_this_file(std::string_view command,
                          const std::string& path,
                          const std::string& packing) {
  return for_file(command, path, packing);
}

size_t byte_order_mark(std::string_view head) { return head.starts_with("\xEF\xBB\xBF"sv) ? 3 : 0; }

std::string conversion_from(const std::string& encoding,
                            const std::string& path,
                            const std::string& packing) {
  return for_file(fmt::format("iconv -f {} -t UTF-8 FILE > FILE.utf8", encoding), path, packing);
}

Result<TextKind> identify_text(std::string_view head,
                               const std::string& path,
                               const std::string& packing,
                               bool json) {
  for (const Magic& magic : kMagics)
    if (head.size() >= magic.offset + magic.bytes.size() &&
        head.substr(magic.offset, magic.bytes.size()) == magic.bytes)
      return refuse(path, packing, magic.name, magic.command);
  if (is_old_tar(head)) return refuse(path, packing, "a tar archive", "tar -xf FILE");
  std::string encoding = wide_encoding(head);
  if (encoding.empty() && is_iso_2022_jp(head)) encoding = "ISO-2022-JP";
  if (!encoding.empty()) {
    const std::string name = fmt::format("text in {}", encoding);
    const std::string command = fmt::format("iconv -f {} -t UTF-8 FILE > FILE.utf8", encoding);
    return refuse(path, packing, name, command);
  }

  const std::string_view text = head.substr(byte_order_mark(head));
  const std::string_view ink = text.substr(skip_white(text, 0));
  if (begins_as(ink, "<!doctype html") || begins_as(ink, "<html"))
    return refuse(path, packing, "a web page (HTML)", "w3m -dump -T text/html FILE > FILE.txt");
  if (begins_as(ink, "<mediawiki"))
    return refuse(path, packing, "a dump of a wiki", "wikiextractor --json FILE");
  if (begins_as(ink, "<?xml"))
    return refuse(path, packing, "an XML document", "xmllint --xpath 'string(/)' FILE > FILE.txt");
  const std::string_view name = without_packing(path);
  // A table in text looks like text: here the name is all there is.
  if (name.ends_with(".csv") || name.ends_with(".tsv"))
    return refuse(path, packing, "a table (CSV)", kFromTable);
  const bool named_lines = name.ends_with(".jsonl") || name.ends_with(".ndjson");
  const bool named_json = named_lines || name.ends_with(".json");
  if (json && (named_json || ink.starts_with('{') || ink.starts_with('[')))
    return TextKind::kJsonLines;
  switch (json_shape(text)) {
    case JsonShape::kLines: return TextKind::kJsonLines;
    case JsonShape::kArray:
      if (named_lines && ink.starts_with("[\"")) break;  // a line that is no object: told as one
      return refuse_list(path, packing, json_kind(ink, skip_white(ink, 1)));
    case JsonShape::kDocument: {
      const FirstList list = first_list(ink);
      if (name.ends_with(".ipynb") || list.name == "cells")
        return refuse(path, packing, "a notebook (Jupyter)", kFromNotebook);
      const std::string command = lines_of_list(list.name, list.element);
      return refuse(path,
                    packing,
                    "JSON laid out over several lines",
                    command.empty() || list.name.empty() ? "jq -c . FILE > FILE.jsonl" : command);
    }
    case JsonShape::kNone:
      if (named_json && !named_lines && ink.starts_with('['))
        return refuse_list(path, packing, json_kind(ink, skip_white(ink, 1)));
      break;
  }
  // A first line that does not fit: its name decides.
  return named_json && (named_lines || ink.starts_with('{')) ? TextKind::kJsonLines
                                                             : TextKind::kText;
}

namespace {

/// Walks a text of an encoding of one and two bytes. `common` of the characters beyond ASCII, in
/// parts of all of them; -1 if some cannot be.
template <typename Step>
double share_of_common(std::string_view text, Step step) {
  size_t wide = 0, common = 0;
  for (size_t i = 0; i < text.size();) {
    const auto a = static_cast<unsigned char>(text[i]);
    if (a < 0x80) {
      ++i;
      continue;
    }
    if (i + 1 == text.size()) break;  // cut by the sample's end
    const auto b = static_cast<unsigned char>(text[i + 1]);
    const int kind = step(a, b);  // 0: cannot be; 1: one byte; 2, 3: two bytes, common or not
    if (kind == 0) return -1;
    i += kind == 1 ? 1 : 2;
    ++wide;
    common += kind == 2;
  }
  return wide == 0 ? -1 : static_cast<double>(common) / static_cast<double>(wide);
}

bool within(unsigned char c, int least, int most) { return c >= least && c <= most; }

int shift_jis(unsigned char a, unsigned char b) {
  if (within(a, 0xA1, 0xDF)) return 1;  // half-width katakana
  if (!(within(a, 0x81, 0x9F) || within(a, 0xE0, 0xFC)) || b < 0x40 || b == 0x7F || b > 0xFC)
    return 0;
  return within(a, 0x81, 0x83) || within(a, 0x88, 0x97) ? 2 : 3;  // kana, first level
}
int euc_jp(unsigned char a, unsigned char b) {
  if (a == 0x8F) return 1;  // of three; the other two follow as a pair
  if (!within(a, 0xA1, 0xFE) && a != 0x8E) return 0;
  if (!within(b, 0xA1, 0xFE)) return 0;
  return a == 0xA4 || a == 0xA5 ? 2 : 3;  // kana
}
int euc_kr(unsigned char a, unsigned char b) {
  if (!within(a, 0xA1, 0xFE) || !within(b, 0xA1, 0xFE)) return 0;
  return within(a, 0xB0, 0xC8) ? 2 : 3;  // Hangul
}
int gb18030(unsigned char a, unsigned char b) {
  if (!within(a, 0x81, 0xFE) || b < 0x40 || b == 0x7F || b == 0xFF) return 0;
  return within(a, 0xB0, 0xD7) && b >= 0xA1 ? 2 : a == 0xA1 || a == 0xA3 ? 2 : 3;  // first level
}
int big5(unsigned char a, unsigned char b) {
  if (!within(a, 0xA1, 0xF9) || !(within(b, 0x40, 0x7E) || within(b, 0xA1, 0xFE))) return 0;
  return within(a, 0xA4, 0xC6) || a == 0xA1 ? 2 : 3;
}

}  // namespace

std::string guess_encoding(std::string_view text) {
  size_t high = 0, runs = 0, letters = 0, zeros = 0, lower_half = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    zeros += c == 0;
    if (c < 0x80) continue;
    ++high;
    letters += c >= 0xC0;
    lower_half += c >= 0xE0;
    runs += i == 0 || static_cast<unsigned char>(text[i - 1]) < 0x80;
  }
  if (high == 0 || zeros > 0) return "";
  // Letters of western languages stand between ASCII's: runs of high bytes are short.
  if (high * 2 <= runs * 3) return "WINDOWS-1252";
  struct Candidate {
    const char* name;
    double share, least;
  };
  const Candidate candidates[] = {
      {"EUC-JP", share_of_common(text, euc_jp), 0.25},
      {"SHIFT_JIS", share_of_common(text, shift_jis), 0.6},
      {"EUC-KR", share_of_common(text, euc_kr), 0.75},
      {"GB18030", share_of_common(text, gb18030), 0.7},
      {"BIG5", share_of_common(text, big5), 0.7},
  };
  for (const Candidate& c : candidates)
    if (c.share >= c.least) return c.name;
  // Russian: small letters, of which most text consists, are the upper half in one, the lower in
  // the other.
  if (letters * 10 >= high * 8) return lower_half * 2 > letters ? "WINDOWS-1251" : "KOI8-R";
  return "";
}

}  // namespace ferry::data
