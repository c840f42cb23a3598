// A model's cosines and sines of positions, as far as its passes have come: a context of 2^17 positions takes
// a second to make and 64 MiB, which a prompt of a hundred tokens, or training on sequences of some
// thousands, never looks at.
#pragma once

#include <cstdint>

#include "ops/rope/rope.h"
#include "ops/segments.h"

namespace ferry::models {

class PositionTable {
 public:
  /// Takes no memory yet. `positions`: of the model.
  PositionTable(const ops::RopeConfig& config, int64_t positions, Device& device)
      : config_(config), positions_(positions), device_(&device) {}

  /// Before a pass over these tokens: the table is made longer where they lie beyond it, at least twice as
  /// long, up to the model's positions. No bit of what was there is another then.
  void reach(const ops::Segments& segments);
  /// As far as the last reach().
  const ops::RopeTable& rope() const { return rope_; }
  /// Of the table after a pass over the first `tokens` positions and none beyond.
  int64_t bytes(int64_t tokens) const;

 private:
  int64_t rows_for(int64_t tokens) const;

  ops::RopeConfig config_;
  int64_t positions_;
  Device* device_;
  ops::RopeTable rope_;
};

}  // namespace ferry::models
