#include "serve/http_request_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <cctype>
#include <new>
#include <string>
#include <utility>

#include "base/json.h"

namespace ferry::serve {

namespace http = boost::beast::http;
using Error = boost::system::error_code;

namespace {

/// A host and, if a port follows, that (RFC 3986, 3.2): what Host holds, and a URL, which may name no user here.
bool is_authority(std::string_view text) {
  const auto all_of = [](std::string_view part, std::string_view others) {
    return std::all_of(part.begin(), part.end(), [&](unsigned char c) {
      return std::isalnum(c) != 0 || others.find(static_cast<char>(c)) != others.npos;
    });
  };
  size_t end = std::min(text.find(':'), text.size());
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == text.npos || !all_of(text.substr(1, end - 1), ":.")) return false;
    ++end;
  } else if (!all_of(text.substr(0, end), "-._~%!$&'()*+,;=")) {
    return false;
  }
  const std::string_view port = text.substr(end);
  return port.empty() ||
         (port.front() == ':' && port.find_first_not_of("0123456789", 1) == std::string_view::npos);
}

/// What stands in a target that is a whole URL before its authority; 0: it is none.
size_t scheme_bytes(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (boost::beast::iequals({target.data(), std::min(target.size(), scheme.size())},
                              {scheme.data(), scheme.size()}))
      return scheme.size();
  return 0;
}

}  // namespace

/// "0\r\n\r\n", or more: no chunked body ends without so many bytes. Beast 1.74 asserts that it is given as
/// many at once, and would end the process where they come one by one.
constexpr size_t kChunksEndBytes = 5;

HttpRequestReader::HttpRequestReader(uint32_t header_bytes, uint64_t body_bytes)
    : header_bytes_(header_bytes), body_bytes_(body_bytes) {
  begin();
}

void HttpRequestReader::begin() {
  parser_.emplace();
  parser_->header_limit(header_bytes_);
  parser_->body_limit(body_bytes_);
  parser_->eager(false);  // trailing fields of a body are none of the head's
  parsed_ = in_.size() == 0;
  head_found_ = false;
  request_ = {};
}

void HttpRequestReader::append(std::string_view bytes) {
  in_.commit(boost::asio::buffer_copy(in_.prepare(bytes.size()),
                                      boost::asio::buffer(bytes.data(), bytes.size())));
  parsed_ = in_.size() == 0;
}

HttpRequestReader::Found HttpRequestReader::next() {
  while (true) {
    if (!head_found_ && parser_->is_header_done()) {
      head_found_ = true;
      parser_->eager(true);
      parsed_ = in_.size() == 0;
      const std::string wrong = head();  // first: a refusal has the form that its path has
      // RFC 9112, 6.3: where a body ends would be said in two ways, or in one that is not understood here; whoever
      // stands in front may believe the other.
      const auto& fields = parser_->get();
      if (fields.count(http::field::transfer_encoding) > 0 &&
          (!http_1_1() || !parser_->chunked() || fields.count(http::field::content_length) > 0 ||
           !boost::beast::iequals(fields[http::field::transfer_encoding], "chunked")))
        return refuse(400,
                      "the only Transfer-Encoding is chunked, in HTTP/1.1, without Content-Length");
      return wrong.empty() ? Found::kHead : refuse(400, "not a request of HTTP/1.1: " + wrong);
    }
    if (parser_->is_done()) return Found::kRequest;
    if (parsed_ || (head_found_ && parser_->chunked() && in_.size() < kChunksEndBytes)) {
      // What the parser leaves is a part of a head, of the head of a chunk, or of what follows the last one.
      if (in_.size() > header_bytes_) return refuse(431, "a chunk's head is too large");
      return Found::kNothing;
    }
    // Of what follows a head never more at once than the head of a chunk may have: what is too large is so
    // however it comes.
    const bool more = head_found_ && in_.size() > header_bytes_;
    size_t consumed = 0;
    Error error;
    try {
      consumed =
          parser_->put(more ? boost::asio::buffer(in_.data(), header_bytes_) : in_.data(), error);
      in_.consume(consumed);
    } catch (const std::bad_alloc&) {  // it reserves what the head says that the body will have
      return refuse(503, "there is no memory for a body of this size now");
    }
    parsed_ = !more || consumed == 0;
    if (error == http::error::need_more) error = {};
    if (error == http::error::header_limit)
      return refuse(431, fmt::format("the head is too large: more than {} bytes", header_bytes_));
    if (error == http::error::body_limit) {
      if (!head_found_) head();  // it says so itself, and whose path it is
      return refuse(413,
                    fmt::format("the body is larger than {} bytes; ferry serve --body-mib says how "
                                "large one may be",
                                body_bytes_));
    }
    if (error) return refuse(400, "not a request of HTTP/1.1: " + error.message());
  }
}

/// Fills request_ with the head. Not empty: why no handler can be given it.
std::string HttpRequestReader::head() {
  const auto& message = parser_->get();
  request_ = {};
  request_.method = std::string(message.method_string());
  std::string target(message.target());
  size_t hosts = 0;
  for (const auto& field : message) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
    });
    if (name == "host") ++hosts;
    request_.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  // RFC 9112, 3.2 and 3.2.2: HTTP/1.1 names the host once; a target that is a URL names it in its place.
  if (hosts > 1) return "more than one Host";
  if (hosts == 0 && http_1_1()) return "it names no Host";
  if (const size_t scheme = scheme_bytes(target); scheme > 0) {
    const size_t end = std::min(target.find_first_of("/?#", scheme), target.size());
    const std::string authority = target.substr(scheme, end - scheme);
    target = target.substr(end);
    if (!target.starts_with('/')) target.insert(0, "/");
    if (authority.empty() || authority.front() == ':') return "its URL is no host's";
    if (hosts == 0) request_.headers.emplace_back("host", "");
    for (auto& [name, value] : request_.headers)
      if (name == "host") value = authority;
  }
  if (!is_authority(request_.header("host")))
    return printable(request_.header("host")) + " is no host";
  request_.path = target.substr(0, target.find_first_of("?#"));
  return request_.path.empty() ? "its target has no path" : "";  // "?query" alone
}

HttpRequest HttpRequestReader::take() {
  request_.body = std::move(parser_->get().body());
  return std::move(request_);
}

HttpRequestReader::Found HttpRequestReader::refuse(int status, std::string why) {
  refusal_ = {.status = status, .why = std::move(why)};
  return Found::kRefused;
}

}  // namespace ferry::serve
