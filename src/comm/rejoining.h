// A rank's links that can be made anew: when a rank is gone, its successor and all others meet again, and whoever
// holds this communicator goes on with it.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "comm/communicator.h"
#include "comm/rendezvous.h"

namespace ferry::comm {

/// Owner: the process, for its training loop. One thread.
class Rejoining final : public Communicator {
 public:
  /// Connects with all others, anew each time.
  using Join = std::function<Result<std::unique_ptr<Communicator>>(const Waiting& waiting)>;

  /// Errors: of `join`.
  static Result<std::unique_ptr<Rejoining>> begin(Join join, const Waiting& waiting);

  /// Closes all links, so that every rank hears that there is something to meet for, and joins. What was under way on
  /// the old links is lost; what comes over the new ones was said after this. Errors: of `join`: there are no links
  /// then, and nothing may be sent.
  Result<void> rejoin(const Waiting& waiting);

  /// Closes all links, for whoever has nothing more to say. Nothing may be sent then, nor received.
  void leave();

  int rank() const override { return rank_; }
  int ranks() const override { return ranks_; }
  void send(int to, const Tag& tag, std::span<const std::byte> bytes) override;
  void receive(int from, const Tag& tag, std::span<std::byte> bytes) override;
  void finish(double patience_s) override;
  void when_waiting(Waiting waiting) override;
  uint64_t bytes_sent() const override;

 private:
  explicit Rejoining(Join join) : join_(std::move(join)) {}
  Join join_;
  Waiting waiting_;
  std::unique_ptr<Communicator> links_;
  int rank_ = 0, ranks_ = 0;
  uint64_t sent_before_ = 0;  // over links that are gone
};

}  // namespace ferry::comm
