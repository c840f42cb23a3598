#include "data/dataset.h"

#include <algorithm>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"

namespace ferry::data {
namespace {

constexpr uint64_t kManifestBytesMax = uint64_t{64} << 20;

tl::unexpected<Status> changed(const std::string& path) {
  return fail(
      Code::kCorrupt,
      "{}: its checksum is not the manifest's; it changed after it was prepared: restore it, or "
      "prepare the dataset again",
      path);
}

Result<void> verify_text(const std::string& path, const std::string& blake2b) {
  TRY_ASSIGN(const MappedFile file, MappedFile::open(path));
  if (blake2b_hex(file.bytes()) != blake2b) return changed(path);
  return {};
}

}  // namespace

Documents::Documents(std::vector<Shard> shards) : shards_(std::move(shards)), first_{0} {
  for (const Shard& shard : shards_) {
    first_.push_back(first_.back() + shard.documents());
    tokens_ += shard.tokens();
    for (int64_t d = 0; d < shard.documents(); ++d) bytes_ += shard.document_bytes(d);
  }
}

Documents::Document Documents::operator[](int64_t index) const {
  check(index >= 0 && index < size(), "documents: {} of {}", index, size());
  const auto after = std::upper_bound(first_.begin(), first_.end(), index);
  const auto s = static_cast<size_t>(after - first_.begin()) - 1;
  const int64_t d = index - first_[s];
  return {&shards_[s],
          shards_[s].document_begin(d),
          shards_[s].document_end(d),
          shards_[s].document_bytes(d)};
}

Dataset::Dataset(FileHold hold,
                 std::string folder,
                 Manifest manifest,
                 std::string tokenizer_json,
                 text::Tokenizer tokenizer,
                 Documents train,
                 Documents held_out)
    : hold_(std::move(hold)),
      folder_(std::move(folder)),
      manifest_(std::move(manifest)),
      tokenizer_json_(std::move(tokenizer_json)),
      tokenizer_(std::move(tokenizer)),
      train_(std::move(train)),
      held_out_(std::move(held_out)) {
  for (int32_t id = 0; id < manifest_.vocab_size; ++id) {
    const bool control = id == manifest_.bos || id == manifest_.eos ||
                         (manifest_.conversations() && tokenizer_.is_special(id));
    token_bytes_.push_back(control ? 0 : static_cast<int32_t>(tokenizer_.token_bytes(id).size()));
  }
}

std::string Dataset::held_out_text_path() const { return join_path(folder_, kHeldOutTextFile); }

Result<std::shared_ptr<const Dataset>> Dataset::open(
    const std::string& folder,
    Verify verify,
    const std::function<void(uint64_t, uint64_t)>& progress) {
  const std::string manifest_path = join_path(folder, kManifestFile);
  TRY_ASSIGN(const bool folder_there, is_there(folder));
  if (!folder_there)
    return fail(
        Code::kNotFound, "{}: no such folder; `ferry data prepare` makes a dataset", folder);
  TRY_ASSIGN(const bool there, is_there(manifest_path));
  if (!there)
    return fail(
        Code::kNotFound,
        "{}: is no dataset, or one that was not prepared to its end: it has no {}; run `ferry data "
        "prepare`",
        folder,
        kManifestFile);
  TRY_ASSIGN(FileHold hold, FileHold::shared(manifest_path));
  TRY_ASSIGN(const std::string json, read_file(manifest_path, kManifestBytesMax));
  TRY_ASSIGN(Manifest manifest, Manifest::parse(json, manifest_path));

  const std::string tokenizer_path = join_path(folder, kTokenizerFile);
  TRY_ASSIGN(std::string tokenizer_json, read_file(tokenizer_path));
  if (blake2b_hex(tokenizer_json.data(), tokenizer_json.size()) != manifest.tokenizer_blake2b)
    return changed(tokenizer_path);
  TRY_ASSIGN(text::Tokenizer tokenizer, text::Tokenizer::parse(tokenizer_json, tokenizer_path));
  if (tokenizer.vocab_size() != manifest.vocab_size)
    return fail(Code::kCorrupt,
                "{}: vocab_size {} is not that of {} ({}); prepare the dataset again",
                manifest_path,
                manifest.vocab_size,
                kTokenizerFile,
                tokenizer.vocab_size());

  uint64_t done = 0, total = 0;
  for (const Part* part : {&manifest.train, &manifest.held_out})
    for (const ShardInfo& info : part->shards) total += info.file_bytes;
  const auto open_part = [&](const Part& part) -> Result<Documents> {
    std::vector<Shard> shards;
    for (const ShardInfo& info : part.shards) {
      TRY_ASSIGN(Shard shard,
                 Shard::open(join_path(folder, info.file),
                             info,
                             manifest.vocab_size,
                             manifest.conversations(),
                             verify == Verify::kAll));
      shards.push_back(std::move(shard));
      done += info.file_bytes;
      if (progress) progress(done, total);
    }
    return Documents(std::move(shards));
  };
  TRY_ASSIGN(Documents train, open_part(manifest.train));
  TRY_ASSIGN(Documents held_out, open_part(manifest.held_out));
  if (verify == Verify::kAll)
    TRY(verify_text(join_path(folder, kHeldOutTextFile), manifest.held_out_text_blake2b));
  return std::shared_ptr<const Dataset>(new Dataset(std::move(hold),
                                                    folder,
                                                    std::move(manifest),
                                                    std::move(tokenizer_json),
                                                    std::move(tokenizer),
                                                    std::move(train),
                                                    std::move(held_out)));
}

}  // namespace ferry::data
