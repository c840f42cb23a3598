#include "autograd/tape.h"

#include "base/check.h"
#include "base/flight_record.h"

namespace ferry {
namespace {

thread_local Tape* t_current = nullptr;

}  // namespace

Tape* Tape::current() { return t_current; }

Tape::Recording::Recording(Tape* tape) : previous_(t_current) { t_current = tape; }
Tape::Recording::~Recording() { t_current = previous_; }

Tensor Grads::of(const Tensor& output) const {
  Tensor d = tape_.read(output);
  return d.defined() ? d : Tensor::zeros(output.shape(), output.dtype(), output.device());
}
bool Grads::has(const Tensor& output) const {
  return tape_.grads_.contains(output.storage().get());
}
void Grads::add(const Tensor& input, Tensor d) { tape_.add(input, std::move(d)); }

void Tape::record(const char* op,
                  std::vector<Tensor> inputs,
                  std::vector<Tensor> outputs,
                  Backward input_grads,
                  Backward weight_grads) {
  bool any = false;
  for (const Tensor& t : inputs) any = any || t.needs_grad();
  if (any)
    push({op,
          layer_,
          std::move(inputs),
          std::move(outputs),
          std::move(input_grads),
          std::move(weight_grads)});
}

void Tape::record_always(const char* op,
                         std::vector<Tensor> inputs,
                         std::vector<Tensor> outputs,
                         Backward input_grads) {
  push({op, layer_, std::move(inputs), std::move(outputs), std::move(input_grads), {}});
}

void Tape::push(Node node) {
  for (std::vector<Tensor>* tensors : {&node.inputs, &node.outputs})
    for (Tensor& t : *tensors) t = t.without_memory();
  for (Tensor& t : node.outputs) {
    t.set_needs_grad(true);
    produced_.insert(t.storage().get());
  }
  for (const Tensor& t : node.inputs) {
    const Storage* key = t.storage().get();
    if (!t.needs_grad() || produced_.contains(key)) continue;
    check(!handed_over_.contains(key),
          "{}: a weight is used again after its gradient was handed over",
          node.op);
    ++uses_[key];
    // A leaf may be read in parts; what is handed over in the end is the whole of it.
    const auto leaf = leaves_.try_emplace(key, t).first;
    if (t.covers_storage()) leaf->second = t;
  }
  nodes_.push_back(std::move(node));
}

Tensor Tape::read(const Tensor& value) const {
  const auto it = grads_.find(value.storage().get());
  if (it == grads_.end()) return {};
  return value.mirrored_in(it->second.sum);
}

void Tape::add(const Tensor& input, Tensor d) {
  if (!input.needs_grad()) return;
  check(d.shape() == input.shape(),
        "gradient: {} for a value {}",
        d.shape().str(),
        input.shape().str());
  check(d.dtype() == input.dtype(),
        "gradient: {} for a value in {}",
        to_string(d.dtype()),
        to_string(input.dtype()));
  const Storage* key = input.storage().get();
  const auto it = grads_.find(key);
  if (it == grads_.end()) {
    if (input.covers_storage() && d.covers_storage()) {
      grads_[key] = {input.storage(), std::move(d)};
      return;
    }
    const auto elements = static_cast<int64_t>(input.storage()->bytes / size_of(d.dtype()));
    Tensor sum = Tensor::zeros({elements}, d.dtype(), input.device());
    accumulate_(input.mirrored_in(sum), d);
    grads_[key] = {input.storage(), std::move(sum)};
    return;
  }
  Tensor& sum = it->second.sum;
  if (!sum.alone()) {
    // Taken over from a gradient that serves another value as well (add passes one to both sides).
    Tensor own = Tensor::empty(sum.shape(), sum.dtype(), sum.device());
    sum.device().copy(own.data(), sum.data(), sum.bytes());
    sum = std::move(own);
  }
  accumulate_(input.mirrored_in(sum), d);
}

void Tape::finish_uses(const Node& node, const PlaybackHooks& hooks) {
  for (const Tensor& t : node.inputs) {
    const auto it = uses_.find(t.storage().get());
    if (it == uses_.end() || --it->second > 0) continue;
    uses_.erase(it);
    const Tensor leaf = leaves_.at(t.storage().get());
    leaves_.erase(t.storage().get());
    if (!hooks.leaf_ready) continue;
    const auto g = grads_.find(t.storage().get());
    if (g == grads_.end()) continue;
    check(leaf.covers_storage(),
          "{}: no node read the whole of a leaf, only {}: its gradient cannot be handed over",
          node.op,
          leaf.shape().str());
    Tensor whole = leaf.mirrored_in(g->second.sum);
    grads_.erase(g);
    handed_over_.insert(leaf.storage().get());
    hooks.leaf_ready(leaf, std::move(whole));
  }
}

void Tape::backward(const Tensor& output, Tensor d_output, const PlaybackHooks& hooks) {
  std::vector<std::pair<Tensor, Tensor>> seeds;
  seeds.emplace_back(output, std::move(d_output));
  backward(std::move(seeds), hooks);
}

void Tape::backward(std::vector<std::pair<Tensor, Tensor>> seeds, const PlaybackHooks& hooks) {
  const Recording pause(nullptr);
  flight::set_pass(flight::Pass::kBackward);
  for (auto& [output, d] : seeds) add(output, std::move(d));
  seeds.clear();
  Grads grads(*this);
  std::vector<Node> deferred;  // of the layer being played: their weight gradients are to come
  const auto end_layer = [&](int layer) {
    for (Node& node : deferred) {
      node.weight_grads(grads);
      for (const Tensor& t : node.outputs) grads_.erase(t.storage().get());
      finish_uses(node, hooks);
    }
    deferred.clear();
    if (hooks.layer_done) hooks.layer_done(layer);
  };
  while (!nodes_.empty()) {
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    bool reached = false;
    for (const Tensor& t : node.outputs) reached = reached || grads_.contains(t.storage().get());
    const int layer = layer_ = node.layer;
    flight::set_layer(layer);
    if (reached) node.input_grads(grads);  // a recompute node pushes the nodes to be played next
    if (reached && node.weight_grads) {
      deferred.push_back(std::move(node));
    } else {
      for (const Tensor& t : node.outputs) grads_.erase(t.storage().get());
      finish_uses(node, hooks);
    }
    if (nodes_.empty() || nodes_.back().layer != layer) end_layer(layer);
  }
  produced_.clear();
  uses_.clear();
  leaves_.clear();
  handed_over_.clear();
}

Tensor Tape::grad(const Tensor& leaf) const { return read(leaf); }

}  // namespace ferry
