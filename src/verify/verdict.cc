#include "verify/verdict.h"

#include <fmt/format.h>

#include <utility>

#include "checkpoint/model_texts.h"

namespace ferry::verify {

void write_texts(Report& report, ModelDir& dir) {
  const Result<ModelTexts> texts = read_model_texts(dir);
  const std::shared_ptr<text::Tokenizer> tokenizer = texts ? texts->tokenizer : nullptr;
  if (!texts)
    report.notes.push_back(fmt::format("texts are shown by their ids: {}", texts.error().message));
  else
    report.notes.insert(report.notes.end(), texts->notes.begin(), texts->notes.end());
  const auto shown = [&](int32_t id) {
    const std::string_view bytes =
        tokenizer != nullptr ? tokenizer->token_bytes(id) : std::string_view();
    if (bytes.empty()) return fmt::format("<{}>", id);
    std::string out;
    for (const char c : bytes) {
      if (c == '\n')
        out += "\\n";
      else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
        out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
      else
        out += c;
    }
    return out;
  };
  for (TextReport& t : report.texts)
    for (TokenReport& k : t.tokens) {
      k.expected_text = shown(k.expected);
      k.got_text = shown(k.got);
    }
}

void conclude(Report& report) {
  const auto reason = [&]<typename... A>(fmt::format_string<A...> format, A&&... args) {
    report.reasons.push_back(fmt::format(format, std::forward<A>(args)...));
  };
  std::vector<std::string> found;
  std::swap(found, report.reasons);  // the culprit first
  if (!report.parted.empty()) {
    const CallReport& first = report.parted.front();
    reason("the first op that goes wrong, given the right inputs: {} of the {} pass, {}{}{}",
           first.layer,
           first.pass,
           describe(first.finding),
           first.calls.empty() ? "" : "; the library's calls in it: ",
           fmt::join(first.calls, ", "));
  }
  if (!report.overwritten.empty())
    reason("memory changed between two ops (a late copy, or memory given away too early): {}{}",
           report.overwritten.front(),
           report.overwritten.size() > 1
               ? fmt::format(" and {} more", report.overwritten.size() - 1)
               : "");
  for (const std::string& name : report.altered)
    reason("the device gave back {} otherwise than it was sent: copies cannot be trusted", name);
  for (const LayerReport& l : report.layers)
    if (!(l.distance <= l.tolerance)) {
      reason(
          "{}: activations are {:.3g} away from the reference's, relatively (tolerance {:.3g}); "
          "it is the first layer that parts",
          l.name,
          l.distance,
          l.tolerance);
      break;
    }
  if (!(report.logit_distance <= report.logit_tolerance))
    reason("logits are up to {:.4g} away from the reference's (tolerance {:.4g})",
           report.logit_distance,
           report.logit_tolerance);
  report.reasons.insert(report.reasons.end(), found.begin(), found.end());
  if (!report.reasons.empty() && report.parted.empty() && report.overwritten.empty() &&
      report.altered.empty())
    report.notes.emplace_back(
        "no op is wrong when it is judged alone: what is wrong depends on timing, or on memory "
        "that no op reads");
  report.device_passed = report.reasons.empty();
  if (!report.near_source())
    reason(
        "{} is {:.3g} times as far from that of {} as what it is stored as allows: it was not made "
        "of it, or changed since",
        report.from_source.tensor,
        report.from_source.worst,
        report.source);
  for (const std::string& op : report.unjudged)
    report.notes.push_back(fmt::format("{} was not judged: it has no rule", op));
}

}  // namespace ferry::verify
