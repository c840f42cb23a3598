#include "train/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "base/units.h"

namespace ferry {
namespace {

constexpr const char* kDim = "\x1b[2m";
constexpr const char* kBold = "\x1b[1m";
constexpr const char* kGreen = "\x1b[32m";
constexpr const char* kRed = "\x1b[31m";

std::string painted(const std::string& text, const char* colour, bool on) {
  return on ? fmt::format("{}{}\x1b[0m", colour, text) : text;
}

/// " (+2.1σ)"; red from four deviations on, dim otherwise.
std::string sigma(const std::optional<double>& z, bool colour) {
  if (!z) return "";
  return painted(fmt::format(" ({:+.1f}σ)", *z), std::abs(*z) >= 4 ? kRed : kDim, colour);
}

}  // namespace

std::string progress_line(const StepRecord& r, double seconds_per_step, const ProgressSettings& s) {
  const int width = static_cast<int>(std::to_string(s.steps).size());
  const int64_t percent = s.steps > 0 ? 100 * r.step / s.steps : 100;
  std::string line = painted(fmt::format("{:>{}}/{}", r.step, width, s.steps), kBold, s.colour);
  line += fmt::format(" {:>3}%  loss {:.4f}{}  {:.3f} bits/byte  |g| {:.3f}{}  lr {:.2e}  {} tok/s",
                      percent,
                      r.loss,
                      sigma(r.loss_z, s.colour),
                      r.bits_per_byte,
                      r.gradient_norm,
                      sigma(r.gradient_norm_z, s.colour),
                      r.lr,
                      format_count(r.tokens_per_s));
  if (r.mfu) line += fmt::format("  MFU {:.0f}%", 100 * *r.mfu);
  if (seconds_per_step > 0 && r.step < s.steps)
    line += fmt::format("  ETA {}",
                        format_duration(seconds_per_step * static_cast<double>(s.steps - r.step)));
  if (r.skipped) line += painted(fmt::format("  update refused: {}", *r.skipped), kRed, s.colour);
  return line;
}

std::string held_out_line(const HeldOutRecord& r,
                          const HeldOutRecord* best,
                          const ProgressSettings& s) {
  std::string line =
      painted(fmt::format("held-out after step {}: loss {:.4f}, {:.4f} bits per byte",
                          r.step,
                          r.loss,
                          r.bits_per_byte),
              kGreen,
              s.colour);
  if (best != nullptr)
    line +=
        best->loss > r.loss
            ? fmt::format(
                  " (best so far; before {:.4f} after step {})", best->bits_per_byte, best->step)
            : fmt::format(" (best {:.4f} after step {})", best->bits_per_byte, best->step);
  return line;
}

void Progress::step(const StepRecord& r) {
  constexpr size_t kRemembered = 31;
  if (seconds_.size() == kRemembered) seconds_.erase(seconds_.begin());
  seconds_.push_back(r.seconds);
  std::vector<double> sorted(seconds_);
  std::nth_element(sorted.begin(),
                   sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2),
                   sorted.end());
  const std::string line = progress_line(r, sorted[sorted.size() / 2], settings_);
  if (settings_.terminal && !r.skipped) {
    live_ = line;
    put(fmt::format("\r{}\x1b[K", live_));
  } else if (settings_.terminal) {
    note(line);
  } else if (first_ || r.skipped || r.step % settings_.every == 0 || r.step == settings_.steps) {
    put(line + "\n");
  }
  first_ = false;
}

void Progress::held_out(const HeldOutRecord& r) {
  note(held_out_line(r, best_ ? &*best_ : nullptr, settings_));
  if (!best_ || r.loss < best_->loss) best_ = r;
}

void Progress::note(const std::string& text) {
  put(settings_.terminal ? fmt::format("\r\x1b[K{}\n{}", text, live_) : text + "\n");
}

void Progress::finish() {
  if (!live_.empty()) put("\n");
  live_.clear();
}

void Progress::put(const std::string& text) {
  std::fputs(text.c_str(), out_);
  std::fflush(out_);
}

bool Progress::is_terminal(std::FILE* out) { return ::isatty(::fileno(out)) == 1; }

bool Progress::wants_colour(std::FILE* out, const std::string& colour) {
  return colour == "always" || (colour == "auto" && is_terminal(out));
}

}  // namespace ferry
