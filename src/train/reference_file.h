// reference.json in the folder of a run that learns from pairs: what the model that it begins with gave their answers,
// as far as that was computed, until a checkpoint has it. So a stop before the first checkpoint loses none of it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "models/causal_lm.h"

namespace ferry {

/// A hash of all that the log-probabilities depend on: the model's config and weights, the device (as verified_as has
/// it: the CPU is one, a chip is its kind and its software) and the type that it computes in, the form of its
/// attention, the order of sums, and the pairs (`fingerprint`). Reads each weight.
std::string reference_key(models::CausalLm& model,
                          models::MlaForm form,
                          const std::string& fingerprint);

/// Those that are there under this key, at most `answers`; none where there is no such file, or one of another key.
/// Errors: kCorrupt: the file was harmed; kUnavailable.
Result<std::vector<float>> read_reference(const std::string& folder,
                                          const std::string& key,
                                          size_t answers);
/// That a file of this name, if there is one, is no other's. Errors: kCorrupt: it is; kUnavailable.
Result<void> check_reference_is_ours(const std::string& folder);
/// Replaces the file, whole. Errors: of write_file_atomic.
Result<void> write_reference(const std::string& folder,
                             const std::string& key,
                             std::span<const float> log_probs);

}  // namespace ferry
