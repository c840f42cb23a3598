// Fuzzer of the reader of a run's settings (TOML): any bytes are refused with words, or give settings
// that survive being printed and read again.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/check.h"
#include "train/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<Settings> settings = parse_settings(text, "fuzz.toml");
  if (!settings) {
    check(!settings.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  const std::string printed = print_settings(*settings);
  const Result<Settings> again = parse_settings(printed, "printed.toml");
  check(again.has_value(), "fuzz: refuses its own: {}", again ? "" : again.error().message);
  check(changed_settings(*settings, *again).empty(), "fuzz: changed by printing:\n{}", printed);
  static_cast<void>(settings_json(*settings).dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  return 0;
}
