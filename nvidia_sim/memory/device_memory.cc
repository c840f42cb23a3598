#include "memory/device_memory.h"

#include <cstdio>
#include <string>

#include "driver/result.h"

namespace nvidia_sim {
namespace {

constexpr uint64_t kAlignment = 256;
constexpr size_t kFreedMax = 4096;

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

uint64_t DeviceMemory::allocate(uint64_t bytes) {
  if (bytes > bytes_ - used_) return 0;
  auto allocation = std::make_unique<Allocation>();
  const uint64_t address = next_;
  allocation->address = address;
  allocation->bytes = bytes;
  allocations_.emplace(address, std::move(allocation));
  used_ += bytes;
  of_size_[bytes] = address;
  // At least one unit lies between two, so that a step too far meets nobody's memory.
  next_ += (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
  return address;
}

uint64_t DeviceMemory::hand_out_again(uint64_t bytes) {
  const auto at = of_size_.find(bytes);
  if (at == of_size_.end() || !is_allocated(at->second)) return 0;
  ++allocations_.at(at->second)->owners;
  return at->second;
}

void DeviceMemory::begin(uint64_t address) {
  Allocation& a = *allocations_.at(address);
  if (a.state != Allocation::State::kOrdered) return;  // handed out again, or freed too early
  a.state = Allocation::State::kLive;
  a.data.assign(a.bytes, 0xFF);  // NaN, for who reads what was not written and is not caught
  a.written.assign(a.bytes, 0);
}

bool DeviceMemory::is_allocated(uint64_t address) const {
  const auto at = allocations_.find(address);
  return at != allocations_.end() && at->second->state != Allocation::State::kFreed;
}

void DeviceMemory::end(uint64_t address) {
  const auto at = allocations_.find(address);
  if (at == allocations_.end() || at->second->state == Allocation::State::kFreed)
    throw Violation(result::kInvalidValue,
                    hex(address) + " is freed, and is no allocation or was freed before");
  Allocation& a = *at->second;
  if (--a.owners > 0) return;
  a.state = Allocation::State::kFreed;
  a.data = {};
  a.written = {};
  used_ -= a.bytes;
  freed_.push_back(address);
  if (freed_.size() > kFreedMax) {
    allocations_.erase(freed_.front());
    freed_.pop_front();
  }
}

Allocation* DeviceMemory::find(uint64_t address) const {
  const auto after = allocations_.upper_bound(address);
  return after == allocations_.begin() ? nullptr : std::prev(after)->second.get();
}

bool DeviceMemory::holds(uint64_t address, uint64_t bytes) const {
  const Allocation* const a = find(address);
  return a != nullptr && a->holds(address, bytes);
}

Allocation& DeviceMemory::around(uint64_t address, uint64_t bytes, Access access) {
  Allocation* const a = find(address);
  if (a != nullptr && a->holds(address, bytes)) {
    if (record_ != nullptr && access == Access::kWrite && !record_->contains(a->address))
      record_->emplace(a->address, Before{a->data, a->written});
    return *a;
  }
  const std::string what = (access == Access::kRead ? "reads " : "writes ") +
                           std::to_string(bytes) + " bytes at " + hex(address) + ": ";
  if (a == nullptr || address - a->address > a->bytes + kAlignment)
    throw Violation(result::kIllegalAddress, what + "no allocation of the device");
  const std::string place = "at byte " + std::to_string(address - a->address) +
                            " of an allocation of " + std::to_string(a->bytes);
  switch (a->state) {
    case Allocation::State::kFreed:
      throw Violation(result::kIllegalAddress, what + place + ", which was freed");
    case Allocation::State::kOrdered:
      throw Violation(result::kIllegalAddress,
                      what + place + ", which its stream has not come to yet");
    case Allocation::State::kLive: break;
  }
  throw Violation(result::kIllegalAddress, what + "out of bounds, " + place);
}

}  // namespace nvidia_sim
