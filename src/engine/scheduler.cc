#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "base/counted.h"
#include "models/kv_cache.h"

namespace ferry::engine {

using models::kPageTokens;
using models::pages_for;

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits), pool_(limits.pages) {
  check(limits.running > 0 && limits.running < limits.tokens_per_pass,
        "scheduler: {} requests at once, {} tokens a pass",
        limits.running,
        limits.tokens_per_pass);
}

Scheduler::Sequence* Scheduler::find(RequestId id) {
  for (auto* list : {&running_, &waiting_})
    for (Sequence& s : *list)
      if (s.id == id) return &s;
  return nullptr;
}

const Scheduler::Sequence* Scheduler::find(RequestId id) const {
  return const_cast<Scheduler*>(this)->find(id);
}

int64_t Scheduler::reused(RequestId id) const {
  const Sequence* const s = find(id);
  return s == nullptr ? 0 : s->reused;
}

std::span<const int32_t> Scheduler::tokens(RequestId id) const {
  const Sequence* const s = find(id);
  check(s != nullptr, "scheduler: request {} is not there", id);
  return s->tokens;
}

Result<void> Scheduler::check_fits(int64_t length, int64_t tokens_max) const {
  check(tokens_max >= 0, "scheduler: a request for {} tokens", tokens_max);
  if (length == 0) return fail(Code::kInvalidInput, "prompt: empty; give at least one token");
  const int64_t answer = std::min(tokens_max, limits_.positions - length);
  if (answer < std::min<int64_t>(tokens_max, 1))
    return fail(Code::kInvalidInput,
                "prompt: {} tokens, the model has {} positions; shorten it",
                length,
                limits_.positions);
  if (pages_for(length + answer) > limits_.pages)
    return fail(Code::kInvalidInput,
                "prompt: {} tokens and at most {} new ones, the cache has room for {}; ask for "
                "fewer or give a larger cache",
                length,
                answer,
                limits_.pages * kPageTokens);
  return {};
}

int64_t Scheduler::length_max() const {
  return std::min(limits_.positions, limits_.pages * kPageTokens);
}

Result<std::vector<RequestId>> Scheduler::submit(std::vector<Asked> together) {
  int64_t tokens = 0;
  for (const Asked& asked : together) {
    TRY(check_fits(std::ssize(asked.prompt), asked.tokens_max));
    tokens += std::ssize(asked.prompt);
  }
  // Who is refused although nothing waits would be refused for ever.
  const int64_t places = std::max<int64_t>(0, limits_.running - std::ssize(running_));
  const int64_t most = waiting_.empty() && places > 0 ? INT64_MAX : limits_.waiting + places;
  if (std::ssize(waiting_) + std::ssize(together) > most ||
      (!waiting_.empty() && waiting_tokens_ + tokens > limits_.waiting_tokens))
    return fail(Code::kExhausted,
                "too busy: {} with {} waiting; try again later",
                counted(waiting_.size(), "request"),
                counted(waiting_tokens_, "token"));
  waiting_tokens_ += tokens;
  std::vector<RequestId> ids;
  for (Asked& asked : together) {
    const int64_t length = std::ssize(asked.prompt);
    const int64_t answer = std::min(asked.tokens_max, limits_.positions - length);
    Sequence s;
    s.id = next_id_++;
    s.tokens = std::move(asked.prompt);
    s.prompt = length;
    s.limit = length + std::max<int64_t>(answer, 1);  // what is chosen in any case
    s.salt = std::move(asked.salt);
    s.anew = asked.anew;
    ids.push_back(s.id);
    waiting_.push_back(std::move(s));
  }
  return ids;
}

Result<RequestId> Scheduler::submit(std::vector<int32_t> prompt,
                                    int64_t tokens_max,
                                    const std::string& salt,
                                    bool anew) {
  std::vector<Asked> one(1);
  one[0] = {.prompt = std::move(prompt), .tokens_max = tokens_max, .salt = salt, .anew = anew};
  TRY_ASSIGN(const std::vector<RequestId> ids, submit(std::move(one)));
  return ids.front();
}

bool Scheduler::cancel(RequestId id) {
  const auto is = [&](const Sequence& s) { return s.id == id; };
  if (const auto it = std::find_if(running_.begin(), running_.end(), is); it != running_.end()) {
    let_go(*it);
    running_.erase(it);
    return true;
  }
  const auto it = std::find_if(waiting_.begin(), waiting_.end(), is);
  if (it == waiting_.end()) return false;
  waiting_tokens_ -= it->known();
  waiting_.erase(it);
  return true;
}

void Scheduler::propose(RequestId id, std::vector<int32_t> draft) {
  if (Sequence* const s = find(id)) s->draft = std::move(draft);
}

/// Pages for so many tokens more of running_[index]; requests that are younger give up theirs if
/// they must. False: not even then, and nothing was taken.
bool Scheduler::make_room(size_t index, int64_t tokens, bool preempt) {
  Sequence& s = running_[index];
  const int64_t wanted = pages_for(s.held + tokens) - std::ssize(s.pages);
  while (pool_.free() < wanted && preempt && running_.size() > index + 1) {
    Sequence& youngest = running_.back();
    let_go(youngest);
    waiting_tokens_ += youngest.known();
    waiting_.push_front(std::move(youngest));
    running_.pop_back();
    ++preemptions_;
  }
  if (pool_.free() < wanted) return false;
  for (int64_t i = 0; i < wanted; ++i) s.pages.push_back(pool_.take());
  return true;
}

/// The next `tokens` of the sequence, and its draft if these reach the last known one.
void Scheduler::plan_part(Pass& pass, Sequence& s, int64_t tokens) {
  const auto from = s.tokens.begin() + s.held;
  PassPart part{s.id, s.pages, s.held, {from, from + tokens}, 0, s.held + tokens == s.known()};
  if (part.wanted) {
    part.drafts = std::ssize(s.draft);
    part.tokens.insert(part.tokens.end(), s.draft.begin(), s.draft.end());
  }
  pass.parts.push_back(std::move(part));
}

Pass Scheduler::plan() {
  Pass pass;
  int64_t budget = limits_.tokens_per_pass, draft_budget = budget / 2;
  const auto generates = [](const Sequence& s) { return s.known() - s.held == 1; };
  int64_t reserved = std::count_if(running_.begin(), running_.end(), generates);
  const int64_t preempted = preemptions_;
  for (size_t i = 0; i < running_.size(); ++i) {  // which gets shorter where requests give up pages
    Sequence& s = running_[i];
    int64_t tokens = 1;
    if (generates(s)) {
      --reserved;
      // The last of the request is chosen, never run; a draft is not worth another's pages.
      const int64_t most = std::min(
          {std::ssize(s.draft), draft_budget, budget - reserved - 1, s.limit - s.known() - 1});
      s.draft.resize(static_cast<size_t>(std::max<int64_t>(most, 0)));
      if (!s.draft.empty() && !make_room(i, 1 + std::ssize(s.draft), false)) s.draft.clear();
      if (s.draft.empty() && !make_room(i, 1, true)) continue;
      draft_budget -= std::ssize(s.draft);
      budget -= std::ssize(s.draft);
    } else {
      s.draft.clear();
      tokens = std::min(s.known() - s.held, budget - reserved);
      if (tokens <= 0) continue;
      if (!make_room(i, tokens, true)) {
        tokens = (std::ssize(s.pages) + pool_.free()) * kPageTokens - s.held;
        if (tokens <= 0) continue;
        make_room(i, tokens, false);
      }
    }
    budget -= tokens;
    plan_part(pass, s, tokens);
  }
  if (preemptions_ > preempted) return pass;
  while (budget > 0 && std::ssize(running_) < limits_.running && !waiting_.empty()) {
    if (!admit(pass, budget)) break;
    budget -= std::ssize(pass.parts.back().tokens);
  }
  return pass;
}

/// Whether a running request is about to compute pages that this one could share.
bool Scheduler::shares_with_prompt_underway(const Sequence& s, int64_t found) const {
  return std::any_of(running_.begin(), running_.end(), [&](const Sequence& r) {
    if (r.salt != s.salt || r.held / kPageTokens >= (r.known() - 1) / kPageTokens) return false;
    const auto [end, unused] =
        std::mismatch(s.tokens.begin(), s.tokens.end() - 1, r.tokens.begin(), r.tokens.end());
    return (end - s.tokens.begin()) / kPageTokens > found / kPageTokens;
  });
}

/// The oldest that waits begins to run, if there are pages for all it has: what can be found of its
/// prompt is not computed again.
bool Scheduler::admit(Pass& pass, int64_t budget) {
  Sequence& s = waiting_.front();
  // The last token is run in any case: what follows it is wanted.
  const std::span<const int32_t> sought(s.tokens.data(), s.tokens.size() - 1);
  const bool look = limits_.remember && !s.anew;
  PagePool::Prefix prefix = look ? pool_.root(s.salt) : 0;
  PagePool::Found found;
  std::vector<int32_t> shared;
  for (;;) {
    const auto at = static_cast<size_t>(std::ssize(shared) * kPageTokens);
    found = pool_.find(prefix, sought.subspan(at));
    if (found.prefix == 0) break;
    pool_.hold(found.page);
    shared.push_back(found.page);
    prefix = found.prefix;
  }
  const int64_t whole = std::ssize(shared) * kPageTokens;
  if (pool_.free() < pages_for(s.known()) - std::ssize(shared) ||
      (look && shares_with_prompt_underway(s, whole))) {
    for (const int32_t page : shared) pool_.release(page);
    return false;
  }
  s.held = whole;
  s.remembered = std::ssize(shared);
  s.prefix = prefix;
  s.pages = std::move(shared);
  if (found.tokens > 0) {
    pool_.hold(found.page);
    const bool other = pool_.free() > 0;  // a page to copy it to
    if (other) {
      s.pages.push_back(pool_.take());
      pass.copies.push_back({found.page, s.pages.back(), found.tokens});
      s.held += found.tokens;
    }
    pool_.release(found.page);
  }
  s.reused = s.held;
  s.draft.clear();
  waiting_tokens_ -= s.known();
  running_.push_back(std::move(s));
  waiting_.pop_front();
  Sequence& running = running_.back();
  const int64_t tokens = std::min(running.known() - running.held, budget);
  check(make_room(running_.size() - 1, tokens, false), "scheduler: pages were counted wrongly");
  plan_part(pass, running, tokens);
  return true;
}

void Scheduler::advance(const PassPart& part, std::span<const int32_t> chosen, bool finished) {
  const auto it = std::find_if(
      running_.begin(), running_.end(), [&](const Sequence& s) { return s.id == part.id; });
  check(it != running_.end(), "scheduler: request {} does not run", part.id);
  Sequence& s = *it;
  check(part.length == s.held && part.wanted == !chosen.empty() &&
            std::ssize(chosen) <= part.drafts + 1 && s.known() + std::ssize(chosen) <= s.limit,
        "scheduler: {} tokens chosen after {} drafts",
        chosen.size(),
        part.drafts);
  s.held += std::ssize(part.tokens) - part.drafts;
  s.draft.clear();
  if (part.wanted) {
    s.tokens.insert(s.tokens.end(), chosen.begin(), chosen.end());
    s.held += std::ssize(chosen) - 1;  // the drafts that were right
  }
  remember(s);
  if (!finished) return;
  let_go(s);
  running_.erase(it);
}

/// Full pages can be found by others from now on.
void Scheduler::remember(Sequence& s) {
  if (!limits_.remember) return;
  for (; (s.remembered + 1) * kPageTokens <= s.held; ++s.remembered) {
    if (s.remembered == 0) s.prefix = pool_.make_root(s.salt);
    const auto i = static_cast<size_t>(s.remembered);
    s.prefix = pool_.remember(
        s.pages[i],
        s.prefix,
        std::span(s.tokens).subspan(i * static_cast<size_t>(kPageTokens), kPageTokens));
  }
}

/// The last pages first: what lies at the end of a text is least likely to be wanted again.
void Scheduler::let_go(Sequence& s) {
  if (const int64_t rest = s.held - s.remembered * kPageTokens; limits_.remember && rest > 0) {
    if (s.remembered == 0) s.prefix = pool_.make_root(s.salt);
    const auto i = static_cast<size_t>(s.remembered);
    pool_.remember(s.pages[i],
                   s.prefix,
                   std::span(s.tokens).subspan(i * static_cast<size_t>(kPageTokens),
                                               static_cast<size_t>(rest)));
  }
  for (auto page = s.pages.rbegin(); page != s.pages.rend(); ++page) pool_.release(*page);
  s.pages.clear();
  s.draft.clear();
  s.held = s.remembered = 0;
  s.prefix = 0;
}

void Scheduler::lose_cache() {
  pool_ = PagePool(limits_.pages);
  for (; !running_.empty(); running_.pop_back()) {
    Sequence& s = running_.back();
    s.pages.clear();
    s.draft.clear();
    s.held = s.remembered = 0;
    s.prefix = 0;
    waiting_tokens_ += s.known();
    waiting_.push_front(std::move(s));
  }
}

void Scheduler::check_consistent() const {
  pool_.check_consistent();
  std::vector<int64_t> owned(static_cast<size_t>(limits_.pages), 0);
  int64_t held = 0, tokens = 0;
  for (const Sequence& s : running_) {
    check(s.held < s.known() && pages_for(s.held) <= std::ssize(s.pages),
          "scheduler: request {} holds {} tokens of {} in {} pages",
          s.id,
          s.held,
          s.known(),
          s.pages.size());
    for (const int32_t page : s.pages) held += owned.at(static_cast<size_t>(page))++ == 0;
    // Pages that are written to are nobody else's.
    for (auto i = static_cast<size_t>(s.held / kPageTokens); i < s.pages.size(); ++i)
      for (const Sequence& other : running_)
        check(&other == &s || std::find(other.pages.begin(), other.pages.end(), s.pages[i]) ==
                                  other.pages.end(),
              "scheduler: page {} is written by {} and held by {}",
              s.pages[i],
              s.id,
              other.id);
  }
  check(held + pool_.free() == limits_.pages,
        "scheduler: {} pages held and {} free of {}",
        held,
        pool_.free(),
        limits_.pages);
  for (const Sequence& s : waiting_) {
    check(s.pages.empty() && s.held == 0, "scheduler: request {} waits with pages", s.id);
    tokens += s.known();
  }
  check(
      tokens == waiting_tokens_, "scheduler: {} tokens wait, {} counted", tokens, waiting_tokens_);
  if (!running_.empty() && !waiting_.empty())
    check(running_.back().id < waiting_.front().id, "scheduler: somebody was overtaken");
}

}  // namespace ferry::engine
