#include "runtime/defects.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "runtime/mutant_kinds.h"
#include "runtime/settings.h"

namespace ascend_sim {
namespace {

struct Defect {
  std::string op, what;
  bool conditional = false;
  std::atomic<uint64_t> asked{0};
};

/// Filled while the libraries load, read by every thread afterwards.
struct Lists {
  std::mutex mutex;
  std::map<std::string, Defect, std::less<>> defects;
  std::set<std::string, std::less<>> ops, reducing;
};

Lists& lists() {
  static Lists& all = *std::make_unique<Lists>().release();
  return all;
}

Defect& registered(std::string_view name) {
  const std::lock_guard lock(lists().mutex);
  const auto it = lists().defects.find(name);
  if (it == lists().defects.end())
    violation("defect \"" + std::string(name) + "\" is asked for but not registered");
  return it->second;
}

std::string mutants_of(const std::string& op, bool reducing) {
  std::string out;
  for (const MutantKind& kind : kMutantKinds)
    if (!kind.needs_reduction || reducing)
      out += op + ":" + kind.name + "\t" + op + "\t" + kind.what + "\n";
  return out;
}

}  // namespace

RegisteredDefect::RegisteredDefect(const char* name,
                                   const char* op,
                                   const char* what,
                                   bool conditional) {
  const std::lock_guard lock(lists().mutex);
  Defect& defect = lists().defects[name];
  if (!defect.op.empty()) violation("defect \"" + std::string(name) + "\" is registered twice");
  defect.op = op;
  defect.what = what;
  defect.conditional = conditional;
}

RegisteredOp::RegisteredOp(const char* name) {
  const std::lock_guard lock(lists().mutex);
  lists().ops.insert(name);
}

ReducingOp::ReducingOp(const char* name) {
  const std::lock_guard lock(lists().mutex);
  lists().reducing.insert(name);
}

bool defect(std::string_view name) {
  registered(name);
  const std::vector<std::string>& on = settings().defects;
  return std::find(on.begin(), on.end(), name) != on.end();
}

bool now_and_then(std::string_view name, uint64_t one_in) {
  if (!defect(name)) return false;
  const uint64_t call = registered(name).asked.fetch_add(1);
  return mix(settings().seed, call, one_in) % one_in == 0;
}

void reset_defects() {
  const std::lock_guard lock(lists().mutex);
  for (auto& [name, defect] : lists().defects) defect.asked = 0;
}

void check_names_of_settings() {
  const Settings& s = settings();
  const std::lock_guard lock(lists().mutex);
  for (const std::string& name : s.defects)
    if (!lists().defects.contains(name))
      violation("FERRY_ASCEND_SIM_DEFECT names \"" + name + "\", and there is no such defect");
  if (s.mutant_op.empty()) return;
  const auto kind = std::find_if(std::begin(kMutantKinds),
                                 std::end(kMutantKinds),
                                 [&](const MutantKind& k) { return s.mutant_kind == k.name; });
  if (kind == std::end(kMutantKinds) || !lists().ops.contains(s.mutant_op) ||
      (kind->needs_reduction && !lists().reducing.contains(s.mutant_op)))
    violation("FERRY_ASCEND_SIM_MUTANT=" + s.mutant_op + ":" + s.mutant_kind +
              ": there is no such mutant");
}

}  // namespace ascend_sim

extern "C" ASCEND_SIM_EXPORT const char* ferrySoftwareAscend() { return "1"; }

/// "ops", "defects", "conditional" (those of the defects that are) or "mutants": a line for each,
/// "name<TAB>aclnn op<TAB>what it does"; null for another word. The text stays until this thread
/// asks again.
extern "C" ASCEND_SIM_EXPORT const char* ferrySoftwareAscendList(const char* what) {
  using namespace ascend_sim;
  thread_local std::string text;
  text.clear();
  const std::string word = what ? what : "";
  const std::lock_guard lock(lists().mutex);
  if (word == "ops") {
    for (const std::string& op : lists().ops) text += op + "\t" + op + "\taclnn" + op + "\n";
  } else if (word == "defects" || word == "conditional") {
    for (const auto& [name, defect] : lists().defects)
      if (word == "defects" || defect.conditional)
        text += name + "\t" + defect.op + "\t" + defect.what + "\n";
  } else if (word == "mutants") {
    for (const std::string& op : lists().ops) text += mutants_of(op, lists().reducing.contains(op));
  } else {
    return nullptr;
  }
  return text.c_str();
}
