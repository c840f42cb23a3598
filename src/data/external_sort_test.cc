#include "data/external_sort.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/fault.h"
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

/// Wherever the space runs out, in a run or in the merge of many, it is told and nothing stays.
TEST(ExternalSort, NoSpaceIsTold) {
  const TestFolder folder;
  for (const char* point : {"file.create", "file.write"}) {
    int told = 0;
    for (int n = 1;; ++n) {
      Result<void> result;
      {
        ExternalSort sort(folder / ".", "test", 16);
        arm_faults(fmt::format("{}:{}:enospc", point, n));
        for (uint64_t i = 0; result && i < 1100; ++i) result = sort.add({i % 7, i});
        if (result) result = sort.finish();
        arm_faults("");
      }
      EXPECT_TRUE(list_folder(folder / ".")->empty()) << "its files are left";
      if (result) break;
      EXPECT_EQ(result.error().code, Code::kExhausted) << result.error().message;
      EXPECT_NE(result.error().message.find("No space left"), std::string::npos);
      ++told;
    }
    EXPECT_GT(told, 64) << point;  // each of the runs, and their merge
  }
}

}  // namespace
}  // namespace ferry::data
