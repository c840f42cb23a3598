#include "base/mapped_faults.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <mutex>
#include <string_view>

namespace ferry {
namespace {

struct Mapping {
  const std::byte* data;
  size_t bytes;
  std::string path;
};

// Read by the handler, which may take no lock; written under one. What is forgotten is freed: a handler that runs at
// that moment is about another file, or about a read beside the end of this one's life.
std::array<std::atomic<const Mapping*>, 4096> mappings;
std::mutex writers;

void say(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  const auto* const at = static_cast<const std::byte*>(info->si_addr);
  for (const auto& slot : mappings) {
    const Mapping* const m = slot.load(std::memory_order_acquire);
    if (m == nullptr || at < m->data || at >= m->data + m->bytes) continue;
    say("ferry: ");
    say(m->path);
    say(": cannot be read: it was cut short while it was in use, or its disk fails (see dmesg)\n");
    ::_exit(3);
  }
  std::signal(signal, SIG_DFL);  // and again, from where it came
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
  for (auto& slot : mappings) {
    if (slot.load(std::memory_order_relaxed) != nullptr) continue;
    slot.store(new Mapping{static_cast<const std::byte*>(data), bytes, path},
               std::memory_order_release);
    return;
  }
}

void forget_mapping(const void* data) {
  const std::lock_guard lock(writers);
  for (auto& slot : mappings) {
    const Mapping* const m = slot.load(std::memory_order_relaxed);
    if (m == nullptr || m->data != data) continue;
    slot.store(nullptr, std::memory_order_release);
    delete m;
    return;
  }
}

}  // namespace ferry
