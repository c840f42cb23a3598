#include "base/fault.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace ferry {
namespace {

constexpr long kEachTime = -1;
constexpr int kAnyRank = -1;

struct Fault {
  std::string name;
  long at;
  std::string action;
  int rank = kAnyRank;
};

struct Faults {
  std::mutex mutex;
  std::vector<Fault> armed;
  std::map<std::string, long, std::less<>> passed;
};

std::atomic<bool> g_any{false};
std::atomic<int> g_rank{0};

Faults& faults() {
  static Faults f;
  return f;
}

int errno_of(const std::string& action) {
  if (action == "enospc") return ENOSPC;
  if (action == "eio") return EIO;
  if (action == "emfile") return EMFILE;
  if (action == "erofs") return EROFS;
  if (action == "eacces") return EACCES;
  if (action == "efbig") return EFBIG;
  if (action == "enosys") return ENOSYS;
  return 0;
}

/// The number behind the word; none: another action.
std::optional<long> number_behind(std::string_view word, std::string_view action) {
  if (!action.starts_with(word)) return std::nullopt;
  action.remove_prefix(word.size());
  long n = 0;
  const auto [end, error] = std::from_chars(action.data(), action.data() + action.size(), n);
  if (error != std::errc() || end != action.data() + action.size() || n < 0) return std::nullopt;
  return n;
}

std::optional<long> delay_ms_of(std::string_view action) { return number_behind("delay", action); }
std::optional<long> flipped_bit_of(std::string_view action) {
  return number_behind("flip", action);
}

/// Ends early where nothing is armed any more: a test that has seen what it wanted waits no longer.
void sleep_ms(long ms) {
  constexpr long kSliceMs = 20;
  for (; ms > 0 && g_any.load(std::memory_order_relaxed); ms -= kSliceMs) {
    timespec left{0, std::min(ms, kSliceMs) * 1000000};
    while (::nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
  }
}

bool known(const std::string& action) {
  return errno_of(action) != 0 || delay_ms_of(action) || flipped_bit_of(action) ||
         action == "hang" || action == "spin" || action == "stop" || action == "kill" ||
         action == "abort" || action == "count";
}

void parse(std::string_view list, std::vector<Fault>& out) {
  while (!list.empty()) {
    const size_t end = list.find(',');
    const std::string item(list.substr(0, end));
    list = end == std::string_view::npos ? std::string_view{} : list.substr(end + 1);
    const size_t a = item.find(':');
    const size_t b = a == std::string::npos ? a : item.find(':', a + 1);
    Fault f;
    if (b != std::string::npos) {
      f = {item.substr(0, a), 0, item.substr(b + 1)};
      const char* stop = item.data() + b;
      if (item.substr(a + 1, b - a - 1) == "*")
        f.at = kEachTime;
      else if (std::from_chars(item.data() + a + 1, stop, f.at).ptr != stop)
        f.at = 0;
    }
    if (const size_t mark = f.name.find('@'); mark != std::string::npos) {
      const char *first = f.name.data() + mark + 1, *last = f.name.data() + f.name.size();
      if (const auto [stop, error] = std::from_chars(first, last, f.rank);
          error != std::errc() || stop != last || f.rank < 0)
        f.action.clear();  // unknown
      f.name.resize(mark);
    }
    if ((f.at < 1 && f.at != kEachTime) || !known(f.action)) {
      std::fprintf(
          stderr,
          "FERRY_FAULT: '%s' is not "
          "NAME[@RANK]:N:{enospc,eio,emfile,erofs,eacces,efbig,enosys,delayMS,flipBIT,hang,spin,"
          "stop,kill,abort,count}\n",
          item.c_str());
      std::exit(2);
    }
    out.push_back(f);
  }
}

void load_environment_once() {
  static const bool done = [] {
    if (const char* list = std::getenv("FERRY_FAULT")) arm_faults(list);
    return true;
  }();
  (void)done;
}

/// What is to be done at this passing of the point.
std::string pass(const char* name) {
  Faults& f = faults();
  const std::lock_guard lock(f.mutex);
  const long count = ++f.passed[name];
  for (const Fault& fault : f.armed)
    if (fault.name == name &&
        (fault.rank == kAnyRank || fault.rank == g_rank.load(std::memory_order_relaxed)) &&
        (fault.at == count || fault.at == kEachTime))
      return fault.action;
  return {};
}

void flip(size_t bit, std::span<const std::span<std::byte>> memory) {
  size_t bits = 0;
  for (const std::span<std::byte>& part : memory) bits += 8 * part.size();
  if (bits == 0) return;
  bit %= bits;
  for (const std::span<std::byte>& part : memory) {
    if (bit < 8 * part.size()) {
      part[bit / 8] ^= std::byte{1} << bit % 8;
      return;
    }
    bit -= 8 * part.size();
  }
}

}  // namespace

void arm_faults(std::string_view list) {
  Faults& f = faults();
  const std::lock_guard lock(f.mutex);
  f.armed.clear();
  f.passed.clear();
  parse(list, f.armed);
  g_any.store(!f.armed.empty(), std::memory_order_relaxed);
}

long fault_point_count(std::string_view name) {
  Faults& f = faults();
  const std::lock_guard lock(f.mutex);
  const auto it = f.passed.find(name);
  return it == f.passed.end() ? 0 : it->second;
}

bool faults_armed() {
  load_environment_once();
  return g_any.load(std::memory_order_relaxed);
}

void flip_point(const char* name, std::span<const std::span<std::byte>> memory) {
  if (!faults_armed()) return;
  if (const std::optional<long> bit = flipped_bit_of(pass(name)))
    flip(static_cast<size_t>(*bit), memory);
}

void set_fault_rank(int rank) { g_rank.store(rank, std::memory_order_relaxed); }

int fault_point(const char* name) {
  if (!faults_armed()) return 0;
  const std::string action = pass(name);
  if (action == "kill") {
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
  }
  while (action == "hang") ::pause();
  if (action == "spin")
    for (volatile bool ever = true; ever;) {
    }
  if (action == "stop") ::kill(::getpid(), SIGSTOP);
  if (action == "abort") std::abort();
  if (const std::optional<long> ms = delay_ms_of(action)) sleep_ms(*ms);
  return errno_of(action);
}

}  // namespace ferry
