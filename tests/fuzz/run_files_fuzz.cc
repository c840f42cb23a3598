// Fuzzer of the notes that lie beside runs and models, which anybody may have edited: a run's status and its metrics,
// and where a model was verified. Any bytes are refused with words, or are read back the same from what is written of
// them; what `ferry status` makes of them is lines without control characters.
#include <cstdint>
#include <string>

#include "checkpoint/passport.h"
#include "fuzz_folder.h"
#include "train/metrics.h"
#include "train/run_status.h"

namespace {

using namespace ferry;

const FuzzFolder& folder() {
  static const FuzzFolder made;
  return made;
}

void check_words(const Status& refused) {
  check(!refused.message.empty(), "fuzz: refused without a word");
}

RunView status_of(const std::string& text) {
  RunView view{.folder = "run"};
  folder().write(kRunStatusName, text);
  const Result<RunStatus> status = read_run_status(folder().path());
  if (!status) {
    check_words(status.error());
    return view;
  }
  const std::string written = to_json(*status);
  folder().write(kRunStatusName, written);
  const Result<RunStatus> again = read_run_status(folder().path());
  check(again.has_value() && to_json(*again) == written, "fuzz: not read back: {}", written);
  view.status = *status;
  return view;
}

std::string lines_of(const Metrics& metrics) {
  std::string out;
  for (const StepRecord& r : metrics.steps) out += to_json_line(r) + "\n";
  for (const HeldOutRecord& r : metrics.held_out) out += to_json_line(r) + "\n";
  return out;
}

Metrics metrics_of(const std::string& text) {
  folder().write("metrics.jsonl", text);
  Result<Metrics> metrics = read_metrics(folder() / "metrics.jsonl");
  if (!metrics) {
    check_words(metrics.error());
    return {};
  }
  const std::string written = lines_of(*metrics);
  folder().write("metrics.jsonl", written);
  const Result<Metrics> again = read_metrics(folder() / "metrics.jsonl");
  check(again.has_value() && lines_of(*again) == written, "fuzz: not read back:\n{}", written);
  return *std::move(metrics);
}

void verified(const std::string& text) {
  folder().write(kVerifiedName, text);
  const Result<std::vector<Verification>> list = read_verifications(folder().path(), "root");
  if (!list) return check_words(list.error());
  for (const Verification& v : *list) check(v.unix_ms >= 0, "fuzz: a time before time");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  RunView view = status_of(text);
  view.metrics = metrics_of(text);
  verified(text);
  for (const std::string& line : lines_of(view, int64_t{1} << 40, 80))
    for (const char c : line)
      check(static_cast<unsigned char>(c) >= 0x20, "fuzz: a control character is shown");
  return 0;
}
