#include "text/tokenizer.h"

#include <algorithm>
#include <bit>
#include <mutex>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/nfc.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

constexpr uint64_t kFileBytesMax = uint64_t{1} << 30;

/// What one encode call needs for itself. Kept between calls for the sake of the cache.
struct Worker {
  MatchScratch match;
  BpeScratch bpe;
};

/// The added tokens that are looked for at one stage: before or after normalisation.
struct AddedGroup {
  AddedTokenFinder finder;
  std::vector<AddedToken> tokens;

  /// Calls on_text(view) and on_token(id) for what the text consists of, in order.
  template <typename OnText, typename OnToken>
  void split(std::string_view text,
             Tokenizer::Specials specials,
             OnText on_text,
             OnToken on_token) const {
    size_t done = 0;
    size_t from = 0;
    AddedTokenFinder::Find find{};
    while (specials != Tokenizer::Specials::kPlain && finder.next(text, from, find)) {
      from = find.end;
      const AddedToken& token = tokens[find.pattern];
      if (token.special && specials != Tokenizer::Specials::kParse) continue;
      if (token.single_word &&
          (ends_with_word(text.substr(0, find.begin)) || begins_with_word(text.substr(find.end)))) {
        continue;
      }
      size_t begin = find.begin;
      size_t end = find.end;
      if (token.lstrip && begin > done)
        begin = done + trailing_space_begin(text.substr(done, begin - done));
      if (token.rstrip) end += leading_space_end(text.substr(end));
      if (begin > done) on_text(text.substr(done, begin - done));
      on_token(token.id);
      done = end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }
};

std::string hash_of(const std::vector<TokenizerFile::Merge>& merges) {
  Hasher hasher;
  for (const TokenizerFile::Merge& m : merges) {
    const int32_t ids[] = {m.left, m.right, m.token};
    hasher.update(ids, sizeof ids);
  }
  return hasher.hex();
}

/// Of how words are cut, which is before any merge.
std::string hash_of_cutting(const TokenizerFile& file) {
  Hasher hasher;
  const bool flags[] = {file.nfc, file.ignore_merges};
  hasher.update(flags, sizeof flags);
  for (const TokenizerFile::Pattern& p : file.patterns) {
    const uint64_t head[] = {p.text.size(), p.literal ? 1u : 0u};
    hasher.update(head, sizeof head);
    hasher.update(p.text.data(), p.text.size());
  }
  return hasher.hex();
}

/// What a token is beside its bytes, a bit each: by these, too, a text gets its ids.
constexpr const char* kTraits[] = {
    "an added token", "special", "single_word", "lstrip", "rstrip", "normalized"};
constexpr uint64_t kSpecial = 1 << 1;
uint64_t traits_of(const AddedToken& t) {
  const bool traits[] = {true, t.special, t.single_word, t.lstrip, t.rstrip, t.normalized};
  static_assert(std::size(traits) == std::size(kTraits));
  uint64_t bits = 0;
  for (size_t i = 0; i < std::size(traits); ++i) bits |= uint64_t{traits[i]} << i;
  return bits;
}

AddedGroup make_group(const TokenizerFile& file, bool normalized) {
  AddedGroup group;
  std::vector<std::string> patterns;
  for (const AddedToken& t : file.added) {
    if (t.normalized != normalized) continue;
    group.tokens.push_back(t);
    patterns.push_back(normalized && file.nfc ? to_nfc(t.content) : t.content);
  }
  group.finder = AddedTokenFinder(patterns);
  return group;
}

}  // namespace

struct Tokenizer::State {
  std::vector<std::string> token_bytes;  // by id, added tokens included
  std::vector<uint64_t> traits;          // by id
  std::string merges_hash, cutting_hash;
  std::string first;  // what the post_processor puts before a text
  std::unordered_map<std::string, int32_t> ids;
  std::string foreign;    // bytes without a token that no UTF-8 has
  std::string no_tokens;  // the others without one
  bool nfc = false;
  AddedGroup before_normalizing, after_normalizing;
  PreTokenizer pretokenizer{{}};
  Bpe bpe;

  std::mutex mutex;  // guards workers
  std::vector<std::unique_ptr<Worker>> workers;

  explicit State(Bpe model) : bpe(std::move(model)) {}

  VocabularyId first_ids(uint64_t count) const {
    constexpr std::string_view kVersion = "ferry-vocabulary-1\n";
    Hasher hasher;
    hasher.update(kVersion.data(), kVersion.size());
    hasher.update(&count, sizeof count);
    for (size_t id = 0; id < count; ++id) {
      const uint64_t head[] = {token_bytes[id].size(), traits[id]};
      hasher.update(head, sizeof head);
      hasher.update(token_bytes[id].data(), token_bytes[id].size());
    }
    hasher.update(merges_hash.data(), merges_hash.size());
    hasher.update(cutting_hash.data(), cutting_hash.size());
    return {static_cast<int64_t>(count), hasher.hex()};
  }

  std::unique_ptr<Worker> take_worker() {
    {
      const std::lock_guard lock(mutex);
      if (!workers.empty()) {
        std::unique_ptr<Worker> worker = std::move(workers.back());
        workers.pop_back();
        return worker;
      }
    }
    return std::make_unique<Worker>();
  }
  void give_back(std::unique_ptr<Worker> worker) {
    const std::lock_guard lock(mutex);
    workers.push_back(std::move(worker));
  }

  void encode_text(std::string_view text, Worker& worker, std::vector<int32_t>& out) const {
    pretokenizer.split(text, worker.match, [&](std::string_view piece) {
      if (no_tokens.empty() || piece.find_first_of(no_tokens) == piece.npos)
        return bpe.encode(piece, worker.bpe, out);
      std::string known(piece);
      std::erase_if(known, [&](char c) { return no_tokens.find(c) != no_tokens.npos; });
      if (!known.empty()) bpe.encode(known, worker.bpe, out);
    });
  }

  void encode(std::string_view bytes,
              Specials specials,
              Worker& worker,
              std::vector<int32_t>& out) const {
    std::string replaced;
    if (!foreign.empty() && bytes.find_first_of(foreign) != bytes.npos) {
      for (const char c : bytes)
        if (foreign.find(c) == foreign.npos)
          replaced += c;
        else
          append_utf8(replaced, kReplacement);
      bytes = replaced;
    }
    const auto token = [&](int32_t id) { out.push_back(id); };
    before_normalizing.split(
        bytes,
        specials,
        [&](std::string_view raw) {
          std::string normal;
          if (nfc && nfc_may_change(raw)) {
            normal = to_nfc(raw);
            raw = normal;
          }
          after_normalizing.split(
              raw, specials, [&](std::string_view text) { encode_text(text, worker, out); }, token);
        },
        token);
  }
};

Tokenizer::Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(const std::string& path) {
  TRY_ASSIGN(const std::string json, read_file(path, kFileBytesMax));
  return parse(json, path);
}

Result<Tokenizer> Tokenizer::parse(std::string_view json, const std::string& path_for_messages) {
  TRY_ASSIGN(TokenizerFile file, read_tokenizer_file(json, path_for_messages));

  Bpe::Parts parts;
  parts.byte_tokens = file.byte_tokens;
  parts.ignore_merges = file.ignore_merges;
  parts.merges = MergeTable(file.merges.size());
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const TokenizerFile::Merge& m = file.merges[rank];
    check(parts.merges.add(m.left, m.right, {static_cast<uint32_t>(rank), m.token}),
          "tokenizer: merge {} twice",
          rank);
  }
  size_t ids_end = file.vocab.size();
  for (const AddedToken& t : file.added) ids_end = std::max(ids_end, static_cast<size_t>(t.id) + 1);
  std::vector<uint64_t> traits(ids_end);
  for (const AddedToken& t : file.added) traits[t.id] = traits_of(t);
  parts.token_bytes.resize(file.vocab.size());
  for (size_t id = 0; id < file.vocab.size(); ++id) {
    std::optional<std::string> bytes = letters_to_bytes(file.vocab[id]);
    if (bytes && (traits[id] & kSpecial) == 0)
      parts.whole_tokens.push_back(static_cast<int32_t>(id));
    parts.token_bytes[id] = bytes ? *std::move(bytes) : file.vocab[id];
  }

  std::vector<std::string> token_bytes = parts.token_bytes;
  token_bytes.resize(ids_end);
  for (const AddedToken& t : file.added)
    token_bytes[t.id] = t.content;  // letters are not decoded there

  Tokenizer tokenizer;
  tokenizer.state_ = std::make_unique<State>(Bpe(std::move(parts)));
  State& s = *tokenizer.state_;
  s.token_bytes = std::move(token_bytes);
  s.traits = std::move(traits);
  s.first = file.first;
  s.merges_hash = hash_of(file.merges);
  s.cutting_hash = hash_of_cutting(file);
  for (size_t byte = 0; byte < file.byte_tokens.size(); ++byte)
    if (file.byte_tokens[byte] < 0)
      (is_utf8_byte(static_cast<unsigned>(byte)) ? s.no_tokens : s.foreign) +=
          static_cast<char>(byte);
  s.nfc = file.nfc;
  s.before_normalizing = make_group(file, false);
  s.after_normalizing = make_group(file, true);
  std::vector<SplitRegex> patterns;
  for (const TokenizerFile::Pattern& p : file.patterns) {
    TRY_ASSIGN(SplitRegex regex,
               p.literal ? SplitRegex::compile_literal(p.text) : SplitRegex::compile(p.text));
    patterns.push_back(std::move(regex));
  }
  s.pretokenizer = PreTokenizer(std::move(patterns));
  s.ids = std::move(file.ids);
  return tokenizer;
}

void Tokenizer::encode(std::string_view bytes, Specials specials, std::vector<int32_t>& ids) const {
  std::unique_ptr<Worker> worker = state_->take_worker();
  state_->encode(bytes, specials, *worker, ids);
  state_->give_back(std::move(worker));
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_specials) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (skip_specials && is_special(id)) continue;
    bytes += token_bytes(id);
  }
  return bytes;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= state_->token_bytes.size()) return {};
  return state_->token_bytes[id];
}

std::optional<int32_t> Tokenizer::token_id(std::string_view token_text) const {
  const auto it = state_->ids.find(std::string(token_text));
  return it == state_->ids.end() ? std::nullopt : std::optional(it->second);
}

std::optional<int32_t> Tokenizer::first_token() const { return token_id(state_->first); }

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < state_->traits.size() &&
         (state_->traits[id] & kSpecial) != 0;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->token_bytes.size()); }

VocabularyId Tokenizer::vocabulary() const { return state_->first_ids(state_->token_bytes.size()); }

bool Tokenizer::holds(const VocabularyId& vocabulary) const {
  const auto ids = static_cast<size_t>(vocabulary.ids);
  return ids <= state_->token_bytes.size() && state_->first_ids(ids) == vocabulary;
}

std::optional<std::string> Tokenizer::difference_from(const Tokenizer& other) const {
  const State &a = *state_, &b = *other.state_;
  if (other.holds(vocabulary())) return std::nullopt;
  const size_t both = std::min(a.token_bytes.size(), b.token_bytes.size());
  for (size_t id = 0; id < both; ++id) {
    if (a.token_bytes[id] != b.token_bytes[id])
      return fmt::format("id {} is {} in one and {} in the other",
                         id,
                         printable(a.token_bytes[id]),
                         printable(b.token_bytes[id]));
    if (const uint64_t differ = a.traits[id] ^ b.traits[id]; differ != 0)
      return fmt::format("id {}, {}, is {} in one and not in the other",
                         id,
                         printable(a.token_bytes[id]),
                         kTraits[std::countr_zero(differ)]);
  }
  if (a.token_bytes.size() > b.token_bytes.size())
    return fmt::format("one has {} ids, the other {}", a.token_bytes.size(), b.token_bytes.size());
  if (a.merges_hash != b.merges_hash) return "the ids are the same, but not the merges";
  return "ids and merges are the same, but not how text is cut into words: pre_tokenizer, "
         "normalizer or ignore_merges differ";
}

}  // namespace ferry::text
