// passport.json: what a model directory says of itself, so that nobody has to take it on faith.
// Hashes of every file (of weights in chunks, hash_tree.h), how and on what it was trained, and
// probes: prompts with what the reference answered, which `ferry verify` asks of another chip.
// The root stands for all of it and may be signed. Described in docs/passport.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/signature.h"
#include "checkpoint/hash_tree.h"
#include "checkpoint/made_from.h"
#include "device/device.h"
#include "tensor/dtype.h"
#include "text/tokenizer.h"

namespace ferry {

constexpr const char* kPassportName = "passport.json";
constexpr const char* kVerifiedName = "verified.json";
constexpr int kPassportVersion = 1;
constexpr int kNumerics = 2;  // docs/numerics.md

/// What went into the weights; all of it optional (a model that came from elsewhere).
struct PassportTraining {
  int64_t steps = 0;
  int64_t tokens = 0;
  /// Of the data, that nothing was learnt from: steps with a loss spike took them, and were undone.
  int64_t skipped_tokens = 0;
  std::string data;                  // fingerprint of the data's manifest
  std::string settings;              // TOML, as `ferry train --print-config` prints it
  std::vector<std::string> devices;  // Device::describe(): "software Ascend ..." says so
  std::string mla_form;              // "expanded" or "absorbed"
  std::optional<double> held_out_loss;
  bool operator==(const PassportTraining&) const = default;
};

/// Signed sums of an activation's elements for each token: enough to tell how far another
/// activation is away, in a fraction of its size.
constexpr int64_t kProjections = 8;

/// What one layer gave for all tokens of a probe.
struct LayerSummary {
  std::vector<float> norms;        // [tokens]
  std::vector<float> projections;  // [tokens, kProjections]
  float noise = 0;  // relative distance from the same model computed in f32: what rounding does
  bool operator==(const LayerSummary&) const = default;
};

/// The best logits of one position, best first, and of all of them log(sum(e^x)).
struct TopLogits {
  std::vector<int32_t> tokens;
  std::vector<float> values;
  float log_sum_exp = 0;
  bool operator==(const TopLogits&) const = default;
};

/// What one MoE layer's router chose: for each token the experts in order, then the runners-up,
/// with the scores (bias included) that decided.
struct RouterSummary {
  std::vector<int32_t> experts;  // [tokens, top_k]
  std::vector<float> gaps;       // [tokens]: the last chosen score less the best one not chosen
  float noise = 0;               // largest distance of a score from the one computed in f32
  bool operator==(const RouterSummary&) const = default;
};

struct Probe {
  std::string name;
  std::vector<int32_t> tokens;       // the prompt, then the reference's greedy text
  int64_t prompt = 0;                // tokens of the prompt
  std::vector<TopLogits> logits;     // at the prompt's last token and at each token of the text
  float logit_noise = 0;             // largest distance of these logits from those computed in f32
  std::vector<LayerSummary> layers;  // each block, then the last norm
  std::vector<RouterSummary> routers;  // each MoE layer
  bool operator==(const Probe&) const = default;
};

/// All probes are one batch: documents in this order, one forward pass.
struct Probes {
  DType dtype = DType::kBF16;  // of activations
  std::string reference;       // Device::describe() of the device that answered
  int64_t top_k = 0;           // experts of a token; 0: no MoE layers
  std::vector<Probe> list;
  bool operator==(const Probes&) const = default;
};

struct PassportFile {
  uint64_t bytes = 0;
  Digest root{};               // of its tree
  std::vector<Digest> chunks;  // the leaves
  bool operator==(const PassportFile&) const = default;
};

struct PassportSignature {
  std::string public_key;
  std::string signature;  // of the root, both in hex
  bool operator==(const PassportSignature&) const = default;
};

/// Thread rule: plain data.
struct Passport {
  std::string program;  // "ferry 0.1.0"
  int numerics = kNumerics;
  std::map<std::string, PassportFile> files;  // by name; weights, config, tokenizer, ...
  std::optional<PassportTraining> training;
  /// Of an adapter: whose weights it belongs to (ModelSource::weights_root). Its probes are of both together.
  std::optional<std::string> base;
  /// Of an adapter: that of its base's tokenizer, if the base had one.
  std::optional<text::VocabularyId> base_vocabulary = {};
  /// Stood in its place for some hours of development: a hash of the whole tokenizer, which nobody computes any more.
  /// It is stated again, for the root's sake, and says nothing.
  std::optional<std::string> former_base_vocabulary = {};
  /// Of a converted model: what made_from.json says.
  std::optional<MadeFrom> made_from = {};
  Probes probes;
  std::optional<PassportSignature> signature;
  std::string root;  // hex; set by seal() and by parse()

  /// Checks all that the text says against itself: the version, the root, each file's tree, the
  /// signature, every field. Errors: kCorrupt (cut short, edited, ill-formed); kInvalidInput (a
  /// newer version). `path` is for messages.
  static Result<Passport> parse(std::string_view text, const std::string& path);

  /// Hashes a file of `folder` and lists it. Errors: kNotFound, kUnavailable.
  Result<void> add_file(const std::string& folder, const std::string& name);
  /// Computes the root and signs it if a key is given.
  void seal(const std::optional<KeyPair>& key);
  /// check: sealed.
  std::string to_json() const;
  uint64_t probes_bytes() const;  // about what the probes take in JSON
};

/// That a directory's passport, or none, is signed by this key (hex). Errors: kInvalidInput, naming the directory.
Result<void> check_signer(const Passport* passport,
                          const std::string& public_key,
                          const std::string& directory);

/// The files of a model directory that decide what is answered, by Ferry or by whatever else serves
/// it: weights, config, tokenizer, chat templates, generation settings, code. By name, sorted; not
/// Ferry's own notes (passport, checksums, verdicts), nor hidden files and readmes.
/// Errors: kUnavailable.
Result<std::vector<std::string>> files_that_count(const std::string& folder);

/// The failure of reading a file that the passport beside it does not list.
tl::unexpected<Status> unlisted(const std::string& path);

/// Reads a file by its own path. If it lies in a model directory with a passport, the passport must
/// list it with this content. Errors: of read_file; kCorrupt.
Result<std::string> read_listed_file(const std::string& path, uint64_t bytes_max);

/// Checks files against a passport, each chunk once, when it is first needed.
/// Thread rule: one thread at a time.
class ChunkChecks {
 public:
  explicit ChunkChecks(const Passport& passport) : passport_(&passport) {}

  /// The file is listed, with this size. `path` is for messages.
  Result<void> check_size(const std::string& name, const std::string& path, uint64_t bytes) const;
  /// The chunks that hold bytes [begin, end) of the file. `touched` names, for the message, what
  /// lies in [first, last). Errors: kCorrupt, naming file, chunk and what it touches.
  Result<void> check_range(
      const std::string& name,
      const std::string& path,
      std::span<const std::byte> file,
      uint64_t begin,
      uint64_t end,
      const std::function<std::string(uint64_t first, uint64_t last)>& touched);
  /// The whole content of a listed file.
  Result<void> check_whole(const std::string& name,
                           const std::string& path,
                           std::span<const std::byte> file);

 private:
  const Passport* passport_;
  std::map<std::string, std::vector<bool>> right_;
};

/// What a verification holds for: the chip and its software. (A CPU's number of threads, its
/// instruction sets and its maker change no bit.)
std::string verified_as(const Device& device);

/// One line of verified.json: this model was verified on such a device, computing in this type.
struct Verification {
  std::string device;  // verified_as()
  DType dtype = DType::kBF16;
  bool passed = false;
  std::string program;
  int64_t unix_ms = 0;
};

/// What verified.json beside the passport says of the model with this root; nothing if it is of
/// another, or is not there. It is a note, not a proof: who can write the folder can write it.
/// Errors: kCorrupt.
Result<std::vector<Verification>> read_verifications(const std::string& folder,
                                                     const std::string& root);
/// Adds one, in place of an earlier one of the same device and type. Errors: kUnavailable,
/// kExhausted, kCorrupt.
Result<void> add_verification(const std::string& folder,
                              const std::string& root,
                              const Verification& verification);

}  // namespace ferry
