#include "ops/fenced_replay.h"

#include <algorithm>
#include <cstring>

namespace ferry::ops {
namespace {

constexpr size_t kFence = 512;  // a multiple of every device's alignment
constexpr char kFenceByte = '\xA5', kNanByte = '\xFF';

std::vector<char> bytes_of(Device& device, const void* data, size_t bytes) {
  std::vector<char> out(bytes);
  device.copy_to_host(out.data(), data, bytes);
  return out;
}

/// Whether the elements of a view are the same bits in two copies of its extent.
bool same_elements(const View& v, const char* a, const char* b) {
  const size_t size = size_of(v.dtype);
  bool same = true;
  for_each_element(v, [&](int64_t at, int64_t) {
    const size_t place = static_cast<size_t>(at) * size;
    same = same && std::memcmp(a + place, b + place, size) == 0;
  });
  return same;
}

}  // namespace

FencedReplay::Fenced FencedReplay::fenced(const char* name,
                                          const View& view,
                                          Device& device,
                                          bool copy) const {
  const Extent extent = extent_of(view);
  Fenced f{name, view, {}, std::vector<char>(extent.bytes + 2 * kFence, kFenceByte), extent};
  f.memory = Tensor::empty({static_cast<int64_t>(f.filled.size())}, DType::kU8, device);
  if (copy) {
    const std::vector<char> data = bytes_of(device, extent.begin, extent.bytes);
    std::copy(data.begin(), data.end(), f.filled.begin() + kFence);
  } else {
    std::fill_n(f.filled.begin() + kFence, extent.bytes, kNanByte);
  }
  device.copy_from_host(f.memory.data(), f.filled.data(), f.filled.size());
  f.view.data = static_cast<char*>(f.memory.data()) + kFence;
  return f;
}

void FencedReplay::found(std::string violation) {
  if (std::find(violations_.begin(), violations_.end(), violation) == violations_.end())
    violations_.push_back(std::move(violation));
}

void FencedReplay::before(const OpCall& call) {
  inputs_.clear();
  call.device.stream().synchronize();
  for (const NamedView& in : call.inputs) {
    // What lies inside another input (v inside k, in MLA's absorbed form) does so again: kernels may
    // go by it.
    const Extent extent = extent_of(in.view);
    const auto around = std::find_if(inputs_.begin(), inputs_.end(), [&](const Fenced& f) {
      return f.memory.defined() && f.from.begin <= extent.begin &&
             extent.begin + extent.bytes <= f.from.begin + f.from.bytes;
    });
    if (around == inputs_.end() || extent.bytes == 0) {
      inputs_.push_back(fenced(in.name, in.view, call.device, true));
      continue;
    }
    Fenced inside{in.name, in.view, {}, {}, extent};
    inside.view.data =
        static_cast<std::byte*>(around->view.data) + (extent.begin - around->from.begin);
    inputs_.push_back(std::move(inside));
  }
}

void FencedReplay::after(const OpCall& call) {
  const auto named = [](std::vector<Fenced>& all, const std::string& name) {
    return std::find_if(all.begin(), all.end(), [&](const Fenced& f) { return f.name == name; });
  };
  std::vector<Fenced> outputs;
  for (const NamedView& out : call.outputs)
    if (named(inputs_, out.name) == inputs_.end())
      outputs.push_back(fenced(out.name, out.view, call.device, false));
  call.relaunch(call.device, [&](const char* name, const View& view) {
    const auto in = named(inputs_, name);
    if (in != inputs_.end()) return in->view;
    const auto out = named(outputs, name);
    return out == outputs.end() ? view : out->view;
  });
  call.device.stream().synchronize();
  for (std::vector<Fenced>* all : {&inputs_, &outputs})
    for (const Fenced& f : *all) {
      if (!f.memory.defined()) continue;
      const std::vector<char> now = bytes_of(call.device, f.memory.data(), f.filled.size());
      const auto fence_at = [&](size_t at) {
        return std::memcmp(now.data() + at, f.filled.data() + at, kFence) == 0;
      };
      if (!fence_at(0) || !fence_at(now.size() - kFence))
        found(std::string(call.op) + " wrote beyond " + f.name);
      const auto out = std::find_if(call.outputs.begin(), call.outputs.end(), [&](const auto& o) {
        return f.name == o.name;
      });
      if (out == call.outputs.end()) {
        if (now != f.filled) found(std::string(call.op) + " changed its input " + f.name);
        continue;
      }
      const Extent extent = extent_of(out->view);
      const std::vector<char> first = bytes_of(call.device, extent.begin, extent.bytes);
      if (!same_elements(out->view, first.data(), now.data() + kFence))
        found(std::string(call.op) + " gives other bits of " + f.name +
              " in memory that was full of NaN");
    }
  inputs_.clear();
}

}  // namespace ferry::ops
