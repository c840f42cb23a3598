#include "text/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"
#include "text/byte_alphabet.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

constexpr size_t kWordBytesMax = 1024;  // a longer word is counted in pieces

/// How much of a word is its next piece: no more than is counted in one, and whole characters where there are some.
size_t piece_bytes(std::string_view word) {
  if (word.size() <= kWordBytesMax) return word.size();
  for (size_t end = kWordBytesMax; end + 4 > kWordBytesMax; --end)
    if ((static_cast<unsigned char>(word[end]) & 0xC0) != 0x80) return end;
  return kWordBytesMax;
}

struct ViewHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};

std::vector<std::string> patterns_of(SplitStyle style) {
  switch (style) {
    case SplitStyle::kDeepseek: return kDeepseekPatterns;
    case SplitStyle::kLlama3: return {kLlama3Pattern};
    case SplitStyle::kQwen2: return {kQwen2Pattern};
    case SplitStyle::kGpt2: return {kGpt2Pattern};
  }
  throw_bug("bpe_trainer: unknown split style");
}

constexpr uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

/// The words as sequences of ids, the counts of adjacent pairs, and which words hold each pair.
class PairCounts {
 public:
  struct Candidate {
    uint64_t count;
    uint64_t pair;
    bool operator<(const Candidate& other) const {  // what std::priority_queue puts last
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void add_word(const std::vector<int32_t>& symbols, uint64_t count) {
    const auto word = static_cast<uint32_t>(words_.size());
    words_.push_back({symbols, count});
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      add(pair_key(symbols[i], symbols[i + 1]), count, word);
  }

  void start() {
    for (const auto& [pair, info] : pairs_) queue_.push({info.count, pair});
  }

  /// The most frequent pair, or a count of 0. It stays until it is merged or dropped.
  Candidate best() {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      const auto it = pairs_.find(top.pair);
      const uint64_t now = it == pairs_.end() ? 0 : it->second.count;
      if (now == top.count && now > 0) return top;
      queue_.pop();  // the count fell since it was queued
      if (now > 0) queue_.push({now, top.pair});
    }
    return {0, 0};
  }

  void drop(uint64_t pair) { pairs_.erase(pair); }

  void merge(uint64_t pair, int32_t token) {
    const auto left = static_cast<int32_t>(pair >> 32);
    const auto right = static_cast<int32_t>(pair & UINT32_MAX);
    std::vector<uint32_t> holders = std::move(pairs_[pair].words);
    std::sort(holders.begin(), holders.end());
    holders.erase(std::unique(holders.begin(), holders.end()), holders.end());
    fresh_.clear();
    for (const uint32_t w : holders) merge_in_word(w, left, right, token);
    pairs_.erase(pair);
    std::sort(fresh_.begin(), fresh_.end());
    fresh_.erase(std::unique(fresh_.begin(), fresh_.end()), fresh_.end());
    for (const uint64_t p : fresh_) {
      const auto it = pairs_.find(p);
      if (it != pairs_.end()) queue_.push({it->second.count, p});
    }
  }

 private:
  struct Word {
    std::vector<int32_t> symbols;
    uint64_t count;
  };
  struct Pair {
    uint64_t count = 0;
    std::vector<uint32_t> words;  // may name a word twice, or one that no longer holds the pair
  };

  void add(uint64_t pair, uint64_t count, uint32_t word) {
    Pair& p = pairs_[pair];
    p.count += count;
    if (p.words.empty() || p.words.back() != word) p.words.push_back(word);
  }
  void subtract(uint64_t pair, uint64_t count) {
    const auto it = pairs_.find(pair);
    if (it != pairs_.end()) it->second.count -= count;  // a dropped pair has no entry
  }

  void merge_in_word(uint32_t w, int32_t left, int32_t right, int32_t token) {
    std::vector<int32_t>& s = words_[w].symbols;
    const uint64_t count = words_[w].count;
    size_t first = 0;
    while (first + 1 < s.size() && !(s[first] == left && s[first + 1] == right)) ++first;
    if (first + 1 >= s.size()) return;
    // Only pairs from one before the first site on can change: take all of them out, put all back.
    const size_t from = first > 0 ? first - 1 : 0;
    for (size_t i = from; i + 1 < s.size(); ++i) subtract(pair_key(s[i], s[i + 1]), count);
    size_t kept = first;
    for (size_t i = first; i < s.size(); ++i) {
      if (i + 1 < s.size() && s[i] == left && s[i + 1] == right) {
        s[kept++] = token;
        ++i;
      } else {
        s[kept++] = s[i];
      }
    }
    s.resize(kept);
    for (size_t i = from; i + 1 < s.size(); ++i) {
      const uint64_t pair = pair_key(s[i], s[i + 1]);
      if (s[i] == token || s[i + 1] == token) {
        add(pair, count, w);
        fresh_.push_back(pair);
      } else if (const auto it = pairs_.find(pair); it != pairs_.end()) {
        it->second.count += count;
      }
    }
  }

  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<uint64_t> fresh_;
};

}  // namespace

struct BpeTrainer::State {
  BpeTrainerOptions options;
  PreTokenizer pretokenizer{{}};
  MatchScratch scratch;
  std::unordered_map<std::string, uint64_t, ViewHash, std::equal_to<>> words;
  size_t bytes = 0;  // of all words
  uint64_t forgotten = 0;

  void count(std::string_view word) {
    while (!word.empty()) {
      const size_t piece = piece_bytes(word);
      count_piece(word.substr(0, piece));
      word.remove_prefix(piece);
    }
  }

  void count_piece(std::string_view word) {
    const auto it = words.find(word);
    if (it != words.end()) {
      ++it->second;
      return;
    }
    words.emplace(word, 1);
    bytes += word.size();
    if (!within(options.words_max, options.word_bytes_max)) forget_rare();
  }

  bool within(size_t words_max, size_t bytes_max) const {
    return words.size() <= words_max && bytes <= bytes_max;
  }

  /// Of equally rare words the longer ones go first: half stays even where no word occurs twice, as of long ones.
  void forget_rare() {
    using Entry = std::pair<uint64_t, std::string_view>;
    std::vector<Entry> rarest_first;
    rarest_first.reserve(words.size());
    for (const auto& [word, count] : words) rarest_first.emplace_back(count, word);
    std::sort(rarest_first.begin(), rarest_first.end(), [](const Entry& a, const Entry& b) {
      if (a.first != b.first) return a.first < b.first;
      return a.second.size() != b.second.size() ? a.second.size() > b.second.size()
                                                : a.second < b.second;
    });
    for (const auto& [count, word] : rarest_first) {
      if (within(options.words_max / 2, options.word_bytes_max / 2)) break;
      bytes -= word.size();
      words.erase(words.find(word));  // which `word` is a view of
      ++forgotten;
    }
  }
};

BpeTrainer::BpeTrainer(std::unique_ptr<State> state) : state_(std::move(state)) {}
BpeTrainer::BpeTrainer(BpeTrainer&&) noexcept = default;
BpeTrainer& BpeTrainer::operator=(BpeTrainer&&) noexcept = default;
BpeTrainer::~BpeTrainer() = default;

Result<BpeTrainer> BpeTrainer::create(BpeTrainerOptions options) {
  std::unordered_set<std::string> seen;
  for (const std::string& special : options.specials) {
    if (special.empty() || special.size() > kWordBytesMax ||
        well_formed_prefix(special) != special.size()) {
      return fail(Code::kInvalidInput,
                  "tokenizer training: special token \"{}\" must be 1 to {} bytes of UTF-8",
                  replace_ill_formed(special),
                  kWordBytesMax);
    }
    const std::optional<std::string> bytes = letters_to_bytes(special);
    if (bytes && bytes->size() == 1) {
      return fail(Code::kInvalidInput,
                  "tokenizer training: special token \"{}\" is the token of a byte; "
                  "give it a longer name",
                  special);
    }
    if (!seen.insert(special).second) {
      return fail(
          Code::kInvalidInput, "tokenizer training: special token \"{}\" is named twice", special);
    }
  }
  const size_t least = 256 + options.specials.size();
  if (options.vocab_size < 0 || static_cast<size_t>(options.vocab_size) < least ||
      options.vocab_size > 1 << 24) {
    return fail(Code::kInvalidInput,
                "tokenizer training: a vocabulary of {} is not within {} (256 bytes and {} "
                "special tokens) to {}",
                options.vocab_size,
                least,
                options.specials.size(),
                1 << 24);
  }
  if (options.words_max < 2) {
    return fail(Code::kInvalidInput,
                "tokenizer training: words_max is {}, not at least 2",
                options.words_max);
  }
  if (options.word_bytes_max < 2 * kWordBytesMax) {
    return fail(Code::kInvalidInput,
                "tokenizer training: word_bytes_max is {}, not at least {}",
                options.word_bytes_max,
                2 * kWordBytesMax);
  }
  TRY_ASSIGN(PreTokenizer pretokenizer, PreTokenizer::compile(patterns_of(options.split)));
  auto state = std::make_unique<State>();
  state->options = std::move(options);
  state->pretokenizer = std::move(pretokenizer);
  return BpeTrainer(std::move(state));
}

void BpeTrainer::feed(std::string_view text) {
  state_->pretokenizer.split(
      text, state_->scratch, [&](std::string_view word) { state_->count(word); });
}

BpeTrainer::Trained BpeTrainer::train(const std::function<void(int32_t, int32_t)>& progress) {
  const BpeTrainerOptions& options = state_->options;
  TokenizerFile file;
  std::unordered_set<std::string> specials;
  const auto add_token = [&](const std::string& text) {
    const auto id = static_cast<int32_t>(file.vocab.size());
    file.vocab.push_back(text);
    file.ids.emplace(text, id);
    return id;
  };
  for (const std::string& special : options.specials) {
    AddedToken token;
    token.id = add_token(special);
    token.content = special;
    token.special = true;
    token.normalized = false;
    file.added.push_back(token);
    specials.insert(special);
  }
  std::vector<std::pair<char32_t, unsigned char>> letters;
  for (unsigned b = 0; b < 256; ++b) {
    letters.emplace_back(byte_to_letter(static_cast<unsigned char>(b)),
                         static_cast<unsigned char>(b));
  }
  std::sort(letters.begin(), letters.end());
  for (const auto& [letter, byte] : letters) {
    std::string text;
    append_utf8(text, letter);
    file.byte_tokens[byte] = add_token(text);
  }
  for (const std::string& text : patterns_of(options.split)) file.patterns.push_back({text, false});

  PairCounts pairs;
  const size_t words = state_->words.size();
  for (const auto& [word, count] : state_->words) {
    std::vector<int32_t> symbols;
    for (const char c : word) symbols.push_back(file.byte_tokens[static_cast<unsigned char>(c)]);
    pairs.add_word(symbols, count);
  }
  state_->words.clear();
  state_->bytes = 0;
  pairs.start();

  std::vector<size_t> token_bytes(file.vocab.size(), 1);
  while (static_cast<int32_t>(file.vocab.size()) < options.vocab_size) {
    const PairCounts::Candidate best = pairs.best();
    if (best.count == 0 || best.count < options.frequency_min) break;
    const auto left = static_cast<int32_t>(best.pair >> 32);
    const auto right = static_cast<int32_t>(best.pair & UINT32_MAX);
    const std::string text = file.vocab[left] + file.vocab[right];
    const size_t bytes = token_bytes[left] + token_bytes[right];
    if (specials.contains(text) || bytes > options.token_bytes_max) {
      pairs.drop(best.pair);
      continue;
    }
    const auto known = file.ids.find(text);  // another pair may have spelt the same token
    const int32_t token = known != file.ids.end() ? known->second : add_token(text);
    token_bytes.resize(file.vocab.size(), bytes);
    file.merges.push_back({left, right, token});
    pairs.merge(best.pair, token);
    if (progress && file.merges.size() % 64 == 0) {
      progress(static_cast<int32_t>(file.vocab.size()), options.vocab_size);
    }
  }
  const std::string bos = options.bos_in_post_processor && !options.specials.empty()
                              ? options.specials.front()
                              : std::string();
  return {write_tokenizer_file(file, bos),
          static_cast<int32_t>(file.vocab.size()),
          words,
          state_->forgotten};
}

}  // namespace ferry::text
