#include "cluster/projection.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/file.h"
#include "base/json_fields.h"

namespace ferry::cluster {
namespace {

constexpr double kMuch = 1e12;
constexpr double kLittle = 1e-9;  // of what must be above zero
constexpr int64_t kFormat = 1;

MeasuredFault fault_of(JsonFields& f, const char* name) {
  JsonFields of = f.object(name);
  MeasuredFault m{.faults = of.integer("faults", 1, INT64_C(1) << 40),
                  .detect_s = of.real("detect_s", 0, kMuch),
                  .restart_s = of.real("restart_s", 0, kMuch),
                  .slowest_s = of.real("slowest_s", 0, kMuch)};
  of.refuse_unknown({}, "is not known here");
  // Means of rounded numbers may lie above the slowest by what they were rounded by.
  if (m.slowest_s < m.total_s() * 0.999 - 0.01)
    of.refuse("slowest_s", "is below the mean of detect_s and restart_s together");
  return m;
}

FailureRate rate_of(JsonFields& f) {
  FailureRate r{.name = f.text("name"),
                .source = f.text("source"),
                .faults = f.real("faults", kLittle, kMuch),
                .days = f.real("days", kLittle, kMuch),
                .chips = f.real("chips", 1, kMuch),
                .of_processes = f.real("of_processes", 0, kMuch, 0.0)};
  f.refuse_unknown({}, "is not known here");
  if (r.of_processes > r.faults) f.refuse("of_processes", "is more than faults");
  return r;
}

PublishedGoodput goodput_of_item(JsonFields& f) {
  PublishedGoodput p{.name = f.text("name"),
                     .note = f.text("note", ""),
                     .source = f.text("source"),
                     .share = f.real("share", 0, 1)};
  if (f.has("chips")) p.chips = f.real("chips", 1, kMuch);
  if (f.has("mtbf_s")) p.mtbf_s = f.real("mtbf_s", kLittle, kMuch);
  f.refuse_unknown({}, "is not known here");
  if (p.chips.has_value() == p.mtbf_s.has_value())
    f.refuse("", "has neither chips nor mtbf_s, or both");
  return p;
}

template <typename Item>
std::vector<Item> list_of(JsonFields& f, const char* name, Item (*of)(JsonFields&)) {
  std::vector<Item> all;
  size_t i = 0;
  for (const nlohmann::json& item : f.list(name)) {
    JsonFields one = f.item(name, item, i++);
    all.push_back(of(one));
  }
  return all;
}

PublishedRecovery recovery_of(JsonFields& f) {
  PublishedRecovery r{
      .name = f.text("name"), .source = f.text("source"), .seconds = f.real("seconds", 0, kMuch)};
  f.refuse_unknown({}, "is not known here");
  return r;
}

/// A document of this format at `path`, of which `read` takes the fields.
template <typename Document>
Result<Document> read_document(const std::string& path, Document (*read)(JsonFields&)) {
  TRY_ASSIGN(const std::string text, read_file(path, uint64_t{1} << 24));
  TRY_ASSIGN(const nlohmann::json document, parse_json(text, path));
  JsonProblem problem;
  JsonFields f(document, path, problem);
  f.integer("format", kFormat, kFormat);
  Document d = read(f);
  f.refuse_unknown({"format"}, "is not known here");
  TRY(problem.done());
  return d;
}

Measured measured_of(JsonFields& f) {
  Measured m{.command = f.text("command"),
             .machine = f.text("machine"),
             .date = f.text("date"),
             .load = f.text("load"),
             .settings = f.texts("settings"),
             .ranks = f.integer("ranks", 1, INT64_C(1) << 40),
             .step_s = f.real("step_s", kLittle, kMuch),
             .checks_share = f.real("checks_share", 0, 1),
             .save_s = f.real("save_s", 0, kMuch)};
  m.process = fault_of(f, "process");
  m.silent = fault_of(f, "silent");
  m.pair = fault_of(f, "pair");
  return m;
}

Published published_of(JsonFields& f) {
  Published p{.rates = list_of(f, "rates", rate_of),
              .goodputs = list_of(f, "goodputs", goodput_of_item),
              .recoveries = list_of(f, "recoveries", recovery_of)};
  if (p.rates.empty() && !f.problem()) f.refuse("rates", "is empty");
  JsonFields assumed = f.object("assumptions");
  for (const Assumption& a : assumption_list()) {
    JsonFields one = assumed.object(a.name);
    p.assumptions.*a.value = one.real("value", a.low, a.high);
    p.why.push_back(one.text("why"));
    one.refuse_unknown({}, "is not known here");
  }
  assumed.refuse_unknown({}, "is not known here");
  return p;
}

/// How many hosts there are, and how likely a fault, wherever it strikes, takes one of the two whose loss leaves nobody
/// with what the lost one held: the one that holds its replica, and the one whose replica it held.
double partners_share(double chips, const Assumptions& a) {
  const double others = chips / a.chips_per_host - 1;
  return others > 2 ? 2 / others : 1;
}

GoodputCase case_of(const Measured& m,
                    const Assumptions& a,
                    double faults_per_s,
                    double of_processes,
                    double together_later) {
  const double state_gb_per_host = a.state_gb_per_chip * a.chips_per_host;
  return {.faults_per_s = faults_per_s,
          .step_s = a.step_s,
          .kinds = {{of_processes, m.process.total_s() + a.state_gb_per_chip / a.link_gb_per_s},
                    {1 - of_processes, m.silent.total_s() + state_gb_per_host / a.link_gb_per_s}},
          .together_at_once = a.together_share,
          .together_later = together_later,
          .from_disk_s = m.pair.total_s() + state_gb_per_host / a.storage_gb_per_s,
          .checkpoint_s = a.checkpoint_s};
}

/// Every fault a lost host, as slow as the slowest.
GoodputCase worst_of(const Measured& m, GoodputCase c) {
  c.kinds = {{1, c.kinds[1].recovery_s - m.silent.total_s() + m.silent.slowest_s}};
  c.from_disk_s += m.pair.slowest_s - m.pair.total_s();
  return c;
}

/// With one recovery for all faults, and nothing that needs the disk.
GoodputCase with_recovery(const PublishedRecovery& r, GoodputCase c) {
  c.kinds = {{1, r.seconds}};
  c.together_at_once = c.together_later = 0;
  return c;
}

}  // namespace

const std::vector<Assumption>& assumption_list() {
  static const std::vector<Assumption> list = {
      {"chips_per_host", &Assumptions::chips_per_host, 1, kMuch},
      {"step_s", &Assumptions::step_s, kLittle, kMuch},
      {"checkpoint_s", &Assumptions::checkpoint_s, kLittle, kMuch},
      {"state_gb_per_chip", &Assumptions::state_gb_per_chip, 0, kMuch},
      {"link_gb_per_s", &Assumptions::link_gb_per_s, kLittle, kMuch},
      {"storage_gb_per_s", &Assumptions::storage_gb_per_s, kLittle, kMuch},
      {"together_share", &Assumptions::together_share, 0, 1}};
  return list;
}

Result<Measured> read_measured(const std::string& path) {
  return read_document<Measured>(path, measured_of);
}

Result<Published> read_published(const std::string& path) {
  return read_document<Published>(path, published_of);
}

Result<void> assume(Published& published, std::string_view text) {
  const size_t equals = text.find('=');
  const std::string_view name = text.substr(0, equals);
  std::string known;
  for (size_t i = 0; i < assumption_list().size(); ++i) {
    const Assumption& a = assumption_list()[i];
    known += fmt::format("{}{}", known.empty() ? "" : ", ", a.name);
    if (name != a.name || equals == std::string_view::npos) continue;
    double value = 0;
    const char *const begin = text.data() + equals + 1, *const end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(begin, end, value);
    if (error != std::errc() || stopped != end || !(value >= a.low && value <= a.high))
      return fail(Code::kInvalidInput,
                  "--assume {}: must be a number from {:g} to {:g}",
                  text,
                  a.low,
                  a.high);
    published.assumptions.*a.value = value;
    published.why[i] = "as given on the command line";
    return {};
  }
  return fail(Code::kInvalidInput, "--assume {}: NAME=VALUE, where NAME is one of {}", text, known);
}

double steady_overhead(const Measured& measured, const Assumptions& assumed) {
  return std::min(1.0, measured.checks_share + measured.save_s / assumed.checkpoint_s);
}

AtScale project(const Measured& measured, const Published& published, double chips) {
  check(chips > 0, "projection: {} chips", chips);
  const Assumptions& a = published.assumptions;
  AtScale at{.chips = chips};
  for (const FailureRate& r : published.rates) {
    const GoodputCase c = case_of(
        measured, a, 1 / r.mtbf_s(chips), r.of_processes / r.faults, partners_share(chips, a));
    AtRate& here = at.rates.emplace_back();
    here.mtbf_s = r.mtbf_s(chips);
    here.usual = goodput_of(c);
    here.worst = goodput_of(worst_of(measured, c));
    here.with_overhead = here.usual.share * (1 - steady_overhead(measured, a));
    if (at.rates.size() > 1) continue;
    for (const PublishedRecovery& theirs : published.recoveries)
      at.recoveries.push_back(goodput_of(with_recovery(theirs, c)));
  }
  return at;
}

Goodput at_mtbf(const Measured& measured, const Published& published, double mtbf_s) {
  const FailureRate& r = published.rates.front();
  // At the scale at which that is the time between its faults.
  const double chips = r.mtbf_s(1) / mtbf_s;
  return goodput_of(case_of(measured,
                            published.assumptions,
                            1 / mtbf_s,
                            r.of_processes / r.faults,
                            partners_share(chips, published.assumptions)));
}

}  // namespace ferry::cluster
