// Tests of the safetensors reader and writer, and of element conversion: round trips and every
// refusal.
#include "checkpoint/safetensors.h"

#include <bit>
#include <cmath>

#include "base/check.h"
#include "base/threads.h"
#include "checkpoint/convert.h"
#include "checkpoint/test_support.h"
#include "tensor/bf16.h"
#include "tensor/f16.h"

namespace ferry {
namespace {

std::string file_of(std::string header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  return file + header + std::string(data_bytes, '\x01');
}

Result<SafetensorsFile> parse(const std::string& file) {
  return SafetensorsFile::parse(std::as_bytes(std::span(file)), "x.safetensors");
}

Result<SafetensorsFile> parse_header(const std::string& header, size_t data_bytes) {
  return parse(file_of(header, data_bytes));  // the result must not be read: its bytes are gone
}

TEST(Safetensors, RoundTripOfEveryType) {
  const std::string path = join_path(fresh_folder("types"), "x.safetensors");
  std::vector<NamedTensor> tensors;
  for (const DType t : {DType::kF32,
                        DType::kBF16,
                        DType::kF16,
                        DType::kF64,
                        DType::kI64,
                        DType::kI32,
                        DType::kI16,
                        DType::kI8,
                        DType::kU8,
                        DType::kBool,
                        DType::kF8E4M3}) {
    Tensor value = Tensor::empty({3, 5}, t, cpu());
    std::vector<unsigned char> bytes(value.bytes());
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<unsigned char>(t == DType::kBool ? i % 2 : i * 7 + 1);
    value.copy_bytes_from(bytes.data());
    tensors.push_back({fmt::format("a {} \"quoted\" \u00e9", to_string(t)), value});
  }
  tensors.push_back({"scalar", Tensor::from_f32(std::vector<float>{2.5F}, Shape{}, cpu())});
  tensors.push_back({"empty", Tensor::empty({0, 4}, DType::kF32, cpu())});
  const Result<FileDigest> digest =
      write_safetensors(path, tensors, {{"format", "pt"}, {"who", "\"me\"\n"}});
  ASSERT_TRUE(digest) << digest.error().message;
  EXPECT_EQ(digest->bytes, *file_size(path));
  const std::string content = *read_file(path);
  EXPECT_EQ(digest->blake2b, blake2b_hex(content.data(), content.size()));

  const Result<SafetensorsFile> file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->metadata(), (SafetensorsMetadata{{"format", "pt"}, {"who", "\"me\"\n"}}));
  ASSERT_EQ(file->tensors().size(), tensors.size());
  for (const NamedTensor& t : tensors) {
    const Result<Tensor> back = file->load(t.name, cpu());
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->dtype(), t.value.dtype());
    EXPECT_EQ(back->shape(), t.value.shape());
    EXPECT_EQ(bytes_of(*back), bytes_of(t.value)) << t.name;
    const TensorInfo* info = file->find(t.name);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file->bytes(*info).data()) % size_of(info->dtype), 0U)
        << "misaligned";
  }
  EXPECT_TRUE(fails(file->load("missing", cpu()), Code::kNotFound, {path, "'missing'"}));
  for (size_t i = 1; i < file->tensors().size(); ++i)
    EXPECT_LT(file->tensors()[i - 1].name, file->tensors()[i].name);
}

TEST(Safetensors, ContentAloneDecidesTheBytes) {
  const std::string folder = fresh_folder("order");
  const NamedTensor a{"a", random_tensor({4}, 1)}, b{"b", random_tensor({2, 3}, 2)},
      h{"h", random_tensor({3}, 3), DType::kBF16};
  ASSERT_TRUE(write_safetensors(join_path(folder, "1"), std::vector{a, h, b}));
  ASSERT_TRUE(write_safetensors(join_path(folder, "2"), std::vector{b, a, h}));
  EXPECT_EQ(*read_file(join_path(folder, "1")), *read_file(join_path(folder, "2")));
  EXPECT_THROW(static_cast<void>(write_safetensors(join_path(folder, "3"), std::vector{a, a})),
               Bug);
  EXPECT_TRUE(
      fails(write_safetensors(join_path(folder, "4"), std::vector{NamedTensor{"\xff", a.value}}),
            Code::kInvalidInput,
            {"not UTF-8"}));
}

TEST(Safetensors, WriterInsistsOnItsOrderAndOnWholeTensors) {
  const std::string path = join_path(fresh_folder("writer"), "x");
  const auto declared = std::vector<TensorDecl>{
      {"small", DType::kU8, {3}}, {"none", DType::kF32, {0}}, {"wide", DType::kF32, {1}}};
  const std::vector<std::byte> four(4), three(3);
  Result<SafetensorsWriter> writer = SafetensorsWriter::create(path, declared);
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->layout()[1].name, "wide");
  EXPECT_THROW(static_cast<void>(writer->write("small", three)), Bug);
  ASSERT_TRUE(writer->write("wide", four));
  EXPECT_THROW(static_cast<void>(writer->finish()), Bug);
  ASSERT_TRUE(writer->write("small", std::span(three).first(1)));
  EXPECT_THROW(static_cast<void>(writer->write("small", four)), Bug);
  writer = SafetensorsWriter::create(path, declared);
  ASSERT_TRUE(writer->write("wide", four));
  ASSERT_TRUE(writer->write("small", std::span(three).first(1)));
  ASSERT_TRUE(writer->write("small", std::span(three).last(2)));
  ASSERT_TRUE(writer->finish());
  EXPECT_TRUE(SafetensorsFile::open(path));
}

TEST(Safetensors, AcceptsWhatOthersWrite) {
  EXPECT_TRUE(parse_header("{}", 0));
  EXPECT_TRUE(parse_header("{}      ", 0));
  EXPECT_TRUE(
      parse_header(R"({"__metadata__":{},"b":{"shape":[2],"dtype":"F32","data_offsets":[1,9]},)"
                   R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})",
                   9));
  EXPECT_TRUE(parse_header(R"({"e":{"dtype":"U8","shape":[0,7],"data_offsets":[0,0]}})", 0));
  const auto none = parse_header(
      R"({"__metadata__":null,"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", 1);
  ASSERT_TRUE(none) << none.error().message;
  EXPECT_TRUE(none->metadata().empty());
  EXPECT_NE(none->find("a"), nullptr);
}

TEST(Safetensors, RefusesEachBadInput) {
  const auto one = [](const std::string& entry) { return "{\"a\":{" + entry + "}}"; };
  const struct {
    const char* what;
    std::string header;
    size_t data_bytes;
    std::vector<std::string> words;
  } cases[] = {
      {"no JSON", "{\"a\":", 0, {"not JSON at byte"}},
      {"leading space", " {}", 0, {"byte 8"}},
      {"a list", "[]", 0, {"byte 8"}},
      {"text after", "{}x", 0, {"not JSON at byte"}},
      {"bad UTF-8", "{\"a\xff\":1}", 0, {"not JSON"}},
      {"deep nesting", "{\"a\":" + std::string(100000, '['), 0, {"'a'", "a list"}},
      {"number for tensor", R"({"a":3})", 0, {"'a'", "a number"}},
      {"null for tensor", R"({"a":null})", 0, {"'a'", "null"}},
      {"metadata number", R"({"__metadata__":{"k":1}})", 0, {"'__metadata__'", "a number", "'k'"}},
      {"metadata object", R"({"__metadata__":{"k":{}}})", 0, {"an object"}},
      {"metadata's text null",
       R"({"__metadata__":{"k":null}})",
       0,
       {"'__metadata__'", "null", "'k'"}},
      {"metadata null, and again",
       R"({"__metadata__":null,"__metadata__":{}})",
       0,
       {"'__metadata__'", "twice"}},
      {"metadata twice",
       R"({"__metadata__":{},"__metadata__":{}})",
       0,
       {"'__metadata__'", "twice"}},
      {"metadata key twice", R"({"__metadata__":{"k":"1","k":"2"}})", 0, {"'k'", "twice"}},
      {"tensor twice",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
       R"("a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3,
       {"'a'", "twice"}},
      {"empty tensor twice",
       R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
       0,
       {"'a'", "twice"}},
      {"field twice",
       one(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])"),
       1,
       {"'a'", "'dtype'", "twice"}},
      {"shape twice",
       one(R"("dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1])"),
       1,
       {"'shape'", "twice"}},
      {"unknown field",
       one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":[1])"),
       1,
       {"'stride'", "unknown"}},
      {"no dtype", one(R"("shape":[1],"data_offsets":[0,1])"), 1, {"'a'", "needs dtype"}},
      {"no shape", one(R"("dtype":"U8","data_offsets":[0,1])"), 1, {"'a'", "needs dtype, shape"}},
      {"no offsets", one(R"("dtype":"U8","shape":[1])"), 1, {"'a'", "data_offsets"}},
      {"unknown dtype",
       one(R"("dtype":"F9","shape":[1],"data_offsets":[0,1])"),
       1,
       {"'a'", "'F9'", "unknown"}},
      {"dtype of scales",
       one(R"("dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1])"),
       1,
       {"'a'", "F8_E8M0 (scales that are powers of two", "fetch the model in bf16"}},
      {"dtype of packed codes",
       one(R"("dtype":"U32","shape":[1],"data_offsets":[0,4])"),
       4,
       {"'a'", "U32 (codes packed", "MLX"}},
      {"number as dtype",
       one(R"("dtype":7,"shape":[1],"data_offsets":[0,1])"),
       1,
       {"'a'", "a number", "'dtype'"}},
      {"negative shape",
       one(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"),
       1,
       {"'a'", "negative", "'shape'"}},
      {"real shape", one(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), 1, {"'a'", "1.0"}},
      {"NaN shape", one(R"("dtype":"U8","shape":[NaN],"data_offsets":[0,1])"), 1, {"not JSON"}},
      {"text shape",
       one(R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])"),
       1,
       {"'a'", "the text"}},
      {"nested shape",
       one(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"),
       1,
       {"'a'", "a list"}},
      {"huge shape",
       one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
       0,
       {"'a'", "64 bits"}},
      {"huge with zero",
       one(R"("dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0])"),
       0,
       {"64 bits"}},
      {"elements that cannot be counted",
       one(R"("dtype":"U8","shape":[1152921504606846976,0],"data_offsets":[0,0])"),
       0,
       {"'a'", "64 bits"}},
      {"wraps to the size",
       one(R"("dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8])"),
       8,
       {"64 bits"}},
      {"beyond uint64",
       one(R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1])"),
       1,
       {"999"}},
      {"many dimensions",
       one(R"("dtype":"U8","shape":[)" + std::string("1") +
           [] {
             std::string s;
             for (int i = 0; i < 99; ++i) s += ",1";
             return s;
           }() +
           R"(],"data_offsets":[0,1])"),
       1,
       {"'a'", "more than 64"}},
      {"backwards",
       one(R"("dtype":"U8","shape":[1],"data_offsets":[2,1])"),
       2,
       {"'a'", "[2, 1]", "backwards"}},
      {"three offsets",
       one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,2])"),
       2,
       {"data_offsets", "more than 2"}},
      {"one offset",
       one(R"("dtype":"U8","shape":[1],"data_offsets":[0])"),
       1,
       {"two data_offsets"}},
      {"size",
       one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"),
       4,
       {"'a'", "hold 4 bytes", "takes 8"}},
      {"outside",
       one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4])"),
       3,
       {"'a'", "[0, 4]", "3 bytes"}},
      {"far outside",
       one(R"("dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615])"),
       3,
       {"'a'"}},
      {"hole in front",
       one(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"),
       2,
       {"'a'", "hole"}},
      {"trailing bytes",
       one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"),
       2,
       {"2 bytes of data", "end at 1"}},
      {"bytes without tensors", "{}", 1, {"1 bytes of data"}},
      {"overlap",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3,
       {"'b'", "[1, 3]", "overlap"}},
      {"same place",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       2,
       {"overlap"}},
      {"hole between",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3,
       {"'b'", "hole"}},
  };
  for (const auto& c : cases) {
    std::vector<std::string> words = c.words;
    words.push_back("x.safetensors: ");
    EXPECT_TRUE(fails(parse_header(c.header, c.data_bytes), Code::kCorrupt, words)) << c.what;
  }
  EXPECT_TRUE(
      fails(parse_header(one(R"("dtype":"U8","shape":[1,1,1,1,1],"data_offsets":[0,1])"), 1),
            Code::kInvalidInput,
            {"'a'", "5 dimensions"}));
}

TEST(Safetensors, NamesWhatPyTorchPickled) {
  using std::string_literals::operator""s;
  const std::string zip = "PK\x03\x04\0\0\0\0\0\0\0\0model/data.pkl"s;
  const std::string legacy = "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19."s;
  for (const std::string& file : {zip, legacy})
    EXPECT_TRUE(fails(
        parse(file), Code::kInvalidInput, {"x.safetensors: ", "PyTorch", "safe_serialization"}));
}

TEST(Safetensors, RefusesEveryTruncationAndHugeHeaders) {
  const std::string file = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  ASSERT_TRUE(parse(file));
  for (size_t n = 0; n < file.size(); ++n)
    EXPECT_TRUE(fails(parse(file.substr(0, n)), Code::kCorrupt, {"x.safetensors"})) << n;
  EXPECT_TRUE(fails(parse(file + "x"), Code::kCorrupt, {"9 bytes of data"}));
  for (const uint64_t length : {uint64_t{100'000'001}, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::string huge = file;
    std::memcpy(huge.data(), &length, sizeof length);
    EXPECT_TRUE(fails(parse(huge), Code::kCorrupt, {"header of", "100000000"}));
  }
}

TEST(Safetensors, AFlippedHeaderBitIsRefusedOrHarmless) {
  const std::string file = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                   R"("b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}})",
                                   12);
  int refused = 0;
  for (size_t bit = 0; bit < (file.size() - 12) * 8; ++bit) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const Result<SafetensorsFile> r = parse(flipped);
    refused += !r;
    if (!r) continue;
    for (const TensorInfo& t : r->tensors())
      EXPECT_TRUE(r->load(t.name, cpu()));  // renamed, or of another type of that size
  }
  EXPECT_GT(refused, 700);
}

TEST(Convert, HalvesAreExactAndRoundToNearestEven) {
  const FlushDenormals as_in_kernels;
  for (uint32_t u = 0; u < 0x10000; ++u) {
    const auto half = static_cast<uint16_t>(u);
    const uint32_t exponent = (u >> 10) & 31, fraction = u & 1023;
    const float f = f16_to_f32(half);
    if (exponent == 31 && fraction != 0) {
      EXPECT_TRUE(std::isnan(f));
      EXPECT_EQ(f32_to_f16(f), half | 0x200);
      continue;
    }
    const double magnitude = exponent == 31 ? HUGE_VAL
                             : exponent == 0
                                 ? std::ldexp(fraction, -24)
                                 : std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25);
    EXPECT_EQ(f, (u & 0x8000) != 0 ? -magnitude : magnitude) << u;
    EXPECT_EQ(f32_to_f16(f), half);
    if ((u & 0x7FFF) >= 0x7BFF) continue;
    // Between this half and the next: below the middle down, above it up, at it to the even one.
    const float next = f16_to_f32(static_cast<uint16_t>(u + 1));
    const auto middle = static_cast<float>((static_cast<double>(f) + next) / 2);
    const uint32_t bits = std::bit_cast<uint32_t>(middle);
    EXPECT_EQ(f32_to_f16(middle), (u & 1) != 0 ? u + 1 : u);
    EXPECT_EQ(f32_to_f16(std::bit_cast<float>(bits - 1)), u);
    EXPECT_EQ(f32_to_f16(std::bit_cast<float>(bits + 1)), u + 1);
  }
  EXPECT_EQ(f32_to_f16(65519.996F), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7C00);
  EXPECT_EQ(f32_to_f16(-1e30F), 0xFC00);
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(1U)), 0);
}

TEST(Convert, PiecesAndTypes) {
  const Tensor big = random_tensor({(int64_t{1} << 20) + 7}, 5);  // more than one piece
  const std::vector<float> values = big.to_f32();
  std::vector<std::byte> stored;
  ASSERT_TRUE(
      for_each_piece(big, DType::kBF16, [&](std::span<const std::byte> piece) -> Result<void> {
        stored.insert(stored.end(), piece.begin(), piece.end());
        return {};
      }));
  ASSERT_EQ(stored.size(), values.size() * 2);
  const Tensor back = Tensor::empty(big.shape(), DType::kF32, cpu());
  fill_from(back, DType::kBF16, stored);
  const std::vector<float> rounded = back.to_f32();
  for (size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(rounded[i], bf16_to_f32(f32_to_bf16(values[i]))) << i;
  EXPECT_FALSE(can_convert(DType::kF8E4M3, DType::kF32));
  EXPECT_FALSE(can_convert(DType::kF64, DType::kF32));
  EXPECT_THROW(fill_from(back, DType::kI32, stored), Bug);
}

}  // namespace
}  // namespace ferry
