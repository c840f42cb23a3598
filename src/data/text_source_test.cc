#include "data/text_source.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "data/data_testing.h"

namespace ferry::data {
namespace {

Result<std::vector<std::string>> read_documents(const std::string& path,
                                                const SourceOptions& options = {}) {
  TRY_ASSIGN(DocumentReader reader, DocumentReader::open(path, options));
  std::vector<std::string> documents;
  Piece piece;
  bool open = false;
  for (;;) {
    TRY_ASSIGN(const bool more, reader.next(piece));
    if (!more) break;
    EXPECT_LE(piece.text.size(), kPieceBytes);
    if (!open) documents.emplace_back();
    documents.back() += piece.text;
    open = !piece.last;
  }
  EXPECT_FALSE(open) << "the last document does not end";
  return documents;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& p : parts) all += p;
  return all;
}

/// The rule of Split over a whole text, line by line: the judge of the streaming one.
std::vector<std::string> split_whole(const std::string& text, const SourceOptions& options) {
  const auto space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  std::vector<std::string> documents(1);
  bool after_blank = false, ink = false;
  for (size_t i = 0; i < text.size();) {
    const size_t newline = text.find('\n', i);
    const std::string line =
        text.substr(i, newline == std::string::npos ? newline : newline - i + 1);
    i += line.size();
    const bool blank = std::all_of(line.begin(), line.end(), space);
    bool begins = false;
    switch (options.split) {
      case Split::kFile: break;
      case Split::kParagraph: begins = after_blank; break;
      case Split::kEntry: begins = after_blank && !space(line[0]); break;
      case Split::kLine: begins = true; break;
      case Split::kPrefix: begins = line.starts_with(options.prefix); break;
    }
    if (!blank && ink && begins && documents.back().size() >= options.min_document_bytes)
      documents.emplace_back();
    documents.back() += line;
    ink = ink || !blank;
    after_blank = blank;
  }
  return documents;
}

/// Lines of 0 to 12 bytes that matter to some rule or to some reader.
std::string awkward_text(uint64_t seed, size_t bytes) {
  static constexpr std::string_view kBytes("  \t\r\n\n\n\nab#\0\xFF\xE4\xB8\xAD", 16);
  const Random random(seed, RandomPurpose::kTest, 1);
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text += kBytes[random.below(i, kBytes.size())];
  return text;
}

TEST(TextSource, CutsAsTheRuleSaysAndLosesNoByte) {
  const TestFolder folder;
  for (const size_t bytes : {1, 5, 40, 700, 600000}) {
    const std::string text = awkward_text(bytes, bytes);
    const std::string plain = folder.write("a.txt", text);
    const std::string packed =
        folder.write("a.gz", gzip(text.substr(0, bytes / 3)) + gzip(text.substr(bytes / 3)));
    const std::string packed_zstd =
        folder.write("a.txt.zst", zstd(text.substr(0, bytes / 2)) + zstd(text.substr(bytes / 2)));
    for (const char* split : {"file", "paragraph", "entry", "line", "prefix:#a"}) {
      for (const uint64_t least : {1, 9, 5000}) {
        SourceOptions options;
        options.text.as_text = true;
        ASSERT_TRUE(parse_split(split, options));
        EXPECT_EQ(split_name(options), split);
        options.min_document_bytes = least;
        const auto documents = read_documents(plain, options);
        ASSERT_TRUE(documents) << documents.error().message;
        ASSERT_EQ(joined(*documents), text) << split;
        ASSERT_EQ(*documents, split_whole(text, options))
            << split << " " << least << " of " << bytes;
        ASSERT_EQ(*read_documents(packed, options), *documents);
        ASSERT_EQ(*read_documents(packed_zstd, options), *documents);
      }
    }
  }
  EXPECT_TRUE(read_documents(folder.write("empty.txt", ""))->empty());
  EXPECT_TRUE(read_documents(folder.write("empty.gz", gzip("")))->empty());
  EXPECT_TRUE(read_documents(folder.write("empty.zst", zstd("")))->empty());
}

TEST(TextSource, OneLongLineComesInPiecesThatCutNoCharacter) {
  const TestFolder folder;
  std::string text = "x";  // so that pieces would end inside characters of three bytes
  while (text.size() < 5 * kPieceBytes / 2) text += "中";
  for (const char* split : {"file", "paragraph", "line"}) {
    SourceOptions options;
    ASSERT_TRUE(parse_split(split, options));
    auto reader = DocumentReader::open(folder.write("long.txt", text), options);
    ASSERT_TRUE(reader);
    Piece piece;
    std::string all;
    int last = 0;
    while (*reader->next(piece)) {
      EXPECT_LE(piece.text.size(), kPieceBytes);
      EXPECT_EQ((piece.text.size() + (all.empty() ? 2 : 0)) % 3, 0u);
      all += piece.text;
      last += piece.last;
    }
    EXPECT_EQ(last, 1);
    EXPECT_EQ(all, text);
  }
  // Lines that end just beyond a piece, each a document.
  for (size_t beyond = 0; beyond < 3; ++beyond) {
    const std::string line = std::string(kPieceBytes - 1 + beyond, 'y') + "\n";
    SourceOptions options;
    options.split = Split::kLine;
    const auto documents = read_documents(folder.write("lines.txt", line + line + line), options);
    ASSERT_TRUE(documents);
    EXPECT_EQ(*documents, std::vector<std::string>(3, line));
  }
  // With white space, a piece ends before it.
  std::string words;
  while (words.size() < 3 * kPieceBytes / 2) words += "some words ";
  auto reader = DocumentReader::open(folder.write("words.txt", words), {});
  Piece piece;
  ASSERT_TRUE(*reader->next(piece));
  EXPECT_FALSE(piece.last);
  ASSERT_TRUE(*reader->next(piece));
  EXPECT_EQ(piece.text[0], ' ');
}

void expect_failure(const std::string& path,
                    Code code,
                    std::string_view why,
                    const SourceOptions& options = {}) {
  const auto result = read_documents(path, options);
  ASSERT_FALSE(result) << path;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(path), std::string::npos) << result.error().message;
  EXPECT_NE(result.error().message.find(why), std::string::npos) << result.error().message;
}

/// Python writes NaN and Infinity into JSON: in a field that nobody reads they are nobody's trouble.
TEST(TextSource, NumbersThatAreNoneInJsonMayStandBesideTheText) {
  const TestFolder folder;
  const auto documents = [&](const std::string& lines) {
    return read_documents(folder.write("odd.jsonl", lines), {});
  };
  const auto read = documents(
      "{\"score\": NaN, \"text\": \"NaN \\\" Infinity, 1e999\"}\n"
      "{\"text\": \"b\", \"x\": [Infinity,-Infinity, 1e999, -1e999, 2], \"y\": {\"z\": NaN}}\n");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, (std::vector<std::string>{"NaN \" Infinity, 1e999", "b"}));
  for (const char* const line : {"{\"text\": NaN}\n",
                                 "{\"text\": \"a\", \"x\": nan}\n",
                                 "{\"text\": \"a\", \"x\": NaNa}\n",
                                 "{\"text\": \"a\", \"x\": NaN\n",
                                 "{\"text\": \"a\", NaN: 1}\n",
                                 "{\"text\": \"a\", \"x\": 1e}\n"})
    EXPECT_FALSE(documents(line)) << line;
}

TEST(TextSource, DamagedCompressionIsTold) {
  const TestFolder folder;
  const std::string text = awkward_text(3, 20000);
  SourceOptions as_text;
  as_text.text.as_text = true;
  for (const auto& [name, packed] :
       {std::pair{"a.txt.gz", gzip(text)}, std::pair{"a.txt.zst", zstd(text)}}) {
    for (const size_t size : {packed.size() - 1, packed.size() - 5, packed.size() / 2, size_t{12}})
      expect_failure(
          folder.write(name, packed.substr(0, size)), Code::kCorrupt, "cut short", as_text);
    std::string flipped = packed;
    flipped[packed.size() / 2] ^= 0x10;
    const auto read = read_documents(folder.write(name, flipped), as_text);
    // zstd without a checksum may decode other bytes; gzip must notice.
    if (std::string_view(name).ends_with(".gz")) {
      ASSERT_FALSE(read);
      EXPECT_EQ(read.error().code, Code::kCorrupt);
    }
  }
  expect_failure(folder.write("b.gz", gzip(text) + "rest"), Code::kCorrupt, "not gzip", as_text);
  expect_failure(folder.write("b.zst", zstd(text) + "rest"), Code::kCorrupt, "zstd", as_text);
  EXPECT_EQ(
      joined(*read_documents(folder.write("c.gz", gzip(text) + std::string(512, '\0')), as_text)),
      text);
  expect_failure(folder.write("d.gz", "plain text"), Code::kCorrupt, "name says compressed");
  expect_failure(folder.write("e.txt", "PK\x03\x04..."), Code::kInvalidInput, "zip");
  expect_failure(folder / "absent.txt", Code::kNotFound, "No such file");
  expect_failure(folder / ".", Code::kInvalidInput, "folder");
}

TEST(TextSource, JsonLines) {
  const TestFolder folder;
  const std::string path = folder.write(
      "a.jsonl",
      "{\"text\":\"one\\u0000\\n\",\"n\":1}\n\n  \n{\"body\":[{\"text\":0}],\"text\":\"zwei "
      "\\u4e2d\"}\n{\"text\":\"\"}\n{\"text\":\"3\"}");
  EXPECT_EQ(*read_documents(path),
            (std::vector<std::string>{std::string("one\0\n", 5), "zwei 中", "3"}));
  EXPECT_EQ(
      *read_documents(folder.write("b.jsonl.gz", gzip("{\"body\":\"x\"}\n")), {.field = "body"}),
      std::vector<std::string>{"x"});

  const std::string good = "{\"text\":\"a\"}\n";
  expect_failure(folder.write("c.jsonl", good + "{\"body\":\"a\"}\n"),
                 Code::kInvalidInput,
                 "line 2 (byte 13 of the text): has no field 'text' (it has: body)");
  expect_failure(
      folder.write("d.jsonl", good + good + "{\"text\":3}\n"), Code::kInvalidInput, "line 3");
  expect_failure(folder.write("e.jsonl", good + "{\"text\":\"a"), Code::kCorrupt, "line 2");
  expect_failure(folder.write("f.jsonl", "{\"text\":\"\xFF\"}\n"), Code::kCorrupt, "line 1");
  expect_failure(folder.write("g.jsonl", "[\"text\"]\n"), Code::kInvalidInput, "line 1");

  // A list in a line of many is a field like another.
  expect_failure(folder.write("k.jsonl", "{\"turns\":[{}]}\n{\"turns\":[{}]}\n"),
                 Code::kInvalidInput,
                 "has no field 'text' (it has: turns)");

  // A lone one may be the list that was meant for lines; a conversation is none, however many there are.
  expect_failure(folder.write("l.jsonl", "{\"turns\":[{}]}\n"), Code::kInvalidInput, ".turns[]");
  const std::string chat = R"({"id":3,"messages":[{"role":"user","content":"Hi"}]})"
                           "\n";
  for (const std::string& all : {chat, chat + chat}) {
    const auto read = read_documents(folder.write("m.jsonl", all));
    ASSERT_FALSE(read);
    EXPECT_NE(read.error().message.find("holds a conversation"), std::string::npos);
    EXPECT_NE(read.error().message.find("--chat"), std::string::npos) << read.error().message;
    EXPECT_EQ(read.error().message.find("jq"), std::string::npos) << read.error().message;
  }
  expect_failure(folder / "m.jsonl", Code::kInvalidInput, "--chat", {.field = "messages"});

  std::string text(3 * kPieceBytes, 'z');
  EXPECT_EQ(*read_documents(folder.write("h.jsonl", "{\"text\":\"" + text + "\"}\n")),
            std::vector<std::string>{text});
  const std::string endless(kLineBytesMax + kPieceBytes, 'z');
  expect_failure(folder.write("i.jsonl.gz", gzip("{\"text\":\"" + endless)),
                 Code::kInvalidInput,
                 "longer than 64 MiB");
}

/// A line of many is not called the only one because the others are slow to come.
TEST(TextSource, ALineOfASlowPipeIsOneOfMany) {
  const TestFolder folder;
  const std::string pipe = folder / "pipe", line = "{\"turns\":[{}]}\n";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] {
    std::FILE* out = std::fopen(pipe.c_str(), "w");
    for (int i = 0; i < 2; ++i) {
      std::fputs(line.c_str(), out);
      std::fflush(out);
      sleep_s(0.2);
    }
    std::fclose(out);
  });
  expect_failure(pipe, Code::kInvalidInput, "has no field 'text' (it has: turns)");
  writer.join();
}

TEST(TextSource, BadLinesAreLeftOutAndNamed) {
  const TestFolder folder;
  const std::string good = "{\"text\":\"a\"}\n";
  const std::string path = folder.write(
      "a.jsonl", good + "{\"text\":\"cut\n" + good + "{\"body\":1}\n{\"text\":null}\n" + good);
  SourceOptions options;
  options.text.skip_bad = 3;
  auto reader = DocumentReader::open(path, options);
  ASSERT_TRUE(reader);
  Piece piece;
  int documents = 0;
  while (*reader->next(piece)) documents += piece.text == "a";
  EXPECT_EQ(documents, 3);
  ASSERT_EQ(reader->damage().lines.size(), 3u);
  EXPECT_EQ(reader->damage().lines[0].number, 2u);
  EXPECT_NE(reader->damage().lines[1].why.find("has no field 'text'"), std::string::npos);
  EXPECT_NE(reader->damage().lines[2].why.find("has a field 'text' of type null, not string"),
            std::string::npos);
  options.text.skip_bad = 2;
  expect_failure(path, Code::kInvalidInput, "line 5 (byte 50 of the text)", options);
  expect_failure(path, Code::kInvalidInput, "2 bad lines before it were left out", options);
}

/// Leaving lines out is offered where others can be read, and not where every line would have to go.
TEST(TextSource, LinesAreOfferedToBeLeftOutWhereOthersAreGood) {
  const TestFolder folder;
  SourceOptions options;
  options.text.line_hint = "--skip-bad N";
  const std::string good = "{\"text\":\"a\"}\n", other = "{\"body\":\"a\"}\n",
                    latin = "{\"text\":\"caf\xE9\"}\n";
  const auto refusal = [&](const std::string& content) {
    const auto all = read_documents(folder.write("a.jsonl", content), options);
    return all ? "" : all.error().message;
  };
  for (const std::string& lines :
       {good + other, other + good, good + "{\n", "{\"text\":1}\n" + good})
    EXPECT_NE(refusal(lines).find("; --skip-bad N"), std::string::npos) << refusal(lines);
  // Of few lines, or long ones, one that is damaged is a large part; those before it could be read all the same.
  const std::string longer = "{\"text\":\"" + std::string(100'000, 'a') + "\"}\n";
  for (const std::string& lines : {good + good + latin, longer + longer + latin + longer})
    EXPECT_NE(refusal(lines).find("; --skip-bad N"), std::string::npos) << refusal(lines);
  for (const std::string& lines : {other, other + other, other + other + good, latin + latin})
    EXPECT_EQ(refusal(lines).find("--skip-bad"), std::string::npos) << refusal(lines);
}

TEST(TextSource, NothingHidesBehindAZeroByte) {
  const TestFolder folder;
  const std::string good = "{\"text\":\"a\"}";
  const std::string path =
      folder.write("a.jsonl", good + "\n" + good + std::string(1, '\0') + good + "\n");
  expect_failure(path, Code::kCorrupt, "byte 13 of it is zero", {});
}

TEST(TextSource, DeepAndWideLinesTakeTheMemoryOfTheirText) {
  const TestFolder folder;
  const std::string deep = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  const std::string path =
      folder.write("deep.jsonl", "{\"a\":" + deep + ",\"text\":\"x\",\"b\":" + deep + "}\n");
  EXPECT_EQ(*read_documents(path), std::vector<std::string>{"x"});
  EXPECT_EQ(*read_documents(folder.write(
                "twice.jsonl", "{\"text\":\"a\",\"b\":{\"text\":\"c\"},\"text\":\"d\"}\n")),
            std::vector<std::string>{"d"});
}

TEST(TextSource, DocumentsAreGivenWhole) {
  const TestFolder folder;
  const std::string large(3 * kPieceBytes, 'x');
  const std::string path =
      folder.write("a", "{\"text\":\"one\"}\n{\"text\":\"" + large + "\"}\n{\"text\":\"three\"}\n");
  const auto documents = [&](size_t bytes_max, size_t wanted) {
    std::vector<std::string> all;
    DocumentReader reader = *DocumentReader::open(path, {});
    EXPECT_TRUE(each_document(reader, bytes_max, [&](std::string_view text) -> Result<bool> {
      all.emplace_back(text);
      return all.size() < wanted;
    }));
    return all;
  };
  EXPECT_EQ(documents(large.size() + 1, 9), (std::vector<std::string>{"one", large, "three"}));
  EXPECT_EQ(documents(large.size() + 1, 1), std::vector<std::string>{"one"});
  const std::vector<std::string> parts = documents(kPieceBytes, 9);
  EXPECT_EQ(parts.size(), 5U);
  EXPECT_EQ(joined(parts), "one" + large + "three");
  DocumentReader reader = *DocumentReader::open(path, {});
  const auto refuse = [](std::string_view) -> Result<bool> { return fail(Code::kVerdict, "no"); };
  EXPECT_EQ(each_document(reader, kPieceBytes, refuse).error().message, "no");
}

TEST(TextSource, UnknownSplitsAreRefused) {
  SourceOptions options;
  for (const char* name : {"", "words", "prefix:", "prefix: x", "prefix:a\nb", "Line"}) {
    const auto result = parse_split(name, options);
    ASSERT_FALSE(result) << name;
    EXPECT_EQ(result.error().code, Code::kInvalidInput);
  }
}

}  // namespace
}  // namespace ferry::data
