#include "train/estimate.h"

#include <algorithm>
#include <bit>

#include "base/clock.h"
#include "base/counted.h"
#include "base/file.h"
#include "base/os_error.h"
#include "base/system.h"
#include "base/units.h"
#include "checkpoint/undone_checkpoints.h"
#include "device/cpu/cpu_device.h"
#include "device/tensor_products.h"
#include "ops/matmul/matmul.h"
#include "train/model_setup.h"

namespace ferry {
namespace {

/// What kernels take beside what they compute, which depends on them more than on the model: of a chip, where the
/// vendor's ask for what they like; of the CPU, where each thread has some (tests/model_test.cc sees 8 MB in a step of
/// small models by few threads).
constexpr double kScratchOfChip = 256 << 20;
double scratch_of_cpu() {
  constexpr double kAnyway = 16 << 20, kOfThread = 8 << 20;
  return kAnyway + kOfThread * cpu_pool().threads();
}

/// Tokenizer, lists of the data set, threads: all that is there of this process, and neither a tensor nor a file.
double program_bytes() {
  const auto tensors = static_cast<double>(cpu_device().memory_use().reserved_bytes);
  return std::max(0.0, static_cast<double>(memory_private_bytes()) - tensors);
}

/// Of one pass forward. Documents are shorter than sequences; half a sequence is the mean context if they fill it.
double pass_flops(const models::TrainableLm& model, const Settings& s, int64_t tokens, bool mtp) {
  return model.flops_per_token(
             static_cast<double>(s.data.sequence_length) / 2, mla_form_of(s.train), mtp) *
         static_cast<double>(tokens);
}

double seconds_of(const Estimate& e) {
  return e.flops_total / (e.peak_flops_per_s * kEfficiencyAssumed);
}

}  // namespace

Estimate estimate(const models::TrainableLm& model,
                  const Settings& s,
                  int64_t steps_done,
                  const TrainedAdapter* adapter,
                  uint64_t optimizer_bytes,
                  uint64_t checkpoint_bytes,
                  double peak_flops_per_s) {
  Estimate e;
  e.parameters_total = model.parameters_total();
  e.parameters_active = model.parameters_active();
  // Of weights that stay there are no gradients.
  const double weight_gradients = adapter == nullptr ? 1
                                                     : static_cast<double>(adapter->adapted()) /
                                                           static_cast<double>(e.parameters_active);
  // Pairs of answers are run once before, to know what each token weighs.
  const double passes = (recompute_of(s.train) == models::Recompute::kLayers ? 3 : 2) +
                        (s.dpo.pairs.empty() ? 0 : 1) + weight_gradients;
  const auto step = [&](bool mtp) {
    return passes * pass_flops(model, s, s.train.tokens_per_step, mtp);
  };
  e.flops_step = step(false);
  e.flops_mtp_step = step(true);
  const bool runs_mtp = model.has_mtp() && s.train.mtp_weight > 0;
  const auto mtp_steps_of = [&](int64_t steps) {  // the first step is one
    return runs_mtp ? (steps + s.train.mtp_every - 1) / s.train.mtp_every : 0;
  };
  const int64_t done = std::min(steps_done, s.train.steps);
  const int64_t mtp_steps = mtp_steps_of(s.train.steps) - mtp_steps_of(done);
  e.steps_left = s.train.steps - done;
  e.flops_total = e.flops_step * static_cast<double>(e.steps_left - mtp_steps) +
                  e.flops_mtp_step * static_cast<double>(mtp_steps);
  const double parameters = static_cast<double>(e.parameters_total);
  const int64_t micro_batches =
      std::max<int64_t>(1, s.train.tokens_per_step / s.train.micro_batch_tokens);
  const double gradients =
      micro_batches == 1
          ? 1
          : static_cast<double>(std::bit_width(static_cast<uint64_t>(micro_batches - 1))) + 0.2;
  e.weight_bytes = 4 * parameters;
  double gradient_bytes = 4 * parameters * gradients;
  if (adapter != nullptr) {
    const auto factors = static_cast<double>(adapter->parameters());
    e.weight_bytes += 4 * (factors + static_cast<double>(adapter->adapted()));
    // Of a merged weight there is a gradient only until its factors have theirs.
    gradient_bytes = 4 * (factors * gradients + static_cast<double>(adapter->largest()));
  }
  e.memory_bytes = e.weight_bytes + gradient_bytes + static_cast<double>(optimizer_bytes) +
                   model.activation_bytes_per_token(recompute_of(s.train)) *
                       static_cast<double>(s.train.micro_batch_tokens) +
                   static_cast<double>(model.position_bytes(s.data.sequence_length));
  // Products on tensor cores read trained weights as bf16 numbers, kept beside them (ops/matmul/rounded_weight.h).
  if (tensor_products(model.device()) && compute_of(s.train) == DType::kBF16)
    e.memory_bytes += 2 * parameters;
  // A passport's answers are the CPU's: at each save a chip's model is copied to it, in f32 and with
  // panels for products of few rows (ops/matmul/packed_weight.h).
  const double program = program_bytes();
  if (model.device().kind() != DeviceKind::kCpu) {
    e.memory_bytes += kScratchOfChip;
    e.host_bytes = (4 + 2) * parameters + scratch_of_cpu() + program;
    e.host_bytes_there = program;
  } else {
    // While a save asks for the passport's answers, the CPU keeps panels beside its weights
    // (ops/matmul/packed_weight.h); what a step took is kept for the next one.
    e.memory_bytes += 2 * parameters + scratch_of_cpu() + program;
    e.memory_bytes_there = program;
  }
  e.memory_bytes_there += e.weight_bytes + static_cast<double>(optimizer_bytes);
  // Which experts the next step's tokens go to, and this one's; both are there for a moment.
  const models::RoutedLayers routed = model.routed_layers();
  if (s.train.anticipatory_steps > 0)
    e.memory_bytes += 2.0 * sizeof(int32_t) * static_cast<double>(s.train.tokens_per_step) *
                      static_cast<double>((routed.layers + routed.mtp_layers) * routed.top_k);
  const int64_t kept = s.checkpoint.keep_last + (s.checkpoint.keep_best ? 1 : 0);
  // What is gone back to, and as many of undone steps as of the run's are kept beside it.
  const int64_t of_spikes = s.train.rewind_every > 0 ? 1 + kept : 0;
  e.disk_bytes = static_cast<double>(kept + of_spikes + 1) * static_cast<double>(checkpoint_bytes);
  e.peak_flops_per_s = peak_flops_per_s;
  e.seconds = seconds_of(e);
  return e;
}

void add_scoring(Estimate& e, const models::TrainableLm& model, const Settings& s, int64_t tokens) {
  e.flops_total += pass_flops(model, s, tokens, false);
  e.seconds = seconds_of(e);
}

double measure_peak(Device& device, DType compute) {
  const Clock& clock = system_clock();
  double best = 0;
  const double begin = clock.monotonic_s();
  // Grows to a size at which the product is at its best, but not where one alone takes long (a
  // processor without fused multiply-add is a thousand times slower).
  int64_t n = 192;
  do {
    const Tensor a = Tensor::zeros({n, n}, compute, device),
                 b = Tensor::zeros({n, n}, compute, device);
    device.stream().synchronize();
    double fastest = 1e300;
    for (int i = 0; i < 2; ++i) {
      const double start = clock.monotonic_s();
      ops::matmul(a, b, {.transpose_b = true});
      device.stream().synchronize();
      fastest = std::min(fastest, clock.monotonic_s() - start);
    }
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / fastest);
    if (n < 1536 && fastest < 0.01) n *= 2;
  } while (clock.monotonic_s() - begin < 0.3);
  return best;
}

namespace {

/// The setting that says how many tokens the largest pass has. One answer is one pass at least.
std::string largest_pass(const Settings& s) {
  const int64_t answer = s.rl.tokens_max, whole = s.data.sequence_length;
  if (!s.rl.tasks.empty() && s.data.dir.empty() && s.train.micro_batch_tokens <= whole)
    return fmt::format(
        "rl.tokens_max ({}; the longest prompt has {} tokens)", answer, whole - answer);
  return fmt::format("train.micro_batch_tokens ({})", s.train.micro_batch_tokens);
}

}  // namespace

Result<void> check_fits(const Estimate& e,
                        const Settings& s,
                        const MemoryAvailable& memory,
                        const MemoryAvailable& host,
                        uint64_t disk_free) {
  if (e.memory_bytes > static_cast<double>(memory.bytes))
    return fail(Code::kExhausted,
                "memory: the run needs about {}, {} are free{}; lower {}, "
                "set train.recompute = \"layers\", "
                "or choose a smaller model",
                format_bytes(e.memory_bytes),
                format_bytes(static_cast<double>(memory.bytes)),
                memory.within,
                largest_pass(s));
  if (e.host_bytes > static_cast<double>(host.bytes))
    return fail(Code::kExhausted,
                "memory of the host: each save needs about {} there, for the CPU's answers that go "
                "into the passport; {} are free{}; free memory, or choose a smaller model",
                format_bytes(e.host_bytes),
                format_bytes(static_cast<double>(host.bytes)),
                host.within);
  if (e.disk_bytes > static_cast<double>(disk_free))
    return fail(
        Code::kExhausted,
        "{}: the checkpoints need about {}, {} are free; {}, lower checkpoint.keep_last ({}) or "
        "choose another checkpoint.dir",
        s.checkpoint.dir,
        format_bytes(e.disk_bytes),
        format_bytes(static_cast<double>(disk_free)),
        kFreeSpace,
        s.checkpoint.keep_last);
  return {};
}

Result<void> check_file_limit(uint64_t largest_file, uint64_t limit, const Settings& s) {
  if (largest_file <= limit) return {};
  return fail(Code::kExhausted,
              "{}: a checkpoint has a file of about {}, and this process may write none above {} "
              "(ulimit -f); raise the limit",
              s.checkpoint.dir,
              format_bytes(static_cast<double>(largest_file)),
              format_bytes(static_cast<double>(limit)));
}

Result<void> check_still_fits(const Estimate& e,
                              const Settings& s,
                              Device& device,
                              const CheckpointSize& checkpoint,
                              int ranks) {
  Estimate rest = e;
  rest.memory_bytes -= e.memory_bytes_there;
  rest.host_bytes -= e.host_bytes_there;
  rest.memory_bytes *= ranks;  // which share this machine
  // Likewise of the disk: checkpoints that are there are among those that will be kept.
  TRY_ASSIGN(const CheckpointList there, list_checkpoints(s.checkpoint.dir));
  // Of undone steps' only where these are counted (see estimate()).
  const int64_t undone = s.train.rewind_every > 0 ? count_undone(s.checkpoint.dir) : 0;
  const auto one = static_cast<double>(checkpoint.model_bytes + checkpoint.state_bytes);
  rest.disk_bytes = std::max(
      one,
      rest.disk_bytes -
          static_cast<double>(std::ssize(there.complete) + std::ssize(there.undone) + undone) *
              one);
  TRY_ASSIGN(const uint64_t disk, free_disk_bytes(s.checkpoint.dir));
  TRY(check_fits(rest, s, memory_available(device), memory_available(), disk));
  return check_file_limit(std::max(std::min(checkpoint.model_bytes, ModelContents{}.shard_bytes),
                                   checkpoint.state_bytes),
                          file_bytes_max(),
                          s);
}

Result<void> outlive_full_disk(Result<void> fits,
                               bool follows,
                               const std::function<void(const std::string&)>& say) {
  if (fits || !follows || !is_no_room(fits.error())) return fits;
  say("note       " + fits.error().message + "; the run goes on");
  return {};
}

std::string describe(const Estimate& e, const Settings& s) {
  const double tokens = static_cast<double>(s.train.tokens_per_step * e.steps_left);
  return fmt::format(
      "model      {}parameters, {}used for a token\n"
      "work       {}tokens in {}{}, {}FLOP\n"
      "memory     about {}{}\n"
      "disk       about {} for checkpoints\n"
      "time       about {} at {:.0f} % of the {} GFLOP/s that a matrix product reaches here",
      format_count(static_cast<double>(e.parameters_total)) + " ",
      format_count(static_cast<double>(e.parameters_active)) + " ",
      format_count(tokens) + " ",
      counted(e.steps_left, "step"),
      e.steps_left < s.train.steps
          ? fmt::format(" that {} left of {}", e.steps_left == 1 ? "is" : "are", s.train.steps)
          : "",
      format_count(e.flops_total),
      format_bytes(e.memory_bytes),
      e.host_bytes > 0 ? fmt::format(", and {} of the host's", format_bytes(e.host_bytes)) : "",
      format_bytes(e.disk_bytes),
      format_duration(e.seconds),
      100 * kEfficiencyAssumed,
      static_cast<int64_t>(e.peak_flops_per_s / 1e9));
}

}  // namespace ferry
