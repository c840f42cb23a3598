#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <set>

#include "base/alive.h"
#include "data/data_testing.h"

namespace ferry::data {
namespace {

/// A dataset of documents of very different lengths, one a line.
std::shared_ptr<const Dataset> make_dataset(const TestFolder& folder,
                                            const std::string& tokenizer,
                                            int documents,
                                            uint64_t held_out_bytes) {
  const Random random(21, RandomPurpose::kTest, 0);
  std::string text;
  for (uint64_t i = 0; i < static_cast<uint64_t>(documents); ++i) {
    const int words = i % 7 == 0 ? 60 : 1 + static_cast<int>(random.below(i, 9));
    text += random_words(random, i * 100, words) +
            (i % 3 == 0 ? " e\xCC\x81t\xC3\xA9\n" : " 中\n");  // NFC changes one
  }
  PrepareOptions options;
  options.inputs = {folder.write("a.txt", text)};
  options.out = folder / "dataset";
  options.tokenizer = folder.write("tokenizer.json", tokenizer);
  options.source.split = Split::kLine;
  options.held_out_bytes = held_out_bytes;
  options.shard_bytes = 4096;
  options.threads = 1;
  const auto manifest = prepare(options);
  EXPECT_TRUE(manifest) << manifest.error().message;
  return *Dataset::open(options.out, Dataset::Verify::kAll);
}

Loader make_loader(const std::shared_ptr<const Dataset>& dataset, const LoaderConfig& config) {
  auto loader = Loader::create(dataset, config);
  EXPECT_TRUE(loader) << loader.error().message;
  return *std::move(loader);
}

bool operator==(const Batch& a, const Batch& b) {
  return a.tokens == b.tokens && a.labels == b.labels && a.mtp_labels == b.mtp_labels &&
         a.segment_lengths == b.segment_lengths && a.label_bytes == b.label_bytes &&
         a.label_documents == b.label_documents;
}

/// What holds inside every batch.
void expect_sound(const Batch& batch, int64_t sequence_length) {
  ASSERT_EQ(batch.labels.size(), batch.tokens.size());
  ASSERT_EQ(batch.mtp_labels.size(), batch.tokens.size());
  size_t i = 0;
  for (const int32_t length : batch.segment_lengths) {
    ASSERT_GE(length, 1);
    ASSERT_LE(length, sequence_length);
    for (int32_t k = 0; k < length; ++k, ++i) {
      ASSERT_LT(i, batch.tokens.size());
      ASSERT_GE(batch.labels[i], 0);
      const bool last = k + 1 == length;
      if (!last) {
        ASSERT_EQ(batch.tokens[i + 1], batch.labels[i]);
      }
      ASSERT_EQ(batch.mtp_labels[i], last ? -1 : batch.labels[i + 1]);
    }
  }
  ASSERT_EQ(i, batch.tokens.size());
}

void append(Batch& all, const Batch& more) {
  all.tokens.insert(all.tokens.end(), more.tokens.begin(), more.tokens.end());
  all.labels.insert(all.labels.end(), more.labels.begin(), more.labels.end());
  all.mtp_labels.insert(all.mtp_labels.end(), more.mtp_labels.begin(), more.mtp_labels.end());
  all.segment_lengths.insert(
      all.segment_lengths.end(), more.segment_lengths.begin(), more.segment_lengths.end());
  all.label_bytes += more.label_bytes;
  all.label_documents += more.label_documents;
}

/// An epoch of many documents takes a while to be laid out.
TEST(Loader, LayingOutAnEpochShowsLife) {
  const TestFolder folder;
  const auto dataset = make_dataset(folder, tokenizer_json(), 1000, 2000);
  std::atomic<int64_t> heard{0};
  const AliveListener listener([&](uint64_t) { ++heard; });
  const Loader loader = make_loader(dataset, {.sequence_length = 16});
  loader.sequences(0, 1);
  EXPECT_GE(heard.exchange(0), dataset->train().size() / 64);
  ASSERT_TRUE(HeldOut::create(dataset, 16, 64));
  EXPECT_GE(heard, dataset->held_out().size());
}

TEST(Permutation, IsABijectionThatDependsOnItsKey) {
  for (const uint64_t n : {1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 1000, 4097}) {
    const Permutation order(n, Random(1, RandomPurpose::kShuffle, 0));
    std::set<uint64_t> values;
    for (uint64_t i = 0; i < n; ++i) values.insert(order(i));
    EXPECT_EQ(values.size(), n);
    EXPECT_EQ(*values.rbegin(), n - 1);
  }
  const Permutation a(1000, Random(1, RandomPurpose::kShuffle, 0)),
      b(1000, Random(1, RandomPurpose::kShuffle, 1)),
      c(1000, Random(2, RandomPurpose::kShuffle, 0));
  int same_b = 0, same_c = 0, fixed = 0, follows = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same_b += a(i) == b(i);
    same_c += a(i) == c(i);
    fixed += a(i) == i;
    follows += i > 0 && a(i) == a(i - 1) + 1;
  }
  for (const int count : {same_b, same_c, fixed, follows}) EXPECT_LT(count, 10);  // each expects 1
}

TEST(Loader, EachEpochTakesEveryDocumentOnceWholeAndInAnotherOrder) {
  const TestFolder folder;
  const auto dataset = make_dataset(folder, tokenizer_json(), 300, 500);
  const int32_t length = 16;
  const Loader loader = make_loader(dataset, {length, 5});
  const int64_t per_epoch = loader.tokens_per_epoch();

  // The labels are the stream of stored tokens: cut it where epochs and documents end.
  std::vector<int32_t> labels, tokens;
  int64_t bytes = 0, ended = 0;
  for (int64_t step = 0; step * 64 < 3 * per_epoch; ++step) {
    const Batch batch = loader.sequences(step * 64, 64 / length);
    ASSERT_EQ(batch.tokens.size(), 64u);
    expect_sound(batch, length);
    // No segment crosses a sequence.
    int64_t at = 0;
    for (const int32_t n : batch.segment_lengths) {
      ASSERT_EQ(at / length, (at + n - 1) / length);
      at += n;
    }
    labels.insert(labels.end(), batch.labels.begin(), batch.labels.end());
    tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
    bytes += batch.label_bytes;
    ended += batch.label_documents;
  }
  EXPECT_GT(bytes, 3 * dataset->train().bytes() - 1);
  EXPECT_LT(bytes, 3 * dataset->train().bytes() + 1000);
  EXPECT_GE(ended, 3 * dataset->train().size());

  const Manifest& m = dataset->manifest();
  std::multiset<std::string> expected;
  for (std::string& d : texts(*dataset, dataset->train())) expected.insert(std::move(d));
  std::vector<std::vector<std::string>> orders;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::string> documents;
    std::vector<int32_t> ids;
    for (int64_t i = epoch * per_epoch; i < (epoch + 1) * per_epoch; ++i) {
      const bool begins = i == 0 || labels[i - 1] == m.eos;
      EXPECT_EQ(tokens[i], begins ? m.bos : labels[i - 1]);
      if (labels[i] != m.eos) {
        ids.push_back(labels[i]);
        continue;
      }
      documents.push_back(dataset->tokenizer().decode(ids));
      ids.clear();
    }
    EXPECT_TRUE(ids.empty()) << "an epoch ends inside a document";
    EXPECT_EQ(std::multiset<std::string>(documents.begin(), documents.end()), expected);
    orders.push_back(std::move(documents));
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  EXPECT_NE(orders[0], texts(*dataset, dataset->train()));
}

TEST(Loader, ABatchIsAFunctionOfItsPlaceAlone) {
  const TestFolder folder;
  const auto dataset = make_dataset(folder, tokenizer_json(), 200, 500);
  const LoaderConfig config{24, 5};
  const auto batch = [](const Loader& loader, int64_t step) {
    return loader.sequences(step * 96, 4);
  };
  std::vector<Batch> batches;
  {
    const Loader loader = make_loader(dataset, config);
    for (int64_t step = 0; step * 96 < 4 * loader.tokens_per_epoch(); ++step)
      batches.push_back(batch(loader, step));
  }
  const Loader again = make_loader(dataset, config);
  const Random random(1, RandomPurpose::kTest, 0);
  for (uint64_t i = 0; i < 200; ++i) {  // in any order, across epochs
    const auto step = static_cast<int64_t>(random.below(i, batches.size()));
    ASSERT_TRUE(batch(again, step) == batches[static_cast<size_t>(step)]) << step;
  }
  for (const int64_t resumed_at : {int64_t{1}, int64_t{37}}) {
    const Loader resumed =
        make_loader(*Dataset::open(folder / "dataset", Dataset::Verify::kAll), config);
    for (int64_t step = resumed_at; step < resumed_at + 50; ++step)
      ASSERT_TRUE(batch(resumed, step) == batches[static_cast<size_t>(step)]);
  }
  for (const int64_t count : {1, 2}) {  // micro-batches are the batch
    Batch all;
    for (int64_t first = 0; first < 4; first += count)
      append(all, again.sequences(30 * 96 + first * 24, count));
    EXPECT_TRUE(all == batches[30]);
  }
  // The same stream in sequences of another length, from a place that is no multiple of it.
  const Batch longer = make_loader(dataset, {32, 5}).sequences(10 * 96, 3);
  EXPECT_EQ(longer.labels, batches[10].labels);
  EXPECT_EQ(longer.label_bytes, batches[10].label_bytes);
  EXPECT_FALSE(batch(make_loader(dataset, {24, 6}), 0) == batches[0]);
}

TEST(Loader, CountsTheBytesOfTheTextAlsoWhereTheTokenizerChangesIt) {
  const TestFolder folder;
  std::string json = tokenizer_json();
  const size_t at = json.find("\"normalizer\": null");
  ASSERT_NE(at, std::string::npos);
  json.replace(at, 18, R"("normalizer": {"type": "NFC"})");
  const auto dataset = make_dataset(folder, json, 100, 500);
  EXPECT_FALSE(dataset->manifest().token_bytes_exact);
  const auto one_step = static_cast<int64_t>(dataset->train().tokens());
  // A prime number of tokens may not be cut into equal sequences: take one of them all.
  const Loader loader = make_loader(dataset, {static_cast<int32_t>(one_step), 1});
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    const Batch batch = loader.sequences(epoch * one_step, 1);
    EXPECT_EQ(batch.label_bytes, dataset->train().bytes());
    EXPECT_EQ(batch.label_documents, dataset->train().size());
  }
}

TEST(Loader, RefusesSettingsThatDoNotFit) {
  const TestFolder folder;
  const auto dataset = make_dataset(folder, tokenizer_json(), 50, 0);
  for (const LoaderConfig& config :
       {LoaderConfig{0, 0}, LoaderConfig{1, 0}, LoaderConfig{-16, 0}, LoaderConfig{1 << 25, 0}}) {
    const auto loader = Loader::create(dataset, config);
    ASSERT_FALSE(loader);
    EXPECT_EQ(loader.error().code, Code::kInvalidInput);
  }
  EXPECT_FALSE(HeldOut::create(dataset, 16, 15));
  EXPECT_EQ(HeldOut::create(dataset, 16, 64)->batches(), 0);
}

TEST(HeldOut, CoversEveryByteWhateverTheBatches) {
  const TestFolder folder;
  const auto dataset = make_dataset(folder, tokenizer_json(), 400, 3000);
  const std::vector<std::string> expected = texts(*dataset, dataset->held_out());
  ASSERT_GT(expected.size(), 5u);
  Batch first;
  for (const int64_t per_batch : {32, 100, 1 << 20}) {
    const auto held_out = HeldOut::create(dataset, 32, per_batch);
    ASSERT_TRUE(held_out);
    Batch all;
    for (int64_t i = 0; i < held_out->batches(); ++i) {
      const Batch batch = held_out->batch(i);
      expect_sound(batch, 32);
      EXPECT_LE(static_cast<int64_t>(batch.tokens.size()), per_batch);
      append(all, batch);
    }
    EXPECT_EQ(all.label_bytes, dataset->held_out().bytes());
    EXPECT_EQ(all.label_documents, dataset->held_out().size());
    std::vector<std::string> documents(1);
    for (const int32_t label : all.labels) {
      if (label != dataset->manifest().eos)
        documents.back() += dataset->tokenizer().token_bytes(label);
      else
        documents.emplace_back();
    }
    documents.pop_back();
    EXPECT_EQ(documents, expected);
    if (per_batch == 32) first = all;
    EXPECT_TRUE(all == first);  // the same segments, whatever the packing
  }
}

/// A dataset of conversations of `lengths` tokens; of each the second half is learnt.
std::shared_ptr<const Dataset> conversations(const TestFolder& folder,
                                             const std::vector<int>& lengths,
                                             uint64_t held_out_bytes) {
  std::string lines;
  for (size_t i = 0; i < lengths.size(); ++i) lines += fmt::format("[{}, {}]\n", i, lengths[i]);
  PrepareOptions options;
  options.inputs = {folder.write("chats.jsonl", lines)};
  options.out = folder / "chats";
  options.tokenizer = folder.write("tokenizer.json", tokenizer_json());
  options.held_out_bytes = held_out_bytes;
  options.near_duplicate = 2;
  options.shard_bytes = 4096;
  options.conversations =
      Conversations{.template_blake2b = "of the template",
                    .lessons = [](std::string_view line) -> Result<std::vector<text::Lesson>> {
                      const size_t comma = line.find(',');
                      const int number = std::stoi(std::string(line.substr(1, comma - 1))),
                                length = std::stoi(std::string(line.substr(comma + 1)));
                      text::Lesson lesson;
                      for (int t = 0; t < length; ++t) {
                        lesson.ids.push_back((number * 7 + t) % 200 + 2);
                        lesson.learnt.push_back(t >= length / 2);
                      }
                      return std::vector{lesson};
                    }};
  const auto manifest = prepare(options);
  EXPECT_TRUE(manifest) << manifest.error().message;
  return *Dataset::open(options.out, Dataset::Verify::kAll);
}

TEST(Loader, ConversationsAreTakenWholeAndOnlyAnswersAreLearnt) {
  const TestFolder folder;
  std::vector<int> lengths;
  for (int i = 0; i < 60; ++i) lengths.push_back(2 + i * 5 % 31);
  const auto dataset = conversations(folder, lengths, 0);
  int64_t all = 0;
  for (const int n : lengths) all += n - 1;
  const Loader loader = make_loader(dataset, {.sequence_length = 40, .seed = 3});
  ASSERT_EQ(loader.tokens_per_epoch(), all);
  std::multiset<int32_t> seen, expected;  // first tokens and lengths, of two epochs
  for (int i = 0; i < 60; ++i)
    for (int epoch = 0; epoch < 2; ++epoch)
      expected.insert((i * 7 % 200 + 2) * 100 + lengths[static_cast<size_t>(i)] - 1);
  int64_t place = 0;
  while (place < 2 * all) {
    const Batch batch = loader.sequences(place, 1);
    ASSERT_GT(batch.end, place);
    ASSERT_EQ(batch.end - place, std::ssize(batch.tokens));
    ASSERT_LE(std::ssize(batch.tokens), 40);
    size_t at = 0;
    for (const int32_t length : batch.segment_lengths) {
      if (seen.size() < expected.size()) seen.insert(batch.tokens[at] * 100 + length);
      const int32_t half = (length + 1) / 2;
      for (int32_t i = 0; i < length; ++i, ++at) {
        ASSERT_EQ(batch.next[at], i + 1 < length ? batch.tokens[at + 1] : batch.next[at]);
        ASSERT_EQ(batch.labels[at], i + 1 >= half ? batch.next[at] : -1);
        ASSERT_EQ(batch.mtp_labels[at], i + 1 < length && i + 2 >= half ? batch.next[at + 1] : -1);
      }
    }
    place = batch.end;
  }
  EXPECT_EQ(seen, expected);
  // Several sequences are those that follow one another.
  const Batch two = loader.sequences(0, 2);
  const Batch one = loader.sequences(0, 1), other = loader.sequences(one.end, 1);
  EXPECT_EQ(two.end, other.end);
  EXPECT_EQ(std::ssize(two.tokens), std::ssize(one.tokens) + std::ssize(other.tokens));
}

TEST(Loader, ConversationsThatDoNotFitAreRefused) {
  const TestFolder folder;
  const auto dataset = conversations(folder, {3, 50, 41, 42, 9, 8, 7, 6, 5, 4}, 0);
  EXPECT_TRUE(Loader::create(dataset, {.sequence_length = 49, .seed = 0}));
  const auto refused = Loader::create(dataset, {.sequence_length = 40, .seed = 0});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("2 of the conversations"), std::string::npos)
      << refused.error().message;
}

TEST(HeldOut, ConversationsAreNotCut) {
  const TestFolder folder;
  const auto dataset = conversations(folder, std::vector<int>(40, 20), 30);
  ASSERT_GT(dataset->held_out().size(), 0);
  EXPECT_TRUE(HeldOut::create(dataset, 19, 64));
  const auto refused = HeldOut::create(dataset, 18, 64);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("of the conversations"), std::string::npos);
}

TEST(HeldOut, ConversationsAreJudgedByTheirAnswers) {
  const TestFolder folder;
  const auto dataset = conversations(folder, std::vector<int>(40, 20), 30);
  ASSERT_GT(dataset->held_out().size(), 0);
  const auto held_out = HeldOut::create(dataset, 64, 64);
  ASSERT_TRUE(held_out) << held_out.error().message;
  int64_t labels = 0, bytes = 0;
  for (int64_t b = 0; b < held_out->batches(); ++b) {
    const Batch batch = held_out->batch(b);
    for (const int32_t label : batch.labels) labels += label >= 0;
    bytes += batch.label_bytes;
  }
  EXPECT_EQ(labels, dataset->held_out().size() * 10);
  EXPECT_EQ(bytes, dataset->held_out().bytes());  // what bits per byte are divided by
}

}  // namespace
}  // namespace ferry::data
