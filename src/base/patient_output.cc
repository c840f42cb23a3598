#include "base/patient_output.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>

#include "base/counted.h"
#include "base/threads.h"

namespace ferry {

struct PatientOutput::State {
  std::FILE* out = nullptr;
  int fd = -1;
  std::mutex mutex;
  std::condition_variable more, done;
  std::string pending;
  int64_t left_out = 0;
  std::function<void()> reader_gone;  // empty: told already, or nobody wants to know
  bool threaded = false, writing = false, closed = false;

  bool push(std::string_view text);
  void run();
  static bool write_all(int fd, std::string_view text);
};

/// A descriptor that somebody else made non-blocking is waited for as well. False: it is a pipe that nobody reads.
bool PatientOutput::State::write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      pollfd room{fd, POLLOUT, 0};
      ::poll(&room, 1, -1);
    } else if (errno != EINTR) {
      return errno != EPIPE;
    }
  }
  return true;
}

/// The only place that waits for the reader.
void PatientOutput::State::run() {
  std::unique_lock lock(mutex);
  while (true) {
    more.wait(lock, [this] { return !pending.empty() || closed; });
    if (pending.empty()) return;
    std::string text = std::move(pending);
    pending.clear();
    if (left_out > 0)
      text += fmt::format("({} left out here)\n", counted(left_out, "line was", "lines were"));
    left_out = 0;
    writing = true;
    lock.unlock();
    if (!write_all(fd, text))
      if (const auto tell = std::exchange(reader_gone, nullptr)) tell();
    lock.lock();
    writing = false;
    done.notify_all();
  }
}

/// With the mutex held.
bool PatientOutput::State::push(std::string_view text) {
  if (!threaded) {  // memory, or a system that gives no more threads
    std::fwrite(text.data(), 1, text.size(), out);
    std::fflush(out);
    return true;
  }
  if (pending.size() + text.size() > kPendingBytesMax) {
    ++left_out;
    return false;
  }
  pending += text;
  more.notify_one();
  return true;
}

PatientOutput::PatientOutput(std::FILE* out, std::function<void()> reader_gone)
    : state_(std::make_shared<State>()) {
  std::fflush(out);
  state_->out = out;
  state_->reader_gone = std::move(reader_gone);
  state_->fd = ::fileno(out);
  state_->threaded = state_->fd >= 0 && start_thread([state = state_] { state->run(); });
}

PatientOutput::~PatientOutput() {
  constexpr double kLeaveS = 2;
  static_cast<void>(flush(kLeaveS));
  const std::lock_guard lock(state_->mutex);
  state_->closed = true;
  state_->more.notify_one();
}

bool PatientOutput::write(std::string_view text) {
  const std::lock_guard lock(state_->mutex);
  return state_->push(text);
}

bool PatientOutput::write_passing(std::string_view text) {
  const std::lock_guard lock(state_->mutex);
  if (state_->writing || !state_->pending.empty()) return false;
  return state_->push(text);
}

bool PatientOutput::flush(double seconds_max) {
  std::unique_lock lock(state_->mutex);
  return state_->done.wait_for(lock, std::chrono::duration<double>(seconds_max), [this] {
    return state_->pending.empty() && !state_->writing;
  });
}

}  // namespace ferry
