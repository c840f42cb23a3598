// Ranks of one process, each on a thread of its own, and a model that is small enough for them: what tests of steps
// that are made together share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/fault.h"
#include "base/threads.h"
#include "comm/socket_communicator.h"
#include "data/loader.h"

namespace ferry {

inline constexpr double kPatienceS = 120;

/// Ranks of one process share a device, which one thread at a time uses: who waits for others lets go of it.
class TakingTurns : public comm::Communicator {
 public:
  TakingTurns(std::unique_ptr<comm::Communicator> of, std::mutex& turn)
      : of_(std::move(of)), turn_(turn) {}
  int rank() const override { return of_->rank(); }
  int ranks() const override { return of_->ranks(); }
  void send(int to, const comm::Tag& tag, std::span<const std::byte> bytes) override {
    of_->send(to, tag, bytes);
  }
  void receive(int from, const comm::Tag& tag, std::span<std::byte> bytes) override {
    of_->receive(from, tag, bytes);
  }
  void finish(double patience_s) override {
    turn_.unlock();
    {
      const struct Back {
        TakingTurns& of;
        ~Back() {
          of.turn_.lock();
          set_fault_rank(of.rank());
        }
      } back{*this};
      of_->finish(patience_s);
    }
    if (finished_) finished_();
  }
  /// Calls this whenever it is its turn again.
  void when_finished(std::function<void()> finished) { finished_ = std::move(finished); }
  void when_waiting(std::function<void(int)> waiting) override {
    of_->when_waiting(std::move(waiting));
  }
  uint64_t bytes_sent() const override { return of_->bytes_sent(); }

 private:
  std::unique_ptr<comm::Communicator> of_;
  std::mutex& turn_;
  std::function<void()> finished_;
};

/// Each rank on a thread of its own, taking turns. Its links close when it is through.
inline void as_ranks(int ranks, const std::function<void(TakingTurns&)>& does) {
  auto all = comm::local_communicators(ranks);
  ASSERT_TRUE(all) << all.error().message;
  std::mutex turn;
  std::vector<std::thread> threads;
  for (std::unique_ptr<comm::Communicator>& c : *all)
    threads.emplace_back(
        [&turn, &does, c = std::make_unique<TakingTurns>(std::move(c), turn)]() mutable {
          const FlushDenormals flush;
          const std::lock_guard mine(turn);
          set_fault_rank(c->rank());
          does(*c);
          c.reset();
        });
  for (std::thread& t : threads) t.join();
  set_fault_rank(0);
}

inline constexpr const char* kConfig =
    R"({"model_type": "deepseek_v3", "vocab_size": 40, "hidden_size": 16,
  "num_hidden_layers": 2, "first_k_dense_replace": 1, "intermediate_size": 24,
  "moe_intermediate_size": 8, "n_routed_experts": 4, "n_shared_experts": 1,
  "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.5,
  "num_attention_heads": 2, "q_lora_rank": null, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 4, "v_head_dim": 8, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 64, "num_nextn_predict_layers": 1, "initializer_range": 0.1,
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})";

/// Micro-batches of different lengths, so that each weighs differently.
inline std::vector<data::Batch> batches_of(int64_t step, int64_t count) {
  std::vector<data::Batch> batches;
  for (int64_t m = 0; m < count; ++m) {
    data::Batch& b = batches.emplace_back();
    const int32_t length = 6 + static_cast<int32_t>(m % 3) * 2;
    for (int32_t t = 0; t < length; ++t) {
      const int32_t token = (static_cast<int32_t>(17 * step + 5 * m) + 3 * t) % 40;
      b.tokens.push_back(token);
      b.next.push_back((token + 3) % 40);
      b.mtp_labels.push_back(t + 1 < length ? (token + 6) % 40 : -1);
    }
    b.labels = b.next;
    b.segment_lengths = {length};
    b.label_bytes = length;
  }
  return batches;
}

}  // namespace ferry
