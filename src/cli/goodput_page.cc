#include "cli/goodput_page.h"

#include <fmt/core.h>

#include "base/counted.h"
#include "base/units.h"
#include "cluster/goodput_plot.h"
#include "verify/page.h"

namespace ferry::cli {
namespace {

using cluster::AtScale;
using cluster::Measured;
using cluster::Published;
using cluster::with_commas;

std::string percent(double share) { return fmt::format("{:.3f} %", 100 * share); }

std::string measured_words(const char* what, const cluster::MeasuredFault& f) {
  return fmt::format("{}: told after {:.2f} s, the next step {:.2f} s later; {:.2f} s at most, {}",
                     what,
                     f.detect_s,
                     f.restart_s,
                     f.slowest_s,
                     counted(f.faults, "fault"));
}

std::vector<std::string> measured_lines(const Measured& m) {
  return {fmt::format("{} on {}, {}; {}", m.command, m.machine, m.date, m.load),
          measured_words("a rank killed", m.process),
          measured_words("a rank that says nothing any more, as a lost host's", m.silent),
          measured_words("a rank killed with its replica, from the newest checkpoint", m.pair),
          fmt::format("checks for silent corruption: {} of a step's time; a checkpoint keeps steps "
                      "waiting for {:.2f} s",
                      percent(m.checks_share),
                      m.save_s)};
}

std::vector<std::string> assumed_lines(const Published& p) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < cluster::assumption_list().size(); ++i) {
    const cluster::Assumption& a = cluster::assumption_list()[i];
    lines.push_back(fmt::format("{} = {:g}: {}", a.name, p.assumptions.*a.value, p.why[i]));
  }
  return lines;
}

/// What the model takes for granted, whatever its numbers.
std::vector<std::string> granted_lines() {
  return {
      "Faults come at random, as often while one is being made up for; each strikes any host as "
      "likely as any other.",
      "Ranks of thousands of hosts meet again in the seconds in which these few did, on one "
      "machine: what grows with their "
      "number is not in it, and several machines are not there yet (docs/finishing.md).",
      "A spare is at hand for each lost host, and a rank's replica is on another host.",
      "A fault undoes the step at hand, all of it; survivors keep what they computed, which is not "
      "counted.",
      "Checkpoints are written by each host at once with the others, and keep steps waiting no "
      "longer than they did here.",
      "Not in it: what stops a run for other reasons (planned stops, loss spikes, a full disk, "
      "people)."};
}

std::vector<std::string> source_lines(const Published& p) {
  std::vector<std::string> lines;
  for (const cluster::FailureRate& r : p.rates)
    lines.push_back(fmt::format("{}: {:g} {} in {} of {} {}, so {} h between two of one chip. {}",
                                r.name,
                                r.faults,
                                r.faults == 1 ? "fault" : "faults",
                                counted(static_cast<int64_t>(r.days), "day"),
                                with_commas(r.chips),
                                r.chips == 1 ? "chip" : "chips",
                                with_commas(r.mtbf_s(1) / 3600),
                                r.source));
  for (const cluster::PublishedGoodput& g : p.goodputs)
    lines.push_back(fmt::format("{}, {}: {}", g.name, percent(g.share), g.source));
  for (const cluster::PublishedRecovery& r : p.recoveries)
    lines.push_back(fmt::format("{}, {:g} s: {}", r.name, r.seconds, r.source));
  return lines;
}

std::vector<std::string> compared_lines(const Measured& m, const Published& p) {
  std::vector<std::string> lines = {
      "Theirs were seen, with all that happened; these are projected, and leave out what is taken "
      "for granted."};
  for (const cluster::PublishedGoodput& g : p.goodputs) {
    if (g.mtbf_s)
      lines.push_back(
          fmt::format("{}: {} by its own account ({}); this projection at {} between faults: {}",
                      g.name,
                      percent(g.share),
                      g.note,
                      format_duration(*g.mtbf_s),
                      percent(cluster::at_mtbf(m, p, *g.mtbf_s).share)));
    if (g.chips)
      lines.push_back(fmt::format("{}: {} by its own account ({}); this projection at {} chips: {}",
                                  g.name,
                                  percent(g.share),
                                  g.note,
                                  with_commas(*g.chips),
                                  percent(cluster::project(m, p, *g.chips).rates[0].usual.share)));
  }
  return lines;
}

void add_list(Page& page, const char* heading, const std::vector<std::string>& lines) {
  page.add("<h2>{}</h2><div class=\"card\"><ul>", heading);
  for (const std::string& line : lines) page.add("<li>{}</li>", escape_markup(line));
  page.add("</ul></div>");
}

void add_tables(Page& page, const Published& p, const std::vector<AtScale>& scales) {
  page.add(
      "<h2>At each scale</h2><div class=\"card\"><table "
      "class=\"wide\"><tr><th>chips</th><th>failures as of</th>"
      "<th class=\"num\">between two</th><th class=\"num\">goodput</th><th class=\"num\">each a "
      "lost host, slowest</th>"
      "<th class=\"num\">with the steady overhead</th><th class=\"num\">outages</th><th "
      "class=\"num\">made again</th>"
      "<th class=\"num\">from the disk, a day</th></tr>");
  for (const AtScale& s : scales)
    for (size_t r = 0; r < s.rates.size(); ++r) {
      const cluster::AtRate& a = s.rates[r];
      page.add(
          "<tr><td class=\"num\">{}</td><td class=\"name\">{}</td><td class=\"num\">{}</td><td "
          "class=\"num\">{}</td>"
          "<td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td "
          "class=\"num\">{}</td>"
          "<td class=\"num\">{:.3g}</td></tr>",
          with_commas(s.chips),
          escape_markup(p.rates[r].name),
          format_duration(a.mtbf_s),
          percent(a.usual.share),
          percent(a.worst.share),
          percent(a.with_overhead),
          percent(a.usual.outages),
          percent(a.usual.made_again),
          a.usual.from_disk_per_day);
    }
  page.add(
      "</table></div><h2>With the recoveries that others publish</h2><div "
      "class=\"card\"><table><tr><th>chips</th>");
  for (const cluster::PublishedRecovery& r : p.recoveries)
    page.add("<th class=\"num\">{}, {:g} s</th>", escape_markup(r.name), r.seconds);
  page.add("</tr>");
  for (const AtScale& s : scales) {
    page.add("<tr><td class=\"num\">{}</td>", with_commas(s.chips));
    for (const cluster::Goodput& g : s.recoveries)
      page.add("<td class=\"num\">{}</td>", percent(g.share));
    page.add("</tr>");
  }
  page.add(
      "</table><p>The seconds are theirs, and the formula is the same: one recovery for each "
      "fault, nothing that needs the "
      "disk, failures as of {}.</p></div>",
      escape_markup(p.rates[0].name));
}

}  // namespace

std::vector<std::string> goodput_lines(const Measured& measured,
                                       const Published& published,
                                       const std::vector<AtScale>& scales) {
  std::vector<std::string> lines;
  const auto section = [&](const char* heading, const std::vector<std::string>& more) {
    lines.emplace_back(heading);
    for (const std::string& line : more) lines.push_back("  " + line);
  };
  section("Measured", measured_lines(measured));
  section("Assumed", assumed_lines(published));
  section("Taken for granted", granted_lines());
  section("Published", source_lines(published));
  lines.push_back(fmt::format("{:>9}  {:<16} {:>14} {:>10} {:>10} {:>14}",
                              "chips",
                              "failures as of",
                              "between two",
                              "goodput",
                              "worst",
                              "with overhead"));
  for (const AtScale& s : scales)
    for (size_t r = 0; r < s.rates.size(); ++r)
      lines.push_back(fmt::format("{:>9}  {:<16} {:>14} {:>10} {:>10} {:>14}",
                                  with_commas(s.chips),
                                  published.rates[r].name,
                                  format_duration(s.rates[r].mtbf_s),
                                  percent(s.rates[r].usual.share),
                                  percent(s.rates[r].worst.share),
                                  percent(s.rates[r].with_overhead)));
  section("Beside others", compared_lines(measured, published));
  return lines;
}

std::string goodput_page(const Measured& measured,
                         const Published& published,
                         const std::vector<AtScale>& scales,
                         const std::string& svg) {
  Page page("Ferry: goodput", "Goodput of a run, projected");
  page.add("<div class=\"card\">{}</div>", svg);
  add_tables(page, published, scales);
  add_list(page, "Beside others", compared_lines(measured, published));
  add_list(page, "Measured", measured_lines(measured));
  add_list(page, "Assumed", assumed_lines(published));
  add_list(page, "Taken for granted", granted_lines());
  add_list(page, "Published", source_lines(published));
  return page.finish(
      "The formula, with its derivation: src/cluster/goodput.cc. Nothing here was seen at these "
      "scales.");
}

}  // namespace ferry::cli
