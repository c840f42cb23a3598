// Fuzzer of requests of HTTP: the first byte is the size of the pieces in which the rest comes. Whatever
// comes, what is found is well-formed and within the limits, and does not depend on the pieces.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "serve/http_request_reader.h"

namespace {

using namespace ferry;
using namespace ferry::serve;
using Found = HttpRequestReader::Found;

constexpr uint32_t kHeaderBytesMax = 8192;
constexpr uint64_t kBodyBytesMax = 4096;

struct Outcome {
  std::string requests;
  int refused_with = 0;
  bool few_unread = false;  // so few bytes that they are not looked at before others come
};

void check_head(const HttpRequest& r) {
  check(!r.method.empty() && !r.path.empty() && r.path.find_first_of("?#\r\n ") == r.path.npos,
        "fuzz: {} {}",
        r.method,
        r.path);
  for (const auto& [name, value] : r.headers) {
    const bool upper =
        std::any_of(name.begin(), name.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
    check(!name.empty() && !upper && name.find_first_of("\r\n:") == name.npos &&
              value.find_first_of("\r\n") == value.npos,
          "fuzz: header {}: {}",
          name,
          value);
  }
}

std::string text_of(const HttpRequestReader& reader, const HttpRequest& r) {
  std::string text = r.method + " " + r.path + "\n";
  for (const auto& [name, value] : r.headers) text += name + ": " + value + "\n";
  text += reader.keep_alive() ? "goes on " : "ends ";
  text += reader.http_1_1() ? "1.1\n" : "1.0\n";
  return text + std::to_string(r.body.size()) + " " + r.body + "\n";
}

Outcome read(std::string_view bytes, size_t piece) {
  Outcome out;
  HttpRequestReader reader(kHeaderBytesMax, kBodyBytesMax);
  bool head_found = false;
  while (!bytes.empty()) {
    reader.append(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    for (Found found = reader.next(); found != Found::kNothing; found = reader.next()) {
      if (found == Found::kRefused) {
        out.refused_with = reader.refusal().status;
        check(out.refused_with == 400 || out.refused_with == 413 || out.refused_with == 431,
              "fuzz: refused with {}",
              out.refused_with);
        return out;
      }
      check(head_found == (found == Found::kRequest), "fuzz: a head and its request not in turns");
      head_found = found == Found::kHead;
      if (head_found) {
        check_head(reader.request());
        continue;
      }
      const HttpRequest request = reader.take();
      check_head(request);
      check(request.body.size() <= kBodyBytesMax, "fuzz: a body of {} bytes", request.body.size());
      out.requests += text_of(reader, request);
      reader.begin();
    }
    check(
        reader.unread_bytes() <= kHeaderBytesMax, "fuzz: {} bytes are kept", reader.unread_bytes());
  }
  out.few_unread = reader.unread_bytes() < 5;
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  // What is wrong in a head may be told before its end, if much of it is there at once: so it ends.
  const std::string bytes =
      std::string(reinterpret_cast<const char*>(data) + 1, size - 1) + "\r\n\r\n";
  const Outcome whole = read(bytes, bytes.size());
  const Outcome pieces = read(bytes, size_t{1} + data[0]);
  check(pieces.requests == whole.requests,
        "fuzz: in pieces other requests: {} and {}",
        pieces.requests,
        whole.requests);
  // Of a chunk's extension whose quotes are not closed Beast says that it is wrong if its line's end has
  // come, and waits if nothing has come behind it.
  if (bytes.find('"') != bytes.npos) return 0;
  check(pieces.refused_with == whole.refused_with ||
            (pieces.refused_with == 0 && pieces.few_unread && whole.refused_with == 400),
        "fuzz: in pieces refused with {}, else with {}",
        pieces.refused_with,
        whole.refused_with);
  return 0;
}
