// The driver's error numbers that software NVIDIA answers, and what a kernel did wrong.
#pragma once

#include <stdexcept>
#include <string>

namespace nvidia_sim {

namespace result {
inline constexpr int kSuccess = 0;
inline constexpr int kInvalidValue = 1;
inline constexpr int kOutOfMemory = 2;
inline constexpr int kNotInitialised = 3;
inline constexpr int kNoDevice = 100;
inline constexpr int kInvalidDevice = 101;
inline constexpr int kInvalidContext = 201;
inline constexpr int kEccUncorrectable = 214;
inline constexpr int kInvalidPtx = 218;
inline constexpr int kNvlinkUncorrectable = 220;
inline constexpr int kUnsupportedPtxVersion = 222;
inline constexpr int kInvalidHandle = 400;
inline constexpr int kNotFound = 500;
inline constexpr int kNotReady = 600;
inline constexpr int kIllegalAddress = 700;
inline constexpr int kLaunchOutOfResources = 701;
inline constexpr int kLaunchTimeout = 702;
inline constexpr int kMisalignedAddress = 716;
inline constexpr int kLaunchFailed = 719;
inline constexpr int kUnknown = 999;
}  // namespace result

/// What work on the device did that it must not: ends it, and answers every later call of the
/// context with `code`, as a card does.
class Violation : public std::runtime_error {
 public:
  Violation(int code, const std::string& what, int lane = -1)
      : std::runtime_error(what), code_(code), lane_(lane) {}
  int code() const { return code_; }
  int lane() const { return lane_; }  // of the warp; -1: not of one

 private:
  int code_;
  int lane_;
};

}  // namespace nvidia_sim
