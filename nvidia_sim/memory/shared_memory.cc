#include "memory/shared_memory.h"

#include <string>

#include "driver/result.h"

namespace nvidia_sim {
namespace {

constexpr uint32_t kWarpSize = 32;
constexpr uint64_t kWord = 4;

std::string place(uint64_t byte) { return "byte " + std::to_string(byte) + " of shared memory"; }

[[noreturn]] void race(const char* does, uint64_t byte, const std::string& other) {
  throw Violation(result::kLaunchFailed,
                  std::string("race: ") + does + " " + place(byte) + ", which " + other +
                      " with no barrier between");
}

}  // namespace

void SharedMemory::reset(uint64_t bytes, uint32_t warps, bool checked) {
  checked_ = checked;
  data_.assign(bytes, 0xFF);
  words_.assign((bytes + kWord - 1) / kWord, {});
  bytes_.clear();
  periods_.assign(warps, {});
  barriers_ = 1;
}

inline bool SharedMemory::before(const Mark& mark, uint32_t thread) const {
  if (mark.period == 0 || mark.thread == thread) return true;
  const uint32_t warp = mark.thread / kWarpSize;
  const Periods& its = periods_[warp];
  return mark.period < (warp == thread / kWarpSize ? its.now : its.at_barrier);
}

inline void SharedMemory::check_read(Shadow& s, uint32_t thread, uint64_t byte) {
  if (s.writer.period == 0)
    throw Violation(result::kLaunchFailed, "reads " + place(byte) + ", which nobody wrote");
  if (!before(s.writer, thread))
    race("reads", byte, "thread " + std::to_string(s.writer.thread) + " wrote");
  // Who has read: one thread, several of a warp in one of its periods, or threads of several warps.
  const uint32_t warp = thread / kWarpSize, its_warp = s.reader.thread / kWarpSize;
  const Mark mark{thread, periods_[warp].now};
  if (s.barrier == barriers_) return;
  if (s.barrier == 0 && s.reader.period != 0) {
    if (its_warp != warp && s.reader.period >= periods_[its_warp].at_barrier) {
      s.barrier = barriers_;
      return;
    }
    // An earlier reader of the own warp is before this one: what other warps must not overtake is
    // the later of the two.
    if (its_warp == warp && s.reader.period == mark.period) {
      s.same_warp |= s.reader.thread != thread;
      return;
    }
  }
  s.reader = mark;
  s.barrier = 0;
  s.same_warp = false;
}

inline void SharedMemory::check_write(Shadow& s, uint32_t thread, uint64_t byte) {
  if (!before(s.writer, thread))
    race("writes", byte, "thread " + std::to_string(s.writer.thread) + " wrote");
  if (s.barrier == barriers_) race("writes", byte, "threads of several warps read");
  const uint32_t warp = thread / kWarpSize;
  if (s.barrier == 0 && s.same_warp && s.reader.thread / kWarpSize == warp &&
      s.reader.period == periods_[warp].now)
    race("writes", byte, "other threads of its warp read");
  if (s.barrier == 0 && !before(s.reader, thread))
    race("writes", byte, "thread " + std::to_string(s.reader.thread) + " read");
  s.writer = {thread, periods_[warp].now};
}

inline void SharedMemory::check(Shadow& s, uint32_t thread, uint64_t byte, Access access) {
  access == Access::kRead ? check_read(s, thread, byte) : check_write(s, thread, byte);
}

uint8_t* SharedMemory::access(uint32_t thread, uint64_t at, uint32_t bytes, Access access) {
  if (at > data_.size() || bytes > data_.size() - at)
    throw Violation(result::kIllegalAddress,
                    std::string(access == Access::kRead ? "reads " : "writes ") +
                        std::to_string(bytes) + " bytes out of bounds, at byte " +
                        std::to_string(at) + " of " + std::to_string(data_.size()) +
                        " of shared memory");
  for (uint64_t byte = at; checked_ && byte < at + bytes;) {
    Shadow& word = words_[byte / kWord];
    if (word.on_its_way)
      throw Violation(result::kLaunchFailed,
                      std::string(access == Access::kRead ? "reads " : "writes ") + place(byte) +
                          ", to which a copy is on its way that was not waited for");
    const bool whole = byte % kWord == 0 && byte + kWord <= at + bytes;
    if (whole && !word.split) {
      check(word, thread, byte, access);
      byte += kWord;
      continue;
    }
    if (!word.split) {
      bytes_.resize(words_.size() * kWord);
      for (uint64_t b = 0; b < kWord; ++b) bytes_[byte / kWord * kWord + b] = word;
      word.split = true;
    }
    check(bytes_[byte], thread, byte, access);
    ++byte;
  }
  return data_.data() + at;
}

void SharedMemory::begin_copy(uint32_t thread, uint64_t at, uint32_t bytes) {
  access(thread, at, bytes, Access::kWrite);
  if (!checked_) return;
  for (uint64_t byte = at; byte < at + bytes; byte += kWord) words_[byte / kWord].on_its_way = true;
}

uint8_t* SharedMemory::land_copy(uint32_t thread, uint64_t at, uint32_t bytes) {
  if (checked_)
    for (uint64_t byte = at; byte < at + bytes; byte += kWord) {
      Shadow& word = words_[byte / kWord];
      word = {};
      word.writer = {thread, periods_[thread / kWarpSize].now};
    }
  return data_.data() + at;
}

void SharedMemory::block_barrier() {
  for (Periods& p : periods_) p.at_barrier = ++p.now;
  ++barriers_;
}

}  // namespace nvidia_sim
