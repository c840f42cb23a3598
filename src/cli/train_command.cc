#include "cli/train_command.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/alive.h"
#include "base/child_process.h"
#include "base/clock.h"
#include "base/counted.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/flight_record.h"
#include "base/input_file.h"
#include "base/patient_output.h"
#include "base/shell.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/examinations.h"
#include "comm/rejoining.h"
#include "comm/rendezvous.h"
#include "data/manifest.h"
#include "device/device.h"
#include "rl/loop.h"
#include "train/config_check.h"
#include "train/corruption_guard.h"
#include "train/loop.h"
#include "train/model_setup.h"
#include "train/run_status.h"
#include "train/run_texts.h"
#include "train/supervisor.h"
#include "train/worker_crew.h"

namespace ferry::cli {
namespace {

std::atomic<bool> g_stop{false};
std::atomic<bool> g_not_heeded{false};  // a rank was sent SIGTERM

void on_stop(int) { g_stop = true; }
/// Who alone is told to stop cannot: all ranks stop after the same step, and the launcher, which whoever stops a run
/// reaches, tells them to by another signal.
void on_rank_stop(int) { g_not_heeded = true; }

void answer(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  ::sigaction(signal, &action, nullptr);
}

constexpr double kStatusPatienceS =
    5;  // of a run that has ended, for its last word to be on the disk

struct Arguments {
  std::string config;
  std::string device;
  bool resume = false, print_config = false, worker = false, again = false, handed = false;
  bool ranked = false, in_place = false, stopping = false;
  int64_t replay_to = 0;
  int ranks = 1;
};

/// What a kind of run is called, and how it goes. go() gives what the command's last line says.
struct Outcome {
  TrainResult run;
  nlohmann::ordered_json more;  // of this kind of run
};
struct Kind {
  const char* name;
  const char* what;
  Result<Outcome> (*go)(const Settings&, const TrainOptions&);
};

Result<Outcome> go_training(const Settings& settings, const TrainOptions& options) {
  TRY_ASSIGN(TrainResult run, train(settings, options));
  return Outcome{std::move(run), nlohmann::ordered_json::object()};
}

Result<Outcome> go_learning(const Settings& settings, const TrainOptions& options) {
  TRY_ASSIGN(rl::Learnt learnt, rl::learn(settings, options));
  Outcome out{std::move(learnt.run), nlohmann::ordered_json::object()};
  if (learnt.score_before) out.more["score_before"] = *learnt.score_before;
  if (learnt.score_after) out.more["score_after"] = *learnt.score_after;
  if (learnt.reward) out.more["reward"] = *learnt.reward;
  out.more["steps"] = out.run.step;
  out.more["logprobs_compared"] = learnt.compared;
  out.more["logprob_mismatches"] = learnt.mismatches;
  if (learnt.program_failed) out.more["program_failed"] = *learnt.program_failed;
  if (learnt.rollout_kl) out.more["rollout_kl"] = *learnt.rollout_kl;
  if (learnt.rollout_ratio_max) out.more["rollout_ratio_max"] = *learnt.rollout_ratio_max;
  return out;
}

constexpr Kind kTrain{"train",
                      "Train a model as a TOML file says; any setting can be given as "
                      "--section.key=value",
                      go_training};
constexpr Kind kRl{
    "rl",
    "Let a model learn from tasks by reinforcement, as a TOML file says; any setting "
    "can be given as --section.key=value",
    go_learning};

Result<void> print_result(const Outcome& outcome) {
  const TrainResult& r = outcome.run;
  nlohmann::ordered_json j;
  if (!r.model_dir.empty()) j["model_dir"] = r.model_dir;
  if (!r.adapter.empty()) j["adapter"] = r.adapter;
  j["step"] = r.step;
  j["stopped"] = r.stopped;
  if (r.loss) j["loss"] = *r.loss;
  if (r.held_out_bits_per_byte) j["held_out_bits_per_byte"] = *r.held_out_bits_per_byte;
  if (r.held_out_accuracy) j["held_out_accuracy"] = *r.held_out_accuracy;
  if (r.held_out_margin) j["held_out_margin"] = *r.held_out_margin;
  if (r.tokens_per_s) j["tokens_per_s"] = *r.tokens_per_s;
  if (r.mfu) j["mfu"] = *r.mfu;
  j["seconds"] = r.seconds;
  if (r.rewinds > 0) j["rewinds"] = r.rewinds;
  if (r.rewinds > 0) j["skipped_tokens"] = r.skipped_tokens;
  if (r.ranks > 1) j["ranks"] = r.ranks;
  if (r.sent_bytes_per_step) j["sent_bytes_per_step"] = *r.sent_bytes_per_step;
  if (r.exchange_share) j["exchange_share"] = *r.exchange_share;
  if (r.corruption_checks_share) j["corruption_checks_share"] = *r.corruption_checks_share;
  j.update(outcome.more);
  j["peak_mb"] = static_cast<double>(memory_peak_bytes()) / 1e6;
  return print_json(j);
}

constexpr const char* kWhatToLower =
    "lower train.micro_batch_tokens, or set train.recompute to \"layers\"";

/// The worker's exit status for a failure that has been told.
int status_of(const Status& why) {
  return why.code == Code::kExhausted ? supervisor::kUseless : exit_status(why.code);
}

/// The command that goes on with this run: its settings are in the file and in the overrides, and
/// without one of them it would be another run.
std::string resuming(const Kind& kind,
                     const Arguments& args,
                     const std::vector<std::string>& overrides,
                     int ranks) {
  // What came through a pipe cannot be read again: it must be given a second time.
  std::error_code none;
  const std::string config = std::filesystem::is_regular_file(args.config, none)
                                 ? shell_quoted(args.config)
                                 : "CONFIG.toml";
  std::string command = fmt::format("{}{} {} {}",
                                    shell_quoted(::program_invocation_name),
                                    ranks > 1 ? fmt::format(" launch -n {} --", ranks) : "",
                                    kind.name,
                                    config);
  for (const std::string& o : overrides) command += " " + shell_quoted(o);
  return command + " --resume";
}

/// The same for whoever reads it in another folder.
std::string from_here(const std::string& command) {
  std::error_code gone;
  const std::string here = std::filesystem::current_path(gone).string();
  return gone ? command : fmt::format("cd {} && {}", shell_quoted(here), command);
}

supervisor::Settings rules_of(const SupervisorSettings& s, std::string go_on) {
  return {.failures_max = static_cast<int>(s.restarts),
          .start_patience_s = s.start_patience_s,
          .step_patience_s = s.step_patience_s,
          .evaluate_patience_s = s.evaluate_patience_s,
          .save_patience_s = s.save_patience_s,
          .patience_intervals = s.patience_intervals,
          .hang_verdict_s = s.hang_verdict_s,
          .hang_patience_s = s.hang_patience_s,
          .stop_patience_s = s.stop_patience_s,
          .go_on = std::move(go_on)};
}

/// A limit of CPU time that ends without a warning (`ulimit -t` sets both limits alike) becomes one
/// that warns: there must be time to save.
void be_warned_of_the_cpu_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_CPU, &limit) != 0 || limit.rlim_max == RLIM_INFINITY) return;
  constexpr rlim_t kToSaveInS = 300;
  limit.rlim_cur =
      std::min(limit.rlim_cur, limit.rlim_max - std::min(limit.rlim_max / 4, kToSaveInS));
  ::setrlimit(RLIMIT_CPU, &limit);
}

/// What a worker works by, and with which others.
struct Task {
  Settings settings;
  std::unique_ptr<comm::Rejoining> ranks;
};

/// A rank's place among the others, for as long as it lives. At the beginning it is waited for as long as a start may
/// take; later for as long as it takes, for others may be in the middle of what is theirs to finish.
Result<std::unique_ptr<comm::Rejoining>> meet(const Arguments& args,
                                              const SupervisorSettings& settings,
                                              const supervisor::Pulse& pulse) {
  const auto meetings =
      std::make_shared<comm::Meetings>(ChildProcess::kLentFd, ChildProcess::kToldFd);
  double patience_s =
      args.in_place ? std::numeric_limits<double>::infinity() : settings.start_patience_s;
  const auto join = [meetings, patience_s](const comm::Waiting& waiting) mutable {
    return meetings->next(std::exchange(patience_s, std::numeric_limits<double>::infinity()),
                          waiting);
  };
  return comm::Rejoining::begin(join, [&](int peer) {
    // Before it has a ticket it waits for none of them.
    if (args.in_place && peer >= 0)
      pulse.beat({.work = supervisor::Work::kTakingPlace, .waits_for = peer});
  });
}

/// A supervisor hands what it read: the files may have been edited since, or were pipes.
Result<Task> task_of_worker(const Arguments& args,
                            const std::vector<std::string>& overrides,
                            const supervisor::Pulse& pulse) {
  Task task;
  if (!args.handed) {
    TRY_ASSIGN(task.settings, read_settings(args.config, overrides));
    return task;
  }
  TRY_ASSIGN(const std::string handed, ChildProcess::take_handed());
  TRY_ASSIGN(const RunTexts texts, RunTexts::of_handed(handed));
  TRY_ASSIGN(task.settings, texts.parse(args.config, overrides));
  if (args.ranked) {
    TRY_ASSIGN(task.ranks, meet(args, task.settings.supervisor, pulse));
  }
  return task;
}

/// Who of a run speaks of what: rank 0 of what all of them come to, each of what befell it alone.
class Speaker {
 public:
  explicit Speaker(const comm::Communicator* ranks) : rank_(ranks != nullptr ? ranks->rank() : 0) {
    if (ranks != nullptr && ranks->ranks() > 1) alone_ = fmt::format("rank {}: ", rank_);
  }
  bool first() const { return rank_ == 0; }
  void of_all(const Status& why) const {
    if (first()) report(why);
  }
  void of_this(const Status& why) const { report({why.code, named(why.message)}); }
  std::string named(const std::string& what) const { return alone_ + what; }

 private:
  int rank_;
  std::string alone_;
};

/// What was sent to one rank alone is told. Whoever stops all of a run's processes at once reaches the launcher a
/// moment later, and means no rank.
class NotHeeded {
 public:
  void look(const Speaker& speaker) {
    if (!g_not_heeded || g_stop) return;
    const double now_s = system_clock().monotonic_s();
    if (seen_s_ < 0) seen_s_ = now_s;
    if (now_s - seen_s_ < kMomentS) return;
    g_not_heeded = false;
    seen_s_ = -1;
    if (!said_) said_.emplace(stderr);
    said_->write(
        "ferry: " +
        speaker.named(fmt::format(
            "SIGTERM was sent to this process alone, which goes on: the run is stopped by a "
            "signal to its launcher, process {}; a rank is ended by SIGKILL, and has a successor\n",
            ::getppid())));
  }

 private:
  static constexpr double kMomentS = 1;
  double seen_s_ = -1;
  std::optional<PatientOutput> said_;  // a terminal that stands still must not make it silent
};

/// The process that trains. It leaves with 0 when it is done or was stopped, having saved.
int work(const Kind& kind, const Arguments& args, const std::vector<std::string>& overrides) {
  if (args.stopping) g_stop = true;
  if (args.ranked) answer(supervisor::rank_stop_signal(), on_stop);
  answer(SIGTERM, args.ranked ? on_rank_stop : on_stop);
  answer(SIGXCPU, on_stop);  // a process limit's warning is this process's own
  be_warned_of_the_cpu_limit();
  const Result<supervisor::Pulse> pulse = supervisor::Pulse::open(true);
  if (!pulse) return report(pulse.error());
  static_cast<void>(flight::adopt(ChildProcess::kFlightFd));  // not there: a hang gets no verdict
  const Result<Task> task = task_of_worker(args, overrides, *pulse);
  if (!task) return report(task.error());
  const Settings& settings = task->settings;
  const Speaker speaker(task->ranks.get());
  if (task->ranks) set_fault_rank(task->ranks->rank());
  // One log: what the others would say of the same run is said already.
  if (!speaker.first() && std::freopen("/dev/null", "w", stdout) == nullptr)
    return report({Code::kUnavailable, fmt::format("/dev/null: {}", std::strerror(errno))});
  std::mutex mutex;
  supervisor::Heartbeat last;
  NotHeeded not_heeded;
  const auto beat = [&](const supervisor::Heartbeat& b) {
    const std::lock_guard lock(mutex);
    pulse->beat(last = b);
    not_heeded.look(speaker);
  };
  // What is said at the end may wait for a reader: no hang, and no reason to do the run again.
  std::optional<WaitingForPeople> speaking;
  std::optional<flight::In> leaving;
  const auto done = [&] {
    leaving.emplace(flight::Activity::kLeaving);
    speaking.emplace([&] {
      const std::lock_guard lock(mutex);
      pulse->beat(last);
    });
  };
  try {
    for (const std::string& name : {settings.train.device, settings.rl.rollout_device})
      if (const Result<Device*> device = name.empty() ? nullptr : open_device(name);
          device && *device != nullptr && !args.again && !args.in_place && speaker.first())
        warn_unexamined(**device);
    const Result<Outcome> result = kind.go(settings,
                                           {.resume = args.resume,
                                            .follows = args.again,
                                            .stop = &g_stop,
                                            .beat = beat,
                                            .replay_to = args.replay_to,
                                            .ranks = task->ranks.get(),
                                            .takes_place = args.in_place});
    done();
    if (!result) {
      speaker.of_all(result.error());
      return status_of(result.error());
    }
    if (!speaker.first()) return 0;
    if (result->run.stopped) {
      const std::string command =
          resuming(kind, args, overrides, task->ranks ? task->ranks->ranks() : 1);
      const std::string line =
          fmt::format("stopped    after step {}; go on with: {}\n", result->run.step, command);
      std::fputs(line.c_str(), stdout);
    }
    // What the run made is in its folder: it is done even if nobody reads of it any more.
    const Result<void> printed = printed_besides(print_result(*result));
    if (printed) return 0;
    report(printed.error());
    return status_of(printed.error());
  } catch (const comm::LinkError& e) {
    done();
    if (!e.gone()) report({Code::kUnavailable, e.what()});  // or who saw it end says how
    return supervisor::kLinkFailed;
  } catch (const Spoiled& e) {
    done();
    speaker.of_this({Code::kUnavailable, e.what()});
    return supervisor::kSpoiled;
  } catch (const StateLost& e) {
    done();
    speaker.of_this({Code::kUnavailable, e.what()});
    return supervisor::kStateLost;
  } catch (const OutOfDeviceMemory& e) {
    done();
    speaker.of_this({Code::kExhausted, fmt::format("{}; {}", e.what(), kWhatToLower)});
    return supervisor::kOutOfMemory;
  } catch (const std::bad_alloc&) {
    done();
    speaker.of_this({Code::kExhausted, fmt::format("out of memory; {}", kWhatToLower)});
    return supervisor::kOutOfMemory;
  } catch (const DeviceError& e) {
    done();
    speaker.of_this({Code::kUnavailable, e.what()});
    return supervisor::kDeviceFailed;
  }
}

/// Whether the settings can be trained under by so many processes.
Result<void> check_ranks(const Settings& settings, int ranks) {
  const TrainSettings& t = settings.train;
  if (ranks == 1) return {};
  if (!settings.dpo.pairs.empty())
    return fail(
        Code::kInvalidInput,
        "dpo.pairs is set: pairs of answers are learnt from by one process; leave launch -n {} "
        "out",
        ranks);
  if (t.device != "cpu")
    return fail(Code::kInvalidInput,
                "train.device {}: several ranks train on the cpu alone; leave launch -n {} out",
                t.device,
                ranks);
  const int64_t micro_batches = t.tokens_per_step / t.micro_batch_tokens;
  if (micro_batches < ranks)
    return fail(
        Code::kInvalidInput,
        "launch -n {}: a step has {} (train.tokens_per_step {} / "
        "train.micro_batch_tokens {}), and each rank needs one: give -n {} at most, or lower "
        "train.micro_batch_tokens",
        ranks,
        counted(micro_batches, "micro-batch", "micro-batches"),
        t.tokens_per_step,
        t.micro_batch_tokens,
        micro_batches);
  return {};
}

/// What is refused when a run begins is refused here, as far as it does not hang on what the run learns from.
Result<void> print_config(const RunTexts& texts,
                          const std::string& name,
                          std::span<const std::string> overrides) {
  TRY_ASSIGN(Settings settings, parse_settings_to_print(texts.settings, name, overrides));
  if (!settings.model.config.empty()) {  // once: it may be a pipe
    TRY_ASSIGN(settings.model.config_text, read_input(settings.model.config, kConfigJsonBytesMax));
  }
  RunData data{.setting = "data.dir", .vocab_size = 2};
  if (!settings.data.dir.empty())
    if (Result<RunData> announced = RunData::announced(settings.data.dir); announced)
      data = *std::move(announced);
  TRY(check_model(settings, data, DeviceKind::kCpu));
  TRY_ASSIGN(const nlohmann::ordered_json base, named_architecture(settings.model));
  fmt::print("{}", print_settings(settings, base));
  return {};
}

int run(const Kind& kind, const Arguments& args, std::vector<std::string> overrides) {
  for (const std::string& o : overrides)
    if (!o.starts_with("--") || o.find('=') == std::string::npos)
      return report(
          {Code::kInvalidInput,
           fmt::format("{}: not understood; settings are given as --section.key=value", o)});
  if (!args.device.empty()) overrides.push_back("--train.device=" + args.device);
  if (args.worker) return work(kind, args, overrides);
  set_fault_rank(-1);  // a supervisor is none
  Result<RunTexts> texts = RunTexts::read(args.config);
  if (!texts) return report(texts.error());
  if (args.print_config) return report(print_config(*texts, args.config, overrides));
  const Result<Settings> settings = texts->parse(args.config, overrides);
  if (!settings) return report(settings.error());
  if (const Result<void> fits = check_ranks(*settings, args.ranks); !fits)
    return report(fits.error());
  if (const Result<void> named = texts->read_named(*settings); !named) return report(named.error());
  // Between two workers nobody else would hold it. What is wrong with it the worker says.
  const Result<FileHold> data =
      FileHold::shared(join_path(settings->data.dir, data::kManifestFile));
  supervisor::Command command{.program = "/proc/self/exe",
                              .name = ::program_invocation_name,
                              .first = {kind.name, args.config, "--worker", "--handed"},
                              .again = {},
                              .replay = "--replay-to",
                              .handed = texts->handed(),
                              .ranks = args.ranks,
                              .ranked = "--ranked",
                              .replacing = "--in-place",
                              .stopping = "--stopping"};
  command.first.insert(command.first.end(), overrides.begin(), overrides.end());
  command.again = command.first;
  command.again.emplace_back("--resume");
  if (args.resume) command.first = command.again;
  command.again.emplace_back("--again");
  // The supervisor acts whether or not anybody reads what it says.
  PatientOutput said(stderr);
  const auto tell_patiently = [&said](std::string_view text) {
    said.write(fmt::format("{}\n", text));
  };
  const auto not_shown = [](const Status& why) {
    tell(fmt::format("ferry: what `ferry status` shows could not be written: {}", why.message));
  };
  const Result<std::unique_ptr<RunStatusFile>> file =
      RunStatusFile::open(settings->checkpoint.dir, not_shown);
  if (!file) not_shown(file.error());
  const std::string go_on = resuming(kind, args, overrides, args.ranks);
  const RunStatus shown{.began_unix_ms = system_clock().unix_ms(),
                        .pid = ::getpid(),
                        .process_began = process_began(::getpid()).value_or(0),
                        .process_namespace = process_namespace(),
                        .host = host_name(),
                        .steps = settings->train.steps,
                        .go_on = from_here(go_on)};
  const std::string status_path = join_path(settings->checkpoint.dir, kRunStatusName);
  // What goes on with a run shows so while it loads; until then anything else may be refused, and leaves what it found.
  const std::string found =
      args.resume && path_exists(status_path) ? read_file(status_path).value_or("") : "";
  bool ran = false, shows = false;
  const int status = supervisor::supervise(
      command,
      rules_of(settings->supervisor, go_on),
      system_clock(),
      tell_patiently,
      shown,
      [&](int64_t pid) {
        if (file) (*file)->add_worker(pid);
      },
      [&](const RunStatus& now) {
        ran = ran || now.stage == "running" || now.verdict;
        if (!file || (!ran && found.empty())) return;
        shows = true;
        (*file)->put(now);
      });
  const bool written = !file || (*file)->flush(kStatusPatienceS);
  if (!written)
    tell_patiently("ferry: what `ferry status` shows is not written yet: the disk stands still");
  if (status == 2 && !ran && shows && written) {
    const Result<bool> ours = (*file)->ours();
    if (!ours) not_shown(ours.error());
    if (ours.value_or(false))
      if (const Result<void> restored = write_file_atomic(status_path, found); !restored)
        not_shown(restored.error());
  }
  while (!said.flush(3600)) {
  }
  return status;
}

void add_run_command(Command& program, const Kind& kind, int ranks = 1) {
  Command command = program.add(kind.name, kind.what);
  const auto args = std::make_shared<Arguments>();
  args->ranks = ranks;
  command.option("config", args->config, "settings, a TOML file").required();
  command.flag("--resume", args->resume, "go on from the newest checkpoint of checkpoint.dir");
  command.flag(
      "--print-config", args->print_config, "print all settings as they would be used, and leave");
  command.option(
      "--device", args->device, "as --train.device: cpu, cuda[:N], cuda-tensor[:N], ascend[:N]");
  command.flag("--worker", args->worker).hidden();      // the supervised process; not for people
  command.flag("--handed", args->handed).hidden();      // by the supervisor, its settings
  command.flag("--ranked", args->ranked).hidden();      // one of several, which find each other
  command.flag("--in-place", args->in_place).hidden();  // of a rank that is lost
  command.flag("--stopping", args->stopping).hidden();  // in a run that was told to stop
  command.flag("--again", args->again).hidden();        // a worker that follows another
  command.option("--replay-to", args->replay_to).hidden();  // after a device's failure
  command.allow_more();
  command.runs([command, args, kind] { return run(kind, *args, command.remaining()); });
}

}  // namespace

void add_train_command(Command& program) { add_run_command(program, kTrain); }
void add_rl_command(Command& program) { add_run_command(program, kRl); }
void add_ranked_train_command(Command& program, int ranks) {
  add_run_command(program, kTrain, ranks);
}

}  // namespace ferry::cli
