// Fuzzer of the reader of shards: any bytes are refused with words, or every document can be read.
// The manifest is one that would be believed: it repeats what the bytes claim.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/hash.h"
#include "data/shard.h"
#include "fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  using data::Shard;
  static const FuzzFolder folder;
  folder.write("shard.tok", {reinterpret_cast<const char*>(data), size});
  data::ShardInfo info{.file = "shard.tok",
                       .file_bytes = size,
                       .blake2b = blake2b_hex(data, size),
                       .tokens = 1,
                       .documents = 1,
                       .bytes = 1};
  uint32_t vocab_size = 300;
  if (size >= 48) {
    std::memcpy(&vocab_size, data + 16, sizeof vocab_size);
    std::memcpy(&info.tokens, data + size - 24, sizeof info.tokens);
    std::memcpy(&info.documents, data + size - 16, sizeof info.documents);
    // The table's sum, as far as there is a table.
    info.bytes = 0;
    const uint64_t documents = std::min<uint64_t>(info.documents, (size - 48) / 16);
    for (uint64_t d = 0; d < documents; ++d) {
      uint64_t bytes = 0;
      std::memcpy(&bytes, data + size - 24 - documents * 16 + d * 16 + 8, sizeof bytes);
      info.bytes += bytes;
    }
  }
  const auto vocab = static_cast<int32_t>(std::clamp<uint32_t>(vocab_size, 2, 1 << 24));
  for (const bool verify : {true, false}) {
    const bool marked = info.documents % 2 != 0;
    const Result<Shard> shard = Shard::open(folder / "shard.tok", info, vocab, marked, verify);
    if (!shard) {
      check(!shard.error().message.empty(), "fuzz: refused without a word");
      continue;
    }
    int64_t tokens = 0;
    for (int64_t d = 0; d < shard->documents(); ++d) {
      check(shard->document_begin(d) < shard->document_end(d), "fuzz: document {} is empty", d);
      check(shard->document_bytes(d) >= 0, "fuzz: document {} has negative bytes", d);
      for (int64_t i = shard->document_begin(d); i < shard->document_end(d); ++i, ++tokens)
        check(!verify || (shard->token(i) >= 0 && shard->token(i) < vocab), "fuzz: token {}", i);
    }
    check(tokens == shard->tokens(), "fuzz: {} of {} tokens", tokens, shard->tokens());
  }
  return 0;
}
