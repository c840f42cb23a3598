// What the ranks of a run tell each other: tagged messages from one to one, and nothing else. Sums are Ferry's
// own (comm/reduce_plan.h): a library's reductions add in an order that depends on the number of ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"

namespace ferry::comm {

/// What a message is about. The values are part of what ranks say to each other.
enum class Purpose : uint32_t {
  kAgreement = 1,  // whether all can go on, and with the same
  kStop = 2,
  kNumbers = 3,  // of a step: losses, expert counts, which gradients there are
  kGradients = 4,
  kSquares = 5,
  kWeights = 6,
  kState = 7,  // of the optimizer, for a checkpoint
  kHeldOut = 8,
  kSums = 9,         // of gradients, for the replica of their owner
  kFigures = 10,     // that rank 0 has measured
  kEnd = 11,         // all is saved
  kStanding = 12,    // when a rank has a successor: where each one is
  kHeard = 13,       // what was heard of a step that is being finished
  kModel = 14,       // what model it is
  kGiven = 15,       // weights, for whoever has not got them
  kGivenState = 16,  // what its predecessor held
  kCarried = 17,     // what the loop carries from step to step
  kHashes = 18,      // of what each holds, when that is compared between two steps
  kRewind = 19,      // which step a loss spike is gone back from to
};

/// What is expected next on a link: both ends must mean the same.
struct Tag {
  Purpose purpose = Purpose::kAgreement;
  int64_t step = 0;
  uint32_t index = 0;  // among the messages of this purpose on this link
  bool operator==(const Tag&) const = default;
};
std::string to_string(const Tag& tag);  // "gradients of step 12"

/// A link between two ranks failed: the other one is gone, silent, or said what was not expected. What was being
/// done together cannot go on. Handled like any failure of a device.
class LinkError : public DeviceError {
 public:
  /// gone: the other end closed the link, which is the other rank's failure, told by whoever saw it end.
  LinkError(int rank, int peer, bool gone, const std::string& what);
  int peer() const { return peer_; }
  bool gone() const { return gone_; }

 private:
  int peer_;
  bool gone_;
};

/// One rank's end of the links to all others. On each link messages arrive in the order in which they were
/// sent, whole and unharmed, or not at all. Thread rule: one thread.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int ranks() const = 0;

  /// Both only note what is to be done; the bytes must stay until finish(). What a rank is to receive from
  /// another it receives in the order in which that one sends it, with the same tags and sizes.
  virtual void send(int to, const Tag& tag, std::span<const std::byte> bytes) = 0;
  virtual void receive(int from, const Tag& tag, std::span<std::byte> bytes) = 0;

  /// Does all that was noted, on all links at once. Errors: throws LinkError: a rank is gone; for
  /// `patience_s` nothing moved on any link; a message is not the one that was expected, or was harmed.
  virtual void finish(double patience_s) = 0;

  /// Called about once a second while finish() waits with nothing moving, with a rank that is waited for.
  virtual void when_waiting(std::function<void(int peer)> waiting) = 0;

  /// Of messages, by this rank, without what goes round them.
  virtual uint64_t bytes_sent() const = 0;
};

/// The bytes of numbers, to be sent or filled.
template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& numbers) {
  return std::as_bytes(std::span(numbers));
}
template <typename T>
std::span<std::byte> bytes_of(std::vector<T>& numbers) {
  return std::as_writable_bytes(std::span(numbers));
}

/// Everybody's bytes, by rank; `sizes` says how many each one gives.
std::vector<std::vector<std::byte>> all_gather(Communicator& ranks,
                                               const Tag& tag,
                                               std::span<const std::byte> mine,
                                               std::span<const size_t> sizes,
                                               double patience_s);

/// Everybody's text, by rank. Errors: throws LinkError, also for one above bytes_max. check: mine is not.
std::vector<std::string> all_gather_texts(Communicator& ranks,
                                          const Tag& tag,
                                          const std::string& mine,
                                          double patience_s,
                                          uint64_t bytes_max = uint64_t{1} << 20);

/// The text of one rank for those of `to`; what the others get is empty. Errors: throws LinkError, also for one above
/// bytes_max.
std::string hand_text(Communicator& ranks,
                      const Tag& tag,
                      int from,
                      const std::vector<bool>& to,
                      const std::string& mine,
                      double patience_s,
                      uint64_t bytes_max);

/// Whether any rank says yes.
bool any_of(Communicator& ranks, const Tag& tag, bool mine, double patience_s);

}  // namespace ferry::comm
