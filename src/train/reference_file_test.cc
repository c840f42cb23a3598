// What is kept of a reference is found again, under the key of what it was computed from alone; a harmed file is told.
#include "train/reference_file.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/file.h"

namespace ferry {
namespace {

const std::vector<float> kLogProbs = {
    -1.5f, -0x1.234568p-3f, -300.25f, std::nextafter(-2.0f, 0.0f)};

TEST(ReferenceFile, IsFoundAgainToTheBit) {
  const std::string folder = testing::TempDir();
  EXPECT_EQ(*read_reference(folder, "key", 4), std::vector<float>());
  ASSERT_TRUE(write_reference(folder, "key", std::span(kLogProbs).first(2)));
  ASSERT_TRUE(write_reference(folder, "key", kLogProbs));
  EXPECT_EQ(*read_reference(folder, "key", 4), kLogProbs);
  EXPECT_EQ(*read_reference(folder, "key", 6), kLogProbs);
  EXPECT_EQ(*read_reference(folder, "another", 4), std::vector<float>());
}

TEST(ReferenceFile, WhatWasHarmedIsTold) {
  const std::string folder = testing::TempDir(), path = folder + "/reference.json";
  ASSERT_TRUE(write_reference(folder, "key", kLogProbs));
  const std::string whole = *read_file(path);
  std::string other = whole;
  other[whole.find("300")] = '2';
  for (const std::string& text : {other, whole.substr(0, whole.size() / 2), std::string("{}")}) {
    ASSERT_TRUE(write_file_atomic(path, text));
    const auto read = read_reference(folder, "key", 4);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, Code::kCorrupt);
  }
  ASSERT_TRUE(write_file_atomic(path, whole));
  EXPECT_FALSE(read_reference(folder, "key", 2));
}

}  // namespace
}  // namespace ferry
