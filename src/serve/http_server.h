// HTTP/1.1 on one thread: connections, their limits, and what hostile or slow ones may cost. It knows
// nothing of what is asked. (Boost.Asio moves the bytes; its headers stay in this file's .cc.) TLS is
// for whatever stands in front.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "serve/http_message.h"

namespace ferry::serve {

struct HttpLimits {
  uint32_t header_bytes = 32 << 10;
  uint64_t body_bytes = uint64_t{8} << 20;
  uint64_t bodies_bytes = uint64_t{256} << 20;  // of all requests that are being read, together
  size_t unread_bytes = size_t{4} << 20;        // of a stream, that the client has not taken yet
  int64_t connections = 4096;
  double header_s =
      10;               // from a request's first byte (or the connection's begin) to its head's end
  double body_s = 60;   // from there to its end
  double idle_s = 75;   // between requests
  double write_s = 30;  // without a byte that the client takes
};

struct HttpHandler {
  /// Asked when the head of a request is there: a response refuses it before its body is read.
  std::function<std::optional<HttpResponse>(const HttpRequest& head)> check_head;
  /// A whole request. Requests of one connection come one after the other.
  std::function<void(HttpRequest, std::shared_ptr<HttpExchange>)> handle;
  /// What is answered where a request is not read to its end, or is none. `head` is as much of it as was
  /// read: its path is empty where none was.
  std::function<HttpResponse(const HttpRefusal& refusal, const HttpRequest& head)> refused;
};

/// Owner: the thread that calls run(). Everything but post() and stop() on that thread.
class HttpServer {
 public:
  /// Listens. Port 0: one that is free. Errors: kInvalidInput (no such address), kUnavailable (the
  /// port is taken, or may not be used), kExhausted (no descriptor is left).
  static Result<std::unique_ptr<HttpServer>> listen(const std::string& host,
                                                    uint16_t port,
                                                    const HttpLimits& limits,
                                                    HttpHandler handler);
  virtual ~HttpServer() = default;

  virtual uint16_t port() const = 0;
  virtual int64_t connections() const = 0;
  /// Serves until stop(). Throws what handlers and tasks throw.
  virtual void run() = 0;
  /// Ends run() soon; connections are closed as they are.
  virtual void stop() = 0;
  /// Has the task done on the server's thread.
  virtual void post(std::function<void()> task) = 0;
  /// The same, after so many seconds.
  virtual void after(double seconds, std::function<void()> task) = 0;
  /// What happens on these signals, instead of the process's end.
  virtual void on_signals(const std::vector<int>& numbers, std::function<void(int)> heard) = 0;
  /// From now on each response is its connection's last, and connections without a request are closed.
  virtual void drain() = 0;
};

}  // namespace ferry::serve
