// The report on a server as one page of HTML (page.h).
#include <fmt/format.h>

#include "verify/page.h"
#include "verify/server_verify.h"

namespace ferry::verify {
namespace {

void verdict(Page& page, const ServerReport& r) {
  const bool same = r.verdict == ServerVerdict::kSame;
  page.begin_verdict(same                                   ? Tone::kGood
                     : r.verdict == ServerVerdict::kDiffers ? Tone::kBad
                                                            : Tone::kWarn,
                     same                                   ? "It answers as this model"
                     : r.verdict == ServerVerdict::kDiffers ? "It does not answer as this model"
                                                            : "Not proved");
  for (const ServerFault& f : r.faults)
    page.add("<p><code>{}</code> {}</p>", escape_markup(f.name), escape_markup(f.words));
  page.add("</section>");
}

void facts(Page& page, const ServerReport& r) {
  page.add("<div class=\"card\"><dl>");
  page.fact("Server", r.address);
  page.fact("Serves", r.model);
  page.fact("Should be", r.directory);
  page.fact("Passport", r.root, true);
  page.fact("Signed by", r.signed_by, true);
  page.fact("It gives", r.evidence);
  page.fact("Asked", fmt::format("{} requests", r.requests));
  page.fact("Reference", fmt::format("the CPU in f32, {}", r.program));
  page.add("</dl></div>");
}

void proof(Page& page, const ServerReport& r) {
  if (r.proof.empty()) return;
  page.add("<h2>How much that proves</h2><div class=\"card\"><ul>");
  for (const std::string& line : r.proof) page.add("<li>{}</li>", escape_markup(line));
  page.add("</ul></div>");
}

void groups(Page& page, const ServerReport& r) {
  if (r.groups.empty()) return;
  page.add(
      "<h2>What was compared</h2><div class=\"card\"><table class=\"wide\"><tr><th>Questions</th>"
      "<th class=\"num\">Asked</th><th class=\"num\">Places</th><th class=\"num\">KL, typical</th>"
      "<th class=\"num\">allowed</th><th class=\"num\">KL, mean</th><th class=\"num\">KL, max</th>"
      "<th class=\"num\">Tokens</th><th class=\"num\">other</th><th class=\"num\">wrong</th></tr>");
  for (const ServerGroup& g : r.groups) {
    const Closeness& c = g.closeness;
    page.add(
        "<tr><td{}>{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td>"
        "<td class=\"num\">{:.3g}</td><td class=\"num\">{:.3g}</td><td class=\"num\">{:.3g}</td>"
        "<td class=\"num\">{:.3g}</td><td class=\"num\">{}</td><td class=\"num\">{}</td>"
        "<td class=\"num\">{}</td></tr>",
        g.within ? "" : " class=\"wrong\"",
        escape_markup(g.words),
        g.exchanges,
        c.compared,
        c.kl_typical,
        g.bound,
        c.kl_mean,
        c.kl_max,
        c.tokens,
        c.other,
        c.wrong);
  }
  page.add("</table></div>");
}

void texts(Page& page, const ServerReport& r) {
  if (r.texts.empty()) return;
  page.add("<h2>What it was asked and answered</h2><div class=\"card\">");
  constexpr size_t kShown = 600;
  const auto shown = [](const std::string& text) {
    if (text.size() <= kShown) return escape_markup(text);
    size_t begin = text.size() - kShown;
    while (begin < text.size() && (text[begin] & 0xC0) == 0x80) ++begin;  // at a whole character
    return escape_markup("... " + text.substr(begin));
  };
  for (const ServerReport::Text& t : r.texts)
    page.add(
        "<details><summary>{} ({})</summary><div class=\"text\"><p>{}<mark>{}</mark></p></div>"
        "</details>",
        escape_markup(t.what),
        escape_markup(t.group),
        shown(t.prompt),
        shown(t.answer));
  page.add("</div>");
}

}  // namespace

std::string to_html(const ServerReport& r) {
  Page page(fmt::format("{}: {}", r.address, to_string(r.verdict)),
            fmt::format("Is {} the model in {}?", r.address, r.directory));
  verdict(page, r);
  facts(page, r);
  proof(page, r);
  groups(page, r);
  texts(page, r);
  if (!r.notes.empty()) {
    page.add("<h2>Notes</h2><div class=\"card\"><ul>");
    for (const std::string& note : r.notes) page.add("<li>{}</li>", escape_markup(note));
    page.add("</ul></div>");
  }
  return page.finish(
      "KL: of the reference's probabilities from the server's, in nats, over the tokens that the "
      "server names and all others together. Typical: the mean without the worst tenth. Allowed: "
      "what "
      "rounding explains, measured by computing the reference in another type. Other tokens: not "
      "the "
      "reference's best; wrong ones by more than rounding explains.");
}

}  // namespace ferry::verify
