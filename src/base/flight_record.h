// What a process is in, readable from outside while it stands still: a page of shared memory that a training worker
// keeps up to date and its supervisor looks at, by which a hang is named. As an aeroplane's: written all the time,
// read when something is wrong.
//
// The writer stores words one by one, relaxed, and takes no time: whoever reads tells by `moves` whether it goes on,
// and only what stands still is read in earnest, so that a look that falls between two stores does no harm. Read by
// base/flight_reader.h.
#pragma once

#include <cstdint>
#include <string_view>

namespace ferry::flight {

/// What the thread that works is in.
enum class Activity : uint32_t {
  kHost,      // code of the host, between what follows
  kOp,        // the launch of an op; on the CPU: the op
  kFile,      // a call of the system about a file
  kData,      // the data set's next batch, which may be read from its files
  kChip,      // waiting for what was launched
  kMessages,  // with other ranks: sending, receiving, waiting
  kMeeting,   // finding the other ranks
  kLeaving,   // done: waiting for whoever reads its output
};

enum class Pass : uint32_t { kNone, kForward, kBackward, kUpdate };

/// A message as comm/communicator.h tags it; purpose 0: there is none. `done` of `size` bytes, both with what goes
/// round a message.
struct Message {
  uint32_t purpose = 0, index = 0;
  int64_t step = 0;
  uint64_t size = 0, done = 0;
  bool operator==(const Message&) const = default;
};

inline constexpr int kLinksMax = 64;

struct Page;

/// This thread is the one that works, and writes from here on, for as long as the process lives, what follows into
/// the memory behind the descriptor, which it takes over. False, and nothing is written: it is no such memory.
bool adopt(int fd);

namespace detail {
extern thread_local Page* t_page;  // of the thread that works
void begin_op(Page& page, const char* op);
void end_op(Page& page, Activity before);
Activity enter(Page& page, Activity activity);
void leave(Page& page, Activity before);
void set_file(Page& page, const char* call, std::string_view path, uint64_t bytes);
Activity activity_of(const Page& page);
}  // namespace detail

/// Something got on. From any thread.
void moved();
/// Of messages: looked, and nothing had moved.
void looked();
void set_work(int32_t work, int64_t step, int64_t done);
void set_pass(Pass pass);
void set_layer(int layer);
void add_micro_batch(double seconds);
/// So many launches have ended; one of those up to number `to`, which are of these ops, is what is waited for.
void set_chip(uint64_t to, uint64_t ended, std::string_view ops);
void begin_exchange();
void set_peer(int peer, bool sending);
void set_out(int peer, const Message& message, uint64_t sent);
void set_in(int peer, const Message& message, uint64_t received);

/// The thread is in it while this lives; then in what it was in before. Free of cost where nobody reads.
class In {
 public:
  explicit In(Activity activity) : page_(detail::t_page) {
    if (page_ != nullptr) before_ = detail::enter(*page_, activity);
  }
  /// A call about a file.
  In(const char* call, std::string_view path, uint64_t bytes = 0) : In(Activity::kFile) {
    if (page_ != nullptr) detail::set_file(*page_, call, path, bytes);
  }
  ~In() {
    if (page_ != nullptr) detail::leave(*page_, before_);
  }
  In(const In&) = delete;
  In& operator=(const In&) = delete;

 private:
  Page* const page_;
  Activity before_ = Activity::kHost;
};

/// Likewise in the launch of an op. Fault points: op.NAME, and op.NAME.LAYER.
class InOp {
 public:
  explicit InOp(const char* op) : page_(detail::t_page) {
    if (page_ == nullptr) return;
    before_ = detail::activity_of(*page_);
    detail::begin_op(*page_, op);
  }
  ~InOp() {
    if (page_ != nullptr) detail::end_op(*page_, before_);
  }
  InOp(const InOp&) = delete;
  InOp& operator=(const InOp&) = delete;

 private:
  Page* const page_;
  Activity before_ = Activity::kHost;
};

}  // namespace ferry::flight
