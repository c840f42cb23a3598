#include "serve/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/patient_output.h"
#include "base/random.h"
#include "base/signals.h"
#include "base/signature.h"
#include "base/version.h"
#include "serve/answering.h"
#include "serve/chat_request.h"
#include "serve/messages_api.h"
#include "serve/metrics.h"
#include "serve/openapi.h"
#include "serve/ordered_work.h"
#include "serve/page/page_files.h"
#include "serve/question_fields.h"
#include "serve/responses_api.h"
#include "serve/token_endpoints.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kTickS = 1;
constexpr int64_t kReadingMax = 4096;  // requests that wait to be read, or are
constexpr double kPartingS = 3;        // for the last bytes to be taken, once all is answered
/// Bodies and documents of more bytes are worked on apart from the others, which wait for none of them.
constexpr uint64_t kLongBytes = 256 << 10;

double now_s() { return system_clock().monotonic_s(); }

HttpResponse json_response(const Json& json) { return {.body = json_text(json)}; }

/// A name in the host part of a URL or of the header Host, without its port.
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

/// Of this machine alone. A name may begin with "127.", too, and lead anywhere.
bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "[::1]" || host == "::1" ||
         (host.starts_with("127.") &&
          host.find_first_not_of("0123456789.") == std::string_view::npos);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

/// How a body was packed for its way (RFC 9110, 8.4), where it was: "gzip".
std::string coding_of(const HttpRequest& request) {
  for (const auto& [name, value] : request.headers) {
    if (name != "content-encoding") continue;
    const std::string codings = lower(value);
    for (size_t at = 0, end; at < codings.size(); at = end + 1) {
      end = std::min(codings.find(',', at), codings.size());
      const size_t first = codings.find_first_not_of(" \t", at);
      if (first >= end) continue;
      const size_t last = codings.find_last_not_of(" \t", end - 1);
      const std::string coding = codings.substr(first, last - first + 1);
      if (coding != "identity") return coding;
    }
  }
  return "";
}

/// What was sent as a line may hold it, whatever it was.
std::string shown(std::string_view text) {
  constexpr size_t kShownMax = 200;
  std::string line(text.substr(0, kShownMax));
  for (char& c : line)
    if (c <= ' ' || c > '~') c = '?';
  return line + (text.size() > kShownMax ? "..." : "");
}

/// Adds what every response has, and tells when it went out.
class TaggedExchange : public HttpExchange {
 public:
  TaggedExchange(std::shared_ptr<HttpExchange> to,
                 HttpHeaders headers,
                 std::function<void(const HttpResponse& head)> answered)
      : to_(std::move(to)), headers_(std::move(headers)), answered_(std::move(answered)) {}

  void answer(HttpResponse response) override {
    answered_(response);
    to_->answer(tagged(std::move(response)));
  }
  void begin(HttpResponse head) override {
    answered_(head);
    to_->begin(tagged(std::move(head)));
  }
  void write(std::string_view piece) override { to_->write(piece); }
  void end() override { to_->end(); }
  void abort() override { to_->abort(); }
  void when_gone(std::function<void()> gone) override { to_->when_gone(std::move(gone)); }

 private:
  HttpResponse tagged(HttpResponse response) const {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    return response;
  }
  std::shared_ptr<HttpExchange> to_;
  HttpHeaders headers_;
  std::function<void(const HttpResponse&)> answered_;
};

/// Of a part of a path; nullopt: it is not well-formed.
std::optional<std::string> percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const int letter = (c | 0x20) - 'a';
    return letter >= 0 && letter < 6 ? letter + 10 : -1;
  };
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      out += text[at];
      continue;
    }
    if (text.size() - at < 3) return std::nullopt;
    const int high = digit(text[at + 1]), low = digit(text[at + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(16 * high + low);
    at += 2;
  }
  return out;
}

class Server;
using Exchange = std::shared_ptr<HttpExchange>;

/// What a path does.
struct Route {
  const char* method;
  const char* path;  // those of APIs without their /v1
  bool guarded;      // by keys, if there are any
  bool runs;         // needs the model
  void (Server::*handle)(const HttpRequest&, const Exchange&);
  ApiStyle style = ApiStyle::kOpenAi;
};

class Server : public Service {
 public:
  explicit Server(ServiceOptions options) : options_(std::move(options)), log_(stderr) {}
  ~Server() override {
    // Whose connection is closed from here on has nobody to tell; threads end before what their
    // messages are for.
    questions_.clear();
    reading_.reset();
    long_work_.reset();
    engine_.reset();
    http_.reset();
  }

  Result<void> listen() {
    TRY_ASSIGN(
        http_,
        HttpServer::listen(
            options_.host,
            options_.port,
            options_.http,
            {.check_head = [this](const HttpRequest& r) { return refusal(r); },
             .handle = [this](HttpRequest r, Exchange e) { handle(std::move(r), std::move(e)); },
             .refused = [this](const HttpRefusal& refusal,
                               const HttpRequest& head) { return refused(refusal, head); }}));
    log(fmt::format("ferry: {} at {} is being loaded", options_.names.front(), url()));
    return {};
  }

  Result<void> load(EngineLoop::Load load) {
    const auto here = [this](std::function<void()> task) { http_->post(std::move(task)); };
    const auto failed = [this, here](std::exception_ptr e) { here([this, e] { fail(e); }); };
    TRY_ASSIGN(reading_, OrderedWork::start(failed));
    TRY_ASSIGN(long_work_, OrderedWork::start(failed));
    TRY_ASSIGN(
        engine_,
        EngineLoop::start(
            std::move(load),
            {.loaded =
                 [this, here](std::shared_ptr<const LoadedModel> model) {
                   here([this, m = std::move(model)]() mutable { loaded(std::move(m)); });
                 },
             .news =
                 [this, here](std::vector<EngineNews> news) {
                   here([this, n = std::make_shared<std::vector<EngineNews>>(std::move(news))] {
                     for (EngineNews& one : *n) take(one);
                   });
                 },
             .not_loaded =
                 [this, here](Status status) {
                   here([this, status] {
                     outcome_ = tl::unexpected(status);
                     http_->stop();
                   });
                 },
             .failed = failed}));
    http_->on_signals(stop_signals_to_heed(), [this](int) {
      if (model_ == nullptr) std::_Exit(0);  // nothing is under way but reading files
      end();
    });
    tick();
    return {};
  }

  uint16_t port() const override { return http_->port(); }
  void stop() override {
    http_->post([this] { end(); });
  }
  Result<void> run() override {
    http_->run();
    if (failure_) std::rethrow_exception(failure_);
    return outcome_;
  }

 private:
  static const std::vector<Route>& routes();

  std::string url() const {
    const bool six = options_.host.find(':') != std::string::npos;
    return fmt::format("http://{}:{}/", six ? "[" + options_.host + "]" : options_.host, port());
  }

  void log(const std::string& line) { log_.write(line + "\n"); }

  /// A line for each request that was refused or failed, with nothing of its text. (Whoever watches
  /// /health hears from it.)
  void log_error(const std::string& method,
                 const std::string& path,
                 const HttpResponse& response,
                 double after_s) {
    if (!options_.log_requests || response.status < 400 || path == "/health" || path == "/ping")
      return;
    log(fmt::format("ferry: {} {} {}{} after {:.3f} s",
                    method.empty() ? "-" : shown(method),
                    path.empty() ? "-" : shown(path),
                    response.status,
                    response.note.empty() ? "" : " (" + response.note + ")",
                    after_s));
  }

  // --- what is asked ---------------------------------------------------------------------------

  /// Whether a route is a path's, with and without /v1 (and DeepSeek's /beta).
  static bool leads(const Route& route, std::string_view path) {
    for (const std::string_view version : {"/v1/", "/beta/"})
      if (path.starts_with(version)) {
        path.remove_prefix(version.size() - 1);
        break;
      }
    const std::string_view p = route.path;
    return p.ends_with('*') ? path.starts_with(p.substr(0, p.size() - 1)) : path == p;
  }

  /// nullptr: there is none.
  static const Route* find(const HttpRequest& request) {
    const std::string_view given = request.method, method = given == "HEAD" ? "GET" : given;
    for (const Route& r : routes())
      if (method == r.method && leads(r, request.path)) return &r;
    return nullptr;
  }

  /// The methods that a path has, as Allow lists them; empty: there is nothing at it.
  static std::string methods_of(const std::string& path) {
    std::string methods;
    for (const Route& r : routes())
      if (leads(r, path) && methods.find(r.method) == methods.npos)
        methods += (methods.empty() ? "" : ", ") + std::string(r.method);
    if (methods.empty() && page_file(path) != nullptr) methods = "GET";
    if (const size_t get = methods.find("GET"); get != methods.npos)
      methods.insert(get + 3, ", HEAD");
    return methods;
  }

  static ApiError not_with_this_method(const HttpRequest& request) {
    const std::string methods = methods_of(request.path);
    if (methods.empty()) return {.status = 404, .message = "there is nothing at this path"};
    return {.status = 405,
            .message = fmt::format(
                "not with the method {}: this path is for {}", printable(request.method), methods),
            .headers = {{"Allow", methods}}};
  }

  /// What is refused by a request's head alone, before its body is read.
  std::optional<HttpResponse> refusal(const HttpRequest& request) {
    const std::optional<ApiError> error = head_error(request);
    return error ? std::optional(refused(*error, request)) : std::nullopt;
  }

  HttpResponse refused(const ApiError& error, const HttpRequest& request) {
    const Route* const route = find(request);
    HttpResponse response =
        error_response(error, route != nullptr ? route->style : ApiStyle::kOpenAi);
    for (auto& header : cors(request)) response.headers.push_back(std::move(header));
    metrics_.response(response.status);
    log_error(request.method, request.path, response, 0);
    return response;
  }

  /// What HTTP refuses is told as the path's API tells what it refuses.
  HttpResponse refused(const HttpRefusal& refusal, const HttpRequest& head) {
    return refused(ApiError{.status = refusal.status, .message = refusal.why}, head);
  }

  std::optional<ApiError> head_error(const HttpRequest& request) const {
    if (!admits_host(request))
      return ApiError{
          .status = 403,
          .message = fmt::format(
              "{} is none of this server's names: without keys, on an address of this machine "
              "alone, "
              "it answers to localhost, 127.0.0.1, [::1], what --host says and the names of --cors",
              printable(without_port(request.header("host")))),
          .param = "Host",
          .code = "host_not_allowed"};
    if (!admits_origin(request))
      return ApiError{
          .status = 403, .message = origin_refusal(request), .code = "origin_not_allowed"};
    if (request.method == "OPTIONS") return std::nullopt;
    const Route* const route = find(request);
    if (route == nullptr) {
      if (page_file(request.path) != nullptr &&
          (request.method == "GET" || request.method == "HEAD"))
        return std::nullopt;
      return not_with_this_method(request);
    }
    if (route->guarded && !options_.keys.admit(request))
      return ApiError{.status = 401,
                      .message = "no valid API key: send \"Authorization: Bearer KEY\"",
                      .code = "invalid_api_key"};
    if (route->runs && ending_)
      return ApiError{.status = 503, .message = "this server is ending", .code = "ending"};
    if (const std::string coding = coding_of(request); !coding.empty())
      return ApiError{.status = 415,
                      .message = fmt::format("Content-Encoding: {} is not read here; send the body "
                                             "as it is",
                                             printable(coding)),
                      .param = "Content-Encoding",
                      .headers = {{"Accept-Encoding", "identity"}}};
    if (route->runs && model_ == nullptr)
      return ApiError{.status = 503, .message = "the model is being loaded", .code = "loading"};
    return std::nullopt;
  }

  bool is_trusted(std::string_view origin) const {
    return std::any_of(options_.origins.begin(), options_.origins.end(), [&](const std::string& o) {
      return o == "*" || o == origin;
    });
  }

  /// Where nothing but being on this machine admits a client, a page of a name that was made to lead here
  /// (DNS rebinding) may not ask: to its browser it and this server are one. Only browsers name a host
  /// that others chose, and they always name one.
  bool admits_host(const HttpRequest& request) const {
    const std::string host = lower(without_port(request.header("host")));
    if (host.empty() || !options_.keys.empty() || !is_loopback(options_.host)) return true;
    // Reserved names: no public one leads here by them.
    if (is_loopback(host) || host.ends_with(".localhost") || host == "host.docker.internal" ||
        host == "host.containers.internal" || host == lower(options_.host))
      return true;
    return std::any_of(options_.origins.begin(), options_.origins.end(), [&](const std::string& o) {
      const size_t scheme = o.find("://");
      return o == "*" || (scheme != o.npos &&
                          lower(without_port(std::string_view(o).substr(scheme + 3))) == host);
    });
  }

  /// Browsers send the header Origin with what a page asks for. The server's own page may ask.
  bool admits_origin(const HttpRequest& request) const {
    const std::string_view origin = request.header("origin");
    if (origin.empty() || is_trusted(origin)) return true;
    const size_t scheme = origin.find("://");
    return scheme != std::string_view::npos && origin.substr(scheme + 3) == request.header("host");
  }

  /// Why, and what to do: whoever sees it has put a proxy in front, as a rule.
  static std::string origin_refusal(const HttpRequest& request) {
    const std::string_view origin = request.header("origin");
    return fmt::format(
        "pages of {0} may not ask here: they did not come from \"{1}\", under which name this "
        "server was "
        "asked, and pages of others could ask in the name of whoever looks at them; `ferry serve "
        "--cors {0}` "
        "admits these",
        shown(origin),
        shown(request.header("host")));
  }

  HttpHeaders cors(const HttpRequest& request) const {
    const std::string_view origin = request.header("origin");
    if (origin.empty() || !is_trusted(origin)) return {};
    return {{"Access-Control-Allow-Origin", std::string(origin)},
            {"Access-Control-Expose-Headers", "Retry-After"},
            {"Vary", "Origin"}};
  }

  void handle(HttpRequest request, Exchange to) {
    const double asked_s = now_s();
    const Route* const route = find(request);
    const Exchange exchange = std::make_shared<TaggedExchange>(
        std::move(to),
        cors(request),
        [this, asked_s, method = request.method, path = request.path](const HttpResponse& head) {
          metrics_.response(head.status);
          log_error(method, path, head, now_s() - asked_s);
        });
    if (request.method == "OPTIONS") return preflight(request, exchange);
    if (route != nullptr) return (this->*route->handle)(request, exchange);
    page(request, exchange);
  }

  void preflight(const HttpRequest& request, const Exchange& exchange) const {
    if (cors(request).empty())
      return exchange->answer(error_response(not_with_this_method(request), ApiStyle::kOpenAi));
    // Libraries add headers of their own (X-Stainless-Os, Anthropic-Beta, ...), which mean nothing here.
    const std::string_view asked = request.header("access-control-request-headers");
    const std::string allowed =
        asked.empty() ? "Authorization, Content-Type, X-Api-Key" : std::string(asked);
    exchange->answer({.status = 204,
                      .content_type = "text/plain",
                      .headers = {{"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
                                  {"Access-Control-Allow-Headers", allowed},
                                  {"Access-Control-Max-Age", "600"}}});
  }

  void page(const HttpRequest& request, const Exchange& exchange) const {
    const PageFile& file = *page_file(request.path);  // as check_head saw
    HttpResponse r{.content_type = std::string(file.content_type),
                   .headers = {{"ETag", std::string(file.etag)},
                               {"Cache-Control", "no-cache"},
                               {"Content-Security-Policy", std::string(kPageSecurityPolicy)},
                               {"X-Content-Type-Options", "nosniff"},
                               {"Referrer-Policy", "no-referrer"},
                               {"Vary", "Accept-Encoding"}}};
    if (request.header("if-none-match").find(file.etag) != std::string_view::npos) {
      r.status = 304;
    } else if (!file.gzip.empty() &&
               request.header("accept-encoding").find("gzip") != std::string_view::npos) {
      r.headers.emplace_back("Content-Encoding", "gzip");
      r.body = file.gzip;
    } else {
      r.body = file.bytes;
    }
    exchange->answer(std::move(r));
  }

  void health(const HttpRequest&, const Exchange& exchange) {
    const char* state = "ok";
    const EngineState e = engine_->state();
    if (ending_)
      state = "ending";
    else if (model_ == nullptr)
      state = "loading";
    else if (e.busy && now_s() - e.progress_s > options_.stall_s)
      state = "stalled";
    HttpResponse r = json_response({{"status", state}});
    if (std::string_view(state) != "ok") r.status = 503;
    exchange->answer(std::move(r));
  }

  void version(const HttpRequest&, const Exchange& exchange) {
    exchange->answer(json_response({{"version", kVersion}, {"program", "ferry"}}));
  }

  void openapi(const HttpRequest&, const Exchange& exchange) {
    exchange->answer({.body = openapi_json()});
  }

  void metrics(const HttpRequest&, const Exchange& exchange) {
    exchange->answer(
        {.content_type = "text/plain; version=0.0.4; charset=utf-8",
         .body = metrics_.text(
             options_.names.front(), engine_->state(), reading_now_, http_->connections())});
  }

  Json model_json(const std::string& name) const {
    return {{"id", name},
            {"object", "model"},
            {"created", created_s_},
            {"owned_by", "ferry"},
            {"root", options_.names.front()},
            {"parent", nullptr},
            {"max_model_len", model_->context()}};
  }

  void models(const HttpRequest&, const Exchange& exchange) {
    Json list = Json::array();
    for (const std::string& name : options_.names) list.push_back(model_json(name));
    exchange->answer(json_response({{"object", "list"}, {"data", std::move(list)}}));
  }

  void one_model(const HttpRequest& request, const Exchange& exchange) {
    const std::optional<std::string> name =
        percent_decoded(std::string_view(request.path).substr(request.path.find("/models/") + 8));
    if (name &&
        std::find(options_.names.begin(), options_.names.end(), *name) != options_.names.end())
      return exchange->answer(json_response(model_json(*name)));
    exchange->answer(error_response({.status = 404,
                                     .message = "there is no such model here",
                                     .param = "model",
                                     .code = "model_not_found"},
                                    ApiStyle::kOpenAi));
  }

  void passport(const HttpRequest&, const Exchange& exchange) {
    exchange->answer({.body = model_->facts});
  }

  void embeddings(const HttpRequest&, const Exchange& exchange) {
    exchange->answer(error_response(
        {.message = "embeddings: this server makes none; its models answer", .code = "unsupported"},
        ApiStyle::kOpenAi));
  }

  void tokenize(const HttpRequest& r, const Exchange& e) { convert(r, e, tokenize_request); }
  void detokenize(const HttpRequest& r, const Exchange& e) { convert(r, e, detokenize_request); }
  void chat(const HttpRequest& r, const Exchange& e) { ask(r, e, read_chat, chat_writer); }
  void response(const HttpRequest& r, const Exchange& e) {
    ask(r, e, read_response_request, response_writer);
  }
  void count_response(const HttpRequest& r, const Exchange& e) {
    convert(r, e, count_response_tokens);
  }
  void message(const HttpRequest& r, const Exchange& e) {
    ask(r, e, read_message_request, message_writer);
  }
  void count_tokens(const HttpRequest& r, const Exchange& e) {
    convert(r, e, count_tokens_request);
  }
  void completion(const HttpRequest& r, const Exchange& e) {
    ask(r, e, read_completion, completion_writer);
  }

  // --- reading, and writing long documents, on other threads: a long text takes a while to become tokens --

  ReadingRules rules(uint64_t seed) {
    return {.model = *model_,
            .vocab_size = model_->model->vocab_size(),
            .context = model_->context(),
            .names = options_.names,
            .sampling = sampling_,
            .forms = forms_,
            .seed = seed};
  }

  /// A mistake of Ferry's, or too little memory, for one request must not end the answers to all others.
  /// `what` work does: "read this request".
  template <typename Work>
  std::invoke_result_t<Work> apart(const char* what, const char* fault_name, const Work& work) {
    const auto bug = [&](const std::string& which) {
      log(fmt::format("ferry: a bug in Ferry, where it was to {}: {}", what, which));
      return tl::unexpected(
          ApiError{.status = 500, .message = fmt::format("a bug in Ferry: it could not {}", what)});
    };
    try {
      const int fault = fault_point(fault_name);
      if (fault == ENOSPC) throw std::bad_alloc();
      check(fault == 0, "serve: a fault wants it to fail");
      return work();
    } catch (const std::bad_alloc&) {
      return tl::unexpected(
          ApiError{.status = 503,
                   .message = fmt::format("there is no memory left to {}; try again", what),
                   .code = "server_overloaded"});
    } catch (const nlohmann::json::exception& e) {
      return bug(fmt::format("{}", e.id));  // its text may be the request's
    } catch (const std::exception& e) {
      return bug(e.what());
    }
  }

  /// A request whose body waits to be read, or is.
  struct Waiting {
    explicit Waiting(uint64_t of) : bytes(of) {}
    const uint64_t bytes;
    std::atomic<bool> left = false;  // its client
  };

  /// nullptr: too many bytes wait already, which was answered.
  std::shared_ptr<const Waiting> wait_to_be_read(const HttpRequest& request,
                                                 const Exchange& exchange,
                                                 ApiStyle style) {
    const uint64_t bytes = request.body.size();
    if (reading_bytes_ + bytes > options_.http.bodies_bytes || reading_now_ >= kReadingMax) {
      exchange->answer(error_response({.status = 503,
                                       .message = "too many requests are being read; try again",
                                       .code = "server_overloaded"},
                                      style));
      return nullptr;
    }
    ++reading_now_;
    reading_bytes_ += bytes;
    const auto waiting = std::make_shared<Waiting>(bytes);
    exchange->when_gone([waiting] { waiting->left = true; });
    return waiting;
  }
  void was_read(const Waiting& waiting) {
    --reading_now_;
    reading_bytes_ -= waiting.bytes;
  }
  /// From the reading thread: nobody wants it any more.
  void read_to_end(const Waiting& waiting) {
    http_->post([this, bytes = waiting.bytes] {
      --reading_now_;
      reading_bytes_ -= bytes;
    });
  }

  template <typename T>
  using Reader = ApiResult<T> (*)(std::string_view body, const ReadingRules&);

  /// What turns out to take long is left off, and read once more where nobody waits who wants little. `then`: what
  /// becomes of it, on the server's thread.
  template <typename T>
  void read(const std::shared_ptr<const Waiting>& waiting,
            const std::shared_ptr<const std::string>& body,
            Reader<T> reader,
            const ReadingRules& how,
            const std::function<void(ApiResult<T>&)>& then) {
    OrderedWork& worker = how.in_short ? *reading_ : *long_work_;
    worker.post(waiting->bytes, [=, this] {
      if (waiting->left) return read_to_end(*waiting);
      const auto result = std::make_shared<ApiResult<T>>(
          apart("read this request", "serve.read", [&] { return reader(*body, how); }));
      if (!*result && result->error().takes_long) {
        ReadingRules whole = how;
        whole.in_short = false;
        return read(waiting, body, reader, whole, then);
      }
      http_->post([=, this] {
        was_read(*waiting);
        then(*result);
      });
    });
  }
  template <typename T>
  void read(const HttpRequest& request,
            const Exchange& exchange,
            Reader<T> reader,
            uint64_t seed,
            const std::function<void(ApiResult<T>&)>& then) {
    const auto waiting = wait_to_be_read(request, exchange, find(request)->style);
    if (waiting == nullptr) return;
    ReadingRules how = rules(seed);
    how.in_short = waiting->bytes <= kLongBytes;
    read(waiting, std::make_shared<const std::string>(request.body), reader, how, then);
  }

  /// Text to tokens or back.
  void convert(const HttpRequest& request, const Exchange& exchange, Reader<std::string> with) {
    const ApiStyle style = find(request)->style;
    read<std::string>(request, exchange, with, 0, [=](ApiResult<std::string>& result) {
      exchange->answer(result ? HttpResponse{.body = *std::move(result)}
                              : error_response(result.error(), style));
    });
  }

  void ask(const HttpRequest& request,
           const Exchange& exchange,
           Reader<Question> reader,
           WriterMaker writer) {
    const double asked_s = now_s();
    const QuestionId id = ++last_id_;
    const std::string name = hash(fmt::format("{} {}", begun_, id));
    const AnswerHead head{.id = name.substr(0, 24),
                          .model = options_.names.front(),
                          .fingerprint = fingerprint_,
                          .created_s = system_clock().unix_ms() / 1000};
    // Of a request that names no seed: another each time.
    const uint64_t seed = name_hash(name.data(), name.size());
    const std::string salt = options_.keys.salt_of(request);
    const ApiStyle style = find(request)->style;
    read<Question>(request, exchange, reader, seed, [=, this](ApiResult<Question>& question) {
      if (cut_off_) return exchange->answer(error_response(time_is_over(), style));
      if (!question) return exchange->answer(error_response(question.error(), style));
      submit(id, *std::move(question), head, writer, exchange, asked_s, salt);
    });
  }

  void submit(QuestionId id,
              Question question,
              AnswerHead head,
              WriterMaker writer,
              const Exchange& exchange,
              double asked_s,
              const std::string& salt) {
    head.model = question.model;
    // Nobody knows where another's part ends: so parts cannot be shifted.
    const std::string whole_salt =
        question.salt.empty() && salt.empty() ? "" : hash(salt + "\n" + question.salt);
    const auto answering = std::make_shared<Answering>(
        model_, std::move(question), head, writer, exchange, asked_s, [this, id](size_t answer) {
          engine_->cancel(id, answer);
        });
    questions_.emplace(id, answering);
    exchange->when_gone([this, id] { gone(id); });
    if (!questions_.contains(id)) return;  // it left while its question was read
    engine_->submit(id, answering->requests(whole_salt));
  }

  // --- what becomes of it ------------------------------------------------------------------------

  void take(const EngineNews& news) {
    const auto it = questions_.find(news.question);
    if (it == questions_.end()) return;
    const std::shared_ptr<Answering> answering = it->second;
    if (answering->done()) return;  // its document is being written
    switch (news.kind) {
      case EngineNews::Kind::kAccepted: answering->accepted(); break;
      case EngineNews::Kind::kRefused: answering->fail(api_error(news.error)); break;
      case EngineNews::Kind::kProgress:
        answering->take(news.answer, news.progress, news.began_s, now_s(), metrics_);
        break;
    }
    if (answering->owes_document())
      write_document(news.question, answering);
    else if (answering->done())
      over(news.question, false);
  }

  /// One with many log-probabilities takes seconds, for which no other client waits.
  void write_document(QuestionId id, const std::shared_ptr<Answering>& answering) {
    const auto write = [this](Answering& a) {
      return apart("write this answer", "serve.write", [&]() -> ApiResult<std::string> {
        return a.document();
      });
    };
    const uint64_t bytes = answering->document_bytes();
    if (bytes <= kLongBytes) {
      answering->answer(write(*answering));
      return over(id, false);
    }
    ++writing_now_;
    long_work_->post(bytes, [=, this, a = answering] {
      ApiResult<std::string> document;
      if (!a->left()) document = write(*a);
      http_->post([=, this, d = std::move(document)]() mutable {
        --writing_now_;
        if (a->failed()) return;  // and is over: its time was
        if (!a->left()) a->answer(std::move(d));
        over(id, a->left());
      });
    });
  }

  /// Its client left.
  void gone(QuestionId id) {
    if (!questions_.contains(id)) return;
    engine_->cancel(id);
    questions_.at(id)->leave();
    over(id, true);
  }

  void over(QuestionId id, bool aborted) {
    const auto it = questions_.find(id);
    if (it == questions_.end()) return;
    const std::shared_ptr<Answering> answering = it->second;
    questions_.erase(it);
    answering->count(metrics_, now_s(), aborted);
    if (!options_.log_requests || answering->refused()) return;
    const AnswerUsage& u = answering->usage();
    log(fmt::format(
        "ferry: {}: prompt {} ({} known), answer {} tokens, {:.3f} s to the first, {:.3f} s after",
        aborted ? "left" : (answering->failed() ? "failed" : "answered"),
        u.prompt,
        u.cached,
        u.completion,
        u.prompt_s,
        u.completion_s));
  }

  void loaded(std::shared_ptr<const LoadedModel> model) {
    model_ = std::move(model);
    sampling_ = default_sampling(model_->texts);
    fingerprint_ = "ferry-" + std::string(kVersion) + "-" + hash(model_->facts).substr(0, 10);
    log(fmt::format("ferry: serving {} at {}", options_.names.front(), url()));
  }

  /// The engine, or what reads requests, is no more.
  void fail(std::exception_ptr e) {
    if (!failure_) failure_ = std::move(e);
    const auto all = std::exchange(questions_, {});
    for (const auto& [id, answering] : all)
      answering->fail({.status = 500, .message = "the server failed; it ends"});
    http_->drain();
    ending_ = true;
    http_->after(kTickS, [this] { http_->stop(); });
  }

  // --- time --------------------------------------------------------------------------------------

  void tick() {
    const double now = now_s();
    const auto all = questions_;
    for (const auto& [id, answering] : all) answering->keep_alive(now, options_.quiet_s);
    http_->after(kTickS, [this] { tick(); });
  }

  void end() {
    if (std::exchange(ending_, true)) {
      cut_off();
      return http_->stop();
    }
    const size_t under_way = questions_.size() + static_cast<size_t>(reading_now_);
    const std::string rest =
        under_way == 0
            ? ""
            : fmt::format("; {} request{} under way, at most {:g} s (a second signal: at once)",
                          under_way,
                          under_way == 1 ? " is" : "s are",
                          options_.drain_s);
    log("ferry: ending" + rest);
    http_->drain();
    http_->after(options_.drain_s, [this] {
      cut_off();
      http_->after(kPartingS, [this] { http_->stop(); });
    });
    await_end(now_s());
  }

  static ApiError time_is_over() {
    return {.status = 503, .message = "this server is ending; its time is over", .code = "ending"};
  }

  /// Their time is over: those of whom no byte was sent are told to come again, streams say that they failed.
  void cut_off() {
    cut_off_ = true;
    const auto all = questions_;
    if (all.empty()) return;
    log(fmt::format("ferry: {} answer{} cut off", all.size(), all.size() == 1 ? " was" : "s were"));
    for (const auto& [id, answering] : all) {
      engine_->cancel(id);
      answering->fail(time_is_over());
      over(id, false);
    }
    http_->drain();  // connections that have become idle
  }

  /// Until all is answered, and taken.
  void await_end(double busy_s) {
    const double now = now_s();
    const bool busy = !questions_.empty() || reading_now_ > 0 || writing_now_ > 0;
    if (busy) busy_s = now;
    if (!busy && (http_->connections() == 0 || now - busy_s > kPartingS)) return http_->stop();
    http_->after(0.02, [this, busy_s] { await_end(busy_s); });
  }

  std::string hash(const std::string& text) const { return blake2b_hex(text.data(), text.size()); }

  ServiceOptions options_;
  PatientOutput log_;
  Metrics metrics_;
  std::shared_ptr<const LoadedModel> model_;  // nullptr: not yet
  engine::SamplingOptions sampling_;
  std::string fingerprint_;
  const int64_t created_s_ = system_clock().unix_ms() / 1000;
  // Nobody can know it, so that nobody can guess the names of others' answers, or seeds.
  const std::string begun_ = new_key_pair().secret_key;
  QuestionId last_id_ = 0;
  int64_t reading_now_ = 0;
  uint64_t reading_bytes_ = 0;
  int64_t writing_now_ = 0;  // long documents
  FormCache forms_;
  std::map<QuestionId, std::shared_ptr<Answering>> questions_;
  bool ending_ = false, cut_off_ = false;
  std::exception_ptr failure_;
  Result<void> outcome_;

  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<EngineLoop> engine_;
  std::unique_ptr<OrderedWork> reading_, long_work_;
};

const std::vector<Route>& Server::routes() {
  static const std::vector<Route> all = {
      {"GET", "/health", false, false, &Server::health},
      {"GET", "/ping", false, false, &Server::health},
      {"GET", "/version", false, false, &Server::version},
      {"GET", "/openapi.json", false, false, &Server::openapi},
      {"GET", "/metrics", false, false, &Server::metrics},
      {"GET", "/models", true, true, &Server::models},
      {"GET", "/models/*", true, true, &Server::one_model},
      {"GET", "/ferry/passport", true, true, &Server::passport},
      {"POST", "/tokenize", true, true, &Server::tokenize},
      {"POST", "/detokenize", true, true, &Server::detokenize},
      {"POST", "/chat/completions", true, true, &Server::chat},
      {"POST", "/completions", true, true, &Server::completion},
      {"POST", "/responses", true, true, &Server::response},
      {"POST", "/responses/input_tokens", true, true, &Server::count_response},
      {"POST", "/messages", true, true, &Server::message, ApiStyle::kAnthropic},
      {"POST", "/messages/count_tokens", true, true, &Server::count_tokens, ApiStyle::kAnthropic},
      {"POST", "/embeddings", true, true, &Server::embeddings},
  };
  return all;
}

}  // namespace

Result<std::unique_ptr<Service>> Service::start(ServiceOptions options, EngineLoop::Load load) {
  auto server = std::make_unique<Server>(std::move(options));
  TRY(server->listen());
  TRY(server->load(std::move(load)));
  return server;
}

}  // namespace ferry::serve
