#include "data/text_source.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/json.h"
#include "base/python_json.h"
#include "text/utf8.h"

namespace ferry::data {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

/// The length of a first piece of `text`, at most kPieceBytes. Needs more than that.
size_t piece_length(std::string_view text) {
  constexpr size_t kLookBack = size_t{64} << 10;
  for (size_t n = kPieceBytes; n > kPieceBytes - kLookBack; --n)
    if (is_space(text[n]) && !is_space(text[n - 1])) return n;  // white space begins the next piece
  size_t n = kPieceBytes;
  for (int back = 0; back < 3 && continues_character(text[n]); ++back) --n;
  return n;
}

/// Bytes read ahead of what has been used.
struct Window {
  TextStream stream;
  std::string buffer;
  size_t begin = 0;  // of what has not been used
  bool ended = false;

  std::string_view ahead() const { return std::string_view(buffer).substr(begin); }

  /// Appends some bytes; positions in the buffer move down by what this returns.
  Result<size_t> read_more() {
    const size_t dropped = begin;
    buffer.erase(0, begin);
    begin = 0;
    const size_t size = buffer.size();
    buffer.resize(size + kReadBytes);
    TRY_ASSIGN(const size_t n, stream.read(buffer.data() + size, kReadBytes));
    buffer.resize(size + n);
    ended = n == 0;
    return dropped;
  }
};

/// Documents of a text file. A document begins at the start of the line that holds its first ink
/// (byte that is no white space), but whether it does is known only when that ink is met.
class TextDocuments {
 public:
  TextDocuments(TextStream stream, const SourceOptions& options)
      : in_{std::move(stream)}, options_(options) {}

  Result<bool> next(Piece& piece) {
    for (;;) {
      if (const std::optional<size_t> boundary = find_boundary()) {
        take(piece, *boundary - in_.begin, true);
        return true;
      }
      if (in_.ahead().size() > kPieceBytes) {
        take(piece, piece_length(in_.ahead()), false);
        return true;
      }
      if (in_.ended) {
        if (in_.ahead().empty() && document_bytes_ == 0) return false;
        take(piece, in_.ahead().size(), true);
        return true;
      }
      TRY_ASSIGN(const size_t dropped, in_.read_more());
      scan_ -= dropped;
      line_start_ = line_start_ > dropped ? line_start_ - dropped : 0;
    }
  }

  TextStream& stream() { return in_.stream; }

 private:
  void take(Piece& piece, size_t size, bool last) {
    piece.text.assign(in_.buffer, in_.begin, size);
    piece.last = last;
    in_.begin += size;
    scan_ = std::max(scan_, in_.begin);
    document_bytes_ = last ? 0 : document_bytes_ + size;
  }

  /// Where the next document begins, if that lies in the buffer and not more than a piece away.
  /// Goes on from scan_, each byte once.
  std::optional<size_t> find_boundary() {
    const std::string& text = in_.buffer;
    const size_t limit = std::min(text.size(), in_.begin + kPieceBytes + 1);
    if (options_.split == Split::kFile) scan_ = text.size();
    while (scan_ < limit) {
      if (line_has_ink_) {
        const size_t newline = text.find('\n', scan_);
        scan_ = newline == std::string::npos ? text.size() : newline + 1;
        if (newline != std::string::npos) start_line(false);
      } else if (text[scan_] == '\n') {
        ++scan_;
        start_line(true);
      } else if (is_space(text[scan_])) {
        ++scan_;
        indented_ = true;
      } else {
        if (options_.split == Split::kPrefix && !in_.ended &&
            text.size() - line_start_ < options_.prefix.size())
          return std::nullopt;  // too little of the line to tell
        line_has_ink_ = true;
        const size_t at = std::max(line_start_, in_.begin);
        const uint64_t bytes = document_bytes_ + (at - in_.begin);
        const bool ends =
            document_has_ink_ && bytes >= options_.min_document_bytes && line_begins_document();
        document_has_ink_ = true;
        if (ends) return at;
      }
    }
    return std::nullopt;
  }

  void start_line(bool after_blank) {
    after_blank_ = after_blank;
    line_has_ink_ = indented_ = false;
    line_start_ = scan_;
  }

  bool line_begins_document() const {
    switch (options_.split) {
      case Split::kFile: return false;
      case Split::kParagraph: return after_blank_;
      case Split::kEntry: return after_blank_ && !indented_;
      case Split::kLine: return true;
      case Split::kPrefix:
        return line_start_ >= in_.begin &&
               std::string_view(in_.buffer).substr(line_start_).starts_with(options_.prefix);
    }
    return false;
  }

  Window in_;
  SourceOptions options_;
  uint64_t document_bytes_ = 0;  // of the current document, in pieces already given
  bool document_has_ink_ = false;
  size_t scan_ = 0, line_start_ = 0;  // positions in the buffer; of a line begun before it: 0
  bool line_has_ink_ = false, indented_ = false, after_blank_ = false;
};

/// Takes the text out of one line of JSON without building the rest of it: whatever a line holds,
/// memory is that of its longest string. If the field comes twice, the last counts.
class FieldFinder : public nlohmann::json_sax<nlohmann::json> {
 public:
  FieldFinder(const std::string& field, std::string& out) : field_(field), out_(out) {}

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("boolean"); }
  bool number_integer(number_integer_t) override { return value("number"); }
  bool number_unsigned(number_unsigned_t) override { return value("number"); }
  bool number_float(number_float_t, const string_t&) override { return value("number"); }
  bool binary(binary_t&) override { return value("binary"); }
  bool string(string_t& text) override {
    if (wanted_) out_ = std::move(text);
    return value("string");
  }
  bool start_object(size_t) override { return open("object"); }
  bool start_array(size_t) override { return open("array"); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (object_ && depth_ == 3) {
      speaker_ = speaker_ || name == "role" || name == "from";
      words_ = words_ || name == "content" || name == "value";
    }
    if (depth_ != 1 || !object_) return true;
    wanted_ = name == field_;
    name_ = shortened(name);
    if (names_.size() < 200) names_ += (names_.empty() ? "" : ", ") + shortened(name);
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    problem_ = shortened(e.what());
    return false;
  }

  const std::string& problem() const { return problem_; }  // why it is no JSON
  bool object() const { return object_; }
  const std::string& line_type() const { return line_type_; }
  /// Of a line that is one list of many (the lines that were meant): its name, and what its first element
  /// is. Lines with a text beside it are none.
  const std::string& list() const { return texts_ > 0 ? kNone : list_; }
  /// Whether objects in its lists are what somebody says.
  bool holds_messages() const { return speaker_ && words_; }
  const std::string& element() const { return element_; }
  const std::string& type() const { return type_; }  // of the field; empty: it is not there
  const std::string& names() const { return names_; }

 private:
  /// Fit for a message: a key or a string may be as long as the line.
  static std::string shortened(const std::string& text) {
    constexpr size_t kShown = 300;
    return text.size() <= kShown ? text : text::replace_ill_formed(text.substr(0, kShown)) + "...";
  }
  bool value(std::string_view type) {
    if (depth_ == 0) line_type_ = type;
    if (depth_ == 1 && type == "string") ++texts_;
    if (depth_ == 1 && type == "array" && list_.empty()) list_ = name_;
    if (depth_ == 2 && !list_.empty() && element_.empty()) element_ = type;
    if (wanted_) type_ = type;
    wanted_ = false;
    return true;
  }
  bool open(const char* type) {
    if (depth_ == 0) object_ = type[0] == 'o';
    value(type);
    ++depth_;
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  const std::string& field_;
  std::string& out_;
  inline static const std::string kNone;
  std::string problem_, type_, names_, name_, list_, element_, line_type_;
  size_t texts_ = 0;
  size_t depth_ = 0;
  bool object_ = false, speaker_ = false, words_ = false;
  bool wanted_ = false;  // the next value is the field's
};

/// The text field of each line.
class JsonDocuments {
 public:
  JsonDocuments(TextStream stream, const SourceOptions& options)
      : in_{std::move(stream)}, options_(options) {}

  Result<bool> next(Piece& piece) {
    while (given_ == document_.size()) {
      TRY_ASSIGN(const bool more, next_line());
      if (!more) return false;
    }
    const std::string_view rest = std::string_view(document_).substr(given_);
    const size_t size = rest.size() > kPieceBytes ? piece_length(rest) : rest.size();
    piece.text = rest.substr(0, size);
    given_ += size;
    piece.last = given_ == document_.size();
    return true;
  }

  TextStream& stream() { return in_.stream; }

 private:
  const std::string& path() { return in_.stream.bytes().path(); }

  Result<bool> next_line() {
    size_t searched = 0;
    size_t newline = std::string_view::npos;
    while ((newline = in_.ahead().find('\n', searched)) == std::string_view::npos && !in_.ended) {
      searched = in_.ahead().size();
      if (searched > kLineBytesMax)
        return fail(Code::kInvalidInput,
                    "{}: line {} (byte {} of the text): is longer than {} MiB; put its text into a "
                    ".txt file instead",
                    path(),
                    line_ + 1,
                    offset_,
                    kLineBytesMax >> 20);
      TRY(in_.read_more());
    }
    const std::string_view line = in_.ahead().substr(0, newline);
    if (line.empty() && newline == std::string_view::npos) return false;
    ++line_;
    used_ = line.size() + (newline == std::string_view::npos ? 0 : 1);
    TRY(parse(line));
    in_.begin += used_;
    offset_ += used_;
    return true;
  }

  Result<void> bad(Code code, const std::string& why, const std::string& advice) {
    document_.clear();
    TRY_ASSIGN(const bool among_good, is_among_good());
    return in_.stream.bad_lines().add(code, line_, offset_, why, advice, among_good);
  }

  /// Whether a line was read before this one, or the next can be. Waits for it, and what was a view of the line is none
  /// then.
  Result<bool> is_among_good() {
    if (any_read_ || options_.takes) return true;
    const auto next = [&] { return in_.ahead().substr(std::min(used_, in_.ahead().size())); };
    while (!in_.ended && next().find('\n') == std::string_view::npos &&
           in_.ahead().size() <= kLineBytesMax)
      TRY(in_.read_more());
    std::string text;
    FieldFinder found(options_.field, text);
    return nlohmann::json::sax_parse(next().substr(0, next().find('\n')), &found) &&
           found.object() && found.type() == "string";
  }

  Result<void> parse(std::string_view line) {
    document_.clear();
    given_ = 0;
    if (std::all_of(line.begin(), line.end(), is_space)) return {};
    if (options_.takes) return take(line);
    std::optional<FieldFinder> found;
    const auto parses = [&](std::string_view text) {
      document_.clear();
      found.emplace(options_.field, document_);
      return nlohmann::json::sax_parse(text, &*found);
    };
    const size_t zero = zero_byte(line);
    bool json = zero == line.npos && parses(line);
    if (!json && zero == line.npos) {
      const std::string problem = found->problem();
      const std::string other = without_odd_numbers(line, OddNumber::kNull);
      json = !other.empty() && parses(other);
      if (!json) return not_json(line, problem);
    }
    return json ? checked(*found) : not_json(line, fmt::format("byte {} of it is zero", zero + 1));
  }

  Result<void> take(std::string_view line) {
    if (line.size() > kPieceBytes)
      return bad(Code::kInvalidInput,
                 fmt::format("is longer than {} KiB", kPieceBytes >> 10),
                 "shorten or remove it");
    const Result<void> taken = options_.takes(line);
    if (!taken) return bad(taken.error().code, taken.error().message, "correct or remove the line");
    document_ = line;
    return {};
  }

  Result<void> not_json(std::string_view line, const std::string& problem) {
    if (const size_t good = text::well_formed_prefix(line); good < line.size()) {
      const IllFormed told = describe_ill_formed(in_.ahead(), good, in_.stream.bytes());
      document_.clear();
      // What is ahead may be few lines, or a part of one: of those before it is known that they were read.
      return in_.stream.bad_lines().add(
          Code::kCorrupt, line_, offset_, told.why, told.advice, any_read_ || told.among_good);
    }
    return bad(
        Code::kCorrupt, fmt::format("is not JSON: {}", problem), "correct or remove the line");
  }

  std::string command(const std::string& of_file) {
    const ByteStream& bytes = in_.stream.bytes();
    return for_this_file(of_file, bytes.path(), bytes.packing());
  }

  Result<void> checked(const FieldFinder& found) {
    if (!found.object())
      return bad(Code::kInvalidInput,
                 fmt::format("is a JSON {}, not an object", found.line_type()),
                 found.line_type() == "string" ? "make objects of the lines: " +
                                                     command("jq -c '{text: .}' FILE > FILE.jsonl")
                                               : "correct or remove the line");
    any_read_ = any_read_ || found.type() == "string";
    if (found.type() == "string") return {};
    if (found.holds_messages())
      return bad(Code::kInvalidInput,
                 fmt::format("holds a conversation, and no text in a field '{}'", options_.field),
                 "what a model learns from conversations is prepared by ferry data prepare --chat");
    const std::string lines = lines_of_list(found.list(), found.element());
    if (!found.list().empty() && !lines.empty()) {
      TRY_ASSIGN(const bool only, is_only_line());
      if (only)
        return bad(Code::kInvalidInput,
                   fmt::format("is one object with a list, '{}'", found.list()),
                   "make a line of each element: " + command(lines));
    }
    if (found.type().empty())
      return bad(Code::kInvalidInput,
                 fmt::format("has no field '{}' (it has: {})",
                             options_.field,
                             found.names().empty() ? "none" : found.names()),
                 "name the field that holds the text with --field");
    return bad(Code::kInvalidInput,
               fmt::format("has a field '{}' of type {}, not string", options_.field, found.type()),
               "name the field that holds the text with --field");
  }

  /// Waits for what follows the line, where a pipe has not given it yet. What was a view of the line is none then.
  Result<bool> is_only_line() {
    while (line_ == 1 && !in_.ended && in_.ahead().size() <= used_) TRY(in_.read_more());
    return line_ == 1 && in_.ahead().size() <= used_;
  }

  Window in_;
  SourceOptions options_;
  std::string document_;
  size_t given_ = 0;
  uint64_t line_ = 0, offset_ = 0;
  size_t used_ = 0;  // by this line, with its end
  bool any_read_ = false;
};

constexpr struct {
  Split split;
  const char* name;
} kSplitNames[] = {
    {Split::kFile, "file"},
    {Split::kParagraph, "paragraph"},
    {Split::kEntry, "entry"},
    {Split::kLine, "line"},
};

}  // namespace

Result<void> parse_split(std::string_view name, SourceOptions& options) {
  for (const auto& known : kSplitNames)
    if (name == known.name) {
      options.split = known.split;
      options.prefix.clear();
      return {};
    }
  constexpr std::string_view kPrefix = "prefix:";
  if (name.starts_with(kPrefix)) {
    const std::string_view prefix = name.substr(kPrefix.size());
    if (prefix.empty() || is_space(prefix[0]) || prefix.find('\n') != prefix.npos ||
        prefix.size() > 1024)
      return fail(Code::kInvalidInput,
                  "--split prefix:TEXT: TEXT must be 1 to 1024 bytes of one line that begin with "
                  "no white space");
    options.split = Split::kPrefix;
    options.prefix = prefix;
    return {};
  }
  return fail(Code::kInvalidInput,
              "--split {}: unknown; possible are file, paragraph, entry, line and prefix:TEXT",
              name);
}

std::string split_name(const SourceOptions& options) {
  for (const auto& known : kSplitNames)
    if (options.split == known.split) return known.name;
  return "prefix:" + options.prefix;
}

struct DocumentReader::State {
  std::optional<TextDocuments> text;
  std::optional<JsonDocuments> json;
  TextStream& stream() { return text ? text->stream() : json->stream(); }
};

DocumentReader::DocumentReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
DocumentReader::DocumentReader(DocumentReader&&) noexcept = default;
DocumentReader& DocumentReader::operator=(DocumentReader&&) noexcept = default;
DocumentReader::~DocumentReader() = default;

Result<DocumentReader> DocumentReader::open(const std::string& path, const SourceOptions& options) {
  TRY_ASSIGN(TextStream stream, TextStream::open(path, options.text));
  return over(std::move(stream), options);
}

Result<DocumentReader> DocumentReader::over(TextStream stream, const SourceOptions& options) {
  if (options.takes && stream.kind() != TextKind::kJsonLines)
    return fail(Code::kInvalidInput,
                "{}: is not a file of conversations, which has one in JSON on each line: "
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"...\"}}, ...]}}",
                stream.bytes().path());
  auto state = std::make_unique<State>();
  if (stream.kind() == TextKind::kJsonLines)
    state->json.emplace(std::move(stream), options);
  else
    state->text.emplace(std::move(stream), options);
  return DocumentReader(std::move(state));
}

Result<bool> DocumentReader::next(Piece& piece) {
  return state_->text ? state_->text->next(piece) : state_->json->next(piece);
}

uint64_t DocumentReader::file_bytes_read() const {
  return state_->stream().bytes().file_bytes_read();
}
std::string DocumentReader::file_hash() { return state_->stream().bytes().file_hash(); }
const Damage& DocumentReader::damage() const { return state_->stream().bad_lines().damage(); }

Result<void> each_document(DocumentReader& reader,
                           size_t bytes_max,
                           const std::function<Result<bool>(std::string_view text)>& take) {
  std::string document;
  Piece piece;
  for (;;) {
    TRY_ASSIGN(const bool more, reader.next(piece));
    if (!more) return {};
    document += piece.text;
    if (!piece.last && document.size() < bytes_max) continue;
    TRY_ASSIGN(const bool wanted, take(document));
    if (!wanted) return {};
    document.clear();
  }
}

}  // namespace ferry::data
