#include "run_trace.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "program.h"

namespace ferry::program {

using Json = nlohmann::json;

Trace trace_of(const fs::path& checkpoint, const fs::path& run) {
  Trace t;
  t.weights = read(checkpoint / "model.safetensors");
  t.state = read(checkpoint / "state/part-00000.safetensors");
  Json document = Json::parse(read(checkpoint / "state/state.json"), nullptr, false);
  EXPECT_FALSE(t.weights.empty() || t.state.empty() || !document.is_object()) << checkpoint;
  if (document.is_object()) {
    document.erase("seconds");
    document.erase("settings");  // names the folder of the run
    t.document = document.dump(1);
  }
  std::istringstream lines(read(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json j = Json::parse(line);
    if (j.at("kind") == "held_out" && j.contains("loss")) {
      const bool first = t.held_out.emplace(j.at("step").get<int>(), j.at("loss").dump()).second;
      EXPECT_TRUE(first) << run << ": two evaluations after step " << j.at("step");
    }
    if (j.at("kind") != "step") continue;
    const bool fresh =
        t.steps
            .emplace(j.at("step").get<int>(),
                     TracedStep{j.at("loss").get<double>(), j.at("gradient_norm").get<double>()})
            .second;
    EXPECT_TRUE(fresh) << run << ": two lines for step " << j.at("step");
  }
  return t;
}

void expect_same(const Trace& a, const Trace& b, const std::string& what) {
  EXPECT_TRUE(a.weights == b.weights) << what << ": other weights";
  EXPECT_TRUE(a.state == b.state) << what << ": another optimizer state";
  EXPECT_EQ(a.document, b.document) << what;
  EXPECT_TRUE(a.steps == b.steps) << what << ": other losses or norms";
  // A run may evaluate where another one, of other settings, does not; where both do it is the same.
  for (const auto& [step, loss] : a.held_out)
    if (const auto there = b.held_out.find(step); there != b.held_out.end()) {
      EXPECT_EQ(loss, there->second) << what << ": another evaluation after step " << step;
    }
}

}  // namespace ferry::program
