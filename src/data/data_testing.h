// What the tests of this folder share: folders, files of all kinds, a small tokenizer, a random
// text.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "data/dataset.h"
#include "data/prepare.h"
#include "text/bpe_trainer.h"

namespace ferry::data {

/// An empty folder that is removed at the end of the test.
class TestFolder {
 public:
  TestFolder() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = ::testing::TempDir() + "ferry_data_" + info->test_suite_name() + "_" + info->name();
    EXPECT_TRUE(remove_tree(path_));
    EXPECT_TRUE(make_folders(path_));
  }
  ~TestFolder() { EXPECT_TRUE(remove_tree(path_)); }
  std::string operator/(std::string_view name) const { return join_path(path_, name); }
  std::string write(std::string_view name, std::string_view content) const {
    EXPECT_TRUE(write_file_atomic(*this / name, content));
    return *this / name;
  }

 private:
  std::string path_;
};

inline std::string gzip(std::string_view text) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

inline std::string zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const size_t n = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1);
  EXPECT_FALSE(ZSTD_isError(n));
  out.resize(n);
  return out;
}

/// Random words of a vocabulary of 2000, each below about 9 letters.
inline std::string random_words(const Random& random, uint64_t from, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    uint64_t word = random.below(from + static_cast<uint64_t>(i), 2000) * 7919 + 12345;
    for (; word > 0; word /= 26) text += static_cast<char>('a' + word % 26);
    text += i + 1 < count ? ' ' : '.';
  }
  return text;
}

/// A tokenizer with some merges; <|bos|> 0, <|eos|> 1, <|pad|> 2.
inline std::string tokenizer_json(text::SplitStyle split = text::SplitStyle::kDeepseek) {
  text::BpeTrainerOptions options;
  options.vocab_size = 320;
  options.split = split;
  auto trainer = text::BpeTrainer::create(options);
  EXPECT_TRUE(trainer);
  trainer->feed(random_words(Random(1, RandomPurpose::kTest, 0), 0, 2000));
  return trainer->train().json;
}

/// All documents of a part, as text.
inline std::vector<std::string> texts(const Dataset& dataset, const Documents& documents) {
  std::vector<std::string> all;
  for (int64_t i = 0; i < documents.size(); ++i) {
    const Documents::Document d = documents[i];
    std::vector<int32_t> ids;
    for (int64_t t = d.begin; t + 1 < d.end; ++t) ids.push_back(d.shard->token(t));
    EXPECT_EQ(d.shard->token(d.end - 1), dataset.manifest().eos);
    all.push_back(dataset.tokenizer().decode(ids));
    EXPECT_EQ(static_cast<int64_t>(all.back().size()), d.bytes);
  }
  return all;
}

}  // namespace ferry::data
