#include "serve/http_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/system/system_error.hpp>
#include <charconv>
#include <limits>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/os_error.h"
#include "serve/http_mailbox.h"
#include "serve/http_request_reader.h"

namespace ferry::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Tcp = asio::ip::tcp;
using Error = boost::system::error_code;

constexpr size_t kReadBytes = 8 << 10;
constexpr size_t kAheadBytes = 64 << 10;   // of later requests, while one is being answered
constexpr size_t kFramingBytes = 1 << 10;  // at most, of a response's head and a piece's chunk
constexpr double kSweepS = 0.25;
constexpr double kLingerS = 2;  // for a client to read why its request was not read to its end
constexpr double kNever = std::numeric_limits<double>::infinity();

double now_s() { return system_clock().monotonic_s(); }

asio::steady_timer::duration duration_of(double seconds) {
  return std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6));
}

std::string_view reason_of(int status) {
  const boost::string_view reason = http::obsolete_reason(static_cast<http::status>(status));
  return {reason.data(), reason.size()};
}

class Server;
class Session;

/// What handlers hold: it outlives the connection where it must.
class Exchange : public HttpExchange {
 public:
  explicit Exchange(std::shared_ptr<Session> session) : session_(std::move(session)) {}

  void answer(HttpResponse response) override;
  void begin(HttpResponse head) override;
  void write(std::string_view piece) override;
  void end() override;
  void abort() override;
  void when_gone(std::function<void()> gone) override {
    if (left_) return gone();
    gone_ = std::move(gone);
  }

  /// The connection is no more, or this exchange on it is over.
  void leave(bool early) {
    session_.reset();
    left_ = early;
    const std::function<void()> gone = std::exchange(gone_, nullptr);
    if (early && gone) gone();
  }

 private:
  std::shared_ptr<Session> session_;
  std::function<void()> gone_;
  bool left_ = false;  // the client, before the end
};

/// One connection. There is always at most one read and one write under way.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Server& server, Tcp::socket socket);

  void start();
  bool idle() const { return state_ == State::kHead || state_ == State::kBody; }
  double since() const { return since_; }
  double deadline() const { return deadline_; }
  /// Its time is over.
  void expire();
  void close();
  void close_if_idle() {
    if (idle() && out_.empty() && writing_.empty()) close();
  }

  void answer(HttpResponse response);
  void begin(HttpResponse head);
  void write(std::string_view piece);
  void end();

 private:
  enum class State { kHead, kBody, kAnswering, kLingering, kClosed };

  void await_head(double patience_s);
  void read();
  void feed();
  void parse();
  void take_head();
  void take_request();
  void refuse(const HttpRefusal& refusal);
  void refuse(const HttpResponse& response);
  void flush();
  void answered();
  /// On this connection, sent or not.
  uint64_t queued_bytes() const { return sent_bytes_ + writing_.size() + out_.size(); }
  std::string head_of(const HttpResponse& response, std::optional<size_t> length) const;
  void count_body(uint64_t bytes);

  Server& server_;
  Tcp::socket socket_;
  std::array<char, kReadBytes> piece_;  // that is being read; apart from what is being parsed
  HttpRequestReader reader_;
  std::shared_ptr<Exchange> exchange_;
  std::string out_, writing_;  // not sent: behind what is being sent, and that
  uint64_t sent_bytes_ = 0;
  uint64_t large_until_ = 0;  // where the last piece ended that was too large to be counted
  State state_ = State::kHead;
  double since_ = 0, deadline_ = kNever;
  uint64_t body_counted_ = 0;
  bool reading_ = false, feeding_ = false;
  bool keep_ = false;     // the connection, after this response
  bool chunked_ = false;  // of the response
  bool ended_ = false;    // all of it was given
};

class Server : public HttpServer {
 public:
  Server(const HttpLimits& of, HttpHandler what)
      : limits(of),
        handler(std::move(what)),
        mailbox_(io_),
        acceptor_(io_),
        accept_again_(io_),
        sweep_(io_),
        signals_(io_) {}
  ~Server() override {
    // Tasks and handlers that wait hold connections, which refer to this.
    while (!sessions_.empty()) (*sessions_.begin())->close();
  }

  Result<void> listen(const std::string& host, uint16_t port) {
    TRY(mailbox_.open());
    Error error;
    Tcp::resolver resolver(io_);
    const auto found = resolver.resolve(host, std::to_string(port), Tcp::resolver::passive, error);
    if (error || found.empty())
      return fail(Code::kInvalidInput, "--host {}: {}", host, error.message());
    const Tcp::endpoint at = found.begin()->endpoint();
    acceptor_.open(at.protocol(), error);
    if (!error) acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(at, error);
    if (!error) acceptor_.listen(Tcp::acceptor::max_listen_connections, error);
    if (error == asio::error::no_descriptors)
      return os_error(fmt::format("listen on {} port {}", host, port), error.value());
    if (error)
      return fail(Code::kUnavailable,
                  "cannot listen on {} port {}: {}; choose another --{}",
                  host,
                  port,
                  error.message(),
                  error == asio::error::address_in_use || error == asio::error::access_denied
                      ? "port"
                      : "host");
    accept();
    sweep();
    return {};
  }

  uint16_t port() const override { return acceptor_.local_endpoint().port(); }
  int64_t connections() const override { return static_cast<int64_t>(sessions_.size()); }
  void run() override { io_.run(); }
  void stop() override { io_.stop(); }
  void post(std::function<void()> task) override { mailbox_.post(std::move(task)); }

  void after(double seconds, std::function<void()> task) override {
    const auto timer = std::make_shared<asio::steady_timer>(io_, duration_of(seconds));
    timer->async_wait([timer, task = std::move(task)](const Error& error) {
      if (!error) task();
    });
  }

  void on_signals(const std::vector<int>& numbers, std::function<void(int)> heard) override {
    for (const int number : numbers) signals_.add(number);
    heard_ = std::move(heard);
    wait_for_signal();
  }

  void drain() override {
    draining = true;
    const std::set<std::shared_ptr<Session>> all = sessions_;
    for (const auto& session : all) session->close_if_idle();
  }

  void leave(const std::shared_ptr<Session>& session) { sessions_.erase(session); }

  const HttpLimits limits;
  const HttpHandler handler;
  uint64_t bodies_bytes = 0;
  bool draining = false;

 private:
  void wait_for_signal() {
    signals_.async_wait([this](const Error& error, int number) {
      if (error) return;
      heard_(number);
      wait_for_signal();
    });
  }

  void accept() {
    acceptor_.async_accept([this](const Error& error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) {  // no descriptor is left
        make_room();
        accept_again_.expires_after(duration_of(0.1));
        accept_again_.async_wait([this](const Error& e) {
          if (!e) accept();
        });
        return;
      }
      begin(std::move(socket));
      accept();
    });
  }

  void begin(Tcp::socket socket) {
    Error unimportant;
    socket.set_option(Tcp::no_delay(true), unimportant);
    socket.non_blocking(true, unimportant);
    if (connections() >= limits.connections && !make_room()) {
      const std::string_view full =
          "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
          "Content-Length: 0\r\n\r\n";
      socket.write_some(asio::buffer(full.data(), full.size()), unimportant);
      return;
    }
    const auto session = std::make_shared<Session>(*this, std::move(socket));
    sessions_.insert(session);
    session->start();
  }

  /// Closes the connection that has waited longest for a request of its client's.
  bool make_room() {
    std::shared_ptr<Session> oldest;
    for (const auto& session : sessions_)
      if (session->idle() && (oldest == nullptr || session->since() < oldest->since()))
        oldest = session;
    if (oldest == nullptr) return false;
    oldest->close();
    return true;
  }

  void sweep() {
    sweep_.expires_after(duration_of(kSweepS));
    sweep_.async_wait([this](const Error& error) {
      if (error) return;
      const double now = now_s();
      std::vector<std::shared_ptr<Session>> late;
      for (const auto& session : sessions_)
        if (session->deadline() < now) late.push_back(session);
      for (const auto& session : late) session->expire();
      sweep();
    });
  }

  asio::io_context io_{1};
  HttpMailbox mailbox_;
  Tcp::acceptor acceptor_;
  asio::steady_timer accept_again_, sweep_;
  asio::signal_set signals_;
  std::function<void(int)> heard_;
  std::set<std::shared_ptr<Session>> sessions_;
};

Session::Session(Server& server, Tcp::socket socket)
    : server_(server),
      socket_(std::move(socket)),
      reader_(server.limits.header_bytes, server.limits.body_bytes) {}

void Session::start() {
  await_head(server_.limits.header_s);
  read();
}

/// For the next request on this connection.
void Session::await_head(double patience_s) {
  state_ = State::kHead;
  since_ = now_s();
  deadline_ = since_ + patience_s;
  reader_.begin();
}

void Session::read() {
  if (reading_ || state_ == State::kClosed) return;
  reading_ = true;
  socket_.async_read_some(
      asio::buffer(piece_), [self = shared_from_this()](const Error& error, size_t bytes) {
        self->reading_ = false;
        // Who says that this was all still gets what was answered: answered() reads on.
        if (error == asio::error::eof && self->ended_) return;
        if (error) return self->close();
        // Whoever sends so much ahead is read on, so that his leaving is noticed, and not served on.
        const bool too_much =
            self->state_ == State::kAnswering && self->reader_.unread_bytes() >= kAheadBytes;
        if (too_much) self->keep_ = false;
        if (self->state_ != State::kLingering && !too_much)
          self->reader_.append({self->piece_.data(), bytes});
        if (self->state_ == State::kHead &&
            self->deadline_ > now_s() + self->server_.limits.header_s)
          self->deadline_ = now_s() + self->server_.limits.header_s;
        self->feed();
        self->read();
      });
}

/// Hands the parser what has come, unless a request is being answered.
void Session::feed() {
  if (feeding_) return;  // a request that was answered at once: the loop below goes on
  feeding_ = true;
  parse();
  feeding_ = false;
}

void Session::parse() {
  using Found = HttpRequestReader::Found;
  while (idle()) {
    const Found found = reader_.next();
    if (found == Found::kRefused) return refuse(reader_.refusal());
    if (found == Found::kHead) {
      take_head();
      continue;
    }
    count_body(reader_.body_bytes());
    if (server_.bodies_bytes > server_.limits.bodies_bytes)
      return refuse(HttpRefusal{503, "too many requests are being read; try again"});
    if (found == Found::kNothing) return;
    take_request();
  }
}

void Session::take_head() {
  keep_ = reader_.keep_alive();
  if (std::optional<HttpResponse> refusal = server_.handler.check_head(reader_.request())) {
    // Where nothing is left unread the connection can go on.
    if (reader_.next() != HttpRequestReader::Found::kRequest) return refuse(*refusal);
    state_ = State::kAnswering;
    deadline_ = kNever;
    return answer(*std::move(refusal));
  }
  state_ = State::kBody;
  deadline_ = now_s() + server_.limits.body_s;
  const std::string_view expected = reader_.request().header("expect");
  if (!reader_.complete() && reader_.unread_bytes() == 0 && reader_.http_1_1() &&
      boost::beast::iequals({expected.data(), expected.size()}, "100-continue")) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    flush();
  }
}

void Session::take_request() {
  HttpRequest request = reader_.take();
  count_body(0);
  state_ = State::kAnswering;
  deadline_ = kNever;
  exchange_ = std::make_shared<Exchange>(shared_from_this());
  server_.handler.handle(std::move(request), exchange_);
}

void Session::refuse(const HttpRefusal& refusal) {
  refuse(server_.handler.refused(refusal, reader_.request()));
}

/// A response before the request was read to its end. Closing at once would take it back: so what
/// still comes is read for a moment, and dropped.
void Session::refuse(const HttpResponse& response) {
  count_body(0);
  keep_ = false;
  reader_.drop();
  state_ = State::kLingering;
  deadline_ = now_s() + kLingerS;
  out_ += head_of(response, response.body.size()) + response.body;
  ended_ = true;
  flush();
}

void Session::count_body(uint64_t bytes) {
  server_.bodies_bytes += bytes - body_counted_;
  body_counted_ = bytes;
}

void Session::expire() {
  if (state_ == State::kBody || (state_ == State::kHead && reader_.unread_bytes() > 0))
    return refuse(HttpRefusal{408, "the request did not come in time"});
  close();
}

void Session::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  count_body(0);
  Error unimportant;
  socket_.close(unimportant);
  const auto self = shared_from_this();
  server_.leave(self);
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->leave(true);
}

std::string Session::head_of(const HttpResponse& r, std::optional<size_t> length) const {
  std::string head = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", r.status, reason_of(r.status), r.content_type);
  for (const auto& [name, value] : r.headers) head += fmt::format("{}: {}\r\n", name, value);
  if (length) head += fmt::format("Content-Length: {}\r\n", *length);
  if (!length && chunked_) head += "Transfer-Encoding: chunked\r\n";
  if (!keep_) head += "Connection: close\r\n";
  return head + "\r\n";
}

void Session::answer(HttpResponse response) {
  keep_ = keep_ && !server_.draining;
  out_ += head_of(response, response.body.size());
  if (!reader_.head_alone()) out_ += response.body;
  end();
}

void Session::begin(HttpResponse head) {
  chunked_ = reader_.http_1_1();  // before, the connection's end is the response's
  keep_ = keep_ && chunked_ && !server_.draining;
  out_ += head_of(head, std::nullopt);
}

void Session::write(std::string_view piece) {
  if (piece.empty()) return;
  // A piece that alone is larger has its time (write_s): until it is sent, what comes behind it is counted. That may
  // begin with another (what is said at a stream's beginning and at its end), and then ends with it.
  const bool large = piece.size() + kFramingBytes > server_.limits.unread_bytes;
  const uint64_t unread = queued_bytes() - std::max(sent_bytes_, large_until_);
  if (unread + (large ? 0 : piece.size()) > server_.limits.unread_bytes) return close();
  if (chunked_) {
    std::array<char, 18> head;  // of a chunk: its size in hexadecimal digits, and a line's end
    char* const end = std::to_chars(head.data(), head.data() + 16, piece.size(), 16).ptr;
    end[0] = '\r';
    end[1] = '\n';
    out_.append(head.data(), end + 2);
  }
  out_ += piece;
  if (chunked_) out_ += "\r\n";
  if (large && large_until_ <= sent_bytes_) large_until_ = queued_bytes();
  flush();
}

void Session::end() {
  if (std::exchange(chunked_, false)) out_ += "0\r\n\r\n";
  ended_ = true;
  // What is called on it from here on does nothing.
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->leave(false);
  flush();
}

void Session::flush() {
  if (!writing_.empty() || state_ == State::kClosed) return;
  if (out_.empty()) {
    if (ended_) answered();
    return;
  }
  std::swap(out_, writing_);
  // Sent at once, as far as the socket takes it: what is left waits for the client.
  Error error;
  const size_t sent = socket_.write_some(asio::buffer(writing_), error);
  if (error && error != asio::error::would_block) return close();
  if (!error) sent_bytes_ += sent;
  if (!error && sent == writing_.size()) {
    writing_.clear();
    if (ended_) answered();
    return;
  }
  if (!error) writing_.erase(0, sent);
  if (state_ == State::kAnswering) deadline_ = now_s() + server_.limits.write_s;
  socket_.async_wait(Tcp::socket::wait_write, [self = shared_from_this()](const Error& e) {
    if (e) return self->close();
    if (self->state_ == State::kAnswering) self->deadline_ = kNever;
    self->out_.insert(0, std::exchange(self->writing_, {}));
    self->flush();
  });
}

/// All of the response was sent.
void Session::answered() {
  ended_ = false;
  Error unimportant;
  if (state_ == State::kLingering) {
    socket_.shutdown(Tcp::socket::shutdown_send, unimportant);
    read();
    return;
  }
  if (!keep_) {
    // The client may still be sending what nobody will read.
    socket_.shutdown(Tcp::socket::shutdown_send, unimportant);
    state_ = State::kLingering;
    deadline_ = now_s() + kLingerS;
    reader_.drop();
    read();
    return;
  }
  await_head(reader_.unread_bytes() > 0 ? server_.limits.header_s : server_.limits.idle_s);
  feed();
  read();
}

void Exchange::answer(HttpResponse response) {
  if (const auto session = session_) session->answer(std::move(response));
}
void Exchange::begin(HttpResponse head) {
  if (const auto session = session_) session->begin(std::move(head));
}
void Exchange::write(std::string_view piece) {
  if (const auto session = session_) session->write(piece);
}
void Exchange::end() {
  if (const auto session = session_) session->end();
}
void Exchange::abort() {
  if (const auto session = session_) session->close();
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::listen(const std::string& host,
                                                       uint16_t port,
                                                       const HttpLimits& limits,
                                                       HttpHandler handler) {
  std::unique_ptr<Server> server;
  try {
    server = std::make_unique<Server>(limits, std::move(handler));
  } catch (const boost::system::system_error& e) {  // its queue of events, its pipe for signals
    return os_error("what a server waits for its connections with", e.code().value());
  }
  TRY(server->listen(host, port));
  return server;
}

}  // namespace ferry::serve
