#include "verify/recorder.h"

#include <algorithm>
#include <cstring>

namespace ferry::verify {
namespace {

/// Whether the op itself sends this input with each call, so that no other op wrote it.
bool sent_along(std::string_view op, std::string_view input) {
  return op == "dequantize" && input == "numbers";  // of the 256 codes
}

constexpr size_t kFindingsMax = 50;  // what follows is no news

}  // namespace

void WrittenMemory::forget(const ops::Extent& at) {
  const std::byte* const end = at.begin + at.bytes;
  auto it = pieces_.lower_bound(at.begin);
  if (it != pieces_.begin() && std::prev(it)->second.end > at.begin) it = std::prev(it);
  while (it != pieces_.end() && it->first < end) {
    const auto [begin, piece] = *it;
    it = pieces_.erase(it);
    if (begin < at.begin) pieces_[begin] = {at.begin, piece.host, piece.offset, piece.writer};
    if (piece.end > end)
      pieces_[end] = {
          piece.end, piece.host, piece.offset + static_cast<size_t>(end - begin), piece.writer};
  }
}

void WrittenMemory::write(const ops::Extent& at, const Tensor& host, const std::string& writer) {
  if (at.bytes == 0) return;
  forget(at);
  pieces_[at.begin] = {at.begin + at.bytes, std::make_shared<const Tensor>(host), 0, writer};
}

std::string WrittenMemory::changed_since(const ops::Extent& at, const Tensor& host) const {
  const std::byte* const end = at.begin + at.bytes;
  auto it = pieces_.lower_bound(at.begin);
  if (it != pieces_.begin() && std::prev(it)->second.end > at.begin) it = std::prev(it);
  for (; it != pieces_.end() && it->first < end; ++it) {
    const std::byte *first = std::max(it->first, at.begin), *last = std::min(it->second.end, end);
    const auto* was = static_cast<const std::byte*>(it->second.host->data()) + it->second.offset +
                      (first - it->first);
    const auto* is = static_cast<const std::byte*>(host.data()) + (first - at.begin);
    if (std::memcmp(was, is, static_cast<size_t>(last - first)) != 0) return it->second.writer;
  }
  return "";
}

void Recorder::begin_pass(const std::string& name, bool record, std::set<int> layers) {
  finish();
  written_.clear();
  pass_ = name;
  recording_ = record;
  only_ = std::move(layers);
  layer_ = 0;
  judged_in_layer_ = 0;
  weights_known_ = false;
}

bool Recorder::is_weight(const View& view) const {
  const ops::Extent e = ops::extent_of(view);
  return std::any_of(weights_.begin(), weights_.end(), [&](const ops::Extent& w) {
    return w.begin <= e.begin && e.begin + e.bytes <= w.begin + w.bytes;
  });
}

void Recorder::before(const ops::OpCall& call) {
  if (!wanted()) return;
  if (!weights_known_) {  // not before the layer's weights were loaded
    weights_.clear();
    for (const Weight* w : model_->weights())
      for (const Tensor* t : {&w->value, &w->scales})
        if (t->defined())
          weights_.push_back({static_cast<const std::byte*>(t->data()), t->bytes()});
    for (const ops::Extent& w : weights_) written_.forget(w);  // loaded by no op
    weights_known_ = true;
  }
  calls_.push_back({ops::RecordedCall(call, [this](const View& v) { return is_weight(v); }), {}});
  running_ = true;
}

void Recorder::after(const ops::OpCall& call) {
  running_ = false;
  if (wanted()) calls_.back().call.launched(call);
}

void Recorder::called(const char* library_call) {
  if (!running_) return;  // a copy of the recorder's own
  std::vector<std::string>& calls = calls_.back().vendor_calls;
  if (std::find(calls.begin(), calls.end(), library_call) == calls.end())
    calls.emplace_back(library_call);
}

void Recorder::layer(int number) {
  finish();
  layer_ = number;
  judged_in_layer_ = 0;
  weights_known_ = false;
}

std::string name_of_layer(int number, int blocks) {
  if (number == 0) return "embedding";
  return number <= blocks ? fmt::format("block {}", number - 1) : "norm and head";
}

void Recorder::finish() {
  for (Taken& taken : calls_) judge(taken, judged_in_layer_++);
  calls_.clear();
}

void Recorder::judge(Taken& taken, int64_t index) {
  ops::RecordedCall& call = taken.call;
  call.fetch();
  const std::string where =
      fmt::format("{} ({}, call {}, {} pass)", call.op(), layer_name(), index, pass_);
  for (const ops::KeptView& in : call.inputs()) {
    if (sent_along(call.op(), in.name)) {
      written_.forget(ops::extent_of(in.view));
      continue;
    }
    const std::string writer = written_.changed_since(ops::extent_of(in.view), in.copy);
    if (!writer.empty() && overwritten_.size() < kFindingsMax)
      overwritten_.push_back(
          fmt::format("{} of {} is not what {} wrote there", in.name, where, writer));
  }
  for (const ops::KeptView& out : call.outputs())
    written_.write(ops::extent_of(out.view), out.copy, where);
  const ops::CallVerdict verdict = ops::CallRules::all().judge(call);
  if (!verdict.judged) {
    unjudged_.insert(call.op());
    return;
  }
  LayerWork& work = layers_[layer_];
  ++work.calls;
  if (verdict.worst > work.worst) {
    work.worst = verdict.worst;
    work.worst_op = call.op();
  }
  if (verdict.finding && parted_.size() < kFindingsMax)
    parted_.push_back({pass_, layer_name(), index, taken.vendor_calls, *verdict.finding});
}

}  // namespace ferry::verify
