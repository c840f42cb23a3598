// ferry verify --server: honest servers of several kinds pass, and of each fault that a server is
// given the name is told. The server answers from a small model through the library itself.
#include "verify/server_verify.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "faulty_server.h"
#include "models/registry.h"
#include "program.h"
#include "text/bpe_trainer.h"
#include "verify/patience.h"

namespace ferry {
namespace {

using Fault = ServerFault;
using LogProbs = ServerManner::LogProbs;
using verify::ServerReport;
using verify::ServerVerdict;

// What the tokenizer learns from.
constexpr const char* kText =
    "The ferry goes over the river every morning and comes back in the evening. It carries boxes, "
    "bread and people, and when the weather is bad it waits at the pier until the wind has gone. "
    "The men on the pier count the crates that are carried over: crate 12 goes to pier 7 at 11:30, "
    "crate 31 goes to pier 9 at 14:05. Whoever wants to go to the other side has to be there "
    "early, "
    "for the ferry is small and the river is wide. A question is asked, and an answer is given.";

constexpr const char* kTemplate =
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

const std::string& folder() {
  struct Root {
    std::string path =
        fmt::format("{}/ferry_server_verify_test.{}",
                    ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ::testing::TempDir(),
                    ::getpid());
    Root() { EXPECT_TRUE(make_folders(path)); }
    ~Root() { EXPECT_TRUE(remove_tree(path)); }
  };
  static const Root root;
  return root.path;
}

/// Weights as a trained model's are: what matters is that every fault moves its answers by more than
/// rounding does, and that it prefers some tokens clearly.
void draw_weights(models::TrainableLm& model) {
  for (Weight* w : model.weights()) {
    const Random random(11, RandomPurpose::kTest, name_hash(w->name.data(), w->name.size()));
    std::vector<float> v(static_cast<size_t>(w->value.count()));
    const bool matrix = w->value.rank() > 1;
    const double size =
        (w->role == WeightRole::kHead ? 3 : 1.5) / std::sqrt(static_cast<double>(w->value.dim(-1)));
    for (size_t i = 0; i < v.size(); ++i)
      v[i] = static_cast<float>(matrix ? size * random.normal(i) : 1 + 0.2 * random.normal(i));
    w->value.assign_f32(v);
    w->changed();
  }
}

/// A llama of 512 positions whose RoPE is scaled, with a tokenizer that begins texts with a token.
const std::string& tiny_model() {
  static const std::string path = [] {
    text::BpeTrainerOptions options;
    options.vocab_size = 340;
    options.specials = {"<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|system|>"};
    auto trainer = text::BpeTrainer::create(options);
    for (int twice = 0; twice < 2; ++twice) trainer->feed(kText);
    const auto tokenizer = trainer->train();
    const std::string config = fmt::format(
        R"({{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": {},
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": {{"rope_type": "llama3",
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}, "max_position_embeddings": 512,
        "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false,
        "bos_token_id": 0, "eos_token_id": 1}})",
        tokenizer.vocab_size);
    auto model = models::make_model(config, "config", cpu_device(), DType::kF32, DType::kF32);
    EXPECT_TRUE(model) << model.error().message;
    draw_weights(**model);
    ModelContents c;
    c.tensors = stored_weights((*model)->weights(), (*model)->weight_aliases(), DType::kF32);
    c.texts["config.json"] = config;
    c.texts["tokenizer.json"] = tokenizer.json;
    c.texts["tokenizer_config.json"] = nlohmann::json{
        {"bos_token", "<|bos|>"},
        {"eos_token", "<|eos|>"},
        {"add_bos_token", true},
        {"chat_template", kTemplate}}.dump();
    const auto saved = write_model_dir(join_path(folder(), "tiny"), c);
    EXPECT_TRUE(saved) << saved.error().message;
    return join_path(folder(), "tiny");
  }();
  return path;
}

Result<ServerReport> asked(Fault fault, const ServerManner& manner, verify::ServerOptions o = {}) {
  const FaultyServer server(tiny_model(), fault, manner);
  o.directory = tiny_model();
  o.address = server.address();
  o.timeout_ms = 60'000;
  return verify::verify_server(o);
}

std::string told(const ServerReport& r) {
  std::string all = std::string(to_string(r.verdict)) + "\n";
  for (const auto& f : r.faults) all += f.name + ": " + f.words + "\n";
  for (const auto& g : r.groups)
    all += fmt::format("{}: {} places, {:.3g} typical of {:.3g}, max {:.3g}, {} tokens, {} wrong\n",
                       g.name,
                       g.closeness.compared,
                       g.closeness.kl_typical,
                       g.bound,
                       g.closeness.kl_max,
                       g.closeness.tokens,
                       g.closeness.wrong);
  for (const auto& line : r.proof) all += line + "\n";
  for (const auto& note : r.notes) all += "note: " + note + "\n";
  return all;
}

const ServerManner kByTexts{.log_probs = LogProbs::kTexts};
const ServerManner kTokensAlone{.log_probs = LogProbs::kNone};
const ServerManner kChatsAlone{.completes = false};
const ServerManner kChatsTokensAlone{.log_probs = LogProbs::kNone, .completes = false};

struct Case {
  const char* name;  // of the test
  Fault fault;
  const char* told;  // the fault's name in reports; empty: none
  ServerManner manner = {};
  const char* weights = "";  // admitted
};

class EachServer : public ::testing::TestWithParam<Case> {};

TEST_P(EachServer, IsToldForWhatItIs) {
  const Case& c = GetParam();
  const Result<ServerReport> r =
      asked(c.fault, c.manner, {.key = c.manner.key, .weights = c.weights});
  ASSERT_TRUE(r) << r.error().message;
  const std::string name = r->faults.empty() ? "" : r->faults.front().name;
  EXPECT_EQ(name, c.told) << told(*r);
  EXPECT_EQ(r->verdict, *c.told == '\0' ? ServerVerdict::kSame : ServerVerdict::kDiffers)
      << told(*r);
  if (::testing::Test::HasFailure() || std::getenv("FERRY_TOLD")) fmt::print("{}", told(*r));
}

/// What a busy server refuses says nothing of what it can do.
TEST(ServerVerify, ABusyServerIsAskedTheSameAgain) {
  const FaultyServer server(tiny_model(), Fault::kNone, {.busy = 2});
  verify::ServerOptions options;
  options.directory = tiny_model();
  options.address = server.address();
  options.timeout_ms = 60'000;
  const Result<ServerReport> report = verify::verify_server(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(server.without_extras(), 0);
}

/// Whatever a server is asked, it may have no time now and then: that takes nothing away.
TEST(ServerVerify, WhatIsRefusedNowAndThenIsAskedAgain) {
  for (const int status : {503, 429}) {
    const auto now_and_then = [n = 0](const std::string&) mutable { return ++n % 16 == 0; };
    const auto r =
        asked(Fault::kNone, {.loading = 1, .not_now = now_and_then, .not_now_status = status});
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_EQ(r->verdict, ServerVerdict::kSame) << told(*r);
    EXPECT_TRUE(r->not_tried.empty()) << told(*r);
    EXPECT_EQ(told(*r).find("not now"), std::string::npos) << told(*r);
    EXPECT_EQ(r->evidence, "log-probabilities of prompts and answers");
  }
}

/// A path that had no time for whoever has no key is asked again, too: it may be open.
TEST(ServerVerify, WhoeverHasNoKeyIsNoReasonToTakeNotNowForNo) {
  const auto of_key =
      [](int times) {  // of the questions about keys, which leave the temperature open
        return [times, met = std::map<std::string, int>()](const std::string& body) mutable {
          return body.find("temperature") == std::string::npos && ++met[body] <= times;
        };
      };
  const ServerManner passes{.key = "secret", .not_now = of_key(1)},
      stays{.key = "secret", .not_now = of_key(1000)};
  const auto found = asked(Fault::kKeyUnaskedAside, passes, {.key = "secret"});
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_FALSE(found->faults.empty()) << told(*found);
  EXPECT_EQ(found->faults.front().name, "key");
  const auto open = asked(Fault::kKeyUnaskedAside, stays, {.key = "secret", .patience_s = 0.05});
  ASSERT_TRUE(open) << open.error().message;
  EXPECT_EQ(open->verdict, ServerVerdict::kSame) << told(*open);
  EXPECT_EQ(open->not_tried, std::vector<std::string>{"key"}) << told(*open);
  EXPECT_NE(told(*open).find("/invocations"), std::string::npos) << told(*open);
}

/// Patience has an end, and what was asked of it is respected.
TEST(ServerVerify, AServerWithoutTimeIsLeftAloneAsLongAsItWants) {
  const auto refused = [](const ServerManner& manner, double patience_s) {
    const auto r = asked(Fault::kNone, manner, {.patience_s = patience_s});
    EXPECT_FALSE(r);
    if (r) return std::string();
    EXPECT_EQ(r.error().code, Code::kUnavailable);
    return r.error().message;
  };
  const auto has = [](const std::string& message, const char* words) {
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  const auto single =
      [](const std::string& body) {  // not what it is asked to find out what it can do
        return body.find("The ferry leaves at") == std::string::npos &&
               body.find("Hello") == std::string::npos && body.find("[1,2,3]") == std::string::npos;
      };
  for (const ServerManner& manner :
       {ServerManner{.loading = 1000}, ServerManner{.busy = 1000}, ServerManner{.not_now = single}})
    has(refused(manner, 0.7), "status 503: 'not now'; it was asked again for 0.7 s");
  has(refused({.not_now = single, .not_now_status = 429, .retry_after = "3600"}, 60),
      "status 429: 'not now'; it wants to be left alone for 1 h 00 min");
  // Twice in a row, with a second between that it asked for and half of one that it did not.
  std::vector<double> asked_s;
  const auto twice = [&](const std::string& body) {
    if (!single(body) || asked_s.size() == 3) return false;
    asked_s.push_back(system_clock().monotonic_s());
    return asked_s.size() < 3;
  };
  const auto r = asked(Fault::kNone, {.not_now = twice, .retry_after = "1"});
  ASSERT_TRUE(r) << r.error().message;
  ASSERT_EQ(asked_s.size(), 3);
  for (const size_t i : {1, 2}) EXPECT_GE(asked_s[i] - asked_s[i - 1], 0.999);
}

/// Whoever asks by rules of his own says the same.
TEST(ServerVerify, AServerThatIsToGiveAnswersForScoresIsLeftAloneAsLongAsItWants) {
  const std::string tasks = join_path(folder(), "tasks.jsonl");
  ASSERT_TRUE(write_file_atomic(tasks, "{\"prompt\": \"What is a ferry\", \"answer\": \"a\"}\n"));
  const FaultyServer server(tiny_model(),
                            Fault::kNone,
                            {.not_now =
                                 [](const std::string& body) {
                                   return body.find("What is a ferry") != std::string::npos;
                                 },
                             .retry_after = "3600"});
  program::Program score(join_path(folder(), "log"),
                         {"score", tasks, "--server", server.address(), "--tokens", "2"});
  EXPECT_EQ(score.wait(), 3) << score.output();
  EXPECT_TRUE(score.said("status 503: 'not now'; it wants to be left alone for 1 h 00 min"))
      << score.output();
}

/// What an earlier reply wanted is not told of a later one.
TEST(ServerVerify, PatienceTellsOfTheLastReply) {
  verify::Patience patience(0.6);
  EXPECT_FALSE(patience.wait(3600));
  EXPECT_EQ(patience.told(), "; it wants to be left alone for 1 h 00 min: ask it then");
  EXPECT_TRUE(patience.wait(std::nullopt));
  EXPECT_EQ(patience.told(), "; it was asked again for 0.6 s: ask it when it has less to do");
}

INSTANTIATE_TEST_SUITE_P(
    Honest,
    EachServer,
    ::testing::Values(
        Case{"f32", Fault::kNone, ""},
        Case{"bf16", Fault::kNone, "", {.compute = DType::kBF16}},
        Case{"int8_that_says_so", Fault::kInt8, "", {.compute = DType::kBF16}, "int8"},
        Case{"int4_that_says_so", Fault::kInt4, "", {.compute = DType::kBF16}, "int4"},
        Case{"by_texts", Fault::kNone, "", kByTexts},
        Case{"by_texts_bf16",
             Fault::kNone,
             "",
             {.log_probs = LogProbs::kTexts, .compute = DType::kBF16}},
        Case{"tokens_alone", Fault::kNone, "", kTokensAlone},
        Case{"tokens_alone_bf16",
             Fault::kNone,
             "",
             {.log_probs = LogProbs::kNone, .compute = DType::kBF16}},
        Case{"with_a_key", Fault::kNone, "", {.key = "secret"}},
        Case{"chats_alone", Fault::kNone, "", kChatsAlone},
        Case{"chats_alone_bf16", Fault::kNone, "", {.compute = DType::kBF16, .completes = false}},
        Case{"chats_tokens_alone", Fault::kNone, "", kChatsTokensAlone},
        Case{"no_chats", Fault::kNone, "", {.chats = false}},
        Case{"strict", Fault::kNone, "", {.strict = true}},
        // One token in many, which is no other one when it comes again.
        Case{"ending_slips", Fault::kEndingSlips, ""},
        Case{"chats_alone_ending_slips", Fault::kEndingSlips, "", kChatsAlone}),
    [](const auto& c) { return std::string(c.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Faulty,
    EachServer,
    ::testing::Values(Case{"tokenizer", Fault::kOtherTokenizer, "tokenizer"},
                      Case{"other_ids", Fault::kOtherIds, "tokenizer"},
                      Case{"template_", Fault::kOtherTemplate, "template"},
                      Case{"no_answer_asked", Fault::kNoAnswerAsked, "template"},
                      Case{"system_dropped", Fault::kSystemDropped, "template"},
                      Case{"bos_lost", Fault::kBeginLost, "bos-lost"},
                      Case{"bos_lost_by_texts", Fault::kBeginLost, "bos-lost", kByTexts},
                      Case{"bos_doubled", Fault::kBeginTwice, "bos-doubled"},
                      Case{"rope", Fault::kRopeIgnored, "rope"},
                      Case{"rope_by_texts", Fault::kRopeIgnored, "rope", kByTexts},
                      Case{"int8", Fault::kInt8, "quantised", {.compute = DType::kBF16}},
                      Case{"int4", Fault::kInt4, "quantised"},
                      Case{"int4_by_texts", Fault::kInt4, "quantised", kByTexts},
                      Case{"int4_said_to_be_int8", Fault::kInt4, "quantised", {}, "int8"},
                      Case{"model", Fault::kOtherModel, "model"},
                      Case{"model_by_tokens", Fault::kOtherModel, "model", kTokensAlone},
                      Case{"endless", Fault::kEndless, "eos"},
                      Case{"ends_early", Fault::kEndsEarly, "eos"},
                      Case{"context_cut", Fault::kCut, "context-cut"},
                      Case{"garbled", Fault::kGarbled, "garbled"},
                      Case{"garbled_by_texts", Fault::kGarbled, "garbled", kByTexts},
                      Case{"garbled_late", Fault::kGarbledLate, "garbled"},
                      Case{"late_answers", Fault::kLateAnswers, "garbled"},
                      Case{"talks_on", Fault::kTalksOn, "length"},
                      Case{"talks_on_by_tokens", Fault::kTalksOn, "length", kTokensAlone},
                      Case{"seed_ignored", Fault::kSeedIgnored, "seed"},
                      Case{"seed_fixed", Fault::kSeedFixed, "seed"},
                      Case{"always_greedy", Fault::kAlwaysGreedy, "temperature"},
                      Case{"never_greedy", Fault::kNeverGreedy, "temperature"},
                      Case{"hot", Fault::kHot, "temperature"},
                      Case{"cool", Fault::kCool, "temperature"},
                      Case{"cool_bf16", Fault::kCool, "temperature", {.compute = DType::kBF16}},
                      Case{"unshown", Fault::kUnshown, "empty"},
                      Case{"unshown_alone", Fault::kUnshown, "empty", {.chat_log_probs = false}},
                      Case{"penalised", Fault::kPenalised, "temperature"},
                      Case{"load", Fault::kLoad, "load"},
                      Case{"load_one", Fault::kLoadOne, "load"},
                      Case{"load_slips", Fault::kLoadSlips, "load"},
                      Case{"cache", Fault::kCache, "cache"},
                      Case{"cache_one", Fault::kCacheOne, "cache"},
                      Case{"cache_blocks", Fault::kCacheBlocks, "cache"},
                      Case{"cache_endings", Fault::kCacheEndings, "cache"},
                      Case{"key", Fault::kKeyUnasked, "key", {.key = "secret"}},
                      Case{"key_aside", Fault::kKeyUnaskedAside, "key", {.key = "secret"}}),
    [](const auto& c) { return std::string(c.param.name); });

/// Of a server that has no other path than that of conversations.
INSTANTIATE_TEST_SUITE_P(
    FaultyChats,
    EachServer,
    ::testing::Values(
        Case{"template_", Fault::kOtherTemplate, "template", kChatsAlone},
        Case{"rope", Fault::kRopeIgnored, "rope", kChatsAlone},
        Case{"int4", Fault::kInt4, "quantised", kChatsAlone},
        Case{"model", Fault::kOtherModel, "model", kChatsAlone},
        Case{"endless", Fault::kEndless, "eos", kChatsAlone},
        Case{"context_cut", Fault::kCut, "context-cut", kChatsAlone},
        Case{"garbled", Fault::kGarbled, "garbled", kChatsAlone},
        Case{"talks_on", Fault::kTalksOn, "length", kChatsAlone},
        Case{"seed_ignored", Fault::kSeedIgnored, "seed", kChatsAlone},
        Case{"seed_fixed", Fault::kSeedFixed, "seed", kChatsAlone},
        Case{"always_greedy", Fault::kAlwaysGreedy, "temperature", kChatsAlone},
        Case{"never_greedy", Fault::kNeverGreedy, "temperature", kChatsAlone},
        Case{"hot", Fault::kHot, "temperature", kChatsAlone},
        Case{"cool", Fault::kCool, "temperature", kChatsAlone},
        Case{"load", Fault::kLoad, "load", kChatsAlone},
        Case{"load_one", Fault::kLoadOne, "load", kChatsAlone},
        Case{"cache", Fault::kCache, "cache", kChatsAlone},
        Case{"cache_blocks", Fault::kCacheBlocks, "cache", kChatsAlone},
        Case{"cache_endings", Fault::kCacheEndings, "cache", kChatsAlone},
        Case{"key_aside", Fault::kKeyUnaskedAside, "key", {.completes = false, .key = "secret"}}),
    [](const auto& c) { return std::string(c.param.name); });

class HostileServer : public ::testing::TestWithParam<Fault> {};

/// What it answers is no answer: the command says so, and gives no verdict.
TEST_P(HostileServer, IsAnError) {
  const Result<ServerReport> r = asked(GetParam(), {});
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::kUnavailable) << r.error().message;
  EXPECT_NE(r.error().message.find("/v1/"), std::string::npos) << r.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Each,
    HostileServer,
    ::testing::Values(Fault::kNotJson, Fault::kNan, Fault::kWrongTypes, Fault::kEndlessBody));

TEST(ServerVerify, WhatCannotBeAskedIsSaid) {
  verify::ServerOptions o{.directory = tiny_model(), .address = "http://127.0.0.1:1"};
  const auto refused = [&](Code code, const char* word) {
    const auto r = verify::verify_server(o);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, code) << r.error().message;
    EXPECT_NE(r.error().message.find(word), std::string::npos) << r.error().message;
  };
  refused(Code::kUnavailable, "127.0.0.1:1");
  o.address = "ftp://host";
  refused(Code::kInvalidInput, "no address");
  o.address = "http://user:word@host";
  refused(Code::kInvalidInput, "no address");
  const FaultyServer server(tiny_model(), Fault::kNone, {.key = "secret"});
  o.address = server.address() + "/v1/";
  refused(Code::kInvalidInput, "--api-key-file");
  // The second is a piece of what stands in its place in what a server says.
  for (const char* key : {"another", "key"}) {
    o.key = key;
    refused(Code::kInvalidInput, "--api-key-file");
  }
  o.key = "secret";
  o.model = "large";
  refused(Code::kInvalidInput, "it lists 'tiny'");
}

/// What was not tried is said, by the names of the faults that nobody looked for.
TEST(ServerVerify, WhatWasNotTriedIsSaid) {
  using nlohmann::json;
  const auto not_tried = [](const ServerManner& manner, int64_t positions = 1024) {
    const auto r = asked(Fault::kNone, manner, {.positions = positions});
    EXPECT_TRUE(r) << r.error().message;
    if (!r) return json();
    for (const std::string& name : r->not_tried)
      EXPECT_TRUE(std::any_of(r->notes.begin(),
                              r->notes.end(),
                              [&](const std::string& note) {
                                return note.starts_with("not tried (") &&
                                       note.find(name) != std::string::npos;
                              }))
          << name << "\n"
          << told(*r);
    return json::parse(verify::to_json(*r))["not_tried"];
  };
  EXPECT_EQ(not_tried({}), json::array());
  EXPECT_EQ(not_tried({.chats = false}), json::array({"template"}));
  EXPECT_EQ(not_tried({.completes = false}), json::array({"tokenizer"}));
  // Thoughts without log-probabilities are no tokens that could be compared.
  EXPECT_EQ(not_tried({.chat_log_probs = false, .thinks = true}), json::array({"template"}));
  EXPECT_EQ(not_tried({.biases = false}), json::array({"eos"}));
  // A cache that says that it kept nothing was not tried; one that says nothing was, by a text of some blocks.
  EXPECT_EQ(not_tried({.cached = 0}), json::array({"cache"}));
  EXPECT_EQ(not_tried({.cached = 16}), json::array());
  EXPECT_EQ(not_tried({}, 200), json::array({"cache"}));
  EXPECT_EQ(not_tried({.cached = 16}, 200), json::array());
}

/// What is asked beyond the comparison may be refused for now: what was found is told all the same.
TEST(ServerVerify, WhatIsRefusedForNowTakesNothingElseAway) {
  const auto drawn = [](int nth) {  // from this one on, of what is to be drawn
    return [nth, n = 0](const std::string& body) mutable {
      const nlohmann::json request = nlohmann::json::parse(body, nullptr, false);
      return request.is_object() && request.value("temperature", 0.0) == 1.0 && ++n >= nth;
    };
  };
  const auto told_of = [](Fault fault, std::function<bool(const std::string&)> not_now) {
    const auto r = asked(fault, {.not_now = std::move(not_now)}, {.patience_s = 0.05});
    EXPECT_TRUE(r) << r.error().message;
    if (!r) return std::string("no report");
    const std::string name = r->faults.empty() ? "" : r->faults.front().name;
    std::string all = std::string(to_string(r->verdict)) + "/" + name;
    for (const std::string& fault_name : r->not_tried) all += " " + fault_name;
    EXPECT_TRUE(std::any_of(r->notes.begin(), r->notes.end(), [](const std::string& note) {
      return note.find("not now") != std::string::npos;
    })) << told(*r);
    return all;
  };
  EXPECT_EQ(told_of(Fault::kSystemDropped, drawn(1)), "differs/template seed temperature");
  EXPECT_EQ(told_of(Fault::kNone, drawn(2)), "same/ seed temperature");
  EXPECT_EQ(told_of(Fault::kNone, drawn(3)), "same/ seed temperature");
  EXPECT_EQ(told_of(Fault::kNone, drawn(4)), "same/ temperature");
  // Of the further ones the first: of what was drawn before, nothing is certain.
  EXPECT_EQ(told_of(Fault::kNone, drawn(5)), "same/ temperature");
  EXPECT_EQ(told_of(Fault::kSeedIgnored, drawn(4)), "differs/seed temperature");
  // What comes again: the second question that does, and each.
  const auto again = [](bool each) {
    return [each, met = std::set<std::string>(), again = std::vector<std::string>()](
               const std::string& body) mutable {
      const nlohmann::json request = nlohmann::json::parse(body, nullptr, false);
      const std::string key = request.value("prompt", nlohmann::json()).dump();
      const bool begins_alike = key.find("At noon they rest") != std::string::npos;
      const bool comes_again =
          request.value("max_tokens", 0) == 12 && (!met.insert(key).second || begins_alike);
      if (!comes_again) return false;
      if (std::find(again.begin(), again.end(), key) == again.end()) again.push_back(key);
      return each || (again.size() > 1 && again[1] == key);
    };
  };
  EXPECT_EQ(told_of(Fault::kNone, again(false)), "same/");
  EXPECT_EQ(told_of(Fault::kNone, again(true)), "same/ cache eos load");
}

/// Three seeds that get the same answer prove nothing where that answer is short.
TEST(ServerVerify, WhatAFewTokensDoNotShowIsSaid) {
  const auto r = asked(Fault::kSeedFixed, kChatsTokensAlone);
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(std::count(r->not_tried.begin(), r->not_tried.end(), "seed"), 1) << told(*r);
}

/// A template that is known is named, with its last line end.
TEST(ServerVerify, AKnownTemplateIsNamed) {
  for (const ServerManner& manner : {ServerManner{}, kChatsAlone}) {
    const auto r = asked(Fault::kOtherTemplate, manner);
    ASSERT_TRUE(r) << r.error().message;
    ASSERT_FALSE(r->faults.empty());
    EXPECT_NE(r->faults.front().words.find("ChatML"), std::string::npos) << told(*r);
  }
}

/// The program, as a person runs it: its exit status, its last line, its page.
TEST(ServerVerify, TheCommandEndsAsItsVerdictSays) {
  using nlohmann::json;
  const std::string page = join_path(folder(), "page.html"), key = join_path(folder(), "key");
  EXPECT_TRUE(write_file_atomic(key, "secret\n"));
  const auto run = [&](const std::string& address, const program::Strings& more, json* last) {
    program::Strings args = {"verify", tiny_model(), "--server", address};
    args.insert(args.end(), more.begin(), more.end());
    program::Program ferry(join_path(folder(), "log"), args);
    const int status = ferry.wait();
    const std::string said = "\n" + ferry.output();
    EXPECT_EQ(said.find("secret"), std::string::npos) << said;
    const size_t at = said.rfind("\n{");
    if (last != nullptr && at != std::string::npos)
      *last = json::parse(said.substr(at + 1, said.find('\n', at + 1) - at - 1));
    return status;
  };
  json last;
  {
    const FaultyServer server(tiny_model(), Fault::kNone, {.key = "secret"});
    EXPECT_EQ(
        run(server.address(), {"--api-key-file", key, "--json", "-", "--report", page}, &last), 0);
    EXPECT_EQ(last["verdict"], "same");
    EXPECT_TRUE(last["fault"].is_null());
    EXPECT_GT(last["compared_tokens"], 500);
    EXPECT_LT(last["kl_mean"], 1e-6);
    EXPECT_LE(last["kl_mean"], last["kl_max"]);
    EXPECT_NE(read_file(page)->find("It answers as this model"), std::string::npos);
    EXPECT_EQ(run(server.address(), {}, nullptr), 2);  // without the key
    // Nobody signed the model; what is asked of a device is asked of no server.
    const std::string signer = join_path(folder(), "signer.pub");
    EXPECT_EQ(run(server.address(), {"--key", signer, "--api-key-file", key}, nullptr), 2);
    ASSERT_TRUE(
        write_file_atomic(signer, "ferry-public-key-ed25519 " + std::string(64, 'a') + "\n"));
    EXPECT_EQ(run(server.address(), {"--key", signer, "--api-key-file", key}, nullptr), 2);
    for (const program::Strings& option : std::vector<program::Strings>{{"--device", "cpu"},
                                                                        {"--dtype", "f32"},
                                                                        {"--train"},
                                                                        {"--quick"},
                                                                        {"--stream"},
                                                                        {"--no-remember"}}) {
      program::Strings with = {"--api-key-file", key};
      with.insert(with.end(), option.begin(), option.end());
      EXPECT_EQ(run(server.address(), with, nullptr), 2) << option.front();
    }
    EXPECT_TRUE(write_file_atomic(key, "another secret\n"));  // the server repeats it; we do not
    EXPECT_EQ(run(server.address(), {"--api-key-file", key}, nullptr), 2);
  }
  {
    const FaultyServer server(tiny_model(), Fault::kInt4, {});
    EXPECT_EQ(run(server.address(), {"--json", "-", "--html", page}, &last), 1);
    EXPECT_EQ(last["verdict"], "differs");
    EXPECT_EQ(last["fault"], "quantised");
    EXPECT_NE(read_file(page)->find("<code>quantised</code>"), std::string::npos);
  }
  last = {};
  {
    const FaultyServer server(tiny_model(), Fault::kBreaksOff, {});
    EXPECT_EQ(run(server.address(), {"--json", "-"}, &last), 3);
    EXPECT_EQ(last["verdict"], "not proved");
    EXPECT_TRUE(last["fault"].is_null());
    EXPECT_EQ(last["compared_tokens"], 0);
    EXPECT_NE(last.value("error", "").find(server.address()), std::string::npos) << last;
  }
  last = {};
  EXPECT_EQ(run("http://127.0.0.1:1", {"--json"}, &last), 3);
  EXPECT_EQ(last["verdict"], "not proved");
  EXPECT_EQ(run("http://127.0.0.1:1", {}, nullptr), 3);
  EXPECT_EQ(run("127.0.0.1", {}, nullptr), 2);
  EXPECT_EQ(run("http://127.0.0.1:1", {"--api-key-file", page}, nullptr), 2);
}

/// A directory of codes is as rough as it is stored, and no rougher.
TEST(ServerVerify, CodesThatAreStoredMeanWhatTheyStandFor) {
  const std::string codes = join_path(folder(), "int8");
  program::Program convert(join_path(folder(), "log"),
                           {"convert", tiny_model(), "--to", "int8", "--out", codes});
  ASSERT_EQ(convert.wait(), 0) << convert.output();
  const auto told = [&](Fault fault) {
    const FaultyServer server(codes, fault, {});
    const auto r = verify::verify_server({.directory = codes, .address = server.address()});
    EXPECT_TRUE(r) << r.error().message;
    if (!r) return std::string("no report");
    return r->faults.empty() ? std::string(to_string(r->verdict)) : r->faults.front().name;
  };
  EXPECT_EQ(told(Fault::kNone), "same");
  EXPECT_EQ(told(Fault::kInt4), "quantised");
}

/// Ferry's own server passes, and is told where it has other weights.
TEST(ServerVerify, OurOwnServerIsTheModel) {
  const std::string key = join_path(folder(), "own_key");
  ASSERT_TRUE(write_file_atomic(key, "secret\n"));
  const auto told_of = [&](const program::Strings& more) {
    program::Strings args = {"serve", tiny_model(), "--port", "0", "--api-key-file", key};
    args.insert(args.end(), more.begin(), more.end());
    program::Program server(join_path(folder(), "serve.log"), args);
    EXPECT_TRUE(
        program::wait_for([&] { return server.said("serving tiny at ") || server.ended(); }));
    const std::string said = server.output();
    const size_t at = said.rfind("http://");
    EXPECT_NE(at, std::string::npos) << said;
    const auto r =
        verify::verify_server({.directory = tiny_model(),
                               .address = said.substr(at, said.find_first_of(" \n,;", at) - at),
                               .key = "secret"});
    EXPECT_TRUE(r) << (r ? "" : r.error().message);
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
    if (!r) return std::string("no report");
    EXPECT_GT(r->compared_tokens, 500);
    EXPECT_TRUE(r->not_tried.empty()) << told(*r);
    return r->faults.empty() ? std::string(to_string(r->verdict)) : r->faults.front().name;
  };
  EXPECT_EQ(told_of({}), "same");
  EXPECT_EQ(told_of({"--quantize", "int4", "--draft", "3"}), "quantised");
}

}  // namespace
}  // namespace ferry
