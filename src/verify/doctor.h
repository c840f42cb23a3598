// The doctor: may this chip be trusted with a run? It examines a device check by check, finds which
// op is at fault, and judges. What a check does is in checks.h; that a crashing driver does not
// take the doctor with it, in doctor_process.h. It learns of the device through ops and the device
// interface alone.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "device/device.h"

namespace ferry::doctor {

/// What a check stands on. What is broken on one level shows on those above it too, so the lowest
/// level that fails holds the culprit.
enum class Level : uint8_t {
  kRuntime,    // copies, memory, streams: no mathematics
  kPrimitive,  // one call of the vendor's library
  kOp,         // the specs of Ferry's ops
  kLoad,       // many launches without waiting; the soak
  kSpeed,      // measurements
};
const char* to_string(Level level);

/// Kernels, and ops of their names, that generating a token never launches: who fails in them alone
/// may still serve.
bool training_kernel(const std::string& kernel);

/// The head of a check: what is known before it runs.
struct CheckHead {
  std::string name;     // "rms_norm, bf16 [7, 129], gradient": unique
  std::string subject;  // "copies", "fills", "streams", "memory", "links", or the op
  Level level = Level::kOp;
  bool training_only = false;  // a failure does not keep the chip from serving
  double limit_s = 120;        // silence for longer is a hang
};

struct Problem {
  std::string property;  // "reference", "gradient", "repeatability", "device error", "hang", ...
  std::string detail;    // where, expected, got
  std::string subject = {};  // whose it is, where the check's subject is not one op
  std::string kernel = {};   // which was wrong, given the right inputs; empty: not known
};

/// A kernel that ran in a check, and the calls of the vendor's library that it made.
struct KernelUse {
  std::string kernel;
  std::vector<std::string> calls;
};

struct Outcome {
  CheckHead head;
  std::vector<KernelUse> used;  // in order of first use
  std::vector<Problem> problems;
  double seconds = 0;
  bool cut_short = false;  // by a signal to stop: not all was tried that was to be
};

struct Measurement {
  std::string name;  // "matmul bf16"
  std::string unit;
  double value = 0;
  double peak = 0;  // what the chip could do at best; 0: not known
};

/// Who is at fault, as far as the outcomes tell.
struct Culprit {
  std::string op;      // "rms_norm"; or "copies", "fills", "streams", "memory"
  std::string kernel;  // "rms_norm_backward"; empty for what is no kernel
  std::string call;    // "aclnnRmsNormGrad"; empty where there is none or several are possible
  std::string because;
};

/// The last two where not everything was tried, for one subject alone was asked for, or a signal ended it: what was not
/// tried may keep the device from anything.
enum class Verdict : uint8_t { kFitToTrain, kFitToServe, kUnfit, kNothingFound, kUnfitToTrain };
const char* to_string(Verdict verdict);
/// Whether nothing was found.
bool passed(Verdict verdict);

struct Report {
  std::string device, description, processor;
  int64_t started_unix_ms = 0;
  double seconds = 0;
  bool quick = false;
  double soak_s = 0;
  uint64_t seed = 1;
  std::string only;     // the subject that was asked for, alone; empty: all
  std::string stopped;  // by this signal, before everything was tried; empty: by none
  std::vector<Outcome> outcomes;
  std::vector<Measurement> measurements;
  std::vector<std::string> notes;  // "links not tested: one device"
  bool whole = false;              // every check that was planned has an outcome

  // Filled by conclude().
  std::vector<Culprit> culprits;  // the most basic first
  Verdict verdict = Verdict::kUnfit;
  std::vector<std::string> reasons;
};

/// Names the culprits: the lowest level that fails; within it the kernels, then the vendor's calls,
/// that the failing checks share and the passing ones do not use (Ochiai's coefficient).
std::vector<Culprit> find_culprits(const std::vector<Outcome>& outcomes);

/// Fills culprits, verdict and reasons from the outcomes. A report without outcomes is unfit, if none stopped it.
void conclude(Report& report);

size_t problem_count(const Report& report);

/// The whole report; and the one line that ends the terminal's output.
nlohmann::ordered_json to_json(const Report& report);
nlohmann::ordered_json summary_json(const Report& report);

nlohmann::ordered_json to_json(const Outcome& outcome);
nlohmann::ordered_json to_json(const CheckHead& head);
nlohmann::ordered_json to_json(const Measurement& m);
CheckHead head_from_json(const nlohmann::ordered_json& j);
Outcome outcome_from_json(const nlohmann::ordered_json& j);
Measurement measurement_from_json(const nlohmann::ordered_json& j);

}  // namespace ferry::doctor
