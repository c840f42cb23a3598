// What a run is at, for whoever looks in from outside: its supervisor keeps it in FOLDER/status.json, and
// `ferry status` reads it beside metrics and checkpoints. Nothing of the run depends on it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/changes.h"
#include "base/result.h"
#include "train/metrics.h"

namespace ferry {

inline constexpr const char* kRunStatusName = "status.json";

/// One process of a worker.
struct RankStatus {
  int64_t pid = 0;
  int64_t step = 0;              // done
  std::string doing;             // its last word: "training (1 of 2 micro-batches of a step)"
  int64_t heard_unix_ms = 0;     // when that was
  std::optional<int> waits_for;  // a rank, which it cannot go on without
  bool stopped = false;          // by a signal
  bool ended = false;
  std::string in;  // more closely: "matmul (backward, layer 3, micro-batch 2), after step 12"
};

/// Who holds the run up, while somebody does.
struct HangStatus {
  bool hangs = false;  // or is slow
  int rank = 0;
  int peer = -1;       // of a message, or a link
  std::string in;      // the op, the call about a file, the message
  double seconds = 0;  // for so long
  std::string text;
};

/// A line of the supervisor's: a failure, and what follows from it.
struct RunMessage {
  int64_t unix_ms = 0;
  std::string text;
};

struct RunStatus {
  std::string stage;  // "starting", "running", "stopping", "between two starts", "ended"
  int64_t written_unix_ms = 0;
  int64_t began_unix_ms = 0;      // the supervisor, not the run
  int64_t pid = 0;                // its process, on `host`
  int64_t process_began = 0;      // in ticks since that machine did (base/system.h)
  std::string process_namespace;  // what the number means (base/system.h)
  std::string host;
  int64_t starts = 0;            // of workers, by this supervisor
  int64_t steps = 0;             // that the run is to have
  std::string go_on;             // the command that goes on with it
  std::optional<int> exit_code;  // of one that has ended
  std::optional<HangStatus> verdict;
  std::vector<RankStatus> ranks;
  std::vector<RunMessage> said;  // the newest last
};

/// How many messages are kept.
inline constexpr size_t kRunMessagesMax = 8;

std::string to_json(const RunStatus& status);
/// Of FOLDER/status.json. Errors: kNotFound (no supervisor has been here), kCorrupt, kUnavailable.
Result<RunStatus> read_run_status(const std::string& folder);

/// What is known of a run from its folder.
struct RunView {
  std::string folder;
  std::optional<RunStatus> status;
  std::optional<bool>
      supervised;   // whether the process that wrote the status lives; unknown on another host
  Metrics metrics;  // of steps the last ones
  std::vector<std::string> unread;           // what could not be read, and why
  std::optional<int64_t> newest_checkpoint;  // its step
};
/// Looks at a run, again and again while it grows: what was read of its metrics is not read anew.
class RunViewer {
 public:
  explicit RunViewer(const std::string& folder);
  /// What is harmed is told, and the rest looked at. Errors: kNotFound (no folder, or nothing of a run in it),
  /// kUnavailable.
  Result<RunView> look();

 private:
  std::string folder_;
  MetricsFollower metrics_;
};
/// The same, once.
Result<RunView> look_at_run(const std::string& folder);

/// The same in words, a line each; at the end what to do, if there is something. Pure.
std::vector<std::string> lines_of(const RunView& view, int64_t now_unix_ms, int columns);

/// Writes statuses beside whoever gives them: he never waits for a disk. In a folder whose lock (base/file.h) names
/// a process that is no worker of this run nothing is written: another run has it, or had it last.
/// Owner: the supervisor. add_worker(), put() and flush() from its thread.
class RunStatusFile {
 public:
  /// In FOLDER, once it is there. `failed` is told once, on another thread and perhaps after this is gone, of a
  /// status that could not be written; others are tried all the same. Errors: kExhausted: no thread.
  static Result<std::unique_ptr<RunStatusFile>> open(const std::string& folder,
                                                     std::function<void(const Status&)> failed);

  ~RunStatusFile();
  RunStatusFile(const RunStatusFile&) = delete;
  RunStatusFile& operator=(const RunStatusFile&) = delete;

  /// A process of this run, for good: it may be gone before the first status that could tell of it.
  void add_worker(int64_t pid);
  /// Soon; one that has not been written by then is replaced.
  void put(RunStatus status);
  /// Until the last one was written, at most so long: a disk that stands still keeps nobody from leaving. False:
  /// it was not.
  bool flush(double seconds_max);
  /// Whether a status may be written. Errors: of reading the lock.
  Result<bool> ours() const;

 private:
  /// The writing thread may outlive this.
  struct Shared {
    std::string path;
    std::function<void(const Status&)> failed;
    Changes changes;  // of what follows
    std::optional<RunStatus> next;
    std::set<int64_t> workers;  // processes of this run
    bool writing = false, over = false, told = false;
    void work();
  };
  RunStatusFile() = default;

  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace ferry
