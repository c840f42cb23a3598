// The observer behind `ferry verify`: takes down every call of a layer, and when the layer is done
// judges each on the CPU with the very inputs that it had.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "models/causal_lm.h"
#include "ops/call_check.h"
#include "verify/library_watch.h"
#include "verify/verify.h"

namespace ferry::verify {

/// What ops wrote where, so that an input that is no longer what was written can be told: memory
/// that was reused too early, a copy that came late.
class WrittenMemory {
 public:
  void clear() { pieces_.clear(); }
  /// `bytes` of host memory were, on the device, at `at`.
  void write(const ops::Extent& at, const Tensor& host, const std::string& writer);
  void forget(
      const ops::Extent& at);  // given to something else; what lies on both sides stays known
  /// Who wrote bytes of this range that are not those of `host`; empty: all are, or are not known.
  std::string changed_since(const ops::Extent& at, const Tensor& host) const;

 private:
  struct Piece {
    const std::byte* end;  // on the device
    std::shared_ptr<const Tensor> host;
    size_t offset;  // of the piece's first byte in host
    std::string writer;
  };
  std::map<const std::byte*, Piece> pieces_;  // by first byte; they do not overlap
};

/// "embedding", "block 3", "norm and head".
std::string name_of_layer(int number, int blocks);

/// Owner: verify(). One thread.
class Recorder final : public ops::Observer {
 public:
  /// `blocks`: how many the model has, for the names of its layers.
  Recorder(models::CausalLm& model, int blocks)
      : model_(&model),
        blocks_(blocks),
        watch_(model.device(), [this](const char* call) { called(call); }) {}

  /// Calls from now on belong to this pass; they are taken down if `record`, in these layers only
  /// if some are given.
  void begin_pass(const std::string& name, bool record, std::set<int> layers = {});
  /// Judges what was taken down and not judged yet.
  void finish();

  void before(const ops::OpCall& call) override;
  void after(const ops::OpCall& call) override;
  void layer(int number) override;

  struct LayerWork {
    int64_t calls = 0;
    double worst = 0;  // error in bounds
    std::string worst_op;
  };
  const std::map<int, LayerWork>& layers() const { return layers_; }
  const std::vector<CallReport>& parted() const { return parted_; }
  const std::vector<std::string>& overwritten() const { return overwritten_; }
  const std::set<std::string>& unjudged() const { return unjudged_; }

 private:
  struct Taken {
    ops::RecordedCall call;
    std::vector<std::string> vendor_calls;
  };

  bool is_weight(const View& view) const;
  std::string layer_name() const { return name_of_layer(layer_, blocks_); }
  bool wanted() const { return recording_ && (only_.empty() || only_.contains(layer_)); }
  void called(const char* library_call);
  void judge(Taken& taken, int64_t index);

  models::CausalLm* model_;
  int blocks_;
  std::string pass_;
  bool recording_ = false;
  int layer_ = 0;
  std::set<int> only_;
  std::vector<ops::Extent> weights_;  // of this layer, when it began
  bool weights_known_ = false;
  std::vector<Taken> calls_;
  bool running_ = false;  // the last of them: what the library is asked for belongs to it
  int64_t judged_in_layer_ = 0;
  WrittenMemory written_;
  std::map<int, LayerWork> layers_;
  std::vector<CallReport> parted_;
  std::vector<std::string> overwritten_;
  std::set<std::string> unjudged_;
  LibraryWatch watch_;
};

}  // namespace ferry::verify
