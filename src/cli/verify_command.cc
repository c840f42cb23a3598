#include "cli/verify_command.h"

#include <fmt/core.h>

#include "base/file.h"
#include "base/signature.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/output_file.h"
#include "verify/verify.h"

namespace ferry::cli {
namespace {

struct Arguments {
  verify::Options verify;
  std::string dtype, key, html;
  bool json = false, remember = true, stream = false;
};

/// The texts as a reader sees them; where device and reference part, both, and by how much.
void print_texts(const verify::Report& r) {
  for (const verify::TextReport& t : r.texts) {
    std::string line;
    for (const verify::TokenReport& k : t.tokens)
      line += k.got == k.expected ? k.expected_text
                                  : fmt::format("[{} | here {}: {} by {:.4g}]",
                                                k.expected_text,
                                                k.got_text,
                                                k.right ? "near tie" : "WRONG",
                                                k.margin);
    fmt::print("  {:<12} {}\n", t.name, line);
  }
}

void print_report(const verify::Report& r) {
  fmt::print("model      {}\n", r.directory);
  fmt::print("device     {}: {}, computing in {}{}\n",
             r.device,
             r.description,
             to_string(r.dtype),
             r.streamed ? ", weights loaded layer by layer" : "");
  if (r.has_passport)
    fmt::print("passport   root {}, {}\n",
               r.root,
               r.signed_by.empty() ? "not signed" : "signed by " + r.signed_by);
  if (r.files > 0)
    fmt::print("hashes     {} files, {} chunks, {}: right\n",
               r.files,
               r.chunks,
               format_bytes(static_cast<double>(r.bytes)));
  fmt::print("reference  {}{}\n", r.reference, r.reference_made_now ? ", asked now" : "");
  fmt::print("\n  {:<10} {:>10} {:>10}  {:>8} {:>6}  {}\n",
             "layer",
             "distance",
             "tolerance",
             "rerouted",
             "ops",
             "worst op, in bounds");
  for (const verify::LayerReport& l : r.layers)
    fmt::print("  {:<10} {:>10.3g} {:>10.3g}  {:>8} {:>6}  {}\n",
               l.name,
               l.distance,
               l.tolerance,
               l.routed_otherwise,
               l.calls,
               l.worst_op.empty() ? "" : fmt::format("{:.3g} {}", l.worst_call, l.worst_op));
  fmt::print("\ntext       {} of {} tokens agree, {} differ at a near tie{}\n",
             r.tokens_agree,
             r.tokens,
             r.tokens_near_tie,
             r.tokens_guided == 0
                 ? ""
                 : fmt::format("; {} follow a near tie of experts: compared with these given",
                               r.tokens_guided));
  if (r.training_calls > 0)
    fmt::print("training   {} calls of a step judged one by one\n", r.training_calls);
  print_texts(r);
  fmt::print("logits     up to {:.4g} away (tolerance {:.4g}){}\n",
             r.logit_distance,
             r.logit_tolerance,
             r.equal_bits ? "; everything compared is equal to the bit" : "");
  if (r.plain_s > 0)
    fmt::print("observing  {:.2f} times a plain forward pass\n", r.observed_s / r.plain_s);
  for (const std::string& note : r.notes) fmt::print("note       {}\n", note);
  for (const std::string& reason : r.reasons) fmt::print("FAILED     {}\n", reason);
  fmt::print("verdict    {}\n", verify::verdict_of(r));
}

Result<void> verify_directory(Arguments& args) {
  if (args.dtype == "f32") args.verify.dtype = DType::kF32;
  if (args.dtype == "bf16") args.verify.dtype = DType::kBF16;
  if (args.stream) args.verify.stream = true;
  TRY(check_output_path(args.html, OutputKind::kPage));
  if (!args.key.empty()) {
    TRY_ASSIGN(args.verify.public_key, read_public_key(args.key));
  }
  ProgressLine line;
  args.verify.progress = [&](const std::string& text) { line.show([&] { return text; }); };
  TRY_ASSIGN(const verify::Report report, verify::verify(args.verify));
  line.clear();
  print_report(report);
  if (!args.html.empty()) TRY(write_file_atomic(args.html, verify::to_html(report)));
  if (args.remember)
    if (const Result<void> noted = verify::remember(report); !noted)
      fmt::print(
          stderr, "ferry: note: the verdict could not be noted: {}\n", noted.error().message);
  if (args.json) fmt::print("{}\n", verify::to_json(report));
  TRY(flush_output());
  if (report.passed()) return {};
  return fail(Code::kVerdict, "{}: failed on {}", report.directory, report.device);
}

}  // namespace

void add_verify_command(Command& program) {
  Command command = program.add(
      "verify", "Prove that this is the model that was trained, and that a device computes it");
  const auto args = std::make_shared<Arguments>();
  command.option("directory", args->verify.directory, "a model directory").required();
  command.option("--device", args->verify.device, "cpu, cuda[:N], ascend[:N]");
  command.option("--dtype", args->dtype, "compute in bf16 or f32 (default: as the passport)")
      .among({"f32", "bf16"});
  command.option(
      "--key", args->key, "a public key (ferry keygen): the passport must be signed by it");
  command.option(
      "--positions",
      args->verify.positions,
      "also ask a probe of so many tokens, up to the model's context; the CPU answers it now");
  command.flag("--train",
               args->verify.train,
               "also judge a training step's forward and backward pass, call by call");
  command.flag("--quick",
               args->verify.quick,
               "judge ops one by one only in layers whose activations parted");
  command.flag("--stream", args->stream, "load weights layer by layer, also if they would fit");
  command.flag("!--no-remember", args->remember, "do not note the verdict in verified.json");
  command.flag("--json", args->json, "end with one line of JSON");
  command.option("--html", args->html, "write the report as a page of HTML, too");
  command.runs([args] { return report(verify_directory(*args)); });
}

}  // namespace ferry::cli
