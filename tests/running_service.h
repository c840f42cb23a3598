// A service on a thread of the test's, with a small model, as a process would run it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "checkpoint/chat_test_support.h"
#include "checkpoint/model_chat.h"
#include "device/cpu/cpu_device.h"
#include "serve/service.h"
#include "serve/test_support.h"
#include "small_model.h"

namespace ferry::serve {

inline std::shared_ptr<LoadedModel> small_loaded_model() {
  auto m = std::make_shared<LoadedModel>();
  m->directory = "small";
  m->texts = chat_texts(kChatml);
  auto config = small_config();
  config.vocab_size = m->texts.tokenizer->vocab_size();
  config.max_position_embeddings = 4096;
  m->model = random_model(config, DType::kF32, cpu_device());
  m->syntax = answer_syntax(m->texts);
  m->vocabulary = grammar::Vocabulary::of(*m->texts.tokenizer, m->syntax.marks);
  m->engine = {.cache_tokens = 4096, .running = 8, .waiting = 16};
  m->facts = R"({"model": "small"})";
  return m;
}

class Running {
 public:
  explicit Running(ServiceOptions options = {},
                   std::shared_ptr<LoadedModel> of = small_loaded_model())
      : model(std::move(of)) {
    options.port = 0;
    if (options.names.empty()) options.names = {"small", "other"};
    options.log_requests = false;
    auto started = Service::start(
        std::move(options), [m = model] { return Result<std::shared_ptr<const LoadedModel>>(m); });
    EXPECT_TRUE(started) << started.error().message;
    service_ = *std::move(started);
    thread_ = std::thread([this] { outcome_ = service_->run(); });
    while (TestClient(port()).get("/health").status != 200)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ~Running() { end(); }

  uint16_t port() const { return service_->port(); }
  void stop() { service_->stop(); }
  void end() {
    if (!thread_.joinable()) return;
    stop();
    thread_.join();
    EXPECT_TRUE(outcome_) << outcome_.error().message;
  }
  /// After its end.
  void close() { service_.reset(); }
  bool ended_by_itself() {
    thread_.join();
    return outcome_.has_value();
  }

  TestResponse post(const std::string& path, const std::string& body) const {
    return TestClient(port()).post(path, body);
  }
  TestResponse get(const std::string& path) const { return TestClient(port()).get(path); }
  double metric(const std::string& name) const {
    const std::string text = get("/metrics").body;
    const size_t at = text.find("\n" + name);
    if (at == std::string::npos) return -1;
    return std::strtod(text.c_str() + text.find("} ", at) + 2, nullptr);
  }
  template <typename Condition>
  static bool eventually(const Condition& condition) {
    for (int i = 0; i < 30000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  std::shared_ptr<LoadedModel> model;

 private:
  std::unique_ptr<Service> service_;
  std::thread thread_;
  Result<void> outcome_;
};

}  // namespace ferry::serve
