// What is counted of a launch, by numbers that were worked out by hand.
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "tests/test_support.h"

namespace nvidia_sim::testing {
namespace {

/// The line of a launch of the body by 32 threads, of which thread l has the place l * `apart` of
/// shared memory (%r1) and has the word l of global memory (%d2).
std::string counters_of(const std::string& body, int apart) {
  const std::string path = ::testing::TempDir() + "counters-" + std::to_string(::getpid());
  std::remove(path.c_str());
  {
    const Context context(Settings{{"FERRY_NVIDIA_SIM_COUNTERS", path}});
    const std::string places =
        "\t.shared .align 16 .b8 s[8192];\n\tld.param.u64 %d0, [p0];\n\tmov.u32 %r0, %tid.x;\n"
        "\tmul.wide.u32 %d1, %r0, 4;\n\tadd.s64 %d2, %d0, %d1;\n\tmov.u32 %r2, s;\n\tmad.lo.s32 "
        "%r1, %r0, " +
        std::to_string(apart) + ", %r2;\n";
    EXPECT_EQ(context.load(kernel_with(1, places + body)), "");
    EXPECT_EQ(context.run("k", {context.upload(std::vector<uint32_t>(64, 1))}), 0)
        << ferrySoftwareNvidiaReport();
  }
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  std::remove(path.c_str());
  return text.str();
}

void expect_counts(const std::string& line, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(line.find("\t" + part), std::string::npos) << "not counted: " << part << "\n" << line;
}

TEST(Counters, BanksGiveOneWordAPass) {
  const std::string store = "\tst.shared.u32 [%r1], %r0;";
  expect_counts(counters_of(store, 4), {"shared_requests 1", "bank_conflicts 0", "blocks 1"});
  expect_counts(counters_of(store, 8), {"bank_conflicts 1"});
  expect_counts(counters_of(store, 128), {"bank_conflicts 31"});
  // Of 8 bytes half of the lanes go together, of 16 a quarter.
  expect_counts(counters_of("\tst.shared.v2.u32 [%r1], {%r0, %r0};", 8), {"bank_conflicts 0"});
  expect_counts(counters_of("\tst.shared.v2.u32 [%r1], {%r0, %r0};", 16), {"bank_conflicts 2"});
  expect_counts(counters_of("\tst.shared.v4.u32 [%r1], {%r0, %r0, %r0, %r0};", 16),
                {"bank_conflicts 0"});
}

TEST(Counters, SectorsAndBytes) {
  expect_counts(counters_of("\tld.global.u32 %r3, [%d2];\n\tst.global.u32 [%d2+32], %r3;", 4),
                {"global_requests 2", "global_sectors 8", "bytes_read 128", "bytes_written 128"});
  expect_counts(counters_of("\tld.global.u32 %r3, [%d2+4];", 4), {"global_sectors 5"});
  expect_counts(counters_of("\tld.global.u32 %r3, [%d0];", 4),
                {"global_sectors 1", "bytes_read 128"});
}

}  // namespace
}  // namespace nvidia_sim::testing
