// Is this the model that was trained, and does this device compute it? Checks a model directory
// against its passport, asks the device the passport's probes, and names the first op that goes
// wrong although it was given the right inputs. The CPU is the reference.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/passport.h"
#include "checkpoint/weight_distance.h"
#include "ops/call_check.h"

namespace ferry::verify {

struct Options {
  std::string directory;
  std::string device = "cpu";
  std::optional<DType> dtype;  // of activations: f32 or bf16; default: the passport's
  std::string source;          // what it was converted from, to be compared with; empty: nothing
  std::string public_key;  // hex; the passport must be signed by it. Empty: by anybody or nobody
  bool quick = false;      // judge ops one by one only in layers whose activations parted
  std::optional<bool> stream;  // load weights layer by layer; default: if they do not fit
  int64_t positions = 0;       // also a probe of so many tokens, answered by the CPU now; 0: none
  bool train = false;  // also judge a training step's forward and backward pass, call by call
  std::optional<uint64_t> memory_bytes;  // what may be taken; default: what is free
  std::function<void(const std::string&)> progress;
};

/// One block, or the last norm, for all probes.
struct LayerReport {
  std::string name;              // "block 3", "norm"
  double distance = 0;           // relative, from the reference's activations; its routing given
  double tolerance = 0;          // of the probe that was nearest to its own
  int64_t routed_otherwise = 0;  // choices of experts that differ, as served
  int64_t near_ties = 0;  // of them: the reference's scores differ by less than the tolerance
  int64_t followed = 0;  // of them: an earlier choice of the sequence differs; not judged by itself
  int64_t calls = 0;     // of ops that were judged one by one
  double worst_call = 0;  // error in bounds
  std::string worst_op;
};

/// One token of the reference's greedy text and what the device would have written.
struct TokenReport {
  int32_t expected = 0, got = 0;
  std::string expected_text, got_text;  // control characters as \n or \x1b; without words: <id>
  double margin = 0;                    // of the reference, between the two; 0 if they agree
  bool right = true;                    // they agree, or the margin is within the tolerance
  bool guided = false;  // an expert was chosen otherwise before it: with the reference's given
};

struct TextReport {
  std::string name;
  std::vector<int32_t> prompt;
  std::vector<TokenReport> tokens;
};

/// A call whose output left its bounds.
struct CallReport {
  std::string pass;   // "packed": all tokens at once; "cached": as a server does; "training"
  std::string layer;  // "embedding", "block 3", "norm and head"
  int64_t index = 0;  // of the call within the layer
  std::vector<std::string> calls;  // of the vendor's library, that it made
  ops::CallFinding finding;
};

struct Report {
  std::string directory, device, description, program;
  DType dtype = DType::kBF16;
  bool has_passport = false;
  bool reference_made_now = false;  // there was none for this type in the passport
  std::string root, signed_by, reference;
  int64_t files = 0, chunks = 0;
  uint64_t bytes = 0;
  std::string
      made_from;  // as its passport or made_from.json states it, in words; empty: neither does
  std::string
      source;  // that it was compared with, and whose passport and signer are those that it states
  WeightDistance from_source{};  // if it was
  bool streamed = false;
  bool equal_bits = false;  // every activation and logit that was compared is the reference's
  std::vector<LayerReport> layers;
  std::vector<TextReport> texts;
  int64_t tokens = 0, tokens_agree = 0, tokens_near_tie = 0;
  int64_t tokens_guided = 0;  // of all: after a near tie of experts, the reference's routing given
  double logit_distance = 0, logit_tolerance = 0;  // largest
  int64_t calls = 0;
  int64_t training_calls = 0;            // of them: of a training step
  std::vector<std::string> unjudged;     // ops without a rule
  std::vector<CallReport> parted;        // in the order of computation; the first is the culprit
  std::vector<std::string> altered;      // weights that the device gave back otherwise
  std::vector<std::string> overwritten;  // inputs that changed after an op wrote them
  double plain_s = 0, observed_s = 0;    // one forward pass; 0: not measured
  std::vector<std::string> reasons;      // why it failed; empty: passed
  std::vector<std::string> notes;

  bool device_passed = false;  // set by conclude(): no reason speaks of the device

  bool passed() const { return reasons.empty(); }
  bool near_source() const { return source.empty() || from_source.worst <= 1; }
};

/// Errors: kNotFound, kCorrupt (a hash, the signature), kInvalidInput (another key; another source; a directory
/// that is not a model), kUnavailable (no such device; replaced meanwhile), kExhausted. A verdict
/// against the device or the weights is a report that did not pass. kExhausted, too: what was asked for (positions,
/// train) does not fit in memory. Throws DeviceError.
Result<Report> verify(const Options& options);

/// Notes the verdict in verified.json. Does nothing without a passport.
Result<void> remember(const Report& report);

/// The verdict in words: "it is the model" only of one whose passport says which.
const char* verdict_of(const Report& report);

/// One line of JSON; one self-contained page.
std::string to_json(const Report& report);
std::string to_html(const Report& report);

}  // namespace ferry::verify
