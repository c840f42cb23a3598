#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/limited_regex.h"

#include <pcre2.h>

#include <array>

#include "base/check.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

// Steps of backtracking, and KiB: some milliseconds at the most.
constexpr uint32_t kMatchLimit = 1'000'000, kDepthLimit = 100'000, kHeapLimit = 16 << 10;

std::string reason(int code) {
  std::array<PCRE2_UCHAR, 256> why{};
  pcre2_get_error_message(code, why.data(), why.size());
  return reinterpret_cast<const char*>(why.data());
}

}  // namespace

struct LimitedRegex::Matching {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  Matching() {
    check(data != nullptr && context != nullptr, "limited_regex: no memory for matching");
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_depth_limit(context, kDepthLimit);
    pcre2_set_heap_limit(context, kHeapLimit);
  }
  ~Matching() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Matching(const Matching&) = delete;
  Matching& operator=(const Matching&) = delete;
};

Result<LimitedRegex> LimitedRegex::compile(const std::string& pattern) {
  int code = 0;
  size_t offset = 0;
  // \C would split characters, and with it the text that is looked at.
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                                       pattern.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                                       &code,
                                       &offset,
                                       nullptr);
  if (compiled == nullptr)
    return fail(Code::kInvalidInput,
                "the regular expression does not compile at offset {}: {}",
                offset,
                reason(code));
  LimitedRegex regex;
  regex.code_ = std::shared_ptr<void>(
      compiled, [](void* c) { pcre2_code_free(static_cast<pcre2_code*>(c)); });
  return regex;
}

Result<LimitedRegex::Found> LimitedRegex::find(std::string_view text,
                                               size_t from,
                                               bool all,
                                               const Matching& matching) const {
  const int found = pcre2_match(static_cast<const pcre2_code*>(code_.get()),
                                reinterpret_cast<PCRE2_SPTR>(text.data()),
                                text.size(),
                                from,
                                PCRE2_NO_UTF_CHECK | (all ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0),
                                matching.data,
                                matching.context);
  if (found == PCRE2_ERROR_NOMATCH) return Found{};
  if (found < 0) return fail(Code::kExhausted, "the regular expression: {}", reason(found));
  const size_t* const offsets = pcre2_get_ovector_pointer(matching.data);
  return Found{offsets[0], offsets[1]};
}

Result<bool> LimitedRegex::matches_all(std::string_view text) const {
  const std::string well_formed = replace_ill_formed(text);
  TRY_ASSIGN(const Found found, find(well_formed, 0, true, Matching()));
  return found.begin <= found.end;
}

Result<int64_t> LimitedRegex::count(std::string_view text) const {
  const std::string well_formed = replace_ill_formed(text);
  const Matching matching;
  int64_t count = 0;
  size_t from = 0;
  while (from < well_formed.size()) {
    TRY_ASSIGN(const Found found, find(well_formed, from, false, matching));
    if (found.begin > found.end) break;
    const bool empty = found.begin == found.end;
    if (empty && found.end == well_formed.size()) break;
    count += !empty;
    from = empty ? found.end + decode_utf8(well_formed, found.end).bytes : found.end;
  }
  return count;
}

}  // namespace ferry::text
