// Copies, fills, memory and the stream, without any mathematics: what everything else stands on.
// What is waited for at each step shows whether copies are right; what is not, whether the stream
// keeps their order.
#include <algorithm>
#include <cstring>
#include <set>

#include "base/limits.h"
#include "base/random.h"
#include "base/units.h"
#include "verify/checks.h"

namespace ferry::doctor {
namespace {

using Bytes = std::vector<unsigned char>;

Bytes pattern(size_t size, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, size);
  Bytes out(size + 8);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t bits = random.bits(at / 8);
    std::memcpy(out.data() + at, &bits, 8);
  }
  out.resize(size);
  return out;
}

/// Device memory of a check.
class Block {
 public:
  Block(Device& device, size_t bytes)
      : device_(device), bytes_(bytes), data_(static_cast<char*>(device.allocate(bytes))) {}
  ~Block() { release(); }
  Block(Block&& o) noexcept
      : device_(o.device_), bytes_(o.bytes_), data_(std::exchange(o.data_, nullptr)) {}
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Block& operator=(Block&&) = delete;

  void release() {
    if (data_ != nullptr) device_.deallocate(data_, bytes_);
    data_ = nullptr;
  }
  void write(const Bytes& from) const { device_.copy_from_host(data_, from.data(), from.size()); }
  void read(Bytes& to) const { device_.copy_to_host(to.data(), data_, to.size()); }
  char* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
  Device& device_;
  size_t bytes_;
  char* data_;
};

/// Where two buffers part: "3 of 4096 bytes differ, the first at 17 (0x5a, expected 0x12)".
std::string difference(const Bytes& got, const Bytes& expected) {
  size_t count = 0, first = 0;
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i] != expected[i] && count++ == 0) first = i;
  return fmt::format("{} of {} bytes differ, the first at {} ({:#04x}, expected {:#04x})",
                     count,
                     got.size(),
                     first,
                     got[first],
                     expected[first]);
}

constexpr size_t kSizes[] = {2, 30, 32, 34, 64, 254, 4096, 4098, 65534, (1 << 20) + 6};

/// Compares what a device holds with what it should, and tells two kinds of wrong apart: what stays
/// wrong when it is read again was not copied right; what is right then was read before it was
/// there, although the stream had been waited for.
class Comparison {
 public:
  explicit Comparison(Running& r) : r_(r) {}

  void expect(const Block& block, const Bytes& expected) {
    Bytes got(expected.size(), 0xEE);
    block.read(got);
    r_.device.stream().synchronize();
    if (got == expected) return;
    Bytes again(expected.size(), 0xEE);
    for (int i = 0; i < 3; ++i) {
      block.read(again);
      r_.device.stream().synchronize();
    }
    std::string& kind = again == expected ? early_ : wrong_;
    if (kind.empty()) kind = difference(got, expected);
  }

  /// `early_subject`: whose fault it is if all that was wrong was right when it was read again.
  void report(const char* early_subject = "streams") const {
    if (!wrong_.empty())
      r_.found("content", "{}", wrong_);
    else if (!early_.empty())
      r_.outcome.problems.push_back(
          {"order", "read before it was there, right when read again: " + early_, early_subject});
  }

 private:
  Running& r_;
  std::string wrong_, early_;
};

void wait(const Running& r) { r.device.stream().synchronize(); }

/// Host, device, device, device, host; each step is waited for. The same memory in every round, so
/// that a copy that comes late shows the round before; the host's buffer is overwritten as soon as
/// it may be.
void copies_one_by_one(Running& r) {
  Comparison comparison(r);
  for (const size_t size : kSizes) {
    const Block a(r.device, size), b(r.device, size), c(r.device, size);
    for (uint64_t round = 0; round < (size > 100'000 ? 4 : 8); ++round) {
      const Bytes sent = pattern(size, 10 + round);
      Bytes host = sent;
      a.write(host);
      wait(r);
      std::memset(host.data(), 0x77, size);
      r.device.copy(b.data(), a.data(), size);
      wait(r);
      r.device.copy(c.data(), b.data(), size);
      wait(r);
      comparison.expect(c, sent);
      comparison.expect(a, sent);
    }
  }
  comparison.report();
}

/// Parts of a buffer, at offsets as tensors' slices have them; what lies around stays.
void copies_of_parts(Running& r) {
  constexpr size_t kSize = 8192;
  Comparison comparison(r);
  const Block block(r.device, kSize), other(r.device, kSize);
  const Bytes ground = pattern(kSize, 300), part = pattern(kSize, 301);
  other.write(part);
  for (const size_t offset : {2, 32, 34, 510, 4094})
    for (const size_t size : {2, 30, 66, 4096}) {
      Bytes expected = ground;
      block.write(ground);
      wait(r);
      r.device.copy(block.data() + offset, other.data() + 2, size);
      wait(r);
      std::memcpy(expected.data() + offset, part.data() + 2, size);
      comparison.expect(block, expected);
    }
  comparison.report();
}

/// A read right behind a copy, without waiting in between.
void reads_right_behind(Running& r) {
  Comparison comparison(r);
  for (const size_t size : kSizes) {
    const Block a(r.device, size), b(r.device, size);
    for (uint64_t round = 0; round < 8; ++round) {
      const Bytes sent = pattern(size, 100 + round);
      a.write(sent);
      r.device.copy(b.data(), a.data(), size);
      comparison.expect(b, sent);
    }
  }
  comparison.report("copies");
}

/// Zeros in a part of a buffer, and nowhere else.
void fills_of_parts(Running& r) {
  constexpr size_t kSize = 8192;
  Comparison comparison(r);
  const Block block(r.device, kSize);
  const Bytes ground = pattern(kSize, 310);
  for (const size_t offset : {0, 2, 34, 510, 4094})
    for (const size_t size : {2, 30, 32, 66, 512, 4096}) {
      Bytes expected = ground;
      block.write(ground);
      wait(r);
      r.device.fill_zero(block.data() + offset, size);
      wait(r);
      std::memset(expected.data() + offset, 0, size);
      comparison.expect(block, expected);
    }
  comparison.report();
}

/// Copies that need each other, in a row; waited for before the result is read.
void copies_in_a_row(Running& r) {
  Comparison comparison(r);
  for (const size_t size : kSizes) {
    const Block a(r.device, size), b(r.device, size), c(r.device, size);
    for (uint64_t round = 0; round < (size > 100'000 ? 4 : 12); ++round) {
      const Bytes sent = pattern(size, 150 + round);
      a.write(sent);
      r.device.copy(b.data(), a.data(), size);
      r.device.copy(c.data(), b.data(), size);
      wait(r);
      comparison.expect(c, sent);
    }
  }
  comparison.report();
}

/// A copy reads its source as it is at its place in the stream, not as it is later.
void overwritten_sources(Running& r) {
  Comparison comparison(r);
  for (const size_t size : kSizes) {
    const Block a(r.device, size), b(r.device, size);
    const Bytes zero(size, 0);
    for (uint64_t round = 0; round < 6; ++round) {
      const Bytes sent = pattern(size, 200 + round);
      a.write(sent);
      r.device.copy(b.data(), a.data(), size);
      r.device.fill_zero(a.data(), size);
      wait(r);
      comparison.expect(b, sent);
      comparison.expect(a, zero);
    }
  }
  comparison.report();
}

/// Many copies from the host under way at once: more than there is memory to stage them in.
void many_host_copies(Running& r) {
  Comparison comparison(r);
  for (uint64_t round = 0; round < 4; ++round) {
    std::vector<Block> blocks;
    std::vector<Bytes> sent;
    for (uint64_t i = 0; i < 24; ++i) {
      const size_t size = kSizes[4 + i % 5];
      blocks.emplace_back(r.device, size);
      sent.push_back(pattern(size, 400 + 24 * round + i));
    }
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i].write(sent[i]);
    wait(r);
    for (size_t i = 0; i < blocks.size(); ++i) comparison.expect(blocks[i], sent[i]);
  }
  comparison.report();
}

/// One long queue without waiting: copies through a ring of buffers, each a step on.
void long_queue(Running& r) {
  constexpr size_t kRing = 8, kSize = 4096;
  Comparison comparison(r);
  std::vector<Block> ring;
  for (size_t i = 0; i < kRing; ++i) ring.emplace_back(r.device, kSize);
  for (uint64_t round = 0; round < 2; ++round) {
    const Bytes sent = pattern(kSize, 800 + round);
    ring[0].write(sent);
    for (size_t step = 0; step < 256; ++step) {
      const size_t from = step % kRing, to = (step + 1) % kRing;
      r.device.copy(ring[to].data(), ring[from].data(), kSize);
      r.device.fill_zero(ring[from].data(), kSize);  // nothing is left behind to be found by luck
    }
    wait(r);
    comparison.expect(ring[256 % kRing], sent);
  }
  comparison.report();
}

/// Many buffers live at once keep what was written to each.
void many_blocks(Running& r) {
  Comparison comparison(r);
  std::vector<Block> blocks;
  std::vector<Bytes> sent;
  for (uint64_t i = 0; i < 60; ++i) {
    const size_t size = kSizes[i % 9] + i / 9 * 2;
    blocks.emplace_back(r.device, size);
    sent.push_back(pattern(size, 600 + i));
    blocks.back().write(sent.back());
    wait(r);
  }
  for (size_t i = 0; i < blocks.size(); ++i) comparison.expect(blocks[i], sent[i]);
  comparison.report();
}

/// Bytes of which every page and its place tell: as good as random for copies, and made quickly.
Bytes stamped(size_t size, uint64_t seed) {
  Bytes out = pattern(std::min<size_t>(size, 4096), seed);
  out.resize(size);
  for (size_t at = 4096; at < size; at += 4096) {
    std::memcpy(out.data() + at, out.data(), std::min<size_t>(4096, size - at));
    if (size - at >= sizeof at) std::memcpy(out.data() + at, &at, sizeof at);
  }
  return out;
}

/// A large block, as weights are: each page has its own content.
void large_block(Running& r) {
  Comparison comparison(r);
  const Bytes sent = stamped((r.options.quick ? size_t{9} : size_t{48}) << 20, 700);
  const Block block(r.device, sent.size());
  block.write(sent);
  wait(r);
  comparison.expect(block, sent);
  comparison.report();
}

/// To the device, across, and back, between two other places that must stay as they are.
void copy_of_size(Running& r, Comparison& comparison, size_t size, size_t offset, uint64_t seed) {
  constexpr size_t kMargin = 96;
  const Block a(r.device, offset + size + kMargin), b(r.device, offset + size + kMargin);
  Bytes sent = stamped(size, seed);
  r.device.fill_zero(b.data(), b.size());
  r.device.copy_from_host(a.data() + offset, sent.data(), size);
  r.device.copy(b.data() + offset, a.data() + offset, size);
  wait(r);
  if (size <= size_t{64} << 20) {
    Bytes expected(b.size());
    std::memcpy(expected.data() + offset, sent.data(), size);
    return comparison.expect(b, expected);
  }
  // Piece by piece: two more copies of this size need not fit.
  for (size_t at = 0; at < size; at += size_t{64} << 20) {
    const size_t piece = std::min(size - at, size_t{64} << 20);
    Bytes got(piece);
    r.device.copy_to_host(got.data(), b.data() + offset + at, piece);
    wait(r);
    if (std::memcmp(got.data(), sent.data() + at, piece) == 0) continue;
    r.found("content",
            "{} at offset {}: the piece from byte {} on is not what was sent",
            format_bytes(static_cast<double>(size)),
            offset,
            at);
    return;
  }
}

/// Powers of two and their neighbours, odd ones among them, at odd places.
void copies_of_all_sizes(Running& r) {
  const Random random(r.options.seed, RandomPurpose::kTest, 0xC091E5);
  const size_t most = (r.options.quick ? size_t{4} : size_t{256}) << 20;
  std::set<size_t> sizes;
  for (size_t p = 1; p <= most; p *= 2) sizes.insert({p > 1 ? p - 1 : p, p, p + 1});
  for (uint64_t i = 0; i < 12; ++i) sizes.insert(1 + random.below(i, most));
  Comparison comparison(r);
  uint64_t at = 100;
  for (const size_t size : sizes) {
    // Above this a size takes a while: by the seed one of each power's three in the quick list.
    if (r.options.quick && size > 70'000 && random.below(++at, 3) != 0) continue;
    copy_of_size(r, comparison, size, 0, at);
    const size_t offset = 1 + random.below(++at, 95);
    if (size < size_t{1} << 20) copy_of_size(r, comparison, size, offset, at);
    r.listener.alive(static_cast<double>(size) / static_cast<double>(most));
  }
  comparison.report();
}

/// More bytes than a signed 32-bit number counts, where there is memory for it.
void copies_beyond_2_gib(Running& r) {
  const size_t size = (size_t{1} << 31) + 4097;
  if (memory_available().bytes < uint64_t{4} * size)
    return r.listener.noted(
        "copies beyond 2^31 bytes not tried: this machine has no memory for them");
  Comparison comparison(r);
  try {
    copy_of_size(r, comparison, size, 0, r.options.seed);
  } catch (const OutOfDeviceMemory&) {
    r.listener.noted("copies beyond 2^31 bytes not tried: the device has no memory for them");
  }
  comparison.report();
}

/// What the run sends to the device and copies on it, as far as there is room.
void copies_of_run(Running& r) {
  constexpr size_t kSizesMost = 40;
  const std::vector<size_t>& all = r.options.run.copies;
  const size_t most = std::min<size_t>((r.options.quick ? size_t{64} : size_t{1024}) << 20,
                                       memory_available().bytes / 8);
  std::vector<size_t> sizes;
  for (const size_t n : all)
    if (n > 0 && n <= most) sizes.push_back(n);
  const size_t beyond = all.size() - sizes.size();
  // The largest, and of the others as many as are worth the time.
  std::reverse(sizes.begin(), sizes.end());
  const size_t left_out = sizes.size() - std::min(sizes.size(), kSizesMost);
  sizes.resize(sizes.size() - left_out);
  Comparison comparison(r);
  size_t no_room = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    try {
      copy_of_size(r, comparison, sizes[i], 0, r.options.seed + i);
    } catch (const OutOfDeviceMemory&) {
      ++no_room;
    }
    r.listener.alive(static_cast<double>(i + 1) / static_cast<double>(sizes.size()));
  }
  const auto not_tried = [&](size_t count, const std::string& why) {
    if (count > 0)
      r.listener.noted(fmt::format("not tried: {} of the {} sizes of copies that {} makes: {}",
                                   count,
                                   all.size(),
                                   r.options.run.name,
                                   why));
  };
  not_tried(beyond,
            fmt::format("they are above {}, more than there is room or time for",
                        format_bytes(static_cast<double>(most))));
  not_tried(no_room, "the device has no memory for them");
  not_tried(left_out, fmt::format("the {} largest were", kSizesMost));
  comparison.report();
}

/// An allocation that cannot be had leaves the device as it was.
void after_an_error(Running& r) {
  Comparison comparison(r);
  const Bytes sent = pattern(4096, 900);
  const Block before(r.device, sent.size());
  before.write(sent);
  bool refused = false;
  try {
    const Block huge(r.device, size_t{1} << 50);
  } catch (const DeviceError&) {
    refused = true;
  }
  if (!refused) return r.found("content", "a pebibyte was allocated: memory is not what it says");
  const Block after(r.device, sent.size());
  r.device.copy(after.data(), before.data(), sent.size());
  wait(r);
  comparison.expect(after, sent);
  comparison.expect(before, sent);
  comparison.report();
}

/// A buffer that is given back while a copy from it is still to come is not handed out too early.
void reused_blocks(Running& r) {
  Comparison comparison(r);
  for (uint64_t round = 0; round < 24; ++round) {
    const size_t size = kSizes[4 + round % 6];
    const Bytes first = pattern(size, 500 + round), second = pattern(size, 550 + round);
    const Block kept(r.device, size);
    {
      const Block passing(r.device, size);
      passing.write(first);
      r.device.copy(kept.data(), passing.data(), size);
    }
    const Block next(r.device, size);  // most likely the same memory
    next.write(second);
    wait(r);
    comparison.expect(kept, first);
    comparison.expect(next, second);
  }
  comparison.report();
}

Check runtime_check(const char* subject, const char* what, void (*run)(Running&)) {
  return {.head = {.name = fmt::format("{}, {}", subject, what),
                   .subject = subject,
                   .level = Level::kRuntime},
          .run = run};
}

}  // namespace

std::vector<Check> runtime_checks() {
  return {runtime_check("copies", "one by one", copies_one_by_one),
          runtime_check("copies", "parts of buffers", copies_of_parts),
          runtime_check("copies", "reads right behind a copy", reads_right_behind),
          runtime_check("fills", "parts of buffers", fills_of_parts),
          runtime_check("copies", "sizes", copies_of_all_sizes),
          runtime_check("streams", "copies in a row", copies_in_a_row),
          runtime_check("streams", "many copies from the host", many_host_copies),
          runtime_check("streams", "sources overwritten after the copy", overwritten_sources),
          runtime_check("streams", "a long queue", long_queue),
          runtime_check("memory", "many buffers at once", many_blocks),
          runtime_check("memory", "a large buffer", large_block),
          runtime_check("memory", "after an allocation that failed", after_an_error),
          runtime_check("memory", "buffers given back while they are read", reused_blocks)};
}

std::vector<Check> large_copy_checks(const Options& options) {
  std::vector<Check> checks;
  if (!options.quick)
    checks.push_back(runtime_check("copies", "beyond 2^31 bytes", copies_beyond_2_gib));
  if (!options.run.copies.empty())
    checks.push_back(runtime_check("copies", "the run's own sizes", copies_of_run));
  return checks;
}

}  // namespace ferry::doctor
