// Finds added tokens in text before it is cut into pieces, as Hugging Face's tokenizers does: the
// longest at the leftmost place, then on after its end, whether the find is then used or not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ferry::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = true;    // is looked for in the normalised text
};

class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  /// `patterns[i]` is the text to look for, not empty and not twice; the finds name i.
  explicit AddedTokenFinder(const std::vector<std::string>& patterns);

  struct Find {
    size_t begin, end;
    size_t pattern;
  };
  /// The leftmost longest find that begins at `from` or later.
  bool next(std::string_view text, size_t from, Find& find) const;
  bool empty() const { return nodes_.empty(); }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> children;  // sorted by byte
    int64_t pattern = -1;
  };
  const Node* child(const Node& node, unsigned char byte) const;
  std::vector<Node> nodes_;
  std::array<uint32_t, 256> first_{};  // the root's children; 0: none
  int only_first_ = -1;                // the byte that every pattern starts with, if there is one
};

/// Unicode White_Space, as lstrip and rstrip mean it.
bool is_white_space(char32_t point);
/// Where the white space that ends `text` begins, and where the white space that begins it ends.
size_t trailing_space_begin(std::string_view text);
size_t leading_space_end(std::string_view text);

/// Whether the text ends, or begins, with a word character (Alphabetic, mark, decimal digit,
/// connector punctuation or join control), as single_word means it.
bool ends_with_word(std::string_view text);
bool begins_with_word(std::string_view text);

}  // namespace ferry::text
