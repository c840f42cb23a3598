#include "text/pretokenizer.h"

#include "base/check.h"
#include "text/stand_ins.h"
#include "text/utf8.h"

namespace ferry::text {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::vector<std::string> kDeepseekPatterns = {
    R"(\p{N}{1,3})",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};

// The ranges are digits of Unicode 17, which Rust knows and Oniguruma's \\p{N} does not.
const char* const kDigitPattern = "[\\p{N}\U00011DE0-\U00011DE9\U00016FF4-\U00016FF6]";
const char* const kDigitsPattern = "[\\p{N}\U00011DE0-\U00011DE9\U00016FF4-\U00016FF6]+";

namespace {

/// One character of raw text as the patterns are to see it; an ill-formed stretch goes byte by
/// byte.
struct Seen {
  char32_t point, code;  // stand-in, or as it is
  size_t bytes;
};
Seen see(std::string_view text, size_t offset) {
  const Utf8Char c = decode_utf8(text, offset);
  if (!c.well_formed) return {kReplacement, kReplacement, 1};
  return {stand_in_of(c.point), c.point, c.bytes};
}

/// The offset of the first character that the patterns must not see as it is, or text.size().
size_t plain_prefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    if (static_cast<signed char>(text[i]) >= 0) {
      ++i;
      continue;
    }
    const Utf8Char c = decode_utf8(text, i);
    if (!c.well_formed || stand_in_of(c.point) != c.point) return i;
    i += c.bytes;
  }
  return i;
}

size_t utf8_length(char32_t point) {
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

}  // namespace

Result<PreTokenizer> PreTokenizer::compile(const std::vector<std::string>& patterns) {
  std::vector<SplitRegex> compiled;
  for (const std::string& pattern : patterns) {
    TRY_ASSIGN(SplitRegex regex, SplitRegex::compile(pattern));
    compiled.push_back(std::move(regex));
  }
  return PreTokenizer(std::move(compiled));
}

void PreTokenizer::run(std::string_view text,
                       MatchScratch& scratch,
                       Emit emit,
                       void* context) const {
  if (patterns_.empty()) {
    if (!text.empty()) emit(context, text);
    return;
  }
  const size_t plain = plain_prefix(text);
  if (plain == text.size()) return level(0, {text, text}, scratch, emit, context);

  std::string shown(text.substr(0, plain)), codes(shown);
  for (size_t i = plain; i < text.size();) {
    const Seen c = see(text, i);
    append_utf8(shown, c.point);
    append_utf8(codes, c.code);
    i += c.bytes;
  }
  check(shown.size() == codes.size(), "pretokenizer: stand-ins of another length");
  // The pieces of what is shown come in order, so walking both texts side by side finds the raw
  // ones.
  size_t raw = 0;
  const auto back = [&](std::string_view piece) {
    const size_t begin = raw;
    for (size_t left = piece.size(); left > 0;) {
      const Seen c = see(text, raw);
      raw += c.bytes;
      left -= utf8_length(c.point);
    }
    emit(context, text.substr(begin, raw - begin));
  };
  level(
      0,
      {shown, codes},
      scratch,
      [](void* f, std::string_view p) { (*static_cast<decltype(back)*>(f))(p); },
      const_cast<void*>(static_cast<const void*>(&back)));
  check(raw == text.size(), "pretokenizer: pieces cover {} of {} bytes", raw, text.size());
}

void PreTokenizer::level(
    size_t depth, const Views& text, MatchScratch& scratch, Emit emit, void* context) const {
  const size_t size = text.by_category.size();
  if (size == 0) return;
  if (depth == patterns_.size()) return emit(context, text.by_category);
  const SplitRegex& pattern = patterns_[depth];
  const std::string_view seen = pattern.by_code() ? text.by_code : text.by_category;
  size_t done = 0;
  size_t from = 0;
  SplitRegex::Match match{};
  while (from <= size && pattern.find(seen, from, scratch, match)) {
    level(depth + 1, text.part(done, match.begin), scratch, emit, context);
    level(depth + 1, text.part(match.begin, match.end), scratch, emit, context);
    done = match.end;
    from = match.end;
    if (match.end == match.begin) {  // an empty match only cuts; look on after the next character
      from += from < size ? decode_utf8(seen, from).bytes : 1;
    }
  }
  level(depth + 1, text.part(done, size), scratch, emit, context);
}

}  // namespace ferry::text
