#include "train/progress.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/shell.h"
#include "base/units.h"

namespace ferry {
namespace {

constexpr const char* kDim = "2";
constexpr const char* kBold = "1";
constexpr const char* kGreen = "32";
constexpr const char* kRed = "31";

/// " (+2.1σ)"; red from four deviations on, dim otherwise.
std::string sigma(const std::optional<double>& z, bool colour) {
  if (!z) return "";
  return painted(fmt::format(" ({:+.1f}σ)", *z), std::abs(*z) >= 4 ? kRed : kDim, colour);
}

/// A part of a line, with the blanks in front of it. Parts of a higher rank give way first.
struct Part {
  int rank;
  std::string text;
};

std::string fitted(const std::vector<Part>& parts, int columns) {
  int kept = -1, width = 0;
  for (int rank = 0;; ++rank) {
    const auto of_rank = [&](const Part& p) { return p.rank == rank; };
    const auto p = std::find_if(parts.begin(), parts.end(), of_rank);
    if (p == parts.end()) break;
    width += display_width(p->text);
    if (columns > 0 && width > columns) break;
    kept = rank;
  }
  std::string line;
  for (const Part& p : parts)
    if (p.rank <= std::max(kept, 0)) line += p.text;
  return line;
}

std::string beside_the_loss(const StepRecord& r) {
  if (r.reward) return fmt::format("  {:.1f} tokens an answer", r.answer_tokens.value_or(0));
  if (r.rewards_accuracies)
    return fmt::format("  {:.0f}% right, margin {:.3f}",
                       100 * *r.rewards_accuracies,
                       r.rewards_margins.value_or(0));
  return fmt::format("  {:.3f} bits/byte", r.bits_per_byte);
}

/// How many groups of answers teach something, and what went wrong with answers, of a step of reinforcement learning.
std::string of_groups(const StepRecord& r) {
  return r.useful_groups ? fmt::format("  {:.0f}% of groups tell", 100 * *r.useful_groups) : "";
}
std::string of_failures(const StepRecord& r) {
  std::string text;
  if (r.updates == 0.0 && !r.skipped) text += "  nothing to learn: no update";
  if (r.empty_answers.value_or(0) > 0)
    text += fmt::format("  {:.0f}% empty", 100 * *r.empty_answers);
  if (r.program_failed.value_or(0) > 0)
    text += fmt::format("  {:.0f} programs failed", *r.program_failed);
  return text;
}

/// "260 of 2000 ", where not all that are held out were looked at.
std::string how_many_pairs(const HeldOutRecord& r) {
  if (!r.pairs) return "";
  const double all = r.pairs_held_out.value_or(*r.pairs);
  return *r.pairs < all ? fmt::format("{:.0f} of {:.0f} ", *r.pairs, all)
                        : fmt::format("{:.0f} ", *r.pairs);
}

}  // namespace

std::string progress_line(const StepRecord& r, double seconds_per_step, const ProgressSettings& s) {
  const int width = static_cast<int>(std::to_string(s.steps).size());
  const int64_t percent = s.steps > 0 ? 100 * r.step / s.steps : 100;
  const bool eta = seconds_per_step > 0 && r.step < s.steps;
  const double left_s = seconds_per_step * static_cast<double>(s.steps - r.step);
  std::string line =
      fitted({{0, painted(fmt::format("{:>{}}/{}", r.step, width, s.steps), kBold, s.colour)},
              {4, fmt::format(" {:>3}%", percent)},
              {1,
               r.reward ? fmt::format("  reward {:.3f}", *r.reward)
                        : fmt::format("  loss {:.4f}", r.loss)},
              {7, sigma(r.loss_z, s.colour)},
              {5, beside_the_loss(r)},
              {11, of_failures(r)},
              {12, of_groups(r)},
              {6, fmt::format("  |g| {:.3f}", r.gradient_norm)},
              {8, sigma(r.gradient_norm_z, s.colour)},
              {9, fmt::format("  lr {:.2e}", r.lr)},
              {3, fmt::format("  {} tok/s", format_count(r.tokens_per_s))},
              {10, r.mfu ? fmt::format("  MFU {:.0f}%", 100 * *r.mfu) : ""},
              {2, eta ? fmt::format("  ETA {}", format_duration(left_s)) : ""}},
             s.columns);
  if (r.skipped) line += painted(fmt::format("  update refused: {}", *r.skipped), kRed, s.colour);
  return line;
}

const HeldOutRecord* best_before(int64_t step, const Metrics& metrics) {
  const HeldOutRecord* best = nullptr;
  for (const HeldOutRecord& r : metrics.held_out)
    if (r.step < step && std::isfinite(r.loss) && (best == nullptr || r.loss < best->loss))
      best = &r;
  return best;
}

std::string held_out_line(const HeldOutRecord& r,
                          const HeldOutRecord* best,
                          const ProgressSettings& s) {
  if (r.score)
    return painted(fmt::format("held-out after step {}: {:.1f} % solved ({:.1f} to {:.1f}), {:.1f} "
                               "tokens an answer",
                               r.step,
                               100 * *r.score,
                               100 * r.score_low.value_or(0),
                               100 * r.score_high.value_or(1),
                               r.answer_tokens.value_or(0)),
                   kGreen,
                   s.colour);
  if (r.rewards_accuracies)
    return painted(
        fmt::format("held-out after step {}: loss {:.4f}, {:.1f} % of {}pairs right, margin {:.4f}",
                    r.step,
                    r.loss,
                    100 * *r.rewards_accuracies,
                    how_many_pairs(r),
                    r.rewards_margins.value_or(0)),
        kGreen,
        s.colour);
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

std::function<void()> tells_that_reader_left(const std::string& folder) {
  const std::string line = fmt::format(
      "ferry: nobody reads the run's output any more (a closed pipe); the run goes on: ferry "
      "status {} says "
      "where it is, {} has every step\n",
      shell_quoted(folder),
      shell_quoted(join_path(folder, "metrics.jsonl")));
  return [line] { std::fputs(line.c_str(), stderr); };
}

Progress::Progress(const ProgressSettings& settings,
                   PatientOutput& out,
                   Terminal terminal,
                   const std::string& colour)
    : settings_(settings), line_(out, terminal) {
  settings_.colour = colour == "always" || (colour == "auto" && terminal.colours());
}

void Progress::step(const StepRecord& r) {
  constexpr size_t kRemembered = 31;
  if (seconds_.size() == kRemembered) seconds_.erase(seconds_.begin());
  seconds_.push_back(r.seconds);
  std::vector<double> sorted(seconds_);
  std::nth_element(sorted.begin(),
                   sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2),
                   sorted.end());
  const bool live = line_.terminal().rewrites() && !r.skipped;
  settings_.columns = live ? line_.room() : 0;
  const std::string line = progress_line(r, sorted[sorted.size() / 2], settings_);
  if (live)
    line_.show(line);
  else if (line_.terminal().rewrites() || first_ || r.skipped || r.step % settings_.every == 0 ||
           r.step == settings_.steps)
    note(line);
  first_ = false;
}

void Progress::held_out(const HeldOutRecord& r, const Metrics* so_far) {
  note(held_out_line(r, so_far != nullptr ? best_before(r.step, *so_far) : nullptr, settings_));
}

void Progress::note(const std::string& text) { line_.above(text); }

}  // namespace ferry
