// Reads requests of HTTP/1.1 from bytes that come in whatever pieces: what it finds does not depend on
// them. No sockets, no clock. (Boost.Beast parses.)
#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "serve/http_message.h"

namespace ferry::serve {

/// The requests of one connection, one after the other. Of each next() finds the head, then all of it;
/// begin() turns to the one behind it, of which bytes may have come already.
class HttpRequestReader {
 public:
  enum class Found {
    kNothing,  // yet: more bytes are wanted
    kHead,     // request() has all but its body
    kRequest,  // all of it has come: take()
    kRefused,  // it is none, or too large: refusal() says so. What follows it cannot be read.
  };

  /// Bytes that a head may have, and the head of a chunk; that a body may have.
  HttpRequestReader(uint32_t header_bytes, uint64_t body_bytes);

  void append(std::string_view bytes);
  Found next();
  void begin();
  /// Forgets what has come and was not read.
  void drop() { in_.clear(); }

  /// Of a request that was refused: as much of its head as was read, which may be none of it.
  const HttpRequest& request() const { return request_; }
  /// The request with its body. Once.
  HttpRequest take();
  const HttpRefusal& refusal() const { return refusal_; }

  /// Of the request whose head was found: all of it has come.
  bool complete() const { return parser_->is_done(); }
  /// Its client wants to ask more on this connection.
  bool keep_alive() const { return parser_->get().keep_alive(); }
  bool http_1_1() const { return parser_->get().version() >= 11; }
  /// Its response has no body.
  bool head_alone() const { return parser_->get().method() == boost::beast::http::verb::head; }

  /// Bytes of its body so far.
  uint64_t body_bytes() const { return parser_->get().body().size(); }
  /// Bytes that have come and were not read: a part of a head, or later requests.
  size_t unread_bytes() const { return in_.size(); }

 private:
  Found refuse(int status, std::string why);
  std::string head();

  const uint32_t header_bytes_;
  const uint64_t body_bytes_;
  boost::beast::flat_buffer in_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  bool parsed_ = true;  // as far as in_ allows
  bool head_found_ = false;
  HttpRequest request_;
  HttpRefusal refusal_;
};

}  // namespace ferry::serve
