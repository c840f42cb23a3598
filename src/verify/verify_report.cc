// A verification's report as a line of JSON and as a page of HTML that needs nothing beside it.
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/units.h"
#include "verify/page.h"
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

void facts(Page& page, const Report& r) {
  page.add("<div class=\"card\"><dl>");
  page.fact("Model", r.directory, true);
  page.fact("Device", fmt::format("{}: {}", r.device, r.description));
  page.fact(
      "Computing in",
      fmt::format("{}{}", to_string(r.dtype), r.streamed ? ", weights loaded layer by layer" : ""));
  page.fact("Root", r.has_passport ? r.root : "no passport", r.has_passport);
  if (r.has_passport)
    page.fact("Signed by", r.signed_by.empty() ? "nobody" : r.signed_by, !r.signed_by.empty());
  if (r.files > 0)
    page.fact("Hashes",
              fmt::format("{} files, {} chunks, {}: right",
                          r.files,
                          r.chunks,
                          format_bytes(static_cast<double>(r.bytes))));
  if (!r.made_from.empty())
    page.fact(r.source.empty() ? "States that it was made from" : "Made from", r.made_from);
  if (!r.source.empty())
    page.fact("Source",
              fmt::format("{}: {} numbers, up to {:.3g} times as far as their format allows",
                          r.source,
                          r.from_source.numbers,
                          r.from_source.worst));
  page.fact("Reference", r.reference + (r.reference_made_now ? ", asked now" : ""));
  page.fact("Verified by", r.program);
  page.add("</dl></div>");
}

void texts(Page& page, const Report& r) {
  page.add(
      "<h2>Text</h2><p>{} of {} tokens of the reference's greedy text agree; {} differ at a near "
      "tie. Logits are up to {:.4g} away (tolerance {:.4g}).{}</p><div class=\"card text\">",
      r.tokens_agree,
      r.tokens,
      r.tokens_near_tie,
      r.logit_distance,
      r.logit_tolerance,
      r.equal_bits ? " Everything compared is equal to the bit." : "");
  for (const TextReport& t : r.texts) {
    page.add("<div><strong>{}</strong>, after {} tokens of prompt</div><p>",
             escape_markup(t.name),
             t.prompt.size());
    for (const TokenReport& k : t.tokens)
      if (k.got == k.expected)
        page.add("{}", escape_markup(k.expected_text));  // a character may be of several tokens
      else
        page.add("<mark class=\"{}\" title=\"margin {:.4g}\">{} &rarr; {}</mark>",
                 k.right ? "tie" : "off",
                 k.margin,
                 escape_markup(k.expected_text),
                 escape_markup(k.got_text));
    page.add("</p>");
  }
  page.add("</div>");
}

void layers(Page& page, const Report& r) {
  page.add(
      "<h2>Layers</h2><p>Relative distance of activations from the reference's, its routing given; "
      "and each op judged alone, on the inputs that it had: the worst error, in parts of the "
      "largest that its bound allows.</p><div class=\"card\"><table><tr><th>Layer</th>"
      "<th class=\"num\">Distance</th><th class=\"num\">Tolerance</th>"
      "<th>Experts chosen otherwise</th><th class=\"num\">Ops judged</th>"
      "<th class=\"num\">Worst</th><th>of op</th></tr>");
  for (const LayerReport& l : r.layers) {
    page.add(
        "<tr><td class=\"name\">{}</td><td class=\"num{}\">{:.3g}</td><td "
        "class=\"num\">{:.3g}</td><td>{}</td>"
        "<td class=\"num\">{}</td>",
        escape_markup(l.name),
        l.distance <= l.tolerance ? "" : " wrong",
        l.distance,
        l.tolerance,
        l.routed_otherwise == 0 ? ""
                                : fmt::format("{}, {} at near ties, {} behind one",
                                              l.routed_otherwise,
                                              l.near_ties,
                                              l.followed),
        l.calls);
    if (l.worst_op.empty())
      page.add("<td></td><td></td></tr>");
    else
      page.add("<td class=\"num{}\">{:.3g}</td><td><code>{}</code></td></tr>",
               l.worst_call <= 1 ? "" : " wrong",
               l.worst_call,
               escape_markup(l.worst_op));
  }
  page.add("</table></div>");
}

void parted_calls(Page& page, const Report& r) {
  if (r.parted.empty()) return;
  page.add(
      "<h2>Calls that left their bounds</h2><div class=\"card\"><table "
      "class=\"wide\"><tr><th>Layer</th>"
      "<th>Pass</th><th class=\"num\">Call</th><th>What</th><th>Shapes</th></tr>");
  for (const CallReport& c : r.parted)
    page.add(
        "<tr><td class=\"name\">{}</td><td>{}</td><td "
        "class=\"num\">{}</td><td>{}</td><td>{}</td></tr>",
        escape_markup(c.layer),
        escape_markup(c.pass),
        c.index,
        escape_markup(describe(c.finding)),
        escape_markup(c.finding.shapes));
  page.add("</table></div>");
}

}  // namespace

const char* verdict_of(const Report& r) {
  if (!r.passed()) return "failed";
  return r.has_passport
             ? "it is the model, and this device computes it"
             : "this device computes it; without a passport nobody knows which model it is";
}

std::string to_json(const Report& r) {
  Json layers = Json::array(), parted = Json::array();
  for (const LayerReport& l : r.layers)
    layers.push_back({{"name", l.name},
                      {"distance", l.distance},
                      {"tolerance", l.tolerance},
                      {"routed_otherwise", l.routed_otherwise},
                      {"near_ties", l.near_ties},
                      {"followed", l.followed},
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
            {"tokens_guided", r.tokens_guided},
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
  if (!r.made_from.empty()) j["made_from"] = r.made_from;
  if (!r.source.empty())
    j["source"] = {{"path", r.source},
                   {"numbers", r.from_source.numbers},
                   {"worst", r.from_source.worst},
                   {"tensor", r.from_source.tensor}};
  if (r.plain_s > 0) {
    j["plain_s"] = r.plain_s;
    j["observed_s"] = r.observed_s;
  }
  return json_text(j);
}

std::string to_html(const Report& r) {
  Page page(fmt::format("ferry verify: {}", r.directory),
            fmt::format("Ferry's verification of {} on {}", r.directory, r.device));
  page.begin_verdict(r.passed() ? Tone::kGood : Tone::kBad, verdict_of(r));
  for (const std::string& reason : r.reasons) page.add("<p>{}</p>", escape_markup(reason));
  page.add("</section>");
  facts(page, r);
  texts(page, r);
  layers(page, r);
  parted_calls(page, r);
  if (!r.notes.empty()) {
    page.add("<h2>Notes</h2><div class=\"card\"><ul>");
    for (const std::string& note : r.notes) page.add("<li>{}</li>", escape_markup(note));
    page.add("</ul></div>");
  }
  return page.finish(
      "The tolerance of a layer is three times what rounding does to this model. A token that "
      "differs where the reference's two best were nearly equal is a near tie and no fault.");
}

}  // namespace ferry::verify
