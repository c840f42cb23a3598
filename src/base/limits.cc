#include "base/limits.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/file.h"

namespace ferry {
namespace {

// --- small files of the kernel --------------------------------------------------------------------

/// Empty where there is no such file: another version, or a controller that is not on.
std::string content_of(const std::string& path) {
  Result<std::string> text = read_file(path, uint64_t{64} << 20);
  return text ? std::move(*text) : std::string();
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

/// The number that the text begins with. Nothing for "max", -1 and the like: no limit.
std::optional<uint64_t> number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return n;
}

/// The number behind a word that begins a line: "inactive_file 4096", "MemAvailable:  12 kB".
std::optional<uint64_t> field(std::string_view text, std::string_view name) {
  for (const std::string_view line : split(text, '\n'))
    if (line.size() > name.size() && line.starts_with(name) &&
        (line[name.size()] == ' ' || line[name.size()] == '\t'))
      return number(line.substr(name.size()));
  return std::nullopt;
}

// --- where this process's cgroups lie -------------------------------------------------------------

/// One group that this process is in, as a folder; version 1 has a hierarchy for each controller.
struct Group {
  std::string folder;  // where its files are read
  std::string name;    // for messages: its path within the hierarchy
  bool unified;        // version 2
};

/// Paths in mountinfo have spaces and the like as \040.
std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    int code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, code, 8).ptr ==
            text.data() + i + 4) {
      out += static_cast<char>(code);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool has_word(std::string_view list, std::string_view word) {
  const std::vector<std::string_view> words = split(list, ',');
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// The path of the group below where its hierarchy is mounted. A container may see the path that
/// the host gave its group while only that group is mounted, or one that leads out of its own
/// namespace ("/../..").
std::string path_below(std::string_view path, std::string_view mount_root) {
  if (mount_root == "/") mount_root = "";
  if (path.starts_with(mount_root) &&
      (path.size() == mount_root.size() || path[mount_root.size()] == '/'))
    path.remove_prefix(mount_root.size());
  else
    return "";
  if (path == "/" || path.starts_with("/..")) return "";
  return std::string(path);
}

/// The groups that limit this process for `controller` ("cpu", "memory"): its own and those above,
/// in every hierarchy that has the controller.
std::vector<Group> groups_of(const std::string& root, std::string_view controller) {
  std::vector<Group> groups;
  const std::string memberships = content_of(join_path(root, "proc/self/cgroup"));
  const std::string mounts = content_of(join_path(root, "proc/self/mountinfo"));
  for (const std::string_view membership : split(memberships, '\n')) {
    // 4:memory:/docker/4b1d or 0::/user.slice
    const size_t first = membership.find(':'), second = membership.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string_view controllers = membership.substr(first + 1, second - first - 1);
    const std::string_view path = membership.substr(second + 1);
    const bool unified = controllers.empty();
    if (!unified && !has_word(controllers, controller)) continue;
    for (const std::string_view mount : split(mounts, '\n')) {
      // 36 35 98:0 ROOT MOUNT-POINT options [tags] - TYPE source superoptions
      const std::vector<std::string_view> words = split(mount, ' ');
      const auto dash = std::find(words.begin(), words.end(), "-");
      if (words.size() < 6 || words.end() - dash < 4) continue;
      if (dash[1] != (unified ? "cgroup2" : "cgroup")) continue;
      if (!unified && !has_word(dash[3], controller)) continue;
      const std::string point = join_path(root, std::string_view(unescaped(words[4])).substr(1));
      std::string below = path_below(path, unescaped(words[3]));
      if (!is_folder(point + below)) below.clear();  // what is mounted is all that can be seen
      for (;;) {
        groups.push_back({point + below, below.empty() ? "/" : below, unified});
        if (below.empty()) break;
        below.resize(below.rfind('/'));
      }
    }
  }
  return groups;
}

// --- processors -----------------------------------------------------------------------------------

int processors_of_affinity() {
  // A mask for as many processors as the kernel is built for: it refuses smaller ones.
  for (int count = 1024; count <= 1 << 20; count *= 2) {
    cpu_set_t* const set = CPU_ALLOC(static_cast<size_t>(count));
    check(set != nullptr, "affinity: out of memory");
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(count));
    const int processors = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (processors > 0) return processors;
  }
  return 1;
}

/// Processors' worth of time that the group may use; nothing if it has no quota.
std::optional<double> quota_of(const Group& group) {
  std::optional<uint64_t> quota, period;
  if (group.unified) {
    const std::string text = content_of(join_path(group.folder, "cpu.max"));  // "150000 100000"
    quota = number(text);
    if (text.find(' ') != std::string::npos) period = number(text.substr(text.find(' ')));
  } else {
    quota = number(content_of(join_path(group.folder, "cpu.cfs_quota_us")));  // -1: none
    period = number(content_of(join_path(group.folder, "cpu.cfs_period_us")));
  }
  if (!quota || !period || *period == 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

// --- memory ---------------------------------------------------------------------------------------

/// What the group may still take; nothing if it has no limit.
std::optional<uint64_t> left_in(const Group& group) {
  const auto in = [&](const char* name) { return content_of(join_path(group.folder, name)); };
  std::optional<uint64_t> limit =
      number(in(group.unified ? "memory.max" : "memory.limit_in_bytes"));
  if (group.unified) {
    // Above memory.high the kernel slows the group down until it hardly moves.
    const std::optional<uint64_t> high = number(in("memory.high"));
    if (high && (!limit || *high < *limit)) limit = high;
  } else {
    // Groups above may not be visible from a container; version 1 says here what they set.
    const std::optional<uint64_t> above = field(in("memory.stat"), "hierarchical_memory_limit");
    if (above && (!limit || *above < *limit)) limit = above;
  }
  if (!limit) return std::nullopt;
  const std::optional<uint64_t> used =
      number(in(group.unified ? "memory.current" : "memory.usage_in_bytes"));
  // Page cache counts as used until somebody asks for the memory; what was read twice is called active, and goes as
  // well. Shared memory, which cannot go, is in neither.
  const std::string stat = in("memory.stat");
  const uint64_t cache =
      field(stat, group.unified ? "inactive_file" : "total_inactive_file").value_or(0) +
      field(stat, group.unified ? "active_file" : "total_active_file").value_or(0);
  const uint64_t held = used.value_or(0) - std::min(used.value_or(0), cache);
  return *limit - std::min(*limit, held);
}

/// In a chroot without /proc.
uint64_t free_without_proc() {
  struct sysinfo machine {};
  if (::sysinfo(&machine) != 0) return 0;
  return (uint64_t{machine.freeram} + machine.bufferram) * machine.mem_unit;
}

/// What a ulimit leaves, above what /proc/self/status says is taken; nothing if it is unlimited.
std::optional<uint64_t> left_of_ulimit(int resource, std::string_view status, const char* taken) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return std::nullopt;
  if (limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  const uint64_t used = field(status, taken).value_or(0) * 1024;
  return limit.rlim_cur - std::min<uint64_t>(limit.rlim_cur, used);
}

}  // namespace

int available_processors(const std::string& root) {
  int processors = processors_of_affinity();
  for (const Group& group : groups_of(root, "cpu"))
    if (const std::optional<double> quota = quota_of(group); quota && *quota < processors)
      processors = std::max(1, static_cast<int>(std::ceil(*quota)));
  return processors;
}

MemoryAvailable memory_available(const std::string& root) {
  const std::string machine = content_of(join_path(root, "proc/meminfo"));
  std::optional<uint64_t> free = field(machine, "MemAvailable:");
  if (!free) free = field(machine, "MemFree:");  // some containers' /proc has no more
  MemoryAvailable available{free ? *free * 1024 : free_without_proc(), ""};
  const auto bound = [&](std::optional<uint64_t> left, const std::string& within) {
    if (left && *left < available.bytes) available = {*left, " within " + within};
  };
  for (const Group& group : groups_of(root, "memory"))
    bound(left_in(group), "the limit of cgroup " + group.name);
  const std::string status = content_of(join_path(root, "proc/self/status"));
  bound(left_of_ulimit(RLIMIT_AS, status, "VmSize:"), "ulimit -v");
  bound(left_of_ulimit(RLIMIT_DATA, status, "VmData:"), "ulimit -d");
  return available;
}

uint64_t raise_open_files(uint64_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < wanted) {
    rlimit raised = limit;
    raised.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return limit.rlim_cur;
}

}  // namespace ferry
