#include "cli/goodput_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "cli/command.h"
#include "cli/goodput_page.h"
#include "cli/output_file.h"
#include "cluster/goodput_plot.h"
#include "cluster/projection.h"

namespace ferry::cli {
namespace {

struct Arguments {
  std::string measured, published, page, svg;
  std::vector<std::string> chips = {"64", "1024", "10000", "16384", "100000"}, assumed;
  bool json = false;
};

/// In their order, each once. Errors: kInvalidInput.
Result<std::vector<double>> scales_of(const std::vector<std::string>& texts) {
  constexpr double kChipsMax = 1e9;
  std::vector<double> scales;
  for (const std::string& text : texts) {
    int64_t n = 0;
    const char* const end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, n);
    if (error != std::errc() || stopped != end || n < 1 || static_cast<double>(n) > kChipsMax)
      return fail(Code::kInvalidInput,
                  "--chips {}: must be a whole number from 1 to {:.0f}",
                  text,
                  kChipsMax);
    scales.push_back(static_cast<double>(n));
  }
  std::sort(scales.begin(), scales.end());
  scales.erase(std::unique(scales.begin(), scales.end()), scales.end());
  return scales;
}

nlohmann::ordered_json json_of(const cluster::AtScale& scale, const cluster::Published& published) {
  const cluster::AtRate& first = scale.rates[0];
  nlohmann::ordered_json rates = nlohmann::ordered_json::object();
  for (size_t r = 0; r < scale.rates.size(); ++r) {
    const cluster::AtRate& a = scale.rates[r];
    rates[published.rates[r].name] = {{"mtbf_s", a.mtbf_s},
                                      {"goodput", a.usual.share},
                                      {"goodput_worst", a.worst.share},
                                      {"with_overhead", a.with_overhead}};
  }
  nlohmann::ordered_json theirs = nlohmann::ordered_json::object();
  for (size_t i = 0; i < scale.recoveries.size(); ++i)
    theirs[published.recoveries[i].name] = scale.recoveries[i].share;
  return {{"chips", static_cast<int64_t>(scale.chips)},
          {"failures_as_of", published.rates[0].name},
          {"mtbf_s", first.mtbf_s},
          {"goodput", first.usual.share},
          {"goodput_worst", first.worst.share},
          {"with_overhead", first.with_overhead},
          {"outages", first.usual.outages},
          {"made_again", first.usual.made_again},
          {"from_disk_per_day", first.usual.from_disk_per_day},
          {"first_order", first.usual.first_order},
          {"rates", std::move(rates)},
          {"with_recovery_of", std::move(theirs)}};
}

Result<void> goodput(const Arguments& args) {
  TRY(check_output_path(args.page, OutputKind::kPage));
  TRY(check_output_path(args.svg, OutputKind::kPlot));
  TRY_ASSIGN(const std::vector<double> chips, scales_of(args.chips));
  if (chips.size() < 2 && !(args.page.empty() && args.svg.empty()))
    return fail(Code::kInvalidInput, "--page and --svg need two values of --chips at least");
  TRY_ASSIGN(const cluster::Measured measured, cluster::read_measured(args.measured));
  TRY_ASSIGN(cluster::Published published, cluster::read_published(args.published));
  for (const std::string& text : args.assumed) TRY(cluster::assume(published, text));
  std::vector<cluster::AtScale> scales;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const double n : chips) {
    scales.push_back(cluster::project(measured, published, n));
    all.push_back(json_of(scales.back(), published));
  }
  if (!args.page.empty() || !args.svg.empty()) {
    const std::string svg = cluster::goodput_svg(measured, published, chips.front(), chips.back());
    if (!args.svg.empty()) TRY(write_file_atomic(args.svg, svg));
    if (!args.page.empty())
      TRY(write_file_atomic(args.page, goodput_page(measured, published, scales, svg)));
  }
  if (!args.json)
    for (const std::string& line : goodput_lines(measured, published, scales))
      fmt::print("{}\n", line);
  return print_json({{"steady_overhead", cluster::steady_overhead(measured, published.assumptions)},
                     {"scales", std::move(all)}});
}

}  // namespace

void add_goodput_command(Command& program) {
  Command command = program.add("goodput",
                                "Project the share of time in which a run makes steps to many "
                                "chips, from measured recoveries");
  const auto args = std::make_shared<Arguments>();
  command.option("--measured", args->measured, "what recoveries took: a file of tools/goodput.py")
      .required();
  command
      .option(
          "--published",
          args->published,
          "rates of failures, others' figures, assumptions: configs/goodput.json, or one like it")
      .required();
  command.option("--chips", args->chips, "a scale; may be given several times")
      .once_per_value()
      .shows_default();
  command.option("--assume", args->assumed, "NAME=VALUE: another assumption than the file's")
      .once_per_value();
  command.option("--page", args->page, "write plot, tables and sources here, as HTML");
  command.option("--svg", args->svg, "write the plot alone here");
  command.flag("--json", args->json, "the line of JSON alone");
  command.runs([args] { return report(goodput(*args)); });
}

}  // namespace ferry::cli
