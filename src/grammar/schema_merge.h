// Two JSON schemas as one that holds where both do.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace ferry::grammar {

/// Keywords that explain and demand nothing.
bool only_explains(const std::string& keyword);

/// The schema whose $refs are followed, and how far they were: what leads on for ever is refused.
/// The schema must outlive it.
class References {
 public:
  explicit References(const nlohmann::ordered_json& root) : root_(root) {}

  /// What a $ref refers to. Errors: kInvalidInput, naming it: another document, or nothing.
  Result<const nlohmann::ordered_json*> find(const nlohmann::ordered_json& ref,
                                             const std::string& where) const;

  /// One schema that holds where both do. Errors: kInvalidInput, naming `where`, where one cannot say
  /// it, or too much is to be put together.
  Result<nlohmann::ordered_json> merge(const nlohmann::ordered_json& a,
                                       const nlohmann::ordered_json& b,
                                       const std::string& where);

  /// Whether no document can satisfy both, as far as their types and the values of their fields tell.
  bool exclude_each_other(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);

 private:
  /// One that only refers is what it refers to; `true` is {}.
  Result<nlohmann::ordered_json> resolved(const nlohmann::ordered_json& schema,
                                          const std::string& where);
  bool excluded(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);
  const nlohmann::ordered_json& root_;
  int depth_ = 0;
  size_t work_ = 0;  // values that were copied
};

}  // namespace ferry::grammar
