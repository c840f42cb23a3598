#include "cli/verify_command.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/file.h"
#include "base/json.h"
#include "base/signature.h"
#include "base/units.h"
#include "cli/api_key.h"
#include "cli/command.h"
#include "cli/output_file.h"
#include "verify/server_verify.h"
#include "verify/verify.h"

namespace ferry::cli {
namespace {

constexpr double kLinesEveryS = 10;

struct Arguments {
  verify::Options verify;
  std::string dtype, key, html, json_to;
  bool json = false, remember = true, stream = false;
  verify::ServerOptions server;
  std::string key_file;
  double timeout_s = 120;
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
  // Who wrote the directory wrote that, too; beside its source it has been checked.
  if (!r.made_from.empty())
    fmt::print("made from  {}{}\n",
               r.source.empty() ? "it states that it was made from: " : "",
               r.made_from);
  if (!r.source.empty())
    fmt::print("source     {}: {} numbers, up to {:.3g} times as far as their format allows\n",
               r.source,
               r.from_source.numbers,
               r.from_source.worst);
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

void print_report(const verify::ServerReport& r) {
  fmt::print("server     {}, serving {}\n", r.address, printable(r.model));
  fmt::print("model      {}{}\n",
             r.directory,
             r.root.empty()
                 ? ""
                 : fmt::format(", passport root {}, {}",
                               r.root,
                               r.signed_by.empty() ? "not signed" : "signed by " + r.signed_by));
  fmt::print("evidence   {}; {} requests\n", r.evidence, r.requests);
  if (!r.groups.empty())
    fmt::print("\n  {:<26} {:>6} {:>6} {:>10} {:>10} {:>10} {:>7} {:>6} {:>6}\n",
               "questions",
               "asked",
               "places",
               "KL typical",
               "allowed",
               "KL max",
               "tokens",
               "other",
               "wrong");
  for (const verify::ServerGroup& g : r.groups)
    fmt::print("  {:<26} {:>6} {:>6} {:>10.3g} {:>10.3g} {:>10.3g} {:>7} {:>6} {:>6}{}\n",
               g.words,
               g.exchanges,
               g.closeness.compared,
               g.closeness.kl_typical,
               g.bound,
               g.closeness.kl_max,
               g.closeness.tokens,
               g.closeness.other,
               g.closeness.wrong,
               g.within ? "" : "  NOT THIS MODEL'S");
  fmt::print("\n");
  for (const std::string& line : r.proof) fmt::print("proof      {}\n", line);
  for (const std::string& note : r.notes) fmt::print("note       {}\n", note);
  for (const verify::ServerFault& f : r.faults) fmt::print("FAULT      {}: {}\n", f.name, f.words);
  fmt::print("verdict    {}\n", to_string(r.verdict));
}

/// The verdict is the status: only whoever asked for JSON has missed something that he does not read.
Result<void> flush_report(const Arguments& args) {
  const Result<void> printed = flush_output();
  return args.json ? printed : printed_besides(printed);
}

Result<void> ask_server(Arguments& args) {
  TRY(check_output_path(args.html, OutputKind::kPage));
  if (!args.key_file.empty()) {
    TRY_ASSIGN(args.server.key, read_api_key(args.key_file));
  }
  if (!args.key.empty()) {
    TRY_ASSIGN(args.server.public_key, read_public_key(args.key));
  }
  args.server.directory = args.verify.directory;
  if (args.verify.positions > 0) args.server.positions = args.verify.positions;
  args.server.timeout_ms = static_cast<int64_t>(args.timeout_s * 1000);
  args.server.patience_s = args.timeout_s;
  ProgressLine line(kLinesEveryS);
  args.server.progress = [&](const std::string& text) { line.show([&] { return text; }); };
  Result<verify::ServerReport> report = verify::verify_server(args.server);
  line.clear();
  if (!report) {
    // Who reads the last line gets one wherever the server is to blame; a wrong address or key is the caller's.
    const Code code = report.error().code;
    if (args.json && (code == Code::kUnavailable || code == Code::kTimeout))
      fmt::print("{}\n", verify::to_json(report.error()));
    TRY(flush_report(args));
    return tl::unexpected(report.error());
  }
  print_report(*report);
  if (!args.html.empty()) TRY(write_file_atomic(args.html, verify::to_html(*report)));
  if (args.json) fmt::print("{}\n", verify::to_json(*report));
  TRY(flush_report(args));
  switch (report->verdict) {
    case verify::ServerVerdict::kSame: return {};
    case verify::ServerVerdict::kDiffers:
      return fail(Code::kVerdict,
                  "{}: does not answer as {}: {}",
                  report->address,
                  report->directory,
                  report->faults.front().name);
    case verify::ServerVerdict::kNotProved: break;
  }
  return fail(Code::kUnavailable,
              "{}: tells too little to prove that it is {}",
              report->address,
              report->directory);
}

Result<void> verify_directory(Arguments& args) {
  if (!args.json) print_besides();
  if (!args.server.address.empty()) return ask_server(args);
  if (args.dtype == "f32") args.verify.dtype = DType::kF32;
  if (args.dtype == "bf16") args.verify.dtype = DType::kBF16;
  if (args.stream) args.verify.stream = true;
  TRY(check_output_path(args.html, OutputKind::kPage));
  if (!args.key.empty()) {
    TRY_ASSIGN(args.verify.public_key, read_public_key(args.key));
  }
  ProgressLine line(kLinesEveryS);
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
  TRY(flush_report(args));
  if (report.passed()) return {};
  if (report.device_passed)
    return fail(Code::kVerdict,
                "{}: passed on {}, but its numbers are not those of {}",
                report.directory,
                report.device,
                report.source);
  return fail(Code::kVerdict, "{}: failed on {}", report.directory, report.device);
}

}  // namespace

void add_verify_command(Command& program) {
  Command command = program.add(
      "verify", "Prove that this is the model that was trained, and that a device computes it");
  const auto args = std::make_shared<Arguments>();
  command.option("directory", args->verify.directory, "a model directory").required();
  const Option server = command.option("--server",
                                       args->server.address,
                                       "ask this OpenAI-compatible server (http://HOST:PORT) "
                                       "instead of a device, and say whether it "
                                       "answers as the model");
  command.option("--device", args->verify.device, "cpu, cuda[:N], cuda-tensor[:N], ascend[:N]")
      .excludes(server);
  command.option("--dtype", args->dtype, "compute in bf16 or f32 (default: as the passport)")
      .among({"f32", "bf16"})
      .excludes(server);
  command.option(
      "--key", args->key, "a public key (ferry keygen): the passport must be signed by it");
  command.option(
      "--positions",
      args->verify.positions,
      "also ask a probe of so many tokens, up to the model's context; the CPU answers it now. Of a "
      "server: the longest text that it is asked about (1024)");
  command
      .option("--source",
              args->verify.source,
              "what it was converted from, a model directory or a GGUF file: also whether its "
              "numbers are those, within what int8, int4 or bf16 lose")
      .excludes(server);
  command
      .flag("--train",
            args->verify.train,
            "also judge a training step's forward and backward pass, call by call")
      .excludes(server);
  command
      .flag("--quick",
            args->verify.quick,
            "judge ops one by one only in layers whose activations parted")
      .excludes(server);
  command.flag("--stream", args->stream, "load weights layer by layer, also if they would fit")
      .excludes(server);
  command.flag("!--no-remember", args->remember, "do not note the verdict in verified.json")
      .excludes(server);
  command.flag("--json", args->json, "end with one line of JSON");
  command.option("to", args->json_to).among({"-"}).hidden();  // --json -, as the doctor has it
  command.option("--html,--report", args->html, "write the report as a page of HTML, too");
  command
      .option(
          "--api-key-file",
          args->key_file,
          "a file with the server's key; tried, too: whether any path that servers are known to "
          "have answers without it")
      .needs(server);
  command
      .option("--model", args->server.model, "the server's name of the model (default: its first)")
      .needs(server);
  command
      .option("--weights",
              args->server.weights,
              "what the server says that its weights are: bf16, int8, int4 (default: as DIR has "
              "them)")
      .among({"bf16", "int8", "int4"})
      .needs(server);
  command.option("--timeout", args->timeout_s, "seconds that the server has for one request")
      .within(0.1, 86400.0)
      .shows_default()
      .needs(server);
  command.runs([args] { return report(verify_directory(*args)); });
}

}  // namespace ferry::cli
