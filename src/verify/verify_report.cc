// A verification's report as a line of JSON and as a page of HTML that needs nothing beside it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "verify/verify.h"

namespace ferry::verify {
namespace {

using Json = nlohmann::ordered_json;

Json call_json(const CallReport& c) {
  return {{"pass", c.pass},
          {"layer", c.layer},
          {"call", c.index},
          {"op", c.finding.op},
          {"calls", c.calls},
          {"output", c.finding.output},
          {"shapes", c.finding.shapes},
          {"element", c.finding.element},
          {"got", c.finding.got},
          {"expected", c.finding.expected},
          {"bound", c.finding.bound},
          {"ulps", c.finding.ulps},
          {"elements_out", c.finding.elements_out}};
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

constexpr const char* kStyle =
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;"
    "color:#1b1f24;background:#fff}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25em .6em;"
    "border-bottom:1px solid #d8dee4;vertical-align:top}td.n{text-align:right;"
    "font-variant-numeric:tabular-nums}.ok{color:#116329}.bad{color:#a40e26;font-weight:600}"
    ".tie{background:#fff1c2}.off{background:#ffd7d5}code{font-size:.92em}"
    "span.t{padding:0 .2em;white-space:pre}";

std::string row(std::initializer_list<std::string> cells) {
  std::string out = "<tr>";
  for (const std::string& c : cells) out += "<td>" + c + "</td>";
  return out + "</tr>\n";
}

std::string facts(const Report& r) {
  std::string out = "<table>\n";
  out += row({"model", "<code>" + escaped(r.directory) + "</code>"});
  out += row({"device", escaped(r.device + ": " + r.description)});
  out += row({"computing in", to_string(r.dtype)});
  out += row({"root", "<code>" + escaped(r.root.empty() ? "no passport" : r.root) + "</code>"});
  out += row(
      {"signed by", "<code>" + escaped(r.signed_by.empty() ? "nobody" : r.signed_by) + "</code>"});
  out += row({"reference", escaped(r.reference) + (r.reference_made_now ? ", asked now" : "")});
  out += row(
      {"hashes", fmt::format("{} files, {} chunks, {} bytes: right", r.files, r.chunks, r.bytes)});
  out += row({"verified by", escaped(r.program)});
  return out + "</table>\n";
}

std::string layer_table(const Report& r) {
  std::string out =
      "<table>\n<tr><th>layer</th><th>distance</th><th>tolerance</th><th>experts chosen "
      "otherwise</th><th>ops judged</th><th>worst, in bounds</th></tr>\n";
  for (const LayerReport& l : r.layers) {
    const bool right = l.distance <= l.tolerance;
    out += row({escaped(l.name),
                fmt::format("<span class=\"{}\">{:.3g}</span>", right ? "ok" : "bad", l.distance),
                fmt::format("{:.3g}", l.tolerance),
                l.routed_otherwise == 0
                    ? ""
                    : fmt::format("{}, {} of them near ties", l.routed_otherwise, l.near_ties),
                fmt::format("{}", l.calls),
                l.calls == 0 ? "" : fmt::format("{:.3g} ({})", l.worst_call, escaped(l.worst_op))});
  }
  return out + "</table>\n";
}

std::string texts(const Report& r) {
  std::string out;
  for (const TextReport& t : r.texts) {
    out += fmt::format("<p><b>{}</b>, {} tokens of prompt; greedy text by ids: ",
                       escaped(t.name),
                       t.prompt.size());
    for (const TokenReport& k : t.tokens)
      out += k.got == k.expected
                 ? fmt::format("<span class=\"t\">{}</span> ", k.expected)
                 : fmt::format("<span class=\"t {}\" title=\"margin {:.4g}\">{} → {}</span> ",
                               k.right ? "tie" : "off",
                               k.margin,
                               k.expected,
                               k.got);
    out += "</p>\n";
  }
  return out;
}

}  // namespace

std::string to_json(const Report& r) {
  Json layers = Json::array(), parted = Json::array();
  for (const LayerReport& l : r.layers)
    layers.push_back({{"name", l.name},
                      {"distance", l.distance},
                      {"tolerance", l.tolerance},
                      {"routed_otherwise", l.routed_otherwise},
                      {"near_ties", l.near_ties},
                      {"calls", l.calls},
                      {"worst_call", l.worst_call},
                      {"worst_op", l.worst_op}});
  for (const CallReport& c : r.parted) parted.push_back(call_json(c));
  Json j = {{"verdict", r.passed() ? "passed" : "failed"},
            {"directory", r.directory},
            {"device", r.device},
            {"description", r.description},
            {"dtype", to_string(r.dtype)},
            {"program", r.program},
            {"root", r.root},
            {"signed_by", r.signed_by},
            {"reference", r.reference},
            {"reference_made_now", r.reference_made_now},
            {"files", r.files},
            {"chunks", r.chunks},
            {"bytes", r.bytes},
            {"streamed", r.streamed},
            {"equal_bits", r.equal_bits},
            {"tokens", r.tokens},
            {"tokens_agree", r.tokens_agree},
            {"tokens_near_tie", r.tokens_near_tie},
            {"logit_distance", r.logit_distance},
            {"logit_tolerance", r.logit_tolerance},
            {"layers", layers},
            {"calls", r.calls},
            {"first", r.parted.empty() ? Json() : call_json(r.parted.front())},
            {"parted", parted},
            {"overwritten", r.overwritten},
            {"altered", r.altered},
            {"unjudged", r.unjudged},
            {"reasons", r.reasons},
            {"notes", r.notes}};
  if (r.plain_s > 0) {
    j["plain_s"] = r.plain_s;
    j["observed_s"] = r.observed_s;
  }
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string to_html(const Report& r) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>ferry verify: {}</title>\n"
      "<style>{}</style>\n<h1>ferry verify: <span class=\"{}\">{}</span></h1>\n",
      escaped(r.directory),
      kStyle,
      r.passed() ? "ok" : "bad",
      r.passed() ? "it is the model, and this device computes it" : "failed");
  if (!r.reasons.empty()) {
    out += "<h2>Why</h2>\n<ol>\n";
    for (const std::string& reason : r.reasons)
      out += "<li class=\"bad\">" + escaped(reason) + "</li>\n";
    out += "</ol>\n";
  }
  out += "<h2>What was verified</h2>\n" + facts(r);
  out += fmt::format(
      "<h2>Text</h2>\n<p>{} of {} tokens of the reference's greedy text agree; {} differ at a near "
      "tie. Logits are up to {:.4g} away (tolerance {:.4g}).{}</p>\n",
      r.tokens_agree,
      r.tokens,
      r.tokens_near_tie,
      r.logit_distance,
      r.logit_tolerance,
      r.equal_bits ? " Everything compared is equal to the bit." : "");
  out += texts(r);
  out +=
      "<h2>Layers</h2>\n<p>Relative distance of activations from the reference's, its routing "
      "given; and each op judged alone, on the inputs that it had.</p>\n" +
      layer_table(r);
  if (!r.parted.empty()) {
    out +=
        "<h2>Calls that left their bounds</h2>\n<table>\n<tr><th>layer</th><th>pass</th>"
        "<th>call</th><th>what</th><th>shapes</th></tr>\n";
    for (const CallReport& c : r.parted)
      out += row({fmt::format("{}", c.layer),
                  escaped(c.pass),
                  fmt::format("{}", c.index),
                  escaped(describe(c.finding)),
                  escaped(c.finding.shapes)});
    out += "</table>\n";
  }
  for (const std::string& note : r.notes) out += "<p>" + escaped(note) + "</p>\n";
  return out + "</html>\n";
}

}  // namespace ferry::verify
