// Who holds a run up: rules that make a verdict of what the ranks' flight records say and how long each stands
// still. Pure: no clock, no process.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/flight_reader.h"

namespace ferry::hang {

/// What is known of a rank at a moment. Times are in seconds, by the clock of who looks.
struct RankSight {
  flight::Snapshot page;
  double still_s = 0;          // nothing has got on
  double not_looked_s = 0;     // it has not looked for messages
  double asleep_s = 0;         // it used no processor, and none of its threads was ready to
  double stopped_s = 0;        // a signal, or a debugger, has stopped it
  double busy_s = 0;           // processor time of the thread that works, since then
  double patience_s = 0;       // stillness up to which what it is in is taken to go on
  double busy_patience_s = 0;  // and such processor time: who is given none does not hang
  double usual_s = 0;   // the longest lately of what it is in, if it ever took long; for words
  char state = '?';     // proc(5)
  bool settled = true;  // what it is at it has done before: it knows how long things take
  bool ended = false;
  bool done = false;  // it has ended because it was through, which the others come to by themselves
  // Of a micro-batch, in each of the last windows; empty: not known.
  std::vector<double> micro_batch_s = {};
};

struct Limits {
  double verdict_s = 3;        // less stillness is never a hang
  double slow_factor = 2;      // times the others' micro-batch
  double slow_least_s = 0.02;  // beyond it: less is how a busy machine shares its processors out
};

enum class Kind {
  kStopped,    // by a signal
  kOp,         // it does not come out of an op
  kChip,       // the chip ends nothing
  kFile,       // a call about a file does not return
  kData,       // the next batch does not come
  kHost,       // between all of these
  kMessage,    // within sending or receiving one
  kLink,       // what one rank sent does not arrive at another
  kEachOther,  // each waits for what another has not sent, and all links are in order
  kSlow,       // no hang: it goes on, the others wait
};

struct Verdict {
  Kind kind = Kind::kHost;
  int rank = 0;    // to blame; of a link, whose messages do not arrive
  int peer = -1;   // of a message or a link
  std::string in;  // the op, the call, or the message: "matmul", "sync", "gradients of step 12"
  double still_s = 0;
  bool certain = false;  // in a step of training, and nothing is left that could go on by itself
  std::string text;      // a sentence
  /// The same hang, whatever time has passed.
  bool same_as(const Verdict& o) const {
    return kind == o.kind && rank == o.rank && peer == o.peer &&
           (in == o.in || kind == Kind::kStopped);  // in whatever it was stopped
  }
};

/// Since how long bytes that rank `from` has sent to rank `to` have not arrived, while `to` looks for them and no
/// other arrived. 0: all have.
using OnTheWay = std::function<double(int from, int to)>;

/// The one that explains most: who is stopped; who stands still and waits for nobody, longest first; who stands in a
/// message; a link; all of them waiting for each other; who is slow. None: the run goes on, or may yet.
std::optional<Verdict> judge(std::span<const RankSight> ranks,
                             const OnTheWay& on_the_way,
                             const Limits& limits);

/// "matmul (backward, layer 3, micro-batch 2), after step 12": what a rank is in, for people.
std::string in_words(const flight::Snapshot& page);

}  // namespace ferry::hang
