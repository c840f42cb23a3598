#include "data/shard.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace ferry::data {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped as they lie on disk");

struct Header {
  char magic[8];
  uint32_t version, token_bytes, vocab_size, marked;
};
struct Footer {
  uint64_t tokens, documents;
  char magic[8];
};
static_assert(sizeof(Header) == 24 && sizeof(Footer) == 24);

constexpr const char* kMagic = kShardMagic;
constexpr char kEndMagic[] = "FERRYEND";
constexpr size_t kBlockBytes = size_t{64} << 10;

uint32_t token_bytes_of(int32_t vocab_size, bool marked) {
  return vocab_size <= 65536 && !marked ? 2 : 4;
}
uint32_t version_of(bool marked) { return marked ? kMarkedShardVersion : kShardVersion; }

}  // namespace

ShardWriter::ShardWriter(FileWriter file, int32_t vocab_size, bool marked)
    : file_(std::move(file)), vocab_size_(vocab_size), marked_(marked) {
  Header header{{},
                version_of(marked),
                token_bytes_of(vocab_size, marked),
                static_cast<uint32_t>(vocab_size),
                marked};
  std::memcpy(header.magic, kMagic, 8);
  put(&header, sizeof header);
}

Result<ShardWriter> ShardWriter::create(const std::string& path, int32_t vocab_size, bool marked) {
  TRY_ASSIGN(FileWriter file, FileWriter::create(path));
  return ShardWriter(std::move(file), vocab_size, marked);
}

uint64_t ShardWriter::token_bytes() const { return token_bytes_of(vocab_size_, marked_); }

void ShardWriter::put(const void* data, size_t size) {
  block_.append(static_cast<const char*>(data), size);
}

Result<void> ShardWriter::flush() {
  hasher_.update(block_.data(), block_.size());
  TRY(file_.write(block_));
  block_.clear();
  return {};
}

Result<void> ShardWriter::append(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) TRY(append(token, true));
  return {};
}

Result<void> ShardWriter::append(std::span<const int32_t> tokens, const std::vector<bool>& learnt) {
  check(marked_ && learnt.size() == tokens.size(), "shard: {} marks", learnt.size());
  for (size_t i = 0; i < tokens.size(); ++i) TRY(append(tokens[i], learnt[i]));
  return {};
}

Result<void> ShardWriter::append(int32_t token, bool learnt) {
  check(token >= 0 && token < vocab_size_,
        "shard: token {} of a vocabulary of {}",
        token,
        vocab_size_);
  const auto narrow = static_cast<uint16_t>(token);
  const uint32_t wide = static_cast<uint32_t>(token) | (learnt ? 0 : kNotLearnt);
  if (token_bytes() == 4)
    put(&wide, sizeof wide);
  else
    put(&narrow, sizeof narrow);
  if (block_.size() >= kBlockBytes) TRY(flush());
  ++tokens_;
  return {};
}

void ShardWriter::end_document(uint64_t text_bytes) {
  check(tokens_ > (table_.empty() ? 0 : table_[table_.size() - 2]),
        "shard: a document without tokens");
  table_.push_back(tokens_);
  table_.push_back(text_bytes);
  bytes_ += text_bytes;
}

Result<ShardInfo> ShardWriter::finish() {
  check((table_.empty() ? 0 : table_[table_.size() - 2]) == tokens_,
        "shard: ends inside a document");
  const uint64_t data_bytes = tokens_ * token_bytes();
  block_.append((8 - data_bytes % 8) % 8, '\0');
  put(table_.data(), table_.size() * sizeof(uint64_t));
  Footer footer{tokens_, documents(), {}};
  std::memcpy(footer.magic, kEndMagic, 8);
  put(&footer, sizeof footer);
  TRY(flush());
  TRY(file_.sync());
  TRY(file_.close());
  return ShardInfo{"", file_.bytes_written(), hasher_.hex(), tokens_, documents(), bytes_};
}

namespace {

/// What is wrong with the file, or nothing.
std::string find_fault(std::span<const std::byte> bytes,
                       const ShardInfo& info,
                       int32_t vocab_size,
                       bool marked,
                       bool verify) {
  if (bytes.size() != info.file_bytes)
    return fmt::format("has {} bytes, the manifest says {}", bytes.size(), info.file_bytes);
  if (verify && blake2b_hex(bytes) != info.blake2b) return "its checksum is not the manifest's";
  Header header;
  Footer footer;
  if (bytes.size() < sizeof header + sizeof footer) return "is too short for a shard";
  std::memcpy(&header, bytes.data(), sizeof header);
  std::memcpy(&footer, bytes.data() + bytes.size() - sizeof footer, sizeof footer);
  if (std::memcmp(header.magic, kMagic, 8) != 0 || std::memcmp(footer.magic, kEndMagic, 8) != 0)
    return "does not begin and end as a shard does";
  if (header.version != version_of(marked) || header.marked != uint32_t{marked})
    return fmt::format(
        "is of version {}, and should be of version {}", header.version, version_of(marked));
  if (header.vocab_size != static_cast<uint32_t>(vocab_size) ||
      header.token_bytes != token_bytes_of(vocab_size, marked))
    return "was made for another vocabulary";
  if (footer.tokens != info.tokens || footer.documents != info.documents)
    return "its counts are not the manifest's";
  // The counts are bounded by the file's size before they are multiplied.
  if (footer.tokens > bytes.size() || footer.documents > bytes.size() || info.bytes > INT64_MAX)
    return "its counts exceed its size";
  const uint64_t data = (footer.tokens * header.token_bytes + 7) / 8 * 8;
  if (sizeof header + data + footer.documents * 16 + sizeof footer != bytes.size())
    return "its counts contradict its size";
  return "";
}

}  // namespace

Result<Shard> Shard::open(
    const std::string& path, const ShardInfo& info, int32_t vocab_size, bool marked, bool verify) {
  TRY_ASSIGN(MappedFile file, MappedFile::open(path));
  Shard shard(std::move(file));
  const std::span<const std::byte> bytes = shard.file_.bytes();
  const auto changed = [&](std::string_view why) {
    return fail(
        Code::kCorrupt,
        "{}: {}; it changed after it was prepared: restore it, or prepare the dataset again",
        path,
        why);
  };
  if (const std::string fault = find_fault(bytes, info, vocab_size, marked, verify); !fault.empty())
    return changed(fault);
  shard.tokens_ = static_cast<int64_t>(info.tokens);
  shard.wide_ = token_bytes_of(vocab_size, marked) == 4;
  shard.mark_ = marked ? kNotLearnt : 0;
  shard.data_ = bytes.data() + sizeof(Header);
  const std::byte* table = bytes.data() + bytes.size() - sizeof(Footer) - info.documents * 16;
  shard.table_ = {reinterpret_cast<const uint64_t*>(table), info.documents * 2};
  uint64_t end = 0, text_bytes = 0;
  for (size_t d = 0; d < info.documents; ++d) {
    if (shard.table_[2 * d] <= end)
      return changed(fmt::format("document {} ends before it begins", d));
    if (marked && shard.table_[2 * d] - end < 2)
      return changed(fmt::format("document {} has nothing to learn", d));
    end = shard.table_[2 * d];
    const uint64_t of_document = shard.table_[2 * d + 1];
    if (of_document > info.bytes - text_bytes)  // a sum that wraps round would agree
      return changed(fmt::format("document {} has more bytes than all", d));
    text_bytes += of_document;
  }
  if (end != info.tokens || text_bytes != info.bytes)
    return changed("its documents are not all of its tokens");
  for (int64_t i = 0; verify && i < shard.tokens_; ++i)
    if (shard.token(i) < 0 || shard.token(i) >= vocab_size)
      return changed(fmt::format("token {} is not in the vocabulary", i));
  return shard;
}

}  // namespace ferry::data
