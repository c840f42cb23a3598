#include "base/system.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string_view>

#include "base/file.h"

namespace ferry {
namespace {

/// The number after `key` in a "Key:   123 kB" file, in bytes; 0 if there is none.
uint64_t kib_line(const std::string& path, std::string_view key) {
  const Result<std::string> text = read_file(path);
  if (!text) return 0;
  const size_t at = text->find(key);
  if (at == std::string::npos) return 0;
  return std::strtoull(text->c_str() + at + key.size(), nullptr, 10) * 1024;
}

/// What /proc answers at once, "" if nothing. No fault point: a supervisor looks as often as it likes.
std::string line_of(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  char text[1024];
  const ssize_t n = ::read(fd, text, sizeof text);
  ::close(fd);
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
}

}  // namespace

uint64_t memory_peak_bytes() { return kib_line("/proc/self/status", "VmHWM:"); }
uint64_t memory_resident_bytes() { return kib_line("/proc/self/status", "VmRSS:"); }
uint64_t memory_private_bytes() { return kib_line("/proc/self/status", "RssAnon:"); }

uint64_t file_bytes_max() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

namespace {

std::string variable(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? "" : text;
}

}  // namespace

std::string home_folder() { return variable("HOME"); }

std::string state_folder() {
  std::string state = variable("XDG_STATE_HOME");
  if (state.starts_with('/')) return state;  // the specification: relative paths are to be ignored
  const std::string home = home_folder();
  return home.empty() ? "" : join_path(home, ".local/state");
}

std::string emulator_name() {
  const char* const name = std::getenv("FERRY_EMULATOR");
  return name == nullptr ? "" : name;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "this machine";
  return name.data();
}

std::optional<int64_t> process_began(int64_t pid) {
  const Result<std::string> stat = read_file(fmt::format("/proc/{}/stat", pid));
  if (!stat) return std::nullopt;
  // "PID (NAME) STATE ...", where a name may hold anything; the beginning is the 20th field from the state on.
  const size_t name_end = stat->rfind(") ");
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(stat->substr(name_end + 2));
  std::string state, field;
  fields >> state;
  if (state == "Z" || state == "X") return std::nullopt;
  for (int i = 0; i < 18; ++i) fields >> field;
  int64_t began = 0;
  if (!(fields >> began)) return std::nullopt;
  return began;
}

std::optional<ProcessLook> look_at_process(int64_t pid) {
  const std::string folder = fmt::format("/proc/{}/task", pid);
  std::error_code error;
  ProcessLook look;
  bool first = false;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string stat = line_of(it->path().string() + "/stat");
    // "PID (name, in which anything may be) S ...": utime and stime are numbers 14 and 15 of them.
    const size_t name_end = stat.rfind(") ");
    if (name_end == std::string::npos) continue;  // a thread that has just ended
    std::istringstream rest(stat.substr(name_end + 2));
    char state = '?';
    std::string skipped;
    double user = 0, system = 0;
    rest >> state;
    for (int field = 4; field < 14; ++field) rest >> skipped;
    rest >> user >> system;
    look.runnable = look.runnable || state == 'R' || state == 'D';
    const double used_s = (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
    look.processor_s += used_s;
    if (it->path().filename() != std::to_string(pid)) continue;
    look.state = state;
    look.first_s = used_s;
    first = true;
  }
  if (!first) return std::nullopt;
  return look;
}

std::string process_namespace() {
  std::array<char, 128> name{};
  const ssize_t size = ::readlink("/proc/self/ns/pid", name.data(), name.size());
  const Result<std::string> boot = read_file("/proc/sys/kernel/random/boot_id");
  if (size <= 0 || !boot) return "";
  return std::string(name.data(), static_cast<size_t>(size)) + " " +
         boot->substr(0, boot->find('\n'));
}

std::string processor_name() {
  const Result<std::string> text = read_file("/proc/cpuinfo");
  if (!text) return "unknown processor";
  const size_t at = text->find("model name");
  if (at == std::string::npos) return "unknown processor";
  const size_t begin = text->find(": ", at) + 2;
  return text->substr(begin, text->find('\n', begin) - begin);
}

}  // namespace ferry
