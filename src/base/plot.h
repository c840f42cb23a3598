// A plot as SVG text that needs nothing else: axes, lines, dots, words. What is in it, and where, is its user's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ferry {

struct PlotPoint {
  double x = 0, y = 0;
};

/// A mark of an axis.
struct PlotTick {
  double at = 0;
  std::string label;
};

namespace plot {
inline constexpr const char* kInk = "#1f2933";
inline constexpr const char* kGrey = "#7b8794";
inline constexpr const char* kGrid = "#e4e7eb";
}  // namespace plot

/// Pure: the same calls give the same bytes.
class Plot {
 public:
  static constexpr double kLeft = 72, kRight = 28, kTop = 76,
                          kBottom = 56;  // margins around the plot

  /// Values from `low` to `high` fill the plot.
  Plot(int width, int height, PlotPoint low, PlotPoint high);

  double x(double value) const;
  double y(double value) const;

  /// In pixels. `more`: further attributes, with a blank before each.
  void text(double px,
            double py,
            const char* anchor,
            const char* fill,
            std::string_view words,
            std::string_view more = "");
  void title(std::string_view words);
  void subtitle(std::string_view words);
  void axes(const std::vector<PlotTick>& x_ticks,
            const std::vector<PlotTick>& y_ticks,
            std::string_view x_name,
            std::string_view y_name);
  /// Cut off at the plot's edges. `more`: as of text().
  void line(const std::vector<PlotPoint>& points,
            const char* colour,
            double thickness,
            std::string_view more = "");
  /// Those above the plot are left out.
  void dots(const std::vector<PlotPoint>& points, const char* colour);
  /// In pixels: a piece of a line, or a dot, as beside a name.
  void sample(
      double px, double py, const char* colour, double thickness, std::string_view more = "");
  void sample_dot(double px, double py, const char* colour);
  /// Right-aligned above the plot; called once for each entry, from the right.
  void legend(const char* colour, double thickness, bool dot, std::string_view name);

  /// Once.
  std::string finish();

 private:
  PlotPoint low_, high_;
  double width_, height_, legend_;
  std::string out_;
};

/// Marks for an axis from `low` to `high`: multiples of 1, 2 or 5 times a power of ten, about
/// `count`.
std::vector<double> axis_ticks(double low, double high, int count);

}  // namespace ferry
