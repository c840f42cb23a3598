// Fuzzer of the reader of a dataset's manifest: any bytes are refused with words, or give a manifest
// that survives being written and read again.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "data/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  using data::Manifest;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const Result<Manifest> manifest = Manifest::parse(text, "fuzz");
  if (!manifest) {
    check(!manifest.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  const std::string written = manifest->to_json();
  const Result<Manifest> again = Manifest::parse(written, "fuzz");
  check(again.has_value(), "fuzz: refuses its own file: {}", again ? "" : again.error().message);
  check(again->to_json() == written && again->fingerprint() == manifest->fingerprint(),
        "fuzz: changed by writing and reading");
  return 0;
}
