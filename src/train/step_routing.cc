#include "train/step_routing.h"

#include <algorithm>
#include <string>

#include "device/cpu/cpu_device.h"

namespace ferry {
namespace {

std::string name_of(int64_t micro_batch, int64_t layer) {
  return fmt::format("anticipated.{}.{}", micro_batch, layer);
}

}  // namespace

bool anticipates(const Rewinds& rewinds, int64_t step, const TrainSettings& settings) {
  const int64_t behind = step - rewinds.to - 1;  // the first step
  return rewinds.count > 0 && behind > 0 && behind <= settings.anticipatory_steps;
}

bool fits(const StepRouting& routing,
          std::span<const data::Batch> micro_batches,
          int64_t layers,
          int64_t top_k) {
  return std::equal(routing.begin(),
                    routing.end(),
                    micro_batches.begin(),
                    micro_batches.end(),
                    [&](const std::vector<Tensor>& chosen, const data::Batch& batch) {
                      const Shape shape = {std::ssize(batch.tokens), top_k};
                      return std::ssize(chosen) == layers &&
                             std::all_of(chosen.begin(), chosen.end(), [&](const Tensor& t) {
                               return t.shape() == shape;
                             });
                    });
}

void put(const StepRouting& routing, std::vector<StatePiece>& pieces) {
  for (size_t m = 0; m < routing.size(); ++m)
    for (size_t l = 0; l < routing[m].size(); ++l)
      pieces.push_back(StatePiece::whole(name_of(static_cast<int64_t>(m), static_cast<int64_t>(l)),
                                         routing[m][l]));
}

std::pair<int64_t, int64_t> size_of(const StepRouting& routing) {
  return {std::ssize(routing), routing.empty() ? 0 : std::ssize(routing.front())};
}

Result<StepRouting> read_routing(TrainingStateReader& from,
                                 const std::pair<int64_t, int64_t>& size,
                                 int64_t experts,
                                 Device& device,
                                 const std::string& path) {
  StepRouting routing;
  for (int64_t m = 0; m < size.first; ++m) {
    std::vector<Tensor>& layers = routing.emplace_back();
    for (int64_t l = 0; l < size.second; ++l) {
      const std::string name = name_of(m, l);
      const StateTensor* info = from.info(name);
      if (info == nullptr || info->dtype != DType::kI32 || info->shape.rank() != 2)
        return fail(Code::kCorrupt, "{}: the training state has no \"{}\" of experts", path, name);
      TRY_ASSIGN(const Tensor stored, from.load(name, cpu_device()));
      const std::vector<int32_t> ids = stored.to_i32();
      if (std::any_of(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= experts; }))
        return fail(Code::kCorrupt, "{}: \"{}\" of the training state names no expert", path, name);
      layers.push_back(Tensor::from_i32(ids, info->shape, device));
    }
  }
  return routing;
}

}  // namespace ferry
