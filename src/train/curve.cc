#include "train/curve.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "base/plot.h"
#include "base/units.h"

namespace ferry {
namespace {

constexpr const char* kThin = "#9db8d9";
constexpr const char* kThick = "#1f5fa8";
constexpr const char* kHeldOut = "#d9480f";

using Point = PlotPoint;

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

std::vector<PlotTick> labelled(const std::vector<double>& ticks, std::string (*label)(double)) {
  std::vector<PlotTick> out;
  for (const double at : ticks) out.push_back({at, label(at)});
  return out;
}

}  // namespace

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

  Plot drawing(options.width, options.height, low, high);
  drawing.title(options.title);
  drawing.subtitle(options.subtitle);
  drawing.axes(
      labelled(axis_ticks(low.x, high.x, 8),
               [](double v) { return v < 1e5 ? fmt::format("{:.0f}", v) : format_count(v); }),
      labelled(axis_ticks(low.y, high.y, 6), [](double v) { return fmt::format("{:.4g}", v); }),
      "step",
      options.axis);
  const auto pixels = static_cast<size_t>(std::max(100, options.width));
  drawing.line(thinned(train, pixels), kThin, 1);
  drawing.line(thinned(smoothed(train), pixels), kThick, 2.2);
  drawing.dots(held_out, kHeldOut);
  if (!held_out.empty())
    drawing.legend(kHeldOut, 0, true, fmt::format("held out ({:.3f})", held_out.back().y));
  if (!train.empty()) {
    drawing.legend(kThick, 2.2, false, "smoothed");
    drawing.legend(kThin, 1, false, "each step");
  }
  return drawing.finish();
}

}  // namespace ferry
