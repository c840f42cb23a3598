// The server: which path does what, who may ask, and how it begins and ends. Everything but the
// engine's passes and the reading of requests happens on the thread that calls run().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "serve/api_keys.h"
#include "serve/engine_loop.h"
#include "serve/http_server.h"

namespace ferry::serve {

struct ServiceOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: one that is free
  ApiKeys keys;
  std::vector<std::string> names;    // of the model, at least one; the first is told
  std::vector<std::string> origins;  // of pages that may ask from a browser; "*": all
  HttpLimits http;
  double stall_s = 120;  // without a pass, though there is work: /health turns bad
  double quiet_s =
      15;  // of a stream, until it says that it lives: proxies wait for a minute, as a rule
  double drain_s = 30;  // for answers under way, once it is to end
  bool log_requests = true;
};

class Service {
 public:
  /// Listens, and loads the model meanwhile: until then /health says so. Errors: of
  /// HttpServer::listen; kExhausted.
  static Result<std::unique_ptr<Service>> start(ServiceOptions options, EngineLoop::Load load);
  virtual ~Service() = default;

  virtual uint16_t port() const = 0;
  /// Until one of kStopSignals that is heeded (base/signals.h) or stop(): then nothing new is taken,
  /// and it returns when what was under way is answered, or drain_s have passed; at once at a second
  /// signal. Errors: the model's, if it cannot be loaded. Throws what ended the engine.
  virtual Result<void> run() = 0;
  /// As a SIGTERM. From any thread.
  virtual void stop() = 0;
};

}  // namespace ferry::serve
