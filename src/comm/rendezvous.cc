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
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/flight_record.h"
#include "base/json_fields.h"
#include "base/os_error.h"
#include "comm/socket_communicator.h"

namespace ferry::comm {
namespace {

constexpr int kRanksMax = 1024;
// Who connects and says nothing is turned away after so long, or when so many more are there than ranks: the oldest.
// Who belongs here comes again.
constexpr double kGreetingS = 2;
constexpr size_t kStrangersMax = 64;
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

/// The bytes go at once, or something is wrong: a new connection has room for so few.
bool send_whole(int fd, const void* bytes, size_t size) {
  ssize_t n;
  do n = ::send(fd, bytes, size, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(size);
}

/// One who has connected, and what he has said so far: a greeting, then the proof that he has the key.
struct Caller {
  Socket socket;
  double deadline_s = 0;
  Greeting greeting{};
  Digest number{};  // that he was answered with
  Digest proof{};
  size_t heard = 0;  // bytes of both

  /// What comes next of what he says, without a gap; empty: he has said all.
  std::span<std::byte> next() {
    const auto said = std::as_writable_bytes(std::span(&greeting, 1));
    if (heard < said.size()) return said.subspan(heard);
    return std::as_writable_bytes(std::span(proof)).subspan(heard - said.size());
  }
};

constexpr double kTellsEveryS = 1;  // who is waited for

/// One rank's part of one meeting.
class Joining {
 public:
  /// tickets: where a newer ticket would come from, which ends it.
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
    TRY(hear_those_above());
    return std::exchange(links_, {});
  }

  /// There is a newer ticket, or there will be none: that is why it failed.
  bool superseded() const { return superseded_; }

 private:
  Link& link(int rank) { return links_[static_cast<size_t>(rank)]; }

  /// Whether one of these is ready by then; `polled` says which.
  Result<bool> wait(std::vector<pollfd>& polled, double deadline_s) {
    polled.push_back({tickets_, POLLIN, 0});
    while (!superseded_) {
      const double now = now_s();
      if (waiting_ && now - told_s_ >= kTellsEveryS) {
        told_s_ = now;
        waiting_(missing());
      }
      if (now >= deadline_s) return false;
      const int ms = static_cast<int>(std::ceil(std::min(deadline_s - now, kTellsEveryS) * 1000));
      const int n = ::poll(polled.data(), polled.size(), ms);
      if (n < 0 && errno != EINTR)
        return fail(Code::kExhausted, "rank {}: poll: {}", ticket_.rank, std::strerror(errno));
      if (n <= 0) continue;
      superseded_ = polled.back().revents != 0;
      return !superseded_;
    }
    return false;
  }
  bool ready(int fd, short events, double deadline_s) {
    std::vector<pollfd> polled = {{fd, events, 0}};
    return wait(polled, deadline_s).value_or(false);
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

  /// All who come are heard at once: nobody waits behind one who says nothing.
  Result<void> hear_those_above() {
    std::vector<Caller> callers;  // oldest first
    for (int left = ticket_.ranks() - 1 - ticket_.rank; left > 0;) {
      std::vector<pollfd> polled = {{listener_, POLLIN, 0}};
      double until_s = deadline_s_;
      for (const Caller& c : callers) {
        polled.push_back({c.socket.fd(), POLLIN, 0});
        until_s = std::min(until_s, c.deadline_s);
      }
      TRY(wait(polled, until_s));
      const double now = now_s();
      if (superseded_ || now >= deadline_s_)
        return fail(Code::kTimeout,
                    "rank {}: rank {} did not come within {:.0f} s",
                    ticket_.rank,
                    missing(),
                    patience_s_);
      for (size_t i = callers.size(); i-- > 0;) {
        Call call = polled[i + 1].revents != 0 ? hear(callers[i]) : Call::kGoesOn;
        if (call == Call::kGoesOn && now >= callers[i].deadline_s) call = Call::kTurnedAway;
        if (call == Call::kConnected) --left;
        if (call != Call::kGoesOn) callers.erase(callers.begin() + static_cast<ptrdiff_t>(i));
      }
      if (polled[0].revents != 0) TRY(let_in(callers));
    }
    return {};
  }

  Result<void> let_in(std::vector<Caller>& callers) {
    Socket socket(::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.fd() < 0) {
      if (errno == EINTR || errno == EAGAIN || errno == ECONNABORTED) return {};  // he left again
      return fail(
          Code::kExhausted, "rank {}: a connection to it: {}", ticket_.rank, std::strerror(errno));
    }
    send_at_once(socket.fd());
    if (callers.size() >= links_.size() + kStrangersMax) callers.erase(callers.begin());
    callers.push_back({.socket = std::move(socket), .deadline_s = now_s() + kGreetingS});
    return {};
  }

  enum class Call { kGoesOn, kConnected, kTurnedAway };

  /// What he has said by now.
  Call hear(Caller& c) {
    for (;;) {
      const std::span<std::byte> next = c.next();
      const ssize_t n = ::recv(c.socket.fd(), next.data(), next.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return Call::kGoesOn;
      if (n <= 0) return Call::kTurnedAway;
      c.heard += static_cast<size_t>(n);
      if (c.heard == sizeof c.greeting && !answer(c)) return Call::kTurnedAway;
      if (c.next().empty()) return welcome(c) ? Call::kConnected : Call::kTurnedAway;
    }
  }

  bool answer(Caller& c) const {
    const auto me = static_cast<uint32_t>(ticket_.rank),
               all = static_cast<uint32_t>(ticket_.ranks());
    const Greeting& greeting = c.greeting;
    const Greeting fitting;
    if (std::memcmp(greeting.what, fitting.what, sizeof greeting.what) != 0 || greeting.to != me ||
        greeting.ranks != all || greeting.epoch != ticket_.epoch || greeting.from <= me ||
        greeting.from >= all)
      return false;
    c.number = new_secret();
    const Answer answer{.number = c.number,
                        .proof = derive(ticket_.key, "hears", greeting, c.number)};
    return send_whole(c.socket.fd(), &answer, sizeof answer);
  }

  bool welcome(Caller& c) {
    Link& from = link(static_cast<int>(c.greeting.from));
    if (!same_digest(c.proof, derive(ticket_.key, "connects", c.greeting, c.number)) ||
        from.socket >= 0)  // it is there already
      return false;
    const Digest welcome = derive(ticket_.key, "welcomes", c.greeting, c.number);
    if (!send_whole(c.socket.fd(), &welcome, sizeof welcome)) return false;
    from = {c.socket.take(),
            derive(ticket_.key, "back", c.greeting, c.number),
            derive(ticket_.key, "there", c.greeting, c.number)};
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
    if (fd < 0) return os_error(fmt::format("a socket for rank {}", i), errno);
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
      return fail(Code::kExhausted, "waiting for a ticket: {}", std::strerror(errno));
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
