#include "cli/ops_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/cpu_tier.h"
#include "base/json.h"
#include "cli/command.h"
#include "device/cpu/cpu_device.h"
#include "ops/run_records.h"
#include "ops/spec_check.h"

namespace ferry::cli {
namespace {

struct OpsArgs {
  bool markdown = false;
  bool bench = false;
  std::string only, runs;
};

const char* mark(const char* missing_because) { return missing_because == nullptr ? "yes" : "-"; }

/// The reasons why kernels are missing, each once, in order of appearance.
std::vector<std::string> reasons(const std::vector<ops::OpSpec>& specs) {
  std::vector<std::string> out;
  for (const ops::OpSpec& spec : specs)
    for (const ops::KernelRow& row : spec.kernels)
      for (const char* reason : {row.cpu, row.cuda, row.ascend})
        if (reason != nullptr && std::find(out.begin(), out.end(), reason) == out.end())
          out.push_back(reason);
  return out;
}

/// "-" with the number of its reason below the table.
std::string cell(const char* missing_because, const std::vector<std::string>& all) {
  if (missing_because == nullptr) return "yes";
  const auto at = std::find(all.begin(), all.end(), missing_because);
  return fmt::format("- [{}]", at - all.begin() + 1);
}

/// Where the op's specs passed, and when, as the runs noted it; "never" if none did.
std::string runs_of(const std::vector<ops::RunRecord>& records,
                    const std::string& op,
                    const char* device,
                    bool software) {
  std::string all;
  for (const ops::RunRecord& r : records)
    if (r.op == op && r.device == device && r.software == software)
      all += fmt::format("{}{}, {}", all.empty() ? "" : "; ", r.where, r.date);
  return all.empty() ? "never" : all;
}

const char* branch_name(ops::Branch branch) {
  switch (branch) {
    case ops::Branch::kOwn: return "own kernel";
    case ops::Branch::kFused: return "fused";
    case ops::Branch::kComposed: return "composed";
    case ops::Branch::kEither: return "fused, else composed";
  }
  return "?";
}

void print_markdown(const std::vector<ops::OpSpec>& specs,
                    const std::vector<ops::RunRecord>& records) {
  const std::vector<std::string> why = reasons(specs);
  fmt::print(
      "# Ops and devices\n\n"
      "Made by `ferry ops --markdown --runs docs/ops_runs.txt` from the kernel tables in "
      "`src/ops/*/*.cc`; a test\n"
      "compares.\n\n"
      "\"Run on\" is where all specs of the op passed, and when, as the runs themselves noted it: "
      "`ops_test`,\n"
      "`cuda_ops_test`, `cuda_tensor_ops_test` (of the ops that tensor cores multiply in) and "
      "`ascend_ops_test` with\n"
      "`FERRY_RUN_RECORDS=docs/ops_runs.txt`, `ferry doctor --runs docs/ops_runs.txt` on a card. "
      "**Software** is an emulator,\n"
      "software NVIDIA (`nvidia_sim/`) or software Ascend (`ascend_sim/`). A kernel for CUDA is "
      "our own; one for Ascend is **fused** (the vendor's\n"
      "op for it) or **composed** of several smaller ones; the specs reach both where it depends "
      "on the shapes.\n\n"
      "| op | kernel | CPU | run on: hardware | run on: software | CUDA | run on: hardware | run "
      "on: software | Ascend | run on: hardware | run on: software |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const ops::OpSpec& spec : specs)
    for (const ops::KernelRow& row : spec.kernels) {
      const bool cpu = row.cpu == nullptr, cuda = row.cuda == nullptr,
                 ascend = row.ascend == nullptr;
      fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                 spec.op,
                 row.kernel,
                 cell(row.cpu, why),
                 cpu ? runs_of(records, spec.op, "cpu", false) : "-",
                 cpu ? runs_of(records, spec.op, "cpu", true) : "-",
                 cell(row.cuda, why),
                 cuda ? runs_of(records, spec.op, "cuda", false) : "-",
                 cuda ? runs_of(records, spec.op, "cuda", true) : "-",
                 ascend ? branch_name(row.ascend_branch) : cell(row.ascend, why),
                 ascend ? runs_of(records, spec.op, "ascend", false) : "-",
                 ascend ? runs_of(records, spec.op, "ascend", true) : "-");
    }
  fmt::print("\n");
  for (size_t i = 0; i < why.size(); ++i) fmt::print("[{}] {}\n", i + 1, why[i]);
}

void print_table(const std::vector<ops::OpSpec>& specs) {
  fmt::print(
      "{:<20} {:<28} {:>5} {:>5} {:>7} {:>6}\n", "op", "kernel", "cpu", "cuda", "ascend", "cases");
  for (const ops::OpSpec& spec : specs)
    for (const ops::KernelRow& row : spec.kernels)
      fmt::print("{:<20} {:<28} {:>5} {:>5} {:>7} {:>6}\n",
                 spec.op,
                 row.kernel,
                 mark(row.cpu),
                 mark(row.cuda),
                 mark(row.ascend),
                 spec.cases.size());
  for (const std::string& reason : reasons(specs)) fmt::print("missing: {}\n", reason);
}

/// The fastest of several runs, after one that is not counted; about half a second in all.
double seconds_per_run(const ops::OpCase& c, Device& device) {
  const std::vector<Tensor> inputs = ops::make_inputs(c, device, 1);
  const Clock& clock = system_clock();
  const auto once = [&] {
    const double start_s = clock.monotonic_s();
    const std::vector<Tensor> outputs = c.run(inputs);
    device.stream().synchronize();
    return clock.monotonic_s() - start_s;
  };
  once();
  double best_s = once();
  const double until_s = clock.monotonic_s() + 0.5;
  while (clock.monotonic_s() < until_s) best_s = std::min(best_s, once());
  return best_s;
}

void bench(const std::vector<ops::OpSpec>& specs, const std::string& only) {
  Device& device = cpu_device();
  const FlushDenormals flush;
  fmt::print("{}; tier {}; forward pass; fastest run\n", device.describe(), to_string(cpu_tier()));
  fmt::print("{:<18} {:<52} {:>10} {:>9} {:>8}\n", "op", "case", "us", "GFLOP/s", "GB/s");
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ops::OpSpec& spec : specs) {
    if (!only.empty() && spec.op != only) continue;
    for (const ops::OpCase& c : spec.cases) {
      if (!c.benchmark) continue;
      const double s = seconds_per_run(c, device);
      const double gflops = c.flops / s * 1e-9;
      const double gbytes = c.bytes / s * 1e-9;
      fmt::print(
          "{:<18} {:<52} {:>10.1f} {:>9.1f} {:>8.1f}\n", spec.op, c.name, s * 1e6, gflops, gbytes);
      rows.push_back({{"op", spec.op},
                      {"case", c.name},
                      {"us", s * 1e6},
                      {"gflop_per_s", gflops},
                      {"gb_per_s", gbytes}});
    }
  }
  const nlohmann::ordered_json line = {{"command", "ops --bench"},
                                       {"tier", to_string(cpu_tier())},
                                       {"threads", cpu_pool().threads()},
                                       {"rows", rows}};
  fmt::print("{}\n", json_text(line));
}

}  // namespace

void add_ops_command(Command& program) {
  auto args = std::make_shared<OpsArgs>();
  Command command = program.add("ops", "Show which op has a kernel on which device; measure them");
  command.flag("--markdown", args->markdown, "As docs/ops.md");
  command.option("--runs", args->runs, "Of --markdown: records of runs, docs/ops_runs.txt");
  const Option bench_flag =
      command.flag("--bench", args->bench, "Time every op's benchmark shapes on the CPU");
  command.option("--op", args->only, "Of --bench: this op alone").needs(bench_flag);
  command.runs([args] {
    const std::vector<ops::OpSpec> specs = ops::all_op_specs();
    const auto named = [&](const ops::OpSpec& s) { return s.op == args->only; };
    if (!args->only.empty() && std::none_of(specs.begin(), specs.end(), named)) {
      return report(
          {Code::kInvalidInput,
           fmt::format("ops: there is no op \"{}\"; `ferry ops` lists them", args->only)});
    }
    if (args->bench) {
      bench(specs, args->only);
    } else if (args->markdown) {
      std::vector<ops::RunRecord> records;
      if (!args->runs.empty()) {
        Result<std::vector<ops::RunRecord>> read = ops::read_run_records(args->runs);
        if (!read) return report(read.error());
        records = *std::move(read);
      }
      print_markdown(specs, records);
    } else {
      print_table(specs);
    }
    return 0;
  });
}

}  // namespace ferry::cli
