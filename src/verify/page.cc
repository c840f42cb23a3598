#include "verify/page.h"

namespace ferry {
namespace {

// A table of class "checks" (subject, tiles, passed, seconds) becomes blocks of two lines on a
// narrow screen; other tables are scrolled within their card.
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
h1{font-size:1.05rem;font-weight:600;margin:0 0 4px;color:var(--soft);overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:36px 0 12px}
.verdict{border-radius:14px;padding:22px 26px;margin:12px 0 20px;border:1px solid var(--line)}
.verdict b{display:block;font-size:2rem;line-height:1.2;letter-spacing:-.01em}
.verdict p{margin:6px 0 0;overflow-wrap:anywhere}
.good{background:var(--good-ground)}.good b{color:var(--good)}
.warn{background:var(--warn-ground)}.warn b{color:var(--warn)}
.bad{background:var(--bad-ground)}.bad b{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 18px;margin:10px 0;
overflow-x:auto}
.culprit{border-left:4px solid var(--bad)}
.culprit p,.text p{margin:4px 0 0;overflow-wrap:anywhere}
.text p{white-space:pre-wrap;margin:0 0 12px}.text p:last-child{margin:0}
mark{color:inherit;border-radius:3px;padding:0 3px}
mark.tie{background:var(--warn-ground)}mark.off{background:var(--bad-ground)}
.wrong{color:var(--bad);font-weight:600}
code{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
table{border-collapse:collapse;width:100%}
tr{border-bottom:1px solid var(--line)}tr:last-child{border-bottom:0}
th{font-weight:500;color:var(--soft);text-align:left;font-size:.86rem}
th,td{padding:6px 20px 6px 0;vertical-align:top}th:last-child,td:last-child{padding-right:0}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.name{white-space:nowrap}.wide{min-width:720px}
.checks td:nth-child(2){width:100%}.checks .num{min-width:5.5em}
.tiles{display:flex;flex-wrap:wrap;gap:3px;padding-top:5px}
.tile{width:12px;height:12px;border-radius:3px;background:var(--good);opacity:.8}
.tile.fails{background:var(--bad);opacity:1;outline:2px solid var(--bad);outline-offset:1px}
.share{display:flex;align-items:center;gap:10px;min-width:150px}.share span{min-width:3em;text-align:right}
.bar{height:8px;border-radius:4px;background:var(--track);flex:1;overflow:hidden}
.bar i{display:block;height:100%;background:var(--bar)}
details{margin:6px 0}summary{cursor:pointer;overflow-wrap:anywhere}
ul,ol{margin:6px 0;padding-left:20px}li{overflow-wrap:anywhere}
footer{margin-top:40px;color:var(--soft);font-size:.86rem}
@media(max-width:640px){main{padding:20px 12px 40px}.verdict{padding:16px 18px}.card{padding:12px 14px}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:6px}th,td{padding-right:12px}
.checks tr{display:grid;grid-template-columns:1fr max-content max-content;padding:4px 0}
.checks th,.checks td{padding-top:2px;padding-bottom:2px;overflow-wrap:anywhere}
.checks td:nth-child(2){grid-area:2/1/3/4;padding-right:0}.checks th:nth-child(2){display:none}}
@media print{body{background:#fff}.card{break-inside:avoid-page;overflow:visible}}
)css";

}  // namespace

Page::Page(std::string_view title, std::string_view heading) {
  add("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"generator\" content=\"Ferry\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<title>{}</title><style>{}</style></head><body><main>\n<h1>{}</h1>",
      escape_markup(title),
      kStyle,
      escape_markup(heading));
}

void Page::begin_verdict(Tone tone, std::string_view words) {
  add("<section class=\"verdict {}\"><b>{}</b>",
      tone == Tone::kGood   ? "good"
      : tone == Tone::kWarn ? "warn"
                            : "bad",
      escape_markup(words));
}

void Page::fact(std::string_view name, std::string_view value, bool code) {
  if (value.empty()) return;
  add("<dt>{}</dt><dd>{}{}{}</dd>",
      name,
      code ? "<code>" : "",
      escape_markup(value),
      code ? "</code>" : "");
}

std::string Page::finish(std::string_view footer) {
  add("<footer>{}</footer></main></body></html>\n", footer);
  return std::move(text_);
}

}  // namespace ferry
