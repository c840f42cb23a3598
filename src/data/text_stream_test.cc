#include "data/text_stream.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "data/data_testing.h"
#include "data/text_source.h"

namespace ferry::data {
namespace {

using std::string_literals::operator""s;

std::string utf16(std::u16string_view text, bool big, bool mark) {
  std::string out;
  const auto put = [&](char16_t c) {
    const char low = static_cast<char>(c & 0xFF), high = static_cast<char>(c >> 8);
    out += big ? high : low;
    out += big ? low : high;
  };
  if (mark) put(0xFEFF);
  for (const char16_t c : text) put(c);
  return out;
}

std::string utf32(std::u32string_view text, bool big, bool mark) {
  std::string out;
  const auto put = [&](char32_t c) {
    for (int i = 0; i < 4; ++i) out += static_cast<char>(c >> (big ? 24 - 8 * i : 8 * i));
  };
  if (mark) put(0xFEFF);
  for (const char32_t c : text) put(c);
  return out;
}

std::string repeated(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

/// What a TextStream says of the bytes: the text, or its refusal.
std::string told(std::string bytes,
                 const std::string& name = "some file",
                 TextOptions options = {}) {
  const auto read = [&]() -> Result<std::string> {
    TRY_ASSIGN(ByteStream stream, ByteStream::of(std::move(bytes), name));
    TRY_ASSIGN(TextStream text, TextStream::over(std::move(stream), options));
    std::string all;
    char block[4096];
    for (;;) {
      TRY_ASSIGN(const size_t n, text.read(block, sizeof block));
      if (n == 0) return all;
      all.append(block, n);
    }
  };
  const Result<std::string> text = read();
  return text ? *text : "refused: " + text.error().message;
}

bool refused(const std::string& answer, std::string_view with) {
  return answer.starts_with("refused: ") && answer.find(with) != std::string::npos;
}

TEST(TextStream, OtherEncodingsAreRefusedByName) {
  const std::u16string_view line16 = u"Some words of a text, and more.\n";
  const std::u32string_view line32 = U"Some words of a text, and more.\n";
  for (const bool big : {false, true})
    for (const bool mark : {false, true}) {
      const std::string wide = told(utf16(line16, big, mark));
      EXPECT_TRUE(refused(wide, "iconv -f UTF-16")) << wide;
      EXPECT_TRUE(refused(told(zstd(utf16(line16, big, mark))), "text in UTF-16"));
      const std::string wider = told(utf32(line32, big, mark));
      EXPECT_TRUE(refused(wider, "iconv -f UTF-32")) << wider;
    }
  // "été à l'école", "日本語のテキストです。", "это русский текст и слова", "中文文本的编码"
  EXPECT_TRUE(refused(told("\xE9t\xE9 \xE0 l'\xE9"
                           "cole\n"),
                      "iconv -f WINDOWS-1252"));
  const std::string sjis = repeated(
      "\x93\xFA\x96{\x8C\xEA\x82\xCC\x83\x65\x83\x4C\x83\x58\x83\x67\x82\xC5\x82\xB7\x81\x42\n", 3);
  EXPECT_TRUE(refused(told(sjis), "iconv -f SHIFT_JIS")) << told(sjis);
  const std::string euc = repeated(
      "\xC6\xFC\xCB\xDC\xB8\xEC\xA4\xCE\xA5\xC6\xA5\xAD\xA5\xB9\xA5\xC8\xA4\xC7\xA4\xB9\xA1\xA3\n",
      3);
  EXPECT_TRUE(refused(told(euc), "iconv -f EUC-JP")) << told(euc);
  const std::string gb = repeated("\xD6\xD0\xCE\xC4\xCE\xC4\xB1\xBE\xB5\xC4\xB1\xE0\xC2\xEB\n", 3);
  EXPECT_TRUE(refused(told(gb), "iconv -f GB18030")) << told(gb);
  const std::string cp1251 =
      "\xFD\xF2\xEE \xF0\xF3\xF1\xF1\xEA\xE8\xE9 \xF2\xE5\xEA\xF1\xF2 \xE8 \xF1\xEB\xEE\xE2\xE0\n";
  EXPECT_TRUE(refused(told(cp1251), "iconv -f WINDOWS-1251")) << told(cp1251);
  EXPECT_TRUE(refused(told("\x1B$B$3$l\x1B(B\n"), "ISO-2022-JP"));
  // Bytes that are no text at all are not called so.
  for (const std::string& binary : {"\x1B$B\xFF\x90\0\1"s, "\x1B$B\0\1\2"s, "\1\2\x1B$B\3"s}) {
    EXPECT_TRUE(refused(told(binary), "") || told(binary) == binary);
    EXPECT_EQ(told(binary).find("ISO-2022"), std::string::npos) << told(binary);
  }
  // Letters that have no zero byte, without a mark.
  for (const std::u16string text : {u"渡船过河，载着石头。\n从此岸到彼岸，水流很慢。\n",
                                    u"Паром пересекает реку ночью.\n",
                                    u"나룻배가 강을 건넌다.\n"})
    for (const bool big : {false, true})
      EXPECT_TRUE(refused(told(utf16(text, big, false)), big ? "UTF-16BE" : "UTF-16LE"))
          << told(utf16(text, big, false));
  // What has no name is not told a command that names it.
  EXPECT_TRUE(refused(told(utf16(u"Some words.\n", false, true), "standard input"),
                      "iconv -f UTF-16 -t UTF-8 FILE > FILE.utf8"));
  EXPECT_TRUE(refused(told("a few\0bytes\n"s), "zero byte"));
}

/// The same text twice.
struct InTwo {
  std::u16string_view utf16;
  std::string_view utf8;
};
#define IN_TWO(text) \
  { u"" text, text }
constexpr InTwo kAlphabets[] = {IN_TWO("Паром пересекает реку ночью.\nОн везёт камни и людей.\n"),
                                IN_TWO("Пором перетинає річку вночі.\nЙого їм не видно.\n"),
                                IN_TWO("Το πλοίο διασχίζει το ποτάμι.\nΕίναι νύχτα.\n"),
                                IN_TWO("המעבורת חוצה את הנהר.\nלילה על המים.\n"),
                                IN_TWO("العبارة تعبر النهر ليلا.\n"),
                                IN_TWO("नाव रात में नदी पार करती है।\n"),
                                IN_TWO("渡船过河，载着石头。\n从此岸到彼岸，水流很慢。\n"),
                                IN_TWO("渡し船は夜に川を渡ります。\n"),
                                IN_TWO("나룻배가 밤에 강을 건넌다.\n")};
#undef IN_TWO

TEST(TextStream, TextInUtf16IsToldFromUtf8ThatHoldsAZeroByte) {
  for (const auto& [wide, text] : kAlphabets) {
    for (const bool big : {false, true}) {
      const std::string answer = told(utf16(wide, big, false));
      EXPECT_TRUE(refused(answer, big ? "is text in UTF-16BE" : "is text in UTF-16LE")) << answer;
    }
    for (size_t at = 0; at < text.size(); ++at) {
      if ((text[at] & 0xC0) == 0x80) continue;  // within a character
      std::string holed(text);
      holed.insert(at, 1, '\0');
      const std::string answer = told(holed);
      EXPECT_TRUE(answer == holed || refused(answer, "zero byte")) << at << " " << answer;
      holed.insert(text.size() / 2, 1, '\xFF');  // and one byte that is ill-formed
      EXPECT_FALSE(refused(told(holed), "UTF-16")) << told(holed);
    }
  }
}

TEST(TextStream, WhatIsNoTextIsRefusedByNameWithTheCommandThatConvertsIt) {
  std::string tar(512, '\0');
  tar.replace(0, 5, "a.txt");
  tar.replace(257, 5, "ustar");
  std::string old_tar(1024, '\0');
  old_tar.replace(0, 5, "a.txt");
  old_tar.replace(100, 7, "0000644");
  unsigned sum = 8 * ' ';
  for (const char c : old_tar) sum += static_cast<unsigned char>(c);
  old_tar.replace(148, 6, fmt::format("{:06o}", sum));
  const std::pair<std::string, std::string_view> cases[] = {
      {"\xFD"
       "7zXZ\0..."s,
       "xz -dc 'some file' > 'some file.txt'"},
      {"BZh91AY&SY..."s, "bzip2 -dc 'some file' >"},
      {"\x04\x22\x4D\x18..."s, "lz4 -dc"},
      {"PK\x03\x04..."s, "unzip"},
      {"PK\x03\x04" + std::string(26, '\x01') + "mimetypeapplication/epub+zip", "pandoc"},
      {"\x1E{\"text\":\"a\"}\n"s, "jq --seq"},
      {"<?xml version=\"1.0\"?><a>text</a>"s, "xmllint"},
      {"7z\xBC\xAF\x27\x1C..."s, "7z x"},
      {"PAR1..."s, "to_json"},
      {"ARROW1\0\0..."s, "read_feather"},
      {"\xFF\xFF\xFF\xFF..."s, "from_file"},
      {"SQLite format 3\0..."s, "sqlite3 -json 'some file'"},
      {"%PDF-1.7"s, "pdftotext 'some file' 'some file.txt'"},
      {"{\\rtf1 x}"s, "unrtf"},
      {tar, "tar -xf"},
      {old_tar, "tar -xf"},
      {"\x7F"
       "ELF\x02\x01"s,
       "a program"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"s, "git lfs pull"},
      {"\n <!DOCTYPE html>\n<p>text"s, "w3m -dump"},
      {"[{\"text\": \"a\"},\n {\"text\": \"b\"}]"s, "jq -c '.[]' 'some file' > 'some file.jsonl'"},
      {"[\n  \"a\",\n  \"b\"\n]"s, "jq -c '.[] | {text: .}' 'some file'"},
      {"{\n  \"data\": [\n    {\"text\": \"a\"}]}"s, "jq -c '.data[]' 'some file' >"},
      {"{\n  \"data\": [\n    \"a\"]}"s, "jq -c '.data[] | {text: .}' 'some file' >"},
      {"{\n \"cells\": [\n  {\"source\": \"a\"}]}"s, "a notebook"},
      {"{\n  \"text\": \"a\"\n}"s, "jq -c ."},
  };
  for (const auto& [bytes, with] : cases) {
    EXPECT_TRUE(refused(told(bytes), with)) << with << ": " << told(bytes);
    // Not less so inside what is read.
    EXPECT_TRUE(refused(told(gzip(bytes)), "(inside gzip)")) << told(gzip(bytes));
    EXPECT_TRUE(refused(told(zstd(gzip(bytes))), "(inside gzip in zstd)"));
    // A command that reads the file reads what is in it.
    std::string unpacked = told(bytes);
    if (unpacked.find("'some file'") == std::string::npos) continue;
    unpacked = unpacked.substr(unpacked.find("convert it first: ") + 18);
    for (size_t at = 0; (at = unpacked.find("'some file", at)) != std::string::npos; at += 10)
      unpacked.insert(at + 10, ".unpacked");
    EXPECT_TRUE(
        refused(told(gzip(bytes)), "gzip -dc 'some file' > 'some file.unpacked' && " + unpacked))
        << told(gzip(bytes));
    EXPECT_TRUE(refused(told(zstd(gzip(bytes))),
                        "zstd -dc 'some file' | gzip -dc > 'some file.unpacked' && " + unpacked));
    EXPECT_EQ(told(gzip(bytes), "some file", {.as_text = true}), bytes);
  }
}

TEST(TextStream, ARefusalEndsWithWhatTheCommandOffers) {
  const std::string prose = "GIF87 was the first of them.\n";
  EXPECT_TRUE(refused(told(prose, "a text", {.hint = "--as-text takes any bytes"}),
                      "; --as-text takes any bytes"));
  EXPECT_EQ(told(prose, "a text", {.as_text = true}), prose);
}

/// Leaving lines out is offered where a text would be left.
TEST(TextStream, LinesAreOfferedToBeLeftOutWhereOthersAreGood) {
  const TextOptions options = {.hint = "--as-text", .line_hint = "--skip-bad N"};
  const std::string good = "A line of words.\n";
  EXPECT_TRUE(refused(told(repeated(good, 9) + "was\x92t far\n", "a", options),
                      "; --as-text, --skip-bad N"));
  for (const std::string& whole : {"was\x92t far\n"s,
                                   repeated("caf\xE9 et th\xE9\nsans rien\n", 100),
                                   "\1\2\3\0\x99\n\0\0\x81"s,
                                   utf16(u"Some words.\n", false, true),
                                   "GIF87 was the first of them.\n"s}) {
    const std::string refusal = told(whole, "a", options);
    EXPECT_TRUE(refused(refusal, "; --as-text")) << refusal;
    EXPECT_EQ(refusal.find("--skip-bad"), std::string::npos) << refusal;
  }
}

TEST(TextStream, TextThatLooksAlmostLikeSomethingElseIsText) {
  for (const std::string text : {
           "BZh is no word\n",
           "[1] a footnote\n[2] another\n",
           "[[Category:Words]] {{Infobox}}\n",
           "{ a set }\n",
           "{\"quoted\" and more\n",
           "<p>a fragment\n",
           "PK, a name\n",
           "\xE4\xB8\xAD\xE6\x96\x87",
           "",
           "\n",
           "x",
       })
    EXPECT_EQ(told(text), text);
  EXPECT_TRUE(refused(told("text,label\na,1\n", "a.csv.gz"), "a table (CSV)"));
  EXPECT_EQ(told("\xEF\xBB\xBFmarked\n"), "marked\n");
  EXPECT_EQ(told("\xEF\xBB\xBF"), "");
  EXPECT_EQ(told("\xEF\xBB\xBFmarked", "x", {.as_text = true}), "\xEF\xBB\xBFmarked");
}

TEST(TextStream, LayersAreTakenOffByContentAndNotWithoutEnd) {
  const std::string text = "some text\r\nof lines\r\n";
  EXPECT_EQ(told(gzip(zstd(text))), text);
  EXPECT_EQ(told(zstd(gzip(text)) + zstd("")), text);
  EXPECT_EQ(told(gzip(gzip(gzip(text)))), text);
  EXPECT_TRUE(refused(told(gzip(gzip(gzip(gzip(text))))), "more than 3 times"));
  // A frame that zstd passes over, as parallel compressors write.
  EXPECT_EQ(told("\x50\x2A\x4D\x18\x04\0\0\0abcd"s + zstd(text)), text);
  EXPECT_TRUE(refused(told(gzip(text).substr(0, 20)), "cut short"));
  EXPECT_TRUE(refused(told(zstd(text) + "rest"), "zstd data cannot be read"));
  // A window of 256 MiB: descriptor 18 << 3, checked before any memory is taken.
  EXPECT_TRUE(refused(told("\x28\xB5\x2F\xFD\x00\x90\x01\x00\x00"s), "--long=31"))
      << told("\x28\xB5\x2F\xFD\x00\x90\x01\x00\x00"s);
}

TEST(TextStream, JsonLinesAreKnownByTheirContent) {
  const TestFolder folder;
  const std::string lines = "\xEF\xBB\xBF{\"text\":\"one\"}\r\n\r\n{\"text\":\"two\"}\r\n";
  for (const auto& [name, content] : {std::pair{"a.json.gz", gzip(lines)},
                                      std::pair{"a.txt", lines},
                                      std::pair{"a", zstd(gzip(lines))}}) {
    auto reader = DocumentReader::open(folder.write(name, content), {});
    ASSERT_TRUE(reader) << reader.error().message;
    std::string all;
    Piece piece;
    while (*reader->next(piece)) all += piece.text + ";";
    EXPECT_EQ(all, "one;two;") << name;
  }
  auto latin = DocumentReader::open(
      folder.write("l.jsonl", "{\"text\":\"one\"}\n{\"text\":\"\xE9t\xE9\"}\n"), {});
  ASSERT_TRUE(latin);
  Piece piece;
  ASSERT_TRUE(latin->next(piece));
  const auto failed = latin->next(piece);
  ASSERT_FALSE(failed);
  EXPECT_NE(failed.error().message.find("line 2"), std::string::npos);
  EXPECT_NE(failed.error().message.find("iconv -f WINDOWS-1252"), std::string::npos);
}

TEST(TextStream, ADocumentOfJsonMayHaveAnyLayout) {
  for (const std::string json :
       {"[\"a\"]", "[[1, 2]]", "{\n  \"a\": 1\n}\n", "[{\"a\": 1}]", "{}"}) {
    EXPECT_EQ(told(json, "x", {.json = true}), json);
    EXPECT_EQ(told(gzip("\xEF\xBB\xBF" + json), "x.json", {.json = true}), json);
    EXPECT_TRUE(refused(
        told(
            utf16(std::u16string(json.begin(), json.end()), false, true), "x.json", {.json = true}),
        "is text in UTF-16"));
  }
  EXPECT_TRUE(refused(told("PK\3\4 and more", "x.json", {.json = true}), "zip"));
  EXPECT_TRUE(refused(told("{\n  \"a\": 1\n}\n"), "JSON laid out over several lines"));
}

TEST(TextStream, OfAStreamThatDoesNotEndNoMoreIsReadThanIsAskedFor) {
  for (const char* name : {"/dev/zero", "/dev/urandom"}) {
    Result<TextStream> stream = TextStream::open(name, {});
    char block[4096];
    EXPECT_FALSE(stream && stream->read(block, sizeof block)) << name;
  }
}

/// The commands do what they say, in a shell, and spare what lies beside the file. (zstd and jq are
/// among the packages that the tests ask for.)
TEST(TextStream, TheAdviceForPackedFilesWorks) {
  const TestFolder folder;
  const std::string beside = folder.write("a b.txt", "mine");
  const auto follow = [&](const std::string& name, const std::string& bytes) {
    const auto text = read_text(folder.write(name, bytes));
    EXPECT_FALSE(text);
    const std::string& message = text.error().message;
    const std::string command = message.substr(message.rfind(": ") + 2);
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  };
  // What the commands for JSON make is read.
  const auto makes =
      [&](const std::string& name, const std::string& bytes, const std::string& text) {
        const std::string path = folder.write(name, bytes);
        Result<DocumentReader> reader = DocumentReader::open(path, {});
        Piece piece;
        const Status refusal = reader ? reader->next(piece).error() : reader.error();
        const std::string command = refusal.message.substr(refusal.message.rfind(": jq ") + 2);
        ASSERT_EQ(std::system(command.c_str()), 0) << refusal.message;
        const std::string made = path + (name.ends_with(".ipynb") ? ".txt" : ".jsonl");
        reader = DocumentReader::open(made, {});
        ASSERT_TRUE(reader) << reader.error().message;
        std::string all;
        while (true) {
          const Result<bool> more = reader->next(piece);
          ASSERT_TRUE(more) << more.error().message;
          if (!*more) break;
          all += piece.text + ";";
        }
        EXPECT_EQ(all, text) << name;
      };
  makes("texts.json", "[\"one\",\n \"two\"]", "one;two;");
  makes("objects.json", "[{\"text\": \"one\"}, {\"text\": \"two\"}]", "one;two;");
  makes("lines.jsonl", "\"one\"\n\"two\"\n", "one;two;");
  makes("data.json", "{\"data\": [{\"text\": \"one\"}, {\"text\": \"two\"}]}", "one;two;");
  makes("data2.json", "{\n \"data\": [\n \"one\", \"two\"]}", "one;two;");
  makes("document.json", "{\n \"text\": \"one\"\n}\n", "one;");
  makes("a.ipynb",
        "{\n \"cells\": [\n  {\"source\": [\"one\\n\", \"two\"]}, {\"source\": \"three\"}],\n "
        "\"nbformat\": 4\n}",
        "one\ntwo\nthree\n;");
  follow("a b.txt.gz", gzip(utf16(u"Some words.\n", false, true)));
  EXPECT_EQ(*read_file(folder / "a b.txt.gz.unpacked.utf8"), "Some words.\n");
  follow("a b.zst", zstd(gzip("[{\"text\": \"a\"},\n {\"text\": \"b\"}]")));
  EXPECT_EQ(*read_file(folder / "a b.zst.unpacked.jsonl"), "{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
  follow("latin.gz", gzip(repeated("caf\xE9 et th\xE9\n", 100)));
  EXPECT_EQ(*read_file(folder / "latin.gz.unpacked.utf8"), repeated("café et thé\n", 100));
  EXPECT_EQ(*read_file(beside), "mine");
}

TEST(TextStream, RareDamageIsKeptAndCounted) {
  const std::string page(3 << 16, 'a');
  const std::string text = page + "\nwas\x92t far\n" + page + "\n\0\n"s + page + "\xE4\xB8";
  EXPECT_EQ(told(text), text);
  auto bytes = ByteStream::of(text, "a");
  auto stream = TextStream::over(std::move(*bytes), {});
  char block[1000];
  while (*stream->read(block, sizeof block) > 0) {
  }
  EXPECT_EQ(stream->bad_lines().damage().ill_formed, 4u);  // the last two: a character cut short
  EXPECT_EQ(stream->bad_lines().damage().ill_formed_line, 2u);
  // Not rare: as many again within a page.
  EXPECT_TRUE(refused(told(page + repeated("\nwas\x92t far", 4)), "line 5"));
  // Left out instead, by lines.
  EXPECT_EQ(told(text, "a", {.skip_bad = 3}), page + "\n" + page + "\n");
  EXPECT_TRUE(refused(told(text, "a", {.skip_bad = 1}), "line 4"));
  EXPECT_TRUE(refused(told(text, "a", {.skip_bad = 1}), "1 bad line before it was left out"));
}

TEST(TextStream, CharactersAcrossBlocksAreWhole) {
  const std::string text = "x" + repeated("\xE4\xB8\xAD\xF0\x9F\x98\x80\xC3\xA9", 200000);
  auto bytes = ByteStream::of(text, "a");
  auto stream = TextStream::over(std::move(*bytes), {});
  std::string all;
  char block[997];
  for (;;) {
    const size_t n = *stream->read(block, sizeof block);
    if (n == 0) break;
    all.append(block, n);
  }
  EXPECT_EQ(all, text);
  EXPECT_EQ(stream->bad_lines().damage().ill_formed, 0u);
}

}  // namespace
}  // namespace ferry::data
