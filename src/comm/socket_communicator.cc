#include "comm/socket_communicator.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "base/alive.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/flight_record.h"

namespace ferry::comm {
namespace {

constexpr double kTellsEveryS = 1;  // who is waited for
constexpr double kLooksEveryS =
    0.25;  // and says that it looks: who does not is stuck, and waits for nobody

/// In front of each message. Both ends run the same binary on machines of one byte order: agreed on before
/// anything is trained (train/agreement.h), and by the greeting of comm/rendezvous.cc.
struct Header {
  uint32_t purpose = 0;
  uint32_t index = 0;
  int64_t step = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(Header) == 24);

Header header_of(const Tag& tag, size_t bytes) {
  return {static_cast<uint32_t>(tag.purpose), tag.index, tag.step, bytes};
}
Tag tag_of(const Header& h) { return {static_cast<Purpose>(h.purpose), h.step, h.index}; }

Digest hash_of(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.update(bytes.data(), bytes.size());
  return hasher.digest();
}

/// The hash of a message: keyed, and of its place on the link.
Digest digest_of(const Digest& key, uint64_t number, const Header& header, const Digest& bytes) {
  Hasher hasher;
  hasher.update(key.data(), key.size());
  hasher.update(&number, sizeof number);
  hasher.update(&header, sizeof header);
  hasher.update(bytes.data(), bytes.size());
  return hasher.digest();
}

/// A message on its way: header, bytes, digest, one after the other.
template <typename Bytes>
struct Message {
  Tag tag;
  Header header;
  std::span<Bytes> bytes;
  Digest digest{};
  size_t done = 0;  // of all three

  size_t size() const { return sizeof header + bytes.size() + digest.size(); }
  /// What comes next of it, without a gap.
  std::span<Bytes> next() {
    size_t at = done;
    const auto piece = [&at](auto* data, size_t size) -> std::span<Bytes> {
      if (at >= size) {
        at -= size;
        return {};
      }
      return {reinterpret_cast<Bytes*>(data) + at, size - at};
    };
    if (const auto s = piece(&header, sizeof header); !s.empty()) return s;
    if (const auto s = piece(bytes.data(), bytes.size()); !s.empty()) return s;
    return piece(digest.data(), digest.size());
  }
};

class SocketCommunicator : public Communicator {
 public:
  SocketCommunicator(int rank, std::vector<Link> links) : rank_(rank) {
    for (Link& link : links) peers_.push_back({.link = std::exchange(link, {})});
    // Of the links before these, if a rank was lost, nothing is under way any more.
    for (size_t p = 0; p < peers_.size(); ++p) tell_of(static_cast<int>(p));
  }
  ~SocketCommunicator() override {
    for (const Peer& p : peers_)
      if (p.link.socket >= 0) ::close(p.link.socket);
  }
  SocketCommunicator(const SocketCommunicator&) = delete;
  SocketCommunicator& operator=(const SocketCommunicator&) = delete;

  int rank() const override { return rank_; }
  int ranks() const override { return static_cast<int>(peers_.size()); }

  void send(int to, const Tag& tag, std::span<const std::byte> bytes) override {
    Peer& peer = of(to);
    const Header header = header_of(tag, bytes.size());
    // The same bytes for everybody are hashed once: they stay as they are until finish().
    if (!hashed_ || hashed_->bytes.data() != bytes.data() || hashed_->bytes.size() != bytes.size())
      hashed_ = Hashed{bytes, hash_of(bytes)};
    peer.out.push_back(
        {tag, header, bytes, digest_of(peer.link.send_key, peer.sent++, header, hashed_->hash)});
    sent_ += bytes.size();
  }

  void receive(int from, const Tag& tag, std::span<std::byte> bytes) override {
    of(from).in.push_back({tag, {}, bytes});
  }

  void finish(double patience_s) override {
    hashed_.reset();
    const flight::In messages(flight::Activity::kMessages);
    flight::begin_exchange();
    for (size_t p = 0; p < peers_.size(); ++p) tell_of(static_cast<int>(p));
    const Clock& clock = system_clock();
    double moved_at = clock.monotonic_s(), told_at = moved_at;
    while (!idle()) {
      const double now = clock.monotonic_s();
      const double until =
          std::min({moved_at + patience_s, told_at + kTellsEveryS, now + kLooksEveryS});
      flight::looked();
      if (wait(until - now)) {
        moved_at = told_at = clock.monotonic_s();
        continue;
      }
      const int peer = waited_for();
      if (clock.monotonic_s() - moved_at >= patience_s)
        fail_link(peer, false, fmt::format("was silent for {:.0f} s", patience_s));
      if (clock.monotonic_s() - told_at < kTellsEveryS) continue;
      told_at = clock.monotonic_s();
      if (waiting_) waiting_(peer);
    }
  }

  void when_waiting(std::function<void(int)> waiting) override { waiting_ = std::move(waiting); }
  uint64_t bytes_sent() const override { return sent_; }

 private:
  struct Peer {
    Link link;
    std::deque<Message<const std::byte>> out = {};
    std::deque<Message<std::byte>> in = {};
    uint64_t sent = 0, received = 0;              // messages
    uint64_t bytes_sent = 0, bytes_received = 0;  // ever, with what goes round them
    bool lost = false;                            // a test lets the link swallow what is sent
  };

  Peer& of(int peer) {
    check(peer >= 0 && peer < ranks() && peer != rank_, "communicator: rank {} to {}", rank_, peer);
    return peers_[static_cast<size_t>(peer)];
  }

  struct Hashed {
    std::span<const std::byte> bytes;
    Digest hash{};
  };

  bool idle() const {
    return std::all_of(
        peers_.begin(), peers_.end(), [](const Peer& p) { return p.in.empty() && p.out.empty(); });
  }

  /// Who has not sent what is expected; if there is nobody, who does not take what is sent.
  int waited_for() const {
    for (size_t p = 0; p < peers_.size(); ++p)
      if (!peers_[p].in.empty()) return static_cast<int>(p);
    for (size_t p = 0; p < peers_.size(); ++p)
      if (!peers_[p].out.empty()) return static_cast<int>(p);
    return rank_;
  }

  /// What the supervisor sees of a link, should it come to a standstill.
  void tell_of(int peer) const {
    const Peer& p = peers_[static_cast<size_t>(peer)];
    const auto of = [](const auto& queue) {
      if (queue.empty()) return flight::Message{};
      const auto& m = queue.front();
      return flight::Message{
          static_cast<uint32_t>(m.tag.purpose), m.tag.index, m.tag.step, m.size(), m.done};
    };
    flight::set_out(peer, of(p.out), p.bytes_sent);
    flight::set_in(peer, of(p.in), p.bytes_received);
  }

  /// Moves what can be moved, at most so long from now on. False: nothing moved.
  bool wait(double seconds) {
    std::vector<pollfd> polled;
    for (const Peer& p : peers_) {
      const int events = (p.in.empty() ? 0 : POLLIN) | (p.out.empty() ? 0 : POLLOUT);
      polled.push_back({events != 0 ? p.link.socket : -1, static_cast<short>(events), 0});
    }
    const int ms = static_cast<int>(std::ceil(std::clamp(seconds, 0.0, 3600.0) * 1000));
    const int ready = ::poll(polled.data(), polled.size(), ms);
    // It would fail again at once, and for ever: nothing is heard of any link.
    if (ready < 0 && errno != EINTR) fail_link(waited_for(), false, std::strerror(errno));
    if (ready <= 0) return false;
    bool moved = false;
    for (size_t p = 0; p < peers_.size(); ++p) {
      const int events = polled[p].revents;
      // What a rank said before it left is read first.
      if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && !peers_[p].in.empty())
        moved |= read(static_cast<int>(p));
      if ((events & (POLLOUT | POLLHUP | POLLERR)) != 0 && !peers_[p].out.empty())
        moved |= write(static_cast<int>(p));
    }
    return moved;
  }

  bool write(int to) {
    Peer& peer = of(to);
    bool moved = false;
    flight::set_peer(to, true);
    while (!peer.out.empty()) {
      Message<const std::byte>& m = peer.out.front();
      std::span<const std::byte> next = m.next();
      if (faults_armed()) next = before_fault(peer, m, next);
      const ssize_t n = peer.lost
                            ? static_cast<ssize_t>(next.size())
                            : ::send(peer.link.socket, next.data(), next.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return moved;
      if (n < 0) fail_link(to, is_gone(errno), std::strerror(errno));
      moved = true;
      m.done += static_cast<size_t>(n);
      peer.bytes_sent += static_cast<uint64_t>(n);
      still_alive();
      if (m.done == m.size()) peer.out.pop_front();
      tell_of(to);
    }
    return moved;
  }

  /// A test stops a rank within a message (comm.send, when half of it is sent), or harms a link: from
  /// comm.lose on nothing that is sent on it arrives.
  static std::span<const std::byte> before_fault(Peer& peer,
                                                 const Message<const std::byte>& m,
                                                 std::span<const std::byte> next) {
    const size_t half = m.size() / 2;
    if (m.done == 0 && fault_point("comm.lose") != 0) peer.lost = true;
    if (m.done == half) static_cast<void>(fault_point("comm.send"));
    return m.done < half ? next.first(std::min(next.size(), half - m.done)) : next;
  }

  bool read(int from) {
    Peer& peer = of(from);
    bool moved = false;
    flight::set_peer(from, false);
    while (!peer.in.empty()) {
      Message<std::byte>& m = peer.in.front();
      const std::span<std::byte> next = m.next();
      const ssize_t n = ::recv(peer.link.socket, next.data(), next.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return moved;
      if (n < 0) fail_link(from, is_gone(errno), std::strerror(errno));
      if (n == 0) fail_link(from, true, "closed its end of the link");
      moved = true;
      const size_t before = m.done;
      m.done += static_cast<size_t>(n);
      peer.bytes_received += static_cast<uint64_t>(n);
      still_alive();
      if (before < sizeof m.header && m.done >= sizeof m.header) expect(from, m);
      if (m.done == m.size()) {
        accept(from, m);
        peer.in.pop_front();
      }
      tell_of(from);
    }
    return moved;
  }

  /// The header is there: it must be that of the message that comes next, or what follows would be read
  /// as something else.
  void expect(int from, const Message<std::byte>& m) {
    if (tag_of(m.header) == m.tag && m.header.bytes == m.bytes.size()) return;
    fail_link(from,
              false,
              fmt::format("sent {} (number {}, {} bytes)",
                          to_string(tag_of(m.header)),
                          m.header.index,
                          m.header.bytes));
  }

  void accept(int from, Message<std::byte>& m) {
    Peer& peer = of(from);
    // A test harms what was received.
    if (fault_point("comm.receive") != 0 && !m.bytes.empty()) m.bytes[0] ^= std::byte{1};
    if (!same_digest(m.digest,
                     digest_of(peer.link.receive_key, peer.received++, m.header, hash_of(m.bytes))))
      fail_link(from, false, "sent a message whose bytes are not those that were hashed");
  }

  static bool is_gone(int error) { return error == EPIPE || error == ECONNRESET; }

  [[noreturn]] void fail_link(int peer, bool gone, const std::string& how) {
    const Peer& p = peers_[static_cast<size_t>(peer)];
    std::string during;
    if (!p.in.empty())
      during = fmt::format(" when rank {} expected {} (number {}, {} bytes)",
                           rank_,
                           to_string(p.in.front().tag),
                           p.in.front().tag.index,
                           p.in.front().bytes.size());
    else if (!p.out.empty())
      during = fmt::format(" when rank {} sent {}", rank_, to_string(p.out.front().tag));
    throw LinkError(rank_, peer, gone, fmt::format("rank {} {}{}", peer, how, during));
  }

  int rank_;
  std::vector<Peer> peers_;
  std::function<void(int)> waiting_;
  std::optional<Hashed> hashed_;  // what was sent last
  uint64_t sent_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> socket_communicator(int rank, std::vector<Link> links) {
  return std::make_unique<SocketCommunicator>(rank, std::move(links));
}

Result<std::vector<std::unique_ptr<Communicator>>> local_communicators(int ranks) {
  const auto n = static_cast<size_t>(ranks);
  std::vector<std::vector<Link>> links(n, std::vector<Link>(n));
  Result<void> made;
  for (size_t a = 0; a < n && made; ++a)
    for (size_t b = a + 1; b < n && made; ++b) {
      int ends[2];
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
        made = fail(Code::kExhausted, "sockets for {} ranks: {}", ranks, std::strerror(errno));
        continue;
      }
      const Digest there = new_secret(), back = new_secret();
      links[a][b] = {ends[0], there, back};
      links[b][a] = {ends[1], back, there};
    }
  // Communicators close what there is, also if that is not all.
  std::vector<std::unique_ptr<Communicator>> all;
  for (int r = 0; r < ranks; ++r)
    all.push_back(socket_communicator(r, std::move(links[static_cast<size_t>(r)])));
  TRY(made);
  return all;
}

}  // namespace ferry::comm
