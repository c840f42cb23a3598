// What a plot is made of: marks that are round and few, values where they belong, words that are no markup.
#include "base/plot.h"

#include <gtest/gtest.h>

namespace ferry {
namespace {

TEST(Plot, TicksAreRoundAndFew) {
  EXPECT_EQ(axis_ticks(0, 1000, 8),
            (std::vector<double>{0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000}));
  EXPECT_EQ(axis_ticks(2.9, 4.1, 3), (std::vector<double>{3, 3.5, 4}));
  EXPECT_EQ(axis_ticks(3, 3, 5), (std::vector<double>{3}));
  for (double high = 1e-6; high < 1e12; high *= 1.7)
    EXPECT_LE(axis_ticks(0, high, 8).size(), 12u) << high;
}

TEST(Plot, ValuesLieBetweenItsMargins) {
  const Plot plot(400, 300, {-1, 10}, {1, 20});
  EXPECT_EQ(plot.x(-1), Plot::kLeft);
  EXPECT_EQ(plot.x(1), 400 - Plot::kRight);
  EXPECT_EQ(plot.y(10), 300 - Plot::kBottom);
  EXPECT_EQ(plot.y(20), Plot::kTop);
  EXPECT_EQ(plot.y(15), (Plot::kTop + 300 - Plot::kBottom) / 2);
}

TEST(Plot, IsOnePieceOfMarkup) {
  Plot plot(400, 300, {0, 0}, {1, 1});
  plot.title("a < b & c");
  plot.line({}, plot::kInk, 1);
  plot.line({{0, 0}, {0.5, 1}}, plot::kInk, 2, " stroke-dasharray=\"4 3\"");
  plot.dots({{0.5, 0.5}, {0.5, 2}}, plot::kGrey);
  const std::string svg = plot.finish();
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"400\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_NE(svg.find("d=\"M72.0 244.0L222.0 76.0\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("stroke-linejoin=\"round\" stroke-dasharray=\"4 3\"/>"), std::string::npos);
  // The one above the plot is left out, and so is a line without points.
  EXPECT_EQ(svg.find("<circle"), svg.rfind("<circle"));
  EXPECT_EQ(svg.find("d=\"\""), std::string::npos);
}

}  // namespace
}  // namespace ferry
