#include "verify/doctor.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "verify/checked_specs.h"

namespace ferry::doctor {
namespace {

using Json = nlohmann::ordered_json;

bool failed(const Outcome& o) { return !o.problems.empty(); }

/// "rms_norm" of "rms_norm_backward": the op in whose folder the kernel lies.
std::string op_of_kernel(const std::string& kernel) {
  static const std::map<std::string, std::string> table = [] {
    std::map<std::string, std::string> t;
    for (const ops::OpSpec& spec : checked_specs())
      for (const ops::KernelRow& row : spec.kernels) t[row.kernel] = spec.op;
    return t;
  }();
  const auto it = table.find(kernel);
  return it == table.end() ? kernel : it->second;
}

std::string because(const CheckHead& head, const Problem& p) {
  return fmt::format("{}: {}: {}", head.name, p.property, p.detail);
}
std::string because(const Outcome& o) { return because(o.head, o.problems.front()); }

/// What failing and passing checks share. Ochiai 1957; used on programs by Abreu et al. 2007.
class Spectrum {
 public:
  using Parts = std::function<std::vector<std::string>(const Outcome&)>;

  Spectrum(const std::vector<const Outcome*>& outcomes, Parts parts) : parts_(std::move(parts)) {
    for (const Outcome* o : outcomes) {
      failing_ += failed(*o) ? 1 : 0;
      for (const std::string& part : parts_(*o)) ++(failed(*o) ? fail_ : pass_)[part];
    }
  }

  double suspicion(const std::string& part) const {
    const double fail = count(fail_, part), pass = count(pass_, part);
    return fail == 0 ? 0 : fail / std::sqrt(static_cast<double>(failing_) * (fail + pass));
  }

  /// The part most suspected among the failing outcome's; of equals the last, which the others
  /// served. Empty if it has none.
  std::string worst(const Outcome& o) const {
    std::string best;
    for (const std::string& part : parts_(o))
      if (best.empty() || suspicion(part) >= suspicion(best)) best = part;
    return best;
  }

 private:
  static double count(const std::map<std::string, int>& counts, const std::string& part) {
    const auto it = counts.find(part);
    return it == counts.end() ? 0 : it->second;
  }

  Parts parts_;
  int failing_ = 0;
  std::map<std::string, int> fail_, pass_;
};

std::vector<std::string> kernels_of(const Outcome& o) {
  std::vector<std::string> out;
  for (const KernelUse& use : o.used) out.push_back(use.kernel);
  return out;
}

std::vector<std::string> calls_of(const Outcome& o, const std::string& kernel) {
  std::set<std::string> out;
  for (const KernelUse& use : o.used)
    if (kernel.empty() || use.kernel == kernel) out.insert(use.calls.begin(), use.calls.end());
  return {out.begin(), out.end()};
}

/// The call of `kernel` that its failing checks point at; empty if several are as likely.
std::string suspected_call(const std::vector<const Outcome*>& outcomes, const std::string& kernel) {
  const Spectrum spectrum(outcomes, [](const Outcome& o) { return calls_of(o, ""); });
  std::map<std::string, double> suspects;
  for (const Outcome* o : outcomes)
    if (failed(*o))
      for (const std::string& call : calls_of(*o, kernel))
        suspects[call] = spectrum.suspicion(call);
  std::string best;
  bool alone = false;
  for (const auto& [call, suspicion] : suspects) {
    if (best.empty() || suspicion > suspects[best]) {
      best = call;
      alone = true;
    } else if (suspicion == suspects[best]) {
      alone = false;
    }
  }
  return alone ? best : "";
}

/// Kernels that a judge of calls saw going wrong with the right inputs; the most often seen first.
/// The call is named where the kernel made one alone: sizes are what these checks differ in, and
/// which calls a kernel makes does not tell them apart.
std::vector<Culprit> seen_culprits(const std::vector<const Outcome*>& outcomes) {
  std::vector<Culprit> culprits;
  std::map<std::string, int> seen;
  for (const Outcome* o : outcomes)
    for (const Problem& p : o->problems) {
      if (p.kernel.empty() || ++seen[p.kernel] > 1) continue;
      const std::vector<std::string> calls = calls_of(*o, p.kernel);
      culprits.push_back({op_of_kernel(p.kernel),
                          p.kernel,
                          calls.size() == 1 ? calls.front() : "",
                          because(o->head, p)});
    }
  std::stable_sort(culprits.begin(), culprits.end(), [&](const Culprit& a, const Culprit& b) {
    return seen[a.kernel] > seen[b.kernel];
  });
  return culprits;
}

/// Kernels that together explain every failing outcome: those that were seen, then the most
/// suspected first.
std::vector<Culprit> kernel_culprits(const std::vector<const Outcome*>& outcomes) {
  const Spectrum spectrum(outcomes, kernels_of);
  std::vector<Culprit> culprits = seen_culprits(outcomes);
  const auto explained = [&](const Outcome* o) {
    const std::vector<std::string> used = kernels_of(*o);
    return std::any_of(culprits.begin(), culprits.end(), [&](const Culprit& c) {
      return std::find(used.begin(), used.end(), c.kernel) != used.end();
    });
  };
  std::vector<const Outcome*> open;
  for (const Outcome* o : outcomes)
    if (failed(*o) && !explained(o)) open.push_back(o);
  while (!open.empty()) {
    // Of equally suspected kernels the one that fails with the fewest others about it.
    const Outcome* clearest = open.front();
    const auto clarity = [&](const Outcome* o) {
      const double best = o->used.empty() ? 2 : spectrum.suspicion(spectrum.worst(*o));
      return std::pair(best, -static_cast<int64_t>(o->used.size()));
    };
    for (const Outcome* o : open)
      if (clarity(o) > clarity(clearest)) clearest = o;
    const std::string kernel = spectrum.worst(*clearest);
    if (kernel.empty()) {
      culprits.push_back({clearest->head.subject, "", "", because(*clearest)});
    } else {
      culprits.push_back(
          {op_of_kernel(kernel), kernel, suspected_call(outcomes, kernel), because(*clearest)});
    }
    std::erase_if(open, [&](const Outcome* o) {
      const std::vector<std::string> parts = kernels_of(*o);
      return o == clearest || std::find(parts.begin(), parts.end(), kernel) != parts.end();
    });
  }
  return culprits;
}

std::vector<const Outcome*> on_level(const std::vector<Outcome>& outcomes, Level level) {
  std::vector<const Outcome*> out;
  for (const Outcome& o : outcomes)
    if (o.head.level == level) out.push_back(&o);
  return out;
}

bool any_failed(const std::vector<const Outcome*>& outcomes) {
  return std::any_of(outcomes.begin(), outcomes.end(), [](const Outcome* o) { return failed(*o); });
}

/// One culprit for each subject that failed, in the order in which they were tried.
std::vector<Culprit> subject_culprits(const std::vector<const Outcome*>& outcomes, bool call) {
  std::vector<Culprit> culprits;
  for (const Outcome* o : outcomes)
    for (const Problem& p : o->problems) {
      const std::string& subject = p.subject.empty() ? o->head.subject : p.subject;
      const auto known = [&](const Culprit& c) { return c.op == subject; };
      if (std::none_of(culprits.begin(), culprits.end(), known))
        culprits.push_back({subject, "", call ? subject : "", because(o->head, p)});
    }
  return culprits;
}

/// Kernels, and the subjects of problems that name their own.
std::vector<Culprit> load_culprits(const std::vector<const Outcome*>& outcomes) {
  std::vector<const Outcome*> of_one_op;
  std::vector<Culprit> named;
  for (const Outcome* o : outcomes) {
    bool own = false;
    for (const Problem& p : o->problems) {
      if (p.subject.empty()) continue;
      own = true;
      const auto same = [&](const Culprit& c) { return c.op == p.subject; };
      if (std::none_of(named.begin(), named.end(), same))
        named.push_back({p.subject, "", "", because(o->head, p)});
    }
    if (!own) of_one_op.push_back(o);
  }
  std::vector<Culprit> culprits = kernel_culprits(of_one_op);
  for (Culprit& c : seen_culprits(outcomes)) named.push_back(std::move(c));
  for (Culprit& c : named) {
    const auto same = [&](const Culprit& known) { return known.op == c.op; };
    if (std::none_of(culprits.begin(), culprits.end(), same)) culprits.push_back(std::move(c));
  }
  return culprits;
}

/// Failing checks of ops that none of the failing calls of the vendor's library explains.
std::vector<const Outcome*> unexplained(const std::vector<Outcome>& outcomes,
                                        const std::vector<Culprit>& calls) {
  std::vector<const Outcome*> out;
  for (const Outcome* o : on_level(outcomes, Level::kOp)) {
    const std::vector<std::string> used = calls_of(*o, "");
    const bool explained = std::any_of(calls.begin(), calls.end(), [&](const Culprit& c) {
      return std::find(used.begin(), used.end(), c.call) != used.end();
    });
    if (!explained) out.push_back(o);
  }
  return out;
}

/// Whether all that was wrong was seen in kernels of training.
bool seen_in_training(const Outcome& o) {
  return std::all_of(o.problems.begin(), o.problems.end(), [](const Problem& p) {
    return !p.kernel.empty() && training_kernel(p.kernel);
  });
}

/// Whether a kernel that generates tokens is at fault, or makes the call that is.
bool serving_needs(const Culprit& culprit, const std::vector<Outcome>& outcomes) {
  if (!culprit.kernel.empty()) return !training_kernel(culprit.kernel);
  if (culprit.call.empty()) return !training_kernel(culprit.op);
  bool in_training = false;
  for (const Outcome& o : outcomes)
    for (const KernelUse& use : o.used) {
      if (std::find(use.calls.begin(), use.calls.end(), culprit.call) == use.calls.end()) continue;
      if (!training_kernel(use.kernel)) return true;
      in_training = true;
    }
  return !in_training;  // who makes the call was not seen
}

}  // namespace

const char* to_string(Level level) {
  switch (level) {
    case Level::kRuntime: return "runtime";
    case Level::kPrimitive: return "library";
    case Level::kOp: return "ops";
    case Level::kLoad: return "load";
    case Level::kSpeed: return "speed";
  }
  return "?";
}

bool training_kernel(const std::string& kernel) {
  static const std::set<std::string> others = {"adamw",
                                               "axpby",
                                               "balance_loss",
                                               "expert_counts",
                                               "bias_update",
                                               "sum_squares",
                                               "unit_norm",
                                               "cross_entropy"};
  return kernel.ends_with("_backward") || others.contains(kernel);
}

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kFitToTrain: return "fit to train";
    case Verdict::kFitToServe: return "fit to serve";
    case Verdict::kUnfit: return "unfit";
    case Verdict::kNothingFound: return "nothing found";
    case Verdict::kUnfitToTrain: return "unfit to train";
  }
  return "?";
}

bool passed(Verdict verdict) {
  return verdict == Verdict::kFitToTrain || verdict == Verdict::kNothingFound;
}

std::vector<Culprit> find_culprits(const std::vector<Outcome>& outcomes) {
  if (const auto runtime = on_level(outcomes, Level::kRuntime); any_failed(runtime))
    return subject_culprits(runtime, false);
  std::vector<Culprit> culprits = subject_culprits(on_level(outcomes, Level::kPrimitive), true);
  for (Culprit& c : kernel_culprits(unexplained(outcomes, culprits)))
    culprits.push_back(std::move(c));
  if (!culprits.empty()) return culprits;
  for (const Level level : {Level::kLoad, Level::kSpeed}) {
    culprits = load_culprits(on_level(outcomes, level));
    // What every op does right alone and many do wrong together is not theirs.
    if (culprits.size() > 2) return {{"streams", "", "", culprits.front().because}};
    if (!culprits.empty()) break;
  }
  return culprits;
}

void conclude(Report& report) {
  report.culprits = find_culprits(report.outcomes);
  report.reasons.clear();
  const bool stopped = !report.stopped.empty();
  bool serves = stopped || !report.outcomes.empty(), trains = serves;
  for (const Outcome& o : report.outcomes) {
    if (!failed(o)) continue;
    trains = false;
    const bool gradient_alone =
        std::all_of(o.problems.begin(), o.problems.end(), [](const Problem& p) {
          return p.property == "gradient";
        });
    // A call of the library is judged below, by who makes it.
    serves = serves && (o.head.training_only || gradient_alone || seen_in_training(o) ||
                        o.head.level == Level::kPrimitive);
  }
  // A check of gradients runs the forward pass, too: who is named decides.
  for (const Culprit& c : report.culprits) serves = serves && !serving_needs(c, report.outcomes);
  const bool all = report.only.empty() && !stopped;
  report.verdict = trains   ? all ? Verdict::kFitToTrain : Verdict::kNothingFound
                   : serves ? all ? Verdict::kFitToServe : Verdict::kUnfitToTrain
                            : Verdict::kUnfit;
  if (report.outcomes.empty() && !stopped) report.reasons.push_back("nothing could be examined");
  for (const Culprit& c : report.culprits)
    report.reasons.push_back(fmt::format("{}{}{}: {}",
                                         c.op,
                                         c.kernel.empty() ? "" : ", kernel " + c.kernel,
                                         c.call.empty() || c.call == c.op ? "" : ", call " + c.call,
                                         c.because));
  if (trains)
    report.reasons.push_back(fmt::format(
        "{} check{}, nothing found{}",
        report.outcomes.size(),
        report.outcomes.size() == 1 ? "" : "s",
        all       ? ""
        : stopped ? "; stopped by " + report.stopped + ": no verdict on the device"
                  : "; " + report.only + " alone was examined: no verdict on the device"));
  else if (stopped)
    report.reasons.push_back(
        fmt::format("stopped by {} before everything was tried: what was found stands, and is not "
                    "all that may be",
                    report.stopped));
}

size_t problem_count(const Report& report) {
  size_t n = 0;
  for (const Outcome& o : report.outcomes) n += o.problems.size();
  return n;
}

// --- JSON
// ---------------------------------------------------------------------------------------

Json to_json(const CheckHead& head) {
  return {{"name", head.name},
          {"subject", head.subject},
          {"level", static_cast<int>(head.level)},
          {"training_only", head.training_only},
          {"limit_s", head.limit_s}};
}

CheckHead head_from_json(const Json& j) {
  const int level = j.at("level").get<int>();
  return {.name = j.at("name").get<std::string>(),
          .subject = j.at("subject").get<std::string>(),
          .level = static_cast<Level>(std::clamp(level, 0, static_cast<int>(Level::kSpeed))),
          .training_only = j.at("training_only").get<bool>(),
          .limit_s = j.at("limit_s").get<double>()};
}

Json to_json(const Outcome& o) {
  Json used = Json::array(), problems = Json::array();
  for (const KernelUse& use : o.used)
    used.push_back(Json{{"kernel", use.kernel}, {"calls", use.calls}});
  for (const Problem& p : o.problems)
    problems.push_back(Json{{"property", p.property},
                            {"detail", p.detail},
                            {"subject", p.subject},
                            {"kernel", p.kernel}});
  Json j = to_json(o.head);
  j["used"] = used;
  j["problems"] = problems;
  j["seconds"] = o.seconds;
  if (o.cut_short) j["cut_short"] = true;
  return j;
}

Outcome outcome_from_json(const Json& j) {
  Outcome o{.head = head_from_json(j)};
  for (const Json& use : j.at("used"))
    o.used.push_back(
        {use.at("kernel").get<std::string>(), use.at("calls").get<std::vector<std::string>>()});
  for (const Json& p : j.at("problems"))
    o.problems.push_back({p.at("property").get<std::string>(),
                          p.at("detail").get<std::string>(),
                          p.at("subject").get<std::string>(),
                          p.at("kernel").get<std::string>()});
  o.seconds = j.at("seconds").get<double>();
  o.cut_short = j.value("cut_short", false);
  return o;
}

Json to_json(const Measurement& m) {
  return {{"name", m.name}, {"value", m.value}, {"unit", m.unit}, {"peak", m.peak}};
}

Measurement measurement_from_json(const Json& j) {
  return {.name = j.at("name").get<std::string>(),
          .unit = j.at("unit").get<std::string>(),
          .value = j.at("value").get<double>(),
          .peak = j.at("peak").get<double>()};
}

Json summary_json(const Report& report) {
  Json culprits = Json::array();
  for (const Culprit& c : report.culprits)
    culprits.push_back(Json{{"op", c.op}, {"kernel", c.kernel}, {"call", c.call}});
  Json j = {{"command", "doctor"},
            {"device", report.device},
            {"description", report.description},
            {"verdict", to_string(report.verdict)},
            {"checks", report.outcomes.size()},
            {"problems", problem_count(report)},
            {"culprits", culprits},
            {"seconds", report.seconds}};
  if (!report.only.empty()) j["only"] = report.only;
  if (!report.stopped.empty()) j["stopped"] = report.stopped;
  return j;
}

Json to_json(const Report& report) {
  Json j = summary_json(report);
  j["processor"] = report.processor;
  j["started_unix_ms"] = report.started_unix_ms;
  j["quick"] = report.quick;
  j["soak_s"] = report.soak_s;
  j["seed"] = report.seed;
  j["only"] = report.only;
  j["stopped"] = report.stopped;
  j["reasons"] = report.reasons;
  j["notes"] = report.notes;
  j["measurements"] = Json::array();
  for (const Measurement& m : report.measurements) j["measurements"].push_back(to_json(m));
  j["outcomes"] = Json::array();
  for (const Outcome& o : report.outcomes) {
    Json entry = to_json(o);
    entry["level"] = to_string(o.head.level);
    j["outcomes"].push_back(entry);
  }
  return j;
}

}  // namespace ferry::doctor
