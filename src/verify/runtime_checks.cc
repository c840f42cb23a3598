// Copies, memory and the stream, without any mathematics: what everything else stands on. Each
// check waits only where a program would, so that what lands late is seen.
#include <cstring>

#include "base/random.h"
#include "verify/checks.h"

namespace ferry::verify {
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

/// Reports a difference once; true if there is none.
bool same(Running& r, const Bytes& got, const Bytes& expected, const char* property) {
  if (got == expected) return true;
  r.found(property, "{}", difference(got, expected));
  return false;
}

constexpr size_t kSizes[] = {2, 30, 32, 34, 64, 254, 4096, 4098, 65534, (1 << 20) + 6};

/// To the device, back; waiting after each. The host's buffer is overwritten as soon as it may be.
void host_copies(Running& r) {
  Stream& stream = r.device.stream();
  for (const size_t size : kSizes) {
    const Block block(r.device, size);
    for (uint64_t round = 0; round < 4; ++round) {
      const Bytes sent = pattern(size, 11 + round);
      Bytes host = sent, got(size, 0xEE);
      block.write(host);
      stream.synchronize();
      std::memset(host.data(), 0x77, size);  // a copy that lands late brings this
      block.read(got);
      stream.synchronize();
      if (!same(r, got, sent, "host to device and back")) return;
    }
  }
}

/// Host, device, device, host in one go: each copy needs the one before. Every round uses the same
/// memory, so that a copy that comes late shows the round before.
void chained_copies(Running& r) {
  Stream& stream = r.device.stream();
  for (const size_t size : kSizes) {
    const Block a(r.device, size), b(r.device, size), c(r.device, size);
    const uint64_t rounds = size > 100'000 ? 8 : 24;
    for (uint64_t round = 0; round < rounds; ++round) {
      const Bytes sent = pattern(size, 100 + round);
      Bytes got(size, 0xEE);
      a.write(sent);
      r.device.copy(b.data(), a.data(), size);
      r.device.copy(c.data(), b.data(), size);
      c.read(got);
      stream.synchronize();
      if (!same(r, got, sent, "device to device")) return;
    }
  }
}

/// A copy reads its source as it is at its place in the stream, not as it is later.
void overwritten_sources(Running& r) {
  Stream& stream = r.device.stream();
  for (const size_t size : kSizes) {
    const Block a(r.device, size), b(r.device, size);
    for (uint64_t round = 0; round < 16; ++round) {
      const Bytes sent = pattern(size, 200 + round), zero(size, 0);
      Bytes got(size, 0xEE), emptied(size, 0xEE);
      a.write(sent);
      r.device.copy(b.data(), a.data(), size);
      r.device.fill_zero(a.data(), size);
      b.read(got);
      a.read(emptied);
      stream.synchronize();
      if (!same(r, got, sent, "copy of a source that is overwritten after it") ||
          !same(r, emptied, zero, "fill after a copy"))
        return;
    }
  }
}

/// Parts of a buffer, at offsets as tensors' slices have them; what lies around stays.
void partial_copies(Running& r) {
  Stream& stream = r.device.stream();
  constexpr size_t kSize = 8192;
  const Block block(r.device, kSize), other(r.device, kSize);
  const Bytes ground = pattern(kSize, 300), part = pattern(kSize, 301);
  for (const size_t offset : {2, 32, 34, 64, 510, 4094})
    for (const size_t size : {2, 30, 32, 66, 4096}) {
      Bytes expected = ground, got(kSize, 0xEE);
      block.write(ground);
      other.write(part);
      r.device.copy(block.data() + offset, other.data() + 2, size);
      std::memcpy(expected.data() + offset, part.data() + 2, size);
      block.read(got);
      stream.synchronize();
      if (!same(r, got, expected, "copy into a part of a buffer")) return;
      r.device.fill_zero(block.data() + offset, size);
      std::memset(expected.data() + offset, 0, size);
      block.read(got);
      stream.synchronize();
      if (!same(r, got, expected, "zeros in a part of a buffer")) return;
    }
}

/// Many buffers live at once keep what was written to each.
void many_blocks(Running& r) {
  std::vector<Block> blocks;
  std::vector<Bytes> sent;
  for (uint64_t i = 0; i < 96; ++i) {
    const size_t size = kSizes[i % std::size(kSizes)] + i / std::size(kSizes) * 2;
    blocks.emplace_back(r.device, size);
    sent.push_back(pattern(size, 400 + i));
    blocks.back().write(sent.back());
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    Bytes got(sent[i].size(), 0xEE);
    blocks[i].read(got);
    r.device.stream().synchronize();
    if (!same(r, got, sent[i], "many buffers at once")) return;
  }
}

/// A buffer that is given back while a copy from it is still to come is not handed out too early.
void reused_blocks(Running& r) {
  Stream& stream = r.device.stream();
  for (uint64_t round = 0; round < 48; ++round) {
    const size_t size = kSizes[4 + round % 6];
    const Bytes first = pattern(size, 500 + round), second = pattern(size, 600 + round);
    const Block kept(r.device, size);
    Bytes got(size, 0xEE), got_second(size, 0xEE);
    {
      const Block passing(r.device, size);
      passing.write(first);
      r.device.copy(kept.data(), passing.data(), size);
    }
    const Block next(r.device, size);  // most likely the same memory
    next.write(second);
    kept.read(got);
    next.read(got_second);
    stream.synchronize();
    if (!same(r, got, first, "a buffer given back while it is still read") ||
        !same(r, got_second, second, "a buffer handed out again"))
      return;
  }
}

/// Large blocks, as weights are: each page has its own content.
void large_block(Running& r) {
  constexpr size_t kSize = size_t{24} << 20;
  const Block block(r.device, kSize);
  Bytes sent = pattern(4096, 700), got(kSize, 0xEE);
  sent.resize(kSize);
  for (size_t at = 4096; at < kSize; at += 4096) {
    std::memcpy(sent.data() + at, sent.data(), 4096);
    std::memcpy(sent.data() + at, &at, sizeof at);
  }
  block.write(sent);
  block.read(got);
  r.device.stream().synchronize();
  same(r, got, sent, "a large buffer");
}

/// One long queue without waiting: a thousand copies through a ring of buffers, each a step on.
void long_queue(Running& r) {
  constexpr size_t kRing = 8, kSize = 4096;
  std::vector<Block> ring;
  for (size_t i = 0; i < kRing; ++i) ring.emplace_back(r.device, kSize);
  for (uint64_t round = 0; round < 4; ++round) {
    const Bytes sent = pattern(kSize, 800 + round);
    Bytes got(kSize, 0xEE);
    ring[0].write(sent);
    for (size_t step = 0; step < 256; ++step) {
      const size_t from = step % kRing, to = (step + 1) % kRing;
      r.device.copy(ring[to].data(), ring[from].data(), kSize);
      r.device.fill_zero(ring[from].data(), kSize);  // nothing is left behind to be found by luck
    }
    ring[256 % kRing].read(got);
    r.device.stream().synchronize();
    if (!same(r, got, sent, "a long queue of copies")) return;
  }
}

Check runtime_check(const char* subject, const char* what, void (*run)(Running&)) {
  return {.head = {.name = fmt::format("{}, {}", subject, what),
                   .subject = subject,
                   .level = Level::kRuntime},
          .run = run};
}

}  // namespace

std::vector<Check> runtime_checks() {
  return {runtime_check("copies", "host to device and back", host_copies),
          runtime_check("copies", "device to device", chained_copies),
          runtime_check("copies", "parts of buffers", partial_copies),
          runtime_check("memory", "many buffers at once", many_blocks),
          runtime_check("memory", "a large buffer", large_block),
          runtime_check("memory", "buffers given back while they are read", reused_blocks),
          runtime_check("streams", "sources overwritten after the copy", overwritten_sources),
          runtime_check("streams", "a long queue", long_queue)};
}

}  // namespace ferry::verify
