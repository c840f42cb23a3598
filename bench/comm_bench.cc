// What ranks send each other in a step, and how long it takes without anything being computed: processes over TCP, as
// `ferry launch` has them, make the exchanges of a sharded step (train/shared_step.h) on gradients that are zero, in
// turn with plain messages of as many bytes around a ring.
// Usage: comm_bench RANKS MEGABYTES MICRO_BATCHES ROUNDS STEPS, megabytes of weights as float32.
// The last line is JSON: what all ranks send in a step, the fewest bytes that gradients in float32 and weights in
// bfloat16 could be, and the seconds of a step of each round, of the slowest rank. bench/comm_bench.py has the link's
// own speed, and what a step costs.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/child_process.h"
#include "base/clock.h"
#include "base/threads.h"
#include "comm/rendezvous.h"
#include "device/cpu/cpu_device.h"
#include "train/shared_step.h"

namespace ferry {
namespace {

constexpr double kPatienceS = 300;
constexpr int64_t kColumns = 256;
constexpr int kWeights = 24;

struct Arguments {
  int64_t ranks = 0, megabytes = 0, micro_batches = 0, rounds = 0, steps = 0;
  int64_t rank = -1;  // of a child
};

/// Matrices of four sizes, that together have about so many bytes.
std::vector<Weight> weights_of(int64_t megabytes) {
  const int64_t rows = (megabytes << 20) / static_cast<int64_t>(sizeof(float)) / kColumns;
  std::vector<Weight> weights(kWeights);
  for (int i = 0; i < kWeights; ++i) {
    Weight& w = weights[static_cast<size_t>(i)];
    // A round of four has 1 + 2 + 3 + 4 parts.
    const Shape shape = {std::max<int64_t>(1, rows * (1 + i % 4) * 4 / (10 * kWeights)), kColumns};
    w.name = fmt::format("w{}", i);
    w.global_shape = shape;
    w.value = Tensor::zeros(shape, DType::kF32, cpu_device());
  }
  return weights;
}

/// One rank's side of it.
class Rank {
 public:
  Rank(const Arguments& args, std::unique_ptr<comm::Communicator> links)
      : args_(args), links_(std::move(links)), weights_(weights_of(args.megabytes)) {
    for (Weight& w : weights_) list_.push_back(&w);
    shared_.emplace(*links_, list_, kPatienceS);
    const auto nodes = shared_->plan(args.micro_batches).nodes(links_->rank()).size();
    for (size_t n = 0; n < nodes; ++n) {
      std::vector<Tensor>& sums = zeros_.emplace_back();
      for (const Weight& w : weights_)
        sums.push_back(Tensor::zeros(w.value.shape(), DType::kF32, cpu_device()));
    }
  }

  nlohmann::json measure() {
    nlohmann::json said = {{"exchange_s", nlohmann::json::array()},
                           {"plain_s", nlohmann::json::array()}};
    make_step();  // memory is taken, and pages are there
    const uint64_t before = links_->bytes_sent();
    make_step();
    const uint64_t bytes = links_->bytes_sent() - before;
    prepare_ring(bytes);
    for (int64_t round = 0; round < args_.rounds; ++round) {
      said["exchange_s"].push_back(seconds_of([&] { make_step(); }));
      said["plain_s"].push_back(seconds_of([&] { go_round(); }));
    }
    said["bytes"] = bytes;
    return said;
  }

 private:
  /// All of a step but what computes: nothing is updated.
  void make_step() {
    SharedStep::Share share;
    const auto mine = shared_->plan(args_.micro_batches).share(links_->rank()).size();
    share.losses.assign(static_cast<size_t>(mine), {0.0});
    share.sums = zeros_;
    static_cast<void>(shared_->reduce(step_, args_.micro_batches, std::move(share)));
    static_cast<void>(shared_->commit());
    shared_->spread();
    ++step_;
  }

  /// Everybody sends as much as in a step, to the next one.
  void prepare_ring(uint64_t bytes) {
    outgoing_.resize(bytes);
    const std::vector<uint64_t> mine = {bytes};
    const std::vector<size_t> sizes(static_cast<size_t>(links_->ranks()), sizeof(uint64_t));
    const auto all = comm::all_gather(
        *links_, {comm::Purpose::kFigures, step_}, comm::bytes_of(mine), sizes, kPatienceS);
    uint64_t theirs = 0;
    const auto& said = all[static_cast<size_t>(before())];
    std::copy(said.begin(), said.end(), reinterpret_cast<std::byte*>(&theirs));
    incoming_.resize(theirs);
  }

  void go_round() {
    const comm::Tag tag{comm::Purpose::kFigures, ++step_, 1};
    links_->send((links_->rank() + 1) % links_->ranks(), tag, outgoing_);
    links_->receive(before(), tag, incoming_);
    links_->finish(kPatienceS);
  }

  int before() const { return (links_->rank() + links_->ranks() - 1) % links_->ranks(); }

  /// Of each time, from when all are there.
  template <typename Does>
  double seconds_of(Does&& does) {
    comm::any_of(*links_, {comm::Purpose::kStop, ++step_}, false, kPatienceS);
    const double begin_s = system_clock().monotonic_s();
    for (int64_t i = 0; i < args_.steps; ++i) does();
    return (system_clock().monotonic_s() - begin_s) / static_cast<double>(args_.steps);
  }

  Arguments args_;
  std::unique_ptr<comm::Communicator> links_;
  std::vector<Weight> weights_;
  std::vector<Weight*> list_;
  std::optional<SharedStep> shared_;
  std::vector<std::vector<Tensor>> zeros_;
  std::vector<std::byte> outgoing_, incoming_;
  int64_t step_ = 0;
};

int run_rank(const Arguments& args) {
  const FlushDenormals flush;
  comm::Meetings meetings(ChildProcess::kLentFd, ChildProcess::kToldFd);
  auto links = meetings.next(kPatienceS, {});
  check(links.has_value(), "{}", links ? "" : links.error().message);
  const std::string said = Rank(args, *std::move(links)).measure().dump();
  return ::write(ChildProcess::kPipeFd, said.data(), said.size()) == std::ssize(said) ? 0 : 3;
}

/// All that a child says, to its end. It is less than a pipe holds.
std::string heard_of(ChildProcess& child) {
  std::string text;
  char block[4096];
  for (ssize_t n = 0; (n = ::read(child.pipe(), block, sizeof block)) > 0;)
    text.append(block, static_cast<size_t>(n));
  const int status = child.wait();
  check(status == 0, "comm_bench: a rank ended with status {:#x}", status);
  return text;
}

/// Of each round the slowest rank.
std::vector<double> slowest(const std::vector<nlohmann::json>& ranks, const char* what) {
  std::vector<double> all = ranks[0][what].get<std::vector<double>>();
  for (const nlohmann::json& r : ranks)
    for (size_t i = 0; i < all.size(); ++i) all[i] = std::max(all[i], r[what][i].get<double>());
  return all;
}

int run(const Arguments& args, char** argv) {
  auto at = comm::Rendezvous::open(static_cast<int>(args.ranks));
  check(at.has_value(), "{}", at ? "" : at.error().message);
  std::vector<ChildProcess> children;
  for (int r = 0; r < args.ranks; ++r) {
    std::vector<std::string> words(argv, argv + 6);
    words.push_back(std::to_string(r));
    auto child = ChildProcess::start(
        {.program = "/proc/self/exe", .arguments = words, .lent = at->listener(r), .told = true});
    check(child.has_value(), "{}", child ? "" : child.error().message);
    check(child->tell(at->ticket(r) + "\n"), "comm_bench: rank {} has ended", r);
    children.push_back(*std::move(child));
  }
  std::vector<nlohmann::json> ranks;
  for (ChildProcess& child : children) ranks.push_back(nlohmann::json::parse(heard_of(child)));
  uint64_t bytes = 0, weights = 0;
  for (const nlohmann::json& r : ranks) bytes += r["bytes"].get<uint64_t>();
  for (const Weight& w : weights_of(args.megabytes)) weights += w.value.bytes();
  // (R - 1) / R of all gradients and weights for each rank: 4 and 2 bytes of each parameter.
  const uint64_t floor = weights / sizeof(float) * 6 * static_cast<uint64_t>(args.ranks - 1);
  const nlohmann::ordered_json line = {{"ranks", args.ranks},
                                       {"weight_bytes", weights},
                                       {"bytes_per_step", bytes},
                                       {"floor_bytes", floor},
                                       {"exchange_s", slowest(ranks, "exchange_s")},
                                       {"plain_s", slowest(ranks, "plain_s")}};
  fmt::print("{}\n", line.dump());
  return 0;
}

bool read_number(std::string_view text, int64_t least, int64_t& to) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  return error == std::errc() && end == text.data() + text.size() && to >= least;
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  ferry::Arguments args;
  int64_t* const numbers[] = {
      &args.ranks, &args.megabytes, &args.micro_batches, &args.rounds, &args.steps, &args.rank};
  bool read = argc == 6 || argc == 7;
  for (int i = 1; read && i < argc; ++i)
    read = ferry::read_number(argv[i], i == 1 ? 2 : i == 6 ? 0 : 1, *numbers[i - 1]);
  if (!read || args.ranks > 64 || args.micro_batches < args.ranks) {
    fmt::print(stderr,
               "usage: comm_bench RANKS MEGABYTES MICRO_BATCHES ROUNDS STEPS (2 to 64 ranks, and a "
               "micro-batch for each)\n");
    return 2;
  }
  return args.rank >= 0 ? ferry::run_rank(args) : ferry::run(args, argv);
}
