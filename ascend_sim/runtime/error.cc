#include "runtime/error.h"

#include <map>
#include <utility>

namespace ascend_sim {
namespace {

struct ThreadErrors {
  int last = 0;
  std::string message;  // not yet asked for
  std::string handed_out;
};

ThreadErrors& of_this_thread() {
  thread_local ThreadErrors errors;
  return errors;
}

}  // namespace

std::string meaning_of(int code) {
  static const std::map<int, const char*> meanings = {
      {100000, "invalid parameter"},
      {100001, "aclInit was not called"},
      {100002, "aclInit was called before"},
      {107000, "invalid parameter"},
      {107001, "no such device"},
      {107002, "the thread has no context"},
      {107003, "the stream is not of this context"},
      {107017, "invalid handle"},
      {107019, "waited too long"},
      {107020, "task timeout"},
      {107022, "the device's tasks were aborted"},
      {107023, "the stream was aborted"},
      {161001, "a pointer is null"},
      {161002, "an argument is not supported"},
      {207000, "feature not supported"},
      {207001, "out of device memory (EL0004: Failed to allocate)"},
      {207007, "no event left"},
      {207008, "no stream left"},
      {361001, "the runtime failed"},
      {507010, "heartbeat lost"},
      {507014, "AI core timeout"},
      {507015, "AI core exception"},
      {507016, "AI core trap"},
      {507034, "vector core timeout"},
      {507035, "vector core exception"},
      {507046, "stream synchronisation timeout"},
      {507047, "event synchronisation timeout"},
      {507053, "device memory error"},
      {507054, "HBM multi-bit ECC error"},
      {507055, "suspected device memory error"},
      {507056, "link error"},
      {507057, "suspected remote error"},
      {507899, "driver internal error"},
      {561000, "internal error"},
      {561103, "the executor is null"},
  };
  const auto it = meanings.find(code);
  return it == meanings.end() ? "unknown" : it->second;
}

int fail(int code, const std::string& why) {
  of_this_thread().last = code;
  return explain(code, why);
}

int explain(int code, const std::string& why) {
  of_this_thread().message = "[" + std::to_string(code) + "] " + meaning_of(code) + ": " + why;
  return code;
}

std::string take_message() { return std::exchange(of_this_thread().message, ""); }

int last_error(bool clear) {
  ThreadErrors& errors = of_this_thread();
  const int last = errors.last;
  if (clear) errors.last = 0;
  return last;
}

}  // namespace ascend_sim

/// The text of this thread's last error, once; null if there is none. Stays until the next call.
extern "C" ASCEND_SIM_EXPORT const char* aclGetRecentErrMsg() {
  auto& errors = ascend_sim::of_this_thread();
  if (errors.message.empty()) return nullptr;
  errors.handed_out = ascend_sim::take_message();
  return errors.handed_out.c_str();
}
