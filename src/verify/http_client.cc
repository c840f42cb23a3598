#include "verify/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>

#include "base/check.h"
#include "base/json.h"
#include "base/units.h"

namespace ferry::verify {
namespace {

constexpr long kConnectMs = 10'000;

template <typename F>
struct Calls {
  template <typename T>
  void operator()(T* p) const {
    F::free(p);
  }
};
struct FreeList {
  static void free(curl_slist* p) { curl_slist_free_all(p); }
};
struct FreeEasy {
  static void free(CURL* p) { curl_easy_cleanup(p); }
};
struct FreeMulti {
  static void free(CURLM* p) { curl_multi_cleanup(p); }
};
using Headers = std::unique_ptr<curl_slist, Calls<FreeList>>;
using Easy = std::unique_ptr<CURL, Calls<FreeEasy>>;
using Multi = std::unique_ptr<CURLM, Calls<FreeMulti>>;

/// One request underway.
struct Transfer {
  Easy easy;
  Headers headers;
  std::string body;
  size_t body_bytes_max = 0;
  bool too_large = false;
  CURLcode ended = CURLE_OK;
};

size_t take(char* data, size_t one, size_t count, void* to) {
  auto& transfer = *static_cast<Transfer*>(to);
  if (transfer.body.size() + one * count > transfer.body_bytes_max) {
    transfer.too_large = true;
    return 0;  // ends the transfer
  }
  transfer.body.append(data, one * count);
  return one * count;
}

void add_header(Headers& headers, const std::string& line) {
  curl_slist* const longer = curl_slist_append(headers.get(), line.c_str());
  check(longer != nullptr, "http: out of memory for a header");
  static_cast<void>(headers.release());
  headers.reset(longer);
}

template <typename V>
void set(Transfer& t, CURLoption option, V value) {
  const CURLcode code = curl_easy_setopt(t.easy.get(), option, value);
  check(code == CURLE_OK, "http: libcurl refuses option {}", static_cast<int>(option));
}

/// `request` and `url` must outlive it.
std::unique_ptr<Transfer> prepare(const std::string& url,
                                  const HttpRequest& request,
                                  const HttpLimits& limits) {
  auto t = std::make_unique<Transfer>();
  t->easy.reset(curl_easy_init());
  check(t->easy != nullptr, "http: libcurl does not start");
  t->body_bytes_max = limits.body_bytes;
  set(*t, CURLOPT_URL, url.c_str());
  set(*t, CURLOPT_PROTOCOLS_STR, "http,https");
  set(*t, CURLOPT_FOLLOWLOCATION, 0L);
  set(*t, CURLOPT_NOSIGNAL, 1L);
  set(*t, CURLOPT_TIMEOUT_MS, static_cast<long>(limits.timeout_ms));
  set(*t, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs);
  set(*t, CURLOPT_WRITEFUNCTION, &take);
  set(*t, CURLOPT_WRITEDATA, static_cast<void*>(t.get()));
  add_header(t->headers, "Accept: application/json");
  add_header(t->headers, "Expect:");  // no round trip before the body
  if (!request.key.empty()) add_header(t->headers, "Authorization: Bearer " + request.key);
  if (!request.body.empty()) {
    add_header(t->headers, "Content-Type: application/json");
    set(*t, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    set(*t, CURLOPT_POSTFIELDS, request.body.c_str());
  }
  set(*t, CURLOPT_HTTPHEADER, t->headers.get());
  return t;
}

/// Some servers and proxies repeat the key that they refuse; what they say goes into messages and
/// reports.
void take_out(const std::string& key, std::string& text) {
  if (key.empty()) return;
  constexpr std::string_view kInstead = "(key)";
  // What stands instead is not looked at again: a key may be a piece of it.
  for (size_t at = 0; (at = text.find(key, at)) != text.npos; at += kInstead.size())
    text.replace(at, key.size(), kInstead);
}

Result<HttpReply> reply_of(Transfer& t,
                           const std::string& url,
                           const std::string& key,
                           const HttpLimits& limits) {
  if (t.too_large)
    return fail(Code::kUnavailable,
                "{}: answers with more than {}; that is no answer to what was asked",
                url,
                format_bytes(static_cast<double>(limits.body_bytes)));
  if (t.ended == CURLE_OPERATION_TIMEDOUT)
    return fail(Code::kTimeout,
                "{}: no answer within {}; is it busy? --timeout gives it more",
                url,
                format_duration(static_cast<double>(limits.timeout_ms) / 1000));
  if (t.ended != CURLE_OK)
    return fail(Code::kUnavailable, "{}: {}", url, curl_easy_strerror(t.ended));
  long status = 0;
  curl_easy_getinfo(t.easy.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status >= 300 && status < 400)
    return fail(Code::kUnavailable,
                "{}: redirects (status {}); give the address that it leads to",
                url,
                status);
  if (status != 200) take_out(key, t.body);
  HttpReply reply{.status = static_cast<int>(status), .body = std::move(t.body)};
  curl_off_t retry_after_s = 0;  // 0: it says nothing of that
  curl_easy_getinfo(t.easy.get(), CURLINFO_RETRY_AFTER, &retry_after_s);
  if (retry_after_s > 0) reply.retry_after_s = static_cast<double>(retry_after_s);
  return reply;
}

bool plain(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

struct HttpClient::Handles {
  Multi multi;
};

HttpClient::HttpClient(std::string address, const HttpLimits& limits)
    : address_(std::move(address)), limits_(limits), handles_(std::make_unique<Handles>()) {}
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;
HttpClient::~HttpClient() = default;

Result<HttpClient> HttpClient::open(const std::string& address, const HttpLimits& limits) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  check(started == CURLE_OK, "http: libcurl does not start");
  std::string base = address;
  if ((!base.starts_with("http://") && !base.starts_with("https://")) || !plain(base) ||
      base.find_first_of("?#@") != std::string::npos)
    return fail(Code::kInvalidInput,
                "{}: is no address of a server; give http://HOST:PORT or https://HOST",
                printable(address));
  while (base.ends_with('/')) base.pop_back();
  if (base.ends_with("/v1")) base.resize(base.size() - 3);
  HttpClient client(base, limits);
  client.handles_->multi.reset(curl_multi_init());
  check(client.handles_->multi != nullptr, "http: libcurl does not start");
  return client;
}

Result<HttpReply> HttpClient::ask(const HttpRequest& request) {
  return std::move(ask_together({&request, 1}).front());
}

std::vector<Result<HttpReply>> HttpClient::ask_together(std::span<const HttpRequest> requests) {
  CURLM* const multi = handles_->multi.get();
  std::vector<std::string> urls;
  std::vector<std::unique_ptr<Transfer>> transfers;
  for (const HttpRequest& r : requests) urls.push_back(address_ + r.path);
  for (size_t i = 0; i < requests.size(); ++i) {
    transfers.push_back(prepare(urls[i], requests[i], limits_));
    curl_multi_add_handle(multi, transfers.back()->easy.get());
  }
  CURLMcode code = CURLM_OK;
  for (int running = 1; running > 0 && code == CURLM_OK;) {
    code = curl_multi_perform(multi, &running);
    if (code == CURLM_OK && running > 0) code = curl_multi_poll(multi, nullptr, 0, 1000, nullptr);
  }
  check(code == CURLM_OK, "http: libcurl: {}", curl_multi_strerror(code));
  for (int left = 0; const CURLMsg* const message = curl_multi_info_read(multi, &left);)
    for (const auto& t : transfers)
      if (message->msg == CURLMSG_DONE && t->easy.get() == message->easy_handle)
        t->ended = message->data.result;
  std::vector<Result<HttpReply>> replies;
  for (size_t i = 0; i < transfers.size(); ++i) {
    curl_multi_remove_handle(multi, transfers[i]->easy.get());
    replies.push_back(reply_of(*transfers[i], urls[i], requests[i].key, limits_));
  }
  return replies;
}

}  // namespace ferry::verify
