// The built program as a child process of a test: its outputs in a file, its end waited for; and
// text for it to learn.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"

namespace ferry::program {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;
using Environment = std::map<std::string, std::string>;

/// The smallest model with everything in it: MLA, experts, MTP. The [model] of a settings file.
inline constexpr const char* kTinyModel = R"([model]
hidden_size = 32
num_hidden_layers = 2
num_nextn_predict_layers = 1
num_attention_heads = 2
q_lora_rank = 0
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
intermediate_size = 64
moe_intermediate_size = 32
first_k_dense_replace = 1
moe_layer_freq = 1
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
n_group = 1
topk_group = 1
topk_method = "noaux_tc"
scoring_func = "sigmoid"
norm_topk_prob = true
routed_scaling_factor = 1.0
rms_norm_eps = 1e-6
rope_theta = 10000.0
max_position_embeddings = 128
initializer_range = 0.02
tie_word_embeddings = false
)";

inline constexpr int kWaitMs = 300000;  // longer than anything here takes on a busy machine

inline std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

inline void write(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  ASSERT_TRUE(out.flush()) << path;
}

inline void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

template <typename Condition>
bool wait_for(const Condition& condition) {
  for (int ms = 0; ms < kWaitMs; ms += 2) {
    if (condition()) return true;
    sleep_ms(2);
  }
  return false;
}

/// It has sent itself SIGSTOP, as a fault tells it to.
inline bool stands_still(pid_t process) {
  return read("/proc/" + std::to_string(process) + "/stat").find(") T ") != std::string::npos;
}

/// 0 to 255: it left with this status; above: 256 + the signal that ended it.
inline int status_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? 256 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}
inline constexpr int kKilled = 256 + SIGKILL;

/// One run of the program; both its outputs go to a file. Owner: a test; a child that is still
/// alive dies with it.
class Program {
 public:
  Program(const fs::path& log, const Strings& args, const Environment& environment = {})
      : log_(log) {
    Strings words = {FERRY_PROGRAM};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    // A worker that runs without a supervisor still wants the pipe of one.
    if (::pipe2(heartbeats_, O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
      ::dup2(out, 1);
      ::dup2(out, 2);
      if (heartbeats_[1] == 3)
        ::fcntl(3, F_SETFD, 0);
      else
        ::dup2(heartbeats_[1], 3);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(out);
    if (pid_ < 0) std::abort();
  }
  ~Program() {
    if (!status_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(heartbeats_[0]);
    ::close(heartbeats_[1]);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  std::string output() const { return fs::is_regular_file(log_) ? read(log_) : ""; }
  bool said(const std::string& text) const { return output().find(text) != std::string::npos; }
  bool ended() {
    int s = 0;
    if (!status_ && ::waitpid(pid_, &s, WNOHANG) == pid_) status_ = status_of(s);
    return status_.has_value();
  }
  int wait() {
    if (!wait_for([&] { return ended(); })) ADD_FAILURE() << "does not end: " << output();
    return status_.value_or(-1);
  }

 private:
  fs::path log_;
  pid_t pid_ = -1;
  int heartbeats_[2] = {-1, -1};
  std::optional<int> status_;
};

/// Sentences of a small vocabulary, a document a line.
inline std::string generated_text(uint64_t seed) {
  const char* const words[] = {"the",   "ferry",  "crosses",   "a",           "river", "at",
                               "night", "and",    "carries",   "stones",      "light", "from",
                               "one",   "shore",  "to",        "other",       "slow",  "water",
                               "under", "bridge", "Überfahrt", "\xe6\xb8\xa1"};
  std::string text;
  for (uint64_t line = 0; line < 1500; ++line) {
    const Random random(seed, RandomPurpose::kTest, line);
    const uint64_t length = 20 + random.below(0, 30);
    for (uint64_t w = 1; w <= length; ++w)
      text += std::string(w == 1 ? "" : " ") + words[random.below(w, std::size(words))];
    text += ".\n";
  }
  return text;
}

}  // namespace ferry::program
