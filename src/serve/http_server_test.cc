// What a client of a stream may leave unread: connections alone, without anything that answers.
#include "serve/http_server.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "serve/test_support.h"

namespace ferry::serve {
namespace {

constexpr size_t kLimit = size_t{8} << 20, kPiece = 64 << 10;

/// One stream, of which the test says what is sent.
class Stream {
 public:
  Stream() {
    auto server = HttpServer::listen(
        "127.0.0.1",
        0,
        {.unread_bytes = kLimit},
        {.check_head = [](const HttpRequest&) { return std::nullopt; },
         .handle = [this](HttpRequest, std::shared_ptr<HttpExchange> e) { begin(std::move(e)); },
         .refused = [](const HttpRefusal&, const HttpRequest&) { return HttpResponse(); }});
    EXPECT_TRUE(server) << server.error().message;
    server_ = *std::move(server);
    thread_ = std::thread([this] { server_->run(); });
    client = std::make_unique<TestClient>(server_->port());
    client->send(TestClient::request("GET", "/"));
    begun_.get_future().wait();
  }
  ~Stream() {
    server_->stop();
    thread_.join();
  }

  /// In pieces of at most so many bytes. False: the connection was closed meanwhile.
  bool write(size_t bytes, size_t piece = kPiece) {
    for (; bytes > 0; bytes -= std::min(bytes, piece))
      if (!here([&] { exchange_->write(std::string(std::min(bytes, piece), 'a')); })) return false;
    return true;
  }
  void end() {
    here([this] { exchange_->end(); });
  }

  std::unique_ptr<TestClient> client;

 private:
  void begin(std::shared_ptr<HttpExchange> exchange) {
    exchange_ = std::move(exchange);
    exchange_->begin({});
    exchange_->when_gone([this] { gone_ = true; });
    begun_.set_value();
  }
  bool here(const std::function<void()>& what) {
    const auto done = std::make_shared<std::promise<bool>>();
    server_->post([this, done, &what] {
      what();
      done->set_value(!gone_);
    });
    return done->get_future().get();
  }

  bool gone_ = false;
  std::promise<void> begun_;
  std::shared_ptr<HttpExchange> exchange_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

/// How much of what a client does not read is on its way, and no more the server's.
size_t bytes_on_their_way() {
  Stream stream;
  size_t bytes = 0;
  while (stream.write(kPiece)) bytes += kPiece;
  return bytes - std::min(bytes, kLimit);
}

/// Whatever is unread before it, one piece may be larger than all that may be left unread.
/// In a child, which closes what this process has open. However few descriptors there are, that is told.
TEST(HttpServer, TooFewDescriptorsAreTold) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::close_range(3, ~0U, 0);
    rlimit allowed{};
    ::getrlimit(RLIMIT_NOFILE, &allowed);
    int refused = 0;
    for (allowed.rlim_cur = 3; allowed.rlim_cur < 16; ++allowed.rlim_cur) {
      ::setrlimit(RLIMIT_NOFILE, &allowed);
      const auto server = HttpServer::listen("127.0.0.1", 0, {}, {});
      if (server) ::_exit(refused >= 3 ? 0 : 1);
      const bool told = server.error().code == Code::kExhausted &&
                        server.error().message.find("ulimit -n") != std::string::npos;
      if (!told) ::_exit(2);
      ++refused;
    }
    ::_exit(3);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(HttpServer, APieceThatAloneIsLargerClosesNoConnection) {
  const size_t on_their_way = bytes_on_their_way();
  for (const size_t before : {size_t{0}, on_their_way + kLimit / 2}) {
    Stream stream;
    ASSERT_TRUE(stream.write(before));
    ASSERT_TRUE(stream.write(2 * kLimit, 2 * kLimit));
    ASSERT_TRUE(stream.write(kLimit / 2)) << before;
    stream.end();
    stream.client->head();
    size_t came = 0;
    for (std::string piece; !(piece = stream.client->chunk()).empty();) came += piece.size();
    EXPECT_EQ(came, before + 2 * kLimit + kLimit / 2);
  }
}

/// Behind it, and behind pieces of which none is large, the limit is what it is.
TEST(HttpServer, WhatIsUnreadIsBounded) {
  const size_t on_their_way = bytes_on_their_way();
  Stream large, two, most_of_it, slow;
  EXPECT_TRUE(large.write(2 * kLimit, 2 * kLimit));
  EXPECT_FALSE(large.write(2 * kLimit + on_their_way));
  // As a stream ends that repeats at its end what it said at its beginning; nothing comes behind it.
  EXPECT_TRUE(two.write(4 * kLimit, 2 * kLimit));
  EXPECT_FALSE(two.write(1));
  // A piece counts before it is taken.
  EXPECT_TRUE(most_of_it.write(on_their_way + kLimit / 4 * 3));
  EXPECT_FALSE(most_of_it.write(kLimit / 4 * 3, kLimit / 4 * 3));
  // Who reads on and on, but slower than there is to read.
  EXPECT_TRUE(slow.write(kPiece));
  slow.client->head();
  const size_t most = 4 * (on_their_way + kLimit) / kPiece;
  size_t written = 0;
  for (bool reads = true; written < most && slow.write(kPiece); ++written, reads = !reads)
    if (reads) slow.client->chunk();
  EXPECT_LT(written, most);
}

}  // namespace
}  // namespace ferry::serve
