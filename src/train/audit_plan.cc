#include "train/audit_plan.h"

#include "base/check.h"
#include "base/random.h"

namespace ferry {

std::vector<int> auditors_of(int64_t step, int ranks, const AuditSettings& settings) {
  check(step >= 0 && ranks > 0, "audit: step {} of {} ranks", step, ranks);
  std::vector<int> auditors(static_cast<size_t>(ranks), -1);
  if (ranks == 1) return auditors;
  const auto others = static_cast<uint64_t>(ranks - 1);
  const auto behind = [&](int rank, uint64_t places) {
    return static_cast<int>((static_cast<uint64_t>(rank) + 1 + places % others) %
                            static_cast<uint64_t>(ranks));
  };
  if (settings.each_step) {
    for (int r = 0; r < ranks; ++r)
      auditors[static_cast<size_t>(r)] = behind(r, static_cast<uint64_t>(step));
    return auditors;
  }
  if (settings.every <= 0) return auditors;
  // One step of each period: the same cost in each, and none that a fault could keep clear of.
  const int64_t period = step / settings.every;
  const Random random(settings.seed, RandomPurpose::kAudit, static_cast<uint64_t>(period));
  if (step % settings.every !=
      static_cast<int64_t>(random.below(0, static_cast<uint64_t>(settings.every))))
    return auditors;
  const auto rank = static_cast<int>(random.below(1, static_cast<uint64_t>(ranks)));
  auditors[static_cast<size_t>(rank)] = behind(rank, random.below(2, others));
  return auditors;
}

}  // namespace ferry
