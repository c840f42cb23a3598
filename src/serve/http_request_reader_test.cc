#include "serve/http_request_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ferry::serve {
namespace {

using Found = HttpRequestReader::Found;

/// What a reader finds in bytes that come in pieces of this size.
struct Reading {
  std::vector<HttpRequest> requests;
  HttpRefusal refusal{.status = 0};
};
Reading read(const std::string& bytes, size_t piece) {
  Reading out;
  HttpRequestReader reader(1024, 64);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    reader.append(std::string_view(bytes).substr(at, piece));
    for (Found found = reader.next(); found != Found::kNothing; found = reader.next()) {
      if (found == Found::kRefused) {
        out.refusal = reader.refusal();
        return out;
      }
      if (found == Found::kHead) continue;
      out.requests.push_back(reader.take());
      reader.begin();
    }
  }
  return out;
}

const std::vector<size_t> kPieces = {1, 2, 3, 7, 1000, 100000};

TEST(HttpRequestReader, FindsRequestsOneBehindTheOther) {
  const std::string bytes =
      "POST /one?q HTTP/1.1\r\nHost: a\r\nX-Key: Value\r\nContent-Length: 5\r\n\r\nhello"
      "GET /two HTTP/1.0\r\n\r\n"
      "POST /three HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
  for (const size_t piece : kPieces) {
    const Reading r = read(bytes, piece);
    ASSERT_EQ(r.requests.size(), 3u) << piece;
    EXPECT_EQ(r.requests[0].method, "POST");
    EXPECT_EQ(r.requests[0].path, "/one");
    EXPECT_EQ(r.requests[0].header("x-key"), "Value");
    EXPECT_EQ(r.requests[0].body, "hello");
    EXPECT_EQ(r.requests[1].path, "/two");
    EXPECT_EQ(r.requests[1].body, "");
    EXPECT_EQ(r.requests[2].body, "abcde");
  }
}

// The fuzzer's find: if a request came at once, its trailer's fields stood among its head's.
TEST(HttpRequestReader, TrailersAreNoneOfTheHead) {
  const std::string bytes =
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
      "chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: Bearer "
      "b\r\n\r\n";
  for (const size_t piece : kPieces) {
    const Reading r = read(bytes, piece);
    ASSERT_EQ(r.requests.size(), 1u) << piece;
    EXPECT_EQ(r.requests[0].headers.size(), 2u) << piece;
    EXPECT_EQ(r.requests[0].body, "a");
  }
}

// Beast asserts that the last chunk's head comes with four bytes behind it: whoever sent fewer ended the
// process (the fuzzer's find).
TEST(HttpRequestReader, TheLastChunkMayComeByteByByte) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string body : {"0\r\n\r\n", "1\r\na\r\n0\r\n\r\n", "0\r\nA: b\r\n\r\n"})
    for (const size_t piece : kPieces)
      EXPECT_EQ(read(head + body + head + body, piece).requests.size(), 2u) << body << piece;
}

// Whoever waits for "100 Continue" sends no body before: the head alone is found.
TEST(HttpRequestReader, AHeadIsFoundBeforeItsBody) {
  for (const std::string length : {"Transfer-Encoding: chunked", "Content-Length: 3"}) {
    HttpRequestReader reader(1024, 64);
    reader.append("POST / HTTP/1.1\r\nHost: a\r\n" + length + "\r\n\r\n");
    EXPECT_EQ(reader.next(), Found::kHead) << length;
    EXPECT_FALSE(reader.complete());
    EXPECT_EQ(reader.next(), Found::kNothing);
  }
}

TEST(HttpRequestReader, RefusesByName) {
  const struct {
    std::string bytes;
    int status;
    std::string why;
  } cases[] = {
      {"GET ?q HTTP/1.1\r\nHost: a\r\n\r\n", 400, "its target has no path"},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
       400,
       "the only Transfer-Encoding"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
       400,
       "the only Transfer-Encoding"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\n",
       400,
       "the only Transfer"},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "the only Transfer-Encoding"},
      {"GET / HTTP/1.1\r\n\r\n", 400, "names no Host"},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "more than one Host"},
      {"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "more than one Host"},
      {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "is no host"},
      {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "is no host"},
      {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, "is no host"},
      {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "is no host"},
      {"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", 400, "is no host"},
      {"GET http://me@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "is no host"},
      {"nonsense\r\n\r\n", 400, "not a request of HTTP/1.1"},
      {"GET / HTTP/1.1\r\nHost: a\r\nA: " + std::string(2000, 'a') + "\r\n\r\n",
       431,
       "the head is too large"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n", 413, "larger than 64 bytes"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n" +
           std::string(65, 'a'),
       413,
       "larger than 64 bytes"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " +
           std::string(2000, 'a') + "\r\n\r\n",
       431,
       "a chunk's head is too large"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
           std::string(2000, 'x'),
       431,
       "a chunk's head is too large"},
  };
  for (const auto& c : cases)
    for (const size_t piece : kPieces) {
      const Reading r = read(c.bytes, piece);
      EXPECT_EQ(r.requests.size(), 0u);
      EXPECT_EQ(r.refusal.status, c.status) << c.bytes.substr(0, 60) << " by " << piece;
      EXPECT_NE(r.refusal.why.find(c.why), std::string::npos) << r.refusal.why;
    }
}

// RFC 9112, 3.2: whose path it is the target says where it is a whole URL, else Host, which HTTP/1.0 may leave out.
TEST(HttpRequestReader, TheTargetMayNameTheHost) {
  const struct {
    std::string bytes, host, path;
  } cases[] = {
      {"GET /a?q HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]:80", "/a"},
      {"GET /http://b/ HTTP/1.1\r\nHost: a-b.c_d\r\n\r\n", "a-b.c_d", "/http://b/"},
      {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "", "/"},
      {"GET / HTTP/1.0\r\n\r\n", "", "/"},
      {"GET http://a:80/b/c?q HTTP/1.1\r\nHost: d\r\n\r\n", "a:80", "/b/c"},
      {"GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/"},
      {"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/"},
      {"GET http://a/b HTTP/1.0\r\n\r\n", "a", "/b"},
      {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "a", "*"},
  };
  for (const auto& c : cases)
    for (const size_t piece : kPieces) {
      const Reading r = read(c.bytes, piece);
      ASSERT_EQ(r.requests.size(), 1u) << c.bytes << r.refusal.why;
      EXPECT_EQ(r.requests[0].header("host"), c.host) << c.bytes;
      EXPECT_EQ(r.requests[0].path, c.path) << c.bytes;
    }
}

// Beast reserves what the head says: where that cannot be had the request is refused, and the server goes on.
TEST(HttpRequestReader, ABodyForWhichThereIsNoMemoryIsRefused) {
  constexpr uint64_t kTooMuch = uint64_t{1} << 61;
  HttpRequestReader reader(1024, kTooMuch);
  reader.append("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(kTooMuch) +
                "\r\n\r\na");
  EXPECT_EQ(reader.next(), Found::kHead);
  ASSERT_EQ(reader.next(), Found::kRefused);
  EXPECT_EQ(reader.refusal().status, 503);
}

}  // namespace
}  // namespace ferry::serve
