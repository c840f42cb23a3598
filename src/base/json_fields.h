// Takes fields out of JSON objects of outside origin: the one reader of fields that Ferry has. The
// first field that is missing or not as it must be is remembered, what comes after it is empty, and
// whoever began reading asks at the end. For .cc files: whoever includes this needs
// <nlohmann/json.hpp>.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace ferry {

/// What one document was found to be wrong in, shared by the readers of its objects.
/// Thread rule: plain data.
struct JsonProblem {
  Code code = Code::kCorrupt;    // of the failure
  std::string advice;            // ends the message: "; restore it"; may be empty
  std::optional<Status> status;  // the first problem
  std::string place;             // whose: "WHERE: list[2]: name"
  explicit operator bool() const { return status.has_value(); }
  /// The failure, or success.
  Result<void> done() const;
};

/// Reads the fields of one object. A field that is null counts as one that is not there.
/// Owner: the object and the problem outlive it. One thread.
class JsonFields {
 public:
  /// `where` begins messages: a path, and where in the document.
  JsonFields(const nlohmann::json& object, std::string where, JsonProblem& problem);

  /// nullptr if it is not there.
  const nlohmann::json* find(const char* name);
  bool has(const char* name) { return find(name) != nullptr; }
  /// Refused if it is not there; then, and after any problem, null.
  const nlohmann::json& at(const char* name);

  // Each is refused if it is not there, unless a value is given for that; and if it is of another
  // type or outside its bounds.
  int64_t integer(const char* name, int64_t low, int64_t high, std::optional<int64_t> missing = {});
  uint64_t natural(const char* name);
  double real(const char* name, double low, double high, std::optional<double> missing = {});
  double real(const char* name);
  bool boolean(const char* name, std::optional<bool> missing = {});
  std::string text(const char* name, std::optional<std::string> missing = {});
  std::vector<std::string> texts(const char* name);
  std::vector<double> reals(const char* name);
  std::vector<int64_t> integers(const char* name, int64_t low, int64_t high);
  /// One id or a list of ids, from 0 to `high`; without repetitions, in their order. May be missing.
  std::vector<int64_t> ids(const char* name, int64_t high);
  const nlohmann::json& list(const char* name);     // an empty one after a problem
  const nlohmann::json& members(const char* name);  // of an object; an empty one after a problem
  /// The fields of the object of this name; of an empty one after a problem.
  JsonFields object(const char* name);
  /// The fields of item `index` of the list of this name.
  JsonFields item(const char* name, const nlohmann::json& item, size_t index);

  /// The field is this, or not there.
  void only(const char* name, const nlohmann::json& allowed);
  /// Every field was asked for by now, is null, or is among `ignored`.
  void refuse_unknown(const std::set<std::string>& ignored, std::string_view why);
  /// Remembers that the field is wrong; the message shows its value, if it has one. An empty name
  /// stands for the object.
  void refuse(const std::string& name, std::string_view why);

  JsonProblem& problem() { return *problem_; }
  const std::string& where() const { return where_; }

 private:
  void wrong(const std::string& name, const nlohmann::json& value, std::string_view why);
  const nlohmann::json* object_;
  std::string where_;
  JsonProblem* problem_;
  std::set<std::string> seen_;
};

}  // namespace ferry
