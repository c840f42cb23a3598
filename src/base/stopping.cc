#include "base/stopping.h"

#include <fmt/core.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "base/signals.h"

namespace ferry {
namespace {

constexpr int64_t kEchoNs = 500'000'000;

// Written by a handler.
std::atomic<int> g_signal{0};
std::atomic<int64_t> g_came_ns{0};
std::atomic<bool> g_stops_files{false}, g_ends{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free);

/// Where a handler may ask for it.
int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void end_by(int signal) {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(signal, &action, nullptr);
  ::raise(signal);
}

void on_stop_signal(int signal) {
  int none = 0;
  const int64_t now = now_ns();
  if (g_signal.compare_exchange_strong(none, signal)) {
    g_came_ns = now;
    return;
  }
  if (now - g_came_ns < kEchoNs) return;
  end_by(signal);  // when this handler has returned
}

}  // namespace

std::vector<int> stop_signals_of_parents() {
  std::vector<int> unheard;
  for (const int s : kStopSignals)
    if (s != SIGTERM && s != SIGXCPU) unheard.push_back(s);
  return unheard;
}

void answer_stop_signals() {
  for (const int s : stop_signals_to_heed()) {
    struct sigaction action {};
    action.sa_handler = on_stop_signal;
    action.sa_flags = SA_RESTART;
    // One after the other: the second is to find when the first came.
    for (const int other : kStopSignals) ::sigaddset(&action.sa_mask, other);
    ::sigaction(s, &action, nullptr);
  }
}

int stop_signal() { return g_signal; }

void stop_by_signals() {
  g_ends = true;
  answer_stop_signals();
}

void stop_files_by_signals() {
  g_stops_files = g_ends = true;
  answer_stop_signals();
}

void answer_stop_signals_no_more() {
  for (const int s : kStopSignals) {
    struct sigaction action {};
    ::sigaction(s, nullptr, &action);
    if (action.sa_handler != on_stop_signal) continue;  // the caller ignores it
    action = {};
    action.sa_handler = SIG_DFL;
    ::sigaction(s, &action, nullptr);
  }
}

Result<void> files_not_stopped() {
  const int signal = g_stops_files ? g_signal.load() : 0;
  if (signal == 0) return {};
  return fail(Code::kUnavailable,
              "stopped by {}: nothing half-written is left; the same command begins anew",
              signal_name(signal));
}

void end_as_by_stop_signal() {
  if (g_ends && g_signal != 0) end_by(g_signal);
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}

}  // namespace ferry
