#include "exec/warp.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "driver/result.h"

namespace nvidia_sim {

void Warp::prepare(Block& its_block, uint32_t its_number) {
  const Kernel& kernel = *its_block.launch->kernel;
  block = &its_block;
  number = its_number;
  registers.resize(kernel.registers_bytes / sizeof(Line) + 1);
  predicates.resize(kernel.predicates);
}

void Warp::begin() {
  const Launch& launch = *block->launch;
  const Kernel& kernel = *launch.kernel;
  std::memset(registers.data(), 0xFF, registers.size() * sizeof(Line));
  std::fill(predicates.begin(), predicates.end(), 0);
  for (const Constant& c : kernel.constants)
    for (int l = 0; l < kWarpSize; ++l)
      std::memcpy(lanes<uint8_t>(c.at) + l * c.bytes, &c.value, static_cast<size_t>(c.bytes));
  const Dim3 &size = launch.block, &grid = launch.grid, &at = block->index;
  const uint32_t same[kSpecials] = {
      0, 0, 0, size.x, size.y, size.z, at.x, at.y, at.z, grid.x, grid.y, grid.z, 0};
  for (int s = 0; s < kSpecials; ++s)
    std::fill_n(lanes<uint32_t>(kernel.special[static_cast<size_t>(s)]), kWarpSize, same[s]);
  alive = 0;
  for (uint32_t l = 0; l < kWarpSize; ++l) {
    const uint32_t thread = number * kWarpSize + l;
    if (thread < size.count()) alive |= 1u << l;
    lanes<uint32_t>(kernel.special[kTidX])[l] = thread % size.x;
    lanes<uint32_t>(kernel.special[kTidY])[l] = thread / size.x % size.y;
    lanes<uint32_t>(kernel.special[kTidZ])[l] = thread / size.x / size.y;
    lanes<uint32_t>(kernel.special[kLaneId])[l] = l;
  }
  at_barrier = false;
  executed = 0;
  copies.clear();
  std::fill(std::begin(copy_groups), std::end(copy_groups), 0);
  groups_ = {{0, alive}};
}

/// The group that goes next, joined by those at the same place.
size_t Warp::lowest() {
  std::sort(groups_.begin(), groups_.end(), [](const Group& a, const Group& b) {
    return a.at > b.at;  // the lowest is last, where it is easily taken away
  });
  while (groups_.size() > 1 && groups_[groups_.size() - 2].at == groups_.back().at) {
    groups_[groups_.size() - 2].lanes |= groups_.back().lanes;
    groups_.pop_back();
  }
  return groups_.size() - 1;
}

/// By a defect.
bool Warp::passes_barrier() const {
  const Launch& launch = *block->launch;
  const uint64_t threads = launch.block.count();
  return launch.planted[Defect::barrier_ignored] ||
         (launch.planted[Defect::barrier_last_warp] && threads > kWarpSize &&
          uint64_t{number + 1} * kWarpSize >= threads);
}

void Warp::run() {
  while (!groups_.empty() && !at_barrier) advance(lowest());
}

/// Until the group parts, ends, waits or comes to where another one stands.
void Warp::advance(size_t group) {
  const Launch& launch = *block->launch;
  const std::vector<Instruction>& code = launch.kernel->code;
  size_t at = groups_[group].at;
  uint32_t lanes_here = groups_[group].lanes;
  const size_t join = group > 0 ? groups_[group - 1].at : code.size();
  while (true) {
    const Instruction& i = code[at];
    current = &i;
    if (++executed > launch.instructions_max)
      throw Violation(result::kLaunchTimeout,
                      "a warp executed " + std::to_string(launch.instructions_max) +
                          " instructions and does not end");
    uint32_t now = lanes_here;
    if (i.guard >= 0) {
      const uint32_t p = predicates[static_cast<size_t>(i.guard)];
      now &= i.guard_negated ? ~p : p;
    }
    switch (i.flow) {
      case Flow::kNext:
        if (now != 0) i.run(*this, i, now);
        ++at;
        break;
      case Flow::kBranch:
        if (now == lanes_here) {
          at = i.target;
        } else if (now == 0) {
          ++at;
        } else {
          groups_[group] = {at + 1, lanes_here & ~now};
          groups_.push_back({i.target, now});
          return;
        }
        break;
      case Flow::kExit:
        alive &= ~now;
        lanes_here &= ~now;
        if (lanes_here == 0) {
          groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(group));
          return;
        }
        ++at;
        break;
      case Flow::kBlockBarrier:
        if (passes_barrier()) {
          ++at;
          break;
        }
        if (now != alive)
          throw Violation(result::kLaunchFailed,
                          "a barrier in code that not all threads of the warp execute");
        groups_[group] = {at + 1, lanes_here};
        at_barrier = true;
        return;
    }
    // Beyond the other group's place, or before its own by a jump back: whoever is lowest goes on.
    if (at >= join) {
      groups_[group] = {at, lanes_here};
      return;
    }
  }
}

namespace {

std::string text(const Dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

[[noreturn]] void report(const Violation& v, const Block& block, const Warp& warp) {
  std::string where = "kernel " + block.launch->kernel->name;
  if (warp.current != nullptr)
    where += ", line " + std::to_string(warp.current->line) + " (" + warp.current->name + ")";
  where += ", block " + text(block.index);
  const uint32_t first = warp.number * kWarpSize;
  where += v.lane() >= 0 ? ", thread " + std::to_string(first + static_cast<uint32_t>(v.lane()))
                         : ", threads from " + std::to_string(first);
  throw Violation(v.code(), where + ": " + v.what());
}

/// A number for each place in the order of things, the same for the same seed.
uint64_t mix(uint64_t seed, uint64_t n) {
  uint64_t x = seed * 0x9E3779B97F4A7C15u ^ (n + 0x632BE59BD9B4E019u) * 0xD1342543DE82EF95u;
  x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
  return x ^ x >> 32;
}

void shuffle(std::vector<uint32_t>& order, uint64_t seed) {
  for (size_t n = order.size(); n > 1; --n) std::swap(order[n - 1], order[mix(seed, n) % n]);
}

/// A block on its way: its warps, from barrier to barrier.
class RunningBlock {
 public:
  explicit RunningBlock(const Launch& launch) : warps_(warps_of(launch)) {
    block_.launch = &launch;
    block_.seen.assign(launch.kernel->code.size(), nullptr);
    for (uint32_t n = 0; n < warps_.size(); ++n) warps_[n].prepare(block_, n);
  }
  RunningBlock(const RunningBlock&) = delete;
  RunningBlock& operator=(const RunningBlock&) = delete;

  SharedMemory& shared() { return block_.shared; }

  void begin(uint64_t index) {
    const Launch& launch = *block_.launch;
    block_.index = {static_cast<uint32_t>(index % launch.grid.x),
                    static_cast<uint32_t>(index / launch.grid.x % launch.grid.y),
                    static_cast<uint32_t>(index / launch.grid.x / launch.grid.y)};
    block_.shared.reset(launch.kernel->shared_bytes + launch.shared_bytes,
                        static_cast<uint32_t>(warps_.size()),
                        launch.checked);
    seed_ = mix(launch.seed, index + 2);
    order_.resize(warps_.size());
    std::iota(order_.begin(), order_.end(), 0);
    for (Warp& w : warps_) w.begin();
  }

  /// To the next barrier; false if there was none, but the block's end.
  bool advance() {
    shuffle(order_, seed_++);
    for (const uint32_t n : order_) {
      if (warps_[n].alive == 0) continue;
      try {
        warps_[n].run();
      } catch (const Violation& v) {
        report(v, block_, warps_[n]);
      }
    }
    const auto waits = [](const Warp& w) { return w.at_barrier; };
    const auto waiting = std::find_if(warps_.begin(), warps_.end(), waits);
    if (waiting == warps_.end()) {
      if (Counters* const counters = block_.launch->counters)
        for (const Warp& w : warps_) counters->instructions += w.executed;
      return false;
    }
    // A warp that a defect lets pass the barrier ends before the others.
    if (block_.launch->checked && !std::all_of(warps_.begin(), warps_.end(), waits))
      report(Violation(result::kLaunchFailed, "a barrier that warps which ended never come to"),
             block_,
             *waiting);
    for (Warp& w : warps_) w.at_barrier = false;
    block_.shared.block_barrier();
    return true;
  }

 private:
  static size_t warps_of(const Launch& launch) {
    return (launch.block.count() + kWarpSize - 1) / kWarpSize;
  }

  Block block_;
  std::vector<Warp> warps_;
  std::vector<uint32_t> order_;
  uint64_t seed_ = 0;
};

/// By a defect: both have one shared memory, and come to their barriers in turns.
void run_together(RunningBlock& a, RunningBlock& b) {
  for (bool a_goes_on = true, b_goes_on = true; a_goes_on || b_goes_on;) {
    if (a_goes_on) a_goes_on = a.advance();
    b.shared().take_bytes_of(a.shared());
    if (b_goes_on) b_goes_on = b.advance();
    a.shared().take_bytes_of(b.shared());
  }
}

/// Whether the launch leaves the block out: for defects alone.
bool left_out(const Launch& launch, uint64_t index, uint64_t blocks) {
  constexpr uint64_t kMany = 256;
  if (blocks < 2) return launch.blocks == Blocks::kLast;
  const bool last = index + 1 == blocks;
  if (launch.blocks != Blocks::kAll && last != (launch.blocks == Blocks::kLast)) return true;
  if (launch.skips_first && index == 0) return true;
  return last && (launch.planted[Defect::last_block_lost] ||
                  (launch.planted[Defect::last_block_lost_of_many] && blocks > kMany));
}

}  // namespace

void execute(const Launch& launch) {
  RunningBlock running(launch);
  std::unique_ptr<RunningBlock> other;
  if (launch.planted[Defect::shared_of_two_blocks]) other = std::make_unique<RunningBlock>(launch);
  const uint64_t blocks = launch.grid.count();
  // Some stride that meets every block once, from some block on.
  uint64_t stride = mix(launch.seed, 0) % blocks, at = mix(launch.seed, 1) % blocks;
  while (std::gcd(stride, blocks) != 1) ++stride;
  const auto next = [&] { return at = (at + stride) % blocks; };
  for (uint64_t n = 0; n < blocks; ++n, next()) {
    if (left_out(launch, at, blocks)) continue;
    running.begin(at);
    if (other != nullptr && n + 1 < blocks) {
      other->begin(next());
      ++n;
      run_together(running, *other);
      continue;
    }
    while (running.advance()) {
    }
    if (launch.planted[Defect::block_twice] && blocks > 1 && at == blocks / 2) {
      running.begin(at);
      while (running.advance()) {
      }
    }
  }
}

}  // namespace nvidia_sim
