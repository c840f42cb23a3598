#include "nnopbase/mutants.h"

#include <algorithm>
#include <cstring>

#include "nnopbase/numbers.h"
#include "runtime/runtime.h"
#include "runtime/settings.h"

namespace ascend_sim {
namespace {

using Bytes = std::vector<unsigned char>;

constexpr int64_t kBlock = 16;

/// Each output before and after the op, as stored.
struct Change {
  const Tensor* tensor;
  Bytes before;
  Bytes after;
};

void scale(const Change& change) {
  if (!is_float(change.tensor->dtype)) return;
  std::vector<double> values = load_f64(*change.tensor);
  for (double& v : values) v *= 1 + 0x1p-6;
  store_f64(*change.tensor, values);
}

/// Exchanges the first row with the last one that differs from it. A tensor of one row: its halves'
/// first elements.
void exchange_rows(const Change& change) {
  const Tensor& t = *change.tensor;
  const int64_t elements = t.elements();
  if (elements < 2) return;
  const bool several = t.rank() > 1 && t.dim(-1) > 0 && elements > t.dim(-1);
  const size_t row = static_cast<size_t>(several ? t.dim(-1) : 1) * size_of(t.dtype);
  Bytes bits = change.after;
  for (size_t at = bits.size() - row; at > 0; at -= row)
    if (std::memcmp(bits.data(), bits.data() + at, row) != 0) {
      std::swap_ranges(bits.begin(),
                       bits.begin() + static_cast<std::ptrdiff_t>(row),
                       bits.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    }
  store_bits(t, bits);
}

/// What lies behind the last whole block of 16 stays as it was; all of the last block if none does.
void drop_tail(const Change& change) {
  const int64_t elements = change.tensor->elements();
  const int64_t lost = elements % kBlock != 0 ? elements % kBlock : std::min(kBlock, elements);
  const size_t kept = static_cast<size_t>(elements - lost) * size_of(change.tensor->dtype);
  Bytes bits = change.after;
  std::copy(change.before.begin() + static_cast<std::ptrdiff_t>(kept),
            change.before.end(),
            bits.begin() + static_cast<std::ptrdiff_t>(kept));
  store_bits(*change.tensor, bits);
}

void land_late(const Change& change) {
  store_bits(*change.tensor, change.before);
  land_after_next_task([tensor = *change.tensor, bits = change.after](const std::vector<Range>&) {
    store_bits(tensor, bits);
  });
}

}  // namespace

std::string mutant_of(const std::string& op) {
  return settings().mutant_op == op ? settings().mutant_kind : "";
}

void run_mutant(const std::string& kind,
                const std::vector<Tensor>& outputs,
                const std::function<void()>& work) {
  std::vector<Change> changes;
  changes.reserve(outputs.size());
  for (const Tensor& t : outputs) changes.push_back({&t, load_bits(t), {}});
  cuts_on_this_thread() = kind == "rounding";
  work();
  cuts_on_this_thread() = false;
  for (Change& change : changes) {
    change.after = load_bits(*change.tensor);
    if (kind == "scaled") scale(change);
    if (kind == "rows") exchange_rows(change);
    if (kind == "tail") drop_tail(change);
    if (kind == "stale") store_bits(*change.tensor, change.before);
    if (kind == "late_copy") land_late(change);
  }
}

}  // namespace ascend_sim
