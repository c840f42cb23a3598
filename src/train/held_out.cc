#include "train/held_out.h"

#include <algorithm>

#include "base/math.h"

namespace ferry {

std::optional<HeldOutLoss> held_out_loss(models::CausalLm& model,
                                         const data::HeldOut& held_out,
                                         int64_t tokens_max,
                                         const std::function<bool(int64_t)>& go_on) {
  Device& device = model.device();
  double nats = 0;
  int64_t tokens = 0, scored = 0, bytes = 0;
  for (int64_t b = 0; b < held_out.batches() && tokens < tokens_max; ++b) {
    if (!go_on(tokens)) return std::nullopt;
    const data::Batch batch = held_out.batch(b);
    const Shape shape = {static_cast<int64_t>(batch.tokens.size())};
    const Tensor hidden = model.forward(Tensor::from_i32(batch.tokens, shape, device),
                                        ops::Segments::packed(batch.segment_lengths, device),
                                        {},
                                        nullptr);
    const Tensor labels = Tensor::from_i32(batch.labels, shape, device);
    for (const float l : model.token_losses(hidden, labels).to_f32())
      nats += static_cast<double>(l);
    tokens += shape[0];
    scored += std::count_if(
        batch.labels.begin(), batch.labels.end(), [](int32_t label) { return label >= 0; });
    bytes += batch.label_bytes;
  }
  if (scored == 0) return std::nullopt;
  return HeldOutLoss{nats / static_cast<double>(scored),
                     nats / math::kLn2 / static_cast<double>(std::max<int64_t>(1, bytes))};
}

}  // namespace ferry
