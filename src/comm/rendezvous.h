// How the processes of a run find each other: whoever starts them opens a port for each, and gives each a
// ticket with everybody's port and a key that is this start's alone.
//
// A connection is a greeting and two proofs: both ends show that they have the key, by hashes over numbers that
// each of them has just drawn, and derive the keys of the link from it. Who has not is turned away, and the run
// does not hear of him. The key itself never goes over a link.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "comm/communicator.h"

namespace ferry::comm {

/// Owner: whoever starts the ranks, until all of them are started.
class Rendezvous {
 public:
  /// A port of this machine alone (127.0.0.1) for each rank, as the system gives them, and a new key. Errors:
  /// kExhausted, kUnavailable.
  static Result<Rendezvous> open(int ranks);
  Rendezvous(Rendezvous&&) noexcept;
  Rendezvous& operator=(Rendezvous&&) noexcept;
  ~Rendezvous();

  /// The socket on which the rank is to be reached: it is the rank's to have.
  int listener(int rank) const { return listeners_[static_cast<size_t>(rank)]; }
  /// One line, secret.
  std::string ticket(int rank) const;

 private:
  Rendezvous() = default;
  std::vector<int> listeners_;
  std::vector<uint16_t> ports_;
  Digest key_{};
};

/// Connects this rank with all others; takes the listener over. Errors: kInvalidInput (no ticket), kTimeout,
/// naming the rank that did not come; kUnavailable.
Result<std::unique_ptr<Communicator>> join(std::string_view ticket,
                                           int listener,
                                           double patience_s);

}  // namespace ferry::comm
