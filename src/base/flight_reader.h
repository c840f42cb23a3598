// The other side of base/flight_record.h: what a process is in, as its supervisor reads it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/flight_record.h"
#include "base/result.h"

namespace ferry::flight {

/// What a page said.
struct Snapshot {
  uint64_t moves = 0;  // grows with everything that gets on
  uint64_t looks = 0;  // and with each look of who waits for messages: it lives
  int64_t step = 0;    // done
  int32_t work = 0;    // the caller's number (train: supervisor::Work)
  int64_t done = 0;    // of the work, in its unit
  int64_t micro_batches = 0,
          micro_batch_us = 0;  // that this process made, and the time it took for them
  Activity activity = Activity::kHost;
  Pass pass = Pass::kNone;
  int32_t layer = -1;                // of the model, as ops::begin_layer counts; -1: none
  std::string op;                    // the last one; running if activity is kOp
  bool op_known = false;             // this process has come to the end of one of this name before
  std::string call, path;            // of kFile: "sync", and the end of the path
  uint64_t file_bytes = 0;           // of kFile: that the call may have to move
  uint64_t launched = 0, ended = 0;  // on a chip, as set_chip has it; launched 0: there is none
  std::string chip_ops;              // of kChip
  uint64_t exchanges = 0;            // of messages, begun: all ranks begin the same ones
  int32_t peer = -1;                 // of kMessages: whom it last sent to or received from
  bool sending = false;
  struct Link {
    Message out, in;                  // the next to be sent; the next that is expected
    uint64_t sent = 0, received = 0;  // bytes, ever
  };
  std::vector<Link> links;  // by rank
};

/// Owner: the supervisor, while the process lives. Its bytes are the process's to write: what is read is bounded,
/// and believed no further than to be told.
class Memory {
 public:
  /// Errors: kExhausted.
  static Result<Memory> create();
  Memory(Memory&&) noexcept;
  Memory& operator=(Memory&&) noexcept;
  ~Memory();

  /// To be lent to the process.
  int fd() const { return fd_; }
  Snapshot read(int ranks) const;

 private:
  Memory() = default;
  Page* page_ = nullptr;
  int fd_ = -1;
};

/// This thread writes into a page of its own process while this lives: for tests.
class Own {
 public:
  Own();
  ~Own();
  Own(const Own&) = delete;
  Own& operator=(const Own&) = delete;
  Snapshot read(int ranks = 1) const;

 private:
  std::unique_ptr<Page> page_;
};

}  // namespace ferry::flight
