// Fuzzer of connections: the first byte is the size of the pieces in which the rest is sent to a
// server. Whatever comes, handlers see requests that are well-formed and within the limits, what is
// sent back begins as a response does, the connection ends with the client's, and none of it depends
// on the pieces.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "serve/http_server.h"

namespace {

using namespace ferry;
using namespace ferry::serve;

/// Loopback addresses are many: nobody who looks for another server finds this one, whose port may have
/// been his a moment ago.
constexpr const char* kAddress = "127.70.85.90";
constexpr uint64_t kBodyBytesMax = 4096;
constexpr int kStepsMax = 1 << 20;

/// What came of a connection.
struct Outcome {
  std::string requests;   // as the handler saw them
  std::string responses;  // as the client did
  /// What is answered before all of a request was seen, or later, is answered to as much as was there:
  /// refusals of a head, "100 Continue", answers that wait, and connections that are cut off.
  bool in_pieces_the_same = true;
};

/// One server and one client on one thread: the client does a little between the server's tasks.
class Connection {
 public:
  Connection(std::string_view bytes, size_t piece) : bytes_(bytes), piece_(piece) {
    HttpLimits limits;
    limits.body_bytes = kBodyBytesMax;
    auto server = HttpServer::listen(
        kAddress,
        0,
        limits,
        {.check_head = [this](const HttpRequest& head) { return refusal(head); },
         .handle = [this](HttpRequest r,
                          std::shared_ptr<HttpExchange> e) { handle(r, std::move(e)); }});
    check(server.has_value(), "fuzz: no server");
    server_ = *std::move(server);
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(server_->port());
    check(::inet_pton(AF_INET, kAddress, &to.sin_addr) == 1, "fuzz: no address");
    const linger at_once{.l_onoff = 1, .l_linger = 0};  // ports are not kept waiting
    check(connected(to) && ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0,
          "fuzz: no connection: {}",
          std::strerror(errno));
  }
  ~Connection() { ::close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Outcome run() {
    step();
    server_->run();
    if (out_.responses.find("100 Continue") != std::string::npos) out_.in_pieces_the_same = false;
    return std::move(out_);
  }

 private:
  /// The fuzzer's alarm may interrupt it: it goes on all the same.
  bool connected(const sockaddr_in& to) const {
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) return true;
    if (errno != EINTR) return false;
    pollfd p{.fd = fd_, .events = POLLOUT, .revents = 0};
    while (::poll(&p, 1, -1) < 0 && errno == EINTR) {
    }
    int error = 0;
    socklen_t size = sizeof error;
    return ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
  }

  void step() {
    check(++steps_ < kStepsMax, "fuzz: the connection does not end");
    if (!bytes_.empty()) {
      const size_t count = std::min(piece_, bytes_.size());
      const ssize_t sent = ::send(fd_, bytes_.data(), count, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0)
        bytes_.remove_prefix(static_cast<size_t>(sent));
      else if (errno != EAGAIN)
        bytes_ = {};  // the server has closed it
    } else if (!std::exchange(said_all_, true)) {
      ::shutdown(fd_, SHUT_WR);
    }
    char buffer[4096];
    const ssize_t got = ::recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) out_.responses.append(buffer, static_cast<size_t>(got));
    if (got == 0 || (got < 0 && errno != EAGAIN)) return server_->stop();
    server_->post([this] { step(); });
  }

  void check_head(const HttpRequest& r) const {
    check(!r.method.empty() && !r.path.empty() && r.path.find_first_of("?#\r\n ") == r.path.npos,
          "fuzz: {} {}",
          r.method,
          r.path);
    for (const auto& [name, value] : r.headers) {
      const bool upper =
          std::any_of(name.begin(), name.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
      check(!name.empty() && !upper && name.find_first_of("\r\n:") == name.npos &&
                value.find_first_of("\r\n") == value.npos,
            "fuzz: header {}: {}",
            name,
            value);
    }
  }

  std::optional<HttpResponse> refusal(const HttpRequest& head) {
    check_head(head);
    if (!head.path.starts_with("/no")) return std::nullopt;
    out_.in_pieces_the_same = false;
    return HttpResponse{.status = 404, .body = "{}"};
  }

  void handle(const HttpRequest& r, std::shared_ptr<HttpExchange> exchange) {
    check_head(r);
    check(r.body.size() <= kBodyBytesMax, "fuzz: a body of {} bytes", r.body.size());
    out_.requests += r.method + " " + r.path + "\n";
    for (const auto& [name, value] : r.headers) out_.requests += name + ": " + value + "\n";
    out_.requests += std::to_string(r.body.size()) + " " + r.body + "\n";
    if (r.path.starts_with("/later")) {
      out_.in_pieces_the_same = false;
      server_->post([exchange] { exchange->answer({.body = "later"}); });
    } else if (r.path.starts_with("/stream")) {
      exchange->begin({.content_type = "text/event-stream"});
      for (const char* text : {"a", "", "bc"}) exchange->write(text);
      exchange->end();
    } else if (r.path.starts_with("/abort")) {
      out_.in_pieces_the_same = false;
      exchange->begin({});
      exchange->abort();
    } else {
      exchange->answer({.body = r.body});
    }
  }

  std::string_view bytes_;
  size_t piece_;
  int fd_ = -1;
  int steps_ = 0;
  bool said_all_ = false;
  Outcome out_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Outcome whole = Connection(bytes, bytes.size()).run();
  check(whole.responses.empty() || whole.responses.starts_with("HTTP/1.1 "),
        "fuzz: no response: {}",
        whole.responses);
  const Outcome pieces = Connection(bytes, size_t{1} + data[0]).run();
  // Beyond the limits of heads it depends on how much of one was there at once.
  if (!whole.in_pieces_the_same || !pieces.in_pieces_the_same ||
      bytes.size() > HttpLimits().header_bytes)
    return 0;
  check(pieces.requests == whole.requests,
        "fuzz: in pieces other requests: {} and {}",
        pieces.requests,
        whole.requests);
  // What is wrong in a head that never ends is told if it was there at once.
  if (whole.responses.find("400 Bad Request") != std::string::npos) return 0;
  check(pieces.responses == whole.responses,
        "fuzz: in pieces other responses: {} and {}",
        pieces.responses,
        whole.responses);
  return 0;
}
