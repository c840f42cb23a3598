// A small model is verified on the CPU: as it is, and on a CPU that an observer makes defective.
#include "verify/verify.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "base/file.h"
#include "checkpoint/made_from.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "ops/dispatch.h"
#include "ops/pair_linear/pair_linear.h"
#include "probe/probe.h"
#include "tensor/bf16.h"
#include "verify/comparison.h"

namespace ferry::verify {
namespace {

// Block 0 is dense, block 1 has experts in groups: every op of generating occurs.
constexpr const char* kConfig =
    R"({"model_type": "deepseek_v3", "vocab_size": 96, "hidden_size": 32,
  "num_hidden_layers": 2, "first_k_dense_replace": 1, "intermediate_size": 48,
  "moe_intermediate_size": 24, "n_routed_experts": 8, "n_shared_experts": 1,
  "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.5,
  "num_attention_heads": 2, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
  "qk_rope_head_dim": 8, "v_head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 128, "num_nextn_predict_layers": 1, "initializer_range": 0.15,
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})";

const std::string& root_folder() {
  struct Root {
    std::string path =
        fmt::format("{}/ferry_verify_test.{}",
                    ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ::testing::TempDir(),
                    ::getpid());
    ~Root() { static_cast<void>(remove_tree(path)); }
  };
  static const Root root;
  return root.path;
}

std::string make_directory(const std::string& name,
                           DType compute,
                           uint64_t seed,
                           bool passport,
                           const std::string& origin = "") {
  std::string path = join_path(root_folder(), name);
  EXPECT_TRUE(make_folders(root_folder()));
  auto model = models::make_model(kConfig, "config", cpu_device(), compute, DType::kF32);
  EXPECT_TRUE(model) << model.error().message;
  models::initialise(**model, seed);
  ModelContents c;
  c.tensors = stored_weights((*model)->weights(), (*model)->weight_aliases(), DType::kF32);
  c.texts["config.json"] = (*model)->config_json("float32");
  if (!origin.empty()) c.texts[kMadeFromName] = origin;
  if (passport) {
    auto other = probe::sibling(**model, compute == DType::kF32 ? DType::kBF16 : DType::kF32);
    EXPECT_TRUE(other) << other.error().message;
    c.passport = Passport{.program = "test"};
    c.passport->probes =
        probe::record(**model, **other, probe::synthetic_prompts(**model), {.text_tokens = 6});
  }
  const auto saved = write_model_dir(path, c);
  EXPECT_TRUE(saved) << saved.error().message;
  return path;
}

const std::string& bf16_model() {
  static const std::string path = make_directory("bf16", DType::kBF16, 1, true);
  return path;
}

Report verified(const Options& options) {
  Result<Report> report = verify(options);
  EXPECT_TRUE(report) << report.error().message;
  return report ? *report : Report{};
}

/// A large source takes minutes. (Fails where nothing is told of it.)
TEST(Verify, HashingTheSourceIsTold) {
  const std::string source = make_directory("source", DType::kBF16, 1, false);
  const auto from = open_model_source(source);
  ASSERT_TRUE(from) << from.error().message;
  const auto made = made_from(**from, "", "f32", {});
  ASSERT_TRUE(made) << made.error().message;
  const std::string path = make_directory("made", DType::kBF16, 1, true, made_from_text(*made));
  std::string told;
  verified({.directory = path, .source = source, .progress = [&](const std::string& text) {
              told += text + "\n";
            }});
  EXPECT_NE(told.find(" of the weights of " + source + " hashed\n"), std::string::npos) << told;
}

/// A defect: does something to the outputs of one op, before anybody else sees them.
class Defect final : public ops::Observer {
 public:
  Defect(std::string op, std::function<void(const ops::OpCall&)> spoil)
      : op_(std::move(op)), spoil_(std::move(spoil)) {}
  void after(const ops::OpCall& call) override {
    if (op_ == call.op) spoil_(call);
  }

 private:
  std::string op_;
  std::function<void(const ops::OpCall&)> spoil_;
};

template <typename F>
void for_each(const View& v, F&& f) {
  for (int64_t i = 0; i < v.count(); ++i) {
    int64_t rest = i, at = 0;
    for (int d = v.rank - 1; d >= 0; --d) {
      at += rest % v.shape[d] * v.stride[d];
      rest /= v.shape[d];
    }
    f(at);
  }
}

/// Numbers grow by 2^-6; of indices, which must stay in their range, the ends are swapped.
void spoil(const ops::OpCall& call) {
  const View& v = call.outputs.at(0).view;
  if (v.dtype == DType::kI32) {
    const View& last = call.outputs.back().view;
    const View& indices = last.dtype == DType::kI32 ? last : v;
    std::swap(indices.as<int32_t>()[0], indices.as<int32_t>()[indices.count() - 1]);
    return;
  }
  for_each(v, [&](int64_t at) {
    if (v.dtype == DType::kF32) v.as<float>()[at] *= 1 + 0x1p-6f;
    if (v.dtype == DType::kBF16)
      v.as<bf16_t>()[at] = f32_to_bf16(bf16_to_f32(v.as<bf16_t>()[at]) * (1 + 0x1p-6f));
  });
}

TEST(Verify, ASoundDevicePassesToTheBit) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const std::string model =
        dtype == DType::kBF16 ? bf16_model() : make_directory("f32", DType::kF32, 2, true);
    const Report r = verified({.directory = model});
    EXPECT_TRUE(r.passed()) << r.reasons.front();
    EXPECT_EQ(r.dtype, dtype);
    EXPECT_TRUE(r.equal_bits);
    EXPECT_EQ(r.tokens, 12);
    EXPECT_EQ(r.tokens_agree, r.tokens);
    ASSERT_EQ(r.layers.size(), 3u);
    EXPECT_GT(r.layers[1].calls, 60);  // the packed pass, and three cached ones
    EXPECT_GT(r.layers[0].tolerance, 0);
    EXPECT_TRUE(r.unjudged.empty()) << r.unjudged.front();
    EXPECT_NE(to_json(r).find("\"verdict\":\"passed\""), std::string::npos);
    const std::string page = to_html(r);
    EXPECT_NE(page.find("block 1"), std::string::npos);
    for (const char* outside : {"http:", "https:", "<script", "<link", "src="})
      EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

TEST(Verify, AnotherTypeOrNoPassportIsJudgedByTheCpuAsItAnswersNow) {
  const Report f32 = verified({.directory = bf16_model(), .dtype = DType::kF32});
  EXPECT_TRUE(f32.passed()) << f32.reasons.front();
  EXPECT_TRUE(f32.reference_made_now);
  const std::string plain = make_directory("plain", DType::kBF16, 3, false);
  const Report none = verified({.directory = plain});
  EXPECT_TRUE(none.passed()) << none.reasons.front();
  EXPECT_FALSE(none.has_passport);
  EXPECT_FALSE(none.notes.empty());
  EXPECT_EQ(std::string(verdict_of(f32)).find("it is the model"), 0u);
  EXPECT_EQ(std::string(verdict_of(none)).find("it is the model"), std::string::npos);
}

TEST(Verify, AModelLargerThanMemoryIsVerifiedLayerByLayer) {
  const Report r = verified({.directory = bf16_model(), .stream = true});
  EXPECT_TRUE(r.passed()) << r.reasons.front();
  EXPECT_TRUE(r.streamed);
  EXPECT_TRUE(r.equal_bits);
}

TEST(Verify, NamesTheOpThatIsWrong) {
  // Whoever generates multiplies experts so; the matrices of MLA that are not stored as pairs by matmul.
  const bool pairs = ops::pairs_wanted(cpu_device(), DType::kBF16);
  for (const char* op : {"embedding",
                         "rms_norm",
                         "matmul",
                         "rope",
                         "concat",
                         "copy",
                         "attention",
                         "add",
                         "swiglu",
                         "router",
                         "plan_experts",
                         "permute",
                         pairs ? "pair_linear" : "grouped_matmul",
                         "combine"}) {
    Defect defect(op, spoil);
    const ops::Observing observing(defect);
    const Report r = verified({.directory = bf16_model()});
    EXPECT_FALSE(r.passed()) << op;
    ASSERT_FALSE(r.parted.empty()) << op;
    EXPECT_EQ(r.parted.front().finding.op, op) << r.reasons.front();
    for (const CallReport& c : r.parted) EXPECT_EQ(c.finding.op, op);
    EXPECT_NE(r.reasons.front().find(op), std::string::npos) << r.reasons.front();
    EXPECT_EQ(r.altered.size() + r.overwritten.size(), 0u) << op;
  }
}

TEST(Verify, ALongProbeReachesWhereShortOnesDoNot) {
  // Wrong from the 120th key on.
  const auto far = [](const ops::OpCall& call) {
    if (call.outputs[0].view.shape[0] > 120 * 1)
      for_each(call.outputs[0].view, [&](int64_t at) {
        if (at / call.outputs[0].view.stride[0] >= 120)
          call.outputs[0].view.as<bf16_t>()[at] = f32_to_bf16(9);
      });
  };
  const Report sound = verified({.directory = bf16_model(), .positions = 128});
  EXPECT_TRUE(sound.passed()) << sound.reasons.front();
  EXPECT_EQ(sound.texts.size(), 3u);
  const auto long_prompts = [&](const ops::OpCall& call) {
    // Of one document alone: packed batches are longer than any of theirs.
    for (const ops::NamedNumber& n : call.numbers)
      if (std::string_view(n.name) == "longest" && n.value > 120) far(call);
  };
  Defect defect("attention", long_prompts);
  const ops::Observing observing(defect);
  const Report r = verified({.directory = bf16_model(), .positions = 128});
  EXPECT_FALSE(r.passed());
  const auto beyond = verify({.directory = bf16_model(), .positions = 129});
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, Code::kInvalidInput);
  EXPECT_NE(beyond.error().message.find("2 to 128"), std::string::npos) << beyond.error().message;
  const auto large =
      verify({.directory = bf16_model(), .positions = 128, .memory_bytes = 1'000'000});
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, Code::kExhausted);
  EXPECT_NE(large.error().message.find("positions would fit"), std::string::npos)
      << large.error().message;
}

TEST(Verify, ATrainingStepIsJudgedWhenAskedFor) {
  const Report sound = verified({.directory = bf16_model(), .train = true});
  EXPECT_TRUE(sound.passed()) << sound.reasons.front();
  EXPECT_GT(sound.training_calls, 100);
  // A gradient alone: nothing that answers launches this kernel.
  Defect defect("rms_norm_backward", spoil);
  const ops::Observing observing(defect);
  EXPECT_TRUE(verified({.directory = bf16_model()}).passed());
  const Report r = verified({.directory = bf16_model(), .train = true});
  EXPECT_FALSE(r.passed());
  ASSERT_FALSE(r.parted.empty());
  EXPECT_EQ(r.parted.front().finding.op, "rms_norm_backward");
  EXPECT_EQ(r.parted.front().pass, "training");
  // What was asked for and cannot be done is no pass.
  const auto streamed = verify({.directory = bf16_model(), .stream = true, .train = true});
  ASSERT_FALSE(streamed);
  EXPECT_EQ(streamed.error().code, Code::kInvalidInput);
  EXPECT_NE(streamed.error().message.find("--stream loads them"), std::string::npos);
  const auto small = verify({.directory = bf16_model(), .train = true, .memory_bytes = 100'000});
  ASSERT_FALSE(small);
  EXPECT_EQ(small.error().code, Code::kExhausted);
  EXPECT_NE(small.error().message.find("do not fit"), std::string::npos) << small.error().message;
}

TEST(Verify, NamesTheFirstOfManyAndTheWorstElement) {
  // One element of block 1's attention, from when the device is asked on: the reference is the same
  // CPU here.
  class InBlock1 final : public ops::Observer {
   public:
    bool on = false;
    void layer(int number) override { layer_ = number; }
    void after(const ops::OpCall& call) override {
      if (on && layer_ == 2 && std::string_view(call.op) == "attention")
        call.outputs[0].view.as<bf16_t>()[5] = f32_to_bf16(37);
    }

   private:
    int layer_ = 0;  // 0 the embedding, then the blocks
  } defect;
  const ops::Observing observing(defect);
  const Report r = verified({.directory = bf16_model(), .progress = [&](const std::string& text) {
                               defect.on |= text.starts_with("asking the device");
                             }});
  ASSERT_FALSE(r.parted.empty());
  const CallReport& first = r.parted.front();
  EXPECT_EQ(first.layer, "block 1");
  EXPECT_EQ(first.pass, "packed");
  EXPECT_EQ(first.finding.output, "out");
  EXPECT_EQ(first.finding.element, (std::vector<int64_t>{0, 0, 5}));
  EXPECT_EQ(first.finding.got, 37);
  EXPECT_GT(first.finding.ulps, 100);
  EXPECT_EQ(first.finding.elements_out, 1);
  EXPECT_LE(r.layers[0].distance, r.layers[0].tolerance);
  EXPECT_GT(r.layers[1].distance, r.layers[1].tolerance);
}

TEST(Verify, QuickFindsItInTheLayerThatParted) {
  Defect defect("swiglu", spoil);
  {
    const Report sound = verified({.directory = bf16_model(), .quick = true});
    EXPECT_TRUE(sound.passed());
    EXPECT_EQ(sound.calls, 0);
  }
  Defect strong("attention", [](const ops::OpCall& call) {
    for_each(call.outputs[0].view, [&](int64_t at) {
      bf16_t& x = call.outputs[0].view.as<bf16_t>()[at];
      x = f32_to_bf16(bf16_to_f32(x) * 1.5f);
    });
  });
  const ops::Observing observing(strong);
  const Report r = verified({.directory = bf16_model(), .quick = true});
  ASSERT_FALSE(r.parted.empty());
  EXPECT_EQ(r.parted.front().finding.op, "attention");
}

TEST(Verify, ANearTieOfExpertsIsRightAndAClearChoiceIsNot) {
  // Experts 0 and 1 of the only MoE block get the same gate: their scores are equal.
  const std::string path = join_path(root_folder(), "ties");
  auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  ASSERT_TRUE(model);
  models::initialise(**model, 4);
  for (Weight* w : (*model)->weights())
    if (w->name == "model.layers.1.mlp.gate.weight") {
      std::vector<float> gate = w->value.to_f32();
      std::copy(gate.begin(), gate.begin() + 32, gate.begin() + 32);
      w->value.assign_f32(gate);
      w->changed();
    }
  auto other = probe::sibling(**model, DType::kF32);
  ModelContents c;
  c.tensors = stored_weights((*model)->weights(), (*model)->weight_aliases(), DType::kF32);
  c.texts["config.json"] = (*model)->config_json("float32");
  c.passport = Passport{.program = "test"};
  c.passport->probes =
      probe::record(**model, **other, probe::synthetic_prompts(**model), {.text_tokens = 4});
  ASSERT_TRUE(write_model_dir(path, c));

  int64_t swapped = 0;
  const auto exchange = [&](int32_t a, int32_t b) {
    return [&swapped, a, b](const ops::OpCall& call) {
      for (const ops::NamedView& out : call.outputs)
        if (std::string_view(out.name) == "experts")
          for_each(out.view, [&](int64_t at) {
            int32_t& e = out.view.as<int32_t>()[at];
            if (e == a || e == b) ++swapped;
            e = e == a ? b : e == b ? a : e;
          });
    };
  };
  {
    Defect other_way("router", exchange(0, 1));
    const ops::Observing observing(other_way);
    const Report r = verified({.directory = path});
    EXPECT_GT(swapped, 0);
    EXPECT_TRUE(r.passed()) << r.reasons.front();
    EXPECT_GT(r.layers[1].near_ties, 0);
    // The only router is in the last block: no choice follows from another.
    EXPECT_EQ(r.layers[1].routed_otherwise, r.layers[1].near_ties);
    EXPECT_EQ(r.layers[1].followed, 0);
    EXPECT_GT(r.tokens_guided, 0);
    EXPECT_EQ(r.tokens, 8);  // each was compared, those behind a near tie, too
  }
  {
    // Behind the first near tie decoding goes wrong, where every layer of the packed pass is right.
    Defect other_way("router", exchange(0, 1));
    Defect decoding("attention", [](const ops::OpCall& call) {
      if (call.outputs[0].view.shape[0] > 2) return;
      for_each(call.outputs[0].view,
               [&](int64_t at) { call.outputs[0].view.as<bf16_t>()[at] = f32_to_bf16(9); });
    });
    const ops::Observing observing(other_way), observing_too(decoding);
    const Report r = verified({.directory = path, .quick = true});
    EXPECT_FALSE(r.passed());
  }
  {
    Defect wrong("router", exchange(2, 7));
    const ops::Observing observing(wrong);
    const Report r = verified({.directory = path});
    EXPECT_FALSE(r.passed());
    ASSERT_FALSE(r.parted.empty());
    EXPECT_EQ(r.parted.front().finding.op, "router");
    EXPECT_EQ(r.parted.front().finding.output, "experts");
  }
}

/// Clears memory behind the ops' backs: what the embedding gave, after the first attention and
/// before it is added.
class ReusedTooEarly final : public ops::Observer {
 public:
  void after(const ops::OpCall& call) override {
    if (std::string_view(call.op) == "embedding") embedded_ = call.outputs[0].view;
    if (std::string_view(call.op) != "attention" || !embedded_.given()) return;
    for_each(embedded_, [&](int64_t at) { embedded_.as<bf16_t>()[at] = 0; });
    embedded_ = {};
  }

 private:
  View embedded_;
};

TEST(Verify, MemoryThatChangesBetweenTwoOpsIsNamed) {
  ReusedTooEarly defect;
  const ops::Observing observing(defect);
  const Report r = verified({.directory = bf16_model()});
  EXPECT_FALSE(r.passed());
  EXPECT_TRUE(r.parted.empty());  // each op is right, given what it read
  ASSERT_FALSE(r.overwritten.empty());
  EXPECT_NE(r.overwritten.front().find("a of add"), std::string::npos) << r.overwritten.front();
  EXPECT_NE(r.overwritten.front().find("what embedding"), std::string::npos)
      << r.overwritten.front();
  EXPECT_NE(r.reasons.front().find("memory changed"), std::string::npos) << r.reasons.front();
}

TEST(Verify, AnotherFormatOfNumericsIsRefused) {
  auto dir = ModelDir::open(bf16_model());
  ASSERT_TRUE(dir);
  auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  ASSERT_TRUE(load_weights(*dir, cpu_device(), (*model)->weights(), (*model)->weight_aliases()));
  ModelContents c;
  c.tensors = stored_weights((*model)->weights(), (*model)->weight_aliases(), DType::kF32);
  c.texts["config.json"] = dir->config_json();
  c.passport = *dir->passport();
  c.passport->numerics = kNumerics - 1;
  const std::string path = join_path(root_folder(), "older");
  ASSERT_TRUE(write_model_dir(path, c));
  const auto refused = verify({.directory = path});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidInput);
  EXPECT_NE(
      refused.error().message.find(fmt::format(
          "numerics {}, this version of Ferry computes numerics {}", kNumerics - 1, kNumerics)),
      std::string::npos)
      << refused.error().message;
}

TEST(Verify, AKeyIsAskedFor) {
  const KeyPair key = new_key_pair(), other = new_key_pair();
  const std::string path = join_path(root_folder(), "signed");
  auto dir = ModelDir::open(bf16_model());
  ASSERT_TRUE(dir);
  auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  ASSERT_TRUE(load_weights(*dir, cpu_device(), (*model)->weights(), (*model)->weight_aliases()));
  ModelContents c;
  c.tensors = stored_weights((*model)->weights(), (*model)->weight_aliases(), DType::kF32);
  c.texts["config.json"] = dir->config_json();
  c.passport = *dir->passport();
  c.key = key;
  ASSERT_TRUE(write_model_dir(path, c));
  const Report r = verified({.directory = path, .public_key = key.public_key});
  EXPECT_TRUE(r.passed());
  EXPECT_EQ(r.signed_by, key.public_key);
  const auto wrong = verify({.directory = path, .public_key = other.public_key});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, Code::kInvalidInput);
  EXPECT_NE(wrong.error().message.find("signed by another key"), std::string::npos);
  const auto none = verify({.directory = bf16_model(), .public_key = key.public_key});
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("is not signed"), std::string::npos);

  ASSERT_TRUE(remember(r));
  const auto noted = read_verifications(path, r.root);
  ASSERT_TRUE(noted);
  ASSERT_EQ(noted->size(), 1u);
  EXPECT_TRUE(noted->front().passed);
  EXPECT_EQ(noted->front().device, "cpu");
}

/// The passport of bf16_model(), changed, beside its weights.
std::string with_passport(const std::string& name, const std::function<void(Passport&)>& change) {
  auto dir = ModelDir::open(bf16_model());
  EXPECT_TRUE(dir);
  auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  EXPECT_TRUE(load_weights(*dir, cpu_device(), (*model)->weights(), (*model)->weight_aliases()));
  ModelContents c;
  c.tensors = stored_weights((*model)->weights(), (*model)->weight_aliases(), DType::kF32);
  c.texts["config.json"] = dir->config_json();
  c.passport = *dir->passport();
  change(*c.passport);
  std::string path = join_path(root_folder(), name);
  EXPECT_TRUE(write_model_dir(path, c));
  return path;
}

TEST(Verify, ProbesOfAnotherModelAreRefused) {
  const auto each = [](const std::function<void(Probe&)>& change) {
    return [change](Passport& p) {
      for (Probe& probe : p.probes.list) change(probe);
    };
  };
  const std::pair<const char*, std::function<void(Passport&)>> kinds[] = {
      {"fewer layers", each([](Probe& p) { p.layers.pop_back(); })},
      {"more layers", each([](Probe& p) { p.layers.push_back(p.layers.back()); })},
      {"no routers", each([](Probe& p) { p.routers.clear(); })},
      {"more routers", each([](Probe& p) { p.routers.push_back(p.routers.back()); })},
      {"other experts", each([](Probe& p) { p.routers[0].experts[0] = 8; })},
      {"other logits", each([](Probe& p) { p.logits[0].tokens[0] = 96; })}};
  for (const auto& [name, change] : kinds) {
    const auto r = verify({.directory = with_passport(name, change)});
    ASSERT_FALSE(r) << name;
    EXPECT_EQ(r.error().code, Code::kCorrupt) << name;
    EXPECT_NE(r.error().message.find("another model's"), std::string::npos) << r.error().message;
  }
}

TEST(Verify, LogitsThatAreNoNumbersAreInfinitelyFarAway) {
  auto dir = ModelDir::open(bf16_model());
  ASSERT_TRUE(dir);
  auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  ASSERT_TRUE(load_weights(*dir, cpu_device(), (*model)->weights(), (*model)->weight_aliases()));
  const Probes& probes = dir->passport()->probes;
  probe::Answers answers = probe::ask(**model, probe::Batch::of(probes), nullptr, probes.top_k);
  for (std::vector<float>& logits : answers.logits) logits.assign(logits.size(), NAN);
  Report report;
  compare_routed(report, probes, answers);
  EXPECT_FALSE(report.equal_bits);
  EXPECT_GT(report.logit_distance, report.logit_tolerance);
}

TEST(Verify, DamagedWeightsAreRefused) {
  const std::string path = make_directory("damaged", DType::kBF16, 5, true);
  const std::string file = join_path(path, "model.safetensors");
  std::string content = *read_file(file);
  content[content.size() / 2] = static_cast<char>(content[content.size() / 2] ^ 4);
  ASSERT_TRUE(write_file_atomic(file, content));
  const auto r = verify({.directory = path});
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::kCorrupt);
  EXPECT_NE(r.error().message.find("chunk 0"), std::string::npos) << r.error().message;
}

}  // namespace
}  // namespace ferry::verify
