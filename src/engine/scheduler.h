// Scheduler: which tokens of which requests the next pass runs, and in which pages they lie. Pure: it
// knows no model and no clock, and the same calls give the same passes.
//
// Requests are served in the order of their arrival. In each pass every running request that
// generates gets its token, then prompts get what is left of the pass, the oldest first. Where pages
// run out, the youngest running request gives up its own and is computed again later. So those that
// run are always older than those that wait, the oldest moves on in every pass, and a request waits
// for no more passes than the tokens of those before it.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/page_pool.h"

namespace ferry::engine {

using RequestId = uint64_t;

struct SchedulerLimits {
  int64_t pages = 0;              // of the cache
  int64_t positions = 0;          // of the model
  int64_t running = 64;           // requests at once; fewer than tokens_per_pass
  int64_t tokens_per_pass = 512;  // prompts are cut to it; no bit depends on it
  int64_t waiting = 1024;         // requests, beside those for which there is a place at once
  int64_t waiting_tokens = int64_t{1} << 20;
  bool remember = true;  // whether prompts are looked for among what was computed before
};

/// What one request does in a pass.
struct PassPart {
  RequestId id = 0;
  std::span<const int32_t> pages;  // as KvCache::Part; valid until the scheduler is called again
  int64_t length = 0;
  std::vector<int32_t> tokens;  // to run: known ones, then drafts
  int64_t drafts = 0;
  bool wanted = false;  // they reach the last known token: the next is to be chosen
};

struct Pass {
  struct Copy {
    int32_t from, to;  // pages
    int64_t tokens;
  };
  std::vector<Copy> copies;  // before the parts are run, in this order
  std::vector<PassPart> parts;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  struct Asked {
    std::vector<int32_t> prompt;
    /// 0: the prompt is run, and what is chosen behind it goes nowhere, so that it may take all of the
    /// model's positions.
    int64_t tokens_max = 0;
    std::string salt = {};
    bool anew = false;  // every token of it is run, also those that the cache holds already
  };
  /// All of them, or none. Where nothing waits and one could begin at once, they are taken however many
  /// they are: there would never be a better time. Errors: kInvalidInput for a prompt that is empty,
  /// longer than the model's positions (or as long, with tokens to come) or, with the tokens to come,
  /// than the cache; kExhausted where too much is waiting already.
  Result<std::vector<RequestId>> submit(std::vector<Asked> together);
  Result<RequestId> submit(std::vector<int32_t> prompt,
                           int64_t tokens_max,
                           const std::string& salt,
                           bool anew = false);
  /// Whether a prompt of so many tokens could be answered if there was nothing else. Errors: submit's, but for
  /// kExhausted.
  Result<void> check_fits(int64_t prompt, int64_t tokens_max) const;
  /// Ends a request, wherever it is; false if there is none. Not between plan() and the last
  /// advance() of its pass.
  bool cancel(RequestId id);

  /// For a request that generates: what may come next. It is tried in the next pass.
  void propose(RequestId id, std::vector<int32_t> draft);

  /// Empty parts: nothing is to be done. Each part is to be answered by advance() before the next
  /// plan().
  Pass plan();
  /// The part was run. `chosen`: the tokens that follow those that were known, if they were wanted;
  /// all but the last one as drafted. `finished`: the last one ends the request.
  void advance(const PassPart& part, std::span<const int32_t> chosen, bool finished);
  /// What the cache holds is lost: everything is computed again.
  void lose_cache();

  /// Tokens that a prompt and its answer may have together: the model's positions, or the room of the whole cache.
  int64_t length_max() const;
  bool idle() const { return running_.empty() && waiting_.empty(); }
  int64_t running() const { return std::ssize(running_); }
  int64_t waiting() const { return std::ssize(waiting_); }
  int64_t pages_free() const { return pool_.free(); }
  int64_t preemptions() const { return preemptions_; }
  /// Tokens of the request's prompt that were found in the cache when it last began to run.
  int64_t reused(RequestId id) const;
  /// All tokens of a request that is there, and of these how many are its prompt's.
  std::span<const int32_t> tokens(RequestId id) const;

  /// Throws Bug if a page is lost or owned twice. For tests.
  void check_consistent() const;

 private:
  struct Sequence {
    RequestId id = 0;
    std::vector<int32_t> tokens;
    int64_t prompt = 0;
    int64_t limit = 0;  // tokens in all
    std::string salt;
    bool anew = false;
    std::vector<int32_t> draft;
    // While it runs:
    std::vector<int32_t> pages;
    int64_t held = 0;             // tokens in the cache
    int64_t remembered = 0;       // full pages that others can find
    PagePool::Prefix prefix = 0;  // that they end
    int64_t reused = 0;
    int64_t known() const { return std::ssize(tokens); }
  };
  Sequence* find(RequestId id);
  const Sequence* find(RequestId id) const;
  bool make_room(size_t index, int64_t tokens, bool preempt);
  bool admit(Pass& pass, int64_t budget);
  bool shares_with_prompt_underway(const Sequence& s, int64_t found) const;
  void plan_part(Pass& pass, Sequence& s, int64_t tokens);
  void remember(Sequence& s);
  void let_go(Sequence& s);

  SchedulerLimits limits_;
  PagePool pool_;
  std::deque<Sequence> running_, waiting_;  // the oldest first
  RequestId next_id_ = 1;
  int64_t waiting_tokens_ = 0;
  int64_t preemptions_ = 0;
};

}  // namespace ferry::engine
