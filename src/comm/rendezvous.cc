#include "comm/rendezvous.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/flight_record.h"
#include "base/json_fields.h"
#include "comm/socket_communicator.h"

namespace ferry::comm {
namespace {

constexpr int kRanksMax = 1024;
// For a stranger who says nothing, while those who belong here wait behind him. Who is turned away for being
// slow comes again.
constexpr double kGreetingS = 2;
constexpr double kAgainS = 0.05;

struct Ticket {
  int rank = 0;
  Digest key{};
  int64_t epoch = 0;
  std::vector<uint16_t> ports;  // of each rank
  int ranks() const { return static_cast<int>(ports.size()); }
};

Result<Ticket> read_ticket(std::string_view text) {
  const std::string where = "the ticket of a rank";
  TRY_ASSIGN(const nlohmann::json document, parse_json(text, where));
  JsonProblem problem;
  problem.code = Code::kInvalidInput;
  JsonFields f(document, where, problem);
  Ticket t;
  const std::optional<Digest> key = digest_from_hex(f.text("key"));
  if (!key) f.refuse("key", "is not a key");
  t.epoch = f.integer("epoch", 1, std::numeric_limits<int64_t>::max());
  for (const nlohmann::json& p : f.list("ports")) {
    const int64_t port = p.is_number_integer() ? p.get<int64_t>() : 0;
    if (port < 1 || port > 65535) f.refuse("ports", "are not ports");
    t.ports.push_back(static_cast<uint16_t>(port));
  }
  if (t.ports.empty() || t.ports.size() > kRanksMax) f.refuse("ports", "are none, or too many");
  t.rank = static_cast<int>(f.integer("rank", 0, std::max(0, t.ranks() - 1)));
  TRY(problem.done());
  t.key = *key;
  return t;
}

/// What the one who connects says first.
struct Greeting {
  char what[8] = {'F', 'E', 'R', 'R', 'Y', 'R', 'K', '2'};
  uint32_t from = 0, to = 0, ranks = 0, reserved = 0;
  int64_t epoch = 0;
  Digest number{};
};
static_assert(sizeof(Greeting) == 64);

/// What the other one answers; then the first one sends its proof, and is made welcome by another.
struct Answer {
  Digest number{};
  Digest proof{};
};
static_assert(sizeof(Answer) == 64);

/// A hash that only who has the key can make, of what both have said so far. Each word makes another one.
Digest derive(const Digest& key,
              std::string_view word,
              const Greeting& greeting,
              const Digest& number) {
  Hasher hasher;
  hasher.update(key.data(), key.size());
  hasher.update(word.data(), word.size());
  hasher.update(&greeting, sizeof greeting);
  hasher.update(number.data(), number.size());
  return hasher.digest();
}

/// A socket that is closed unless it is taken.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(Socket&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Socket& operator=(Socket&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  int fd() const { return fd_; }
  int take() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

double now_s() { return system_clock().monotonic_s(); }

/// Small messages go at once.
void send_at_once(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

sockaddr_in local(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

constexpr double kTellsEveryS = 1;  // who is waited for

/// One rank's part of one meeting.
class Joining {
 public:
  /// tickets: where a newer ticket would come from, which ends it; -1: none will.
  Joining(Ticket ticket, int listener, int tickets, double patience_s, const Waiting& waiting)
      : ticket_(std::move(ticket)),
        listener_(listener),
        tickets_(tickets),
        patience_s_(patience_s),
        deadline_s_(now_s() + patience_s),
        told_s_(now_s()),
        waiting_(waiting),
        links_(static_cast<size_t>(ticket_.ranks())) {}
  ~Joining() {
    for (const Link& l : links_)
      if (l.socket >= 0) ::close(l.socket);
  }
  Joining(const Joining&) = delete;
  Joining& operator=(const Joining&) = delete;

  /// Each rank connects to those below it, then hears those above.
  Result<std::vector<Link>> links() {
    for (int r = 0; r < ticket_.rank; ++r) TRY(connect_to(r));
    for (int missing = ticket_.ranks() - 1 - ticket_.rank; missing > 0;) {
      TRY_ASSIGN(const bool came, hear_one());
      missing -= came ? 1 : 0;
    }
    return std::exchange(links_, {});
  }

  /// There is a newer ticket, or there will be none: that is why it failed.
  bool superseded() const { return superseded_; }

 private:
  Link& link(int rank) { return links_[static_cast<size_t>(rank)]; }

  /// Whether it is ready by then.
  bool ready(int fd, short events, double deadline_s) {
    while (!superseded_) {
      const double now = now_s();
      if (waiting_ && now - told_s_ >= kTellsEveryS) {
        told_s_ = now;
        waiting_(missing());
      }
      if (now >= deadline_s) return false;
      pollfd polled[] = {{fd, events, 0}, {tickets_, POLLIN, 0}};
      const int ms = static_cast<int>(std::ceil(std::min(deadline_s - now, kTellsEveryS) * 1000));
      const int n = ::poll(polled, std::size(polled), ms);
      if (n < 0 && errno != EINTR) return false;
      if (n <= 0) continue;
      superseded_ = polled[1].revents != 0;
      if (polled[0].revents != 0) return !superseded_;
    }
    return false;
  }

  /// All of the bytes by then, or false.
  bool read_all(int fd, void* bytes, size_t size, double deadline_s) {
    auto* at = static_cast<char*>(bytes);
    while (size > 0) {
      if (!ready(fd, POLLIN, deadline_s)) return false;
      const ssize_t n = ::recv(fd, at, size, 0);
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n <= 0) return false;
      at += n;
      size -= static_cast<size_t>(n);
    }
    return true;
  }
  bool write_all(int fd, const void* bytes, size_t size, double deadline_s) {
    const auto* at = static_cast<const char*>(bytes);
    while (size > 0) {
      if (!ready(fd, POLLOUT, deadline_s)) return false;
      const ssize_t n = ::send(fd, at, size, MSG_NOSIGNAL);
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n <= 0) return false;
      at += n;
      size -= static_cast<size_t>(n);
    }
    return true;
  }

  /// The first one that is not connected.
  int missing() const {
    for (int r = 0; r < ticket_.ranks(); ++r)
      if (r != ticket_.rank && links_[static_cast<size_t>(r)].socket < 0) return r;
    return ticket_.rank;
  }

  Result<void> connect_to(int rank) {
    while (now_s() < deadline_s_ && !superseded_) {
      Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      if (socket.fd() < 0)
        return fail(Code::kExhausted, "rank {}: a socket: {}", ticket_.rank, std::strerror(errno));
      if (greet(socket, rank)) return {};
      // Refused (it has ended), or turned away for being slow.
      ::poll(nullptr, 0, static_cast<int>(kAgainS * 1000));
    }
    return fail(Code::kTimeout,
                "rank {}: rank {} could not be reached within {:.0f} s",
                ticket_.rank,
                rank,
                patience_s_);
  }

  bool greet(Socket& socket, int rank) {
    const int fd = socket.fd();
    const sockaddr_in address = local(ticket_.ports[static_cast<size_t>(rank)]);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
        (errno != EINPROGRESS || !ready(fd, POLLOUT, deadline_s_)))
      return false;
    send_at_once(fd);
    const Greeting greeting{.from = static_cast<uint32_t>(ticket_.rank),
                            .to = static_cast<uint32_t>(rank),
                            .ranks = static_cast<uint32_t>(ticket_.ranks()),
                            .epoch = ticket_.epoch,
                            .number = new_secret()};
    Answer answer;
    if (!write_all(fd, &greeting, sizeof greeting, deadline_s_) ||
        !read_all(fd, &answer, sizeof answer, deadline_s_) ||
        !same_digest(answer.proof, derive(ticket_.key, "hears", greeting, answer.number)))
      return false;
    const Digest proof = derive(ticket_.key, "connects", greeting, answer.number);
    Digest welcome{};
    if (!write_all(fd, &proof, sizeof proof, deadline_s_) ||
        !read_all(fd, &welcome, sizeof welcome, deadline_s_) ||
        !same_digest(welcome, derive(ticket_.key, "welcomes", greeting, answer.number)))
      return false;
    link(rank) = {socket.take(),
                  derive(ticket_.key, "there", greeting, answer.number),
                  derive(ticket_.key, "back", greeting, answer.number)};
    return true;
  }

  /// One who comes; false: he does not belong here.
  Result<bool> hear_one() {
    if (!ready(listener_, POLLIN, deadline_s_))
      return fail(Code::kTimeout,
                  "rank {}: rank {} did not come within {:.0f} s",
                  ticket_.rank,
                  missing(),
                  patience_s_);
    Socket socket(::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.fd() < 0) return false;  // he left again
    return hear(socket);
  }

  bool hear(Socket& socket) {
    const int fd = socket.fd();
    const double deadline_s = std::min(deadline_s_, now_s() + kGreetingS);
    send_at_once(fd);
    Greeting greeting;
    if (!read_all(fd, &greeting, sizeof greeting, deadline_s)) return false;
    const auto me = static_cast<uint32_t>(ticket_.rank),
               all = static_cast<uint32_t>(ticket_.ranks());
    const Greeting fitting;
    if (std::memcmp(greeting.what, fitting.what, sizeof greeting.what) != 0 || greeting.to != me ||
        greeting.ranks != all || greeting.epoch != ticket_.epoch || greeting.from <= me ||
        greeting.from >= all)
      return false;
    Answer answer{.number = new_secret()};
    answer.proof = derive(ticket_.key, "hears", greeting, answer.number);
    Digest proof{};
    if (!write_all(fd, &answer, sizeof answer, deadline_s) ||
        !read_all(fd, &proof, sizeof proof, deadline_s) ||
        !same_digest(proof, derive(ticket_.key, "connects", greeting, answer.number)))
      return false;
    Link& from = link(static_cast<int>(greeting.from));
    if (from.socket >= 0) return false;  // it is there already
    const Digest welcome = derive(ticket_.key, "welcomes", greeting, answer.number);
    if (!write_all(fd, &welcome, sizeof welcome, deadline_s)) return false;
    from = {socket.take(),
            derive(ticket_.key, "back", greeting, answer.number),
            derive(ticket_.key, "there", greeting, answer.number)};
    return true;
  }

  const Ticket ticket_;
  const int listener_, tickets_;
  const double patience_s_, deadline_s_;
  double told_s_;
  const Waiting& waiting_;
  bool superseded_ = false;
  std::vector<Link> links_;
};

}  // namespace

Result<Rendezvous> Rendezvous::open(int ranks) {
  check(ranks >= 1 && ranks <= kRanksMax, "rendezvous: {} ranks", ranks);
  Rendezvous r;
  r.key_ = new_secret();
  for (int i = 0; i < ranks; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail(Code::kExhausted, "a socket for rank {}: {}", i, std::strerror(errno));
    r.listeners_.push_back(fd);
    sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
        ::listen(fd, SOMAXCONN) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      return fail(
          Code::kUnavailable, "a port of 127.0.0.1 for rank {}: {}", i, std::strerror(errno));
    r.ports_.push_back(ntohs(address.sin_port));
  }
  return r;
}

Rendezvous::Rendezvous(Rendezvous&& o) noexcept
    : listeners_(std::exchange(o.listeners_, {})),
      ports_(std::move(o.ports_)),
      key_(o.key_),
      epoch_(o.epoch_) {}
Rendezvous& Rendezvous::operator=(Rendezvous&& o) noexcept {
  std::swap(listeners_, o.listeners_);
  std::swap(ports_, o.ports_);
  std::swap(key_, o.key_);
  std::swap(epoch_, o.epoch_);
  return *this;
}
Rendezvous::~Rendezvous() {
  for (const int fd : listeners_) ::close(fd);
}

void Rendezvous::renew() {
  key_ = new_secret();
  ++epoch_;
}

std::string Rendezvous::ticket(int rank) const {
  const nlohmann::json j = {
      {"rank", rank}, {"epoch", epoch_}, {"ports", ports_}, {"key", to_hex(key_)}};
  return json_text(j);
}

Result<std::unique_ptr<Communicator>> join(std::string_view ticket,
                                           int listener,
                                           double patience_s) {
  const Socket mine(listener);
  TRY_ASSIGN(Ticket read, read_ticket(ticket));
  const int rank = read.rank;
  const flight::In meeting(flight::Activity::kMeeting);
  TRY_ASSIGN(std::vector<Link> links,
             Joining(std::move(read), listener, -1, patience_s, {}).links());
  return socket_communicator(rank, std::move(links));
}

Meetings::~Meetings() {
  for (const int fd : {listener_, tickets_}) ::close(fd);
}

/// The last line that there is; waits for one if there is none.
Result<std::string> Meetings::newest_ticket(const Waiting& waiting) {
  std::string newest;
  for (;;) {
    pollfd polled{tickets_, POLLIN, 0};
    const int ms = newest.empty() ? static_cast<int>(kTellsEveryS * 1000) : 0;
    const int n = ::poll(&polled, 1, ms);
    if (n < 0 && errno != EINTR)
      return fail(Code::kUnavailable, "waiting for a ticket: {}", std::strerror(errno));
    if (n <= 0) {
      if (!newest.empty()) return newest;
      if (n == 0 && waiting) waiting(-1);
      continue;
    }
    char bytes[4096];
    const ssize_t size = ::read(tickets_, bytes, sizeof bytes);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return fail(Code::kUnavailable, "there is no further meeting of the ranks");
    unread_.append(bytes, static_cast<size_t>(size));
    for (size_t end; (end = unread_.find('\n')) != std::string::npos; unread_.erase(0, end + 1))
      newest = unread_.substr(0, end);
  }
}

Result<std::unique_ptr<Communicator>> Meetings::next(double patience_s, const Waiting& waiting) {
  const flight::In meeting(flight::Activity::kMeeting);
  for (;;) {
    TRY_ASSIGN(const std::string text, newest_ticket(waiting));
    TRY_ASSIGN(Ticket ticket, read_ticket(text));
    const int rank = ticket.rank;
    Joining joining(std::move(ticket), listener_, tickets_, patience_s, waiting);
    Result<std::vector<Link>> links = joining.links();
    if (links) return socket_communicator(rank, *std::move(links));
    if (!joining.superseded()) return tl::unexpected(std::move(links).error());
  }
}

}  // namespace ferry::comm
