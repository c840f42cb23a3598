#include "rl/rollout_model.h"

#include "base/alive.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/hash.h"
#include "models/registry.h"

namespace ferry::rl {

Result<std::unique_ptr<RolloutModel>> RolloutModel::make(models::TrainableLm& trained,
                                                         Device& device) {
  TRY_ASSIGN(std::unique_ptr<models::TrainableLm> model,
             models::make_model(trained.config_json("float32"),
                                "the run's model",
                                device,
                                trained.compute(),
                                DType::kF32));
  return std::unique_ptr<RolloutModel>(new RolloutModel(trained, std::move(model)));
}

Result<WeightTransfer> RolloutModel::renew() {
  const std::vector<Weight*> from = trained_.weights(), to = model_->weights();
  check(from.size() == to.size(), "rollout model: {} weights of {}", to.size(), from.size());
  there_.resize(from.size());
  WeightTransfer transfer;
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < from.size(); ++i) {
    check(from[i]->value.bytes() == to[i]->value.bytes(),
          "rollout model: {} has {} bytes, and {} there",
          from[i]->name,
          from[i]->value.bytes(),
          to[i]->value.bytes());
    bytes.resize(from[i]->value.bytes());
    from[i]->value.copy_bytes_to(bytes.data());
    std::string hash = blake2b_hex(bytes);
    still_alive();
    if (hash == there_[i]) continue;
    to[i]->value.copy_bytes_from(bytes.data());
    to[i]->changed();
    to[i]->value.copy_bytes_to(bytes.data());
    if (fault_point("rl.transfer") != 0 && !bytes.empty()) bytes[0] ^= std::byte{1};
    if (blake2b_hex(bytes) != hash)
      return fail(Code::kVerdict,
                  "{}: {} was sent there, and other bytes came back: its memory, or the way to it, "
                  "is not sound (ferry doctor --device {} examines it)",
                  model_->device().name(),
                  from[i]->name,
                  model_->device().name());
    there_[i] = std::move(hash);
    ++transfer.weights;
    transfer.bytes += bytes.size();
    still_alive();
  }
  return transfer;
}

}  // namespace ferry::rl
