#include "serve/http_request_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <new>
#include <string>
#include <utility>

namespace ferry::serve {

namespace http = boost::beast::http;
using Error = boost::system::error_code;

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
      // RFC 9112, 6.3: where a body ends would be said in two ways, or in one that is not understood here; whoever
      // stands in front may believe the other.
      const auto& fields = parser_->get();
      if (fields.count(http::field::transfer_encoding) > 0 &&
          (!http_1_1() || !parser_->chunked() || fields.count(http::field::content_length) > 0 ||
           !boost::beast::iequals(fields[http::field::transfer_encoding], "chunked")))
        return refuse(400,
                      "the only Transfer-Encoding is chunked, in HTTP/1.1, without Content-Length");
      return head() ? Found::kHead
                    : refuse(400, "not a request of HTTP/1.1: its target has no path");
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
    if (error == http::error::header_limit) return refuse(431, "the head is too large");
    if (error == http::error::body_limit)
      return refuse(413, fmt::format("the body is larger than {} bytes", body_bytes_));
    if (error) return refuse(400, "not a request of HTTP/1.1: " + error.message());
  }
}

/// Fills request_ with the head. False: no handler could be given it.
bool HttpRequestReader::head() {
  const auto& message = parser_->get();
  request_ = {};
  request_.method = std::string(message.method_string());
  const std::string target(message.target());
  request_.path = target.substr(0, target.find_first_of("?#"));
  for (const auto& field : message) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
    });
    request_.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  return !request_.path.empty();  // "?query" alone
}

HttpRequest HttpRequestReader::take() {
  request_.body = std::move(parser_->get().body());
  return std::move(request_);
}

HttpRequestReader::Found HttpRequestReader::refuse(int status, std::string_view why) {
  refusal_ = plain_response(status, why);
  return Found::kRefused;
}

HttpResponse plain_response(int status, std::string_view text) {
  return {.status = status,
          .content_type = "text/plain; charset=utf-8",
          .body = std::string(text) + "\n"};
}

}  // namespace ferry::serve
