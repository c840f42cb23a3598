// ferry serve as a process: it loads a model, answers, ends when it is told to, and says why it
// cannot.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "serve/test_support.h"
#include "trains.h"

namespace {

using namespace ferry::program;
using ferry::serve::TestClient;
using Json = nlohmann::json;

class ServeE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    ran(train("run", {"--train.steps=4", "--schedule.warmup_steps=1"}));
    ran({"convert", path("run") + "/step-00000004", "--out", path("model")});
  }
  static Strings serve(const Strings& more = {}) {
    Strings args = {"serve", path("model"), "--port", "0"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
};

TEST_F(ServeE2e, SaysWhatIsServedOtherwiseThanItIsStored) {
  ASSERT_TRUE(ferry::write_file_atomic(path("template"), "{{ messages[0]['content'] }}"));
  Program program(path("log-otherwise"),
                  serve({"--quantize", "int8", "--chat-template", path("template")}));
  const Json facts = Json::parse(TestClient(port_of(program)).get("/ferry/passport").body);
  EXPECT_EQ(facts["weights"], "int8");
  EXPECT_EQ(facts["chat_template"], "another");
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 0) << program.output();
}

TEST_F(ServeE2e, AnswersUntilItIsToldToEnd) {
  Program program(path("log-serve"), serve({"--running", "4"}));
  const uint16_t port = port_of(program);
  const Json facts = Json::parse(TestClient(port).get("/ferry/passport").body);
  EXPECT_EQ(facts["model"], "model");
  EXPECT_EQ(facts["context"], 128);
  EXPECT_TRUE(facts["passport"].is_null());  // it was converted
  EXPECT_EQ(facts["architecture"], "DeepseekV3ForCausalLM");
  EXPECT_EQ(facts["verified_as"], "cpu");
  EXPECT_EQ(facts["dtype"], "BF16");
  EXPECT_EQ(facts["weights"], "as stored");
  EXPECT_EQ(facts["chat_template"], "as stored");
  const auto answer = TestClient(port).post(
      "/v1/completions", R"({"prompt": "the ferry crosses", "max_tokens": 8, "temperature": 0})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  // What the command line answers.
  const std::string alone = ran({"generate",
                                 path("model"),
                                 "--prompt",
                                 "the ferry crosses",
                                 "--tokens",
                                 "8",
                                 "--temperature",
                                 "0",
                                 "--no-echo",
                                 "--json"});
  EXPECT_EQ(Json::parse(answer.body)["choices"][0]["text"],
            Json::parse(alone.substr(alone.rfind("{\"text\"")))["text"]);
  // It was taught no conversation, and says so.
  const auto chat = TestClient(port).post("/v1/chat/completions",
                                          R"({"messages": [{"role": "user", "content": "Hi"}]})");
  EXPECT_EQ(chat.status, 400);
  EXPECT_NE(chat.body.find("no chat template"), std::string::npos) << chat.body;
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 0) << program.output();
  EXPECT_TRUE(program.said("answered: prompt")) << program.output();
  EXPECT_TRUE(program.said("has no chat template")) << program.output();
  EXPECT_EQ(facts["chat"], false);
  EXPECT_EQ(facts["format"], "directory");
  EXPECT_EQ(facts["weights"], "as stored");
  EXPECT_FALSE(facts["stored"].get<std::string>().empty()) << facts;
  EXPECT_FALSE(program.said("crosses")) << "the log holds text of a request";
}

TEST_F(ServeE2e, WhatWasRefusedLeavesALine) {
  write(path("one-key"), "# of the test\n\nsecret\n");
  Program program(path("log-lines"), serve({"--api-key-file", path("one-key")}));
  const uint16_t port = port_of(program);
  const std::string key = "Authorization: Bearer secret\r\n";
  TestClient(port).post("/v1/completions", R"({"prompt": "the ferry crosses"})");
  TestClient(port).ask("POST",
                       "/v1/completions",
                       R"({"prompt": "the ferry crosses", "logit_bias": {"49153": 5}})",
                       key);
  TestClient(port).ask(
      "POST", "/v1/completions", R"({"prompt": "a", "the ferry crosses": 1})", key);
  TestClient(port).ask("GET", "/nothing?the-ferry-crosses", "", key);
  TestClient(port).send("crosses\r\n\r\n");
  EXPECT_EQ(TestClient(port).ask("GET", "/v1/models", "", key).status, 200);
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 0) << program.output();
  for (const char* line : {"ferry: POST /v1/completions 401 (invalid_api_key) after 0.",
                           "ferry: POST /v1/completions 400 (logit_bias) after 0.",
                           "ferry: POST /v1/completions 400 after 0.",
                           "ferry: GET /nothing 404 after 0.",
                           "ferry: - - 400 after 0."})
    EXPECT_TRUE(program.said(line)) << line << "\n" << program.output();
  EXPECT_FALSE(program.said("crosses")) << program.output();
}

TEST_F(ServeE2e, ATemplateThatCannotBeReadIsSaid) {
  write(path("bad.jinja"), "{{ messages }}\n{% for m in messages %}");
  Program given(path("log-bad"), serve({"--chat-template", path("bad.jinja")}));
  EXPECT_EQ(given.wait(), 2) << given.output();
  EXPECT_TRUE(given.said(path("bad.jinja") + ": line ")) << given.output();
  // One that goes wrong when it is used is called by its name, too.
  write(path("wrong.jinja"), "{{ raise_exception('not so') }}");
  Program wrong(path("log-wrong"), serve({"--chat-template", path("wrong.jinja")}));
  const uint16_t port = port_of(wrong);
  EXPECT_EQ(Json::parse(TestClient(port).get("/ferry/passport").body)["chat"], true);
  const auto chat = TestClient(port).post("/v1/chat/completions",
                                          R"({"messages": [{"role": "user", "content": "Hi"}]})");
  EXPECT_NE(chat.body.find("wrong.jinja: line 1"), std::string::npos) << chat.body;
  EXPECT_EQ(chat.body.find("this model"), std::string::npos) << chat.body;
  // The model's own: served, and said.
  fs::copy(path("model"), path("own"), fs::copy_options::recursive);
  fs::remove(path("own") + "/checksums.json");  // which knows of no template
  write(path("own") + "/chat_template.jinja", "{% if %}");
  Program own(path("log-own"), {"serve", path("own"), "--port", "0"});
  EXPECT_EQ(Json::parse(TestClient(port_of(own, "own")).get("/ferry/passport").body)["chat"],
            false);
  EXPECT_TRUE(own.said("ferry: note: " + path("own") + "/chat_template.jinja: line 1"))
      << own.output();
  for (Program* program : {&wrong, &own}) {
    program->signal(SIGTERM);
    EXPECT_EQ(program->wait(), 0) << program->output();
  }
}

TEST_F(ServeE2e, SaysWhyItCannot) {
  Program nothing(path("log-nothing"), {"serve", path("nothing"), "--port", "0"});
  EXPECT_EQ(nothing.wait(), 2) << nothing.output();
  Program first(path("log-first"), serve());
  const std::string taken = std::to_string(port_of(first));
  Program second(path("log-second"), {"serve", path("model"), "--port", taken});
  EXPECT_EQ(second.wait(), 3) << second.output();
  EXPECT_TRUE(second.said("choose another --port"));
  // An address that no machine has (RFC 5737).
  Program elsewhere(path("log-elsewhere"), serve({"--host", "192.0.2.1"}));
  EXPECT_EQ(elsewhere.wait(), 3) << elsewhere.output();
  EXPECT_TRUE(elsewhere.said("choose another --host")) << elsewhere.output();
  Program nameless(path("log-nameless"), serve({"--name", ""}));
  EXPECT_EQ(nameless.wait(), 2) << nameless.output();
  write(path("keys"), "# none\n");
  Program keyless(path("log-keys"), serve({"--api-key-file", path("keys")}));
  EXPECT_EQ(keyless.wait(), 2) << keyless.output();
  for (const char* origin : {"foo.com",
                             "https://",
                             "https://a.example/",
                             "https://A.example",
                             "https://a.example:443"}) {
    Program foreign(path("log-cors"), serve({"--cors", origin}));
    EXPECT_EQ(foreign.wait(), 2) << origin << foreign.output();
    EXPECT_TRUE(foreign.said("an origin is https://HOST[:PORT]")) << foreign.output();
  }
  first.signal(SIGINT);
  EXPECT_EQ(first.wait(), 0);
}

TEST_F(ServeE2e, EachSignalThatIsHeededEndsItInOrder) {
  for (const int number : {SIGHUP, SIGQUIT, SIGUSR1}) {
    Program server(path("log-signal"), serve());
    port_of(server);
    server.signal(number);
    EXPECT_EQ(server.wait(), 0) << number << server.output();
    EXPECT_TRUE(server.said("ferry: ending")) << number << server.output();
  }
  // What was ignored when it was started stays ignored, as under nohup.
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGINT, &ignore, &before);
  Program kept(path("log-kept"), serve());
  ::sigaction(SIGINT, &before, nullptr);
  port_of(kept);
  kept.signal(SIGINT);
  sleep_ms(300);
  EXPECT_FALSE(kept.ended()) << kept.output();
  kept.signal(SIGTERM);
  EXPECT_EQ(kept.wait(), 0) << kept.output();
}

}  // namespace
