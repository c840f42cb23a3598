// What a run leaves behind that must not depend on how it got there: killed, resumed, by how many processes.
#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace ferry::program {

struct TracedStep {
  double loss = 0, norm = 0;
  bool operator==(const TracedStep&) const = default;
};

struct Trace {
  std::string weights, state;
  std::string document;             // state.json without the time it took, and the settings
  std::map<int, TracedStep> steps;  // metrics.jsonl
  // The losses of evaluations, by step, as they are written: not each is a number.
  std::map<int, std::string> held_out;
};

/// Of a checkpoint, and the folder of its run.
Trace trace_of(const std::filesystem::path& checkpoint, const std::filesystem::path& run);

/// Not EXPECT_EQ of all: nobody reads a megabyte of weights.
void expect_same(const Trace& a, const Trace& b, const std::string& what);

}  // namespace ferry::program
