// Tasks that other threads hand to the thread of an io_context. asio::post() wakes that thread while it
// holds the lock of its queue, for which the one that wakes then waits: where processors are busy, more
// switches of threads for each token of an answer. Here nothing is held any more.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/os_error.h"
#include "base/result.h"

namespace ferry::serve {

/// Owner: the thread that runs the context, which outlives it. Tasks that were not done are dropped with it;
/// what one throws leaves the context's run(), and those that were taken with it are dropped.
class HttpMailbox {
 public:
  explicit HttpMailbox(boost::asio::io_context& context) : event_(context) {}

  /// Once, before post(). Errors: kExhausted: no descriptor is left.
  Result<void> open() {
    const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) return os_error("what wakes a server", errno);
    event_.assign(fd);
    listen();
    return {};
  }

  /// Any thread. The task is done soon, after those that were posted before it.
  void post(std::function<void()> task) {
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = tasks_.empty();
      tasks_.push_back(std::move(task));
    }
    const uint64_t one = 1;
    if (first)
      check(::write(event_.native_handle(), &one, sizeof one) == sizeof one, "mailbox: not told");
  }

 private:
  void listen() {
    event_.async_read_some(boost::asio::buffer(&told_, sizeof told_),
                           [this](const boost::system::error_code& error, size_t) {
                             if (error) return;
                             std::vector<std::function<void()>> tasks;
                             {
                               const std::lock_guard lock(mutex_);
                               tasks.swap(tasks_);
                             }
                             listen();  // before: later ones are heard though a task throws
                             for (std::function<void()>& task : tasks)
                               std::exchange(task, nullptr)();
                           });
  }

  boost::asio::posix::stream_descriptor event_;
  uint64_t told_ = 0;
  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;
};

}  // namespace ferry::serve
