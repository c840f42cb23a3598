#include "text/thought_painter.h"

#include <gtest/gtest.h>

namespace ferry::text {
namespace {

std::string shown(const std::string& text, size_t piece, bool thinking, bool colours) {
  ThoughtPainter painter(thinking, colours);
  std::string out;
  for (size_t at = 0; at < text.size(); at += piece) out += painter.push(text.substr(at, piece));
  return out + painter.flush();
}

std::string without(std::string text, const std::string& part) {
  for (size_t at; (at = text.find(part)) != text.npos;) text.erase(at, part.size());
  return text;
}

TEST(ThoughtPainter, DimsThoughtsHoweverTheyAreCut) {
  const std::string text = "a < b<think>is it <thin? </thi</think>yes<think>hm", dim = "\033[2m";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    const std::string out = shown(text, piece, false, true);
    EXPECT_EQ(without(without(out, dim), "\033[0m"), text) << piece;
    EXPECT_EQ(out.rfind("a < b" + dim, 0), 0u) << out;  // not before the thought
    EXPECT_NE(out.find("</think>\033[0myes" + dim), std::string::npos) << out;
    EXPECT_EQ(shown(text, piece, false, false), text);
  }
}

TEST(ThoughtPainter, AnAnswerMayBeginThinking) {
  EXPECT_EQ(shown("so</think>4", 100, true, true), "\033[2mso</think>\033[0m4");
  EXPECT_EQ(shown("so</thin", 100, true, true), "\033[2mso\033[0m\033[2m</thin\033[0m");
}

}  // namespace
}  // namespace ferry::text
