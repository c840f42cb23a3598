// What the server counts, in Prometheus' text format: under vLLM's names, so that boards made for it
// work, and the same under "ferry:".
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "serve/engine_loop.h"

namespace ferry::serve {

/// Counts of values up to each bound, as Prometheus' histograms have it.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds), counts_(bounds.size() + 1, 0) {}

  void observe(double value);
  /// "NAME_bucket{..} ..." lines; `labels` without braces.
  void print(const std::string& name, const std::string& labels, std::string& out) const;

 private:
  std::span<const double> bounds_;
  std::vector<uint64_t> counts_;
  double sum_ = 0;
};

/// One thread.
class Metrics {
 public:
  Metrics();

  void response(int status) { ++responses_[status]; }
  void began(double queue_s) { queue_s_.observe(queue_s); }
  void first_token(double after_s) { first_token_s_.observe(after_s); }
  void next_tokens(double after_s, int64_t tokens);

  struct Finished {
    const char* reason;  // "stop", "length", "tool_calls", "abort", "error"
    int64_t prompt, tokens, tokens_max;
    double whole_s, prefill_s, decode_s;
  };
  void finished(const Finished& f);

  std::string text(const std::string& model,
                   const EngineState& engine,
                   int64_t reading,
                   int64_t connections) const;

 private:
  std::map<int, uint64_t> responses_;
  std::map<std::string, uint64_t> finished_;
  uint64_t prompt_tokens_ = 0, tokens_ = 0;
  Histogram first_token_s_, between_s_, whole_s_, queue_s_, prefill_s_, decode_s_;
  Histogram prompt_, answer_, answer_max_;
};

}  // namespace ferry::serve
