// Fuzzer of the passport reader: any bytes are refused with a word, or give a passport that is read
// back the same from what it writes. A statement is also given the root that it needs to be read.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/check.h"
#include "checkpoint/passport.h"

namespace {

void read(const std::string& text) {
  using namespace ferry;
  const Result<Passport> passport = Passport::parse(text, "fuzz");
  if (!passport) {
    check(!passport.error().message.empty(), "fuzz: refused without a word");
    return;
  }
  const Result<Passport> again = Passport::parse(passport->to_json(), "fuzz");
  check(again.has_value() && again->files == passport->files &&
            again->signature == passport->signature &&
            again->probes.list.size() == passport->probes.list.size(),
        "fuzz: not read back");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  read(text);
  const std::string_view whole(text);
  if (std::count(whole.begin(), whole.end(), '[') + std::count(whole.begin(), whole.end(), '{') >
      64)
    return 0;  // deeper than the reader allows, perhaps deeper than this parser bears
  nlohmann::json root = nlohmann::json::parse(text, nullptr, false);
  if (!root.is_object() || !root.contains("statement")) return 0;
  ferry::Hasher hasher;
  const std::string statement =
      "ferry-passport-1\n" +
      root["statement"].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  hasher.update(statement.data(), statement.size());
  root["root"] = hasher.hex();
  root.erase("signature");
  read(root.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return 0;
}
