#include "train/hang_verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/units.h"
#include "comm/communicator.h"
#include "train/supervisor.h"

namespace ferry::hang {
namespace {

using flight::Activity;
using flight::Message;
using flight::Pass;
using supervisor::Work;

// Of the shortest stillness that is a hang, so much must have been seen asleep: it is looked for only when a rank has
// stood still for a moment.
constexpr double kAsleepShare = 0.7;

// Memory that comes from a disk is slow where memory is short: so many times the patience.
constexpr double kDiskFactor = 4;

std::string tag_words(const Message& m) {
  return comm::to_string({static_cast<comm::Purpose>(m.purpose), m.step, m.index});
}

/// "gradients of step 12 (number 3, 20 KiB of 40 KiB)"
std::string in_words(const Message& m) {
  return fmt::format("{} (number {}, {} of {})",
                     tag_words(m),
                     m.index,
                     format_bytes(static_cast<double>(m.done)),
                     format_bytes(static_cast<double>(m.size)));
}

const flight::Snapshot::Link& link_of(const RankSight& r, int peer) {
  static const flight::Snapshot::Link kNone{};
  return peer >= 0 && peer < std::ssize(r.page.links) ? r.page.links[static_cast<size_t>(peer)]
                                                      : kNone;
}

bool awaits(const RankSight& r, int peer) { return link_of(r, peer).in.purpose != 0; }
bool sends(const RankSight& r, int peer) { return link_of(r, peer).out.purpose != 0; }

/// "training", without how far.
std::string work_of(const flight::Snapshot& p) {
  return supervisor::in_words(supervisor::Heartbeat{.work = static_cast<Work>(p.work)});
}

/// Whether a layer says where it is: a save, and what is read, have none, whatever was the last before them.
bool has_ops(Work work) {
  return work != Work::kReadingData && work != Work::kLoading && work != Work::kWriting &&
         work != Work::kRemoving && work != Work::kNoRoom;
}

/// Where in a step.
std::string place_of(const flight::Snapshot& p) {
  const auto work = static_cast<Work>(p.work);
  if (!has_ops(work)) return work_of(p);
  std::string words;
  const auto add = [&](const std::string& what) { words += (words.empty() ? "" : ", ") + what; };
  if (p.pass == Pass::kForward) add("forward");
  if (p.pass == Pass::kBackward) add("backward");
  if (p.pass == Pass::kUpdate) add("update");
  if (p.layer >= 0 && p.pass != Pass::kUpdate) add(fmt::format("layer {}", p.layer));
  const bool training = work == Work::kTraining || work == Work::kFirstStep;
  if (training && (p.pass == Pass::kForward || p.pass == Pass::kBackward))
    add(fmt::format("micro-batch {}", p.done + 1));
  if (!training) add(work_of(p));
  return words;
}

/// A name with where in a step it was, "matmul (backward, layer 3)".
std::string with_place(const std::string& name, const flight::Snapshot& p) {
  const std::string place = place_of(p);
  return place.empty() ? name : fmt::format("{} ({})", name, place);
}

bool waits_for_others(const RankSight& r) {
  return r.page.activity == Activity::kMessages || r.page.activity == Activity::kMeeting;
}

/// Of what no work is, no verdict.
bool at_work(const RankSight& r) { return !r.ended && r.page.activity != Activity::kLeaving; }

/// "rank 0", "ranks 0 and 2".
std::string name_of(const std::vector<int>& ranks) {
  std::string names;
  for (size_t i = 0; i < ranks.size(); ++i)
    names += fmt::format("{}{}", i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ", ranks[i]);
  return (ranks.size() == 1 ? "rank " : "ranks ") + names;
}

class Judge {
 public:
  Judge(std::span<const RankSight> ranks, const OnTheWay& on_the_way, const Limits& limits)
      : ranks_(ranks), on_the_way_(on_the_way), limits_(limits) {}

  std::optional<Verdict> verdict() const {
    std::optional<Verdict> v = explanation();
    // Whoever ends a worker loses what it has not saved: that is for sure only in a step's own work.
    if (v) v->certain = v->certain && std::all_of(ranks_.begin(), ranks_.end(), in_step);
    return v;
  }

 private:
  static bool in_step(const RankSight& r) {
    return static_cast<Work>(r.page.work) == Work::kTraining;
  }

  std::optional<Verdict> explanation() const {
    if (std::any_of(
            ranks_.begin(), ranks_.end(), [](const RankSight& r) { return r.ended && !r.done; }))
      return std::nullopt;  // that is told, and what follows from it
    if (const auto v = stopped(false)) return v;
    // Who may come back must not hide who will not; nor who was stopped while he waited for him.
    if (const auto v = standing(true)) return v;
    if (const auto v = in_message(true)) return v;
    if (const auto v = stopped(true)) return v;
    if (const auto v = standing(false)) return v;
    if (const auto v = in_message(false)) return v;
    if (const auto v = link()) return v;
    if (const auto v = each_other()) return v;
    return slow();
  }

  const RankSight& of(int rank) const { return ranks_[static_cast<size_t>(rank)]; }
  int count() const { return static_cast<int>(ranks_.size()); }

  /// The one of those to whom it applies that has done so longest.
  template <typename Applies>
  std::optional<int> longest(Applies&& applies,
                             double RankSight::*since = &RankSight::still_s) const {
    std::optional<int> found;
    for (int r = 0; r < count(); ++r)
      if (at_work(of(r)) && applies(of(r)) && (!found || of(r).*since > of(*found).*since))
        found = r;
    return found;
  }

  /// "; ranks 0 and 2 wait", of those who do.
  std::string who_waits(int but) const {
    std::vector<int> waiting;
    for (int r = 0; r < count(); ++r)
      if (r != but && waits_for_others(of(r))) waiting.push_back(r);
    if (waiting.empty()) return "";
    return fmt::format("; {} {}", name_of(waiting), waiting.size() == 1 ? "waits" : "wait");
  }

  bool asleep(const RankSight& r) const {
    return r.still_s >= limits_.verdict_s && r.asleep_s >= kAsleepShare * limits_.verdict_s;
  }

  /// At once, but not for a debugger that only looks.
  bool is_stopped(const RankSight& r) const { return r.stopped_s >= limits_.verdict_s / 3; }

  std::optional<Verdict> stopped(bool while_it_waited) const {
    const std::optional<int> who = longest(
        [&](const RankSight& r) { return is_stopped(r) && waits_for_others(r) == while_it_waited; },
        &RankSight::stopped_s);
    if (!who) return std::nullopt;
    const RankSight& r = of(*who);
    return Verdict{
        .kind = Kind::kStopped,
        .rank = *who,
        .in = r.page.op,
        .still_s = r.stopped_s,
        .certain = r.state != 't',
        .text = fmt::format("{} has stopped rank {} for {}, in {}; kill -CONT lets it go on{}",
                            r.state == 't' ? "a debugger" : "a signal (SIGSTOP)",
                            *who,
                            format_duration(r.stopped_s),
                            hang::in_words(r.page),
                            who_waits(*who))};
  }

  /// Compilers, and drivers that start a chip, have a rank wait at first.
  bool may_sleep(const RankSight& r) const {
    const auto work = static_cast<Work>(r.page.work);
    return r.page.activity == Activity::kOp ? !r.settled && r.page.launched > 0
                                            : work == Work::kReadingData || work == Work::kLoading;
  }

  static bool computes(const RankSight& r) {
    return r.page.activity == Activity::kOp || r.page.activity == Activity::kHost;
  }
  bool sleeps_for_good(const RankSight& r) const {
    return computes(r) && asleep(r) && !may_sleep(r);
  }

  /// Whether what this one is in does not end. Who waits for others is not asked.
  bool hangs(const RankSight& r) const {
    if (waits_for_others(r)) return false;
    const bool too_long = r.still_s > r.patience_s;
    if (sleeps_for_good(r)) return true;
    // A disk or a chip works while the rank sleeps.
    if (!computes(r) && r.state != 'R') return too_long;
    // On a busy machine what is at work takes as long as others let it: it is measured by its own time.
    if (too_long && (r.busy_s > r.busy_patience_s || asleep(r))) return true;
    return r.state == 'D' && r.still_s > kDiskFactor * r.patience_s;
  }

  std::optional<Verdict> standing(bool for_good) const {
    const std::optional<int> who =
        longest([&](const RankSight& r) { return hangs(r) && (!for_good || sleeps_for_good(r)); });
    if (!who) return std::nullopt;
    const RankSight& r = of(*who);
    Verdict v{.rank = *who, .still_s = r.still_s, .certain = sleeps_for_good(r)};
    const std::string for_s = format_duration(r.still_s);
    const std::string usual =
        r.usual_s > 0 ? fmt::format(" (it took {} at most lately)", format_duration(r.usual_s))
                      : "";
    std::string how;
    switch (r.page.activity) {
      case Activity::kOp:
        v.kind = Kind::kOp;
        v.in = r.page.op;
        how = fmt::format("rank {} has been in {} for {}{}",
                          *who,
                          with_place(v.in, r.page),
                          for_s,
                          asleep(r) ? " and uses no processor" : usual);
        break;
      case Activity::kChip:
        v.kind = Kind::kChip;
        v.in = r.page.chip_ops;
        how = fmt::format(
            "the chip of rank {} has ended nothing for {}{}: it is in one of launches {} to {}: {}",
            *who,
            for_s,
            usual,
            r.page.ended + 1,
            r.page.launched,
            v.in);
        break;
      case Activity::kFile:
        v.kind = Kind::kFile;
        v.in = r.page.call;
        how = fmt::format("rank {} has waited for a file system for {}{}: {} of {}{}",
                          *who,
                          for_s,
                          usual,
                          v.in,
                          r.page.path,
                          r.state == 'D' ? ", in the kernel, which waits for the disk" : "");
        break;
      case Activity::kData:
        v.kind = Kind::kData;
        v.in = "data";
        how = fmt::format("rank {} has waited for its next batch of data for {}{}{}",
                          *who,
                          for_s,
                          usual,
                          r.state == 'D' ? ": the disk does not answer" : "");
        break;
      default:
        v.kind = Kind::kHost;
        v.in = work_of(r.page);
        how = fmt::format("rank {} has stood still{} for {}{}, {}{}",
                          *who,
                          has_ops(static_cast<Work>(r.page.work)) ? " between two ops" : "",
                          for_s,
                          asleep(r) ? " and uses no processor" : usual,
                          v.in,
                          r.page.op.empty() || !has_ops(static_cast<Work>(r.page.work))
                              ? ""
                              : ": the last one was " + with_place(r.page.op, r.page));
    }
    std::vector<int> others;
    for (int o = 0; o < count(); ++o)
      if (o != *who && at_work(of(o)) && hangs(of(o))) others.push_back(o);
    v.text = fmt::format("{}, after step {}{}{}",
                         how,
                         r.page.step,
                         others.empty() ? "" : fmt::format("; {} as well", name_of(others)),
                         who_waits(*who));
    return v;
  }

  /// Who waits for messages looks for them all the time; who does not look stands within one.
  std::optional<Verdict> in_message(bool for_good) const {
    const std::optional<int> who = longest([&](const RankSight& r) {
      return (!for_good || asleep(r)) && !is_stopped(r) && r.page.activity == Activity::kMessages &&
             r.not_looked_s >= limits_.verdict_s && (asleep(r) || r.not_looked_s > r.patience_s);
    });
    if (!who) return std::nullopt;
    const RankSight& r = of(*who);
    const flight::Snapshot::Link& link = link_of(r, r.page.peer);
    const Message& m = r.page.sending ? link.out : link.in;
    return Verdict{.kind = Kind::kMessage,
                   .rank = *who,
                   .peer = r.page.peer,
                   .in = m.purpose == 0 ? "" : tag_words(m),
                   .still_s = r.still_s,
                   .certain = asleep(r),
                   .text = fmt::format("rank {} has stood still for {} while it {} rank {}: {}{}",
                                       *who,
                                       format_duration(r.still_s),
                                       r.page.sending ? "sends to" : "receives from",
                                       r.page.peer,
                                       m.purpose == 0 ? "between two messages" : in_words(m),
                                       who_waits(*who))};
  }

  bool looks(const RankSight& r) const {
    return r.page.activity == Activity::kMessages && r.not_looked_s < limits_.verdict_s / 2;
  }

  std::optional<Verdict> link() const {
    std::optional<std::pair<int, int>> dead;
    double longest_s = 0;
    for (int to = 0; to < count(); ++to)
      for (int from = 0; from < count(); ++from) {
        if (from == to || !awaits(of(to), from)) continue;
        if (!looks(of(to))) continue;
        // Either what was sent is on its way, or the system takes no more of it.
        double since_s = on_the_way_(from, to);
        if (looks(of(from)) && sends(of(from), to))
          since_s = std::max(since_s, std::min(of(from).still_s, of(to).still_s));
        if (since_s < limits_.verdict_s || since_s <= longest_s) continue;
        dead = {from, to};
        longest_s = since_s;
      }
    if (!dead) return std::nullopt;
    const auto [from, to] = *dead;
    const flight::Snapshot::Link &there = link_of(of(from), to), &here = link_of(of(to), from);
    return Verdict{
        .kind = Kind::kLink,
        .rank = from,
        .peer = to,
        .in = tag_words(here.in),
        .still_s = longest_s,
        .certain = false,  // networks come back
        .text = fmt::format("nothing has arrived from rank {} at rank {} for {}: {} are missing; "
                            "{} bytes were sent, {} "
                            "have come; both ranks are alive, the link between them is not",
                            from,
                            to,
                            format_duration(longest_s),
                            in_words(here.in),
                            there.sent,
                            here.received)};
  }

  /// Nobody works, and all that was sent has arrived: what somebody waits for nobody is going to send.
  std::optional<Verdict> each_other() const {
    if (count() < 2) return std::nullopt;
    std::optional<int> first;
    for (int r = 0; r < count(); ++r) {
      const RankSight& s = of(r);
      if (s.page.activity != Activity::kMessages || s.still_s < s.patience_s ||
          s.asleep_s < kAsleepShare * limits_.verdict_s)
        return std::nullopt;
      // Who is furthest behind waits for what the others are past.
      if (awaited(r).first >= 0 && (!first || s.page.exchanges < of(*first).page.exchanges))
        first = r;
    }
    if (!first) return std::nullopt;
    std::string chain;
    std::vector<bool> told(ranks_.size(), false);
    for (int r = *first; r >= 0 && !told[static_cast<size_t>(r)];) {
      told[static_cast<size_t>(r)] = true;
      const auto [peer, message] = awaited(r);
      if (peer < 0) break;
      chain += fmt::format("{}rank {} waits for {} of rank {}",
                           chain.empty() ? "" : ", ",
                           r,
                           tag_words(message),
                           peer);
      r = peer;
    }
    const auto [peer, message] = awaited(*first);
    return Verdict{.kind = Kind::kEachOther,
                   .rank = peer,
                   .peer = *first,
                   .in = tag_words(message),
                   .still_s = of(*first).still_s,
                   .certain = true,
                   .text = fmt::format(
                       "all ranks have waited for each other for {}, and nothing is on its way: {}",
                       format_duration(of(*first).still_s),
                       chain)};
  }

  /// A message that the rank waits for, with its sender; sender -1: none.
  std::pair<int, Message> awaited(int rank) const {
    for (int p = 0; p < count(); ++p)
      if (awaits(of(rank), p)) return {p, link_of(of(rank), p).in};
    return {-1, {}};
  }

  /// In the middle of all but this one.
  double others_s(int rank, size_t window) const {
    std::vector<double> others;
    for (int o = 0; o < count(); ++o)
      if (o != rank) others.push_back(of(o).micro_batch_s[window]);
    const auto middle = others.begin() + std::ssize(others) / 2;
    std::nth_element(others.begin(), middle, others.end());
    return *middle;
  }

  /// In every window: by chance it is one rank in one of them, and another in the next.
  std::optional<Verdict> slow() const {
    const size_t windows = of(0).micro_batch_s.size();
    for (int r = 0; r < count() && count() > 1 && windows > 0; ++r) {
      double mine_s = 0, theirs_s = 0;
      bool always = true;
      for (size_t w = 0; w < windows; ++w) {
        const double mine = of(r).micro_batch_s[w], theirs = others_s(r, w);
        always =
            always && mine >= limits_.slow_factor * theirs && mine - theirs >= limits_.slow_least_s;
        mine_s += mine / static_cast<double>(windows);
        theirs_s += theirs / static_cast<double>(windows);
      }
      if (always)
        return Verdict{
            .kind = Kind::kSlow,
            .rank = r,
            .in = work_of(of(r).page),
            .text = fmt::format(
                "rank {} is slow, and goes on: its micro-batches take {:.1f} times those "
                "of the others ({:.3g} s); they wait for it in each step",
                r,
                mine_s / theirs_s,
                theirs_s)};
    }
    return std::nullopt;
  }

  std::span<const RankSight> ranks_;
  const OnTheWay& on_the_way_;
  const Limits& limits_;
};

}  // namespace

std::string in_words(const flight::Snapshot& p) {
  const std::string after = fmt::format(", after step {}", p.step);
  switch (p.activity) {
    case Activity::kOp: return with_place(p.op, p) + after;
    case Activity::kFile: return fmt::format("{} of {}{}", p.call, p.path, after);
    case Activity::kData: return "the next batch of data" + after;
    case Activity::kChip: return fmt::format("waiting for its chip ({}){}", p.chip_ops, after);
    case Activity::kMessages: {
      for (size_t r = 0; r < p.links.size(); ++r)
        if (p.links[r].in.purpose != 0)
          return fmt::format("waiting for {} of rank {}{}", tag_words(p.links[r].in), r, after);
      for (size_t r = 0; r < p.links.size(); ++r)
        if (p.links[r].out.purpose != 0)
          return fmt::format("sending {} to rank {}{}", tag_words(p.links[r].out), r, after);
      return "messages" + after;
    }
    case Activity::kMeeting: return "finding the other ranks";
    case Activity::kLeaving: return "leaving" + after;
    case Activity::kHost: break;
  }
  return work_of(p) + after;
}

std::optional<Verdict> judge(std::span<const RankSight> ranks,
                             const OnTheWay& on_the_way,
                             const Limits& limits) {
  return Judge(ranks, on_the_way, limits).verdict();
}

}  // namespace ferry::hang
