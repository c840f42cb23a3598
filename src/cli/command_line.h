// The command line: subcommands, their options, help, and what is said of wrong ones. A cover over
// CLI11, whose header alone takes seconds to compile in each file that includes it.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace ferry::cli {

/// One option or argument. A handle: the command line owns it.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option& required();
  Option& shows_default();  // in the help: what its variable holds now
  /// Errors of these, on reading the command line: kInvalidInput, with the option's name.
  Option& among(const std::vector<std::string>& values);
  Option& within(double least, double most);
  Option& within(std::integral auto least, std::integral auto most) {
    return within_integers(static_cast<int64_t>(least), static_cast<int64_t>(most));
  }
  Option& size_in_bytes();   // takes 64K, 10MB too; shows its default
  Option& once_per_value();  // takes one value at a time, and can be given several times
  Option& needs(const Option& other);
  Option& excludes(const Option& other);
  Option& hidden();  // not for people
  /// For text that is no path: a path that begins with "~" is refused (base/home_sign.h), text may.
  Option& any_text();

  bool given() const;

 private:
  Option& within_integers(int64_t least, int64_t most);

  CLI::Option* option_;
};

/// One (sub)command. A handle: the command line owns it.
class Command {
 public:
  Command(CLI::App* app, int* status) : app_(app), status_(status) {}

  /// A command below this one, of which one must be given.
  Command add(const std::string& name, const std::string& what);

  /// "--name" or, for an argument by its place, "name"; the value goes to `to`. T: std::string,
  /// int32_t, int64_t, uint64_t, double, std::vector<std::string> (one or more).
  template <typename T>
  Option option(const std::string& name, T& to, const std::string& what = "");
  /// Sets `to` to true, "!--name" to false.
  Option flag(const std::string& name, bool& to, const std::string& what = "");
  /// What is not understood is left for remaining(), in order.
  void allow_more();
  std::vector<std::string> remaining() const;

  /// What the command does once the line is read; its exit status.
  void runs(std::function<int()> run);

 private:
  CLI::App* app_;
  int* status_;  // of the process
};

/// Builds the command line with `add`, reads it, does what it says.
/// Returns the exit status: of the command; 0 where help was asked for; 2 where the line is wrong.
int run_command_line(const std::string& what,
                     int argc,
                     char** argv,
                     const std::function<void(Command&)>& add);

}  // namespace ferry::cli
