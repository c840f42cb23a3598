// A client for tests of the server: it sends bytes, well-formed or not, and reads what comes back.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::serve {

struct TestResponse {
  int status = 0;  // 0: none came
  std::string head, body;
};

/// One connection to a server on this machine. Blocks; gives up after a minute.
class TestClient {
 public:
  explicit TestClient(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  }
  ~TestClient() { leave(); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  bool connected() const { return connected_; }
  void leave() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  /// Leaves without a word: the server is told that the connection is void.
  void reset() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    leave();
  }

  /// Says that nothing more comes.
  void close_sending() const { ::shutdown(fd_, SHUT_WR); }

  /// False: the server closed the connection.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  static std::string request(const std::string& method,
                             const std::string& path,
                             const std::string& body = "",
                             const std::string& headers = "") {
    std::string text = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers;
    if (!body.empty())
      text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n";
    return text + "\r\n" + body;
  }

  TestResponse ask(const std::string& method,
                   const std::string& path,
                   const std::string& body = "",
                   const std::string& headers = "") {
    send(request(method, path, body, headers));
    return response();
  }
  TestResponse post(const std::string& path, const std::string& body) {
    return ask("POST", path, body);
  }
  TestResponse get(const std::string& path) { return ask("GET", path); }

  /// The next response, whole.
  TestResponse response() {
    TestResponse r;
    r.head = until("\r\n\r\n");
    if (r.head.size() < 12) return r;
    r.status = static_cast<int>(std::strtol(r.head.c_str() + 9, nullptr, 10));
    if (r.status == 100) return response();
    const size_t length = r.head.find("\r\nContent-Length: ");
    if (length != std::string::npos) {
      r.body = bytes(std::strtoul(r.head.c_str() + length + 18, nullptr, 10));
    } else if (r.head.find("\r\nTransfer-Encoding: chunked") != std::string::npos) {
      for (std::string piece; !(piece = chunk()).empty();) r.body += piece;
    } else {
      while (more()) {
      }
      r.body = std::exchange(held_, "");
    }
    return r;
  }
  /// The head of the next response alone: chunk() reads on.
  std::string head() { return until("\r\n\r\n"); }
  /// The next piece of a body that comes in chunks; empty at its end.
  std::string chunk() {
    const std::string line = until("\r\n");
    const auto size = static_cast<size_t>(std::strtoul(line.c_str(), nullptr, 16));
    std::string piece = bytes(size + 2);
    piece.resize(piece.size() < 2 ? 0 : piece.size() - 2);
    return piece;
  }
  /// How many bytes come until the server says no more, or ends.
  size_t rest(int silence_ms = 1000) {
    size_t count = held_.size();
    held_.clear();
    pollfd p{.fd = fd_, .events = POLLIN, .revents = 0};
    while (!ended_ && ::poll(&p, 1, silence_ms) > 0 && more()) {
      count += held_.size();
      held_.clear();
    }
    return count;
  }
  /// Whether the server closes the connection, whatever it still sends.
  bool closed() {
    while (more()) {
    }
    return ended_;
  }

 private:
  bool more() {
    char buffer[16384];
    pollfd p{.fd = fd_, .events = POLLIN, .revents = 0};
    if (ended_ || ::poll(&p, 1, 60000) <= 0) return false;
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n <= 0) {
      ended_ = true;
      return false;
    }
    held_.append(buffer, static_cast<size_t>(n));
    return true;
  }
  std::string until(std::string_view end) {
    size_t at;
    while ((at = held_.find(end)) == std::string::npos)
      if (!more()) return "";
    return bytes(at + end.size());
  }
  std::string bytes(size_t count) {
    while (held_.size() < count && more()) {
    }
    std::string out = held_.substr(0, count);
    held_.erase(0, count);
    return out;
  }

  int fd_;
  bool connected_ = false, ended_ = false;
  std::string held_;
};

}  // namespace ferry::serve
