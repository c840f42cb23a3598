// Lesson: a text of which a model learns to write some tokens and only reads the others.
#pragma once

#include <cstdint>
#include <vector>

namespace ferry::text {

struct Lesson {
  std::vector<int32_t> ids;
  std::vector<bool> learnt;  // of each id: whether the model is to write it, given those before
};

}  // namespace ferry::text
