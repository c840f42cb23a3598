// The settings of an answer in JSON, under the names that chat servers use: read the same way from a
// file of requests and from the network. For .cc files: whoever includes this needs
// <nlohmann/json.hpp>.
#pragma once

#include <string>
#include <vector>

#include "base/json_fields.h"
#include "engine/sampler.h"

namespace ferry::engine {

/// temperature, top_p, top_k (-1, too, is: all), min_p, repetition_penalty, presence_penalty,
/// frequency_penalty, seed and logit_bias ({"id": number}). What is not there stays as it is. Refuses
/// what is out of range for any model.
void read_sampling(JsonFields& fields, SamplingOptions& sampling);

/// "stop": one string or a list of them.
void read_stop(JsonFields& fields, std::vector<std::string>& stop);

}  // namespace ferry::engine
