// The built program on a terminal: what a person types reaches it, and what it writes is read.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "program.h"

namespace ferry::program {

/// The program on a terminal of its own, as its foreground job.
class OnTerminal {
 public:
  struct Start {
    Environment environment = {};
    int columns = 80;
    std::vector<int> ignored = {};  // signals
    rlim_t file_bytes = RLIM_INFINITY, cpu_s = RLIM_INFINITY;
  };
  OnTerminal(const Strings& args, const Start& start) {
    master_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0) std::abort();
    const std::string slave = ::ptsname(master_);
    resize(start.columns);
    ::fcntl(master_, F_SETFL, O_NONBLOCK);
    Strings words = {FERRY_PROGRAM};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setsid();
      const int fd = ::open(slave.c_str(), O_RDWR);  // becomes the controlling terminal
      termios t{};
      ::tcgetattr(fd, &t);
      t.c_oflag &= ~static_cast<tcflag_t>(OPOST);  // newlines come as they are written
      t.c_lflag &= ~static_cast<tcflag_t>(ECHO);
      ::tcsetattr(fd, TCSANOW, &t);
      for (int i = 0; i < 3; ++i) ::dup2(fd, i);
      if (fd > 2) ::close(fd);
      ::setenv("TERM", "xterm-256color", 1);
      ::unsetenv("NO_COLOR");
      for (const auto& [name, value] : start.environment) ::setenv(name.c_str(), value.c_str(), 1);
      for (const int s : start.ignored) std::signal(s, SIG_IGN);
      limit(RLIMIT_FSIZE, start.file_bytes);
      limit(RLIMIT_CPU, start.cpu_s);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    if (pid_ < 0) std::abort();
  }
  explicit OnTerminal(const Strings& args) : OnTerminal(args, Start{}) {}
  ~OnTerminal() {
    if (!status_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    hang_up();
  }
  OnTerminal(const OnTerminal&) = delete;
  OnTerminal& operator=(const OnTerminal&) = delete;

  void type(const char* text) const { (void)!::write(master_, text, std::strlen(text)); }
  void signal(int number) const { ::kill(pid_, number); }
  void signal_group(int number) const { ::kill(-pid_, number); }
  void resize(int columns) const {
    const winsize size{24, static_cast<unsigned short>(columns), 0, 0};
    ::ioctl(master_, TIOCSWINSZ, &size);
  }
  void hang_up() {
    if (master_ >= 0) ::close(master_);
    master_ = -1;
  }
  const std::string& output() {
    char block[4096];
    ssize_t n;
    while (master_ >= 0 && (n = ::read(master_, block, sizeof block)) > 0)
      output_.append(block, static_cast<size_t>(n));
    return output_;
  }
  bool said(const std::string& text) { return output().find(text) != std::string::npos; }
  bool ended() {
    output();  // a full terminal would hold it up
    int s = 0;
    if (!status_ && ::waitpid(pid_, &s, WNOHANG) == pid_) status_ = status_of(s);
    return status_.has_value();
  }
  int wait() {
    if (!wait_for([&] { return ended(); })) ADD_FAILURE() << "does not end: " << output();
    output();
    return status_.value_or(-1);
  }
  /// Steps are being made.
  bool trains() {
    return wait_for([&] { return ended() || said("tok/s"); }) && !ended();
  }

 private:
  /// As `ulimit`: the limit that warns and the one that ends at once.
  static void limit(__rlimit_resource_t resource, rlim_t value) {
    const rlimit both{value, value};
    if (value != RLIM_INFINITY) ::setrlimit(resource, &both);
  }

  int master_ = -1;
  pid_t pid_ = -1;
  std::string output_;
  std::optional<int> status_;
};

}  // namespace ferry::program
