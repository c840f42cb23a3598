// How the processes of a run find each other: whoever starts them opens a port for each, and gives each a
// ticket with everybody's port and a key that is this meeting's alone. When one of them has died, and another is
// started in its place, there is another meeting: at the same ports, with another key and the next epoch.
//
// A connection is a greeting and two proofs: both ends show that they have the key, by hashes over numbers that
// each of them has just drawn, and derive the keys of the link from it. Who has not is turned away, and the run
// does not hear of him; nor of who comes to a meeting that is over. The key itself never goes over a link.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "comm/communicator.h"

namespace ferry::comm {

/// Owner: whoever starts the ranks, for as long as there may be another meeting.
class Rendezvous {
 public:
  /// A port of this machine alone (127.0.0.1) for each rank, as the system gives them, and a new key. Errors:
  /// kExhausted, kUnavailable.
  static Result<Rendezvous> open(int ranks);
  Rendezvous(Rendezvous&&) noexcept;
  Rendezvous& operator=(Rendezvous&&) noexcept;
  ~Rendezvous();

  /// Another meeting: tickets of the one before are worth nothing from now on.
  void renew();

  /// The socket on which the rank is to be reached: it is the rank's to have.
  int listener(int rank) const { return listeners_[static_cast<size_t>(rank)]; }
  /// One line, secret.
  std::string ticket(int rank) const;

 private:
  Rendezvous() = default;
  std::vector<int> listeners_;
  std::vector<uint16_t> ports_;
  Digest key_{};
  int64_t epoch_ = 1;
};

/// Told about once a second who is waited for.
using Waiting = std::function<void(int peer)>;

/// A rank's way to the others, for as long as it lives. One thread.
class Meetings {
 public:
  /// The socket where it is reached, and the descriptor from which its tickets come, a line each; it takes both over.
  Meetings(int listener, int tickets) : listener_(listener), tickets_(tickets) {}
  ~Meetings();
  Meetings(const Meetings&) = delete;
  Meetings& operator=(const Meetings&) = delete;

  /// Waits for a ticket to a meeting that it has not been to, and connects with everybody. Where a newer ticket comes
  /// meanwhile that one counts. Patience begins with each ticket. Errors: kInvalidInput (no ticket), kTimeout, naming
  /// the rank that did not come; kExhausted; kUnavailable: no more tickets come.
  Result<std::unique_ptr<Communicator>> next(double patience_s, const Waiting& waiting);

 private:
  Result<std::string> newest_ticket(const Waiting& waiting);
  int listener_, tickets_;
  std::string unread_;  // what has come of the next line
};

}  // namespace ferry::comm
