#include "text/call_object.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace ferry::text {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/// The text of a JSON string, given with its quotes; nothing if it is none.
std::optional<std::string> unquoted(const std::string& json) {
  const auto value = nlohmann::json::parse(json, nullptr, false);
  if (!value.is_string()) return std::nullopt;
  return value.get<std::string>();
}

}  // namespace

size_t CallObject::push(std::string_view bytes) {
  size_t taken = 0;
  while (taken < bytes.size() && status_ == Status::kOpen) {
    const char c = bytes[taken];
    if (!take(c)) {
      status_ = Status::kBroken;
      break;
    }
    raw_ += c;
    ++taken;
  }
  return taken;
}

std::string CallObject::take_arguments() { return std::exchange(arguments_, ""); }

/// False: the byte cannot stand here.
bool CallObject::take(char c) {
  if (place_ != Place::kInKey && place_ != Place::kInValue && is_blank(c)) return true;
  switch (place_) {
    case Place::kBegin: place_ = Place::kFirstKey; return c == '{';
    case Place::kFirstKey:
    case Place::kKey:
      if (c == '}' && place_ == Place::kFirstKey) return false;  // {} calls nothing
      place_ = Place::kInKey;
      value_ = c;
      return c == '"';
    case Place::kInKey:
      value_ += c;
      if (c == '"' && !escaped_) key_ends();
      escaped_ = c == '\\' && !escaped_;
      return status_ == Status::kOpen;
    case Place::kColon: place_ = Place::kValue; return c == ':';
    case Place::kValue:
      place_ = Place::kInValue;
      value_.clear();
      depth_ = 0;
      scalar_ = c != '"' && c != '{' && c != '[';
      if (field_ == Field::kArguments) has_arguments_ = true;
      return take_in_value(c);
    case Place::kInValue: return take_in_value(c);
    case Place::kAfterValue:
      if (c == '}') status_ = Status::kDone;
      place_ = Place::kKey;
      return c == '}' || c == ',';
  }
  return false;
}

bool CallObject::take_in_value(char c) {
  if (scalar_ && (is_blank(c) || c == ',' || c == '}')) {
    if (value_.empty()) return false;
    value_ends();
    return status_ == Status::kOpen && take(c);
  }
  // A string is kept until it can be decoded; other arguments go out at once.
  if (field_ == Field::kArguments && !scalar_ && (value_.empty() ? c : value_[0]) != '"') {
    arguments_ += c;
    if (value_.empty()) value_ = c;
  } else if (field_ != Field::kOther || scalar_ || value_.empty()) {
    value_ += c;
  }
  if (scalar_) return true;
  if (in_string_) {
    if (c == '"' && !escaped_) in_string_ = false;
    escaped_ = c == '\\' && !escaped_;
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if (c == '}' || c == ']') {
    --depth_;
  }
  if (!in_string_ && depth_ == 0) value_ends();
  return status_ == Status::kOpen;
}

void CallObject::key_ends() {
  place_ = Place::kColon;
  const std::optional<std::string> key = unquoted(value_);
  const bool again = key == "name" ? name_.has_value() : has_arguments_;
  if (key == "name" && !again)
    field_ = Field::kName;
  else if ((key == "arguments" || key == "parameters") && !again)
    field_ = Field::kArguments;
  else if (key == "type" || key == "id" || name_ || has_arguments_)
    field_ = Field::kOther;  // of what has begun as a call, fields that no call has are read over
  else
    status_ = Status::kBroken;
}

void CallObject::value_ends() {
  place_ = Place::kAfterValue;
  if (field_ == Field::kName) {
    name_ = unquoted(value_);
    if (!name_ || name_->empty()) status_ = Status::kBroken;
  } else if (field_ == Field::kArguments && (scalar_ || value_[0] == '"')) {
    // null is how a call without arguments is written, too: the caller is given what an empty text gives.
    if (value_ != "null") arguments_ += unquoted(value_).value_or(value_);
  }
}

}  // namespace ferry::text
