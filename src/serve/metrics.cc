#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace ferry::serve {
namespace {

// vLLM's, so that a board's quantiles mean the same.
constexpr double kFirstTokenBounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                        0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                        20,    40,    80,   160,  640,  2560};
constexpr double kBetweenBounds[] = {
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
constexpr double kRequestBounds[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                     30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
constexpr double kTokenBounds[] = {1,
                                   2,
                                   5,
                                   10,
                                   20,
                                   50,
                                   100,
                                   200,
                                   500,
                                   1000,
                                   2000,
                                   5000,
                                   10000,
                                   20000,
                                   50000,
                                   100000,
                                   200000,
                                   500000,
                                   1000000};

/// A label's value: quotes, backslashes and line ends escaped.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + "\"";
}

}  // namespace

void Histogram::observe(double value) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  ++counts_[static_cast<size_t>(at - bounds_.begin())];
  sum_ += value;
}

void Histogram::print(const std::string& name, const std::string& labels, std::string& out) const {
  uint64_t count = 0;
  const auto to = std::back_inserter(out);
  for (size_t i = 0; i < counts_.size(); ++i) {
    count += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    fmt::format_to(to, "{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, count);
  }
  fmt::format_to(
      to, "{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, sum_, name, labels, count);
}

Metrics::Metrics()
    : first_token_s_(kFirstTokenBounds),
      between_s_(kBetweenBounds),
      whole_s_(kRequestBounds),
      queue_s_(kRequestBounds),
      prefill_s_(kRequestBounds),
      decode_s_(kRequestBounds),
      prompt_(kTokenBounds),
      answer_(kTokenBounds),
      answer_max_(kTokenBounds) {}

/// Tokens of one pass come together: each is taken to have needed its share.
void Metrics::next_tokens(double after_s, int64_t tokens) {
  for (int64_t i = 0; i < tokens; ++i) between_s_.observe(after_s / static_cast<double>(tokens));
}

void Metrics::finished(const Finished& f) {
  ++finished_[f.reason];
  prompt_tokens_ += static_cast<uint64_t>(f.prompt);
  tokens_ += static_cast<uint64_t>(f.tokens);
  prompt_.observe(static_cast<double>(f.prompt));
  answer_.observe(static_cast<double>(f.tokens));
  answer_max_.observe(static_cast<double>(f.tokens_max));
  whole_s_.observe(f.whole_s);
  if (f.tokens == 0) return;
  prefill_s_.observe(f.prefill_s);
  decode_s_.observe(f.decode_s);
}

std::string Metrics::text(const std::string& model,
                          const EngineState& e,
                          int64_t reading,
                          int64_t connections) const {
  std::string out;
  const auto to = std::back_inserter(out);
  const std::string labels = "model_name=" + quoted(model);
  const auto head = [&](const std::string& name, const char* type, const char* what) {
    fmt::format_to(to, "# HELP {} {}\n# TYPE {} {}\n", name, what, name, type);
  };
  const auto one = [&](const std::string& name, const char* type, const char* what, double value) {
    head(name, type, what);
    fmt::format_to(to, "{}{{{}}} {}\n", name, labels, value);
  };
  const auto spread = [&](const std::string& name, const char* what, const Histogram& h) {
    head(name, "histogram", what);
    h.print(name, labels, out);
  };
  const auto count = [](int64_t n) { return static_cast<double>(n); };
  for (const std::string prefix : {"vllm:", "ferry:"}) {
    one(prefix + "num_requests_running", "gauge", "Requests being answered.", count(e.running));
    one(prefix + "num_requests_waiting",
        "gauge",
        "Requests that wait, to be read or to be answered.",
        count(e.waiting + reading));
    one(prefix + "kv_cache_usage_perc",
        "gauge",
        "Of the cache's pages, the share in use; 1: all.",
        e.cache_usage);
    one(prefix + "num_preemptions_total",
        "counter",
        "Requests that gave up their pages for a while.",
        count(e.counts.preemptions));
    one(prefix + "prefix_cache_queries_total",
        "counter",
        "Prompt tokens looked for in the cache.",
        count(e.counts.tokens_asked));
    one(prefix + "prefix_cache_hits_total",
        "counter",
        "Prompt tokens found in the cache.",
        count(e.counts.tokens_reused));
    one(prefix + "prompt_tokens_total",
        "counter",
        "Prompt tokens of finished requests.",
        static_cast<double>(prompt_tokens_));
    one(prefix + "generation_tokens_total",
        "counter",
        "Tokens answered.",
        count(e.counts.tokens_answered));
    one(prefix + "spec_decode_num_draft_tokens_total",
        "counter",
        "Tokens guessed ahead.",
        count(e.counts.drafted));
    one(prefix + "spec_decode_num_accepted_tokens_total",
        "counter",
        "Guesses that were right.",
        count(e.counts.accepted));
    head(prefix + "request_success_total", "counter", "Finished requests, by what ended them.");
    for (const char* reason : {"stop", "length", "tool_calls", "abort", "error"}) {
      const auto it = finished_.find(reason);
      fmt::format_to(to,
                     "{}request_success_total{{{},finished_reason=\"{}\"}} {}\n",
                     prefix,
                     labels,
                     reason,
                     it == finished_.end() ? 0 : it->second);
    }
    spread(prefix + "time_to_first_token_seconds",
           "From a request to its first token.",
           first_token_s_);
    spread(prefix + "inter_token_latency_seconds", "From one token to the next.", between_s_);
    spread(prefix + "e2e_request_latency_seconds", "From a request to its last token.", whole_s_);
    spread(prefix + "request_queue_time_seconds", "From a request to its first pass.", queue_s_);
    spread(prefix + "request_prefill_time_seconds",
           "From the first pass to the first token.",
           prefill_s_);
    spread(prefix + "request_decode_time_seconds", "From the first token to the last.", decode_s_);
    spread(prefix + "request_prompt_tokens", "Tokens of a prompt.", prompt_);
    spread(prefix + "request_generation_tokens", "Tokens of an answer.", answer_);
    spread(prefix + "request_max_num_generation_tokens",
           "Tokens that an answer could have had.",
           answer_max_);
  }
  one("ferry:passes_total", "counter", "Passes of the model.", count(e.counts.passes));
  one("ferry:connections", "gauge", "Connections that are open.", count(connections));
  head("ferry:http_responses_total", "counter", "Responses, by their status.");
  for (const auto& [status, n] : responses_)
    fmt::format_to(to, "ferry:http_responses_total{{{},status=\"{}\"}} {}\n", labels, status, n);
  return out;
}

}  // namespace ferry::serve
