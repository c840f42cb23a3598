#include "cli/status_command.h"

#include <fmt/core.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "train/run_status.h"

namespace ferry::cli {
namespace {

constexpr double kAgainS = 1;

struct Arguments {
  std::string folder;
  bool watch = false, json = false;
};

/// The last step's figures and the newest checkpoint; the supervisor's word as it left it.
nlohmann::ordered_json json_of(const RunView& view) {
  nlohmann::ordered_json j = {{"run", view.folder}};
  if (view.status) j["status"] = nlohmann::ordered_json::parse(to_json(*view.status));
  if (view.supervised) j["supervised"] = *view.supervised;
  if (!view.metrics.steps.empty())
    j["step"] = nlohmann::ordered_json::parse(to_json_line(view.metrics.steps.back()));
  if (!view.metrics.held_out.empty())
    j["held_out"] = nlohmann::ordered_json::parse(to_json_line(view.metrics.held_out.back()));
  if (view.newest_checkpoint) j["newest_checkpoint"] = *view.newest_checkpoint;
  if (!view.unread.empty()) j["unread"] = view.unread;
  return j;
}

/// Until the run ends, or somebody interrupts; each look over the one before.
Result<void> watch(const std::string& folder, const Terminal& terminal) {
  RunViewer viewer(folder);
  for (size_t shown = 0;;) {
    TRY_ASSIGN(const RunView view, viewer.look());
    const int columns = terminal.columns();
    const std::vector<std::string> lines = lines_of(view, system_clock().unix_ms(), columns);
    fmt::print("{}", lines_off(shown));
    const bool over =
        view.status && (view.status->exit_code || (view.supervised && !*view.supervised));
    for (const std::string& line : lines)
      fmt::print("{}\n", over ? line : cut_to_width(line, columns));  // a command is read whole
    TRY(flush_output());
    if (over) return {};
    shown = lines.size();
    sleep_s(kAgainS);
  }
}

Result<void> status(const Arguments& args) {
  const Terminal terminal = Terminal::of(stdout);
  if (args.watch && args.json)
    return fail(Code::kInvalidInput, "--watch is for people: give it or --json");
  if (args.watch && !terminal.rewrites())
    return fail(Code::kInvalidInput,
                "--watch writes over what it wrote, which needs a terminal: leave it out");
  if (args.watch) return watch(args.folder, terminal);
  TRY_ASSIGN(const RunView view, look_at_run(args.folder));
  if (args.json) return print_json(json_of(view));
  for (const std::string& line : lines_of(view, system_clock().unix_ms(), 0))
    fmt::print("{}\n", line);
  return flush_output();
}

}  // namespace

void add_status_command(Command& program) {
  Command command =
      program.add("status", "What a run is at: its step, its processes, what befell it");
  const auto args = std::make_shared<Arguments>();
  command.option("run", args->folder, "the run's folder (checkpoint.dir)").required();
  command.flag("--watch", args->watch, "look again each second, until it ends or Ctrl-C");
  command.flag("--json", args->json, "one line of JSON, for programs");
  command.runs([args] { return report(status(*args)); });
}

}  // namespace ferry::cli
