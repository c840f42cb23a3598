#include "engine/session.h"

#include <algorithm>

namespace ferry::engine {

constexpr int64_t kRoom = 4096;  // tokens: as far as most conversations go

/// Room for so many tokens in all. A cache that is too small goes, with what it holds; the next is
/// at least twice as large, so that a growing sequence is seldom computed anew.
void Session::make_room(int64_t tokens) {
  const auto held = static_cast<int64_t>(held_.size());
  const int64_t room = cache_ == nullptr ? 0 : held + cache_->remaining(0);
  if (tokens <= room) return;
  held_.clear();
  cache_.reset();  // before the next takes its memory
  cache_ =
      model_->make_cache(1, std::min(std::max({tokens, 2 * room, kRoom}), model_->max_positions()));
}

/// Runs the tokens through the model after those the cache holds; logits of the last one, if they
/// are wanted.
std::vector<float> Session::step(std::span<const int32_t> tokens, bool wanted) {
  const models::KvCache::Part part{0, static_cast<int64_t>(tokens.size())};
  const ops::Segments segments = cache_->begin({&part, 1});
  models::ForwardOptions options;
  options.cache = cache_.get();
  const Tensor ids = Tensor::from_i32(tokens, {part.tokens}, model_->device());
  const Tensor hidden = model_->forward(ids, segments, options, nullptr);
  const int64_t last = part.tokens - 1;
  std::vector<float> logits;
  if (wanted) logits = model_->logits(hidden, {&last, 1}).to_f32();
  cache_->commit();
  held_.insert(held_.end(), tokens.begin(), tokens.end());
  return logits;
}

Result<std::vector<int32_t>> Session::generate(std::span<const int32_t> prompt,
                                               const GenerateOptions& options,
                                               const std::function<bool(const Sampled&)>& on_token,
                                               const std::function<bool()>& on_prefill) {
  TRY(validate(options.sampling));
  const auto length = static_cast<int64_t>(prompt.size());
  if (length == 0) return fail(Code::kInvalidInput, "prompt: empty; give at least one token");
  if (length >= model_->max_positions())
    return fail(Code::kInvalidInput,
                "prompt: {} tokens, the model has {} positions; shorten it",
                length,
                model_->max_positions());
  const int64_t limit = std::min(options.tokens_max, model_->max_positions() - length);
  make_room(length + limit);
  // The last token is run in any case: its logits are wanted.
  const auto [end, unused] =
      std::mismatch(held_.begin(), held_.end(), prompt.begin(), prompt.end() - 1);
  reused_ = end - held_.begin();
  held_.resize(static_cast<size_t>(reused_));
  cache_->truncate(0, reused_);

  std::vector<float> logits;
  for (int64_t begin = reused_; begin < length; begin += options.prefill_chunk) {
    const int64_t until = std::min(begin + options.prefill_chunk, length);
    logits = step(prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(until - begin)),
                  until == length);
    if (on_prefill && !on_prefill()) return std::vector<int32_t>{};
  }
  std::vector<int32_t> out;
  while (static_cast<int64_t>(out.size()) < limit) {
    TRY_ASSIGN(const Sampled next,
               sample(logits, options.sampling, static_cast<uint64_t>(length) + out.size()));
    if (std::find(options.end_tokens.begin(), options.end_tokens.end(), next.token) !=
        options.end_tokens.end())
      break;
    out.push_back(next.token);
    if (!on_token(next)) break;
    if (static_cast<int64_t>(out.size()) < limit) logits = step({&next.token, 1}, true);
  }
  return out;
}

}  // namespace ferry::engine
