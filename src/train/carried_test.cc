// What ranks tell each other of a run arrives as it was said, also where it is no number; what cannot be is refused.
#include "train/carried.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>

#include "comm/socket_communicator.h"

namespace ferry {
namespace {

using Stage = Standing::Stage;
constexpr double kNotFinite = std::numeric_limits<double>::quiet_NaN();

/// Equal, or both no number.
void expect_same(const std::optional<double>& a, const std::optional<double>& b) {
  ASSERT_EQ(a.has_value(), b.has_value());
  if (a) {
    EXPECT_TRUE(*a == *b || (std::isnan(*a) && std::isnan(*b))) << *a << " " << *b;
  }
}

TEST(Carried, ARanksWordArrives) {
  for (const Stage stage : {Stage::kNothing, Stage::kBetween, Stage::kPrepared, Stage::kCommitted})
    for (const std::optional<HeldOutLoss>& held_out :
         {std::optional<HeldOutLoss>(),
          std::optional(HeldOutLoss{2.5, 1.25}),
          std::optional(HeldOutLoss{0.1, kNotFinite}),
          std::optional(HeldOutLoss{std::numeric_limits<double>::infinity(), kNotFinite})}) {
      const RankWord said{.standing = {stage, int64_t{1} << 60},
                          .saved_step = -1,
                          .saved_figure = true,
                          .held_out = held_out,
                          .rewinds = 3,
                          .rewound_to = 40};
      const Result<RankWord> heard = rank_word_of(to_text(said), 3);
      ASSERT_TRUE(heard) << heard.error().message;
      EXPECT_EQ(heard->standing, said.standing);
      EXPECT_EQ(heard->saved_step, -1);
      EXPECT_TRUE(heard->saved_figure);
      EXPECT_EQ(heard->rewinds, 3);
      EXPECT_EQ(heard->rewound_to, 40);
      // That there was an evaluation is known in any case.
      ASSERT_EQ(heard->held_out.has_value(), held_out.has_value());
      if (!held_out) continue;
      EXPECT_EQ(std::isfinite(heard->held_out->nats_per_token),
                std::isfinite(held_out->nats_per_token));
      if (std::isfinite(held_out->nats_per_token)) {
        EXPECT_EQ(heard->held_out->nats_per_token, held_out->nats_per_token);
      }
      EXPECT_EQ(std::isfinite(heard->held_out->bits_per_byte),
                std::isfinite(held_out->bits_per_byte));
    }
}

TEST(Carried, WhatModelItIsArrives) {
  ModelTexts texts;
  texts.begins = true;
  texts.bos = 1;
  texts.eos = {7, 2};
  texts.files = {{"a.json", "{\n}\n"}, {"b", std::string("\0\xff\n", 3)}, {"empty", ""}};
  for (const bool with : {false, true}) {
    ModelWord said{.config_json = "{\"n\": 1}", .texts = {}};
    if (with) said.texts = texts;
    const Result<ModelWord> heard = model_word_of(to_text(said));
    ASSERT_TRUE(heard) << heard.error().message;
    EXPECT_EQ(heard->config_json, said.config_json);
    ASSERT_EQ(heard->texts.has_value(), with);
    if (!with) continue;
    EXPECT_EQ(heard->texts->begins, true);
    EXPECT_EQ(heard->texts->bos, 1);
    EXPECT_EQ(heard->texts->eos, texts.eos);
    EXPECT_EQ(heard->texts->files, texts.files);
  }
}

TEST(Carried, WhatTheLoopCarriesArrives) {
  for (const std::optional<double>& last_loss :
       {std::optional<double>(), std::optional(1.5), std::optional(kNotFinite)}) {
    const Carried said{.state = "{\"step\": 3}",
                       .last_loss = last_loss,
                       .refusals_of = 9,
                       .refusals_in_a_row = 4,
                       .figures = {1e12, 2e12, 0.1},
                       .last_record = "{\"kind\":\"step\"}"};
    const Result<Carried> heard = carried_of(to_text(said));
    ASSERT_TRUE(heard) << heard.error().message;
    EXPECT_EQ(heard->state, said.state);
    expect_same(heard->last_loss, last_loss);
    EXPECT_EQ(heard->refusals_of, 9);
    EXPECT_EQ(heard->refusals_in_a_row, 4);
    EXPECT_EQ(heard->figures.flops_step, 1e12);
    EXPECT_EQ(heard->figures.flops_mtp_step, 2e12);
    EXPECT_EQ(heard->figures.peak_flops_per_s, 0.1);
    EXPECT_EQ(heard->last_record, said.last_record);
  }
}

// Of four ranks 1 and 3 are successors, and 0 tells.
TEST(Carried, TheFreshAreToldAndNobodyElseAndOnlyTheTellerIsAsked) {
  auto all = comm::local_communicators(4);
  ASSERT_TRUE(all) << all.error().message;
  std::vector<std::thread> threads;
  for (int r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      comm::Communicator& mine = *(*all)[static_cast<size_t>(r)];
      constexpr double kPatienceS = 60;
      const bool fresh = r % 2 == 1;
      const RankWord stands{.standing = {fresh ? Stage::kNothing : Stage::kBetween, fresh ? 0 : 7},
                            .saved_step = r,
                            .held_out = {}};
      const auto words = exchange_words(mine, stands, kPatienceS);
      ASSERT_TRUE(words) << words.error().message;
      std::vector<Standing> standings;
      for (const RankWord& w : *words) standings.push_back(w.standing);
      EXPECT_EQ((*words)[2].saved_step, 2);
      const auto plan = plan_recovery(standings);
      ASSERT_TRUE(plan) << plan.error().message;
      const auto model = hand_model(
          mine,
          *plan,
          [&] {
            EXPECT_EQ(r, 0);
            return ModelWord{.config_json = "{}", .texts = {}};
          },
          kPatienceS);
      const auto carried = hand_carried(
          mine,
          *plan,
          [&] {
            EXPECT_EQ(r, 0);
            return Carried{.state = "after 7"};
          },
          kPatienceS);
      ASSERT_TRUE(model && carried);
      EXPECT_EQ(model->has_value(), fresh);
      EXPECT_EQ(carried->has_value(), fresh);
      if (fresh) {
        EXPECT_EQ((*carried)->state, "after 7");
      }
    });
  for (std::thread& t : threads) t.join();
}

TEST(Carried, WhatCannotBeIsRefused) {
  for (const char* word :
       {"",
        "{}",
        R"({"stage": 4, "done": 0, "saved": -1, "saved_figure": 0})",
        R"({"stage": 1, "done": 0, "saved": 7, "saved_figure": 2})",
        R"({"stage": 1, "done": -1, "saved": -1, "saved_figure": 0})",
        R"({"stage": 1, "done": 0, "saved": -2, "saved_figure": 0})",
        R"({"stage": 1, "done": 0, "saved": -1, "saved_figure": 0, "held_out": [1]})",
        R"({"stage": 1, "done": 0, "saved": -1, "saved_figure": 0, "held_out": [1, "2"]})"}) {
    const Result<RankWord> heard = rank_word_of(word, 3);
    ASSERT_FALSE(heard) << word;
    EXPECT_EQ(heard.error().code, Code::kCorrupt);
    EXPECT_NE(heard.error().message.find("rank 3"), std::string::npos) << heard.error().message;
  }
  ModelTexts texts;
  texts.files = {{"a", "12345"}};
  const std::string model = to_text(ModelWord{.config_json = "{}", .texts = texts});
  EXPECT_FALSE(model_word_of(model.substr(0, model.size() - 1))) << "a file is cut off";
  EXPECT_FALSE(model_word_of(model.substr(0, model.find('\n'))));
  const std::string carried = to_text(Carried{});
  EXPECT_FALSE(carried_of(carried.substr(1)));
  EXPECT_FALSE(carried_of(R"({"state": "", "refusals_of": 1, "refusals_in_a_row": 2,
                              "figures": [1, 2, 3], "last_record": ""})"))
      << "more in a row than there were";
}

}  // namespace
}  // namespace ferry
