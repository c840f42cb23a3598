#include "ops/pair_linear/paired_weight.h"

#include <vector>

#include "tensor/bf16.h"

namespace ferry::ops {

Weight paired_weight(const std::string& name, const Tensor& numbers) {
  Weight w{.name = name, .global_shape = numbers.shape(), .shard = {}};
  const PairPanels layout = w.pair_panels();
  std::vector<bf16_t> rows;
  for (const float number : numbers.to_f32()) rows.push_back(f32_to_bf16(number));
  std::vector<uint32_t> panels(static_cast<size_t>(w.matrices() * layout.count()));
  for (int64_t m = 0; m < w.matrices(); ++m)
    put_pairs(layout,
              0,
              layout.rows,
              rows.data() + m * layout.rows * layout.columns,
              panels.data() + m * layout.count());
  Tensor value = Tensor::empty({w.matrices(), layout.count()}, DType::kI32, numbers.device());
  value.copy_bytes_from(panels.data());
  w.store_pairs(std::move(value));
  return w;
}

}  // namespace ferry::ops
