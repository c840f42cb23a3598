#include "engine/answer_fields.h"

#include <charconv>
#include <nlohmann/json.hpp>

namespace ferry::engine {
namespace {

using Json = nlohmann::json;

void read_bias(JsonFields& fields, SamplingOptions& s) {
  const Json* const given = fields.find("logit_bias");
  if (given == nullptr) return;
  if (!given->is_object()) return fields.refuse("logit_bias", "must be an object of token ids");
  s.logit_bias.clear();
  for (const auto& [name, value] : given->items()) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (error != std::errc() || end != name.data() + name.size() || !value.is_number())
      return fields.refuse("logit_bias", "must be an object of token ids and numbers");
    s.logit_bias.emplace_back(id, value.get<double>());
  }
}

}  // namespace

void read_sampling(JsonFields& fields, SamplingOptions& s) {
  struct Field {
    const char* name;
    double low, high;
    double* value;
  };
  for (const Field& f : {Field{"temperature", 0, 100, &s.temperature},
                         {"top_p", 0, 1, &s.top_p},
                         {"min_p", 0, 1, &s.min_p},
                         {"repetition_penalty", 0.01, 100, &s.repetition_penalty},
                         {"presence_penalty", -100, 100, &s.presence_penalty},
                         {"frequency_penalty", -100, 100, &s.frequency_penalty}})
    *f.value = fields.real(f.name, f.low, f.high, *f.value);
  if (s.top_p == 0) fields.refuse("top_p", "must be above 0");
  s.top_k = std::max<int64_t>(0, fields.integer("top_k", -1, INT32_MAX, s.top_k));
  if (const Json* const seed = fields.find("seed")) {
    if (!seed->is_number_integer()) fields.refuse("seed", "must be a whole number");
    // Any 64 bits are a seed: negative ones, as some clients send them, are as good as others.
    else
      s.seed = seed->is_number_unsigned() ? seed->get<uint64_t>()
                                          : static_cast<uint64_t>(seed->get<int64_t>());
  }
  read_bias(fields, s);
}

void read_stop(JsonFields& fields, std::vector<std::string>& stop) {
  const Json* const given = fields.find("stop");
  if (given == nullptr) return;
  stop.clear();
  if (given->is_string())
    stop.push_back(given->get<std::string>());
  else
    stop = fields.texts("stop");
}

}  // namespace ferry::engine
