#include "train/hang_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/units.h"
#include "train/supervisor.h"

namespace ferry::hang {
namespace {

using flight::Activity;
using supervisor::Work;

constexpr size_t kKept = 100;            // intervals of a kind
constexpr double kKeptS = 1800;          // a disk that once stood still does not excuse it for ever
constexpr double kTimes = 4;             // as long as the longest of them may be more of the same
constexpr double kAtFirst = 20;          // times the shortest hang: of what was never done before
constexpr double kDiskTimes = 2.5;       // times the same: of a disk, which others keep busy
constexpr double kSlowDisk = 20e6;       // bytes a second that a sync can count on
constexpr double kSlowMessages = 100e6;  // and hashing a message
constexpr double kSleepShare = 0.05;     // of a processor, by the threads that look after things
constexpr double kTickS = 0.03;          // in which the system counts a processor's time
constexpr int kWindows = 3;
constexpr int64_t kStepsMin = 4;  // over which speeds are compared, in each window
constexpr double kSlowAgainS = 60;

/// What is compared with its like: "op 3 matmul".
std::string kind_of(const flight::Snapshot& p) {
  return fmt::format("{} {} {}",
                     static_cast<uint32_t>(p.activity),
                     p.work,
                     p.activity == Activity::kOp     ? p.op
                     : p.activity == Activity::kFile ? p.call
                                                     : "");
}

bool waits_for_others(Activity a) { return a == Activity::kMessages || a == Activity::kMeeting; }

}  // namespace

void Pace::add(double now_s, double wall_s, double busy_s) {
  lately_.push_back({now_s, wall_s, busy_s});
  if (lately_.size() > kKept) lately_.pop_front();
}

double Pace::largest(double now_s, double Interval::*of) const {
  double most = 0;
  for (const Interval& i : lately_)
    if (now_s - i.at_s <= kKeptS) most = std::max(most, i.*of);
  return most;
}

HangWatch::HangWatch(const Limits& limits, int ranks)
    : limits_(limits),
      ranks_(static_cast<size_t>(ranks)),
      links_(static_cast<size_t>(ranks) * static_cast<size_t>(ranks)) {
  check(limits.verdict_s > 0 && ranks > 0, "hang watch: {} s, {} ranks", limits.verdict_s, ranks);
}

double HangWatch::every_s() const { return std::clamp(limits_.verdict_s / 12, 0.05, 0.25); }

void HangWatch::replaced(int rank) {
  const auto r = static_cast<size_t>(rank);
  ranks_[r] = {};
  for (size_t other = 0; other < ranks_.size(); ++other)
    links_[r * ranks_.size() + other] = links_[other * ranks_.size() + r] = {};
  // That it is in place is said by who put it there.
  if (told_ && told_->hang.rank == rank) told_.reset();
  if (verdict_ && verdict_->rank == rank) verdict_.reset();
  told_slow_s_.erase(rank);
}

bool HangWatch::wants_process(int rank) const {
  const Rank& r = ranks_[static_cast<size_t>(rank)];
  return looked_s_ && *looked_s_ - r.moved_s >= every_s();
}

void HangWatch::look(std::span<const Look> looks, double now_s) {
  check(looks.size() == ranks_.size(), "hang watch: {} looks", looks.size());
  const bool first = !looked_s_;
  // Who looks may have been held up as well, with the whole machine: that is no stillness of theirs.
  const double gap_s = first ? 0 : now_s - *looked_s_;
  if (gap_s > 4 * every_s()) {
    const double forgiven_s = gap_s - every_s();
    for (Rank& r : ranks_) {
      r.moved_s += forgiven_s;
      r.looked_s += forgiven_s;
      if (r.stopped_since_s) *r.stopped_since_s += forgiven_s;
      if (r.asleep_since_s) *r.asleep_since_s += forgiven_s;
    }
    for (Link& l : links_)
      if (l.since_s) *l.since_s += forgiven_s;
  }
  looked_s_ = now_s;
  for (size_t r = 0; r < ranks_.size(); ++r)
    follow(ranks_[r], looks[r], now_s, !std::exchange(ranks_[r].seen, true));
  follow_links(now_s);
  std::vector<RankSight> sights;
  for (size_t r = 0; r < ranks_.size(); ++r) sights.push_back(sight_of(ranks_[r], looks[r], now_s));
  compare_speeds(sights);
  const auto on_the_way = [&](int from, int to) {
    const Link& l = links_[static_cast<size_t>(from) * ranks_.size() + static_cast<size_t>(to)];
    return l.since_s ? now_s - *l.since_s : 0.0;
  };
  tell(judge(sights, on_the_way, limits_), now_s);
  if (!verdict_ || verdict_->kind == Kind::kSlow) return;
  const auto who = static_cast<size_t>(verdict_->rank);
  if (!ranks_[who].blamed) ranks_[who].blamed = std::move(sights[who]);
}

void HangWatch::follow(Rank& r, const Look& look, double now_s, bool first) {
  const bool moved = first || look.page.moves != r.page.moves;
  if (moved && !first) {
    const double wall_s = now_s - r.moved_s;
    // Of a rank that somebody had stopped nothing is learnt, nor of one that waited.
    // What was told as a hang is no measure of what is usual: of it so much counts as it might have taken.
    if (wall_s >= 2 * every_s() && !r.was_stopped && !waits_for_others(r.page.activity)) {
      const double busy_s =
          r.process && r.first_process ? r.process->first_s - r.first_process->first_s : wall_s;
      paces_[kind_of(r.page)].add(now_s,
                                  r.blamed ? std::min(wall_s, r.blamed->patience_s) : wall_s,
                                  r.blamed ? std::min(busy_s, r.blamed->busy_patience_s) : busy_s);
    }
  }
  if (first || look.page.looks != r.page.looks || look.page.activity != Activity::kMessages)
    r.looked_s = now_s;
  if (look.page.work != r.page.work && !first) r.done_works.insert(r.page.work);
  if (look.page.step != r.page.step || first)
    r.made.push_back({look.page.step, now_s, look.page.micro_batches, look.page.micro_batch_us});
  while (std::ssize(r.made) > kWindows * kStepsMin + 1 &&
         r.made.back().at_s - r.made[1].at_s > 2 * kWindows * window_s())
    r.made.pop_front();
  if (moved) {
    r.moved_s = now_s;
    r.asleep_since_s.reset();
    r.first_process.reset();
    r.process.reset();
    r.was_stopped = false;
    r.blamed.reset();
  }
  r.page = look.page;
  const bool stopped =
      look.stopped || (look.process && (look.process->state == 'T' || look.process->state == 't'));
  if (!stopped)
    r.stopped_since_s.reset();
  else if (!r.stopped_since_s || moved)  // it may have been let go on between two looks
    r.stopped_since_s = now_s;
  r.was_stopped = r.was_stopped || stopped;
  look_at_process(r, look, now_s);
}

void HangWatch::look_at_process(Rank& r, const Look& look, double now_s) {
  if (!look.process) return;
  if (!r.first_process) r.first_process = look.process;
  r.process = look.process;
  const bool sleeps = !look.process->runnable && r.asleep_since_s &&
                      look.process->processor_s - r.asleep_process->processor_s <=
                          kTickS + kSleepShare * (now_s - *r.asleep_since_s);
  if (sleeps) return;
  r.asleep_since_s.reset();
  if (look.process->runnable) return;
  r.asleep_since_s = now_s;
  r.asleep_process = look.process;
}

/// Whether the rank has done before what it is at: its training once the first step is made, the rest once it was
/// through with it.
bool HangWatch::settled(const Rank& r) const {
  if (r.page.activity == Activity::kOp && !r.page.op_known) return false;
  const auto done = [&](Work work) { return r.done_works.contains(static_cast<int32_t>(work)); };
  switch (const auto work = static_cast<Work>(r.page.work)) {
    case Work::kTraining: return true;
    case Work::kEvaluating: return done(Work::kEvaluating) || done(Work::kFirstEvaluation);
    default: return done(work);
  }
}

RankSight HangWatch::sight_of(const Rank& r, const Look& look, double now_s) const {
  RankSight s{.page = r.page,
              .still_s = now_s - r.moved_s,
              .not_looked_s = now_s - r.looked_s,
              .asleep_s = r.asleep_since_s ? now_s - *r.asleep_since_s : 0,
              .stopped_s = r.stopped_since_s ? now_s - *r.stopped_since_s : 0,
              .busy_s = r.process ? r.process->first_s - r.first_process->first_s : 0,
              .state = r.process ? r.process->state : '?',
              .settled = settled(r),
              .ended = look.ended,
              .done = look.done};
  const auto pace = paces_.find(kind_of(r.page));
  const double wall_s = pace == paces_.end() ? 0 : pace->second.wall_s(now_s);
  const double busy_s = pace == paces_.end() ? 0 : pace->second.busy_s(now_s);
  s.usual_s = wall_s;
  const Activity a = r.page.activity;
  double least_s = limits_.verdict_s;
  if (a == Activity::kMessages) {
    uint64_t bytes = 0;
    for (const flight::Snapshot::Link& l : r.page.links)
      bytes = std::max({bytes, l.in.size, l.out.size});
    least_s = std::max(2 * limits_.verdict_s, static_cast<double>(bytes) / kSlowMessages);
  } else if (a == Activity::kFile || a == Activity::kData) {
    least_s = std::max(kDiskTimes * least_s, static_cast<double>(r.page.file_bytes) / kSlowDisk);
  } else if (!s.settled) {
    least_s = kAtFirst * limits_.verdict_s;
  }
  s.patience_s = std::max(least_s, kTimes * wall_s);
  s.busy_patience_s = std::max(0.7 * least_s, kTimes * busy_s);
  return s;
}

/// Over steps that all have made, because what else the machine does changes from one to the next; and over some
/// windows of them, because it also falls on one rank or another by chance.
void HangWatch::compare_speeds(std::vector<RankSight>& sights) const {
  int64_t last = std::numeric_limits<int64_t>::max();
  for (const Rank& r : ranks_) {
    if (r.made.empty()) return;
    last = std::min(last, r.made.back().step);
  }
  const auto at = [](const Rank& r, int64_t step) {
    return std::find_if(
        r.made.rbegin(), r.made.rend(), [&](const Rank::Made& m) { return m.step <= step; });
  };
  std::vector<std::vector<double>> seconds(ranks_.size());
  for (int window = 0; window < kWindows; ++window) {
    const auto to = at(ranks_[0], last);
    auto from = to;
    while (from != ranks_[0].made.rend() &&
           (last - from->step < kStepsMin || to->at_s - from->at_s < window_s()))
      ++from;
    if (from == ranks_[0].made.rend()) return;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      const auto began = at(ranks_[r], from->step), ended = at(ranks_[r], last);
      if (began == ranks_[r].made.rend() || ended == ranks_[r].made.rend()) return;
      const int64_t made = ended->micro_batches - began->micro_batches;
      if (made < kStepsMin) return;
      seconds[r].push_back(static_cast<double>(ended->us - began->us) / 1e6 /
                           static_cast<double>(made));
    }
    last = from->step;
  }
  for (size_t r = 0; r < sights.size(); ++r) sights[r].micro_batch_s = std::move(seconds[r]);
}

void HangWatch::follow_links(double now_s) {
  const size_t n = ranks_.size();
  const auto link = [&](size_t of, size_t with) {
    const auto& links = ranks_[of].page.links;
    return with < links.size() ? links[with] : flight::Snapshot::Link{};
  };
  for (size_t from = 0; from < n; ++from)
    for (size_t to = 0; to < n; ++to) {
      if (from == to) continue;
      Link& l = links_[from * n + to];
      const flight::Snapshot::Link there = link(from, to), here = link(to, from);
      const bool waits = ranks_[to].page.activity == Activity::kMessages && here.in.purpose != 0 &&
                         there.sent > here.received;
      if (!waits || here.received != l.received) l.since_s.reset();
      l.received = here.received;
      if (waits && !l.since_s) l.since_s = now_s;
    }
}

/// What grows when there is an end to it.
uint64_t HangWatch::moves_of(const Verdict& v) const {
  if (v.kind != Kind::kLink) return ranks_[static_cast<size_t>(v.rank)].page.moves;
  const auto& links = ranks_[static_cast<size_t>(v.peer)].page.links;
  const auto from = static_cast<size_t>(v.rank);
  return from < links.size() ? links[from].received : 0;
}

void HangWatch::tell(std::optional<Verdict> now_holds, double now_s) {
  const std::optional<Verdict> before = std::exchange(verdict_, std::move(now_holds));
  const bool new_one = verdict_ && !(before && before->same_as(*verdict_));
  if (new_one && verdict_->kind == Kind::kSlow) {
    const auto told = told_slow_s_.find(verdict_->rank);
    if (told == told_slow_s_.end() || now_s - told->second >= kSlowAgainS)
      news_.push_back(verdict_->text);
    told_slow_s_[verdict_->rank] = now_s;
  }
  if (verdict_ && verdict_->kind != Kind::kSlow) {
    if (told_ && told_->hang.same_as(*verdict_)) return;
    news_.push_back(verdict_->text);
    told_ = {*verdict_, moves_of(*verdict_)};
    return;
  }
  // A verdict that no longer holds may still be true: it woke for a moment.
  if (!told_ || moves_of(told_->hang) == told_->moves) return;
  const Verdict hang = std::exchange(told_, std::nullopt)->hang;
  news_.push_back(
      hang.kind == Kind::kLink
          ? fmt::format("what rank {} sent arrives at rank {} again", hang.rank, hang.peer)
          : fmt::format("rank {} goes on", hang.rank));
}

std::vector<std::string> HangWatch::news() { return std::exchange(news_, {}); }

}  // namespace ferry::hang
