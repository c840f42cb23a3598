#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/check.h"
#include "base/random.h"
#include "models/kv_cache.h"

namespace ferry::engine {
namespace {

using models::kPageTokens;
using models::pages_for;

std::vector<int32_t> counting(int64_t count, int32_t from = 0) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(from + static_cast<int32_t>(i));
  return tokens;
}

/// Runs passes until nothing is left; each answers with token 7. Returns how many tokens they ran.
int64_t run_all(Scheduler& s, int64_t tokens_each) {
  int64_t ran = 0;
  std::map<RequestId, int64_t> answered;
  while (!s.idle()) {
    const Pass pass = s.plan();
    EXPECT_FALSE(pass.parts.empty());
    for (const PassPart& part : pass.parts) {
      ran += std::ssize(part.tokens);
      const std::vector<int32_t> chosen(part.wanted ? 1 : 0, 7);
      s.advance(part, chosen, part.wanted && ++answered[part.id] == tokens_each);
    }
    s.check_consistent();
  }
  return ran;
}

TEST(Scheduler, WhatWasComputedIsFoundAgain) {
  Scheduler s({.pages = 16, .positions = 4096});
  ASSERT_TRUE(s.submit(counting(300), 4, ""));
  EXPECT_EQ(run_all(s, 4), 303);
  ASSERT_TRUE(s.submit(counting(300), 4, ""));  // all but the token whose logits are wanted
  EXPECT_EQ(run_all(s, 4), 4);
  std::vector<int32_t> changed = counting(300);
  changed[200] = 9999;  // in the second page
  ASSERT_TRUE(s.submit(changed, 4, ""));
  EXPECT_EQ(run_all(s, 4), 103);
  ASSERT_TRUE(s.submit(counting(300), 4, "somebody else's"));
  EXPECT_EQ(run_all(s, 4), 303);
  ASSERT_TRUE(s.submit(counting(300), 4, "", true));  // whose every token is to be run
  EXPECT_EQ(run_all(s, 4), 303);
}

TEST(Scheduler, ForgetsNothingWhereThereIsRoomAndTheOldestWhereThereIsNot) {
  Scheduler s({.pages = 4, .positions = 4096});
  for (const int32_t from : {0, 1000, 2000}) {
    ASSERT_TRUE(s.submit(counting(200, from), 1, ""));
    EXPECT_EQ(run_all(s, 1), 200);
  }
  ASSERT_TRUE(s.submit(counting(200, 2000), 1, ""));
  EXPECT_EQ(run_all(s, 1), 1);
  ASSERT_TRUE(s.submit(counting(200, 0), 1, ""));
  EXPECT_EQ(run_all(s, 1), 200);
}

TEST(Scheduler, APromptUnderwayIsWaitedForInsteadOfComputedTwice) {
  Scheduler s({.pages = 64, .positions = 4096, .tokens_per_pass = 256});
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(s.submit(counting(1000), 2, ""));
  EXPECT_LT(run_all(s, 2), 1000 + 4 * (kPageTokens + 2));
}

TEST(Scheduler, RefusesWhatCannotBeAnswered) {
  Scheduler s({.pages = 2, .positions = 1000, .running = 1, .waiting = 1, .waiting_tokens = 250});
  const auto refused = [&](std::vector<int32_t> prompt, int64_t more, Code code, const char* word) {
    const auto id = s.submit(std::move(prompt), more, "");
    ASSERT_FALSE(id) << word;
    EXPECT_EQ(id.error().code, code);
    EXPECT_NE(id.error().message.find(word), std::string::npos) << id.error().message;
  };
  refused({}, 5, Code::kInvalidInput, "empty");
  refused(counting(1000), 5, Code::kInvalidInput, "1000 positions");
  refused(counting(1001), 0, Code::kInvalidInput, "1000 positions");
  refused(counting(250), 7, Code::kInvalidInput, "room for 256");
  refused(counting(257), 0, Code::kInvalidInput, "room for 256");
  ASSERT_TRUE(s.submit(counting(200), 5, ""));
  refused(counting(60), 5, Code::kExhausted, "200 tokens waiting");
  ASSERT_TRUE(s.submit(counting(10), 5, ""));
  refused(counting(1), 5, Code::kExhausted, "2 requests");
  EXPECT_TRUE(s.cancel(1));
  EXPECT_FALSE(s.cancel(1));
  ASSERT_TRUE(s.submit(counting(1), 5, ""));
  EXPECT_EQ(run_all(s, 5), 10 + 4 + 1 + 4);
}

TEST(Scheduler, WhatIsAskedTogetherIsTakenWholeOrNotAtAll) {
  using Asked = std::vector<Scheduler::Asked>;
  Scheduler s({.pages = 2, .positions = 250, .running = 2, .waiting = 1, .waiting_tokens = 20});
  const Asked many(5, {.prompt = counting(10), .tokens_max = 2});
  Asked wrong = many;
  wrong.back().prompt = counting(300);
  const auto too_long = s.submit(wrong);
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code, Code::kInvalidInput);
  EXPECT_TRUE(s.idle());
  // More than may ever wait: there is never a better time than now.
  const auto ids = s.submit(many);
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(*ids, (std::vector<RequestId>{1, 2, 3, 4, 5}));
  const auto busy = s.submit(Asked(1, {.prompt = counting(1), .tokens_max = 2}));
  ASSERT_FALSE(busy);
  EXPECT_EQ(busy.error().code, Code::kExhausted);
  for (const RequestId id : {3, 4, 5}) EXPECT_TRUE(s.cancel(id));
  for (const Pass pass = s.plan(); const PassPart& part : pass.parts)
    s.advance(part, std::vector<int32_t>(part.wanted ? 1 : 0, 7), false);
  // Both places are taken: only what may wait beside them.
  EXPECT_EQ(s.running(), 2);
  EXPECT_FALSE(s.submit(Asked(2, {.prompt = counting(1), .tokens_max = 2})));
  EXPECT_EQ(s.waiting(), 0);
  EXPECT_TRUE(s.cancel(2));
  EXPECT_TRUE(s.submit(many));
}

TEST(Scheduler, APromptThatIsOnlyRunMayTakeAllPositionsAndPages) {
  Scheduler s({.pages = 2, .positions = 256, .running = 1, .tokens_per_pass = 100});
  const auto id = s.submit(counting(256), 0, "");
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_EQ(run_all(s, 1), 256);
  EXPECT_FALSE(s.submit(counting(256), 1, ""));
}

// ---- Simulation: a cache whose rows know what they hold, and a model that is a hash -------------

uint64_t mixed(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15u + b + 1;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9u;
  return x ^ (x >> 32);
}

/// What a row of a cache holds: a hash of all tokens up to it, and of the salt.
std::vector<uint64_t> rows_of(std::span<const int32_t> tokens, const std::string& salt) {
  std::vector<uint64_t> rows;
  uint64_t h = salt.size();
  for (const int32_t t : tokens) rows.push_back(h = mixed(h, static_cast<uint64_t>(t)));
  return rows;
}

// Few tokens, so that texts begin alike; the end comes by chance.
constexpr int32_t kEnd = 4;

int32_t next_token(uint64_t row) {
  const uint64_t h = mixed(row, 77);
  return h % 97 == 0 ? kEnd : static_cast<int32_t>(h / 97 % 4);
}

class Simulation {
 public:
  int64_t copies = 0, drafts = 0, preemptions = 0;

  explicit Simulation(uint64_t seed) : random_(seed, RandomPurpose::kTest, 11) {
    limits_.pages = pick(2, 12);
    limits_.positions = 700;
    limits_.running = pick(1, 9);
    limits_.tokens_per_pass = limits_.running + pick(1, 300);
    limits_.waiting = pick(1, 12);
    limits_.waiting_tokens = pick(200, 4000);
    limits_.remember = pick(0, 4) > 0;
    losing_ = pick(0, 9) == 0;
    drafting_ = pick(0, 1) == 1;
    cache_.resize(static_cast<size_t>(limits_.pages * kPageTokens));
  }

  void run() {
    Scheduler s(limits_);
    const int64_t requests = pick(3, 12);
    int64_t submitted = 0, pass_number = 0;
    while (submitted < requests || !s.idle()) {
      if (submitted < requests && (s.idle() || pick(0, 2) == 0)) {
        submit(s, pass_number);
        ++submitted;
      }
      if (pick(0, 40) == 0 && !asked_.empty()) {
        const auto it = std::next(asked_.begin(), pick(0, std::ssize(asked_) - 1));
        EXPECT_TRUE(s.cancel(it->first));
        asked_.erase(it);
      }
      if (losing_ && pick(0, 30) == 0) {
        std::fill(cache_.begin(), cache_.end(), 0);
        s.lose_cache();
      }
      s.check_consistent();
      const Pass pass = s.plan();
      s.check_consistent();
      ASSERT_EQ(pass.parts.empty(), s.idle());
      carry_out(s, pass, ++pass_number);
      if (::testing::Test::HasFailure()) return;
    }
    preemptions = s.preemptions();
    EXPECT_TRUE(asked_.empty());
    EXPECT_EQ(s.pages_free(), limits_.pages);
    s.check_consistent();
  }

 private:
  struct Asked {
    std::string salt;
    std::vector<int32_t> prompt, answer;
    int64_t limit = 0;      // tokens of the answer
    int64_t last_pass = 0;  // by which it has ended
    bool anew = false;
  };

  int64_t pick(int64_t from, int64_t to) {
    return from +
           static_cast<int64_t>(random_.bits(next_++) % static_cast<uint64_t>(to - from + 1));
  }

  void submit(Scheduler& s, int64_t pass_number) {
    Asked a;
    a.salt = pick(0, 3) == 0 ? "another" : "";
    const int64_t common = pick(0, 2) * pick(0, 200);  // of all prompts
    for (int64_t i = 0; i < common; ++i) a.prompt.push_back(static_cast<int32_t>(i % 3));
    for (int64_t i = pick(common == 0, 150); i > 0; --i)
      a.prompt.push_back(static_cast<int32_t>(pick(0, 3)));
    const bool only_run = pick(0, 11) == 0;
    a.limit = std::min(pick(1, only_run ? 1 : 200), limits_.positions - std::ssize(a.prompt));
    // No pass without a token of the oldest: the bound that the scheduler promises.
    a.last_pass = pass_number + std::ssize(a.prompt) + a.limit + 1;
    for (const auto& [id, other] : asked_)
      a.last_pass += std::ssize(other.prompt) + other.limit + 1;
    a.anew = pick(0, 7) == 0;
    const int64_t to_come = only_run ? 0 : a.limit;
    const auto id = s.submit(a.prompt, to_come, a.salt, a.anew);
    const int64_t whole = std::ssize(a.prompt) + to_come;
    if (id) {
      asked_.emplace(*id, std::move(a));
    } else if (id.error().code == Code::kInvalidInput) {
      EXPECT_TRUE(a.prompt.empty() || pages_for(whole) > limits_.pages) << id.error().message;
    } else {
      EXPECT_EQ(id.error().code, Code::kExhausted);
      EXPECT_GT(s.waiting(), 0);
    }
  }

  void carry_out(Scheduler& s, const Pass& pass, int64_t pass_number) {
    for (const Pass::Copy& c : pass.copies)
      for (int64_t i = 0; i < c.tokens; ++i) row(c.to, i) = row(c.from, i);
    std::set<int32_t> written;  // pages
    int64_t tokens = 0;
    std::vector<std::vector<uint64_t>> results;
    for (const PassPart& part : pass.parts) {  // before anything is written
      tokens += std::ssize(part.tokens);
      const std::span<const int32_t> known = s.tokens(part.id);
      std::vector<int32_t> text(known.begin(), known.begin() + part.length);
      text.insert(text.end(), part.tokens.begin(), part.tokens.end());
      results.push_back(rows_of(text, asked_.at(part.id).salt));
      // What is held is what it should be: at its end, and somewhere.
      for (int64_t at = part.length - 1; at >= 0; at -= 1 + pick(0, 90))
        ASSERT_EQ(row_of(part, at), results.back()[static_cast<size_t>(at)])
            << "request " << part.id << ", token " << at;
    }
    for (size_t p = 0; p < pass.parts.size(); ++p) {
      const PassPart& part = pass.parts[p];
      const auto end = part.length + std::ssize(part.tokens);
      ASSERT_LE(pages_for(end), std::ssize(part.pages));
      for (int64_t at = part.length; at < end; ++at) {
        row_of(part, at) = results[p][static_cast<size_t>(at)];
        if (at == part.length || at % kPageTokens == 0) {
          ASSERT_TRUE(written.insert(part.pages[static_cast<size_t>(at / kPageTokens)]).second);
        }
      }
      drafts += part.drafts;
    }
    copies += std::ssize(pass.copies);
    ASSERT_LE(tokens, limits_.tokens_per_pass);
    ASSERT_LE(std::ssize(pass.parts), limits_.running);
    for (size_t p = 0; p < pass.parts.size(); ++p)
      answer(s, pass.parts[p], results[p], pass_number);
  }

  void answer(Scheduler& s,
              const PassPart& part,
              const std::vector<uint64_t>& rows,
              int64_t pass_number) {
    Asked& a = asked_.at(part.id);
    std::vector<int32_t> chosen;
    bool finished = false;
    if (part.wanted) {
      const size_t first = rows.size() - static_cast<size_t>(part.drafts) - 1;
      for (int64_t i = 0; i <= part.drafts && !finished; ++i) {
        chosen.push_back(next_token(rows[first + static_cast<size_t>(i)]));
        a.answer.push_back(chosen.back());
        finished = chosen.back() == kEnd || std::ssize(a.answer) == a.limit;
        if (i < part.drafts &&
            chosen.back() != *(part.tokens.end() - part.drafts + static_cast<long>(i)))
          break;
      }
    }
    if (a.anew) {
      EXPECT_EQ(s.reused(part.id), 0);
    }
    s.advance(part, chosen, finished);
    if (!finished) {
      if (drafting_ && part.wanted) s.propose(part.id, guess(a));
      return;
    }
    if (!losing_) {
      EXPECT_LE(pass_number, a.last_pass) << "request " << part.id;
    }
    std::vector<int32_t> text = a.prompt;
    text.insert(text.end(), a.answer.begin(), a.answer.end());
    const std::vector<uint64_t> right = rows_of(text, a.salt);
    for (size_t i = 0; i < a.answer.size(); ++i)
      ASSERT_EQ(a.answer[i], next_token(right[a.prompt.size() + i - 1]));
    asked_.erase(part.id);
  }

  /// Some right tokens, then wrong ones.
  std::vector<int32_t> guess(const Asked& a) {
    std::vector<int32_t> text = a.prompt, out;
    text.insert(text.end(), a.answer.begin(), a.answer.end());
    const int64_t right = pick(0, 4), wrong = pick(0, 2);
    for (int64_t i = 0; i < right + wrong; ++i) {
      const int32_t next = next_token(rows_of(text, a.salt).back());
      out.push_back(i < right ? next : (next + 1) % 4);
      text.push_back(out.back());
    }
    return out;
  }

  uint64_t& row(int32_t page, int64_t at) {
    return cache_[static_cast<size_t>(page * kPageTokens + at)];
  }
  uint64_t& row_of(const PassPart& part, int64_t token) {
    return row(part.pages[static_cast<size_t>(token / kPageTokens)], token % kPageTokens);
  }

  Random random_;
  uint64_t next_ = 0;
  SchedulerLimits limits_;
  bool losing_ = false, drafting_ = false;
  std::vector<uint64_t> cache_;
  std::map<RequestId, Asked> asked_;
};

TEST(Scheduler, TenThousandCrowds) {
  int64_t copies = 0, drafts = 0, preemptions = 0;
  for (uint64_t seed = 0; seed < 10000; ++seed) {
    Simulation simulation(seed);
    simulation.run();
    ASSERT_FALSE(::testing::Test::HasFailure()) << "seed " << seed;
    copies += simulation.copies;
    drafts += simulation.drafts;
    preemptions += simulation.preemptions;
  }
  // The crowds met what they were made for.
  EXPECT_GT(copies, 1000);
  EXPECT_GT(drafts, 100000);
  EXPECT_GT(preemptions, 1000);
}

}  // namespace
}  // namespace ferry::engine
