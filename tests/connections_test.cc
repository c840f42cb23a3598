// Connections that end anywhere and bring their bytes in any pieces: nothing of them stays, and nobody else notices.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/fault.h"
#include "base/random.h"
#include "running_service.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;

enum class Leaving { kCloses, kResets, kSaysNoMore };

void leave(TestClient& client, Leaving how) {
  if (how == Leaving::kResets) return client.reset();
  if (how == Leaving::kCloses) return client.leave();
  client.close_sending();
}

std::string asked(const Json& more = Json::object()) {
  Json body = {{"prompt", "the sea"}, {"max_tokens", 3000}, {"ignore_eos", true}};
  body.update(more);
  return TestClient::request("POST", "/v1/completions", body.dump());
}

bool nothing_is_held(const Running& server) {
  return server.metric("vllm:num_requests_running") == 0 &&
         server.metric("vllm:num_requests_waiting") == 0 &&
         server.metric("vllm:kv_cache_usage_perc") == 0 &&
         server.metric("ferry:connections") == 1;  // that which asks
}

/// In every state of a connection, in every way.
TEST(Connections, WhoLeavesIsForgotten) {
  auto model = small_loaded_model();
  model->engine.running = 2;
  Running server({}, model);
  arm_faults("serve.step:*:delay2");
  const std::string whole = asked(), stream = asked({{"stream", true}});
  const std::string chunked =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
      "chunked\r\n\r\n8\r\n{\"prompt\r\n";
  const auto running = [&](double count) {
    return Running::eventually([&] { return server.metric("vllm:num_requests_running") == count; });
  };
  struct State {
    const char* name;
    std::string sent;
    int chunks = -1;     // of a stream that were read; -1: not even its head
    bool runs = false;   // the engine has begun with it
    bool waits = false;  // for two others that are being answered
  };
  const std::vector<State> states = {
      {"nothing was sent", ""},
      {"in the head", whole.substr(0, 30)},
      {"behind the head", whole.substr(0, whole.find("\r\n\r\n") + 4)},
      {"in the body", whole.substr(0, whole.size() - 5)},
      {"in a chunk", chunked},
      {"between chunks", chunked + "7\r\n\": \"a\"}\r\n"},
      {"asked", whole},
      {"waiting", whole, -1, false, true},
      {"a stream that waits", stream, -1, false, true},
      {"reading the prompt", asked({{"prompt", std::string(3000, 's')}}), -1, true},
      {"answering", whole, -1, true},
      {"answering with others ahead", whole + whole + stream, -1, true},
      {"several answers", asked({{"n", 5}, {"stream", true}}), 3},
      {"a stream that began", stream, 0},
      {"in a stream", stream, 3},
      {"in a stream of chats",
       TestClient::request("POST",
                           "/v1/chat/completions",
                           R"({"messages": [{"role": "user", "content": "a"}], "stream": true,
                               "max_tokens": 3000, "ignore_eos": true})"),
       3},
      {"in half a request behind a stream", stream + whole.substr(0, 40), 2},
      {"behind an answer", asked({{"max_tokens", 1}, {"stream", true}}), 1}};
  for (const Leaving how : {Leaving::kCloses, Leaving::kResets, Leaving::kSaysNoMore})
    for (const State& state : states) {
      SCOPED_TRACE(fmt::format("{}, leaving {}", state.name, static_cast<int>(how)));
      std::vector<std::unique_ptr<TestClient>> others;
      for (int i = 0; i < (state.waits ? 2 : 0); ++i) {
        others.push_back(std::make_unique<TestClient>(server.port()));
        ASSERT_TRUE(others.back()->send(stream));
      }
      if (state.waits) {
        ASSERT_TRUE(running(2));
      }
      TestClient client(server.port());
      ASSERT_TRUE(client.send(state.sent));
      if (state.chunks >= 0) {
        ASSERT_TRUE(client.head().starts_with("HTTP/1.1 200 "));
      }
      for (int i = 0; i < state.chunks; ++i) ASSERT_FALSE(client.chunk().empty());
      if (state.runs) {
        ASSERT_TRUE(running(1));
      }
      leave(client, how);
      if (state.waits) {
        EXPECT_TRUE(
            Running::eventually([&] { return server.metric("vllm:num_requests_waiting") == 0; }));
      }
      others.clear();
      EXPECT_TRUE(Running::eventually([&] { return nothing_is_held(server); }));
    }
  arm_faults("");
}

/// The pass during which a client leaves is the last that is made for him.
TEST(Connections, NoPassIsMadeForWhoLeft) {
  Running server;
  for (Json request : {Json{{"stream", true}},
                       Json{{"stream", false}},
                       Json{{"n", 4}},
                       Json{{"prompt", std::string(3000, 's')}, {"max_tokens", 1}}})
    for (const Leaving how : {Leaving::kCloses, Leaving::kResets}) {
      request["cache_salt"] = std::to_string(static_cast<int>(how));  // its prompt is read anew
      arm_faults("serve.step:2:delay400");
      TestClient client(server.port());
      ASSERT_TRUE(client.send(asked(request)));
      ASSERT_TRUE(Running::eventually([] { return fault_point_count("serve.step") == 2; }));
      leave(client, how);
      EXPECT_TRUE(Running::eventually([&] { return nothing_is_held(server); }));
      EXPECT_EQ(fault_point_count("serve.step"), 2) << request;
    }
  arm_faults("");
}

/// Nor is any for who left while his request was read; those of others who left by then are not read any more.
TEST(Connections, NothingIsAskedForWhoLeftBefore) {
  Running server;
  for (const Leaving how : {Leaving::kCloses, Leaving::kResets, Leaving::kSaysNoMore})
    for (const Json& request : {Json{{"stream", true}}, Json{{"n", 4}}}) {
      SCOPED_TRACE(fmt::format("{}, leaving {}", request.dump(), static_cast<int>(how)));
      arm_faults("serve.read:1:delay2500,serve.step:1:delay1");
      std::vector<std::unique_ptr<TestClient>> clients;
      for (int i = 0; i < 3; ++i) {
        clients.push_back(std::make_unique<TestClient>(server.port()));
        ASSERT_TRUE(clients.back()->send(asked(request)));
      }
      ASSERT_TRUE(Running::eventually([] { return fault_point_count("serve.read") == 1; }));
      for (const auto& client : clients) leave(*client, how);
      // Who comes after them is answered once theirs were done with.
      EXPECT_EQ(server.post("/tokenize", R"({"prompt": "a"})").status, 200);
      EXPECT_EQ(fault_point_count("serve.read"), 2);
      EXPECT_TRUE(Running::eventually([&] { return nothing_is_held(server); }));
      EXPECT_EQ(fault_point_count("serve.step"), 0);
    }
  arm_faults("");
}

/// What a client may send, and what those who stay are answered.
struct Exchange {
  std::string sent;
  std::vector<std::string> said;
};

/// Of a response all that does not change from one time to the next.
std::string said(const TestResponse& r) {
  std::string text = fmt::format("{} ", r.status);
  if (r.head.find("text/event-stream") == std::string::npos) {
    const Json j = Json::parse(r.body, nullptr, false);
    if (!j.is_object()) return text + r.body;
    return text + (j.contains("choices") ? j["choices"] : j).dump();
  }
  std::string_view rest = r.body;
  while (rest.starts_with("data: ")) {
    const size_t end = rest.find("\n\n");
    const Json e = Json::parse(rest.substr(6, end - 6), nullptr, false);
    text += e.is_object() ? e["choices"].dump() : std::string(rest.substr(6, end - 6));
    rest.remove_prefix(end + 2);
  }
  return text + std::string(rest);
}

std::vector<Exchange> exchanges(const Running& server) {
  const std::string body = R"({"prompt": "a stone", "max_tokens": 6, "temperature": 0, "n": 2})";
  const std::vector<std::vector<std::string>> all = {
      {TestClient::request("GET", "/health")},
      {TestClient::request("POST", "/v1/completions", body)},
      {TestClient::request(
          "POST",
          "/v1/completions",
          R"({"prompt": "the sea", "max_tokens": 20, "temperature": 0, "stream": true})")},
      {TestClient::request(
          "POST",
          "/v1/chat/completions",
          R"({"messages": [{"role": "user", "content": "b"}], "max_tokens": 9, "seed": 3,
                               "stream": true})")},
      {TestClient::request("POST", "/tokenize", R"({"prompt": "the sea and a stone"})")},
      {TestClient::request("POST", "/v1/completions", R"({"prompt": 7})"),
       TestClient::request("GET", "/nowhere")},
      {TestClient::request("POST", "/v1/completions", body),
       fmt::format(
           "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
           "3\r\n{}\r\n{:x};x=\"y\"\r\n{}\r\n0\r\nX: y\r\n\r\n",
           body.substr(0, 3),
           body.size() - 3,
           body.substr(3)),
       TestClient::request("GET", "/version")}};
  std::vector<Exchange> out;
  for (const std::vector<std::string>& requests : all) {
    Exchange e;
    for (const std::string& request : requests) {
      TestClient client(server.port());
      EXPECT_TRUE(client.send(request));
      e.sent += request;
      e.said.push_back(said(client.response()));
    }
    out.push_back(std::move(e));
  }
  return out;
}

/// A crowd that sends its requests in pieces, side by side, and partly leaves anywhere or says nonsense. Who stays is
/// answered as if he were alone. FERRY_CONNECTIONS: how many come, for a longer look.
TEST(Connections, AnyPiecesAndAnyEndHarmNobody) {
  const char* const wanted = std::getenv("FERRY_CONNECTIONS");
  const int count = wanted != nullptr ? static_cast<int>(std::strtol(wanted, nullptr, 10)) : 400;
  constexpr size_t kAtOnce = 12;
  Running server;
  const std::vector<Exchange> known = exchanges(server);
  const Random random(1, RandomPurpose::kTest, 0);
  auto draw = [&, n = uint64_t{0}](uint64_t below) mutable { return random.below(n++, below); };
  struct Client {
    explicit Client(uint16_t port) : connection(port) {}
    TestClient connection;
    const Exchange* exchange = nullptr;
    std::string unsent;
    bool stays = false;
  };
  std::vector<std::unique_ptr<Client>> clients;
  int answered = 0, left = 0;
  const auto step = [&](size_t which) {
    Client& c = *clients[which];
    const size_t piece = std::min<size_t>(c.unsent.size(), draw(3) == 0 ? 1 : 1 + draw(200));
    c.connection.send(c.unsent.substr(0, piece));  // refused bytes are not taken
    c.unsent.erase(0, piece);
    if (!c.stays && draw(3) == 0) c.connection.rest(0);
    if (!c.unsent.empty() || (!c.stays && draw(8) != 0)) return false;
    if (c.stays) {
      for (const std::string& expected : c.exchange->said)
        EXPECT_EQ(said(c.connection.response()), expected);
      ++answered;
    } else {
      leave(c.connection, static_cast<Leaving>(draw(3)));
      ++left;
    }
    return true;
  };
  for (int begun = 0; begun < count || !clients.empty();) {
    if (begun < count && clients.size() < kAtOnce) {
      ++begun;
      auto c = std::make_unique<Client>(server.port());
      c->exchange = &known[draw(known.size())];
      c->unsent = c->exchange->sent;
      c->stays = draw(3) == 0;
      if (!c->stays) c->unsent.resize(draw(c->unsent.size() + 1));
      if (!c->stays && draw(4) == 0)
        for (uint64_t n = 1 + draw(3); n > 0 && !c->unsent.empty(); --n)
          c->unsent[draw(c->unsent.size())] = static_cast<char>(draw(256));
      clients.push_back(std::move(c));
      continue;
    }
    const size_t which = draw(clients.size());
    if (step(which)) clients.erase(clients.begin() + static_cast<ptrdiff_t>(which));
  }
  EXPECT_GT(answered, count / 5);
  EXPECT_GT(left, count / 5);
  EXPECT_TRUE(Running::eventually([&] { return nothing_is_held(server); }));
  EXPECT_EQ(server.get("/health").status, 200);
}

}  // namespace
}  // namespace ferry::serve
