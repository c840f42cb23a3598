#include "cli/serve_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/input_file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/python_json.h"
#include "checkpoint/chat_renderer.h"
#include "checkpoint/model_chat.h"
#include "cli/answer_options.h"
#include "cli/command.h"
#include "cli/given_template.h"
#include "cli/model_options.h"
#include "serve/model_facts.h"
#include "serve/service.h"

namespace ferry::cli {
namespace {

struct Arguments {
  OpenOptions open;
  AnswerOptions answer;
  std::string host = "127.0.0.1", key_file;
  GivenTemplate chat_template;
  int64_t port = 8000, running = 64, waiting = 256;
  int64_t body_mib = 8, connections = 4096;
  double stall_s = 120, drain_s = 30;
  std::vector<std::string> names, origins;
  double temperature = -1, top_p = -1;  // negative: not given
  bool quiet = false;
};

/// What requests leave open, in place of what the model's files say.
Result<void> set_sampling(const Arguments& args, ModelTexts& texts) {
  if (args.temperature < 0 && args.top_p < 0) return {};
  nlohmann::json config = nlohmann::json::object();
  if (const auto file = texts.files.find(kGenerationConfigName); file != texts.files.end()) {
    TRY_ASSIGN(config, parse_python_json(file->second, kGenerationConfigName));
    if (!config.is_object())
      return fail(Code::kCorrupt, "{}: is no JSON object", kGenerationConfigName);
  }
  if (args.temperature >= 0) config["temperature"] = args.temperature;
  if (args.top_p >= 0) config["top_p"] = args.top_p;
  texts.files[kGenerationConfigName] = json_text(config);
  return {};
}

/// "model" of "runs/model/".
std::string last_name(const std::string& path) {
  std::filesystem::path p = std::filesystem::path(path).lexically_normal();
  if (!p.has_filename()) p = p.parent_path();
  const std::string name = p.filename().string();
  return name.empty() || name == "." ? "model" : name;
}

Result<std::shared_ptr<const serve::LoadedModel>> load(const Arguments& args,
                                                       const std::string& name) {
  TRY_ASSIGN(OpenedModel opened, open_model(args.open));
  auto m = std::make_shared<serve::LoadedModel>();
  m->directory = args.open.directory;
  m->model = std::move(opened.model);
  m->texts = std::move(opened.texts);
  use_template(args.chat_template, m->texts);
  TRY(set_sampling(args, m->texts));
  m->syntax = answer_syntax(m->texts);
  m->vocabulary = grammar::Vocabulary::of(*m->texts.tokenizer, m->syntax.marks);
  m->engine = engine_options(args.answer, *m->model, args.running, 0);
  m->engine.waiting = args.waiting;
  TRY(require_cache(engine::Engine(*m->model, m->engine), *m->model));
  TRY_ASSIGN(const std::unique_ptr<ModelSource> from, open_source(args.open));
  const Result<void> chats = ChatRenderer::check(m->texts, args.open.directory);
  if (!chats)
    tell(
        fmt::format("ferry: note: {}; chats are refused, texts (/v1/completions) are gone on with; "
                    "--chat-template FILE gives a template",
                    chats.error().message));
  TRY_ASSIGN(m->facts,
             serve::model_facts(*from,
                                *m->model,
                                name,
                                args.open.quantize,
                                args.chat_template.given(),
                                m->context(),
                                chats.has_value()));
  return m;
}

/// What browsers send as a page's origin.
bool is_origin(const std::string& text) {
  if (text == "*" || text == "null") return true;  // null: of pages that lie in files
  const size_t scheme = text.find("://");
  if (scheme == 0 || scheme == text.npos) return false;
  const std::string host = text.substr(scheme + 3);
  return !host.empty() && host.find_first_of("/?#@* \t") == host.npos &&
         std::none_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'Z'; }) &&
         !(text.starts_with("https://") && text.ends_with(":443")) &&
         !(text.starts_with("http://") && text.ends_with(":80"));
}

Result<void> serve(Arguments& args) {
  for (const std::string& origin : args.origins)
    if (!is_origin(origin))
      return fail(
          Code::kInvalidInput,
          "--cors {}: an origin is https://HOST[:PORT], as browsers send it: in small letters, "
          "without a path and without the scheme's own port",
          origin);
  TRY(read_template(args.chat_template));
  serve::ServiceOptions o{.host = args.host,
                          .port = static_cast<uint16_t>(args.port),
                          .keys = {},
                          .names = args.names,
                          .origins = args.origins,
                          .http = {},
                          .stall_s = args.stall_s,
                          .drain_s = args.drain_s,
                          .log_requests = !args.quiet};
  if (!args.key_file.empty()) {
    TRY_ASSIGN(o.keys, serve::ApiKeys::read(args.key_file));
  }
  if (std::find(o.names.begin(), o.names.end(), "") != o.names.end())
    return fail(Code::kInvalidInput, "--name: is empty; give what clients call the model");
  if (o.names.empty()) o.names.push_back(last_name(args.open.directory));
  o.http.body_bytes = static_cast<uint64_t>(args.body_mib) << 20;
  o.http.connections = args.connections;
  constexpr uint64_t kOtherFiles = 64;  // the model's, the terminal's, a margin
  const auto connections = static_cast<uint64_t>(args.connections);
  const uint64_t files = raise_open_files(connections + kOtherFiles);
  if (files < connections + kOtherFiles)
    tell(
        fmt::format("ferry: note: --connections {}: this process may have {} files open (ulimit "
                    "-Hn); when they are used up, idle connections are closed",
                    connections,
                    files));
  const std::string name = o.names.front();
  TRY_ASSIGN(const std::unique_ptr<serve::Service> service,
             serve::Service::start(std::move(o), [&args, name] { return load(args, name); }));
  return service->run();
}

}  // namespace

void add_serve_command(Command& program) {
  Command command =
      program.add("serve", "Answer over HTTP, as OpenAI's API does, and serve a page to chat in");
  const auto args = std::make_shared<Arguments>();
  add_open_options(command, args->open);
  command.option("--host", args->host, "the address to listen on; 0.0.0.0: all").shows_default();
  command.option("--port", args->port, "0: one that is free")
      .within(int64_t{0}, int64_t{65535})
      .shows_default();
  command.option("--api-key-file",
                 args->key_file,
                 "a file with keys, one a line: who shows none of them is refused");
  command
      .option("--name",
              args->names,
              "what clients call the model; may be given several times (default: the directory's "
              "name)")
      .once_per_value()
      .any_text();
  add_template_option(command, args->chat_template);
  command
      .option("--cors",
              args->origins,
              "an origin (https://HOST[:PORT]) whose pages may ask from a browser; *: all; may be "
              "given "
              "several times")
      .once_per_value();
  command
      .option("--temperature",
              args->temperature,
              "of requests that say none (default: the model's generation_config.json, else 1)")
      .within(0.0, 2.0);
  command.option("--top-p", args->top_p, "the same of top_p").within(1e-6, 1.0);
  command.option("--running", args->running, "requests that are answered at once")
      .within(int64_t{1}, int64_t{256})
      .shows_default();
  command.option("--waiting", args->waiting, "requests that may wait; more are refused with 503")
      .within(int64_t{0}, int64_t{1} << 20)
      .shows_default();
  add_engine_options(command, args->answer);
  command.option("--connections", args->connections, "open at once, at most")
      .within(int64_t{1}, int64_t{1} << 20)
      .shows_default();
  command.option("--body-mib", args->body_mib, "a request's body has at most so many MiB")
      .within(int64_t{1}, int64_t{256})
      .shows_default();
  command
      .option("--stall-seconds",
              args->stall_s,
              "/health turns bad when there is work and no pass ended for so long")
      .within(0.01, 1e6)
      .shows_default();
  command
      .option("--drain-seconds",
              args->drain_s,
              "how long answers that are under way may take, once the server is to end (SIGTERM)")
      .within(0.0, 1e6)
      .shows_default();
  command.flag("--quiet", args->quiet, "do not write a line for each request");
  command.runs([args] { return report(serve(*args)); });
}

}  // namespace ferry::cli
