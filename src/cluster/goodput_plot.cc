#include "cluster/goodput_plot.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/math.h"
#include "base/plot.h"

namespace ferry::cluster {
namespace {

constexpr int kWidth = 960, kHeight = 560;
constexpr int kPoints = 120;
constexpr const char* kTheirs = "#d9480f";
constexpr const char* kDashes = " stroke-dasharray=\"6 4\"";

const char* colour_of(size_t line) {
  static const std::vector<const char*> colours = {
      "#1f5fa8", "#2f9e44", "#9c36b5", "#c2255c", "#0b7285", "#5f3dc4"};
  return colours[line % colours.size()];
}

double decades(double x) { return math::log(x) / math::log(10); }

/// Over the logarithm of the chips.
struct Lines {
  std::vector<std::vector<PlotPoint>> usual;  // of each rate
  std::vector<PlotPoint> worst;               // of the first one
  double lowest = 100;                        // per cent
};

Lines lines_of(const Measured& measured, const Published& published, double low, double high) {
  Lines lines;
  lines.usual.resize(published.rates.size());
  for (int i = 0; i <= kPoints; ++i) {
    const double at = low + (high - low) * i / kPoints;
    const AtScale scale = project(measured, published, math::pow(10, at));
    for (size_t r = 0; r < scale.rates.size(); ++r) {
      lines.usual[r].push_back({at, 100 * scale.rates[r].usual.share});
      lines.lowest = std::min(lines.lowest, lines.usual[r].back().y);
    }
    lines.worst.push_back({at, 100 * scale.rates[0].worst.share});
    lines.lowest = std::min(lines.lowest, lines.worst.back().y);
  }
  for (const PublishedGoodput& g : published.goodputs)
    if (g.chips) lines.lowest = std::min(lines.lowest, 100 * g.share);
  return lines;
}

/// Powers of ten, and the ends.
std::vector<PlotTick> scale_ticks(double low, double high) {
  std::vector<PlotTick> ticks;
  for (double power = std::ceil(low - 1e-9); power <= high + 1e-9; ++power)
    ticks.push_back({power, with_commas(math::pow(10, power))});
  if (ticks.empty() || ticks.front().at > low + 0.15)
    ticks.insert(ticks.begin(), {low, with_commas(math::pow(10, low))});
  return ticks;
}

std::vector<PlotTick> share_ticks(double floor) {
  std::vector<PlotTick> ticks;
  for (const double at : axis_ticks(floor, 100, 8))
    ticks.push_back({at, fmt::format("{:.4g} %", at)});
  return ticks;
}

void add_theirs(Plot& plot, const Published& published, double low, double high) {
  for (const PublishedGoodput& g : published.goodputs) {
    if (!g.chips || decades(*g.chips) < low || decades(*g.chips) > high) continue;
    const PlotPoint at{decades(*g.chips), 100 * g.share};
    plot.dots({at}, kTheirs);
    // Beside it on the left: lines fall to the right.
    plot.text(plot.x(at.x) - 9,
              plot.y(at.y) + 4.5,
              "end",
              kTheirs,
              fmt::format("{}: {:.4g} %, {}", g.name, 100 * g.share, g.note));
  }
}

void add_names(Plot& plot, const Published& published) {
  double y = kHeight - Plot::kBottom - 16 - 18 * static_cast<double>(published.rates.size() + 1);
  const double x = Plot::kLeft + 14;
  const auto name = [&](const std::string& words) {
    plot.text(x + 28, y + 4.5, "start", plot::kInk, words);
    y += 18;
  };
  for (size_t r = 0; r < published.rates.size(); ++r) {
    plot.sample(x, y, colour_of(r), 2.2);
    name(fmt::format("failures as of {}", published.rates[r].name));
  }
  plot.sample(x, y, colour_of(0), 1.4, kDashes);
  name(fmt::format("{}, each a lost host, as slow as the slowest", published.rates[0].name));
  plot.sample_dot(x + 9, y, kTheirs);
  name("published by others, of their own systems");
}

}  // namespace

std::string with_commas(double whole) {
  const std::string plain = fmt::format("{:.0f}", whole);
  std::string digits;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (i > 0 && (plain.size() - i) % 3 == 0) digits += ',';
    digits += plain[i];
  }
  return digits;
}

std::string goodput_svg(const Measured& measured,
                        const Published& published,
                        double low,
                        double high) {
  check(low > 0 && low < high, "goodput plot: from {} to {} chips", low, high);
  const double from = decades(low), to = decades(high);
  const Lines lines = lines_of(measured, published, from, to);
  const double floor = std::max(0.0, 5 * std::floor((lines.lowest - 1) / 5));
  Plot plot(kWidth, kHeight, {from, floor}, {to, 100.5});
  plot.title("Share of the time in which steps are made");
  plot.subtitle(fmt::format(
      "a projection, from recoveries measured on {} ranks; apart from the steady overhead",
      measured.ranks));
  plot.axes(scale_ticks(from, to), share_ticks(floor), "chips", "goodput");
  for (size_t r = lines.usual.size(); r-- > 0;) plot.line(lines.usual[r], colour_of(r), 2.2);
  plot.line(lines.worst, colour_of(0), 1.4, kDashes);
  add_theirs(plot, published, from, to);
  add_names(plot, published);
  return plot.finish();
}

}  // namespace ferry::cluster
