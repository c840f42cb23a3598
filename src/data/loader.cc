#include "data/loader.h"

#include <algorithm>

#include "base/alive.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/flight_record.h"

namespace ferry::data {
namespace {

/// Appends a segment: places [offset, offset + count) of a document.
void append_segment(const Dataset& dataset,
                    const Documents::Document& d,
                    int64_t offset,
                    int64_t count,
                    Batch& out) {
  const auto label = [&](int64_t i) {
    return i < offset + count && dataset.learnt(d, i) ? dataset.next(d, i) : -1;
  };
  for (int64_t i = offset; i < offset + count; ++i) {
    out.tokens.push_back(dataset.input(d, i));
    out.next.push_back(dataset.next(d, i));
    out.labels.push_back(label(i));
    out.mtp_labels.push_back(label(i + 1));
    if (label(i) >= 0) out.label_bytes += dataset.token_bytes(label(i));
  }
  out.segment_lengths.push_back(static_cast<int32_t>(count));
  if (offset + count < dataset.places(d)) return;
  ++out.label_documents;
  if (dataset.manifest().token_bytes_exact) return;
  // The tokenizer normalised the text: what its tokens' bytes lack or exceed is set right at the
  // end.
  int64_t bytes = 0;
  for (int64_t i = 0; i < dataset.places(d); ++i) bytes += dataset.token_bytes(dataset.next(d, i));
  out.label_bytes += d.bytes - bytes;
}

void reserve(Batch& batch, int64_t tokens) {
  for (std::vector<int32_t>* v : {&batch.tokens, &batch.next, &batch.labels, &batch.mtp_labels})
    v->reserve(static_cast<size_t>(tokens));
}

Result<void> check_setting(bool ok, const char* name, int64_t value, std::string_view must) {
  if (ok) return {};
  return fail(Code::kInvalidInput, "{} = {}: must be {}", name, value, must);
}

/// Conversations are learnt and judged whole.
Result<void> check_conversations(const Dataset& dataset,
                                 const Documents& documents,
                                 int64_t length) {
  if (!dataset.manifest().conversations()) return {};
  int64_t longest = 0, long_ones = 0;
  for (int64_t i = 0; i < documents.size(); ++i) {
    const int64_t places = dataset.places(documents[i]);
    longest = std::max(longest, places);
    long_ones += places > length;
    still_alive();
  }
  if (long_ones == 0) return {};
  return fail(
      Code::kInvalidInput,
      "sequence_length = {}: {} of the conversations in {} are longer, up to {} tokens, and "
      "are not cut; raise it, or prepare them again with --max-tokens",
      length,
      long_ones,
      dataset.folder(),
      longest);
}

constexpr int32_t kSequenceLengthMax = 1 << 24;
constexpr int64_t kBatchTokensMax = int64_t{1} << 31;

}  // namespace

/// Where in an epoch's stream its documents begin: known for every 64th, found from there.
struct Loader::Epoch {
  static constexpr uint64_t kStride = 64;
  int64_t number;
  Permutation order;
  std::vector<int64_t> begin;  // token at which document kStride * i of the order begins

  Epoch(const Dataset& dataset, uint64_t seed, int64_t epoch_number)
      : number(epoch_number),
        order(static_cast<uint64_t>(dataset.train().size()),
              Random(seed, RandomPurpose::kShuffle, static_cast<uint64_t>(epoch_number))) {
    int64_t at = 0;
    for (uint64_t i = 0; i < order.size(); ++i) {
      if (i % kStride == 0) {
        begin.push_back(at);
        still_alive();
      }
      at += dataset.places(dataset.train()[static_cast<int64_t>(order(i))]);
    }
    check(at == dataset.train_places(),
          "loader: {} tokens in the documents, {} in the shards",
          at,
          dataset.train_places());
  }

  /// Calls f(document, offset in it, count) for the tokens [from, from + count) of the stream, or to
  /// the first document that is longer than what is left of them if only `whole` ones are wanted.
  /// Returns where it stopped.
  template <typename F>
  int64_t for_each(const Dataset& dataset, int64_t from, int64_t count, bool whole, F f) const {
    const auto block =
        static_cast<uint64_t>(std::upper_bound(begin.begin(), begin.end(), from) - begin.begin()) -
        1;
    int64_t at = begin[block];
    for (uint64_t i = block * kStride; count > 0; ++i) {
      const Documents::Document d = dataset.train()[static_cast<int64_t>(order(i))];
      const int64_t places = dataset.places(d);
      if (at + places > from) {
        const int64_t n = std::min(count, at + places - from);
        if (whole && n < places) break;
        f(d, from - at, n);
        from += n;
        count -= n;
      }
      at += places;
    }
    return from;
  }
};

struct Loader::Cache {
  std::mutex mutex;
  std::shared_ptr<const Epoch> latest;
};

Loader::Loader(std::shared_ptr<const Dataset> dataset, const LoaderConfig& config)
    : dataset_(std::move(dataset)), config_(config), cache_(std::make_unique<Cache>()) {}
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;
Loader::~Loader() = default;

Result<Loader> Loader::create(std::shared_ptr<const Dataset> dataset, const LoaderConfig& config) {
  const int64_t length = config.sequence_length;
  TRY(check_setting(
      length >= 2 && length <= kSequenceLengthMax, "sequence_length", length, "2 to 16777216"));
  if (dataset->train().size() == 0)
    return fail(Code::kInvalidInput,
                "{}: has no training documents; prepare it from more text",
                dataset->folder());
  TRY(check_conversations(*dataset, dataset->train(), length));
  return Loader(std::move(dataset), config);
}

std::shared_ptr<const Loader::Epoch> Loader::epoch(int64_t number) const {
  const std::lock_guard lock(cache_->mutex);
  if (!cache_->latest || cache_->latest->number != number)
    cache_->latest = std::make_shared<const Epoch>(*dataset_, config_.seed, number);
  return cache_->latest;
}

Batch Loader::sequences(int64_t place, int64_t count) const {
  check(place >= 0 && count >= 0, "loader: {} sequences from token {}", count, place);
  const flight::In reading(flight::Activity::kData);
  static_cast<void>(fault_point("data.read"));  // a test makes a disk stand still
  const int64_t length = config_.sequence_length;
  const int64_t per_epoch = tokens_per_epoch();
  const bool whole = dataset_->manifest().conversations();
  Batch out;
  reserve(out, count * length);
  out.end = place;
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t left = length; left > 0;) {  // a sequence may span epochs
      const int64_t within = out.end % per_epoch;
      const int64_t n = std::min(left, per_epoch - within);
      const int64_t read =
          epoch(out.end / per_epoch)
              ->for_each(*dataset_,
                         within,
                         n,
                         whole,
                         [&](const Documents::Document& d, int64_t offset, int64_t m) {
                           append_segment(*dataset_, d, offset, m, out);
                         }) -
          within;
      out.end += read;
      left = read < n ? 0 : left - read;
    }
  }
  return out;
}

HeldOut::HeldOut(std::shared_ptr<const Dataset> dataset,
                 int32_t sequence_length,
                 int64_t tokens_per_batch)
    : dataset_(std::move(dataset)), sequence_length_(sequence_length) {
  int64_t used = tokens_per_batch;  // of the current batch: the first segment opens one
  const Documents& documents = dataset_->held_out();
  for (int64_t i = 0; i < documents.size(); ++i) {
    const int64_t tokens = dataset_->places(documents[i]);
    still_alive();
    for (int64_t offset = 0; offset < tokens; offset += sequence_length_) {
      const int64_t n = std::min<int64_t>(sequence_length_, tokens - offset);
      if (used + n > tokens_per_batch) {
        begin_.push_back({i, offset});
        used = 0;
      }
      used += n;
    }
  }
  begin_.push_back({documents.size(), 0});
}

Result<HeldOut> HeldOut::create(std::shared_ptr<const Dataset> dataset,
                                int32_t sequence_length,
                                int64_t tokens_per_batch) {
  TRY(check_setting(sequence_length >= 2 && sequence_length <= kSequenceLengthMax,
                    "sequence_length",
                    sequence_length,
                    "2 to 16777216"));
  TRY(check_setting(
      tokens_per_batch >= sequence_length && tokens_per_batch <= kBatchTokensMax,
      "tokens_per_batch",
      tokens_per_batch,
      fmt::format("at least sequence_length ({}), at most 2147483648", sequence_length)));
  TRY(check_conversations(*dataset, dataset->held_out(), sequence_length));
  return HeldOut(std::move(dataset), sequence_length, tokens_per_batch);
}

Batch HeldOut::batch(int64_t index) const {
  check(index >= 0 && index < batches(), "held-out: batch {} of {}", index, batches());
  const Place end = begin_[static_cast<size_t>(index) + 1];
  Batch out;
  for (Place at = begin_[static_cast<size_t>(index)];
       at.document != end.document || at.offset != end.offset;) {
    const Documents::Document d = dataset_->held_out()[at.document];
    const int64_t places = dataset_->places(d),
                  n = std::min<int64_t>(sequence_length_, places - at.offset);
    append_segment(*dataset_, d, at.offset, n, out);
    at = at.offset + n < places ? Place{at.document, at.offset + n} : Place{at.document + 1, 0};
  }
  return out;
}

}  // namespace ferry::data
