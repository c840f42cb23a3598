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

// The handler, which may take no lock, reads what `seen` points at; both are written under one. What is forgotten is
// freed: a handler that runs at that moment is about another file, or about a read beside the end of this one's life.
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

void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  const auto* const at = static_cast<const std::byte*>(info->si_addr);
  for (const auto& slot : seen) {
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
  const auto free = std::find(owned.begin(), owned.end(), nullptr);
  if (free == owned.end()) return;
  *free = std::make_unique<const Mapping>(static_cast<const std::byte*>(data), bytes, path);
  seen[static_cast<size_t>(free - owned.begin())].store(free->get(), std::memory_order_release);
}

void forget_mapping(const void* data) {
  const std::lock_guard lock(writers);
  const auto of = std::find_if(
      owned.begin(), owned.end(), [&](const auto& m) { return m != nullptr && m->data == data; });
  if (of == owned.end()) return;
  seen[static_cast<size_t>(of - owned.begin())].store(nullptr, std::memory_order_release);
  of->reset();
}

}  // namespace ferry
