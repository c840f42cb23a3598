#include "base/plot.h"

#include <fmt/core.h>

#include <cmath>
#include <utility>

#include "base/markup.h"
#include "base/math.h"

namespace ferry {

using plot::kGrey;
using plot::kGrid;
using plot::kInk;

Plot::Plot(int width, int height, PlotPoint low, PlotPoint high)
    : low_(low), high_(high), width_(width), height_(height), legend_(width - kRight) {
  out_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" "
      "font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\">\n<rect "
      "width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n"
      "<clipPath id=\"plot\"><rect x=\"{2}\" y=\"{3}\" width=\"{4}\" "
      "height=\"{5}\"/></clipPath>\n",
      width,
      height,
      kLeft,
      kTop,
      width - kLeft - kRight,
      height - kTop - kBottom);
}

double Plot::x(double value) const {
  return kLeft + (value - low_.x) / (high_.x - low_.x) * (width_ - kLeft - kRight);
}

double Plot::y(double value) const {
  return height_ - kBottom - (value - low_.y) / (high_.y - low_.y) * (height_ - kTop - kBottom);
}

void Plot::text(double px,
                double py,
                const char* anchor,
                const char* fill,
                std::string_view words,
                std::string_view more) {
  out_ +=
      fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill=\"{}\"{}>{}</text>\n",
                  px,
                  py,
                  anchor,
                  fill,
                  more,
                  escape_markup(words));
}

void Plot::title(std::string_view words) {
  text(kLeft, 30, "start", kInk, words, " font-size=\"18\" font-weight=\"600\"");
}

void Plot::subtitle(std::string_view words) { text(kLeft, kTop - 16, "start", kGrey, words); }

void Plot::axes(const std::vector<PlotTick>& x_ticks,
                const std::vector<PlotTick>& y_ticks,
                std::string_view x_name,
                std::string_view y_name) {
  const double bottom = height_ - kBottom, right = width_ - kRight;
  for (const PlotTick& t : y_ticks) {
    out_ += fmt::format(
        "<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"{}\"/>\n", kLeft, y(t.at), right, kGrid);
    text(kLeft - 8, y(t.at) + 4.5, "end", kGrey, t.label);
  }
  for (const PlotTick& t : x_ticks) {
    out_ += fmt::format("<path d=\"M{:.1f} {:.1f}v5\" stroke=\"{}\"/>\n", x(t.at), bottom, kGrey);
    text(x(t.at), bottom + 20, "middle", kGrey, t.label);
  }
  out_ += fmt::format(
      "<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"{}\"/>\n", kLeft, bottom, right, kGrey);
  text((kLeft + right) / 2, height_ - 14, "middle", kInk, x_name);
  text(0,
       0,
       "middle",
       kInk,
       y_name,
       fmt::format(" transform=\"translate(20 {:.1f}) rotate(-90)\"", (kTop + bottom) / 2));
}

void Plot::line(const std::vector<PlotPoint>& points,
                const char* colour,
                double thickness,
                std::string_view more) {
  if (points.empty()) return;
  std::string d;
  for (const PlotPoint& p : points)
    d += fmt::format("{}{:.1f} {:.1f}", d.empty() ? "M" : "L", x(p.x), y(p.y));
  out_ += fmt::format(
      "<path clip-path=\"url(#plot)\" d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" "
      "stroke-linejoin=\"round\"{}/>\n",
      d,
      colour,
      thickness,
      more);
}

void Plot::dots(const std::vector<PlotPoint>& points, const char* colour) {
  for (const PlotPoint& p : points) {
    if (p.y > high_.y) continue;
    out_ += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\" stroke=\"#ffffff\" "
        "stroke-width=\"1.5\"/>\n",
        x(p.x),
        y(p.y),
        colour);
  }
}

void Plot::sample(
    double px, double py, const char* colour, double thickness, std::string_view more) {
  out_ += fmt::format("<path d=\"M{:.1f} {:.1f}h18\" stroke=\"{}\" stroke-width=\"{}\"{}/>\n",
                      px,
                      py,
                      colour,
                      thickness,
                      more);
}

void Plot::sample_dot(double px, double py, const char* colour) {
  out_ +=
      fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n", px, py, colour);
}

void Plot::legend(const char* colour, double thickness, bool dot, std::string_view name) {
  const double glyph = 7.2;  // an average glyph of 13 px
  legend_ -= glyph * static_cast<double>(name.size());
  text(legend_, kTop - 16, "start", kInk, name);
  if (dot)
    sample_dot(legend_ - 14, kTop - 20.5, colour);
  else
    sample(legend_ - 24, kTop - 20.5, colour, thickness);
  legend_ -= 44;
}

std::string Plot::finish() { return std::move(out_ += "</svg>\n"); }

std::vector<double> axis_ticks(double low, double high, int count) {
  if (!(high > low) || count < 1) return {low};
  const double rough = (high - low) / count;
  const double power = math::pow(10, std::floor(math::log(rough) / math::log(10)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * 0.75) {
      step = factor * power;
      break;
    }
  std::vector<double> ticks;
  // + 0.0: a product with -0 (the ceiling of a number just below zero) would be printed as -0.
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
    ticks.push_back(i * step + 0.0);
  return ticks;
}

}  // namespace ferry
