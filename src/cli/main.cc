// ferry: one program, one subcommand for each thing it does.
#include <fmt/core.h>
#include <sys/prctl.h>

#include <csignal>
#include <exception>
#include <new>
#include <system_error>

#include "base/check.h"
#include "base/descriptors.h"
#include "base/mapped_faults.h"
#include "base/stopping.h"
#include "base/threads.h"
#include "cli/bench_serve_command.h"
#include "cli/bench_train_command.h"
#include "cli/chat_command.h"
#include "cli/command.h"
#include "cli/command_line.h"
#include "cli/convert_command.h"
#include "cli/data_command.h"
#include "cli/doctor_command.h"
#include "cli/eval_command.h"
#include "cli/generate_command.h"
#include "cli/goodput_command.h"
#include "cli/launch_command.h"
#include "cli/logits_command.h"
#include "cli/ops_command.h"
#include "cli/passport_command.h"
#include "cli/score_command.h"
#include "cli/serve_command.h"
#include "cli/status_command.h"
#include "cli/tasks_command.h"
#include "cli/tokenizer_command.h"
#include "cli/train_command.h"
#include "cli/verify_command.h"
#include "device/device.h"

namespace {

void add_commands(ferry::cli::Command& program) {
  using namespace ferry::cli;
  add_tokenizer_command(program);
  add_data_command(program);
  add_train_command(program);
  add_rl_command(program);
  add_launch_command(program);
  add_goodput_command(program);
  add_bench_serve_command(program);
  add_bench_train_command(program);
  add_eval_command(program);
  add_generate_command(program);
  add_chat_command(program);
  add_serve_command(program);
  add_logits_command(program);
  add_convert_command(program);
  add_ops_command(program);
  add_status_command(program);
  add_passport_command(program);
  add_score_command(program);
  add_tasks_command(program);
  add_verify_command(program);
  add_doctor_command(program);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace ferry;
  const FlushDenormals flush;
  // A worker is executed as /proc/self/exe, which ps and top would call "exe".
  ::prctl(PR_SET_NAME, "ferry");
  if (!hold_standard_descriptors())
    return cli::report({Code::kUnavailable,
                        "/dev/null: cannot be opened, to stand for standard input, output or error "
                        "that the caller closed"});
  int status = 0;
  // A file that may not grow any more (ulimit -f) is an error of the write, to be told, not the end.
  std::signal(SIGXFSZ, SIG_IGN);
  tell_of_mapped_faults();
  // The end of a child is to be heard of, whatever the caller ignores.
  std::signal(SIGCHLD, SIG_DFL);
  try {
    status = cli::run_command_line(
        "Trains DeepSeek-style models and looks at them.", argc, argv, add_commands);
  } catch (const DeviceError& e) {
    return cli::report({Code::kUnavailable, e.what()});
  } catch (const Bug& e) {
    cli::tell(fmt::format(
        "ferry: a bug in Ferry: {}\nPlease report it with the command that you gave.", e.what()));
    return 3;
  } catch (const std::system_error& e) {  // fmt's, when standard output cannot be written
    return cli::report({Code::kExhausted, e.what()});
  } catch (const std::bad_alloc&) {
    return cli::report(
        {Code::kExhausted, "out of memory; choose smaller inputs or a larger machine"});
  } catch (const std::exception& e) {  // of a library, where nothing of the kind was expected
    cli::tell(fmt::format(
        "ferry: a bug in Ferry: {}\nPlease report it with the command that you gave.", e.what()));
    return 3;
  }
  if (status != 0) end_as_by_stop_signal();
  return status == 0 ? cli::report(cli::flush_output()) : status;
}
