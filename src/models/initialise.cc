// Initial values, as DeepSeek draws them: every matrix normal with one standard deviation.
#include <nlohmann/json.hpp>

#include "base/alive.h"
#include "base/random.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"
#include "models/trainable_lm.h"

namespace ferry::models {

void initialise(TrainableLm& model, uint64_t seed) {
  const auto config = nlohmann::json::parse(model.config_json("float32"));
  const double deviation = config.at("initializer_range").get<double>();
  for (Weight* w : model.weights()) {
    std::vector<float> values(static_cast<size_t>(w->value.count()),
                              w->role == WeightRole::kVector ? 1.0f : 0.0f);
    if (w->matrix()) {
      const Random random(seed, RandomPurpose::kInit, name_hash(w->name.data(), w->name.size()));
      constexpr int64_t kBlock = 1 << 14;
      const auto count = static_cast<int64_t>(values.size());
      cpu_pool().parallel_for((count + kBlock - 1) / kBlock, [&](int64_t block, int) {
        for (int64_t i = block * kBlock; i < count && i < (block + 1) * kBlock; ++i)
          values[static_cast<size_t>(i)] =
              static_cast<float>(deviation * random.normal(static_cast<uint64_t>(i)));
        still_alive();
      });
    }
    w->value.assign_f32(values);
    w->changed();
    still_alive();
  }
}

}  // namespace ferry::models
