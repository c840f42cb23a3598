// What was launched on a stream, for errors that the chip reports some launches later: they can be
// said to come from few of them, or from one.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace ferry {

class LaunchRing {
 public:
  /// Literals: the op of the table, "rms_norm", and the call or kernel, "aclnnRmsNorm".
  void add(const char* op, const char* call) { ring_[launched_++ % kRing] = {op, call}; }
  uint64_t launched() const { return launched_; }
  /// So many of the launches are known to have ended.
  uint64_t completed() const { return completed_; }
  void complete(uint64_t launches) { completed_ = launches; }

  /// The ops, each once, in order, of the launches up to number `to` that are not known to have ended; only those
  /// that the ring still has: "matmul, rms_norm".
  std::string open_ops(uint64_t to) const;

  /// What may have failed: the launches since the last that is known to have ended, and `call`,
  /// which was answered by the error, if there is one. `advice`: what names the one.
  std::string suspects(const std::string& call, const char* advice) const;

 private:
  struct Launch {
    const char* op = "";
    const char* call = "";
  };

  static constexpr size_t kRing = 1024;

  std::array<Launch, kRing> ring_;
  uint64_t launched_ = 0;
  uint64_t completed_ = 0;
};

/// "rms_norm (aclnnRmsNorm)"
std::string launch_name(const char* op, const char* call);

}  // namespace ferry
