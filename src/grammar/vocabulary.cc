#include "grammar/vocabulary.h"

#include <algorithm>

#include "grammar/json_parts.h"
#include "text/byte_alphabet.h"
#include "text/utf8.h"

namespace ferry::grammar {
namespace {

constexpr size_t kTokenBytesMax =
    1024;  // longer ones are not used: a walk keeps a place for each byte

/// How many characters a plain token has; 0: it is not plain, for some form at least.
uint32_t plain_characters(const std::string& bytes) {
  uint32_t count = 0;
  for (size_t at = 0; at < bytes.size(); ++count) {
    const text::Utf8Char c = text::decode_utf8(bytes, at);
    if (!c.well_formed || c.point < 0x20 || c.point == '"' || c.point == '\\' ||
        c.point == kOfMarks)
      return 0;
    at += c.bytes;
  }
  return count;
}

Vocabulary::Tree tree_of(const std::vector<std::string>& bytes, std::vector<int32_t> ids) {
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    const int order = bytes[static_cast<size_t>(a)].compare(bytes[static_cast<size_t>(b)]);
    return order < 0 || (order == 0 && a < b);
  });
  Vocabulary::Tree tree;
  std::vector<uint32_t> path;  // the nodes down to the last one
  std::string_view before;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      tree.nodes[path.back()].end = static_cast<uint32_t>(tree.nodes.size());
  };
  for (const int32_t id : ids) {
    const std::string_view text = bytes[static_cast<size_t>(id)];
    const size_t shared = static_cast<size_t>(
        std::mismatch(before.begin(), before.end(), text.begin(), text.end()).first -
        before.begin());
    close(shared);
    for (size_t depth = shared; depth < text.size(); ++depth) {
      const auto tokens = static_cast<uint32_t>(tree.tokens.size());
      path.push_back(static_cast<uint32_t>(tree.nodes.size()));
      tree.nodes.push_back({.end = 0,
                            .tokens = tokens,
                            .tokens_end = tokens,
                            .depth = static_cast<uint16_t>(depth + 1),
                            .byte = static_cast<uint8_t>(text[depth])});
    }
    tree.tokens.push_back(id);
    tree.nodes[path.back()].tokens_end = static_cast<uint32_t>(tree.tokens.size());
    before = text;
  }
  close(0);
  return tree;
}

}  // namespace

Result<std::shared_ptr<const Vocabulary>> Vocabulary::of(const text::Tokenizer& tokenizer,
                                                         const std::vector<int32_t>& marks) {
  std::vector<std::string> tokens(static_cast<size_t>(tokenizer.vocab_size()));
  std::vector<bool> alone(256);
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_special(id) && std::find(marks.begin(), marks.end(), id) == marks.end())
      continue;
    const std::string_view bytes = tokenizer.token_bytes(id);
    tokens[static_cast<size_t>(id)] = bytes;
    if (bytes.size() == 1) alone[static_cast<uint8_t>(bytes[0])] = true;
  }
  for (unsigned byte = 0; byte < 256; ++byte)
    if (!alone[byte] && !text::may_be_missing(byte))
      return fail(
          Code::kInvalidInput,
          "the vocabulary has no token for the byte 0x{:02x}: not every text can be spelled, so "
          "answers cannot be held to a form",
          byte);
  return of(std::move(tokens));
}

std::shared_ptr<const Vocabulary> Vocabulary::of(std::vector<std::string> tokens) {
  std::shared_ptr<Vocabulary> out(new Vocabulary);
  out->plain_.resize((tokens.size() + 63) / 64);
  std::vector<int32_t> all, not_plain;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].size() > kTokenBytesMax) tokens[i].clear();
    if (tokens[i].empty()) continue;
    all.push_back(static_cast<int32_t>(i));
    const uint32_t characters = plain_characters(tokens[i]);
    out->longest_plain_ = std::max(out->longest_plain_, characters);
    if (characters == 0)
      not_plain.push_back(all.back());
    else
      out->plain_[i / 64] |= uint64_t{1} << (i % 64);
  }
  out->bytes_ = std::move(tokens);
  out->all_ = tree_of(out->bytes_, std::move(all));
  out->not_plain_ = tree_of(out->bytes_, std::move(not_plain));
  return out;
}

}  // namespace ferry::grammar
