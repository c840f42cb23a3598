// Fuzzer of the config.json reader: any bytes are refused with words, or give a configuration that
// obeys the rules between fields and that survives being written and read again.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "models/deepseek_v3/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  using namespace ferry::models::deepseek_v3;
  const Result<Config> config =
      parse_config({reinterpret_cast<const char*>(data), size}, "fuzz.json");
  if (!config) {
    check(!config.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  const Result<void> valid = validate(*config, "fuzz.json");
  check(valid.has_value(), "fuzz: parsed, but {}", valid ? "" : valid.error().message);
  const std::string text = to_json(*config, "bfloat16");
  const Result<Config> again = parse_config(text, "written.json");
  check(again.has_value(), "fuzz: refuses its own file: {}", again ? "" : again.error().message);
  check(to_json(*again, "bfloat16") == text,
        "fuzz: changed by writing and reading:\n{}\n{}",
        text,
        to_json(*again, "bfloat16"));
  return 0;
}
