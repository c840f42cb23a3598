#include "verify/report_html.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "base/units.h"
#include "verify/page.h"

namespace ferry::doctor {
namespace {

void verdict(Page& page, const Report& r) {
  const bool good = passed(r.verdict);
  page.begin_verdict(good && r.stopped.empty()                   ? Tone::kGood
                     : good || r.verdict == Verdict::kFitToServe ? Tone::kWarn
                                                                 : Tone::kBad,
                     to_string(r.verdict));
  if (r.culprits.empty()) {
    for (const std::string& reason : r.reasons) page.add("<p>{}</p>", escape_markup(reason));
  } else {
    const size_t problems = problem_count(r);
    page.add("<p>{} finding{} in {} checks. First suspect: <code>{}</code></p>",
             problems,
             problems == 1 ? "" : "s",
             r.outcomes.size(),
             escape_markup(r.culprits.front().kernel.empty() ? r.culprits.front().op
                                                             : r.culprits.front().kernel));
  }
  page.add("</section>");
}

void facts(Page& page, const Report& r) {
  page.add("<div class=\"card\"><dl>");
  page.fact("Device", r.device);
  page.fact("Chip and software", r.description);
  page.fact("Host", r.processor);
  page.fact("Examined", format_utc(r.started_unix_ms));
  page.fact("Took", format_duration(r.seconds));
  page.fact("Depth",
            fmt::format("{}{}{}{}, inputs from seed {}",
                        r.quick ? "quick" : "full",
                        r.soak_s > 0 ? ", soak of " + format_duration(r.soak_s) : ", no soak",
                        r.only.empty() ? "" : ", " + r.only + " alone",
                        r.stopped.empty() ? "" : ", stopped by " + r.stopped + ": no verdict",
                        r.seed));
  page.add("</dl></div>");
}

void culprits(Page& page, const Report& r) {
  if (r.culprits.empty()) return;
  page.add("<h2>At fault</h2>");
  for (const Culprit& c : r.culprits) {
    page.add("<div class=\"card culprit\"><strong>{}</strong>", escape_markup(c.op));
    if (!c.kernel.empty() && c.kernel != c.op)
      page.add(" &middot; kernel <code>{}</code>", escape_markup(c.kernel));
    if (!c.call.empty() && c.call != c.op)
      page.add(" &middot; library call <code>{}</code>", escape_markup(c.call));
    page.add("<p>{}</p></div>", escape_markup(c.because));
  }
}

void speed(Page& page, const Report& r) {
  if (r.measurements.empty()) return;
  const bool peaks = std::any_of(r.measurements.begin(),
                                 r.measurements.end(),
                                 [](const Measurement& m) { return m.peak > 0; });
  page.add(
      "<h2>Speed</h2><div class=\"card\"><table><tr><th>What</th><th class=\"num\">Measured</th>"
      "{}</tr>",
      peaks ? "<th class=\"num\">Peak</th><th>Of the peak</th>" : "");
  for (const Measurement& m : r.measurements) {
    page.add("<tr><td>{}</td><td class=\"num\">{:.4g} {}</td>",
             escape_markup(m.name),
             m.value,
             escape_markup(m.unit));
    if (m.peak > 0) {
      const double percent = 100 * m.value / m.peak;
      page.add(
          "<td class=\"num\">{:.4g} {}</td><td><div class=\"share\"><span>{:.0f} %</span>"
          "<div class=\"bar\"><i style=\"width:{:.1f}%\"></i></div></div></td>",
          m.peak,
          escape_markup(m.unit),
          percent,
          std::clamp(percent, 0.0, 100.0));
    } else if (peaks) {
      page.add("<td></td><td></td>");
    }
    page.add("</tr>");
  }
  page.add("</table></div>");
}

/// One row for each subject of a level: a tile for each check.
void level_table(Page& page, const Report& r, Level level, const char* title) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const Outcome*>> rows;
  for (const Outcome& o : r.outcomes) {
    if (o.head.level != level) continue;
    std::vector<const Outcome*>& row = rows[o.head.subject];
    if (row.empty()) order.push_back(o.head.subject);
    row.push_back(&o);
  }
  if (order.empty()) return;
  page.add(
      "<h2>{}</h2><div class=\"card\"><table class=\"checks\"><tr><th>Subject</th><th>Checks</th>"
      "<th class=\"num\">Passed</th><th class=\"num\">Seconds</th></tr>",
      title);
  for (const std::string& subject : order) {
    double seconds = 0;
    size_t passed = 0;
    page.add("<tr><td><code>{}</code></td><td><div class=\"tiles\">", escape_markup(subject));
    for (const Outcome* o : rows[subject]) {
      seconds += o->seconds;
      passed += o->problems.empty() ? 1 : 0;
      std::string title_text = o->head.name;
      for (const Problem& p : o->problems) title_text += "\n" + p.property + ": " + p.detail;
      page.add("<span class=\"tile{}\" title=\"{}\"></span>",
               o->problems.empty() ? "" : " fails",
               escape_markup(title_text));
    }
    page.add("</div></td><td class=\"num\">{} of {}</td><td class=\"num\">{:.2f}</td></tr>",
             passed,
             rows[subject].size(),
             seconds);
  }
  page.add("</table></div>");
}

void findings(Page& page, const Report& r) {
  if (problem_count(r) == 0) return;
  page.add("<h2>Every finding</h2><div class=\"card\">");
  for (const Outcome& o : r.outcomes) {
    if (o.problems.empty()) continue;
    page.add("<details open><summary><code>{}</code></summary><ul>", escape_markup(o.head.name));
    for (const Problem& p : o.problems)
      page.add(
          "<li><strong>{}</strong>: {}</li>", escape_markup(p.property), escape_markup(p.detail));
    if (!o.used.empty()) {
      page.add("<li>kernels:");
      for (const KernelUse& use : o.used) {
        page.add(" <code>{}</code>", escape_markup(use.kernel));
        for (const std::string& call : use.calls)
          page.add("{}<code>{}</code>",
                   &call == &use.calls.front() ? ", which calls " : ", ",
                   escape_markup(call));
        page.add("{}", &use == &o.used.back() ? "" : ";");
      }
      page.add("</li>");
    }
    page.add("</ul></details>");
  }
  page.add("</div>");
}

void notes(Page& page, const Report& r) {
  if (r.notes.empty()) return;
  page.add("<h2>Notes</h2><div class=\"card\"><ul>");
  for (const std::string& note : r.notes) page.add("<li>{}</li>", escape_markup(note));
  page.add("</ul></div>");
}

}  // namespace

std::string to_html(const Report& r) {
  Page page(fmt::format("{}: {}", r.device, to_string(r.verdict)),
            fmt::format("Ferry's doctor on {}", r.device));
  verdict(page, r);
  facts(page, r);
  culprits(page, r);
  speed(page, r);
  level_table(page, r, Level::kRuntime, "Copies, memory, streams");
  level_table(page, r, Level::kPrimitive, "Calls of the vendor's library");
  level_table(page, r, Level::kOp, "Ops against the float64 reference");
  level_table(page, r, Level::kLoad, "Under load");
  findings(page, r);
  notes(page, r);
  return page.finish(
      "Each tile is a check: green ones hold, red ones with a frame do not. Ops are compared with "
      "a "
      "float64 reference within bounds that follow from sizes and the type's roundoff, their "
      "every element of every gradient too.");
}

}  // namespace ferry::doctor
