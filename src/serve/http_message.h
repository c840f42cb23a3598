// Requests and responses of HTTP as the rest of the server sees them: no sockets, no library.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::serve {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // "GET"
  std::string path;     // without the query
  HttpHeaders headers;  // names in lower case
  std::string body;

  /// Of a header by its name in lower case; empty if there is none, the first of several.
  std::string_view header(std::string_view name) const {
    for (const auto& [n, value] : headers)
      if (n == name) return value;
    return {};
  }
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers = {};  // beside those about type, length and connection
  std::string body = {};
  /// Of an error, for the server's own log: its field and its code, nothing else of the request. Not sent.
  std::string note = {};
};

/// Why a request was not read to its end, or is none.
struct HttpRefusal {
  int status = 400;
  std::string why;
};

/// The way back to whoever sent one request. On the server's thread only; may be kept for as long as
/// the answer takes. After the client left, what is called does nothing.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  /// The whole response.
  virtual void answer(HttpResponse response) = 0;
  /// Or its head (without a body), which is sent with what comes first of these: pieces of its body as they come, and
  /// their end.
  virtual void begin(HttpResponse head) = 0;
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  /// Ends the connection where the body is: the client sees that the response is not whole.
  virtual void abort() = 0;
  /// Called once, if the client leaves, or is dropped since it does not read, before the end; at once
  /// if that has happened.
  virtual void when_gone(std::function<void()> gone) = 0;
};

}  // namespace ferry::serve
