#include "verify/report_html.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "base/units.h"

namespace ferry::doctor {
namespace {

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--ground:#fbfaf7;--card:#fff;--ink:#1d2430;--soft:#5d6878;--line:#e3e1da;
--good:#1f7a4d;--good-ground:#e4f3ea;--warn:#8a5a00;--warn-ground:#fdf1d6;--bad:#b3261e;--bad-ground:#fbe6e4;
--bar:#3f6fb5;--track:#e8e9ec}
@media(prefers-color-scheme:dark){:root{--ground:#14171c;--card:#1c2027;--ink:#e6e8ec;--soft:#98a2b3;--line:#2d333d;
--good:#6fd09b;--good-ground:#173527;--warn:#f2c14e;--warn-ground:#3a2d10;--bad:#ff8a80;--bad-ground:#43201d;
--bar:#7aa7e8;--track:#2b313b}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1040px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.05rem;font-weight:600;margin:0 0 4px;color:var(--soft)}
h2{font-size:1.05rem;margin:36px 0 12px}
.verdict{border-radius:14px;padding:22px 26px;margin:12px 0 20px;border:1px solid var(--line)}
.verdict b{display:block;font-size:2rem;line-height:1.2;letter-spacing:-.01em}
.verdict p{margin:6px 0 0}
.good{background:var(--good-ground)}.good b{color:var(--good)}
.warn{background:var(--warn-ground)}.warn b{color:var(--warn)}
.bad{background:var(--bad-ground)}.bad b{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 18px;margin:10px 0}
.culprit{border-left:4px solid var(--bad)}
.culprit p{margin:4px 0 0;overflow-wrap:anywhere}
code{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
table{border-collapse:collapse;width:100%}
th{font-weight:500;color:var(--soft);text-align:left;font-size:.86rem}
th,td{padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.tiles{display:flex;flex-wrap:wrap;gap:3px;padding-top:5px}
.tile{width:12px;height:12px;border-radius:3px;background:var(--good);opacity:.8}
.tile.wrong{background:var(--bad);opacity:1;outline:2px solid var(--bad);outline-offset:1px}
.bar{height:8px;border-radius:4px;background:var(--track);min-width:110px;margin-top:8px;overflow:hidden}
.bar i{display:block;height:100%;background:var(--bar)}
details{margin:6px 0}summary{cursor:pointer}
ul{margin:6px 0;padding-left:20px}li{overflow-wrap:anywhere}
footer{margin-top:40px;color:var(--soft);font-size:.86rem}
@media print{body{background:#fff}.card{break-inside:avoid}}
)css";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

class Page {
 public:
  template <typename... A>
  void add(fmt::format_string<A...> format, A&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<A>(args)...);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void verdict(Page& page, const Report& r) {
  const char* tone = r.verdict == Verdict::kFitToTrain   ? "good"
                     : r.verdict == Verdict::kFitToServe ? "warn"
                                                         : "bad";
  page.add("<section class=\"verdict {}\"><b>{}</b>", tone, to_string(r.verdict));
  if (r.culprits.empty()) {
    for (const std::string& reason : r.reasons) page.add("<p>{}</p>", escaped(reason));
  } else {
    const size_t problems = problem_count(r);
    page.add("<p>{} finding{} in {} checks. First suspect: <code>{}</code></p>",
             problems,
             problems == 1 ? "" : "s",
             r.outcomes.size(),
             escaped(r.culprits.front().kernel.empty() ? r.culprits.front().op
                                                       : r.culprits.front().kernel));
  }
  page.add("</section>");
}

void facts(Page& page, const Report& r) {
  const auto fact = [&](const char* name, const std::string& value) {
    if (!value.empty()) page.add("<dt>{}</dt><dd>{}</dd>", name, escaped(value));
  };
  page.add("<div class=\"card\"><dl>");
  fact("Device", r.device);
  fact("Chip and software", r.description);
  fact("Host", r.processor);
  fact("Examined", format_utc(r.started_unix_ms));
  fact("Took", format_duration(r.seconds));
  fact("Depth",
       fmt::format("{}{}{}, inputs from seed {}",
                   r.quick ? "quick" : "full",
                   r.soak_s > 0 ? ", soak of " + format_duration(r.soak_s) : ", no soak",
                   r.only.empty() ? "" : ", " + r.only + " alone",
                   r.seed));
  page.add("</dl></div>");
}

void culprits(Page& page, const Report& r) {
  if (r.culprits.empty()) return;
  page.add("<h2>At fault</h2>");
  for (const Culprit& c : r.culprits) {
    page.add("<div class=\"card culprit\"><strong>{}</strong>", escaped(c.op));
    if (!c.kernel.empty()) page.add(" &middot; kernel <code>{}</code>", escaped(c.kernel));
    if (!c.call.empty() && c.call != c.op)
      page.add(" &middot; library call <code>{}</code>", escaped(c.call));
    page.add("<p>{}</p></div>", escaped(c.because));
  }
}

void speed(Page& page, const Report& r) {
  if (r.measurements.empty()) return;
  page.add(
      "<h2>Speed</h2><div class=\"card\"><table><tr><th>What</th><th class=\"num\">Measured</th>"
      "<th class=\"num\">Peak</th><th>Of the peak</th></tr>");
  for (const Measurement& m : r.measurements) {
    page.add("<tr><td>{}</td><td class=\"num\">{:.4g} {}</td>",
             escaped(m.name),
             m.value,
             escaped(m.unit));
    if (m.peak > 0) {
      const double share = m.value / m.peak;
      page.add(
          "<td class=\"num\">{:.4g}</td><td>{:.0f} %<div class=\"bar\"><i "
          "style=\"width:{:.1f}%\"></i></div></td></tr>",
          m.peak,
          100 * share,
          100 * std::clamp(share, 0.0, 1.0));
    } else {
      page.add("<td class=\"num\">&ndash;</td><td>&ndash;</td></tr>");
    }
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
      "<h2>{}</h2><div class=\"card\"><table><tr><th>Subject</th><th>Checks</th>"
      "<th class=\"num\">Passed</th><th class=\"num\">Seconds</th></tr>",
      title);
  for (const std::string& subject : order) {
    double seconds = 0;
    size_t passed = 0;
    page.add("<tr><td><code>{}</code></td><td><div class=\"tiles\">", escaped(subject));
    for (const Outcome* o : rows[subject]) {
      seconds += o->seconds;
      passed += o->problems.empty() ? 1 : 0;
      std::string title_text = o->head.name;
      for (const Problem& p : o->problems) title_text += "\n" + p.property + ": " + p.detail;
      page.add("<span class=\"tile{}\" title=\"{}\"></span>",
               o->problems.empty() ? "" : " wrong",
               escaped(title_text));
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
    page.add("<details open><summary><code>{}</code></summary><ul>", escaped(o.head.name));
    for (const Problem& p : o.problems)
      page.add("<li><strong>{}</strong>: {}</li>", escaped(p.property), escaped(p.detail));
    if (!o.used.empty()) {
      page.add("<li>kernels:");
      for (const KernelUse& use : o.used) page.add(" <code>{}</code>", escaped(use.kernel));
      page.add("</li>");
    }
    page.add("</ul></details>");
  }
  page.add("</div>");
}

void notes(Page& page, const Report& r) {
  if (r.notes.empty()) return;
  page.add("<h2>Notes</h2><div class=\"card\"><ul>");
  for (const std::string& note : r.notes) page.add("<li>{}</li>", escaped(note));
  page.add("</ul></div>");
}

}  // namespace

std::string to_html(const Report& r) {
  Page page;
  page.add(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<title>{}: {}</title><style>{}</style></head><body><main>\n<h1>Ferry's doctor on {}</h1>",
      escaped(r.device),
      to_string(r.verdict),
      kStyle,
      escaped(r.device));
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
  page.add(
      "<footer>Each tile is a check; green ones hold. Ops are compared with a float64 reference "
      "within bounds that follow from sizes and the type's roundoff, their gradients with finite "
      "differences.</footer></main></body></html>\n");
  return page.take();
}

}  // namespace ferry::doctor
