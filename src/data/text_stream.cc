#include "data/text_stream.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/counted.h"
#include "text/utf8.h"

namespace ferry::data {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
constexpr size_t kSampleBytes = size_t{64} << 10;  // to guess an encoding from
constexpr uint64_t kBytesPerDamage = uint64_t{64} << 10;
constexpr uint64_t kCharactersPerDamage = 8;

/// The first byte at or after `from` that is ill-formed or zero, and how many characters beyond
/// ASCII stand before it. A character that the end of the text cuts is no fault: `cut` is where it
/// begins, or the text's size.
struct Fault {
  size_t at, cut;
  uint64_t wide;
};
Fault find_fault(std::string_view text, size_t from) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHighs = 0x8080808080808080;
  Fault fault{text.size(), text.size(), 0};
  for (size_t i = from; i < text.size();) {
    uint64_t eight = 0;
    if (i + sizeof eight <= text.size()) {
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if (((eight | ((eight - kOnes) & ~eight)) & kHighs) == 0) {  // all ASCII, none zero
        i += sizeof eight;
        continue;
      }
    }
    if (text[i] == '\0') {
      fault.at = i;
      return fault;
    }
    const text::Utf8Char c = text::decode_utf8(text, i);
    if (!c.well_formed) {
      if (c.cut_short)
        fault.cut = i;
      else
        fault.at = i;
      return fault;
    }
    fault.wide += c.bytes > 1;
    i += c.bytes;
  }
  return fault;
}

/// Whether damage is in so few lines of a sample that a text is left without them: of a text in another encoding it is
/// in most. A character that the sample's edges cut is no damage.
bool is_in_few_lines(std::string_view sample) {
  constexpr size_t kLinesPerDamaged = 5;
  const auto continues = [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
  };
  for (int cut = 0; cut < 3 && !sample.empty() && continues(sample[0]); ++cut)
    sample.remove_prefix(1);
  size_t lines = 0, damaged = 0;
  for (size_t begin = 0; begin < sample.size(); ++lines) {
    const size_t end = std::min(sample.find('\n', begin), sample.size() - 1) + 1;
    const std::string_view line = sample.substr(begin, end - begin);
    damaged += find_fault(line, 0).at < line.size();
    begin = end;
  }
  return damaged * kLinesPerDamaged <= lines;
}

}  // namespace

IllFormed describe_ill_formed(std::string_view sample, size_t at, const ByteStream& file) {
  const auto byte = static_cast<unsigned char>(sample[at]);
  const size_t begin = at > kSampleBytes / 2 ? at - kSampleBytes / 2 : 0;
  const std::string_view around = sample.substr(begin, kSampleBytes);
  const std::string encoding = guess_encoding(around);
  IllFormed told;
  told.among_good = is_in_few_lines(around);
  told.why = byte == 0 ? "holds a zero byte, which no text does"
                       : fmt::format("is not UTF-8 (byte 0x{:02X})", byte);
  if (!encoding.empty())
    told.advice = fmt::format("perhaps the text is in {}; then convert it: {}",
                              encoding,
                              conversion_from(encoding, file.path(), file.packing()));
  else if (byte != 0)
    told.advice = "if the text is in another encoding, convert it: " +
                  conversion_from("ENCODING", file.path(), file.packing());
  else
    told.advice = "take the text out of the file first";
  return told;
}

Result<void> BadLines::add(Code code,
                           uint64_t line,
                           uint64_t offset,
                           const std::string& why,
                           const std::string& advice,
                           bool among_good) {
  if (before_ + damage_.skipped < allowed_) {
    ++damage_.skipped;
    if (damage_.lines.size() < kDamageLinesMax) damage_.lines.push_back({line, why});
    return {};
  }
  std::string more = hint_.empty() ? "" : "; " + hint_;
  if (among_good && !line_hint_.empty()) more += (more.empty() ? "; " : ", ") + line_hint_;
  if (allowed_ > 0)
    more = fmt::format(
        "; {} left out, and no more may be",
        counted(before_ + damage_.skipped, "bad line before it was", "bad lines before it were"));
  return fail(
      code, "{}: line {} (byte {} of the text): {}; {}{}", path_, line, offset, why, advice, more);
}

struct TextStream::State {
  State(ByteStream b, const TextOptions& o)
      : bytes(std::move(b)), options(o), bad(bytes.path(), o) {}

  ByteStream bytes;
  TextOptions options;
  BadLines bad;
  TextKind kind = TextKind::kText;
  bool checked = false;     // whether the bytes have to be UTF-8
  size_t mark = 0;          // bytes of the byte-order mark that are still to be left out
  uint64_t line = 1;        // of the next byte that is checked
  uint64_t offset = 0;      // in the text, of the same
  uint64_t wide = 0;        // characters beyond ASCII so far
  std::string carry;        // a character that a block's end cut
  std::string held, ready;  // with skip_bad: lines that are not yet checked; what can be given
  size_t given = 0;         // of `ready`
  bool ended = false;

  Result<size_t> read_bytes(char* out, size_t size) {
    for (;;) {
      TRY_ASSIGN(const size_t n, bytes.read(out, size));
      const size_t left_out = std::min(n, mark);
      mark -= left_out;
      offset += left_out;
      if (left_out == 0 || n == 0) return n;
      if (n == left_out) continue;
      std::memmove(out, out + left_out, n - left_out);
      return n - left_out;
    }
  }

  void pass(std::string_view text) {
    line += static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
    offset += text.size();
  }

  /// Counts one ill-formed byte, the next to be passed. Errors: if they are no longer rare.
  Result<void> damaged(std::string_view sample, size_t at) {
    Damage& damage = bad.damage();
    if (damage.ill_formed++ == 0) damage.ill_formed_line = line;
    if (damage.ill_formed <= offset / kBytesPerDamage + wide / kCharactersPerDamage) return {};
    const IllFormed told = describe_ill_formed(sample, at, bytes);
    return bad.add(Code::kInvalidInput, line, offset, told.why, told.advice, told.among_good);
  }

  /// Judges what is given out as it is.
  Result<void> judge(std::string_view block, bool last) {
    std::string joined;
    std::string_view text = block;
    if (!carry.empty()) {
      joined = carry;
      joined += block;
      text = joined;
      carry.clear();
    }
    size_t at = 0;
    for (;;) {
      const Fault fault = find_fault(text, at);
      wide += fault.wide;
      size_t bad_at = fault.at;
      if (fault.cut < text.size()) {
        if (!last) {
          pass(text.substr(at, fault.cut - at));
          carry = text.substr(fault.cut);
          return {};
        }
        bad_at = fault.cut;
      }
      pass(text.substr(at, bad_at - at));
      if (bad_at == text.size()) return {};
      TRY(damaged(text, bad_at));
      pass(text.substr(bad_at, 1));
      at = bad_at + 1;
    }
  }

  /// With skip_bad: makes some whole lines ready.
  Result<void> ready_lines() {
    ready.clear();
    given = 0;
    while (ready.empty() && !(ended && held.empty())) {
      const size_t before = held.size();
      if (!ended) {
        held.resize(before + kReadBytes);
        TRY_ASSIGN(const size_t n, read_bytes(held.data() + before, kReadBytes));
        held.resize(before + n);
        ended = n == 0;
      }
      size_t whole = held.size();
      if (!ended) {
        const size_t newline = std::string_view(held).substr(before).rfind('\n');
        if (newline == std::string_view::npos) {
          if (held.size() > kLineBytesMax)
            return fail(Code::kInvalidInput,
                        "{}: line {} (byte {} of the text): is longer than {} MiB, too long to be "
                        "held whole, as --skip-bad needs it; break the line, or read without",
                        bytes.path(),
                        line,
                        offset,
                        kLineBytesMax >> 20);
          continue;
        }
        whole = before + newline + 1;
      }
      TRY(choose_lines(std::string_view(held).substr(0, whole)));
      held.erase(0, whole);
    }
    return {};
  }

  Result<void> choose_lines(std::string_view lines) {
    const auto first_bad = [](std::string_view text) {
      const Fault fault = find_fault(text, 0);
      return std::min(fault.at, fault.cut);
    };
    if (first_bad(lines) == lines.size()) {
      pass(lines);
      ready = lines;
      return {};
    }
    for (size_t begin = 0; begin < lines.size();) {
      const size_t newline = lines.find('\n', begin);
      const size_t end = newline == std::string_view::npos ? lines.size() : newline + 1;
      const std::string_view one = lines.substr(begin, end - begin);
      if (const size_t at = first_bad(one); at < one.size()) {
        const IllFormed told = describe_ill_formed(lines, begin + at, bytes);
        TRY(bad.add(Code::kInvalidInput, line, offset, told.why, told.advice, told.among_good));
      } else {
        ready += one;
      }
      pass(one);
      begin = end;
    }
    return {};
  }
};

TextStream::TextStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
TextStream::TextStream(TextStream&&) noexcept = default;
TextStream& TextStream::operator=(TextStream&&) noexcept = default;
TextStream::~TextStream() = default;

Result<TextStream> TextStream::open(const std::string& path, const TextOptions& options) {
  TRY_ASSIGN(ByteStream bytes, ByteStream::open(path));
  return over(std::move(bytes), options);
}

Result<TextStream> TextStream::standard_input(const TextOptions& options) {
  TRY_ASSIGN(ByteStream bytes, ByteStream::standard_input());
  return over(std::move(bytes), options);
}

Result<TextStream> TextStream::over(ByteStream bytes, const TextOptions& options) {
  auto state = std::make_unique<State>(std::move(bytes), options);
  if (!options.as_text) {
    const ByteStream& b = state->bytes;
    const Result<TextKind> kind = identify_text(b.head(), b.path(), b.packing(), options.json);
    if (!kind && !options.hint.empty())
      return fail(kind.error().code, "{}; {}", kind.error().message, options.hint);
    if (!kind) return tl::unexpected(kind.error());
    state->kind = *kind;
    state->mark = byte_order_mark(b.head());
    state->checked = state->kind == TextKind::kText;
  }
  return TextStream(std::move(state));
}

TextKind TextStream::kind() const { return state_->kind; }
BadLines& TextStream::bad_lines() { return state_->bad; }
ByteStream& TextStream::bytes() { return state_->bytes; }

Result<size_t> TextStream::read(char* out, size_t size) {
  State& s = *state_;
  if (s.checked && s.bad.allows_any()) {
    if (s.given == s.ready.size()) TRY(s.ready_lines());
    const size_t n = std::min(size, s.ready.size() - s.given);
    if (n > 0) std::memcpy(out, s.ready.data() + s.given, n);
    s.given += n;
    return n;
  }
  TRY_ASSIGN(const size_t n, s.read_bytes(out, size));
  if (s.checked) TRY(s.judge({out, n}, n == 0));
  return n;
}

Result<std::string> read_text(const std::string& path,
                              const TextOptions& options,
                              uint64_t bytes_max) {
  TRY_ASSIGN(TextStream stream, TextStream::open(path, options));
  std::string text;
  for (;;) {
    const size_t size = text.size();
    text.resize(size + kReadBytes);
    TRY_ASSIGN(const size_t n, stream.read(text.data() + size, kReadBytes));
    text.resize(size + n);
    if (n == 0) return text;
    if (text.size() > bytes_max)
      return fail(Code::kInvalidInput, "{}: holds more than {} bytes of text", path, bytes_max);
  }
}

}  // namespace ferry::data
