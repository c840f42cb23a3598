// Each thing that a kernel or a program may do wrong, done: it is found, and said where. And the
// same done right is not.
#include "tests/test_support.h"

namespace nvidia_sim::testing {
namespace {

constexpr const char* kPlaces =  // %d0: p0, %d2: the thread's word there; %r0: the thread
    "\tld.param.u64 %d0, [p0];\n\tmov.u32 %r0, %tid.x;\n"
    "\tmul.wide.u32 %d1, %r0, 4;\n\tadd.s64 %d2, %d0, %d1;\n";

/// Runs a kernel with `bytes` of written memory as its argument.
CUresult with_memory(const std::string& body, size_t bytes, unsigned threads = 32) {
  Context context;
  EXPECT_EQ(context.load(kernel_with(1, kPlaces + body)), "");
  const CUdeviceptr at = context.upload(std::vector<uint8_t>(bytes, 1));
  return context.run("k", {at}, threads);
}

TEST(GlobalMemory, WhatIsWithinIsRight) {
  EXPECT_EQ(with_memory("\tld.global.u32 %r1, [%d2];\n\tst.global.u32 [%d2], %r1;", 128), 0);
}

TEST(GlobalMemory, OutOfBoundsIsFoundWithItsThread) {
  Context context;
  ASSERT_EQ(context.load(kernel_with(1, std::string(kPlaces) + "\tst.global.u32 [%d2], %r0;")), "");
  const CUdeviceptr at = context.allocate(124);
  EXPECT_EQ(context.run("k", {at}), 700);
  expect_report({"kernel k, line", "st.global.u32", "thread 31", "byte 124", "of 124"});
  // The context is dead, as a card's would be.
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 700);
  size_t free = 0, total = 0;
  EXPECT_EQ(cuMemGetInfo_v2(&free, &total), 700);
}

TEST(GlobalMemory, BeforeItsBeginIsOutOfBoundsToo) {
  EXPECT_EQ(with_memory("\tld.global.u32 %r1, [%d2+-4];", 128), 700);
  expect_report({"no allocation"});
}

TEST(GlobalMemory, MisalignedAccessIsFound) {
  EXPECT_EQ(with_memory("\tld.global.u32 %r1, [%d2+2];", 256), 716);
  expect_report({"misaligned", "thread 0"});
  EXPECT_EQ(with_memory("\tld.global.v2.u32 {%r1, %r2}, [%d2];", 256), 716);
}

TEST(GlobalMemory, WhatNobodyWroteIsNotRead) {
  Context context;
  ASSERT_EQ(context.load(kernel_with(1, std::string(kPlaces) + "\tld.global.u32 %r1, [%d2];")), "");
  EXPECT_EQ(context.run("k", {context.allocate(128)}), 719);
  expect_report({"ld.global.u32", "nobody wrote"});
}

TEST(GlobalMemory, UseAfterFreeIsFound) {
  Context context;
  ASSERT_EQ(context.load(kernel_with(1, std::string(kPlaces) + "\tst.global.u32 [%d2], %r0;")), "");
  const CUdeviceptr at = context.allocate(128);
  ASSERT_EQ(cuMemFreeAsync(at, context.stream()), 0);
  EXPECT_EQ(context.run("k", {at}), 700);
  expect_report({"was freed"});
}

TEST(GlobalMemory, FreedInStreamOrderIsRight) {
  Context context;
  ASSERT_EQ(context.load(kernel_with(1, std::string(kPlaces) + "\tst.global.u32 [%d2], %r0;")), "");
  const CUdeviceptr at = context.allocate(128);
  CUfunction f = nullptr;
  EXPECT_EQ(context.run("k", {at}), 0);
  EXPECT_EQ(cuMemFreeAsync(at, context.stream()), 0);
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 0);
  EXPECT_EQ(cuMemFreeAsync(at, context.stream()), 1) << "freed twice";
  EXPECT_EQ(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, context.stream(), nullptr, nullptr), 400);
}

TEST(GlobalMemory, OfAnotherStreamItMustBeWaitedFor) {
  Context context;
  ASSERT_EQ(context.load(kernel_with(1, std::string(kPlaces) + "\tst.global.u32 [%d2], %r0;")), "");
  CUstream other = nullptr;
  ASSERT_EQ(cuStreamCreate(&other, 1), 0);
  CUdeviceptr at = 0;
  ASSERT_EQ(cuMemAllocAsync(&at, 128, other), 0);
  CUevent allocated = nullptr;
  ASSERT_EQ(cuEventCreate(&allocated, 2), 0);
  ASSERT_EQ(cuEventRecord(allocated, other), 0);
  ASSERT_EQ(cuStreamWaitEvent(context.stream(), allocated, 0), 0);
  EXPECT_EQ(context.run("k", {at}), 0);
  ASSERT_EQ(cuMemAllocAsync(&at, 128, other), 0);
  EXPECT_EQ(context.run("k", {at}), 700);
  expect_report({"which its stream has not come to yet"});
}

TEST(GlobalMemory, TheHostsCopiesAreChecked) {
  Context context;
  const CUdeviceptr at = context.allocate(16);
  const std::vector<char> host(32);
  EXPECT_EQ(cuMemcpyHtoDAsync_v2(at, host.data(), 17, context.stream()), 0);
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 700);
  expect_report({"writes 17 bytes", "out of bounds"});
}

TEST(GlobalMemory, PinnedMemoryIsReadWhenTheStreamComesToIt) {
  Context context;
  void* pinned = nullptr;
  ASSERT_EQ(cuMemHostAlloc(&pinned, 16, 0), 0);
  std::vector<char> pageable(16, 'a');
  std::memset(pinned, 'a', 16);
  const CUdeviceptr first = context.allocate(16), second = context.allocate(16);
  ASSERT_EQ(cuMemcpyHtoDAsync_v2(first, pinned, 16, context.stream()), 0);
  ASSERT_EQ(cuMemcpyHtoDAsync_v2(second, pageable.data(), 16, context.stream()), 0);
  std::memset(pinned, 'b', 16);  // too early
  std::fill(pageable.begin(), pageable.end(), 'b');
  EXPECT_EQ(context.download<char>(first, 16), std::vector<char>(16, 'b'));
  EXPECT_EQ(context.download<char>(second, 16), std::vector<char>(16, 'a'));
}

// --- shared memory ---

/// Two warps and 256 bytes of shared memory; %r1: the thread's word there.
CUresult with_shared(const std::string& body, unsigned threads = 64) {
  Context context;
  const std::string text =
      kernel_with(0,
                  "\t.shared .align 4 .b8 s[256];\n\tmov.u32 %r0, %tid.x;\n\tmov.u32 %r2, s;\n"
                  "\tshl.b32 %r3, %r0, 2;\n\tadd.s32 %r1, %r2, %r3;\n" +
                      body);
  EXPECT_EQ(context.load(text), "");
  return context.run("k", {}, threads);
}

/// The same kernel whatever order the warps go in: four seeds.
void expect_race(const std::string& body) {
  for (const char* seed : {"1", "2", "3", "4"}) {
    ::setenv("FERRY_NVIDIA_SIM_SEED", seed, 1);
    EXPECT_EQ(with_shared(body), 719) << body;
    expect_report({"race", "no barrier between"});
  }
  ::unsetenv("FERRY_NVIDIA_SIM_SEED");
}

constexpr const char* kOpposite =  // %r5: the word of the thread with the number 63 - this one's
    "\tsub.s32 %r4, 63, %r0;\n\tshl.b32 %r4, %r4, 2;\n\tadd.s32 %r5, %r2, %r4;\n";

TEST(SharedMemory, ABarrierOrdersWarps) {
  EXPECT_EQ(with_shared(std::string(kOpposite) +
                        "\tst.shared.u32 [%r1], %r0;\n\tbar.sync 0;\n\tld.shared.u32 %r6, [%r5];"),
            0);
}

TEST(SharedMemory, ReadingWhatAnotherWarpWritesIsARace) {
  expect_race(std::string(kOpposite) +
              "\tst.shared.u32 [%r1], %r0;\n\tbar.sync 0;\n\tld.shared.u32 %r6, [%r5];\n"
              "\tst.shared.u32 [%r1], %r6;");
}

TEST(SharedMemory, ReadingWithoutABarrierIsARaceOrNotWritten) {
  EXPECT_EQ(with_shared(std::string(kOpposite) +
                        "\tst.shared.u32 [%r1], %r0;\n\tld.shared.u32 %r6, [%r5];"),
            719);
}

TEST(SharedMemory, WritingThereTwiceIsARace) { expect_race("\tst.shared.u32 [%r2], %r0;"); }

TEST(SharedMemory, ManyReadersAndAWriterAreARace) {
  expect_race(
      "\tsetp.eq.s32 %p0, %r0, 0;\n\t@%p0 st.shared.u32 [%r2], %r0;\n\tbar.sync 0;\n"
      "\tld.shared.u32 %r6, [%r2];\n\tsetp.eq.s32 %p0, %r0, 40;\n"
      "\t@%p0 st.shared.u32 [%r2], %r0;");
}

TEST(SharedMemory, ManyReadersAreNot) {
  EXPECT_EQ(with_shared("\tsetp.eq.s32 %p0, %r0, 0;\n\t@%p0 st.shared.u32 [%r2], %r0;\n"
                        "\tbar.sync 0;\n\tld.shared.u32 %r6, [%r2];\n\tbar.sync 0;\n"
                        "\t@%p0 st.shared.u32 [%r2], %r0;"),
            0);
}

TEST(SharedMemory, WithinAWarpItsOwnBarrierDoes) {
  constexpr const char* kNeighbour =
      "\txor.b32 %r4, %r0, 1;\n\tshl.b32 %r4, %r4, 2;\n\tadd.s32 %r5, %r2, %r4;\n"
      "\tst.shared.u32 [%r1], %r0;\n";
  EXPECT_EQ(
      with_shared(std::string(kNeighbour) + "\tbar.warp.sync -1;\n\tld.shared.u32 %r6, [%r5];"), 0);
  EXPECT_EQ(with_shared(std::string(kNeighbour) + "\tld.shared.u32 %r6, [%r5];"), 719);
  expect_report({"race"});
}

TEST(SharedMemory, HalvesOfAWordBelongToWhomTheyBelong) {
  // Each thread has two bytes: its own, in words that two threads share.
  constexpr const char* kHalf =
      "\tshl.b32 %r3, %r0, 1;\n\tadd.s32 %r1, %r2, %r3;\n\tcvt.u16.u32 %h0, %r0;\n"
      "\tst.shared.u16 [%r1], %h0;\n\tld.shared.u16 %h1, [%r1];";
  EXPECT_EQ(with_shared(kHalf), 0);
  EXPECT_EQ(
      with_shared(std::string(kHalf) + "\n\tand.b32 %r4, %r1, -4;\n\tld.shared.u32 %r6, [%r4];"),
      719);
}

TEST(SharedMemory, BoundsAlignmentAndWhatNobodyWrote) {
  EXPECT_EQ(with_shared("\tst.shared.u32 [%r1+4], %r0;"), 700);
  expect_report({"out of bounds", "of 256"});
  EXPECT_EQ(with_shared("\tst.shared.u32 [%r1+1], %r0;"), 716);
  EXPECT_EQ(with_shared("\tld.shared.u32 %r6, [%r1];"), 719);
  expect_report({"nobody wrote"});
}

// --- threads ---

TEST(Threads, ABarrierInDivergentCodeIsFound) {
  EXPECT_EQ(with_shared("\tsetp.lt.u32 %p0, %r0, 16;\n\t@%p0 bra $skip;\n\tbar.sync 0;\n$skip:"),
            719);
  expect_report({"not all threads of the warp"});
}

TEST(Threads, ABarrierThatAWarpNeverComesToIsFound) {
  EXPECT_EQ(with_shared("\tsetp.lt.u32 %p0, %r0, 32;\n\t@%p0 bra $skip;\n\tbar.sync 0;\n$skip:"),
            719);
  expect_report({"never come to"});
}

TEST(Threads, AShuffleWithAbsentLanesIsFound) {
  EXPECT_EQ(with_shared("\tsetp.lt.u32 %p0, %r0, 16;\n\t@%p0 bra $skip;\n"
                        "\tshfl.sync.bfly.b32 %r6, %r0, 1, 31, -1;\n$skip:"),
            719);
  expect_report({"mask"});
  EXPECT_EQ(with_shared("\tshfl.sync.bfly.b32 %r6, %r0, 1, 31, -1;", 48), 719);
}

TEST(Threads, ALoopWithoutEndIsATimeout) {
  Context context(Settings{{"FERRY_NVIDIA_SIM_INSTRUCTIONS", "10000"}});
  ASSERT_EQ(context.load(kernel_with(0, "$again: bra $again;")), "");
  EXPECT_EQ(context.run("k", {}), 702);
}

TEST(Threads, ATrapIsAnError) {
  EXPECT_EQ(with_shared("\ttrap;"), 719);
  expect_report({"trapped"});
}

// --- the driver ---

TEST(Driver, LaunchesAreChecked) {
  Context context;
  ASSERT_EQ(context.load(kernel_with(1, "")), "");
  EXPECT_EQ(context.run("k", {0}, 1025), 1);
  EXPECT_EQ(context.run("k", {0}, 0), 1);
  EXPECT_EQ(context.run("k", {0}, 32, 0), 1);
  EXPECT_EQ(context.run("k", {0}, 1024), 0);
}

TEST(Driver, TheSizeOfArgumentsIsChecked) {
  Context context;
  CUmodule module = nullptr;
  ASSERT_EQ(cuModuleLoadDataEx(&module, kernel_with(2, "").c_str(), 0, nullptr, nullptr), 0);
  CUfunction f = nullptr;
  ASSERT_EQ(cuModuleGetFunction(&f, module, "k"), 0);
  EXPECT_EQ(cuModuleGetFunction(&f, module, "other"), 500);
  uint64_t args[2] = {};
  for (const size_t bytes : {8, 16, 24}) {
    size_t size = bytes;
    void* extra[] = {reinterpret_cast<void*>(1), args, reinterpret_cast<void*>(2), &size, nullptr};
    EXPECT_EQ(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, context.stream(), nullptr, extra),
              bytes == 16 ? 0 : 1);
  }
}

TEST(Driver, MemoryIsLimitedAndComesBack) {
  Context context(Settings{{"FERRY_NVIDIA_SIM_MEMORY", "1048576"}});
  CUdeviceptr at = 0, more = 0;
  ASSERT_EQ(cuMemAllocAsync(&at, 800 << 10, context.stream()), 0);
  EXPECT_EQ(cuMemAllocAsync(&more, 800 << 10, context.stream()), 2);
  ASSERT_EQ(cuMemFreeAsync(at, context.stream()), 0);
  EXPECT_EQ(cuMemAllocAsync(&more, 800 << 10, context.stream()), 0);
}

TEST(Driver, PlannedFaultsComeWhenTheyShould) {
  Context context(Settings{{"FERRY_NVIDIA_SIM_FAULT", "214@2:k,2@3"}});
  ASSERT_EQ(context.load(kernel_with(0, "")), "");
  EXPECT_EQ(context.run("k", {}), 0);
  CUdeviceptr at = 0;
  EXPECT_EQ(cuMemAllocAsync(&at, 1, context.stream()), 0);
  EXPECT_EQ(cuMemAllocAsync(&at, 1, context.stream()), 0);
  EXPECT_EQ(cuMemAllocAsync(&at, 1, context.stream()), 2);
  EXPECT_EQ(cuMemAllocAsync(&at, 1, context.stream()), 0) << "out of memory does not end a context";
  EXPECT_EQ(context.run("k", {}), 214);
  expect_report({"planned"});
}

TEST(Driver, NothingRunsBeforeItIsWaitedFor) {
  Context context;
  const CUdeviceptr at = context.upload(std::vector<int>(4, 7));
  EXPECT_EQ(cuStreamQuery(context.stream()), 600);
  CUevent event = nullptr;
  ASSERT_EQ(cuEventCreate(&event, 2), 0);
  ASSERT_EQ(cuEventRecord(event, context.stream()), 0);
  EXPECT_EQ(cuEventQuery(event), 600);
  EXPECT_EQ(cuEventSynchronize(event), 0);
  EXPECT_EQ(cuEventQuery(event), 0);
  EXPECT_EQ(cuStreamQuery(context.stream()), 0);
  EXPECT_EQ(context.download<int>(at, 4), std::vector<int>(4, 7));
}

TEST(Driver, CallsWithoutAContextAreRefused) {
  ferrySoftwareNvidiaReset();
  int count = 0;
  EXPECT_EQ(cuDeviceGetCount(&count), 3);
  ASSERT_EQ(cuInit(0), 0);
  EXPECT_EQ(cuDeviceGetCount(&count), 0);
  EXPECT_EQ(count, 1);
  CUstream stream = nullptr;
  EXPECT_EQ(cuStreamCreate(&stream, 0), 201);
  CUdevice device = 0;
  EXPECT_EQ(cuDeviceGet(&device, 1), 101);
}

}  // namespace
}  // namespace nvidia_sim::testing
