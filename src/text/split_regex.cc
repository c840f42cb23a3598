#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/split_regex.h"

#include <pcre2.h>

#include <array>
#include <cstring>

#include "base/check.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

constexpr std::string_view kCategories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P", "Pc",
    "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp"};

/// Walks a pattern and refuses what Oniguruma and PCRE2 read differently, or what could recurse.
class PatternChecker {
 public:
  explicit PatternChecker(std::string_view pattern) : p_(pattern) {}

  Result<void> run() {
    while (i_ < p_.size()) {
      const char c = p_[i_];
      bool quantifiable = true;
      bool group = false;
      switch (c) {
        case '\\': TRY(escape(/*in_class=*/false)); break;
        case '[': TRY(bracket_class()); break;
        case '(':
          TRY(open_group());
          quantifiable = false;
          break;
        case ')':
          ++i_;
          group = true;
          break;
        case '|':
          ++i_;
          quantifiable = false;
          break;
        case '^':
        case '$':
          ++i_;
          quantifiable = false;
          break;
        case '*':
        case '+':
        case '?':
        case '{': return refuse("a quantifier with nothing to repeat, or a second one,");
        default: {
          const char32_t point = take();
          names(point, point);
          break;
        }
      }
      if (quantifiable) TRY(quantifier(group));
    }
    if (by_code_ && by_category_)
      return refuse(
          "a category beside a range of characters that are younger than PCRE2's tables,");
    return {};
  }

  bool by_code() const { return by_code_; }

 private:
  /// The character at the current place, which is left behind.
  char32_t take() {
    const Utf8Char c = decode_utf8(p_, i_);
    i_ += c.bytes;
    return c.point;
  }

  /// The pattern names these characters by their codes.
  void names(char32_t first, char32_t last) {
    for (size_t i = 0; i < kStandInsCount; ++i) {
      const StandInRange& r = kStandIns[i];
      by_code_ |= first <= r.last && r.first <= last;
      by_code_ |= first <= r.stand_in && r.stand_in <= last;
    }
  }

  tl::unexpected<Status> refuse(std::string_view what) const {
    return fail(
        Code::kInvalidInput,
        "the pattern has {} at offset {} (\"{}\"): Ferry does not take it, because Hugging Face's "
        "engine and PCRE2 may read it differently or match it without bound",
        what,
        i_,
        p_.substr(i_, 12));
  }

  Result<void> escape(bool in_class) {
    if (i_ + 1 == p_.size()) return refuse("a backslash at its end");
    const char c = p_[i_ + 1];
    by_category_ |= std::strchr("pPsSdD", c) != nullptr;
    if (c == 'p' || c == 'P') {
      const size_t close = p_.find('}', i_);
      if (i_ + 2 >= p_.size() || p_[i_ + 2] != '{' || close == std::string_view::npos) {
        return refuse("a property without braces");
      }
      const std::string_view name = p_.substr(i_ + 3, close - i_ - 3);
      for (const std::string_view known : kCategories) {
        if (name == known) {
          i_ = close + 1;
          return {};
        }
      }
      return refuse("a property that is not a general category");
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9';
    const bool allowed_letter = std::strchr("sdrntf", c) != nullptr ||
                                (!in_class && (c == 'S' || c == 'D')) ||
                                (in_class && (c == 'S' || c == 'D'));
    if (c == '\0' || digit || (letter && !allowed_letter) ||
        static_cast<unsigned char>(c) >= 0x80) {
      return refuse("an escape");
    }
    i_ += 2;
    return {};
  }

  Result<void> bracket_class() {
    ++i_;
    if (i_ < p_.size() && p_[i_] == '^') ++i_;
    if (i_ < p_.size() && p_[i_] == ']') return refuse("an empty class or one that starts with ]");
    while (i_ < p_.size() && p_[i_] != ']') {
      if (p_[i_] == '[') return refuse("a class inside a class");
      if (p_.substr(i_, 2) == "&&") return refuse("an intersection of classes");
      if (p_[i_] == '\\') {
        TRY(escape(/*in_class=*/true));
        continue;
      }
      const char32_t first = take();
      char32_t last = first;
      if (i_ + 1 < p_.size() && p_[i_] == '-' && p_[i_ + 1] != ']' && p_[i_ + 1] != '\\' &&
          p_[i_ + 1] != '[') {
        ++i_;
        last = take();
      }
      names(first, last);
    }
    if (i_ == p_.size()) return refuse("a class that is not closed");
    ++i_;
    return {};
  }

  Result<void> open_group() {
    for (const std::string_view open : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!"}) {
      if (p_.substr(i_, open.size()) == open) {
        i_ += open.size();
        return {};
      }
    }
    if (p_.substr(i_, 2) == "(?" || p_.substr(i_, 2) == "(*") return refuse("a group");
    ++i_;
    return {};
  }

  Result<void> quantifier(bool group) {
    if (i_ == p_.size()) return {};
    const char c = p_[i_];
    if (c == '*' || c == '+' || c == '?') {
      if (group && c != '?') return refuse("an unbounded repetition of a group");
      ++i_;
      if (i_ < p_.size() && (p_[i_] == '+' || p_[i_] == '?')) ++i_;
    } else if (c == '{') {
      const size_t close = p_.find('}', i_);
      if (close == std::string_view::npos) return refuse("a brace");
      const std::string_view range = p_.substr(i_ + 1, close - i_ - 1);
      if (range.empty() || range.size() > 7 || range[0] < '0' || range[0] > '9' ||
          range.find_first_not_of("0123456789,") != std::string_view::npos ||
          range.find(',') != range.rfind(',')) {
        return refuse("a brace that is not a repetition");
      }
      if (group && range.back() == ',') return refuse("an unbounded repetition of a group");
      if (close + 1 < p_.size() && (p_[close + 1] == '+' || p_[close + 1] == '?')) {
        return refuse("a repetition in braces that is possessive or lazy");
      }
      i_ = close + 1;
    }
    return {};
  }

  std::string_view p_;
  size_t i_ = 0;
  bool by_code_ = false, by_category_ = false;
};

}  // namespace

struct MatchScratch::State {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
};

MatchScratch::MatchScratch() : state_(std::make_unique<State>()) {
  constexpr size_t kStackFirst = 64 << 10, kStackMax = 8 << 20;
  state_->data = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  state_->stack = pcre2_jit_stack_create(kStackFirst, kStackMax, nullptr);
  check(state_->data != nullptr && state_->context != nullptr,
        "split_regex: no memory for matching");
  // The patterns' shape bounds the work; a limit would only turn a slow match into a wrong one.
  pcre2_set_match_limit(state_->context, UINT32_MAX);
  pcre2_set_depth_limit(state_->context, UINT32_MAX);
  pcre2_set_heap_limit(state_->context, UINT32_MAX);
  if (state_->stack != nullptr) pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}

MatchScratch::~MatchScratch() {
  pcre2_jit_stack_free(state_->stack);
  pcre2_match_context_free(state_->context);
  pcre2_match_data_free(state_->data);
}

Result<SplitRegex> SplitRegex::compile(const std::string& pattern) {
  PatternChecker checker(pattern);
  TRY(checker.run());
  // Oniguruma's ^ and $ are those of lines.
  TRY_ASSIGN(SplitRegex regex, compile_flags(pattern, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE));
  regex.by_code_ = checker.by_code();
  return regex;
}

Result<SplitRegex> SplitRegex::compile_literal(const std::string& text) {
  TRY_ASSIGN(SplitRegex regex, compile_flags(text, PCRE2_UTF | PCRE2_LITERAL));
  regex.by_code_ = true;
  return regex;
}

Result<SplitRegex> SplitRegex::compile_flags(const std::string& pattern, uint32_t flags) {
  int code = 0;
  size_t offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  check(context != nullptr, "split_regex: no memory for compiling");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_code* compiled = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), flags, &code, &offset, context);
  pcre2_compile_context_free(context);
  if (compiled == nullptr) {
    std::array<PCRE2_UCHAR, 256> why{};
    pcre2_get_error_message(code, why.data(), why.size());
    return fail(Code::kInvalidInput,
                "the pattern does not compile at offset {}: {}",
                offset,
                reinterpret_cast<const char*>(why.data()));
  }
  SplitRegex regex;
  regex.code_ = std::shared_ptr<void>(
      compiled, [](void* c) { pcre2_code_free(static_cast<pcre2_code*>(c)); });
  // Where the machine forbids executable memory PCRE2 interprets: slower, the same matches.
  regex.jit_ = pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) == 0;
  return regex;
}

bool SplitRegex::find(std::string_view text,
                      size_t from,
                      MatchScratch& scratch,
                      Match& match) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  MatchScratch::State& s = *scratch.state_;
  const auto run = jit_ ? pcre2_jit_match : pcre2_match;
  const int found = run(code,
                        reinterpret_cast<PCRE2_SPTR>(text.data()),
                        text.size(),
                        from,
                        PCRE2_NO_UTF_CHECK,
                        s.data,
                        s.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  check(found >= 0, "split_regex: matching failed with PCRE2 error {}", found);
  const size_t* offsets = pcre2_get_ovector_pointer(s.data);
  match = {offsets[0], offsets[1]};
  return true;
}

}  // namespace ferry::text
