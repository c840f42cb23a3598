#include "cli/launch_command.h"

#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/train_command.h"

namespace ferry::cli {
namespace {

constexpr int32_t kRanksMax = 64;  // each pair of them is a connection

struct Arguments {
  int32_t ranks = 0;
  std::vector<std::string> words;  // of the command that is launched
};

int launch(Arguments& args) {
  if (args.words.front() != "train")
    return report({Code::kInvalidInput,
                   fmt::format("launch: {}: only train runs as several processes: `ferry launch -n "
                               "{} -- train CONFIG ...`",
                               args.words.front(),
                               args.ranks)});
  std::string program = "ferry";
  std::vector<char*> argv = {program.data()};
  for (std::string& word : args.words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return run_command_line("Trains by several processes.",
                          static_cast<int>(argv.size()) - 1,
                          argv.data(),
                          [&](Command& command) { add_ranked_train_command(command, args.ranks); });
}

}  // namespace

void add_launch_command(Command& program) {
  Command command = program.add(
      "launch",
      "Run a command as several processes of this machine: ferry launch -n 2 -- train CONFIG ...");
  const auto args = std::make_shared<Arguments>();
  command.option("-n,--ranks", args->ranks, "how many processes").within(1, kRanksMax).required();
  command.option("command", args->words, "train, with its arguments, behind --").required();
  command.runs([args] { return launch(*args); });
}

}  // namespace ferry::cli
