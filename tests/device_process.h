// Tests of a device on software: each case in a process of its own, since libraries read their settings once; and the
// little work that they give it.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "device/device.h"
#include "ops/add/add.h"
#include "ops/scale/scale.h"
#include "tensor/tensor.h"

namespace ferry::device_process {

using Environment = std::map<std::string, std::string>;

/// Runs `body` in a process with this environment; what it returned. A crash is said instead.
inline std::string in_process(const Environment& environment,
                              const std::function<std::string()>& body) {
  int ends[2];
  if (::pipe(ends) != 0) std::abort();
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
    std::string text;
    try {
      text = body();
    } catch (const DeviceError& e) {
      text = fmt::format("DeviceError {} | {} | {}", e.code(), e.op(), e.what());
    }
    for (size_t at = 0; at < text.size();) {
      const ssize_t n = ::write(ends[1], text.data() + at, text.size() - at);
      if (n <= 0) ::_exit(9);
      at += static_cast<size_t>(n);
    }
    std::exit(0);  // as a program ends: the libraries' own leave-taking included
  }
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    text += fmt::format(" | ended by wait status {}", status);
  return text;
}

inline std::vector<float> numbers(size_t n) {
  std::vector<float> v(n);
  std::iota(v.begin(), v.end(), 0.0f);
  return v;
}

/// 30 times: add, scale; then waits.
inline std::string work(Device& d) {
  Tensor x = Tensor::from_f32(numbers(64), {8, 8}, d);
  for (int i = 0; i < 30; ++i) x = ops::scale(ops::add(x, x), 0.5f);
  return fmt::format("sum of one row {}", x.slice(0, 1, 2).to_f32()[7]);
}

inline void expect_says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "not said: " << part << "\n" << text;
}

}  // namespace ferry::device_process
