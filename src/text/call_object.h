// A tool call that is written as a JSON object, read as it arrives: the name, and the text of the
// arguments as the model writes it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ferry::text {

/// {"name": TEXT, "arguments": VALUE}: fields in any order, "parameters" for "arguments"; "type" and
/// "id" are read over, any other field is none of a call. Only what is needed to tell where fields
/// end is checked. Each byte is looked at once.
class CallObject {
 public:
  enum class Status {
    kOpen,
    kDone,    // the object has ended
    kBroken,  // it is no call, or no JSON
  };

  /// Takes bytes for as long as the object is open; returns how many.
  size_t push(std::string_view bytes);

  Status status() const { return status_; }
  const std::optional<std::string>& name() const { return name_; }
  bool has_arguments() const { return has_arguments_; }
  /// The text of the arguments that has come since the last call. Arguments in a string are given
  /// without its quotes, once it has ended.
  std::string take_arguments();
  const std::string& raw() const { return raw_; }  // all that was taken

 private:
  enum class Place { kBegin, kFirstKey, kKey, kInKey, kColon, kValue, kInValue, kAfterValue };
  enum class Field { kName, kArguments, kOther };

  bool take(char c);
  bool take_in_value(char c);
  void key_ends();
  void value_ends();

  Status status_ = Status::kOpen;
  Place place_ = Place::kBegin;
  Field field_ = Field::kOther;
  std::string raw_, value_, arguments_;
  std::optional<std::string> name_;
  size_t depth_ = 0;
  bool in_string_ = false, escaped_ = false, scalar_ = false, has_arguments_ = false;
};

}  // namespace ferry::text
