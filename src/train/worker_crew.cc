#include "train/worker_crew.h"

#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/stopping.h"
#include "base/units.h"
#include "train/recovery_plan.h"

namespace ferry::supervisor {
namespace {

constexpr double kLostLinkS = 5;
constexpr double kLeavesS = 10;  // after rank 0, who comes to the end last, and has said how
constexpr Heartbeat kNothingYet{.work = Work::kReadingData};  // was heard

bool left_with(const RankEnd& e, int code) {
  return WIFEXITED(e.status) && WEXITSTATUS(e.status) == code;
}
/// It says what all come to.
bool is_verdict(const RankEnd& e) {
  return e.in_place && (left_with(e, 0) || left_with(e, 1) || left_with(e, 2));
}
bool failed(const RankEnd& e) { return !e.in_place || !left_with(e, 0); }
/// Not as a consequence of another rank's end, and not with a verdict.
bool failed_by_itself(const RankEnd& e) {
  return failed(e) && !left_with(e, kLinkFailed) && !is_verdict(e);
}

/// "rank 1", "rank 0 and rank 2", "rank 0, rank 1 and rank 3".
std::string list_of(const std::vector<int>& ranks) {
  std::string list;
  for (size_t i = 0; i < ranks.size(); ++i)
    list += fmt::format("{}rank {}",
                        i == 0                  ? ""
                        : i + 1 == ranks.size() ? " and "
                                                : ", ",
                        ranks[i]);
  return list;
}

std::string in_words(const RankEnd& e) {
  if (left_with(e, kSpoiled))
    return fmt::format("rank {} left, convicted of silent corruption", e.rank);
  return WIFEXITED(e.status)
             ? fmt::format("rank {} left with status {}", e.rank, WEXITSTATUS(e.status))
             : fmt::format("rank {} was ended by signal {} ({})",
                           e.rank,
                           WTERMSIG(e.status),
                           ::strsignal(WTERMSIG(e.status)));
}

}  // namespace

RankEnd cause_of(const std::vector<RankEnd>& ends) {
  check(!ends.empty(), "crew: nobody has ended");
  const auto first = [&](auto&& is) { return std::find_if(ends.begin(), ends.end(), is); };
  if (const auto e = first(failed_by_itself); e != ends.end()) return *e;
  if (const auto e =
          first([](const RankEnd& r) { return failed(r) && !left_with(r, kLinkFailed); });
      e != ends.end())
    return *e;
  if (const auto e = first(failed); e != ends.end()) return *e;
  return *std::min_element(
      ends.begin(), ends.end(), [](const RankEnd& a, const RankEnd& b) { return a.rank < b.rank; });
}

std::optional<double> others_may_go_on_s(const RankEnd& cause) {
  if (failed_by_itself(cause)) return 0;
  if (left_with(cause, kLinkFailed)) return kLostLinkS;
  return std::nullopt;
}

bool may_have_successor(const RankEnd& end) {
  return !end.in_place || WIFSIGNALED(end.status) || left_with(end, kDeviceFailed) ||
         left_with(end, kOutOfMemory) || left_with(end, kLinkFailed) || left_with(end, kSpoiled);
}

std::string who_holds_up(const std::vector<RankReport>& ranks, double now_s) {
  std::string holding, waiting;
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (ranks[r].ended) continue;
    const Heartbeat& last = ranks[r].last;
    // Who is stopped waits for nobody, whatever he said before.
    const bool holds = last.waits_for < 0 || ranks[r].stopped;
    std::string& list = holds ? holding : waiting;
    list += fmt::format("{}rank {}: {}", list.empty() ? "" : "; ", r, in_words(last));
    list += holds ? fmt::format(", silent for {}", format_duration(now_s - ranks[r].since_s))
                  : fmt::format(", waiting for rank {}", last.waits_for);
    if (ranks[r].stopped) list += " (a signal has stopped it)";
  }
  return fmt::format("{}{}{}", holding, holding.empty() || waiting.empty() ? "" : "; ", waiting);
}

Result<WorkerCrew> WorkerCrew::start(const Command& command,
                                     const std::vector<std::string>& arguments,
                                     const sigset_t& blocked,
                                     double now_s) {
  WorkerCrew crew;
  crew.command_ = command;
  crew.arguments_ = arguments;
  crew.blocked_ = blocked;
  if (command.ranks > 1) {
    TRY_ASSIGN(crew.rendezvous_, comm::Rendezvous::open(command.ranks));
    crew.arguments_.push_back(command.ranked);
  }
  for (int r = 0; r < command.ranks; ++r) {
    TRY_ASSIGN(flight::Memory record, flight::Memory::create());
    TRY_ASSIGN(ChildProcess process, crew.start_rank(r, record, false));
    crew.ranks_.push_back({.process = std::move(process),
                           .report = {.last = kNothingYet, .since_s = now_s},
                           .work = kNothingYet,
                           .flight = std::move(record)});
    crew.tell(r);
  }
  return crew;
}

Result<ChildProcess> WorkerCrew::start_rank(int rank,
                                            const flight::Memory& record,
                                            bool in_place) const {
  ChildProcess::Start start{.program = command_.program,
                            .arguments = arguments_,
                            .ignored = stop_signals_of_parents(),
                            .blocked = blocked_,
                            .nonblocking = true,
                            .handed = command_.handed};
  start.flight = record.fd();
  if (in_place) start.arguments.push_back(command_.replacing);
  if (in_place && told_to_stop_) start.arguments.push_back(command_.stopping);
  if (rendezvous_) {
    start.lent = rendezvous_->listener(rank);
    start.told = true;
  }
  return ChildProcess::start(start);
}

/// Where to meet the others. Who cannot be told is about to be known to be lost, or hangs and is told by that.
void WorkerCrew::tell(int rank) {
  if (rendezvous_)
    static_cast<void>(
        ranks_[static_cast<size_t>(rank)].process.tell(rendezvous_->ticket(rank) + "\n"));
}

Replacement WorkerCrew::replace(double now_s) {
  Replacement replaced;
  if (over_) return replaced;  // meanwhile
  rendezvous_->renew();
  while (!lost_.empty() && replaced.all) {
    const int rank = lost_.front().rank;
    replaced.all = start_successor(rank, now_s);
    if (!replaced.all) break;
    replaced.ranks.push_back(rank);
    lost_.erase(lost_.begin());
  }
  told_lost_ = lost_.size();
  // Nobody waits for one that is not there where he can wait for a ticket.
  for (int r = 0; replaced.all && r < std::ssize(ranks_); ++r) tell(r);
  return replaced;
}

Result<void> WorkerCrew::start_successor(int rank, double now_s) {
  TRY_ASSIGN(flight::Memory record, flight::Memory::create());
  TRY_ASSIGN(ChildProcess process, start_rank(rank, record, true));
  constexpr Heartbeat kBegins{.work = Work::kTakingPlace};
  ranks_[static_cast<size_t>(rank)] = {.process = std::move(process),
                                       .report = {.last = kBegins, .since_s = now_s},
                                       .work = kBegins,
                                       .flight = std::move(record),
                                       .successor = true};
  if (std::find(replaced_.begin(), replaced_.end(), rank) == replaced_.end())
    replaced_.push_back(rank);
  return {};
}

void WorkerCrew::end_rest(double now_s) {
  told_lost_ = 0;
  over_ = true;
  if (ends_.empty()) first_end_s_ = now_s;
  ends_.insert(ends_.end(), lost_.begin(), lost_.end());
  lost_.clear();
}

std::optional<std::string> WorkerCrew::whole_again() {
  if (replaced_.empty() || !lost_.empty()) return std::nullopt;
  for (const Rank& r : ranks_)
    if (!r.whole || r.report.ended) return std::nullopt;
  std::sort(replaced_.begin(), replaced_.end());
  const std::string who = list_of(std::exchange(replaced_, {}));
  return fmt::format(
      "{} {} in place again, {:.2f} s after the loss: all that was needed came from the other "
      "ranks, nothing from a checkpoint; training goes on after step {}",
      who,
      who.find(" and ") == std::string::npos ? "is" : "are",
      heard_at_s_ - lost_at_s_,
      ranks_[0].work.step);
}

/// Whether it has what belongs to it: what it is at now says so before it has been heard.
bool WorkerCrew::is_whole(const Rank& rank) const {
  return rank.whole ||
         knows_its_step(static_cast<Work>(rank.flight.read(static_cast<int>(ranks_.size())).work));
}

/// What the living hold together.
std::optional<RankLost> WorkerCrew::loss() const {
  std::vector<bool> whole;
  std::vector<int> others;
  for (int r = 0; r < std::ssize(ranks_); ++r) {
    const Rank& rank = ranks_[static_cast<size_t>(r)];
    whole.push_back(is_whole(rank) && !rank.report.ended);
    if (!rank.report.ended) others.push_back(r);
  }
  // Who has only begun has nothing to give: a beginning is made again by all.
  bool begun = true;
  for (const Rank& r : ranks_) begun &= is_whole(r) || r.successor || r.report.ended;
  RankLost lost{.others = list_of(others), .held = begun && !lost_with_replica(whole)};
  for (const RankEnd& end : lost_) {
    lost.who += (lost.who.empty() ? "" : "; ") + in_words(end);
    lost.in_vain |= !end.in_place;
    lost.ranks.push_back(end.rank);
    if (left_with(end, kSpoiled)) lost.spoiled.push_back(end.rank);
  }
  return lost;
}

/// The run ends: nobody takes a place in it any more, and who waits for one that does is told so.
void WorkerCrew::left_with_verdict() {
  over_ = true;
  for (Rank& r : ranks_) {
    r.process.tell_no_more();
    if (!r.successor || r.whole || r.report.ended) continue;
    r.needless = true;
    r.process.signal(SIGKILL);
  }
}

void WorkerCrew::terminate() {
  told_to_stop_ = true;  // and so is who comes later
  signal(several() ? rank_stop_signal() : SIGTERM);
}

void WorkerCrew::signal(int number) const {
  for (const Rank& r : ranks_) r.process.signal(number);
}

void WorkerCrew::kill() {
  killed_ = true;
  signal(SIGKILL);
}

void WorkerCrew::end_rank(int rank) const {
  ranks_[static_cast<size_t>(rank)].process.signal(SIGKILL);
}

void WorkerCrew::add_polled(std::vector<pollfd>& polled) const {
  for (const Rank& r : ranks_) polled.push_back({r.process.pipe(), POLLIN, 0});
}

std::optional<Heartbeat> WorkerCrew::heard(double now_s) {
  std::optional<Heartbeat> says;
  bool others_live = false;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    Heartbeat beats[256];  // written whole: a read returns whole ones
    ssize_t n;
    while ((n = ::read(rank.process.pipe(), beats, sizeof beats)) > 0) {
      const auto count = static_cast<size_t>(n) / sizeof beats[0];
      for (size_t b = 0; b < count; ++b) {
        rank.report.last = beats[b];
        if (!rank.whole && knows_its_step(beats[b].work)) {
          rank.whole = true;
          heard_at_s_ = now_s;
        }
        if (beats[b].waits_for >= 0) continue;
        rank.work = beats[b];
        rank.report.since_s = now_s;
        if (i == 0)
          says = beats[b];
        else
          others_live = true;
      }
    }
    if (n == 0) rank.process.close_pipe();  // the worker did: poll() must not spin on its end
  }
  if (!says && others_live && ranks_[0].report.last.waits_for >= 0) says = ranks_[0].work;
  return says;
}

std::optional<std::string> WorkerCrew::report(double now_s) const {
  if (!several()) return std::nullopt;
  std::vector<RankReport> reports;
  for (const Rank& r : ranks_) {
    reports.push_back(r.report);
    reports.back().stopped = r.process.stopped();
  }
  return who_holds_up(reports, now_s);
}

std::vector<RankStatus> WorkerCrew::status(double now_s, int64_t now_unix_ms) const {
  std::vector<RankStatus> all;
  for (const Rank& r : ranks_) {
    const auto silent_ms = static_cast<int64_t>((now_s - r.report.since_s) * 1000);
    RankStatus one{.pid = std::max<int64_t>(0, r.process.pid()),
                   .step = r.work.step,
                   .doing = in_words(r.work),
                   .heard_unix_ms = now_unix_ms - silent_ms,
                   .stopped = r.process.stopped(),
                   .ended = r.report.ended,
                   .in = hang::in_words(r.flight.read(static_cast<int>(ranks_.size())))};
    if (r.report.last.waits_for >= 0) one.waits_for = r.report.last.waits_for;
    all.push_back(std::move(one));
  }
  return all;
}

void WorkerCrew::look(hang::HangWatch& watch, double now_s) const {
  std::vector<hang::HangWatch::Look> looks;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const Rank& rank = ranks_[r];
    hang::HangWatch::Look look{.page = rank.flight.read(static_cast<int>(ranks_.size())),
                               .stopped = rank.process.stopped(),
                               .ended = rank.report.ended,
                               .done = rank.done};
    if (watch.wants_process(static_cast<int>(r)) && rank.process.pid() > 0)
      look.process = look_at_process(rank.process.pid());
    looks.push_back(std::move(look));
  }
  watch.look(looks, now_s);
}

void WorkerCrew::reap(double now_s) {
  for (size_t r = 0; r < ranks_.size(); ++r) {
    Rank& rank = ranks_[r];
    const std::optional<int> status = rank.process.ended();
    if (!status) continue;
    rank.report.ended = true;
    const RankEnd end{static_cast<int>(r), *status, !rank.successor || is_whole(rank)};
    if (rank.needless) continue;
    if (killed_ && WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL) continue;
    if (is_verdict(end)) {
      rank.done = true;
      if (r == 0) through_s_ = now_s;
      left_with_verdict();
    } else if (several() && !over_ && !killed_ && may_have_successor(end)) {
      if (replaced_.empty() && lost_.empty()) lost_at_s_ = now_s;
      lost_.push_back(end);
      continue;
    }
    over_ = true;
    if (ends_.empty() || !failed(cause_of(ends_))) first_end_s_ = now_s;
    ends_.push_back(end);
  }
}

/// When those that are left are to be ended.
std::optional<double> WorkerCrew::others_end_at() const {
  if (killed_ || ends_.empty()) return std::nullopt;
  // What rank 0 writes it can finish alone: then less is lost. The supervisor is patient with it as ever.
  if (!ranks_[0].report.ended && phase_of(ranks_[0].work.work) == Phase::kSaving)
    return std::nullopt;
  if (const std::optional<double> seconds = others_may_go_on_s(cause_of(ends_)))
    return first_end_s_ + *seconds;
  return through_s_ ? std::optional(*through_s_ + kLeavesS) : std::nullopt;
}

/// They are ended: there is nothing that they could still have to do.
std::string WorkerCrew::who_has_not_left() const {
  std::vector<int> late;
  for (int r = 0; r < std::ssize(ranks_); ++r)
    if (!ranks_[static_cast<size_t>(r)].report.ended) late.push_back(r);
  return fmt::format("{} had not left {} after rank 0, which is through, and {} ended",
                     list_of(late),
                     format_duration(kLeavesS),
                     late.size() == 1 ? "is" : "are");
}

std::optional<Event> WorkerCrew::ended(double now_s) {
  reap(now_s);
  if (!lost_.empty() && !over_ && !killed_) {
    if (std::exchange(told_lost_, lost_.size()) == lost_.size()) return std::nullopt;
    return loss();
  }
  if (!lost_.empty()) end_rest(now_s);
  if (!std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.report.ended; })) {
    if (const std::optional<double> at = others_end_at(); at && now_s >= *at) {
      if (!failed_by_itself(cause_of(ends_)) && through_s_) cause_ = who_has_not_left();
      kill();
    }
    return std::nullopt;
  }
  if (ends_.empty()) return Died{SIGKILL};  // as it was told
  // What rank 0 has said and saved is so, whoever was lost after that.
  if (const auto first =
          std::find_if(ends_.begin(), ends_.end(), [](const RankEnd& e) { return e.rank == 0; });
      first != ends_.end() && !failed(*first))
    return Exited{0};
  const RankEnd cause = cause_of(ends_);
  // The others are done before rank 0, who writes: their ends say nothing of what it was killed at.
  if (killed_ && !failed(cause) && cause.rank != 0) return Died{SIGKILL};
  // A verdict is everybody's, whoever was seen to leave with it first.
  if (several() && failed(cause) && !is_verdict(cause)) cause_ = in_words(cause);
  if (!WIFEXITED(cause.status)) return Died{WTERMSIG(cause.status)};
  const int code = WEXITSTATUS(cause.status);
  // Nobody could take the place: nothing that the run came to.
  return Exited{code <= 2 && !is_verdict(cause) ? kStateLost : code};
}

double WorkerCrew::wake_at() const {
  return others_end_at().value_or(std::numeric_limits<double>::infinity());
}

}  // namespace ferry::supervisor
