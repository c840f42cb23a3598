#include "train/run_data.h"

#include <algorithm>

namespace ferry {
namespace {

// A passport's prompts. The first is longer than attention's tile of keys, so that its text needs more
// than one.
constexpr int64_t kTokensOf[] = {80, 24};

}  // namespace

RunData RunData::of(const std::shared_ptr<const data::Dataset>& dataset) {
  const data::Manifest& m = dataset->manifest();
  RunData run{.place = dataset->folder(),
              .setting = "data.dir",
              .fingerprint = m.fingerprint(),
              .vocab_size = m.vocab_size,
              .bos = m.bos,
              .eos = m.eos,
              .tokenizer_json = dataset->tokenizer_json(),
              .tokenizer = {dataset, &dataset->tokenizer()}};
  if (m.conversations()) run.chat_template_blake2b = m.chat_template_blake2b;
  const data::Documents& held_out = dataset->held_out();
  for (int64_t d = 0; d < std::min(std::ssize(kTokensOf), held_out.size()); ++d) {
    const data::Documents::Document document = held_out[d];
    std::vector<int32_t>& inputs = run.held_out.emplace_back();
    for (int64_t t = 0; t < std::min(dataset->places(document), kTokensOf[d] + 1); ++t)
      inputs.push_back(dataset->input(document, t));
  }
  return run;
}

}  // namespace ferry
