// Each defect that can be planted changes what a program sees: some work is done with and without it.
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include "tests/test_support.h"

namespace nvidia_sim::testing {
namespace {

using Words = std::vector<uint32_t>;
using Work = std::function<Words(const Context&)>;

constexpr unsigned kThreads = 64;

/// %r31: the number of the thread among all, %r30 in its block; %r29: a number of its own, of which
/// half are not whole; %d30 its word of the output, whose content it leaves in %r0.
constexpr const char* kPlaces =
    "\t.shared .align 16 .b8 s[8192];\n"
    "\tld.param.u64 %d28, [p0];\n\tld.param.u64 %d29, [p1];\n\tmov.u32 %r30, %tid.x;\n"
    "\tmov.u32 %r28, %ctaid.x;\n\tmov.u32 %r27, %ntid.x;\n\tmad.lo.s32 %r31, %r28, %r27, %r30;\n"
    "\tmul.wide.u32 %d31, %r31, 4;\n\tadd.s64 %d28, %d28, %d31;\n\tadd.s64 %d30, %d29, %d31;\n"
    "\tld.global.f32 %r29, [%d28];\n\tld.global.u32 %r0, [%d30];\n"
    "\tmov.u32 %r26, s;\n\tshl.b32 %r25, %r30, 2;\n\tadd.s32 %r24, %r26, %r25;\n";

/// Launches the body `times` times without waiting; the output, which was zeros.
Words launched(const Context& context, const std::string& body, unsigned blocks, int times) {
  const size_t words = size_t{blocks} * kThreads;
  EXPECT_EQ(context.load(kernel_with(2, kPlaces + body + "\n\tst.global.u32 [%d30], %r0;")), "");
  std::vector<float> in(words);
  for (size_t n = 0; n < words; ++n) in[n] = 1.1f + 0.37f * static_cast<float>(n);
  const CUdeviceptr from = context.upload(in), to = context.upload(Words(words, 0));
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 0);
  for (int n = 0; n < times; ++n) EXPECT_EQ(context.launch("k", {from, to}, kThreads, blocks), 0);
  return context.download<uint32_t>(to, words);
}

Work kernel(const std::string& body, unsigned blocks = 4, int times = 1) {
  return [=](const Context& context) { return launched(context, body, blocks, times); };
}

/// Fills `count` words of memory with other numbers than were there.
CUdeviceptr filled(const Context& context, size_t count, uint32_t first = 1) {
  Words values(count);
  for (size_t n = 0; n < count; ++n) values[n] = first + static_cast<uint32_t>(n);
  const CUdeviceptr at = context.upload(values);
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 0);
  return at;
}

Words through_pinned_memory(const Context& context) {
  void* pinned = nullptr;
  EXPECT_EQ(cuMemHostAlloc(&pinned, 64, 0), 0);
  std::memset(pinned, 0, 64);
  const CUdeviceptr at = filled(context, 16);
  EXPECT_EQ(cuMemcpyDtoHAsync_v2(pinned, at, 64, context.stream()), 0);
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 0);
  Words out(16);
  std::memcpy(out.data(), pinned, 64);
  return out;
}

/// Seven bytes are copied or filled, behind what a task has ended.
Words seven_bytes(const Context& context, bool copies) {
  const CUdeviceptr to = filled(context, 2), from = filled(context, 2, 0x05060708);
  EXPECT_EQ(copies ? cuMemcpyDtoDAsync_v2(to, from, 7, context.stream())
                   : cuMemsetD8Async(to, 9, 7, context.stream()),
            0);
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 0);
  return context.download<uint32_t>(to, 2);
}

Words uploads(const Context& context) {
  Words out;
  for (uint32_t n = 0; n < 50; ++n)
    out.push_back(context.download<uint32_t>(context.upload(Words{n}), 1)[0]);
  return out;
}

/// What an event, or the stream, says of a copy that nobody waited for.
Words early_answer(const Context& context, bool of_event) {
  const CUdeviceptr at = context.allocate(4);
  const uint32_t value = 7;
  EXPECT_EQ(cuMemcpyHtoDAsync_v2(at, &value, 4, context.stream()), 0);
  CUevent event = nullptr;
  EXPECT_EQ(cuEventCreate(&event, 2), 0);
  if (of_event) {
    EXPECT_EQ(cuEventRecord(event, context.stream()), 0);
  }
  const CUresult code = of_event ? cuEventQuery(event) : cuStreamQuery(context.stream());
  return {static_cast<uint32_t>(code)};
}

Words distinct_allocations(const Context& context) {
  std::set<CUdeviceptr> all;
  for (int n = 0; n < 30; ++n) all.insert(context.allocate(64));
  return {static_cast<uint32_t>(all.size())};
}

Words freed_behind_a_launch(const Context& context) {
  EXPECT_EQ(context.load(kernel_with(1, "\tld.param.u64 %d0, [p0];\n\tst.global.u32 [%d0], 1;")),
            "");
  const CUdeviceptr at = context.allocate(4);
  EXPECT_EQ(context.launch("k", {at}), 0);
  EXPECT_EQ(cuMemFreeAsync(at, context.stream()), 0);
  return {static_cast<uint32_t>(cuStreamSynchronize(context.stream()))};
}

/// Twice the number, then one more, again and again: in another order it is another number.
Words steps_in_order(const Context& context) {
  const CUdeviceptr one = context.upload(Words(kThreads, 0));
  EXPECT_EQ(context.load(kernel_with(1,
                                     "\tld.param.u64 %d0, [p0];\n\tld.global.u32 %r0, [%d0];\n"
                                     "\tmul.lo.s32 %r0, %r0, 3;\n\tst.global.u32 [%d0], %r0;")),
            "");
  for (uint32_t n = 0; n < 100; ++n) {
    EXPECT_EQ(cuMemsetD8Async(one, static_cast<unsigned char>(n), 1, context.stream()), 0);
    EXPECT_EQ(context.launch("k", {one}, 1), 0);
  }
  return context.download<uint32_t>(one, 1);
}

/// The same kernel in turns with two memories.
Words two_memories(const Context& context) {
  EXPECT_EQ(context.load(kernel_with(1,
                                     "\tld.param.u64 %d0, [p0];\n\tld.global.u32 %r0, [%d0];\n"
                                     "\tadd.s32 %r0, %r0, 1;\n\tst.global.u32 [%d0], %r0;")),
            "");
  const CUdeviceptr a = context.upload(Words{0}), b = context.upload(Words{0});
  for (int n = 0; n < 200; ++n) EXPECT_EQ(context.launch("k", {n % 3 == 0 ? a : b}, 1), 0);
  return {context.download<uint32_t>(a, 1)[0], context.download<uint32_t>(b, 1)[0]};
}

constexpr const char* kOneMore = "\tadd.s32 %r0, %r0, 1;";
constexpr const char* kShared =  // the number of the thread that stands opposite in the block
    "\tst.shared.u32 [%r24], %r31;\n\tbar.sync 0;\n\tsub.s32 %r1, 63, %r30;\n"
    "\tshl.b32 %r1, %r1, 2;\n\tadd.s32 %r2, %r26, %r1;\n\tld.shared.u32 %r0, [%r2];";
/// Products of what the threads have, as bf16 twice, and c.
constexpr const char* kMma =
    "\tand.b32 %r1, %r29, -65536;\n\tshr.u32 %r2, %r1, 16;\n\tor.b32 %r1, %r1, %r2;\n"
    "\tmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r0, %r3, %r4, %r5}, "
    "{%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r29, %r29, %r29, %r29};";
/// Each thread writes a row of four words.
constexpr const char* kLdmatrix =
    "\tshl.b32 %r1, %r30, 4;\n\tadd.s32 %r1, %r26, %r1;\n\tshl.b32 %r2, %r31, 2;\n"
    "\tst.shared.u32 [%r1], %r2;\n\tadd.s32 %r2, %r2, 1;\n\tst.shared.u32 [%r1+4], %r2;\n"
    "\tadd.s32 %r2, %r2, 1;\n\tst.shared.u32 [%r1+8], %r2;\n\tadd.s32 %r2, %r2, 1;\n"
    "\tst.shared.u32 [%r1+12], %r2;\n\tbar.sync 0;\n"
    "\tldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r2, %r3, %r4, %r5}, [%r1];\n"
    "\tmad.lo.s32 %r0, %r5, 17, %r2;";
constexpr const char* kCopy =
    "\tshl.b32 %r1, %r30, 4;\n\tadd.s32 %r1, %r26, %r1;\n\tand.b64 %d1, %d28, -16;\n"
    "\tcp.async.cg.shared.global [%r1], [%d1], 16;\n\tcp.async.commit_group;\n"
    "\tcp.async.wait_group 0;\n\tld.shared.u32 %r0, [%r1+12];";
constexpr const char* kHalf =  // of thread 3 alone
    "\tst.global.u32 [%d30], %r29;\n\tsetp.eq.s32 %p0, %r31, 3;\n\t@!%p0 bra $x;\n"
    "\tcvt.u16.u32 %h0, %r31;\n\tst.global.u16 [%d30], %h0;\n$x:\n\tld.global.u32 %r0, [%d30];";
constexpr const char* kOddLanesAdd =
    "\tmov.b32 %r0, %r29;\n\tand.b32 %r1, %r31, 1;\n\tsetp.eq.s32 %p0, %r1, 0;\n\t@%p0 bra $x;\n"
    "\tadd.rn.ftz.f32 %r0, %r29, %r29;\n$x:";
constexpr const char* kLong =  // 60,000 instructions, then an fma
    "\tmov.u32 %r1, 0;\n$l:\n\tadd.s32 %r1, %r1, 1;\n\tsetp.lt.s32 %p0, %r1, 20000;\n"
    "\t@%p0 bra $l;\n\tfma.rn.ftz.f32 %r0, %r29, %r29, %r29;";
constexpr const char* kManyLoads =
    "\tmov.u32 %r1, 0;\n$l:\n\tld.global.f32 %r2, [%d28];\n\txor.b32 %r0, %r0, %r2;\n"
    "\tadd.s32 %r1, %r1, 1;\n\tsetp.lt.s32 %p0, %r1, 4000;\n\t@%p0 bra $l;";

const std::map<std::string, Work>& works() {
  const std::string wide = "\tcvt.f64.f32 %d1, %r29;\n";  // and of %d2 the lower half:
  const std::string lower = "\tcvt.u32.u64 %r0, %d2;";
  const auto bf16 = [](const std::string& of) {
    return kernel("\tmov.b32 %r1, " + of +
                  ";\n\tcvt.rn.bf16.f32 %h0, %r1;\n\tcvt.u32.u16 %r0, %h0;");
  };
  const auto compared = [](const std::string& a) {
    return kernel("\tmov.b32 %r1, " + a +
                  ";\n\tsetp.lt.ftz.f32 %p0, %r1, %r29;\n\tselp.b32 %r2, 1, 2, %p0;\n"
                  "\tsetp.gt.ftz.f32 %p1, %r1, %r29;\n\tselp.b32 %r3, 1, 2, %p1;\n"
                  "\tmad.lo.s32 %r0, %r2, 4, %r3;");
  };
  const auto shuffled = [](const std::string& by) {
    return kernel("\tshfl.sync.bfly.b32 %r0, %r31, " + by + ", 31, -1;");
  };
  const Work whole_words_of_copies = [](const Context& c) { return seven_bytes(c, true); };
  const Work whole_words_of_fills = [](const Context& c) { return seven_bytes(c, false); };
  const Work much_back = [](const Context& c) {
    return c.download<uint32_t>(filled(c, 20'001), 20'001);
  };
  const Work sent_and_read = [](const Context& c) {
    return c.download<uint32_t>(c.upload(Words(16, 5)), 16);
  };
  const Work filled_and_read = [](const Context& c) {
    const CUdeviceptr at = filled(c, 4);
    EXPECT_EQ(cuMemsetD8Async(at, 9, 16, c.stream()), 0);
    return c.download<uint32_t>(at, 4);
  };
  static const std::map<std::string, Work> all = {
      {"fma_rounds_twice",
       kernel("\tmul.rn.ftz.f32 %r1, %r29, %r29;\n\tneg.ftz.f32 %r1, %r1;\n"
              "\tfma.rn.ftz.f32 %r0, %r29, %r29, %r1;")},
      {"fma_truncates", kernel("\tfma.rn.ftz.f32 %r0, %r29, %r29, %r29;")},
      {"fma_deep_truncates", kernel(kLong)},
      {"fma_swaps_lanes", kernel("\tfma.rn.ftz.f32 %r0, %r29, %r29, %r29;")},
      {"add_truncates", kernel("\tadd.rn.ftz.f32 %r0, %r29, 0f3DCCCCCD;")},
      {"mul_short", kernel("\tmul.rn.ftz.f32 %r0, %r29, %r29;")},
      {"subnormals_kept", kernel("\tmul.rn.ftz.f32 %r0, %r29, 0f00400000;")},
      {"infinity_clamped", kernel("\tmul.rn.ftz.f32 %r0, %r29, 0f7F7FFFFF;")},
      {"nan_lost", kernel("\tmul.rn.ftz.f32 %r0, %r29, 0f7FFFFFFF;")},
      {"div_approximate", kernel("\tdiv.rn.ftz.f32 %r0, 0f3F800000, %r29;")},
      {"rcp_approximate", kernel("\trcp.rn.ftz.f32 %r0, %r29;")},
      {"sqrt_approximate", kernel("\tsqrt.rn.ftz.f32 %r0, %r29;")},
      {"f64_as_f32", kernel(wide + "\tmul.rn.f64 %d2, %d1, %d1;\n" + lower)},
      {"f64_root_as_f32", kernel(wide + "\tsqrt.rn.f64 %d2, %d1;\n" + lower)},
      {"bf16_truncates", bf16("%r29")},
      {"bf16_half_up", bf16("0f3F808000")},
      {"bf16_nan_infinite", bf16("0f7FFFFFFF")},
      {"to_whole_truncates", kernel("\tcvt.rni.ftz.s32.f32 %r0, %r29;")},
      {"compare_equal_holds", compared("%r29")},
      {"compare_nan_holds", compared("0f7FFFFFFF")},
      {"select_lane_0", kernel("\tsetp.lt.s32 %p0, %r31, -1;\n\tselp.b32 %r0, 5, 6, %p0;")},
      {"multiply_24_bits",
       kernel("\tcvt.u64.u32 %d1, %r31;\n\tmul.lo.s64 %d2, %d1, 16777217;\n" + lower)},
      {"divide_one_short", kernel("\tdiv.s32 %r0, %r31, 2;")},
      {"shuffle_lane_31", shuffled("1")},
      {"shuffle_within_halves", shuffled("16")},
      {"absent_lanes_add", kernel(kOddLanesAdd)},
      {"barrier_ignored", kernel(kShared)},
      {"barrier_last_warp", kernel(kShared)},
      {"shared_of_two_blocks", kernel(kShared)},
      {"shared_bank_conflict",
       kernel("\tshl.b32 %r1, %r30, 7;\n\tadd.s32 %r2, %r26, %r1;\n\tst.shared.u32 [%r2], %r31;\n"
              "\tld.shared.u32 %r0, [%r2];")},
      {"vector_load_repeats",
       kernel("\tst.shared.u32 [%r24], %r31;\n\tbar.sync 0;\n"
              "\tld.shared.v4.f32 {%r1, %r2, %r3, %r0}, [s];")},
      {"mma_swaps_lanes", kernel(kMma)},
      {"mma_half_lost", kernel(kMma)},
      {"mma_few_bits", kernel(kMma)},
      {"mma_rounds", kernel(kMma)},
      {"ldmatrix_untransposed", kernel(kLdmatrix)},
      {"ldmatrix_row_repeats", kernel(kLdmatrix)},
      {"async_copy_short", kernel(kCopy)},
      {"async_wait_early", kernel(kCopy)},
      {"half_store_clears", kernel(kHalf)},
      {"store_lost", kernel(kOneMore, 1100)},
      {"load_bit_flip", kernel(kManyLoads)},
      {"last_block_lost", kernel(kOneMore)},
      {"last_block_lost_of_many", kernel(kOneMore, 300)},
      {"last_block_late", kernel(kOneMore)},
      {"block_twice", kernel(kOneMore)},
      {"launch_dropped", kernel(kOneMore, 1, 400)},
      {"launch_twice", kernel(kOneMore, 1, 60)},
      {"launch_old_arguments", two_memories},
      {"first_launch_short", kernel(kOneMore)},
      {"launch_overtakes", steps_in_order},
      {"copy_in_short", much_back},
      {"copy_out_short", much_back},
      {"copy_within_words", whole_words_of_copies},
      {"copy_in_late", sent_and_read},
      {"copy_out_late", through_pinned_memory},
      {"copy_in_repeats", uploads},
      {"fill_words", whole_words_of_fills},
      {"fill_late", filled_and_read},
      {"event_early", [](const Context& c) { return early_answer(c, true); }},
      {"query_early", [](const Context& c) { return early_answer(c, false); }},
      {"pool_hands_out_twice", distinct_allocations},
      {"pool_frees_at_once", freed_behind_a_launch}};
  return all;
}

TEST(Defects, EachChangesWhatAProgramSees) {
  for (const auto& [name, work] : works()) {
    SCOPED_TRACE(name);
    const Words sound = work(Context());
    EXPECT_EQ(work(Context()), sound) << "not the same twice";
    const Context spoiled(Settings{{"FERRY_NVIDIA_SIM_DEFECT", name}});
    EXPECT_NE(work(spoiled), sound);
  }
}

TEST(Defects, TheListHasEach) {
  std::set<std::string> listed, known;
  std::istringstream lines(ferrySoftwareNvidiaList("defects"));
  for (std::string line; std::getline(lines, line);) {
    listed.insert(line.substr(0, line.find('\t')));
    EXPECT_EQ(std::count(line.begin(), line.end(), '\t'), 2) << line;
  }
  for (const auto& [name, work] : works()) known.insert(name);
  EXPECT_EQ(listed, known);
  EXPECT_EQ(ferrySoftwareNvidiaList("mutants"), nullptr);
}

/// What software NVIDIA writes to the file of deviations of a launch of kernel k.
std::string deviations(const std::string& defect, const std::string& body) {
  const std::string path = ::testing::TempDir() + "deviations-" + std::to_string(::getpid());
  std::remove(path.c_str());
  {
    const Context context(
        Settings{{"FERRY_NVIDIA_SIM_DEFECT", defect}, {"FERRY_NVIDIA_SIM_DEVIATIONS", path}});
    launched(context, body, 4, 2);
  }
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  std::remove(path.c_str());
  return text.str();
}

TEST(Defects, WhomTheySpoilIsMeasured) {
  EXPECT_EQ(deviations("", kOneMore), "k\tBYTES\t0\n");
  EXPECT_EQ(deviations("fma_truncates", kOneMore), "k\tBYTES\t0\n") << "it has no fma";
  EXPECT_EQ(deviations("last_block_lost", kOneMore), "k\tBYTES\t64\n");
  // A launch that is spoiled has what those before it left: only its own part is counted.
  EXPECT_EQ(deviations("first_launch_short", kOneMore), "k\tBYTES\t64\n");
}

TEST(Defects, WhatIsPlantedTurnsOffChecksThatAGpuDoesNotMake) {
  const std::string race = "\tst.shared.u32 [%r26], %r31;\n\tld.shared.u32 %r0, [%r26];";
  const Context context(Settings{{"FERRY_NVIDIA_SIM_DEFECT", "sqrt_approximate"}});
  launched(context, race, 1, 1);
  EXPECT_EQ(cuStreamSynchronize(context.stream()), 0);
}

}  // namespace
}  // namespace nvidia_sim::testing
