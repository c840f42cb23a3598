#include "text/thought_painter.h"

#include <gtest/gtest.h>

namespace ferry::text {
namespace {

std::string shown(const std::string& text, size_t piece, bool thinking, bool colours) {
  ThoughtPainter painter({.thinks = true}, thinking, colours);
  std::string out = painter.opening();
  for (size_t at = 0; at < text.size(); at += piece) out += painter.push(text.substr(at, piece));
  return out + painter.flush();
}

std::string without(std::string text, const std::string& part) {
  for (size_t at; (at = text.find(part)) != text.npos;) text.erase(at, part.size());
  return text;
}

TEST(ThoughtPainter, DimsThoughtsHoweverTheyAreCut) {
  const std::string text = "<think>is it <thin? </thi</think>yes <b", dim = "\033[2m";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    const std::string out = shown(text, piece, false, true);
    EXPECT_EQ(without(without(out, dim), "\033[0m"),
              "<think>\nis it <thin? </thi\n</think>\n\nyes <b")
        << piece;
    EXPECT_NE(out.find("</think>\n\n\033[0myes"), std::string::npos) << out;
    EXPECT_EQ(out.find(dim, out.find("yes")), std::string::npos) << out;
  }
}

TEST(ThoughtPainter, AnAnswerMayBeginThinking) {
  EXPECT_EQ(shown("so</think>4", 100, true, true),
            "\033[2m<think>\n\033[0m\033[2mso\033[0m\033[2m\n</think>\n\n\033[0m4");
  EXPECT_EQ(shown("so</thin", 100, true, false), "<think>\nso");
  EXPECT_EQ(shown("so", 100, false, true), "so");
}

}  // namespace
}  // namespace ferry::text
