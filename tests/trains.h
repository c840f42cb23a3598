// The built program training a tiny model in a folder of its own: what tests of whole runs share.
#pragma once

#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <system_error>

#include "program.h"
#include "run_trace.h"

namespace ferry::program {

constexpr int kSteps = 16;

inline constexpr const char* kRun = R"([data]
sequence_length = 64
[train]
tokens_per_step = 256
micro_batch_tokens = 256
evaluate_every = 4
evaluate_tokens = 512
[schedule]
warmup_steps = 2
[checkpoint]
every = 2
[log]
every = 1
)";

/// A chat template that refuses messages whose fields do not stand as whoever wrote them set them down: "role" first.
inline constexpr const char* kInFileOrder =
    "{% for m in messages %}{% for field in m %}{% if loop.first and field != 'role' %}"
    "{{ raise_exception('sorted') }}{% endif %}{% endfor %}{{ m.content }} {% endfor %}";

/// 0: nobody has trained there.
inline pid_t worker_of(const std::string& folder) {
  const std::string holder = read(folder + "/.lock");
  pid_t pid = 0;
  std::from_chars(holder.data(), holder.data() + holder.size(), pid);
  return pid;
}

class Trains : public testing::Test {
 protected:
  /// A folder with a text of its own, a tokenizer, data and settings.
  static void begin_folder(const fs::path& in = fs::temp_directory_path()) {
    std::string name = (in / "ferry-e2e-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    write(root_ / "run.toml", std::string(kTinyModel) + kRun);
    prepare("text", 1);
  }
  /// Where no sync waits for a disk that others keep busy: for tests of who stands still, and when.
  static fs::path memory_folder() {
    const fs::path shared = "/dev/shm";
    return ::access(shared.c_str(), W_OK) == 0 ? shared : fs::temp_directory_path();
  }
  static void TearDownTestSuite() { fs::remove_all(root_); }

  /// Data `name` of a text that is drawn from the seed. The first one's tokenizer is everybody's.
  static void prepare(const std::string& name, uint64_t seed) {
    const std::string text = path(name + ".txt");
    write(text, generated_text(seed));
    if (!fs::exists(path("tok.json")))
      ran({"tokenizer", "train", "--vocab", "300", "--out", path("tok.json"), text});
    ran({"data",
         "prepare",
         text,
         "--split",
         "line",
         "--tokenizer",
         path("tok.json"),
         "--out",
         path(name),
         "--held-out-bytes",
         "8K",
         "--near-duplicate",
         "2"});
  }

  static std::string path(const std::string& name) { return (root_ / name).string(); }
  static std::string checkpoint(const std::string& run, int step = kSteps) {
    char name[32];
    std::snprintf(name, sizeof name, "/step-%08d", step);
    return path(run) + name;
  }

  /// The command that trains in folder `run`; what is in `more` wins.
  static Strings train(const std::string& run,
                       const Strings& more = {},
                       const std::string& config = "run.toml") {
    Strings args = {"train",
                    path(config),
                    "--data.dir=" + path("text"),
                    "--checkpoint.dir=" + path(run),
                    "--train.steps=" + std::to_string(kSteps)};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  struct Ended {
    int status;
    std::string output;
  };
  static Ended end_of(const Strings& args, const Environment& environment = {}) {
    Program p(root_ / "log", args, environment);
    const int status = p.wait();
    return {status, p.output()};
  }
  /// Runs to a good end; its output.
  static std::string ran(const Strings& args, const Environment& environment = {}) {
    const Ended e = end_of(args, environment);
    EXPECT_EQ(e.status, 0) << e.output;
    return e.output;
  }
  /// Is refused with this status, and says each of these.
  static void refused(int status,
                      const Strings& args,
                      const Strings& says,
                      const Environment& environment = {}) {
    const Ended e = end_of(args, environment);
    EXPECT_EQ(e.status, status) << testing::PrintToString(args) << "\n" << e.output;
    for (const std::string& s : says)
      EXPECT_NE(e.output.find(s), std::string::npos) << "not said: " << s << "\n" << e.output;
  }

  /// Of a `ferry serve --port 0` that serves a model of this name, once it is ready.
  static uint16_t port_of(Program& program, const std::string& name = "model") {
    const std::string mark = "ferry: serving " + name + " at http://127.0.0.1:";
    EXPECT_TRUE(wait_for([&] { return program.said(mark) || program.ended(); }));
    const std::string said = program.output();
    EXPECT_NE(said.find(mark), std::string::npos) << said;
    return static_cast<uint16_t>(
        std::strtoul(said.c_str() + said.find(mark) + mark.size(), nullptr, 10));
  }

  static Trace trace(const std::string& run, int step = kSteps) {
    return trace_of(checkpoint(run, step), path(run));
  }

  static bool has_checkpoint(const std::string& run) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(path(run), none))
      if (entry.path().filename().string().starts_with("step-")) return true;
    return false;
  }

  inline static fs::path root_;
};

}  // namespace ferry::program
