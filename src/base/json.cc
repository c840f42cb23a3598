#include "base/json.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/lenient_json.h"
#include "base/ordered_json.h"

namespace ferry {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kDepthMax = 64;

/// Builds a document as it is read, up to the first thing that is wrong with it. The library's own builders would do,
/// but for their time: one that is watched looks through a list whenever an object in it ends, and one that keeps the
/// order of fields looks through them for each: 500 KB of "{}," are half a minute. Ordered fields are moved into their
/// object when all are there: it copies what it holds where it grows.
template <class Document>
class Builder final : public Document::json_sax_t {
 public:
  explicit Builder(bool keys_once) : keys_once_(keys_once) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(int64_t v) override { return add(v); }
  bool number_unsigned(uint64_t v) override { return add(v); }
  bool number_float(double v, const std::string& text) override {
    if (!kOrdered || text.find_first_of(".eE") != text.npos) return add(v);
    // What keeps the order of fields is written again: digits that a fraction has not would be lost.
    problem_ = fmt::format("the whole number {} is beyond 64 bits", text);
    return false;
  }
  bool string(std::string& v) override { return add(std::move(v)); }
  bool binary(typename Document::binary_t& v) override { return add(std::move(v)); }
  bool start_object(size_t) override { return open(Document::object()); }
  bool start_array(size_t) override { return open(Document::array()); }
  bool end_object() override {
    if constexpr (kOrdered) {
      auto& object = open_.back().document->template get_ref<typename Document::object_t&>();
      object.reserve(open_.back().fields.size());
      for (auto& field : open_.back().fields)
        object.emplace_back(std::move(field.first), std::move(field.second));
    }
    return close();
  }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if constexpr (kOrdered) {
      if (open_.back().keys.insert(name).second) {
        field_ = &open_.back().fields.emplace_back(std::move(name), nullptr).second;
        return true;
      }
    } else {
      auto& fields = open_.back().document->template get_ref<typename Document::object_t&>();
      const auto [it, is_new] = fields.try_emplace(name, nullptr);
      field_ = &it->second;
      if (is_new || !keys_once_) return true;
    }
    problem_ = fmt::format("the key {} occurs twice", printable(name));
    return false;
  }

  bool parse_error(size_t,
                   const std::string& token,
                   const nlohmann::detail::exception& e) override {
    constexpr int kOutOfRange = 406;  // as the library numbers what it refuses
    problem_ = e.id == kOutOfRange
                   ? fmt::format("the number {} is out of range: beyond 64 bits", printable(token))
                   : fmt::format("not JSON: {}", e.what());
    return false;
  }

  const std::string& problem() const { return problem_; }
  Document take() { return std::move(root_); }

 private:
  static constexpr bool kOrdered = std::is_same_v<Document, ordered_json>;
  struct Open {
    Document* document;
    // Of an object whose fields keep their order.
    std::vector<std::pair<std::string, Document>> fields = {};
    std::set<std::string> keys = {};
  };

  Document* place(Document v) {
    Document* const at = open_.empty() ? &root_
                         : open_.back().document->is_array()
                             ? &open_.back().document->emplace_back()
                             : field_;
    *at = std::move(v);
    return at;
  }
  bool add(Document v) {
    place(std::move(v));
    return true;
  }
  bool open(Document empty) {
    if (open_.size() == kDepthMax) {
      problem_ = fmt::format("nested deeper than {} levels", kDepthMax);
      return false;
    }
    open_.push_back({place(std::move(empty))});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const bool keys_once_;
  std::string problem_;
  Document root_;
  std::vector<Open> open_;     // within each other; only the last one grows
  Document* field_ = nullptr;  // whose key was read last
};

template <class Document>
Result<Document> parse(std::string_view text, const std::string& path, bool keys_once) {
  if (const size_t at = zero_byte(text); at != text.npos)
    return fail(Code::kCorrupt, "{}: not JSON: byte {} is zero", path, at + 1);
  Builder<Document> builder(keys_once);
  if (!Document::sax_parse(text, &builder))
    return fail(Code::kCorrupt, "{}: {}", path, builder.problem());
  return builder.take();
}

}  // namespace

Result<json> parse_json(std::string_view text, const std::string& path) {
  return parse<json>(text, path, true);
}

Result<json> parse_lenient_json(std::string_view text, const std::string& path) {
  return parse<json>(text, path, false);
}

Result<ordered_json> parse_ordered_json(std::string_view text, const std::string& path) {
  return parse<ordered_json>(text, path, true);
}

std::string json_text(const json& document, int indent) {
  return document.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string json_text(const ordered_json& document, int indent) {
  return document.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

std::string printable(std::string_view name) {
  constexpr size_t kShown = 200;
  std::string out = "'";
  for (const char c : name.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + (name.size() > kShown ? "...'" : "'");
}

}  // namespace ferry
