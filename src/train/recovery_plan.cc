#include "train/recovery_plan.h"

#include <algorithm>

#include "base/check.h"

namespace ferry {
namespace {

using Stage = Standing::Stage;

tl::unexpected<Status> contradicts(int rank, const Standing& s, int64_t done) {
  return fail(
      Code::kUnavailable,
      "rank {} stands at step {} (stage {}), and another one at {}: they are not of one run",
      rank,
      s.done,
      static_cast<int>(s.stage),
      done);
}

}  // namespace

std::optional<int> lost_with_replica(const std::vector<bool>& whole) {
  const auto ranks = static_cast<int>(whole.size());
  for (int owner = 0; owner < ranks; ++owner)
    if (!whole[static_cast<size_t>(owner)] && !whole[static_cast<size_t>(replica_of(owner, ranks))])
      return owner;
  return std::nullopt;
}

Result<RecoveryPlan> plan_recovery(std::span<const Standing> ranks) {
  check(!ranks.empty(), "recovery: no ranks");
  const auto count = static_cast<int>(ranks.size());
  const auto at = [&](int r) -> const Standing& { return ranks[static_cast<size_t>(r)]; };
  std::vector<bool> whole;
  for (const Standing& s : ranks) whole.push_back(s.stage != Stage::kNothing);
  if (const std::optional<int> owner = lost_with_replica(whole))
    return fail(
        Code::kUnavailable,
        "ranks {} and {} are lost together, and with them all copies of what one of them held",
        *owner,
        replica_of(*owner, count));

  // The furthest that anybody knows to have been committed.
  RecoveryPlan plan;
  for (int r = 0; r < count; ++r)
    if (whole[static_cast<size_t>(r)])
      plan.done = std::max(plan.done, at(r).done + (at(r).stage == Stage::kCommitted ? 1 : 0));
  plan.teller = plan.hears = -1;
  for (int r = 0; r < count; ++r) {
    const Standing& s = at(r);
    const bool here = whole[static_cast<size_t>(r)];
    const bool behind = here && s.done < plan.done;
    // Whoever is behind has said that it was prepared, or nobody could have heard it of all.
    if (behind && (s.done != plan.done - 1 || s.stage == Stage::kBetween))
      return contradicts(r, s, plan.done);
    // And who is not has not gone on without him.
    const bool hears = here && (s.stage == Stage::kCommitted || s.done == plan.done);
    plan.forward |= behind;
    plan.fresh.push_back(!here);
    plan.behind.push_back(behind);
    plan.prepared.push_back(behind && s.stage == Stage::kPrepared);
    if (here && plan.teller < 0) plan.teller = r;
    if (hears && plan.hears < 0) plan.hears = r;
    plan.giver.push_back(here ? r : replica_of(r, count));
  }
  // Nobody can be prepared for a step beyond one that another has yet to finish.
  for (int r = 0; r < count && plan.forward; ++r)
    if (whole[static_cast<size_t>(r)] && at(r).done == plan.done && at(r).stage != Stage::kBetween)
      return contradicts(r, at(r), plan.done - 1);
  return plan;
}

bool RecoveryPlan::lacks_weights(int rank, int owner) const {
  const auto r = static_cast<size_t>(rank);
  return fresh[r] || (behind[r] && !holds_of(rank, owner, static_cast<int>(fresh.size())));
}

bool RecoveryPlan::lacks_state(int rank, int owner) const {
  return fresh[static_cast<size_t>(rank)] && holds_of(rank, owner, static_cast<int>(fresh.size()));
}

}  // namespace ferry
