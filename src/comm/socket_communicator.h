// A communicator over sockets that somebody has connected: pairs of them within a process, or TCP between
// processes (comm/rendezvous.h). Not Gloo: only its sends and receives could be used, which have neither
// hash nor key, and a malformed header ends the process that receives it. Every message carries a hash
// that only the two ends of its link can make, so that what was harmed on the way, repeated or slipped in
// by somebody else is told from what was sent.
#pragma once

#include <memory>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "comm/communicator.h"

namespace ferry::comm {

/// One end of a connection to another rank.
struct Link {
  int socket = -1;  // a stream, not blocking; the communicator closes it; -1: this rank itself
  Digest send_key{}, receive_key{};
};

/// links[i] leads to rank i.
std::unique_ptr<Communicator> socket_communicator(int rank, std::vector<Link> links);

/// All ranks of a run within one process, each to be used by a thread of its own. Errors: kExhausted (no
/// sockets).
Result<std::vector<std::unique_ptr<Communicator>>> local_communicators(int ranks);

}  // namespace ferry::comm
