#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "base/home_sign.h"
#include "base/result.h"
#include "base/version.h"
#include "cli/command.h"

namespace ferry::cli {
namespace {

constexpr const char* kHomeSign = "home sign";  // CLI11's name of the check

}  // namespace

Option& Option::required() {
  option_->required();
  return *this;
}
Option& Option::shows_default() {
  option_->capture_default_str();
  return *this;
}
Option& Option::among(const std::vector<std::string>& values) {
  option_->check(CLI::IsMember(values));
  return *this;
}
Option& Option::within(double least, double most) {
  option_->check(CLI::Range(least, most));
  return *this;
}
Option& Option::within_integers(int64_t least, int64_t most) {
  option_->check(CLI::Range(least, most));
  return *this;
}
Option& Option::size_in_bytes() {
  option_->transform(CLI::AsSizeValue(false));
  return shows_default();
}
Option& Option::once_per_value() {
  option_->allow_extra_args(false);
  return *this;
}
Option& Option::needs(const Option& other) {
  option_->needs(other.option_);
  return *this;
}
Option& Option::excludes(const Option& other) {
  option_->excludes(other.option_);
  return *this;
}
Option& Option::hidden() {
  option_->group("");
  return *this;
}
Option& Option::any_text() {
  option_->get_validator(kHomeSign)->active(false);
  return *this;
}
bool Option::given() const { return option_->count() > 0; }

Command Command::add(const std::string& name, const std::string& what) {
  app_->require_subcommand(1);
  return {app_->add_subcommand(name, what), status_};
}

template <typename T>
Option Command::option(const std::string& name, T& to, const std::string& what) {
  CLI::Option* const option = app_->add_option(name, to, what);
  // Read as it is written, a number below 0 would become a large one.
  if constexpr (std::is_unsigned_v<T>)
    option->check([](const std::string& text) {
      return text.starts_with('-') ? text + " is below 0" : std::string();
    });
  else if constexpr (!std::is_arithmetic_v<T>)
    option->check(CLI::Validator(
        [](const std::string& text) {
          const std::string problem = home_sign_problem(text);
          return problem.empty() ? problem : fmt::format("{}: {}", text, problem);
        },
        "",
        kHomeSign));
  return Option(option);
}
template Option Command::option(const std::string&, std::string&, const std::string&);
template Option Command::option(const std::string&, int32_t&, const std::string&);
template Option Command::option(const std::string&, int64_t&, const std::string&);
template Option Command::option(const std::string&, uint64_t&, const std::string&);
template Option Command::option(const std::string&, double&, const std::string&);
template Option Command::option(const std::string&, std::vector<std::string>&, const std::string&);

Option Command::flag(const std::string& name, bool& to, const std::string& what) {
  return Option(app_->add_flag(name, to, what));
}
void Command::allow_more() { app_->allow_extras(); }
std::vector<std::string> Command::remaining() const { return app_->remaining(); }

void Command::runs(std::function<int()> run) {
  app_->callback([run = std::move(run), status = status_] { *status = run(); });
}

int run_command_line(const std::string& what,
                     int argc,
                     char** argv,
                     const std::function<void(Command&)>& add) {
  CLI::App app(what, "ferry");
  int status = 0;
  app.set_version_flag("--version", fmt::format("ferry {}", kVersion), "print the version");
  Command root(&app, &status);
  add(root);
  const auto is_given = [&](const CLI::App* command) { return command->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::as_const(app).get_subcommands(is_given).empty())
    return report({Code::kInvalidInput,
                   fmt::format("{}: no such command; `ferry --help` lists them", argv[1])});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // help, or the version, was asked for
      static_cast<void>(app.exit(e));
      return report(flush_output());
    }
    std::string command;
    for (const CLI::App* at = &app; !at->get_subcommands().empty(); command += at->get_name() + " ")
      at = at->get_subcommands().front();
    return report({Code::kInvalidInput,
                   fmt::format("{}{}; `ferry {}--help` explains",
                               command.empty() ? "" : command.substr(0, command.size() - 1) + ": ",
                               e.what(),
                               command)});
  }
  return status;
}

}  // namespace ferry::cli
