#include "data/external_sort.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "data/data_testing.h"

namespace ferry::data {
namespace {

TEST(ExternalSort, GivesWhatSortingGives) {
  const TestFolder folder;
  const Random random(5, RandomPurpose::kTest, 0);
  for (const size_t count : {0, 1, 15, 16, 17, 5000}) {  // 5000 in runs of 16: merged five times
    std::vector<Record> records;
    {
      ExternalSort sort(folder / ".", "test", 16);
      for (size_t i = 0; i < count; ++i) {
        records.push_back({random.below(i, 300), i});
        ASSERT_TRUE(sort.add(records.back()));
      }
      ASSERT_TRUE(sort.finish());
      std::sort(records.begin(), records.end());
      Record record{};
      for (const Record& expected : records) {
        ASSERT_TRUE(*sort.next(record));
        ASSERT_EQ(record, expected);
      }
      EXPECT_FALSE(*sort.next(record));
    }
    EXPECT_TRUE(list_folder(folder / ".")->empty()) << "its files are left";
  }
}

TEST(ExternalSort, NoSpaceIsTold) {
  ExternalSort sort("/nonexistent-folder", "test", 2);
  ASSERT_TRUE(sort.add({1, 1}));
  EXPECT_FALSE(sort.add({2, 2}));
}

}  // namespace
}  // namespace ferry::data
