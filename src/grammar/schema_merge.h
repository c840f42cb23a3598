// Two JSON schemas as one that holds where both do.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace ferry::grammar {

/// What was read and copied of schemas. The limits hold for all those of one answer together, so that many tools take
/// no longer than one schema may.
struct SchemaWork {
  int schemas = 0;                    // that were read, each as often as it was
  size_t values = 0, text_bytes = 0;  // that were copied to put schemas together
};

/// Keywords that explain and demand nothing.
bool only_explains(const std::string& keyword);

/// The schema whose $refs are followed, and how far they were: what leads on for ever is refused.
/// The schema and the work must outlive it.
class References {
 public:
  References(const nlohmann::ordered_json& root, SchemaWork& work) : root_(root), work_(work) {}

  /// What a $ref refers to. Errors: kInvalidInput, naming it: another document, or nothing.
  Result<const nlohmann::ordered_json*> find(const nlohmann::ordered_json& ref,
                                             const std::string& where) const;

  /// One schema that holds where both do, without what only explains them if they had to be put
  /// together. Errors: kInvalidInput, naming `where`, where one cannot say it, or too much is to be
  /// put together.
  Result<nlohmann::ordered_json> merge(const nlohmann::ordered_json& a,
                                       const nlohmann::ordered_json& b,
                                       const std::string& where);

  /// Errors: kInvalidInput, naming `where` and the limits, once too much was copied: that bounds time
  /// and memory.
  Result<void> within_limits(const std::string& where) const;

  /// Whether no document can satisfy both, as far as their types and the values of their fields tell,
  /// within the limits.
  bool exclude_each_other(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);

 private:
  void count(const nlohmann::ordered_json& copied);
  /// Without what only explains, and counted.
  nlohmann::ordered_json copy_of(const nlohmann::ordered_json& schema);
  /// One that only refers is what it refers to; `true` is {}.
  Result<nlohmann::ordered_json> resolved(const nlohmann::ordered_json& schema,
                                          const std::string& where);
  bool excluded(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);
  const nlohmann::ordered_json& root_;
  SchemaWork& work_;
  int depth_ = 0;
};

}  // namespace ferry::grammar
