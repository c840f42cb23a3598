// The loss curve of a run as one SVG file that needs nothing else.
#pragma once

#include <string>
#include <string_view>

#include "train/metrics.h"

namespace ferry {

inline constexpr const char* kCurveName = "curve.svg";  // in a run's folder

struct CurveOptions {
  std::string title = "Training loss";
  std::string axis = "loss, nats per token";
  std::string subtitle;  // "10.2 M parameters, 12 M tokens"
  int width = 960;
  int height = 540;
  int64_t steps = 0;  // of the whole run, for the axis; 0: as far as the records go
};

/// Training loss of each step (thin), the same smoothed (thick), and held-out loss (dots), in nats
/// per token over steps; of reinforcement learning rewards, and the share of held-out tasks that is
/// solved. Pure: the same records give the same bytes. At most as many points as pixels.
std::string loss_curve_svg(const Metrics& metrics, const CurveOptions& options);

}  // namespace ferry
