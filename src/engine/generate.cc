#include "engine/generate.h"

#include <algorithm>

namespace ferry::engine {
namespace {

/// Runs the tokens through the model after those the cache holds; logits of the last one, if they
/// are wanted.
std::vector<float> step(models::CausalLm& model,
                        models::KvCache& cache,
                        std::span<const int32_t> tokens,
                        bool wanted = true) {
  const models::KvCache::Part part{0, static_cast<int64_t>(tokens.size())};
  const ops::Segments segments = cache.begin({&part, 1});
  models::ForwardOptions options;
  options.cache = &cache;
  const Tensor ids = Tensor::from_i32(tokens, {part.tokens}, model.device());
  const Tensor hidden = model.forward(ids, segments, options, nullptr);
  const int64_t last = part.tokens - 1;
  std::vector<float> logits;
  if (wanted) logits = model.logits(hidden, {&last, 1}).to_f32();
  cache.commit();
  return logits;
}

}  // namespace

Result<std::vector<int32_t>> generate(models::CausalLm& model,
                                      std::span<const int32_t> prompt,
                                      const GenerateOptions& options,
                                      const std::function<bool(const Sampled&)>& on_token) {
  TRY(validate(options.sampling));
  const auto length = static_cast<int64_t>(prompt.size());
  if (length == 0) return fail(Code::kInvalidInput, "prompt: empty; give at least one token");
  if (length >= model.max_positions())
    return fail(Code::kInvalidInput,
                "prompt: {} tokens, the model has {} positions; shorten it",
                length,
                model.max_positions());
  const int64_t limit = std::min(options.tokens_max, model.max_positions() - length);
  const std::unique_ptr<models::KvCache> cache = model.make_cache(1, length + limit);

  std::vector<float> logits;
  for (int64_t begin = 0; begin < length; begin += options.prefill_chunk) {
    const int64_t end = std::min(begin + options.prefill_chunk, length);
    logits = step(model,
                  *cache,
                  prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                  end == length);
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
    if (static_cast<int64_t>(out.size()) < limit) logits = step(model, *cache, {&next.token, 1});
  }
  return out;
}

}  // namespace ferry::engine
