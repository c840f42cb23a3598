#include "comm/rejoining.h"

#include <utility>

#include "base/check.h"

namespace ferry::comm {

Result<std::unique_ptr<Rejoining>> Rejoining::begin(Join join, const Waiting& waiting) {
  std::unique_ptr<Rejoining> made(new Rejoining(std::move(join)));
  TRY(made->rejoin(waiting));
  return made;
}

Result<void> Rejoining::rejoin(const Waiting& waiting) {
  leave();
  TRY_ASSIGN(links_, join_(waiting));
  check(ranks_ == 0 || (links_->rank() == rank_ && links_->ranks() == ranks_),
        "rejoining: rank {} of {} came back as {} of {}",
        rank_,
        ranks_,
        links_->rank(),
        links_->ranks());
  rank_ = links_->rank();
  ranks_ = links_->ranks();
  links_->when_waiting(waiting_);
  return {};
}

void Rejoining::leave() {
  if (links_) sent_before_ += links_->bytes_sent();
  links_.reset();
}

void Rejoining::send(int to, const Tag& tag, std::span<const std::byte> bytes) {
  links_->send(to, tag, bytes);
}
void Rejoining::receive(int from, const Tag& tag, std::span<std::byte> bytes) {
  links_->receive(from, tag, bytes);
}
void Rejoining::finish(double patience_s) { links_->finish(patience_s); }

void Rejoining::when_waiting(Waiting waiting) {
  waiting_ = std::move(waiting);
  if (links_) links_->when_waiting(waiting_);
}

uint64_t Rejoining::bytes_sent() const {
  return sent_before_ + (links_ ? links_->bytes_sent() : 0);
}

}  // namespace ferry::comm
