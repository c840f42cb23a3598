#include "train/curve.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "base/markup.h"
#include "base/math.h"
#include "base/units.h"

namespace ferry {
namespace {

constexpr double kLeft = 72, kRight = 28, kTop = 76, kBottom = 56;  // margins around the plot
constexpr const char* kInk = "#1f2933";
constexpr const char* kGrey = "#7b8794";
constexpr const char* kGrid = "#e4e7eb";
constexpr const char* kThin = "#9db8d9";
constexpr const char* kThick = "#1f5fa8";
constexpr const char* kHeldOut = "#d9480f";

struct Point {
  double x, y;
};

/// Means over a window around each point, twice (a triangle, nearly). The window is narrow at the
/// start, where the loss falls fast and a wide one would lie above it, and reaches a fiftieth of
/// the run to each side.
std::vector<Point> smoothed(std::vector<Point> points) {
  const size_t n = points.size();
  for (int pass = 0; pass < 2; ++pass) {
    std::vector<double> before(n + 1);  // before[i]: the sum of the first i
    for (size_t i = 0; i < n; ++i) before[i + 1] = before[i] + points[i].y;
    for (size_t i = 0; i < n; ++i) {
      const size_t reach = std::min(i / 8, n / 50), end = std::min(n, i + reach + 1);
      points[i].y = (before[end] - before[i - reach]) / static_cast<double>(end - (i - reach));
    }
  }
  return points;
}

/// The lowest and the highest of each of `buckets` columns, in order: what a line of more points
/// than pixels looks like.
std::vector<Point> thinned(const std::vector<Point>& points, size_t buckets) {
  if (points.size() <= 2 * buckets) return points;
  std::vector<Point> out;
  for (size_t b = 0; b < buckets; ++b) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(b * points.size() / buckets);
    const auto end =
        points.begin() + static_cast<std::ptrdiff_t>((b + 1) * points.size() / buckets);
    const auto [low, high] =
        std::minmax_element(begin, end, [](Point p, Point q) { return p.y < q.y; });
    out.push_back(*std::min(low, high));
    if (low != high) out.push_back(*std::max(low, high));
  }
  return out;
}

/// The value below which `part` of them lie.
double quantile(std::vector<double> v, double part) {
  const auto at = static_cast<std::ptrdiff_t>(part * static_cast<double>(v.size() - 1));
  std::nth_element(v.begin(), v.begin() + at, v.end());
  return v[static_cast<size_t>(at)];
}

class Drawing {
 public:
  Drawing(const CurveOptions& o, Point low, Point high)
      : low_(low), high_(high), axis_(o.axis), width_(o.width), height_(o.height) {
    out_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
        "{1}\" "
        "font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\">\n<rect "
        "width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n"
        "<clipPath id=\"plot\"><rect x=\"{2}\" y=\"{3}\" width=\"{4}\" "
        "height=\"{5}\"/></clipPath>\n",
        o.width,
        o.height,
        kLeft,
        kTop,
        o.width - kLeft - kRight,
        o.height - kTop - kBottom);
  }

  double x(double v) const {
    return kLeft + (v - low_.x) / (high_.x - low_.x) * (width_ - kLeft - kRight);
  }
  double y(double v) const {
    return height_ - kBottom - (v - low_.y) / (high_.y - low_.y) * (height_ - kTop - kBottom);
  }

  void text(double px,
            double py,
            const char* anchor,
            const char* fill,
            std::string_view s,
            std::string_view more = "") {
    out_ +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill=\"{}\"{}>{}</text>\n",
                    px,
                    py,
                    anchor,
                    fill,
                    more,
                    escape_markup(s));
  }

  void axes() {
    const double bottom = height_ - kBottom, right = width_ - kRight;
    for (const double v : axis_ticks(low_.y, high_.y, 6)) {
      out_ += fmt::format(
          "<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"{}\"/>\n", kLeft, y(v), right, kGrid);
      text(kLeft - 8, y(v) + 4.5, "end", kGrey, fmt::format("{:.4g}", v));
    }
    for (const double v : axis_ticks(low_.x, high_.x, 8)) {
      out_ += fmt::format("<path d=\"M{:.1f} {:.1f}v5\" stroke=\"{}\"/>\n", x(v), bottom, kGrey);
      text(
          x(v), bottom + 20, "middle", kGrey, v < 1e5 ? fmt::format("{:.0f}", v) : format_count(v));
    }
    out_ += fmt::format(
        "<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"{}\"/>\n", kLeft, bottom, right, kGrey);
    text((kLeft + right) / 2, height_ - 14, "middle", kInk, "step");
    text(0,
         0,
         "middle",
         kInk,
         axis_,
         fmt::format(" transform=\"translate(20 {:.1f}) rotate(-90)\"", (kTop + bottom) / 2));
  }

  void line(const std::vector<Point>& points, const char* colour, double thickness) {
    if (points.empty()) return;
    std::string d;
    for (const Point& p : points)
      d += fmt::format("{}{:.1f} {:.1f}", d.empty() ? "M" : "L", x(p.x), y(p.y));
    out_ += fmt::format(
        "<path clip-path=\"url(#plot)\" d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" "
        "stroke-linejoin=\"round\"/>\n",
        d,
        colour,
        thickness);
  }

  void dots(const std::vector<Point>& points, const char* colour) {
    for (const Point& p : points) {
      if (p.y > high_.y) continue;
      out_ += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\" stroke=\"#ffffff\" "
          "stroke-width=\"1.5\"/>\n",
          x(p.x),
          y(p.y),
          colour);
    }
  }

  /// Right-aligned above the plot; called once for each entry, from the right.
  void legend(const char* colour, double thickness, bool dot, std::string_view name) {
    const double glyph = 7.2;  // an average glyph of 13 px
    legend_ -= glyph * static_cast<double>(name.size());
    text(legend_, kTop - 16, "start", kInk, name);
    if (dot)
      out_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n",
                          legend_ - 14,
                          kTop - 20.5,
                          colour);
    else
      out_ += fmt::format("<path d=\"M{:.1f} {:.1f}h18\" stroke=\"{}\" stroke-width=\"{}\"/>\n",
                          legend_ - 24,
                          kTop - 20.5,
                          colour,
                          thickness);
    legend_ -= 44;
  }

  void legend_begin() { legend_ = width_ - kRight; }

  std::string finish() { return std::move(out_ += "</svg>\n"); }

 private:
  Point low_, high_;
  std::string axis_;
  double width_, height_, legend_ = 0;
  std::string out_;
};

}  // namespace

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

std::string loss_curve_svg(const Metrics& metrics, const CurveOptions& options) {
  std::vector<Point> train, held_out;
  std::vector<double> losses;
  bool rewards = false;  // what rises from the start has no top to be cut
  const auto add = [&](auto& to, const auto& r, const std::optional<double>& reward) {
    rewards = rewards || reward.has_value();
    const double y = reward.value_or(r.loss);
    if (std::isfinite(y)) to.push_back({static_cast<double>(r.step), y});
  };
  for (const StepRecord& r : metrics.steps) add(train, r, r.reward);
  for (const HeldOutRecord& r : metrics.held_out) add(held_out, r, r.score);
  for (const auto& list : {train, held_out})
    for (const Point& p : list) losses.push_back(p.y);

  Point low{0, 0}, high{static_cast<double>(std::max<int64_t>(options.steps, 1)), 1};
  for (const auto& list : {train, held_out})
    if (!list.empty()) high.x = std::max(high.x, list.back().x);
  if (!losses.empty()) {
    // The first few per cent fall from ln(vocab) and would flatten everything after them, so the
    // top is cut there; the line leaves through it.
    low.y = *std::min_element(losses.begin(), losses.end());
    const double most = *std::max_element(losses.begin(), losses.end());
    high.y = rewards ? most : std::min(most, low.y + 1.6 * (quantile(losses, 0.95) - low.y));
    const double room = std::max(0.06 * (high.y - low.y), 1e-3 * std::max(std::abs(high.y), 1e-3));
    low.y -= room;
    high.y += room;
  }

  Drawing drawing(options, low, high);
  drawing.text(kLeft, 30, "start", kInk, options.title, " font-size=\"18\" font-weight=\"600\"");
  drawing.text(kLeft, kTop - 16, "start", kGrey, options.subtitle);
  drawing.axes();
  const auto pixels = static_cast<size_t>(std::max(100, options.width));
  drawing.line(thinned(train, pixels), kThin, 1);
  drawing.line(thinned(smoothed(train), pixels), kThick, 2.2);
  drawing.dots(held_out, kHeldOut);
  drawing.legend_begin();
  if (!held_out.empty())
    drawing.legend(kHeldOut, 0, true, fmt::format("held out ({:.3f})", held_out.back().y));
  if (!train.empty()) {
    drawing.legend(kThick, 2.2, false, "smoothed");
    drawing.legend(kThin, 1, false, "each step");
  }
  return drawing.finish();
}

}  // namespace ferry
