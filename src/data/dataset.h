// A prepared dataset, opened: its manifest, its tokenizer, its documents.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "data/manifest.h"
#include "data/shard.h"
#include "text/tokenizer.h"

namespace ferry::data {

/// The documents of one part as one sequence of tokens. Immutable: any number of threads.
class Documents {
 public:
  struct Document {
    const Shard* shard;
    int64_t begin, end;  // tokens in the shard; the last is the end token
    int64_t bytes;       // of text
    int64_t tokens() const { return end - begin; }
  };

  explicit Documents(std::vector<Shard> shards);
  int64_t size() const { return first_.back(); }
  int64_t tokens() const { return tokens_; }
  int64_t bytes() const { return bytes_; }
  Document operator[](int64_t index) const;

 private:
  std::vector<Shard> shards_;
  std::vector<int64_t> first_;  // document of each shard, and one past the last
  int64_t tokens_ = 0, bytes_ = 0;
};

/// Immutable; share it between loaders by shared_ptr.
class Dataset {
 public:
  enum class Verify {
    kAll,
    kSizes
  };  // hash every file (about 1 GB/s), or only compare sizes and counts

  /// The dataset is held until the object goes: nobody replaces it meanwhile.
  /// Errors: kUnavailable while it is being replaced; kNotFound without a manifest (no dataset, or
  /// one that was not prepared to its end); kCorrupt if a file is not what was prepared, naming it.
  /// progress(done, total) is called with bytes after each file.
  static Result<std::shared_ptr<const Dataset>> open(
      const std::string& folder,
      Verify verify,
      const std::function<void(uint64_t, uint64_t)>& progress = {});

  const Manifest& manifest() const { return manifest_; }
  const std::string& folder() const { return folder_; }
  const std::string& tokenizer_json() const { return tokenizer_json_; }  // the file as it was read
  std::string held_out_text_path() const;
  const text::Tokenizer& tokenizer() const { return tokenizer_; }
  const Documents& train() const { return train_; }
  const Documents& held_out() const { return held_out_; }

  // A document as it is learnt: at its i-th place the model reads input() and is to write next(),
  // which counts if learnt() says so. Text is read from the begin token on, so that its first token
  // is learnt; a conversation begins as its template has it begin.
  int64_t places(const Documents::Document& d) const {
    return d.tokens() - (manifest_.conversations() ? 1 : 0);
  }
  int32_t input(const Documents::Document& d, int64_t i) const {
    if (manifest_.conversations()) return d.shard->token(d.begin + i);
    return i == 0 ? manifest_.bos : d.shard->token(d.begin + i - 1);
  }
  int32_t next(const Documents::Document& d, int64_t i) const {
    return d.shard->token(d.begin + i + (manifest_.conversations() ? 1 : 0));
  }
  bool learnt(const Documents::Document& d, int64_t i) const {
    return !manifest_.conversations() || d.shard->learnt(d.begin + i + 1);
  }
  /// Of all training documents.
  int64_t train_places() const {
    return train_.tokens() - (manifest_.conversations() ? train_.size() : 0);
  }

  /// Bytes of original text that a token stands for: none for the begin and the end token and, in
  /// conversations, any other special one.
  int32_t token_bytes(int32_t id) const { return token_bytes_[static_cast<size_t>(id)]; }

 private:
  Dataset(FileHold hold,
          std::string folder,
          Manifest manifest,
          std::string tokenizer_json,
          text::Tokenizer tokenizer,
          Documents train,
          Documents held_out);
  FileHold hold_;  // of the manifest: `data prepare --force` leaves a dataset that is read alone
  std::string folder_;
  Manifest manifest_;
  std::string tokenizer_json_;
  text::Tokenizer tokenizer_;
  Documents train_, held_out_;
  std::vector<int32_t> token_bytes_;
};

}  // namespace ferry::data
