// A context with one stream on software NVIDIA as it is started anew, and PTX to run there.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "driver/cuda.h"

namespace nvidia_sim::testing {

/// What the last Context of this process was told that was wrong.
inline std::string& last_report() {
  static std::string text;
  return text;
}

using Settings = std::map<std::string, std::string>;

class Context {
 public:
  explicit Context(const Settings& settings = {}) : settings_(settings) {
    for (const auto& [name, value] : settings_) ::setenv(name.c_str(), value.c_str(), 1);
    ferrySoftwareNvidiaReset();
    EXPECT_EQ(cuInit(0), 0);
    EXPECT_EQ(cuDevicePrimaryCtxRetain(&context_, 0), 0);
    EXPECT_EQ(cuCtxSetCurrent(context_), 0);
    EXPECT_EQ(cuStreamCreate(&stream_, 1), 0);
  }
  ~Context() {
    last_report() = ferrySoftwareNvidiaReport();
    ferrySoftwareNvidiaReset();
    for (const auto& [name, value] : settings_) ::unsetenv(name.c_str());
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  CUstream stream() const { return stream_; }

  CUdeviceptr allocate(size_t bytes) const {
    CUdeviceptr at = 0;
    EXPECT_EQ(cuMemAllocAsync(&at, bytes, stream_), 0);
    return at;
  }

  template <typename T>
  CUdeviceptr upload(const std::vector<T>& values) const {
    const CUdeviceptr at = allocate(values.size() * sizeof(T));
    EXPECT_EQ(cuMemcpyHtoDAsync_v2(at, values.data(), values.size() * sizeof(T), stream_), 0);
    return at;
  }

  template <typename T>
  std::vector<T> download(CUdeviceptr from, size_t count) const {
    std::vector<T> values(count);
    EXPECT_EQ(cuMemcpyDtoHAsync_v2(values.data(), from, count * sizeof(T), stream_), 0);
    return values;
  }

  /// "" if the module was loaded, else what was said of it.
  std::string load(const std::string& ptx) const {
    char log[512] = {};
    const int names[] = {5, 6};
    void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
    const CUresult code = cuModuleLoadDataEx(&module_, ptx.c_str(), 2, names, values);
    return code == 0 ? "" : std::to_string(code) + ": " + log;
  }

  /// Launches a kernel of the module with arguments of 8 bytes, and answers the code.
  CUresult launch(const char* kernel,
                  std::vector<uint64_t> args,
                  unsigned threads = 32,
                  unsigned blocks = 1) const {
    CUfunction f = nullptr;
    EXPECT_EQ(cuModuleGetFunction(&f, module_, kernel), 0);
    std::vector<void*> params;
    for (uint64_t& a : args) params.push_back(&a);
    return cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, stream_, params.data(), nullptr);
  }

  /// The same, and waits.
  CUresult run(const char* kernel,
               const std::vector<uint64_t>& args,
               unsigned threads = 32,
               unsigned blocks = 1) const {
    const CUresult launched = launch(kernel, args, threads, blocks);
    return launched != 0 ? launched : cuStreamSynchronize(stream_);
  }

 private:
  Settings settings_;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  mutable CUmodule module_ = nullptr;  // as the driver's state, which is no part of the handle
};

/// A module with one kernel `k` of these parameters of 64 bits (p0, p1...) and this body.
inline std::string kernel_with(int params,
                               const std::string& body,
                               const std::string& before = "") {
  std::string text =
      ".version 9.0\n.target sm_80\n.address_size 64\n" + before + ".visible .entry k(\n";
  for (int p = 0; p < params; ++p)
    text += std::string(p == 0 ? "" : ",\n") + "\t.param .u64 p" + std::to_string(p);
  return text +
         "\n)\n{\n"
         "\t.reg .pred %p<8>;\n\t.reg .b16 %h<8>;\n\t.reg .b32 %r<32>;\n\t.reg .b64 %d<32>;\n" +
         body + "\n\tret;\n}\n";
}

inline void expect_report(const std::vector<std::string>& parts) {
  const std::string here = ferrySoftwareNvidiaReport();
  const std::string report = here.empty() ? last_report() : here;
  for (const std::string& part : parts)
    EXPECT_NE(report.find(part), std::string::npos) << "not said: " << part << "\n" << report;
}

}  // namespace nvidia_sim::testing
