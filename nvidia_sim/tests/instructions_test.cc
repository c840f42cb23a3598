// What single instructions compute, against values that were worked out by hand or by the host.
#include <bit>
#include <cmath>

#include "tests/test_support.h"

namespace nvidia_sim::testing {
namespace {

/// The value that `body` leaves in %r0 (or %d0) of each lane, of `p1` and what else it reads.
std::vector<uint32_t> words(const std::string& body, uint64_t argument = 0) {
  Context context;
  const std::string text = kernel_with(
      2,
      "\tld.param.u64 %d30, [p0];\n\tld.param.u64 %d29, [p1];\n\tcvt.u32.u64 %r29, %d29;\n"
      "\tmov.u32 %r31, %tid.x;\n\tmul.wide.u32 %d31, %r31, 4;\n\tadd.s64 %d30, %d30, %d31;\n" +
          body + "\n\tst.global.u32 [%d30], %r0;");
  EXPECT_EQ(context.load(text), "");
  const CUdeviceptr out = context.allocate(32 * 4);
  EXPECT_EQ(context.run("k", {out, argument}), 0) << ferrySoftwareNvidiaReport();
  return context.download<uint32_t>(out, 32);
}

uint32_t word(const std::string& body, uint64_t argument = 0) { return words(body, argument)[0]; }

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }

std::string number(float x) {
  char text[16];
  std::snprintf(text, sizeof text, "0f%08X", bits(x));
  return text;
}

std::string two(const char* op, float a, float b) {
  return std::string("mov.f32 %r1, ") + number(a) + "; mov.f32 %r2, " + number(b) + "; " + op +
         " %r0, %r1, %r2;";
}

TEST(Instructions, WholeNumbers) {
  EXPECT_EQ(word("add.s32 %r0, %r29, -3;", 10), 7u);
  EXPECT_EQ(word("sub.s32 %r0, 3, %r29;", 10), static_cast<uint32_t>(-7));
  EXPECT_EQ(word("mul.lo.s32 %r0, %r29, %r29;", 0x10001), 0x00020001u);
  EXPECT_EQ(word("mul.hi.u32 %r0, %r29, %r29;", 0x80000000), 0x40000000u);
  EXPECT_EQ(word("mul.hi.s32 %r0, %r29, 2;", 0x80000000), 0xFFFFFFFFu);
  EXPECT_EQ(word("mad.lo.s32 %r0, %r29, 5, 7;", 10), 57u);
  EXPECT_EQ(word("mul.wide.s32 %d0, %r29, -2; shr.u64 %d0, %d0, 32; cvt.u32.u64 %r0, %d0;", 3),
            0xFFFFFFFFu);
  EXPECT_EQ(word("div.s32 %r0, %r29, 2;", static_cast<uint32_t>(-7)), static_cast<uint32_t>(-3));
  EXPECT_EQ(word("rem.s32 %r0, %r29, 4;", static_cast<uint32_t>(-7)), static_cast<uint32_t>(-3));
  EXPECT_EQ(word("div.u32 %r0, %r29, 0;", 7), 0xFFFFFFFFu);
  EXPECT_EQ(word("min.s32 %r0, %r29, 2;", static_cast<uint32_t>(-7)), static_cast<uint32_t>(-7));
  EXPECT_EQ(word("max.u32 %r0, %r29, 2;", static_cast<uint32_t>(-7)), static_cast<uint32_t>(-7));
  EXPECT_EQ(word("shl.b32 %r0, %r29, 32;", 1), 0u);
  EXPECT_EQ(word("shr.s32 %r0, %r29, 40;", 0x80000000), 0xFFFFFFFFu);
  EXPECT_EQ(word("shr.u32 %r0, %r29, 4;", 0x80000000), 0x08000000u);
  EXPECT_EQ(word("not.b32 %r0, %r29;", 5), ~5u);
  EXPECT_EQ(word("xor.b32 %r1, %r29, 6; and.b32 %r2, %r29, 6; or.b32 %r0, %r1, %r2;", 5), 7u);
  EXPECT_EQ(word("popc.b32 %r1, %r29; clz.b32 %r2, %r29; mad.lo.s32 %r0, %r1, 100, %r2;", 0xFF),
            824u);
  EXPECT_EQ(word("cvt.u16.u32 %h0, %r29; cvt.s32.s16 %r0, %h0;", 0xFFFE), 0xFFFFFFFEu);
  EXPECT_EQ(word("mov.b32 {%h0, %h1}, %r29; mov.b32 %r0, {%h1, %h0};", 0x12345678), 0x56781234u);
}

TEST(Instructions, ParametersByTheirAddress) {
  EXPECT_EQ(word("mov.b64 %d1, p1; ld.param.u32 %r0, [%d1+4];", uint64_t{7} << 32), 7u);
  Context context;
  ASSERT_EQ(context.load(kernel_with(1, "\tmov.b64 %d1, p0;\n\tld.param.u32 %r0, [%d1+8];")), "");
  EXPECT_EQ(context.run("k", {0}), 700);
  expect_report({"beyond the parameters"});
}

TEST(Instructions, ComparisonsAndChoices) {
  EXPECT_EQ(word("setp.lt.s32 %p0, %r29, 2; selp.b32 %r0, 1, 0, %p0;", static_cast<uint32_t>(-1)),
            1u);
  EXPECT_EQ(word("setp.lt.u32 %p0, %r29, 2; selp.b32 %r0, 1, 0, %p0;", static_cast<uint32_t>(-1)),
            0u);
  EXPECT_EQ(word("setp.eq.s32 %p1, %r29, 3; setp.ge.and.s32 %p0|%p2, %r29, 2, !%p1;"
                 "selp.b32 %r0, 1, 0, %p0; @%p2 add.s32 %r0, %r0, 2;",
                 3),
            0u);
  const float nan = std::nanf("");
  EXPECT_EQ(word("mov.f32 %r1, " + number(nan) +
                 "; setp.neu.f32 %p0, %r1, %r1; selp.b32 %r0, 1, 0, %p0;"),
            1u);
  EXPECT_EQ(
      word("mov.f32 %r1, " + number(nan) + "; setp.ne.f32 %p0, %r1, %r1; selp.b32 %r0, 1, 0, %p0;"),
      0u);
  EXPECT_EQ(word("mov.f32 %r1, " + number(nan) +
                 "; setp.nan.f32 %p0, %r1, %r1; selp.b32 %r0, 1, 0, %p0;"),
            1u);
}

TEST(Instructions, FloatsRoundOnceAndFlushWhereAsked) {
  const float tiny = 0x1p-127f;  // subnormal
  EXPECT_EQ(word(two("add.rn.f32", 1.5f, 0x1p-24f)), bits(1.5f));
  EXPECT_EQ(word(two("add.rn.f32", tiny, tiny)), bits(0x1p-126f));
  EXPECT_EQ(word(two("add.rn.ftz.f32", tiny, tiny)), bits(0.0f));
  EXPECT_EQ(word(two("mul.rn.ftz.f32", -0x1p-100f, 0x1p-27f)), bits(-0.0f));
  EXPECT_EQ(word(two("mul.rn.f32", -0x1p-100f, 0x1p-27f)), bits(-0x1p-127f));
  EXPECT_EQ(word(two("div.rn.ftz.f32", 1, 3)), bits(1.0f / 3.0f));
  EXPECT_EQ(word(two("div.rn.ftz.f32", 0, 0)), 0x7FFFFFFFu);
  EXPECT_EQ(word("mov.f32 %r1, " + number(1 + 0x1p-12f) + "; mov.f32 %r2, " +
                 number(-1 - 0x1p-11f) + "; fma.rn.f32 %r0, %r1, %r1, %r2;"),
            bits(0x1p-24f));
  EXPECT_EQ(word("mov.f32 %r1, " + number(2) + "; sqrt.rn.ftz.f32 %r0, %r1;"),
            bits(std::sqrt(2.0f)));
  EXPECT_EQ(word(two("max.ftz.f32", std::nanf(""), 3)), bits(3.0f));
  EXPECT_EQ(word(two("min.f32", -0.0f, 0.0f)), bits(-0.0f));
  EXPECT_EQ(word("mov.f32 %r1, " + number(-2) + "; neg.ftz.f32 %r0, %r1;"), bits(2.0f));
}

TEST(Instructions, Conversions) {
  const auto of = [](const char* op, float x) {
    return word("mov.f32 %r1, " + number(x) + "; " + op + " %r0, %r1;");
  };
  EXPECT_EQ(of("cvt.rni.s32.f32", 2.5f), 2u);
  EXPECT_EQ(of("cvt.rni.s32.f32", 3.5f), 4u);
  EXPECT_EQ(of("cvt.rzi.s32.f32", -2.7f), static_cast<uint32_t>(-2));
  EXPECT_EQ(of("cvt.rzi.s32.f32", 3e9f), 0x7FFFFFFFu);
  EXPECT_EQ(of("cvt.rzi.u32.f32", -1.0f), 0u);
  EXPECT_EQ(of("cvt.rzi.s32.f32", std::nanf("")), 0u);
  EXPECT_EQ(of("cvt.rni.ftz.f32.f32", -2.5f), bits(-2.0f));
  EXPECT_EQ(of("cvt.rmi.f32.f32", -2.5f), bits(-3.0f));
  EXPECT_EQ(word("cvt.rn.f32.s32 %r0, %r29;", static_cast<uint32_t>(-7)), bits(-7.0f));
  EXPECT_EQ(word("cvt.rn.f32.u32 %r0, %r29;", 0xFFFFFFFF), bits(4294967296.0f));
  EXPECT_EQ(word("mov.f32 %r1, " + number(0.1f) +
                 "; cvt.f64.f32 %d1, %r1; mul.rn.f64 %d1, %d1, %d1; cvt.rn.f32.f64 %r0, %d1;"),
            bits(static_cast<float>(static_cast<double>(0.1f) * static_cast<double>(0.1f))));
  const auto bf16 = [](uint32_t x) {
    return word("cvt.rn.bf16.f32 %h0, %r29; cvt.u32.u16 %r0, %h0;", x);
  };
  EXPECT_EQ(bf16(0x3F808000), 0x3F80u);  // a half goes to the even one
  EXPECT_EQ(bf16(0x3F818000), 0x3F82u);
  EXPECT_EQ(bf16(0x3F808001), 0x3F81u);
  EXPECT_EQ(bf16(0x7F7FFFFF), 0x7F80u);
  EXPECT_EQ(bf16(0xFFC00001), 0x7FFFu);
}

TEST(Instructions, LanesPartAndMeet) {
  // Odd lanes take the long way round, and all add what they find.
  const std::vector<uint32_t> out = words(
      "mov.u32 %r0, 1; and.b32 %r1, %r31, 1; setp.eq.s32 %p0, %r1, 0; @%p0 bra $even;\n"
      "add.s32 %r0, %r0, 10; bra.uni $both;\n"
      "$even: add.s32 %r0, %r0, 20;\n"
      "$both: shfl.sync.bfly.b32 %r2|%p1, %r0, 1, 31, -1; add.s32 %r0, %r0, %r2;");
  for (const uint32_t x : out) EXPECT_EQ(x, 32u);
}

TEST(Instructions, LoopsOfDifferentLength) {
  const std::vector<uint32_t> out = words(
      "mov.u32 %r0, 0; mov.u32 %r1, 0;\n"
      "$again: setp.ge.u32 %p0, %r1, %r31; @%p0 bra $done;\n"
      "add.s32 %r0, %r0, %r1; add.s32 %r1, %r1, 1; bra $again;\n$done:");
  for (uint32_t l = 0; l < 32; ++l) EXPECT_EQ(out[l], l * (l - 1) / 2);
}

TEST(Instructions, ShufflesAndVotes) {
  const auto lane = [](const char* op) { return words(std::string("mov.u32 %r1, %tid.x; ") + op); };
  EXPECT_EQ(lane("shfl.sync.down.b32 %r0, %r1, 3, 31, -1;")[5], 8u);
  EXPECT_EQ(lane("shfl.sync.down.b32 %r0, %r1, 3, 31, -1;")[30], 30u);
  EXPECT_EQ(lane("shfl.sync.up.b32 %r0, %r1, 3, 0, -1;")[5], 2u);
  EXPECT_EQ(lane("shfl.sync.up.b32 %r0, %r1, 3, 0, -1;")[1], 1u);
  EXPECT_EQ(lane("shfl.sync.idx.b32 %r0, %r1, 7, 31, -1;")[20], 7u);
  // Segments of sixteen: c holds 16 above the clamp of 31.
  EXPECT_EQ(lane("shfl.sync.bfly.b32 %r0, %r1, 8, 4127, -1;")[20], 28u);
  EXPECT_EQ(lane("setp.lt.u32 %p0, %r1, 4; vote.sync.ballot.b32 %r0, %p0, -1;")[9], 0xFu);
  EXPECT_EQ(
      lane("setp.lt.u32 %p0, %r1, 4; vote.sync.any.pred %p1, %p0, -1; selp.b32 %r0, 1, 0, %p1;")[9],
      1u);
  EXPECT_EQ(
      lane("setp.lt.u32 %p0, %r1, 4; vote.sync.all.pred %p1, %p0, -1; selp.b32 %r0, 1, 0, %p1;")[9],
      0u);
}

TEST(Instructions, WhatIsNotThereIsRefusedWithItsLine) {
  Context context;
  const auto said = [&](const std::string& body) { return context.load(kernel_with(1, body)); };
  const auto names = [](const std::string& text, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << "not said: " << part << "\n" << text;
  };
  names(said("\tex2.approx.f32 %r0, %r1;"), {"218", "line 12", "ex2.approx.f32"});
  names(said("\tadd.f32 %r0, %r1, %r2;"), {"add.f32", "without .rn"});
  names(said("\tadd.rn.sat.f32 %r0, %r1, %r2;"), {".sat"});
  names(said("\tadd.s32 %r0, %r1;"), {"operand"});
  names(said("\tadd.s32 %r0, %r1, %d1;"), {"%d1", "8 bytes, not 4"});
  names(said("\tadd.s32 %r0, %r1, %q1;"), {"no register %q1"});
  names(said("\tbra $nowhere;"), {"no label $nowhere"});
  names(said("\tld.param.u64 %d0, [p0+8];"), {"beyond the parameter"});
  names(said("\tld.param.u64 %d0, [p0+4];"), {"beyond the parameter"});
  names(said("\tld.param.u64 %d0, [q];"), {"no parameter q"});
  names(said("\twgmma.wait_group.sync.aligned 0;"), {"wgmma.wait_group"});
  names(said("\tmov.u32 %r0, 99999999999999999999;"), {"64 bits"});
  names(said("\tmov.u32 %r0, 1"), {"expected"});
  names(context.load(".version 9.0\n.target sm_80\n.address_size 64\n.func f() {}\n"), {".func"});
  names(context.load(".target sm_80\n"), {"no .version"});
  EXPECT_EQ(context.load(".version 9.9\n.target sm_80\n"), "222: ");
}

}  // namespace
}  // namespace nvidia_sim::testing
