// mma, ldmatrix and cp.async: who holds what, by PTX ISA's own words; how products are added, by
// numbers that were worked out by hand from the published models (exec/matrix_unit.h); and each thing
// that may be done wrong.
#include <bit>
#include <cmath>

#include "exec/matrix_unit.h"
#include "tests/test_support.h"

namespace nvidia_sim::testing {
namespace {

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
uint16_t bf16(float x) { return static_cast<uint16_t>(bits(x) >> 16); }

// --- how a unit adds ---

/// The sum of products (of which the others are zeros) and c.
uint32_t sum_of(int architecture,
                const std::vector<std::pair<float, float>>& products,
                float c = 0,
                const std::vector<int>& places = {}) {
  MatrixOperands m = {};
  for (size_t n = 0; n < products.size(); ++n) {
    const size_t k = places.empty() ? n : static_cast<size_t>(places[n]);
    m.a[3][k] = bf16(products[n].first);
    m.b[k][5] = bf16(products[n].second);
  }
  m.c[3][5] = bits(c);
  multiply_add(matrix_unit_of(architecture), m);
  return m.c[3][5];
}

TEST(MatrixUnit, SumsThatFitAreExact) {
  for (const int architecture : {80, 90}) {
    std::vector<std::pair<float, float>> products;
    float sum = -7;
    for (int k = 0; k < 16; ++k) {
      products.emplace_back(static_cast<float>(k - 5), static_cast<float>(3 * k + 1));
      sum += static_cast<float>((k - 5) * (3 * k + 1));
    }
    EXPECT_EQ(sum_of(architecture, products, -7), bits(sum));
  }
}

TEST(MatrixUnit, AddendsAreCutBehindTheLargest) {
  const std::vector<std::pair<float, float>> four(4, {0x1p-25f, 1});
  std::vector<std::pair<float, float>> products = {{1, 1}};
  products.insert(products.end(), four.begin(), four.end());
  EXPECT_EQ(sum_of(90, products), bits(1 + 0x1p-23f));  // 25 bits behind the point are kept
  EXPECT_EQ(sum_of(80, products), bits(1));             // 24
  // What they are added to is cut as they are, and cuts them.
  EXPECT_EQ(sum_of(90, four, 1), bits(1 + 0x1p-23f));
  EXPECT_EQ(sum_of(80, four, 1), bits(1));
  EXPECT_EQ(sum_of(90, std::vector<std::pair<float, float>>(8, {0x1p-26f, 1}), 1), bits(1));
  EXPECT_EQ(sum_of(90, {{1, 1}, {1, 1}}, 0x1.8p-25f), bits(2));
}

TEST(MatrixUnit, AProductsExponentIsTheSumOfItsFactors) {
  // 2.25 counts as one with the exponent 0, so that 2^-25 is not cut.
  std::vector<std::pair<float, float>> products(8, {0x1p-25f, 1});
  products.emplace_back(1.5f, 1.5f);
  EXPECT_EQ(sum_of(90, products), bits(2.25f + 0x1p-22f));
  EXPECT_EQ(sum_of(90, std::vector<std::pair<float, float>>(8, {0x1p-25f, 1}), 2.25f), bits(2.25f));
}

TEST(MatrixUnit, SumsAreCutTowardZero) {
  for (const float sign : {1.0f, -1.0f}) {
    EXPECT_EQ(sum_of(90, {{sign, 1}, {sign * 0x1p-24f, 1}, {sign * 0x1p-25f, 1}}), bits(sign));
    EXPECT_EQ(sum_of(90, {{sign, 1}, {-sign * 0x1p-25f, 1}}), bits(sign * (1 - 0x1p-24f)));
  }
}

TEST(MatrixUnit, AmpereAddsEightAtATimeAndHopperSixteen) {
  const std::vector<std::pair<float, float>> products = {{1, 1}, {-1, 1}, {0x1p-30f, 1}};
  EXPECT_EQ(sum_of(90, products, 0, {0, 1, 8}), bits(0));
  EXPECT_EQ(sum_of(80, products, 0, {0, 1, 8}), bits(0x1p-30f));
  EXPECT_EQ(sum_of(80, products, 0, {0, 1, 7}), bits(0));
}

TEST(MatrixUnit, SmallNumbersStayAndLargeOnesBecomeInfinite) {
  for (const int architecture : {80, 90}) {
    EXPECT_EQ(sum_of(architecture, {{0x1p-133f, 1}}), bits(0x1p-133f));
    EXPECT_EQ(sum_of(architecture, {{0x1p-100f, 0x1p-49f}}), bits(0x1p-149f));
    EXPECT_EQ(sum_of(architecture, {{0x1p-100f, 0x1p-60f}}), bits(0));
    EXPECT_EQ(sum_of(architecture, {}, 0x1p-149f), bits(0x1p-149f));
    EXPECT_EQ(sum_of(architecture, {{0x1p127f, 2}}), bits(INFINITY));
    EXPECT_EQ(sum_of(architecture, {{-0x1p127f, 1}, {-0x1p127f, 1}}), bits(-INFINITY));
    EXPECT_EQ(sum_of(architecture, {{-0.0f, 1}}, -0.0f), bits(0.0f));
    EXPECT_EQ(sum_of(architecture, {{1, 1}, {-1, 1}}), bits(0.0f));
  }
}

TEST(MatrixUnit, InfinityAndNan) {
  for (const int architecture : {80, 90}) {
    EXPECT_EQ(sum_of(architecture, {{INFINITY, 1}}, 1), bits(INFINITY));
    EXPECT_EQ(sum_of(architecture, {{INFINITY, 0}}), 0x7FFFFFFFu);
    EXPECT_EQ(sum_of(architecture, {{INFINITY, 1}, {-INFINITY, 1}}), 0x7FFFFFFFu);
    EXPECT_EQ(sum_of(architecture, {{1, 1}}, -INFINITY), bits(-INFINITY));
    EXPECT_EQ(sum_of(architecture, {{std::nanf(""), 0}}), 0x7FFFFFFFu);
  }
}

// Of two additions the second has the first one's infinity; where all are added at once there is none.
TEST(MatrixUnit, AnInfiniteSumInTheMiddleStays) {
  constexpr float kLarge = 0x1p127f;
  const std::vector<int> apart = {0, 8};  // the second product is Ampere's second eight
  EXPECT_EQ(sum_of(80, {{kLarge, 2}, {-kLarge, 1}}, 0, apart), bits(INFINITY));
  EXPECT_EQ(sum_of(90, {{kLarge, 2}, {-kLarge, 1}}, 0, apart), bits(kLarge));
  EXPECT_EQ(sum_of(80, {{-kLarge, 2}, {kLarge, 1.5f}}, 0, apart), bits(-INFINITY));
  EXPECT_EQ(sum_of(80, {{kLarge, 2}, {-kLarge, 1}}, 0, {0, 7}), bits(kLarge));
  // What it is added to counts, too, and an infinity of the other sign meets it.
  EXPECT_EQ(sum_of(80, {{kLarge, 1}, {-kLarge, 1}}, kLarge, apart), bits(INFINITY));
  EXPECT_EQ(sum_of(90, {{kLarge, 1}, {-kLarge, 1}}, kLarge, apart), bits(kLarge));
  EXPECT_EQ(sum_of(80, {{kLarge, 2}, {-INFINITY, 1}}, 0, apart), 0x7FFFFFFFu);
  EXPECT_EQ(sum_of(90, {{kLarge, 2}, {-INFINITY, 1}}, 0, apart), bits(-INFINITY));
  // An infinity of the second eight has not met the first.
  EXPECT_EQ(sum_of(80, {{1, 1}, {INFINITY, 1}}, 0, apart), bits(INFINITY));
}

TEST(MatrixUnit, WhatItAddsIsWithinItsModelsBound) {
  // Against a sum in f64, which holds it: each addend loses less than 2^-F of the largest, the sum 2^-23 of itself.
  uint32_t state = 1;
  const auto random = [&] {
    state = state * 1664525 + 1013904223;
    const float magnitude = std::ldexp(1.0f + static_cast<float>(state >> 9 & 127) / 128,
                                       static_cast<int>(state >> 20 & 15) - 8);
    return (state >> 31) != 0 ? -magnitude : magnitude;
  };
  for (const int architecture : {80, 90})
    for (int n = 0; n < 2000; ++n) {
      MatrixOperands m = {};
      double sum = 0, largest = 0, magnitude = 0;
      for (size_t k = 0; k < 16; ++k) {
        const float a = random(), b = random();
        m.a[0][k] = bf16(a);
        m.b[k][0] = bf16(b);
        const double p = static_cast<double>(a) * static_cast<double>(b);
        sum += p;
        largest = std::max(largest, std::abs(p));
        magnitude += std::abs(p);
      }
      const float c = 100 * random();
      m.c[0][0] = bits(c);
      sum += static_cast<double>(c);
      largest = std::max(largest, std::abs(static_cast<double>(c)));
      magnitude += std::abs(static_cast<double>(c));
      multiply_add(matrix_unit_of(architecture), m);
      const double got = static_cast<double>(std::bit_cast<float>(m.c[0][0]));
      // Ampere's second addition has a sum of the first among its addends.
      const double bound = architecture == 90 ? 17 * 0x1p-25 * largest + 0x1p-23 * std::abs(sum)
                                              : 18 * 0x1p-24 * magnitude + 2 * 0x1p-23 * magnitude;
      ASSERT_LE(std::abs(got - sum), bound) << architecture << ", " << n;
    }
}

// --- who holds what ---

constexpr const char* kMma =
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, "
    "{%r0, %r1, %r2, %r3}, {%r4, %r5}, {%f0, %f1, %f2, %f3};";

/// A kernel with the registers that products of matrices need; %d10: p0, %d11: p1; %r20: the lane.
std::string matrix_kernel(const std::string& body) {
  return ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k(\n\t.param .u64 "
         "p0,\n\t.param .u64 p1\n)\n{\n"
         "\t.reg .pred %p<4>;\n\t.reg .b16 %h<4>;\n\t.reg .b32 %r<32>;\n\t.reg .f32 %f<8>;\n\t.reg "
         ".b64 %d<16>;\n"
         "\t.shared .align 16 .b8 s[2048];\n"
         "\tld.param.u64 %d10, [p0];\n\tld.param.u64 %d11, [p1];\n\tmov.u32 %r20, "
         "%tid.x;\n\tmov.u32 %r21, s;\n" +
         body + "\n\tret;\n}\n";
}

/// Registers 0 to `count` - 1 of %r of each lane, from or to words of memory one after the other.
std::string each_lanes(const char* op, int count, const char* base, const char* names = "%r") {
  std::string text = "\tmul.wide.u32 %d0, %r20, " + std::to_string(4 * count) +
                     ";\n\tadd.s64 %d1, " + base + ", %d0;\n";
  for (int n = 0; n < count; ++n) {
    const std::string place = "[%d1+" + std::to_string(4 * n) + "]",
                      its = names + std::to_string(n);
    text += std::string(op) == "ld" ? "\tld.global.u32 " + its + ", " + place + ";\n"
                                    : "\tst.global.u32 " + place + ", " + its + ";\n";
  }
  return text;
}

TEST(Matrices, LanesOfMmaHoldWhatPtxIsaSays) {
  // The entries' places in PTX ISA's words: groupID = lane >> 2, threadID_in_group = lane % 4.
  float a[16][16], b[16][8];
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) a[i][j] = static_cast<float>((i * 7 + j * 3) % 11 - 5);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) b[i][j] = static_cast<float>((i * 5 + j * 9) % 13 - 6);
  std::vector<uint32_t> in(32 * 6);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t group = lane >> 2, of_group = lane % 4;
    uint16_t entries[12];
    for (uint32_t i = 0; i < 8; ++i) {  // a0 .. a7
      const uint32_t row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
      const uint32_t column = of_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      entries[i] = bf16(a[row][column]);
    }
    for (uint32_t i = 0; i < 4; ++i)  // b0 .. b3
      entries[8 + i] = bf16(b[of_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group]);
    for (uint32_t r = 0; r < 6; ++r)
      in[lane * 6 + r] = entries[2 * r] | static_cast<uint32_t>(entries[2 * r + 1]) << 16;
  }
  Context context;
  std::string body = each_lanes("ld", 6, "%d10");
  for (int n = 0; n < 4; ++n)
    body += "\tmov.f32 %f" + std::to_string(n) + ", 0f40000000;\n";  // c: 2
  body += std::string("\t") + kMma + "\n" + each_lanes("st", 4, "%d11", "%f");
  ASSERT_EQ(context.load(matrix_kernel(body)), "");
  const CUdeviceptr from = context.upload(in), to = context.allocate(32 * 16);
  ASSERT_EQ(context.run("k", {from, to}), 0) << ferrySoftwareNvidiaReport();
  const std::vector<float> out = context.download<float>(to, 128);
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = (lane >> 2) + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
      float sum = 2;
      for (uint32_t k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      EXPECT_EQ(out[lane * 4 + i], sum) << lane << ", " << i;
    }
}

/// Lane l writes row l of 16 bytes: the numbers 8 * l to 8 * l + 7; %r22: its place.
constexpr const char* kRows =
    "\tshl.b32 %r23, %r20, 4;\n\tadd.s32 %r22, %r21, %r23;\n\tshl.b32 %r24, %r20, 3;\n"
    "\tadd.s32 %r25, %r24, 1;\n\tshl.b32 %r25, %r25, 16;\n\tor.b32 %r24, %r24, %r25;\n"
    "\tst.shared.u32 [%r22], %r24;\n\tadd.s32 %r24, %r24, 131074;\n\tst.shared.u32 [%r22+4], "
    "%r24;\n"
    "\tadd.s32 %r24, %r24, 131074;\n\tst.shared.u32 [%r22+8], %r24;\n\tadd.s32 %r24, %r24, "
    "131074;\n"
    "\tst.shared.u32 [%r22+12], %r24;\n";

CUresult with_rows(const std::string& body, std::vector<uint32_t>* out = nullptr) {
  Context context;
  EXPECT_EQ(context.load(matrix_kernel(kRows + body)), "");
  const CUdeviceptr to = context.allocate(32 * 16);
  const CUresult code = context.run("k", {to, to});
  if (out != nullptr) *out = context.download<uint32_t>(to, 128);
  return code;
}

TEST(Matrices, LdmatrixGivesEachLaneTwoOfARow) {
  std::vector<uint32_t> out;
  ASSERT_EQ(with_rows("\tbar.warp.sync -1;\n"
                      "\tldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0, %r1, %r2, %r3}, [%r22];\n" +
                          each_lanes("st", 4, "%d10"),
                      &out),
            0);
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
      const uint32_t first = (matrix * 8 + lane / 4) * 8 + lane % 4 * 2;
      EXPECT_EQ(out[lane * 4 + matrix], first | (first + 1) << 16);
    }
}

TEST(Matrices, LdmatrixTransposes) {
  std::vector<uint32_t> out;
  ASSERT_EQ(with_rows("\tbar.warp.sync -1;\n\tmov.u32 %r2, 7;\n\tmov.u32 %r3, 7;\n"
                      "\tldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r0, %r1}, [%r22];\n" +
                          each_lanes("st", 4, "%d10"),
                      &out),
            0);
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t matrix = 0; matrix < 2; ++matrix) {
      const uint32_t upper = (matrix * 8 + lane % 4 * 2) * 8 + lane / 4;  // column lane / 4
      EXPECT_EQ(out[lane * 4 + matrix], upper | (upper + 8) << 16);
    }
}

// --- what they must not do ---

TEST(Matrices, AWarpWithoutSomeOfItsThreadsIsFound) {
  const std::string skip = "\tsetp.lt.u32 %p0, %r20, 3;\n\t@%p0 bra $skip;\n";
  EXPECT_EQ(with_rows(skip + "\tmov.f32 %f0, 0f00000000;\n\t" + kMma + "\n$skip:"), 719);
  expect_report({"mma.sync", "not all threads of the warp"});
  EXPECT_EQ(with_rows("\tbar.warp.sync -1;\n" + skip +
                      "\tldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r22];\n$skip:"),
            719);
  expect_report({"ldmatrix", "not all threads of the warp"});
}

TEST(Matrices, LdmatrixIsCheckedAsEveryRead) {
  const std::string load = "\tldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0, %r1, %r2, %r3}, [%r22";
  EXPECT_EQ(with_rows(load + "];"), 719);  // what other lanes wrote, without their barrier
  expect_report({"race"});
  EXPECT_EQ(with_rows("\tbar.warp.sync -1;\n" + load + "+4];"), 716);
  EXPECT_EQ(with_rows("\tbar.warp.sync -1;\n" + load + "+2048];"), 700);
  EXPECT_EQ(with_rows("\tbar.warp.sync -1;\n" + load + "+512];"), 719);
  expect_report({"nobody wrote"});
}

TEST(Matrices, OtherShapesAndTypesAreRefused) {
  Context context;
  const auto said = [&](const std::string& body) {
    return context.load(matrix_kernel("\t" + body));
  };
  EXPECT_NE(said("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r0, "
                 "%r1}, {%r4}, "
                 "{%f0, %f1, %f2, %f3};")
                .find("there is mma.sync.aligned.m16n8k16"),
            std::string::npos);
  EXPECT_NE(
      said("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1}, "
           "{%r4, %r5}, {%f0, %f1, %f2, %f3};")
          .find("4 registers are expected"),
      std::string::npos);
  EXPECT_NE(said("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r0}, [%r22];").find("2 registers"),
            std::string::npos);
  EXPECT_NE(said("cp.async.cg.shared.global [%r22], [%d10], 8;").find("copies 16 bytes"),
            std::string::npos);
  EXPECT_NE(said("cp.async.bulk.commit_group;").find("cp.async.bulk"), std::string::npos);
}

// --- copies beside their thread ---

/// Lane l of 64 has the 16 bytes at %d2, which are written, and those at %r22 of shared memory; %p0:
/// of the second warp.
CUresult with_copies(const std::string& body,
                     std::vector<uint32_t>* out = nullptr,
                     size_t bytes = 1024) {
  Context context;
  EXPECT_EQ(
      context.load(matrix_kernel("\tshl.b32 %r23, %r20, 4;\n\tadd.s32 %r22, %r21, %r23;\n"
                                 "\tmul.wide.u32 %d1, %r20, 16;\n\tadd.s64 %d2, %d10, %d1;\n"
                                 "\tmul.wide.u32 %d1, %r20, 4;\n\tadd.s64 %d3, %d11, %d1;\n"
                                 "\tsetp.ge.u32 %p0, %r20, 32;\n\txor.b32 %r26, %r22, 512;\n" +
                                 body)),
      "");
  std::vector<uint32_t> in(bytes / 4);
  for (size_t n = 0; n < in.size(); ++n) in[n] = static_cast<uint32_t>(n) + 1;
  const CUdeviceptr from = context.upload(in), to = context.upload(std::vector<uint32_t>(64));
  const CUresult code = context.run("k", {from, to}, 64);
  if (out != nullptr) *out = context.download<uint32_t>(to, 64);
  return code;
}

constexpr const char* kCopy = "\tcp.async.cg.shared.global [%r22], [%d2], 16;\n";
constexpr const char* kCommit = "\tcp.async.commit_group;\n";
constexpr const char* kWait = "\tcp.async.wait_group 0;\n";
constexpr const char* kOwn = "\tld.shared.u32 %r0, [%r22+12];\n\tst.global.u32 [%d3], %r0;\n";
constexpr const char* kOther = "\tld.shared.u32 %r0, [%r26+12];\n\tst.global.u32 [%d3], %r0;\n";

TEST(AsyncCopies, ArriveForTheirThreadWhenItHasWaited) {
  std::vector<uint32_t> out;
  ASSERT_EQ(with_copies(std::string(kCopy) + kCommit + kWait + kOwn, &out), 0)
      << ferrySoftwareNvidiaReport();
  EXPECT_EQ(out[0], 4u);
  EXPECT_EQ(out[63], 256u);
  EXPECT_EQ(with_copies(std::string(kCopy) + "\tcp.async.wait_all;\n" + kOwn), 0);
  // For others a barrier is needed besides, behind the wait.
  ASSERT_EQ(with_copies(std::string(kCopy) + kCommit + kWait + "\tbar.sync 0;\n" + kOther, &out),
            0);
  EXPECT_EQ(out[0], 132u);
}

TEST(AsyncCopies, WithoutWaitingNobodyMayUseThePlace) {
  for (const std::string& early : {std::string(kOwn),
                                   std::string(kCommit) + kOwn,
                                   std::string(kCommit) + "\tcp.async.wait_group 1;\n" + kOwn,
                                   std::string(kWait) + kOwn,  // of what was not committed
                                   std::string(kCommit) + "\tbar.sync 0;\n" + kOther,
                                   std::string("\tst.shared.u32 [%r22], %r20;\n")}) {
    EXPECT_EQ(with_copies(kCopy + early), 719) << early;
    expect_report({"a copy is on its way"});
  }
}

TEST(AsyncCopies, OfSeveralGroupsTheFirstAreWaitedFor) {
  const std::string second = "\tcp.async.cg.shared.global [%r22+0], [%d2], 16;\n";
  const std::string two = std::string(kCopy) + kCommit + "\tadd.s32 %r27, %r22, 1024;\n" +
                          "\tcp.async.cg.shared.global [%r27], [%d2], 16;\n" + kCommit;
  EXPECT_EQ(with_copies(two + "\tcp.async.wait_group 1;\n" + kOwn), 0);
  EXPECT_EQ(with_copies(two + "\tcp.async.wait_group 1;\n\tld.shared.u32 %r0, [%r27];\n"), 719);
  EXPECT_EQ(with_copies(two + "\tcp.async.wait_group 2;\n" + kOwn), 719);
}

TEST(AsyncCopies, WithoutABarrierAnotherThreadIsARace) {
  EXPECT_EQ(with_copies(std::string(kCopy) + kCommit + kWait + kOther), 719);
  // A barrier before the wait does not order what lands after it.
  EXPECT_EQ(with_copies(std::string(kCopy) + kCommit + "\tbar.sync 0;\n" + kWait + kOther), 719);
  // ... and what is overwritten must have been read.
  EXPECT_EQ(with_copies("\tst.shared.u32 [%r22+12], %r20;\n\tbar.sync 0;\n" + std::string(kOther) +
                        kCopy + kCommit + kWait),
            719);
  expect_report({"race"});
}

TEST(AsyncCopies, WhatIsNotReadBecomesZeroAndIsNotAskedFor) {
  std::vector<uint32_t> out;
  // The second warp's pieces are beyond the allocation.
  const std::string copy =
      "\tselp.b32 %r1, 0, 8, %p0;\n\tcp.async.cg.shared.global [%r22], [%d2], 16, %r1;\n";
  ASSERT_EQ(with_copies(copy + kCommit + kWait + kOwn, &out, 512), 0)
      << ferrySoftwareNvidiaReport();
  EXPECT_EQ(out[1], 0u);
  EXPECT_EQ(out[40], 0u);
  ASSERT_EQ(with_copies(copy + kCommit + kWait +
                            "\tld.shared.u32 %r0, [%r22+4];\n\tst.global.u32 [%d3], %r0;",
                        &out),
            0);
  EXPECT_EQ(out[1], 6u);
  EXPECT_EQ(with_copies(std::string(kCopy) + kCommit + kWait, nullptr, 512), 700);
  EXPECT_EQ(with_copies("\tcp.async.cg.shared.global [%r22], [%d2], 16, 17;"), 719);
  expect_report({"reads 17 bytes to write 16"});
}

TEST(AsyncCopies, BothPlacesAreAligned) {
  EXPECT_EQ(with_copies("\tadd.s32 %r22, %r22, 8;\n" + std::string(kCopy)), 716);
  EXPECT_EQ(with_copies("\tadd.s64 %d2, %d2, 8;\n" + std::string(kCopy)), 716);
  EXPECT_EQ(with_copies("\tadd.s32 %r22, %r22, 2048;\n" + std::string(kCopy)), 700);
}

TEST(AsyncCopies, WhatNobodyWroteIsNotRead) {
  Context context;
  ASSERT_EQ(context.load(matrix_kernel("\tcp.async.cg.shared.global [%r21], [%d10], 16;")), "");
  EXPECT_EQ(context.run("k", {context.allocate(64), 0}, 1), 719);
  expect_report({"nobody wrote"});
}

}  // namespace
}  // namespace nvidia_sim::testing
