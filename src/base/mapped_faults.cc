#include "base/mapped_faults.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

namespace ferry {
namespace {

struct Mapping {
  Mapping(const std::byte* d, size_t b, std::string p) : data(d), bytes(b), path(std::move(p)) {}
  const std::byte* data;
  size_t bytes;
  std::string path;
};

constexpr size_t kMappings = 4096;

// The handler, which may take no lock, reads what `seen` points at; both are written under one. What is forgotten stays
// until its place is taken.
std::array<std::atomic<const Mapping*>, kMappings> seen;
std::array<std::unique_ptr<const Mapping>, kMappings> owned;
std::mutex writers;

void say(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

/// The end stays what it is, a signal: whoever supervises knows what to do about one.
void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  std::signal(signal, SIG_DFL);
  if (info->si_code <= 0) {  // it was sent
    ::raise(signal);
    return;
  }
  const auto* const at = static_cast<const std::byte*>(info->si_addr);
  for (const auto& slot : seen) {
    const Mapping* const m = slot.load(std::memory_order_acquire);
    if (m == nullptr || at < m->data || at >= m->data + m->bytes) continue;
    say("ferry: ");
    say(m->path);
    say(": cannot be read: it was cut short while it was in use, or its disk fails (see dmesg)\n");
    return;  // and again, from where it came
  }
}

}  // namespace

void tell_of_mapped_faults() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

void note_mapping(const void* data, size_t bytes, const std::string& path) {
  const std::lock_guard lock(writers);
  const auto free = std::find(seen.begin(), seen.end(), nullptr);
  if (free == seen.end()) return;
  auto& owner = owned[static_cast<size_t>(free - seen.begin())];
  owner = std::make_unique<const Mapping>(static_cast<const std::byte*>(data), bytes, path);
  free->store(owner.get(), std::memory_order_release);
}

void forget_mapping(const void* data) {
  const std::lock_guard lock(writers);
  for (auto& slot : seen)
    if (const Mapping* const m = slot.load(std::memory_order_relaxed);
        m != nullptr && m->data == data)
      return slot.store(nullptr, std::memory_order_release);
}

}  // namespace ferry
