// Asks a server by HTTP: the only place where Ferry reaches out into a network, because it was told
// an address. Whatever comes back is limited in size and time, and means nothing yet.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry::verify {

struct HttpRequest {
  std::string path;  // from the server's address on: "/v1/models"
  std::string body;  // JSON to POST; empty: GET
  /// What stands behind "Authorization: Bearer"; empty: no such header.
  std::string key;
};

struct HttpReply {
  int status = 0;
  std::string body;
  std::optional<double> retry_after_s = {};  // when it wants to be asked again, where it says so
};

struct HttpLimits {
  int64_t timeout_ms = 120'000;  // of one request, connecting included
  size_t body_bytes = size_t{64} << 20;
};

/// Follows no redirection, keeps connections. One thread.
class HttpClient {
 public:
  /// `address`: "http://HOST[:PORT][/PATH]" or https; a "/v1" at its end is taken away, because
  /// requests name it. Errors: kInvalidInput.
  static Result<HttpClient> open(const std::string& address, const HttpLimits& limits);
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;
  ~HttpClient();

  const std::string& address() const { return address_; }

  /// Errors: kUnavailable (no connection, cut off, redirected, more than body_bytes), kTimeout. Any
  /// status beside redirections is a reply.
  Result<HttpReply> ask(const HttpRequest& request);
  /// All at the same time, each over a connection of its own.
  std::vector<Result<HttpReply>> ask_together(std::span<const HttpRequest> requests);

 private:
  struct Handles;
  HttpClient(std::string address, const HttpLimits& limits);
  std::string address_;
  HttpLimits limits_;
  std::unique_ptr<Handles> handles_;
};

}  // namespace ferry::verify
