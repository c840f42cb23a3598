// Batches of training and of held-out text, each a pure function of (dataset, settings, place): to
// go on is to ask for the sequences that begin where the last ones ended.
//
// A document of tokens t1 ... tn is learnt as  input  bos t1 ... tn
//                                              label  t1 ... tn eos
// so every token of every document is predicted once per epoch, the first one too, and the end.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "data/dataset.h"
#include "data/permutation.h"

namespace ferry::data {

struct Batch {
  std::vector<int32_t> tokens;  // inputs
  std::vector<int32_t> next;    // the next token of each; there always is one
  std::vector<int32_t> labels;  // the same; -1: of a conversation, it is not the model's to write
  std::vector<int32_t>
      mtp_labels;  // the one after that; -1 likewise, where the document ends before
                   // it, or, in a segment that is cut, for its last token
  /// Their sum is the number of tokens. Attention stays inside; positions begin at 0.
  std::vector<int32_t> segment_lengths = {};
  int64_t label_bytes = 0;      // of original text that the labels stand for
  int64_t label_documents = 0;  // documents whose end is among the labels
  int64_t end = 0;              // of training batches: the place where the next one begins
};

struct LoaderConfig {
  int32_t sequence_length = 0;  // at least 2
  uint64_t seed = 0;
};

/// Training batches.
///
/// Each epoch takes all documents in an order of its own, a permutation keyed by (seed, epoch); one
/// after the other they are a stream, and the epochs' streams are one. A sequence is sequence_length
/// tokens of it from any place: places are counted in tokens, so that a run that goes on with steps
/// of another size, or longer sequences, repeats nothing and leaves nothing out. A document that a
/// sequence's end cuts goes on in the next one as a new segment: it does not see what came before,
/// and its first input is the token before the cut. No token is dropped and none is padding.
///
/// Conversations are not cut: what is learnt stands at their ends, and needs what was asked. Of
/// these a sequence is as many whole ones as fit, at least one, so it may be shorter.
///
/// Threads: any number. Memory: the index of one epoch, 8 bytes per 64 documents.
class Loader {
 public:
  /// Errors: kInvalidInput, naming the setting; also if a conversation is longer than a sequence.
  static Result<Loader> create(std::shared_ptr<const Dataset> dataset, const LoaderConfig& config);

  /// `count` sequences, one after the other, from token `place` of the stream on; of conversations,
  /// 0 or the end of a batch. check: place >= 0.
  Batch sequences(int64_t place, int64_t count) const;

  int64_t tokens_per_epoch() const { return dataset_->train_places(); }
  const Dataset& dataset() const { return *dataset_; }
  const LoaderConfig& config() const { return config_; }

 private:
  struct Epoch;
  struct Cache;
  Loader(std::shared_ptr<const Dataset> dataset, const LoaderConfig& config);
  std::shared_ptr<const Epoch> epoch(int64_t number) const;

  std::shared_ptr<const Dataset> dataset_;
  LoaderConfig config_;
  std::unique_ptr<Cache> cache_;

 public:
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;
  ~Loader();
};

/// The held-out documents, in the order of their hashes, so that the first batches are a sample of
/// all. Each document is cut at multiples of sequence_length into segments, which are packed whole,
/// in order, into batches of at most tokens_per_batch tokens. What is cut off does not see what
/// came before it. All labels' bytes together are the documents' bytes.
class HeldOut {
 public:
  /// Errors: as Loader::create; none if nothing is held out: then batches() is 0.
  static Result<HeldOut> create(std::shared_ptr<const Dataset> dataset,
                                int32_t sequence_length,
                                int64_t tokens_per_batch);

  int64_t batches() const { return static_cast<int64_t>(begin_.size()) - 1; }
  Batch batch(int64_t index) const;

 private:
  struct Place {
    int64_t document, offset;  // of a segment's first input
  };
  HeldOut(std::shared_ptr<const Dataset> dataset,
          int32_t sequence_length,
          int64_t tokens_per_batch);
  std::shared_ptr<const Dataset> dataset_;
  int32_t sequence_length_;
  std::vector<Place> begin_;  // of each batch, and the end
};

}  // namespace ferry::data
