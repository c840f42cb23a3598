#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/added_tokens.h"

#include <pcre2.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "base/check.h"
#include "text/stand_ins.h"
#include "text/utf8.h"

namespace ferry::text {

AddedTokenFinder::AddedTokenFinder(const std::vector<std::string>& patterns) {
  if (patterns.empty()) return;
  nodes_.emplace_back();
  for (size_t p = 0; p < patterns.size(); ++p) {
    check(!patterns[p].empty(), "added_tokens: pattern {} is empty", p);
    size_t at = 0;
    for (const char c : patterns[p]) {
      const auto byte = static_cast<unsigned char>(c);
      auto& children = nodes_[at].children;
      const auto it =
          std::lower_bound(children.begin(), children.end(), std::pair{byte, uint32_t{0}});
      if (it != children.end() && it->first == byte) {
        at = it->second;
      } else {
        const auto fresh = static_cast<uint32_t>(nodes_.size());
        children.insert(it, {byte, fresh});
        nodes_.emplace_back();
        at = fresh;
      }
    }
    nodes_[at].pattern = static_cast<int64_t>(p);
  }
  for (const auto& [byte, node] : nodes_[0].children) first_[byte] = node;
  if (nodes_[0].children.size() == 1) only_first_ = nodes_[0].children[0].first;
}

const AddedTokenFinder::Node* AddedTokenFinder::child(const Node& node, unsigned char byte) const {
  const auto it =
      std::lower_bound(node.children.begin(), node.children.end(), std::pair{byte, uint32_t{0}});
  return it != node.children.end() && it->first == byte ? &nodes_[it->second] : nullptr;
}

bool AddedTokenFinder::next(std::string_view text, size_t from, Find& find) const {
  if (nodes_.empty()) return false;
  for (size_t i = from; i < text.size(); ++i) {
    if (only_first_ >= 0) {
      const void* hit = std::memchr(text.data() + i, only_first_, text.size() - i);
      if (hit == nullptr) return false;
      i = static_cast<size_t>(static_cast<const char*>(hit) - text.data());
    }
    const uint32_t first = first_[static_cast<unsigned char>(text[i])];
    if (first == 0) continue;
    int64_t longest = -1;
    size_t end = i;
    const Node* node = &nodes_[first];
    for (size_t j = i + 1;; ++j) {
      if (node->pattern >= 0) {
        longest = node->pattern;
        end = j;
      }
      if (j == text.size()) break;
      node = child(*node, static_cast<unsigned char>(text[j]));
      if (node == nullptr) break;
    }
    if (longest >= 0) {
      find = {i, end, static_cast<size_t>(longest)};
      return true;
    }
  }
  return false;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

namespace {

/// The offset of the last character of the text (not empty): a lead byte at most three bytes back
/// that decodes right up to the end, else the last byte.
size_t last_char(std::string_view text) {
  for (size_t back = 1; back <= 4 && back <= text.size(); ++back) {
    const size_t at = text.size() - back;
    const Utf8Char c = decode_utf8(text, at);
    if (c.well_formed && c.bytes == back) return at;
  }
  return text.size() - 1;
}

bool is_word(std::string_view one_char) {
  const Utf8Char first = decode_utf8(one_char, 0);
  std::string shown;
  append_utf8(shown, first.well_formed ? stand_in_of(first.point) : kReplacement);
  static const std::shared_ptr<pcre2_code> code = [] {
    constexpr std::string_view kWord = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])";
    int error = 0;
    size_t offset = 0;
    pcre2_code* c = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kWord.data()),
                                  kWord.size(),
                                  PCRE2_UTF | PCRE2_UCP,
                                  &error,
                                  &offset,
                                  nullptr);
    check(
        c != nullptr, "added_tokens: PCRE2 refuses the word class, error {} at {}", error, offset);
    return std::shared_ptr<pcre2_code>(c, pcre2_code_free);
  }();
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  return pcre2_match(code.get(),
                     reinterpret_cast<PCRE2_SPTR>(shown.data()),
                     shown.size(),
                     0,
                     0,
                     data.get(),
                     nullptr) > 0;
}

}  // namespace

size_t trailing_space_begin(std::string_view text) {
  while (!text.empty()) {
    const size_t at = last_char(text);
    if (!is_white_space(decode_utf8(text, at).point)) break;
    text = text.substr(0, at);
  }
  return text.size();
}

size_t leading_space_end(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const Utf8Char c = decode_utf8(text, i);
    if (!is_white_space(c.point)) break;
    i += c.bytes;
  }
  return i;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(text.substr(last_char(text)));
}

bool begins_with_word(std::string_view text) {
  return !text.empty() && is_word(text.substr(0, decode_utf8(text, 0).bytes));
}

}  // namespace ferry::text
