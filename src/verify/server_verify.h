// Does a server answer as the model in a directory would? Asks any OpenAI-compatible server, compares
// what it says with the CPU reference, and, where it is something else, finds out what: computes the
// reference as servers are known to go wrong, and names what explains the answers.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "verify/server_judge.h"

namespace ferry::verify {

struct ServerOptions {
  std::string directory = {};  // a model directory or a GGUF file
  std::string address = {};    // of the server: http://HOST:PORT
  std::string model = {};      // the name it is asked for; empty: the first that the server lists
  std::string key = {};        // what it wants to be shown; empty: none
  std::string public_key =
      {};  // by which the directory's passport must be signed (hex); empty: by anybody or nobody
  /// What the server says that its weights are: "bf16", "int8" or "int4"; empty: as the directory
  /// stores them. (Whoever multiplies GGUF's blocks rounds activations as int8 does.)
  std::string weights = {};
  int64_t positions =
      1024;  // of the longest text that is asked about; fewer if the model has fewer
  int64_t timeout_ms = 120'000;
  double patience_s = 120;  // with a server that has no time, in a row
  std::function<void(const std::string&)> progress = {};
};

enum class ServerVerdict {
  kSame,       // it answers as this model
  kDiffers,    // it does not
  kNotProved,  // it tells too little
};
const char* to_string(ServerVerdict verdict);  // "same", "differs", "not proved"

/// Something that is wrong with the server. Names are stable: docs/verify-server.md lists them.
struct ServerFault {
  std::string name;
  std::string words;
};

/// Answers to one kind of question.
struct ServerGroup {
  std::string name;   // "text", "ids", "chat", "long", "again", "crowd"
  std::string words;  // for people
  int64_t exchanges = 0;
  Closeness closeness;  // to the reference, as the server should have understood the question
  double bound = 0;     // of kl_typical
  bool within = true;
};

/// What the answers would show if the server were that.
struct Excluded {
  std::string words;
  double kl = 0;
  bool shown = false;
};

struct ServerReport {
  std::string directory, address, model, program;
  std::string root, signed_by;  // of the passport, if there is one
  std::string evidence;         // what the server gives, in words
  ServerVerdict verdict = ServerVerdict::kNotProved;
  std::vector<ServerFault> faults;  // the first one is the verdict's
  std::vector<ServerGroup> groups;
  std::vector<Excluded> excluded;
  int64_t compared_tokens = 0;
  double kl_mean = 0, kl_max = 0;  // over all that was compared
  double log_chance = 0;  // log of the chance to draw the answers' tokens from the reference
  int64_t tokens = 0;     // that this is about
  int64_t requests = 0;
  std::vector<std::string> proof;      // what the verdict rests on
  std::vector<std::string> not_tried;  // names of faults that were not looked for; notes say why
  std::vector<std::string> notes;
  struct Text {
    std::string group, what, prompt, answer;
  };
  std::vector<Text> texts;  // some questions with their answers
};

/// Errors: kInvalidInput, kNotFound, kCorrupt (the directory, the address, the key); kUnavailable,
/// kTimeout (the server gives no answers, or what is none). A verdict is a report.
Result<ServerReport> verify_server(const ServerOptions& options);

/// One line of JSON; one self-contained page.
std::string to_json(const ServerReport& report);
/// The same where there is no report, because the server gave no answers.
std::string to_json(const Status& why);
std::string to_html(const ServerReport& report);

}  // namespace ferry::verify
