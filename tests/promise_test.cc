// The promise of the engine: a request's tokens and log-probabilities are the same bits alone and
// among others, whatever was computed before, however prompts are cut, drafts tried and pages given
// up; and they are what training computes for these tokens. Over each architecture and type.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <optional>

#include "autograd/tape.h"
#include "base/check.h"
#include "base/cpu_tier.h"
#include "base/random.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "engine/generate.h"
#include "failing_device.h"
#include "grammar/schema.h"
#include "ops/add/add.h"
#include "ops/dispatch.h"
#include "ops/pair_linear/paired_weight.h"
#include "small_model.h"
#include "tensor/quantise.h"

namespace ferry {
namespace {

using engine::Engine;
using engine::EngineOptions;
using engine::Finish;
using engine::Progress;
using engine::Request;
using engine::RequestId;
using engine::Token;

struct Answer {
  std::vector<Token> prompt;  // from the second one on, if their log-probabilities were asked for
  std::vector<Token> tokens;  // the end token, if there is one, last
  Finish finish = Finish::kNone;
};

std::string written(const Token& t) {
  std::string s = fmt::format("{} {:x} {:x}",
                              t.id,
                              std::bit_cast<uint64_t>(t.drawn_log_prob),
                              std::bit_cast<uint32_t>(t.log_prob));
  for (const auto& [id, log_prob] : t.top)
    s += fmt::format(" {}:{:x}", id, std::bit_cast<uint32_t>(log_prob));
  return s;
}

/// Every bit of it.
std::vector<std::string> written(const Answer& a) {
  std::vector<std::string> lines;
  for (const Token& t : a.prompt) lines.push_back("prompt " + written(t));
  for (const Token& t : a.tokens) lines.push_back(written(t));
  lines.push_back(fmt::format("finish {}", static_cast<int>(a.finish)));
  return lines;
}

void take(const std::vector<Progress>& news, std::map<RequestId, Answer>& answers) {
  for (const Progress& p : news) {
    Answer& a = answers[p.id];
    ASSERT_EQ(a.finish, Finish::kNone);
    a.prompt.insert(a.prompt.end(), p.prompt.begin(), p.prompt.end());
    a.tokens.insert(a.tokens.end(), p.tokens.begin(), p.tokens.end());
    if (p.end) a.tokens.push_back(*p.end);
    a.finish = p.finish;
  }
}

Answer alone(models::CausalLm& model, const Request& request) {
  Engine engine(model, {.cache_tokens = 512, .running = 1, .remember = false});
  std::map<RequestId, Answer> answers;
  const auto id = engine.submit(request);
  EXPECT_TRUE(id) << id.error().message;
  while (!engine.idle()) take(engine.step(), answers);
  return answers[*id];
}

/// Lists of numbers and of such lists, in a vocabulary of small_model()'s size that has further tokens.
std::shared_ptr<const grammar::Constraint> list_form() {
  static const auto form = [] {
    std::vector<std::string> tokens(64);
    const std::vector<std::string> texts = {
        "[", "]", ",", " ", "-", "", "[[", "]]", "1,", "],", "0"};
    std::copy(texts.begin(), texts.end(), tokens.begin());
    for (size_t digit = 1; digit < 10; ++digit) tokens[10 + digit] = std::to_string(digit);
    for (size_t i = 20; i < tokens.size(); ++i) tokens[i] = std::to_string(i);
    auto automaton = grammar::schema_automaton(
        R"({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"$ref": "#"}]}})", "list");
    check(automaton.has_value(), "test: a schema");
    return std::make_shared<const grammar::Constraint>(grammar::Constraint{
        .automaton = *automaton, .vocabulary = grammar::Vocabulary::of(std::move(tokens))});
  }();
  return form;
}

/// Requests of mixed lengths and manners, many of which begin alike.
std::vector<Request> crowd(int count, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 21);
  uint64_t next = 0;
  const auto pick = [&](int64_t from, int64_t to) {
    return from + static_cast<int64_t>(random.bits(next++) % static_cast<uint64_t>(to - from + 1));
  };
  std::vector<Request> all;
  for (int i = 0; i < count; ++i) {
    Request r;
    for (int64_t t = pick(0, 2) * pick(0, 60); t > 0; --t)
      r.prompt.push_back(static_cast<int32_t>(t * 7 % 61));
    for (int64_t t = pick(1, 40); t > 0; --t) r.prompt.push_back(static_cast<int32_t>(pick(0, 3)));
    if (i % 3 == 0) r.prompt.resize(121, 2);  // the answer begins another page
    engine::GenerateOptions& o = r.options;
    o.tokens_max = pick(1, 20);
    o.end_tokens = {5};
    o.top_log_probs = pick(0, 3);
    o.sampling.seed = static_cast<uint64_t>(i);
    switch (i % 4) {
      case 0: break;  // greedy
      case 1: o.sampling.temperature = 0.9; break;
      case 2:
        o.sampling.temperature = 1.2;
        o.sampling.top_p = 0.8;
        o.sampling.top_k = 12;
        o.log_prob_temperature = 1.2f;
        break;
      default:
        o.sampling.temperature = 0.3;
        o.sampling.min_p = 0.05;
        o.sampling.repetition_penalty = 1.3;
        o.sampling.frequency_penalty = 0.5;
        o.sampling.logit_bias = {{3, 1.5}};
    }
    if (i % 5 == 0) r.salt = "another's";
    if (i % 6 == 1) o.constraint = list_form();
    if (i % 7 == 3) o.prompt_top_log_probs = pick(0, 3);
    if (i % 21 == 3) o.tokens_max = 0;
    all.push_back(std::move(r));
  }
  return all;
}

class EachModel : public ::testing::TestWithParam<SmallModel> {
 protected:
  std::unique_ptr<models::TrainableLm> model_on(Device& device) const {
    return small_model(GetParam().architecture, GetParam().compute, device);
  }
};

/// They arrive in between, in an order of the seed's; the answers in the requests' order.
std::vector<Answer> together(Engine& engine, const std::vector<Request>& requests, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 22);
  uint64_t draw = 0;
  std::map<RequestId, Answer> answers;
  std::vector<RequestId> ids;
  while (ids.size() < requests.size() || !engine.idle()) {
    while (ids.size() < requests.size() && random.bits(draw++) % 3 != 0) {
      const auto id = engine.submit(requests[ids.size()]);
      EXPECT_TRUE(id) << id.error().message;
      ids.push_back(*id);
    }
    take(engine.step(), answers);
  }
  std::vector<Answer> out;
  for (const RequestId id : ids) out.push_back(answers[id]);
  return out;
}

void expect_alone_among_others(models::CausalLm& model, const std::vector<Request>& requests) {
  std::vector<Answer> expected;
  for (const Request& r : requests) expected.push_back(alone(model, r));
  struct Way {
    const char* name;
    EngineOptions options;
    CpuTier tier = cpu_tier();
    int threads = 0;
  };
  const CpuTier best = cpu_tier();
  const EngineOptions wide{.cache_tokens = 16384, .running = 64, .tokens_per_pass = 512};
  std::vector<Way> ways = {
      {"wide", wide},
      {"small passes", {.cache_tokens = 4096, .running = 8, .tokens_per_pass = 9}},
      {"one by one in passes of two", {.cache_tokens = 512, .running = 1, .tokens_per_pass = 2}},
      {"a full cache", {.cache_tokens = 640, .running = 16, .tokens_per_pass = 100}},
      {"nothing remembered", {.cache_tokens = 2048, .running = 16, .remember = false}},
      {"drafts", {.cache_tokens = 8192, .running = 32, .drafts = 4}},
      {"one thread", wide, best, 1},
      {"three threads", wide, best, 3},
  };
  for (const CpuTier tier : kCpuTiers)
    if (cpu_has(tier) && tier != best) ways.push_back({to_string(tier), wide, tier});
  for (const Way& way : ways) {
    set_cpu_tier(way.tier);
    set_cpu_threads(way.threads);
    Engine engine(model, way.options);
    for (const uint64_t seed : {1, 2}) {  // the second time with a warm cache
      const std::vector<Answer> got = together(engine, requests, seed);
      for (size_t i = 0; i < requests.size(); ++i)
        EXPECT_EQ(written(got[i]), written(expected[i])) << way.name << ", request " << i;
    }
    const engine::EngineCounts& counts = engine.counts();
    const std::string name = way.name;
    EXPECT_TRUE(name != "wide" || counts.tokens_reused > 2000) << counts.tokens_reused;
    EXPECT_TRUE(name != "a full cache" || counts.preemptions > 0);
    EXPECT_TRUE(name != "drafts" || (counts.drafted > 100 && counts.accepted > 0))
        << counts.drafted << ", " << counts.accepted;
  }
  set_cpu_tier(best);
  set_cpu_threads(0);
}

TEST_P(EachModel, AmongSixtyFourIsAlone) {
  expect_alone_among_others(*model_on(cpu_device()), crowd(64, 1));
}

/// Who gives up its pages may have guessed ahead, or be about to.
TEST_P(EachModel, DraftsWherePagesRunOutChangeNothing) {
  const auto model = model_on(cpu_device());
  const std::vector<Request> requests = crowd(20, 9);
  std::vector<Answer> expected;
  for (const Request& r : requests) expected.push_back(alone(*model, r));
  Engine engine(*model, {.cache_tokens = 384, .running = 16, .tokens_per_pass = 100, .drafts = 4});
  for (const uint64_t seed : {1, 2}) {
    const std::vector<Answer> got = together(engine, requests, seed);
    for (size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(written(got[i]), written(expected[i])) << "request " << i;
  }
  const engine::EngineCounts& counts = engine.counts();
  EXPECT_GT(counts.preemptions, 0);
  EXPECT_GT(counts.accepted, 0);
  EXPECT_GT(counts.drafted, counts.accepted);
}

/// `trained`: as a step of training computes losses, with a tape.
void expect_log_probabilities_of_losses(models::TrainableLm& model, bool trained) {
  for (Request r : crowd(8, 5)) {
    r.options.log_prob_temperature = 1;
    r.options.tokens_max = std::max<int64_t>(r.options.tokens_max, 1);
    r.options.prompt_top_log_probs = 2;
    const Answer a = alone(model, r);
    std::vector<int32_t> text = r.prompt, labels(r.prompt.begin() + 1, r.prompt.end());
    for (const Token& t : a.tokens) {
      labels.push_back(t.id);
      text.push_back(t.id);
    }
    text.pop_back();
    const auto length = static_cast<int32_t>(text.size());
    const Tensor ids = Tensor::from_i32(text, {length}, cpu_device());
    models::TokenBatch batch{
        .tokens = ids,
        .labels = Tensor::from_i32(labels, {length}, cpu_device()),
        .segments = ops::Segments::packed(std::vector<int32_t>{length}, cpu_device())};
    Tape tape(&ops::accumulate);
    std::optional<Tape::Recording> recording;
    if (trained) recording.emplace(&tape);
    const std::vector<float> losses =
        model.losses(batch, {.mla_form = models::MlaForm::kAbsorbed}).token_losses.to_f32();
    ASSERT_EQ(a.prompt.size() + 1, r.prompt.size());
    for (size_t i = 0; i < losses.size(); ++i) {
      const Token& t = i < a.prompt.size() ? a.prompt[i] : a.tokens[i - a.prompt.size()];
      EXPECT_EQ(t.id, labels[i]);
      EXPECT_EQ(std::bit_cast<uint32_t>(t.log_prob), std::bit_cast<uint32_t>(-losses[i]))
          << "token " << i;
      EXPECT_EQ(t.top.size(),
                i < a.prompt.size() ? 2u : static_cast<size_t>(*r.options.top_log_probs));
    }
  }
}

TEST_P(EachModel, LogProbabilitiesAreWhatTrainingComputes) {
  expect_log_probabilities_of_losses(*model_on(cpu_device()), true);
}

TEST_P(EachModel, APromptIsScoredWithoutAnAnswer) {
  const auto model = model_on(cpu_device());
  Engine engine(*model, {.cache_tokens = 1024, .running = 2, .tokens_per_pass = 70});
  Request r{.prompt = std::vector<int32_t>(200, 3), .options = {.tokens_max = 1}, .salt = ""};
  r.options.prompt_top_log_probs = 0;
  const std::vector<Token> expected = alone(*model, r).prompt;
  r.options.tokens_max = 0;
  const auto none = [](const Token&) {
    ADD_FAILURE() << "a token";
    return true;
  };
  for (int warm = 0; warm < 2; ++warm) {
    const auto got = engine::generate(engine, r, none);
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(got->finish, Finish::kLength);
    ASSERT_EQ(got->prompt.size(), 199u);
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_EQ(written(got->prompt[i]), written(expected[i]));
  }
  EXPECT_EQ(engine.counts().tokens_reused, 0);
  EXPECT_EQ(engine.counts().tokens_answered, 0);
}

/// One that leaves no room for an answer needs none.
TEST_P(EachModel, APromptOfAllPositionsIsScored) {
  const auto model = model_on(cpu_device());
  const int64_t positions = model->max_positions();
  const auto scored = [&](int64_t tokens, int64_t answer) {
    Engine engine(*model, {.cache_tokens = positions, .running = 2, .tokens_per_pass = 70});
    Request r{.prompt = std::vector<int32_t>(static_cast<size_t>(tokens), 3),
              .options = {.tokens_max = answer},
              .salt = ""};
    r.options.prompt_top_log_probs = 0;
    return engine::generate(engine, r, [](const Token&) { return true; });
  };
  const auto whole = scored(positions, 0), shorter = scored(positions - 1, 1);
  ASSERT_TRUE(whole) << whole.error().message;
  ASSERT_TRUE(shorter) << shorter.error().message;
  ASSERT_EQ(std::ssize(whole->prompt), positions - 1);
  for (size_t i = 0; i < shorter->prompt.size(); ++i)
    EXPECT_EQ(written(whole->prompt[i]), written(shorter->prompt[i]));
  EXPECT_FALSE(scored(positions, 1));
  EXPECT_FALSE(scored(positions + 1, 0));
}

/// It is what it is held to, and what the model thinks of it is not changed by that.
TEST_P(EachModel, AnAnswerIsHeldToItsForm) {
  const auto model = model_on(cpu_device());
  int ended = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Request r{.prompt = {1, 2, 3}, .options = {}, .salt = ""};
    r.options.tokens_max = 60;
    r.options.end_tokens = {5, 60};
    r.options.top_log_probs = 0;
    r.options.constraint = list_form();
    r.options.sampling = {.temperature = seed == 0 ? 0.0 : 2.0, .seed = seed};
    const Answer answer = alone(*model, r);
    grammar::Matcher matcher(list_form());
    for (const Token& t : answer.tokens) {
      const bool end = t.id == 5 || t.id == 60;
      EXPECT_TRUE(end ? matcher.may_end() : matcher.accept(t.id)) << t.id;
    }
    ended += answer.finish == Finish::kEnd ? 1 : 0;
    // The same token where nothing but a bias makes it come.
    r.options.constraint = nullptr;
    r.options.tokens_max = 1;
    r.options.sampling = {.logit_bias = {{answer.tokens[0].id, 1000}}};
    const Answer free = alone(*model, r);
    EXPECT_EQ(free.tokens[0].id, answer.tokens[0].id);
    EXPECT_EQ(std::bit_cast<uint32_t>(free.tokens[0].log_prob),
              std::bit_cast<uint32_t>(answer.tokens[0].log_prob));
  }
  EXPECT_GT(ended, 3);
}

TEST_P(EachModel, AFaultOfTheDeviceChangesNoAnswer) {
  const auto model = model_on(cpu_device());
  const std::vector<Request> requests = crowd(12, 7);
  std::vector<Answer> expected;
  for (const Request& r : requests) expected.push_back(alone(*model, r));
  Engine engine(*model, {.cache_tokens = 2048, .running = 6, .tokens_per_pass = 64});
  std::map<RequestId, Answer> answers;
  std::vector<RequestId> ids;
  for (const Request& r : requests) ids.push_back(*engine.submit(r));
  int faults = 0;
  for (int step = 0; !engine.idle(); ++step) {
    FailingDevice failing(step % 4 == 2 ? 10 * step % 90 : -1);
    const ops::Observing observing(failing);
    try {
      take(engine.step(), answers);
    } catch (const DeviceError&) {
      ++faults;
    }
  }
  EXPECT_GT(faults, 3);
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(written(answers[ids[i]]), written(expected[i])) << "request " << i;
}

/// Writes NaN into what one launch of attention gave.
class Spoiler final : public ops::Observer {
 public:
  explicit Spoiler(int launch) : launches_left_(launch) {}
  void after(const ops::OpCall& call) override {
    if (std::string_view(call.op) != "attention" || launches_left_-- != 0) return;
    const View& out = call.outputs.front().view;
    std::memset(out.data, 0xff, static_cast<size_t>(out.count()) * size_of(out.dtype));
  }

 private:
  int launches_left_;
};

TEST_P(EachModel, AnAnswerThatIsNoneFailsAloneAndLeavesNothingBehind) {
  const auto model = model_on(cpu_device());
  Request r{.prompt = std::vector<int32_t>(200, 3), .options = {}, .salt = ""};
  r.options.tokens_max = 5;
  const std::vector<std::string> expected = written(alone(*model, r));
  Engine engine(*model, {.cache_tokens = 1024, .running = 2, .tokens_per_pass = 130});
  {
    Spoiler spoiler(0);  // in the first pass: the page that is full after it is spoiled, too
    const ops::Observing observing(spoiler);
    const auto id = engine.submit(r);
    ASSERT_TRUE(id);
    std::vector<Progress> all;
    while (!engine.idle())
      for (Progress& p : engine.step()) all.push_back(std::move(p));
    ASSERT_EQ(all.size(), 2u);  // that it began, and how it ended
    EXPECT_EQ(all[0].finish, Finish::kNone);
    EXPECT_EQ(all[1].finish, Finish::kFailed);
    EXPECT_EQ(all[1].error.code, Code::kVerdict);
    for (const Progress& p : all) EXPECT_TRUE(p.tokens.empty());
  }
  std::map<RequestId, Answer> answers;
  const auto again = engine.submit(r);
  while (!engine.idle()) take(engine.step(), answers);
  EXPECT_EQ(written(answers[*again]), expected);
}

/// Its form wants tokens that are also to end the answer: nobody else pays for that.
TEST_P(EachModel, AFormThatCannotGoOnFailsAloneAndLeavesTheCache) {
  const auto model = model_on(cpu_device());
  Request r{.prompt = std::vector<int32_t>(200, 3), .options = {}, .salt = ""};
  r.options.tokens_max = 5;
  Engine engine(*model, {.cache_tokens = 1024, .running = 2, .tokens_per_pass = 130});
  std::map<RequestId, Answer> answers;
  const auto first = engine.submit(r);
  while (!engine.idle()) take(engine.step(), answers);
  Request dead = r;
  dead.prompt = {1, 2};
  dead.options.constraint = list_form();
  dead.options.end_tokens = {0, 2, 3, 6};  // "[", ",", " ", "[["
  const auto id = engine.submit(dead);
  ASSERT_TRUE(id);
  std::vector<Progress> all;
  while (!engine.idle())
    for (Progress& p : engine.step()) all.push_back(std::move(p));
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(all.back().finish, Finish::kFailed);
  EXPECT_EQ(all.back().error.code, Code::kInvalidInput) << all.back().error.message;
  EXPECT_EQ(engine.counts().tokens_reused, 0);
  const auto again = engine.submit(r);
  while (!engine.idle()) take(engine.step(), answers);
  EXPECT_EQ(written(answers[*again]), written(answers[*first]));
  EXPECT_GT(engine.counts().tokens_reused, 100);
}

TEST_P(EachModel, ACancelledRequestIsGoneAndOthersDoNotNotice) {
  const auto model = model_on(cpu_device());
  const std::vector<Request> requests = crowd(10, 9);
  Engine engine(*model, {.cache_tokens = 1024, .running = 4, .tokens_per_pass = 40});
  std::map<RequestId, Answer> answers;
  std::vector<RequestId> ids;
  for (const Request& r : requests) ids.push_back(*engine.submit(r));
  for (int step = 0; !engine.idle(); ++step) {
    take(engine.step(), answers);
    if (step == 1) {
      for (const size_t i : {0, 2, 7, 9}) {
        const bool done = answers[ids[i]].finish != Finish::kNone;
        EXPECT_NE(engine.cancel(ids[i]), done);
        answers.erase(ids[i]);
      }
    }
  }
  for (const size_t i : {0, 2, 7, 9}) EXPECT_FALSE(answers.contains(ids[i]));
  for (const size_t i : {1, 3, 4, 5, 6, 8})
    EXPECT_EQ(written(answers[ids[i]]), written(alone(*model, requests[i])));
}

TEST_P(EachModel, OneAfterTheOtherGoesOnWhereItAgrees) {
  const auto model = model_on(cpu_device());
  const std::vector<int32_t> first = small_documents()[2];
  std::vector<int32_t> longer = first, changed;
  for (int32_t t = 0; t < 150; ++t) longer.push_back(t % 61);
  changed = longer;
  changed[160] = (changed[160] + 1) % 61;
  engine::GenerateOptions options{.tokens_max = 9};
  options.sampling = {.temperature = 0.9, .top_p = 0.9, .seed = 4};
  Engine engine(*model, {.cache_tokens = 2048, .running = 1});
  int64_t before = 0;
  for (const auto& [prompt, reused] : {std::pair{first, int64_t{0}},
                                       {first, std::ssize(first) - 1},
                                       {longer, std::ssize(first)},
                                       {changed, int64_t{160}},
                                       {longer, std::ssize(longer) - 1}}) {
    Engine anew(*model, {.cache_tokens = 256, .running = 1});
    std::vector<std::string> got, expected;
    const auto keep = [](std::vector<std::string>& of) {
      return [&of](const Token& t) {
        of.push_back(written(t));
        return true;
      };
    };
    ASSERT_TRUE(engine::generate(engine, {prompt, options, ""}, keep(got)));
    ASSERT_TRUE(engine::generate(anew, {prompt, options, ""}, keep(expected)));
    EXPECT_EQ(got, expected);
    EXPECT_GE(engine.counts().tokens_reused - before, reused);
    before = engine.counts().tokens_reused;
  }
  // Stopped while the prompt is read, and after the first token.
  const auto all = [](const Token&) { return true; };
  const auto whole = engine::generate(engine, {longer, options, ""}, all);
  const auto none = engine::generate(engine, {longer, options, ""}, all, [] { return false; });
  const auto one =
      engine::generate(engine, {longer, options, ""}, [](const Token&) { return false; });
  ASSERT_TRUE(whole && none && one);
  EXPECT_TRUE(none->tokens.empty());
  EXPECT_EQ(one->tokens, std::vector<int32_t>(1, whole->tokens.front()));
  EXPECT_EQ(whole->finish, Finish::kLength);
  EXPECT_EQ(one->finish, Finish::kNone);
}

/// On another device numbers are others, and a request is as alone among others.
TEST_P(EachModel, TheSameOnSoftwareAscend) {
  const Result<Device*> device = open_device("ascend");
  ASSERT_TRUE(device) << device.error().message;
  const auto model = model_on(**device);
  const std::vector<Request> requests = crowd(8, 3);
  std::vector<Answer> expected;
  for (const Request& r : requests) expected.push_back(alone(*model, r));
  for (const EngineOptions& options :
       {EngineOptions{.cache_tokens = 2048, .running = 8, .drafts = 3},
        EngineOptions{.cache_tokens = 384, .running = 3, .tokens_per_pass = 50}}) {
    Engine engine(*model, options);
    for (const uint64_t seed : {1, 2}) {
      const std::vector<Answer> got = together(engine, requests, seed);
      for (size_t i = 0; i < requests.size(); ++i)
        EXPECT_EQ(written(got[i]), written(expected[i])) << "request " << i;
    }
  }
}

class EachCodes : public ::testing::TestWithParam<WeightCodes> {
 protected:
  /// Every part of DeepSeek V3, of more positions than two pages, with codes where products take them.
  static std::unique_ptr<models::TrainableLm> model() {
    models::deepseek_v3::Config config = small_config();
    config.max_position_embeddings = 512;
    auto model = random_model(config, DType::kBF16, cpu_device());
    int coded = 0;
    for (Weight* w : model->weights()) {
      if (!takes_codes(*w) && w->role != WeightRole::kHead) continue;
      const int64_t columns = w->value.dim(-1), matrix = w->value.dim(-2) * columns;
      const std::vector<float> numbers = w->value.to_f32();
      PanelsInMaking made(GetParam(), w->global_shape);
      for (int64_t m = 0; m * matrix < std::ssize(numbers); ++m)
        made.put(m,
                 0,
                 quantise_rows(GetParam(),
                               std::span(numbers).subspan(static_cast<size_t>(m * matrix),
                                                          static_cast<size_t>(matrix)),
                               columns));
      made.store_in(*w);
      ++coded;
    }
    EXPECT_GT(coded, 20);
    return model;
  }
};

TEST_P(EachCodes, AmongSixtyFourIsAlone) {
  std::vector<Request> requests = crowd(64, 1);
  for (size_t i = 0; i < requests.size(); i += 9) {  // over four pages, of which some begin alike
    std::vector<int32_t>& prompt = requests[i].prompt;
    prompt.insert(prompt.begin(), 300 + i, static_cast<int32_t>(i % 2));
  }
  expect_alone_among_others(*model(), requests);
}

TEST_P(EachCodes, LogProbabilitiesAreLosses) {
  expect_log_probabilities_of_losses(*model(), false);
}

/// What weights are stored as is nobody's matter, and nothing is packed beside them.
TEST(Pairs, AnswersAreThoseOfTheNumbersInRows) {
  const auto rows = random_model(small_config(), DType::kBF16, cpu_device()),
             pairs = random_model(small_config(), DType::kBF16, cpu_device());
  int paired = 0;
  for (Weight* w : pairs->weights()) {
    if (!takes_codes(*w) && w->role != WeightRole::kHead && w->role != WeightRole::kEmbedding)
      continue;
    w->store_as(ops::paired_weight(w->name, w->value));
    ++paired;
  }
  EXPECT_GT(paired, 20);
  const std::vector<Request> requests = crowd(24, 1);
  Engine engine(*pairs, {.cache_tokens = 4096, .running = 24, .tokens_per_pass = 256});
  const std::vector<Answer> got = together(engine, requests, 1);
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(written(got[i]), written(alone(*rows, requests[i]))) << "request " << i;
  for (const Weight* w : pairs->weights())
    EXPECT_TRUE(w->packed == nullptr || !w->paired) << w->name;
}

INSTANTIATE_TEST_SUITE_P(Small,
                         EachCodes,
                         ::testing::Values(WeightCodes::kInt8, WeightCodes::kInt4),
                         [](const auto& codes) { return std::string(to_string(codes.param)); });

/// One layer with the sizes of DeepSeek's attention, for which devices have kernels of their own.
models::deepseek_v3::Config with_deepseek_heads() {
  models::deepseek_v3::Config c = small_config();
  c.num_hidden_layers = 1;
  c.num_attention_heads = 2;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = c.rope.dim = 64;
  c.v_head_dim = 128;
  c.max_position_embeddings = 2048;
  return c;
}

TEST(Engine, PagesOfTheCacheAreThoseOfAscendsFusedAttention) {
  const Result<Device*> device = open_device("ascend");
  ASSERT_TRUE(device) << device.error().message;
  const auto model = random_model(with_deepseek_heads(), DType::kBF16, **device);
  std::vector<Request> requests = crowd(5, 11);
  requests.back().prompt.assign(700, 3);  // beyond what others have, over several pages
  std::vector<Answer> expected;
  for (const Request& r : requests) {
    Engine engine(*model, {.cache_tokens = 1024, .running = 1, .remember = false});
    expected.push_back(together(engine, {r}, 1).front());
  }
  Engine engine(*model, {.cache_tokens = 2048, .running = 5, .tokens_per_pass = 200, .drafts = 2});
  for (const uint64_t seed : {1, 2}) {
    const std::vector<Answer> got = together(engine, requests, seed);
    for (size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(written(got[i]), written(expected[i])) << "request " << i;
  }
}

/// What a step takes beside the cache does not grow with the context, as copies of it would.
TEST(Engine, AStepOnAscendCopiesNoContext) {
  const Result<Device*> device = open_device("ascend");
  ASSERT_TRUE(device) << device.error().message;
  const auto model = random_model(with_deepseek_heads(), DType::kBF16, **device);
  const auto taken = [&](size_t prompt) {
    Engine engine(*model, {.cache_tokens = 2048, .running = 1, .tokens_per_pass = 64});
    Request r{.prompt = std::vector<int32_t>(prompt, 3), .options = {}, .salt = ""};
    r.options.tokens_max = 3;
    EXPECT_TRUE(engine.submit(r));
    while (engine.counts().tokens_answered == 0) engine.step();
    (*device)->reset_peak();
    const uint64_t before = (*device)->memory_use().live_bytes;
    engine.step();
    return (*device)->memory_use().peak_bytes - before;
  };
  const uint64_t least = taken(100), most = taken(1900);
  EXPECT_LT(most, least + 64 * 1024);  // 1,800 tokens take 2 MB
}

TEST(Engine, TakesTheMemoryThatItSays) {
  const auto model = random_model(with_deepseek_heads(), DType::kBF16, cpu_device());
  const auto live = [] { return static_cast<int64_t>(cpu_device().memory_use().live_bytes); };
  const auto run = [](Engine& engine, size_t prompt) {
    Request r{.prompt = std::vector<int32_t>(prompt, 3), .options = {}, .salt = ""};
    r.options.tokens_max = 3;
    EXPECT_TRUE(engine.submit(r));
    while (!engine.idle()) engine.step();
  };
  {  // what products keep of weights is made once
    Engine first(*model, {.cache_tokens = 512, .running = 1});
    run(first, 200);
  }
  const int64_t before = live() - model->position_bytes(200);
  Engine engine(*model, {.cache_tokens = 2048, .running = 1});
  run(engine, 1900);
  const int64_t taken = live() - before;
  constexpr int64_t kFences = 64 * 1024;  // of blocks, and what they are rounded up by
  EXPECT_GT(model->position_bytes(2048), 4 * kFences);
  EXPECT_LE(taken, engine.memory_bytes() + kFences);
  EXPECT_GE(taken, engine.memory_bytes() - kFences);
}

TEST(Engine, RefusesRequestsThatMakeNoSense) {
  const auto model = small_model("llama", DType::kF32, cpu_device());
  Engine engine(*model, {.cache_tokens = 256});
  const auto refused = [&](auto&& change, const char* word) {
    Request r{.prompt = {1, 2}, .options = {}, .salt = ""};
    r.options.tokens_max = 4;
    change(r);
    const auto id = engine.submit(r);
    ASSERT_FALSE(id) << word;
    EXPECT_EQ(id.error().code, Code::kInvalidInput);
    EXPECT_NE(id.error().message.find(word), std::string::npos) << id.error().message;
  };
  refused([](Request& r) { r.prompt = {1, -1}; }, "token -1");
  refused([](Request& r) { r.prompt = {1, 1 << 20}; }, "token 1048576");
  refused([](Request& r) { r.prompt = {}; }, "empty");
  refused([](Request& r) { r.prompt.assign(256, 1); }, "256 positions");
  refused([](Request& r) { r.options.tokens_max = 0; }, "at least one");
  refused([](Request& r) { r.options.prompt_top_log_probs = -1; }, "-1");
  refused([](Request& r) { r.options.top_log_probs = 1000; }, "1000");
  // Above 0 in float64, and a zero in the float that logits are divided by.
  for (const double t : {0.0, 1e-60, 1e-40, 1e-30, 101.0, std::nan("")})
    refused([t](Request& r) { r.options.log_prob_temperature = static_cast<float>(t); },
            "temperature");
  refused([](Request& r) { r.options.sampling.top_k = -1; }, "top-k");
  refused([](Request& r) { r.options.sampling.logit_bias = {{1 << 20, 1.0}}; }, "bias");
  refused([](Request& r) { r.options.constraint = list_form(); }, "give an end token");
  refused(
      [](Request& r) {
        r.options.constraint = list_form();
        r.options.end_tokens = {1 << 20};
      },
      "end token 1048576");
  EXPECT_TRUE(engine.idle());
}

INSTANTIATE_TEST_SUITE_P(Small,
                         EachModel,
                         ::testing::ValuesIn(small_models()),
                         [](const auto& model) { return name_of(model.param); });

}  // namespace
}  // namespace ferry
