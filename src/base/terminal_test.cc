#include "base/terminal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace ferry {
namespace {

TEST(Terminal, WidthsAreColumnsNotBytes) {
  EXPECT_EQ(display_width("loss 3.2 (+0.3σ)"), 16);
  EXPECT_EQ(display_width("\x1b[31mred\x1b[0m"), 3);
  EXPECT_EQ(display_width("渡し船"), 6);
  EXPECT_EQ(display_width("e\xcc\x81"), 1);         // e and a combining acute
  EXPECT_EQ(display_width("\xff\xc3"), 2);          // no UTF-8
  EXPECT_EQ(display_width("\x1b[2Kx"), 5);          // no colour: shown as it is
  EXPECT_EQ(display_width("\xf0\x9f\x9a\xa2"), 2);  // a ship
}

TEST(Terminal, CutsToColumns) {
  EXPECT_EQ(cut_to_width("abcdef", 6), "abcdef");
  EXPECT_EQ(cut_to_width("abcdefg", 6), "abcde…");
  EXPECT_EQ(cut_to_width("渡し船", 4), "渡…");
  EXPECT_EQ(cut_to_width("\x1b[31mabcdefg\x1b[0m", 4), "\x1b[31mabc…\x1b[0m");
  for (int columns = 0; columns < 12; ++columns)
    EXPECT_LE(display_width(cut_to_width("a渡bし\x1b[1mc船d\x1b[0m", columns)), columns);
}

/// What a live line wrote.
template <typename Write>
std::string written(const Terminal& like, Write&& write) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = ::open_memstream(&text, &size);
  {
    LiveLine line(out, Terminal(out, like.rewrites(), like.colours(), like.columns()));
    write(line);
  }
  std::fclose(out);
  std::string s(text, size);
  std::free(text);
  return s;
}

/// What a terminal of so many columns shows in the end, row by row, without blanks at the ends.
std::vector<std::string> screen(const std::string& output, size_t columns) {
  std::vector<std::string> rows(1);
  size_t at = 0;
  for (const char c : output) {
    if ((static_cast<unsigned char>(c) & 0xC0) == 0x80) continue;  // a character is one cell
    if (c == '\r') {
      at = 0;
    } else if (c == '\n') {
      rows.emplace_back();
      at = 0;
    } else {
      if (at == columns) rows.emplace_back(), at = 0;
      if (rows.back().size() <= at) rows.back().resize(at + 1, ' ');
      rows.back()[at++] = c;
    }
  }
  for (std::string& row : rows) row.erase(row.find_last_not_of(' ') + 1);
  return rows;
}

TEST(LiveLine, IsOneRowWhateverIsShown) {
  const Terminal narrow(stdout, true, false, 20);
  const std::string output = written(narrow, [](LiveLine& line) {
    line.show("a line that is longer than the window");
    line.show("short");
    line.above("a note");
    line.show("two\nlines");
    line.above("another note that is longer than all of it");
    line.show("end");
    line.keep();
  });
  EXPECT_EQ(output.find('\x1b'), std::string::npos);
  EXPECT_EQ(screen(output, 20),
            (std::vector<std::string>{
                "a note", "another note that is", " longer than all of", "it", "end", ""}));
  EXPECT_EQ(screen(written(narrow, [](LiveLine& line) { line.show("gone at the end"); }), 20),
            (std::vector<std::string>{""}));
}

TEST(LiveLine, IsNotThereWhereLinesCannotBeWrittenOver) {
  EXPECT_EQ(written(Terminal(stdout, false, false, 20),
                    [](LiveLine& line) {
                      line.show("live");
                      line.above("stays");
                      line.keep();
                    }),
            "stays\n");
}

}  // namespace
}  // namespace ferry
