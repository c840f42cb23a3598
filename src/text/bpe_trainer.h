// Learns a byte-level BPE vocabulary from text and writes it as a tokenizer.json that Hugging
// Face's tokenizers loads and agrees with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry::text {

/// How text is cut into words; merges never cross them.
enum class SplitStyle { kDeepseek, kLlama3, kQwen2, kGpt2 };

struct BpeTrainerOptions {
  int32_t vocab_size = 6144;  // specials and the 256 bytes included: at least their number
  std::vector<std::string> specials = {"<|bos|>", "<|eos|>", "<|pad|>"};  // ids 0, 1, 2, ...
  bool bos_in_post_processor = true;  // whether Hugging Face puts specials[0] before the text
  SplitStyle split = SplitStyle::kDeepseek;
  uint64_t frequency_min = 2;    // a pair seen less often is not merged
  size_t token_bytes_max = 128;  // longer tokens are not made
  // Different words kept, and bytes of them; above either, the rarest are forgotten down to half of it.
  size_t words_max = 4'000'000;
  size_t word_bytes_max = size_t{256} << 20;
};

/// Feed texts, then train once. Not for several threads at once.
///
/// The result is a pure function of the options and of the texts in their order (of their multiset
/// of words alone while nothing is forgotten): of all pairs the most frequent is merged, among
/// equals the one with the smallest left id, then the smallest right id. Ids: specials, bytes in
/// the order of their letters, then tokens as they are made. A pair that spells a special token is
/// never merged.
class BpeTrainer {
 public:
  /// Errors: kInvalidInput, naming the option.
  static Result<BpeTrainer> create(BpeTrainerOptions options);
  BpeTrainer(BpeTrainer&&) noexcept;
  BpeTrainer& operator=(BpeTrainer&&) noexcept;
  ~BpeTrainer();

  /// Counts the words of one text. A word does not continue in the next text. One above 1 KiB
  /// is counted in pieces. Any bytes.
  void feed(std::string_view text);

  struct Trained {
    std::string json;    // the tokenizer.json
    int32_t vocab_size;  // less than asked for if no pair was frequent enough
    size_t words;        // different words it was learnt from
    uint64_t forgotten;  // how often a word was, as one of the rarest of too many
  };
  /// `progress(made, wanted)` is called now and then with the number of tokens.
  Trained train(const std::function<void(int32_t, int32_t)>& progress = {});

 private:
  struct State;
  explicit BpeTrainer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ferry::text
