#include "exec/warp.h"

#include <algorithm>
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

void run_block(Block& block, std::vector<Warp>& warps, uint64_t seed) {
  for (Warp& w : warps) w.begin();
  std::vector<uint32_t> order(warps.size());
  std::iota(order.begin(), order.end(), 0);
  while (true) {
    shuffle(order, seed++);
    for (const uint32_t n : order) {
      if (warps[n].alive == 0) continue;
      try {
        warps[n].run();
      } catch (const Violation& v) {
        report(v, block, warps[n]);
      }
    }
    const auto waits = [](const Warp& w) { return w.at_barrier; };
    const auto waiting = std::find_if(warps.begin(), warps.end(), waits);
    if (waiting == warps.end()) return;
    if (!std::all_of(warps.begin(), warps.end(), waits))
      report(Violation(result::kLaunchFailed, "a barrier that warps which ended never come to"),
             block,
             *waiting);
    for (Warp& w : warps) w.at_barrier = false;
    block.shared.block_barrier();
  }
}

}  // namespace

void execute(const Launch& launch) {
  const auto threads = static_cast<uint32_t>(launch.block.count());
  Block block;
  block.launch = &launch;
  block.seen.assign(launch.kernel->code.size(), nullptr);
  std::vector<Warp> warps((threads + kWarpSize - 1) / kWarpSize);
  for (uint32_t n = 0; n < warps.size(); ++n) warps[n].prepare(block, n);
  const uint64_t blocks = launch.grid.count();
  // Some stride that meets every block once, from some block on.
  uint64_t stride = mix(launch.seed, 0) % blocks, at = mix(launch.seed, 1) % blocks;
  while (std::gcd(stride, blocks) != 1) ++stride;
  for (uint64_t n = 0; n < blocks; ++n, at = (at + stride) % blocks) {
    block.index = {static_cast<uint32_t>(at % launch.grid.x),
                   static_cast<uint32_t>(at / launch.grid.x % launch.grid.y),
                   static_cast<uint32_t>(at / launch.grid.x / launch.grid.y)};
    block.shared.reset(launch.kernel->shared_bytes + launch.shared_bytes,
                       static_cast<uint32_t>(warps.size()));
    run_block(block, warps, mix(launch.seed, at + 2));
  }
}

}  // namespace nvidia_sim
