// A hash that tells memory from memory in which a bit is another one; and the fault that makes it so.
#include "base/fast_hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>
#include <vector>

#include "base/fault.h"
#include "base/random.h"

namespace ferry {
namespace {

std::vector<std::byte> drawn(size_t bytes) {
  const Random random(3, RandomPurpose::kTest, bytes);
  std::vector<std::byte> v(bytes);
  for (size_t i = 0; i < bytes; ++i) v[i] = static_cast<std::byte>(random.bits(i));
  return v;
}

// Every bit of short pieces, drawn ones of long pieces, whose blocks are hashed one after the other.
TEST(FastHash, AnyBitThatFlipsIsSeen) {
  for (const size_t bytes : {size_t{1}, size_t{4}, size_t{17}, size_t{240}, size_t{1000}}) {
    std::vector<std::byte> v = drawn(bytes);
    std::set<uint64_t> seen = {fast_hash(v)};
    for (size_t bit = 0; bit < 8 * bytes; ++bit) {
      v[bit / 8] ^= std::byte{1} << bit % 8;
      EXPECT_TRUE(seen.insert(fast_hash(v)).second) << bytes << " bytes, bit " << bit;
      v[bit / 8] ^= std::byte{1} << bit % 8;
    }
    EXPECT_TRUE(seen.contains(fast_hash(v)));
  }
  constexpr size_t kLong = (size_t{9} << 20) + 5;
  std::vector<std::byte> v = drawn(kLong);
  const uint64_t whole = fast_hash(v);
  const Random random(4, RandomPurpose::kTest, 0);
  for (uint64_t n = 0; n < 20; ++n) {
    const size_t bit = random.below(n, 8 * kLong);
    v[bit / 8] ^= std::byte{1} << bit % 8;
    EXPECT_NE(fast_hash(v), whole) << bit;
    v[bit / 8] ^= std::byte{1} << bit % 8;
  }
  EXPECT_EQ(fast_hash(v), whole);
}

TEST(FastHash, PiecesAreChainedInTheirOrderAndNothingIsSomething) {
  const std::vector<std::byte> a = drawn(40), b = drawn(41);
  EXPECT_NE(fast_hash(a, fast_hash(b)), fast_hash(b, fast_hash(a)));
  EXPECT_NE(fast_hash({}, fast_hash(a)), fast_hash(a)) << "a piece that is empty";
  EXPECT_NE(fast_hash({}), 0u);
  const std::vector<std::byte> zeros(8), more(9);
  EXPECT_NE(fast_hash(zeros), fast_hash(more));
}

TEST(Fault, AFlipChangesOneBitOfTheMemoryThatIsShown) {
  std::vector<std::byte> a(3), b(2);
  const std::span<std::byte> memory[] = {a, b};
  flip_point("here", memory);
  EXPECT_EQ(a[0], std::byte{0}) << "nothing is armed";
  arm_faults("here:2:flip26");
  flip_point("here", memory);
  EXPECT_EQ(b[0], std::byte{0});
  flip_point("here", memory);
  EXPECT_EQ(b[0], std::byte{4}) << "bit 2 behind the 24 of the first part";
  flip_point("here", memory);
  EXPECT_EQ(b[0], std::byte{4}) << "once";
  arm_faults("here:1:flip41");  // of 40
  flip_point("here", memory);
  EXPECT_EQ(a[0], std::byte{2});
  arm_faults("here:1:flip3");
  EXPECT_EQ(fault_point("here"), 0) << "no memory is shown";
  flip_point("here", {});
  arm_faults("");
  EXPECT_EXIT(arm_faults("here:1:flip"), ::testing::ExitedWithCode(2), "flipBIT");
}

}  // namespace
}  // namespace ferry
