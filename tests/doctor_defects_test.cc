// Each conditional defect of software Ascend (ascend_sim/nnopbase/conditional.cc) is planted alone
// and found by the one check of the doctor that is there for its kind.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "ops/call_check.h"
#include "verify/checked_specs.h"
#include "verify/checks.h"

namespace ferry::doctor {
namespace {

/// Which check finds a defect: one of the quick list, or a call of a run at its own sizes (--for),
/// where the quick list's sizes do not reach.
struct Finder {
  const char* check = nullptr;
  std::optional<RunCall> call = {};
};

const std::map<std::string, Finder>& finders() {
  static const std::map<std::string, Finder> all = {
      {"mm_tall_lost_tile", {"matmul, F32, sizes of rows"}},
      {"mm_wide_repeats", {"matmul, F32, sizes of columns"}},
      {"mm_deep_coarse", {"matmul, BF16, sizes of depth"}},
      {"bmm_batch_over_16", {"matmul, F32, sizes of batch"}},
      {"gmm_many_experts", {"grouped_linear, F32, sizes of experts"}},
      {"gmm_rows_over_256", {"grouped_linear, F32, sizes of rows"}},
      {"rms_norm_rows_over_64", {"rms_norm, F32, sizes of tokens"}},
      {"rms_norm_hidden_over_2048", {"rms_norm, F32, sizes of hidden"}},
      {"rms_norm_grad_rows_over_512", {"rms_norm, F32, sizes of tokens"}},
      {"rope_rows_over_512", {"rope, F32, sizes of tokens"}},
      {"swiglu_rows_over_256", {"swiglu, F32, sizes of tokens"}},
      {"swiglu_grad_wide", {"swiglu, F32, sizes of inner"}},
      {"permute_slots_over_256", {"moe_permute, F32, sizes of tokens"}},
      {"finalize_tokens_over_128", {"moe_permute, F32, sizes of tokens"}},
      {"finalize_grad_tokens_over_64", {"moe_permute, F32, sizes of tokens"}},
      {"gating_tokens_over_128", {"router, F32, sizes of tokens"}},
      {"cumsum_over_256", {"balance_loss, F32, sizes of tokens"}},
      {"softmax_wide", {"aclnnSoftmax, F32 [3, 4999]"}},
      {"log_softmax_wide", {"cross_entropy, F32, sizes of vocab"}},
      {"embedding_many_ids", {"embedding, F32, sizes of tokens"}},
      {"embedding_grad_many_ids", {"embedding, F32, sizes of tokens"}},
      {"cast_many", {nullptr, RunCall{"elementwise", {2048, 40}, DType::kBF16}}},
      {"add_odd_and_long", {"elementwise, F32, sizes of width"}},
      {"fa_tokens_over_256",
       {nullptr, RunCall{"attention, packed", {260, 1, 1, 32, 16}, DType::kBF16}}},
      {"fa_grad_tokens_over_128", {"attention, packed, BF16, sizes of tokens"}},
      {"fia_prompt_of_14",
       {nullptr, RunCall{"attention, MLA cached", {70, 14, 1, 2, 512, 64}, DType::kBF16}}},
      {"fia_heads_over_32",
       {nullptr, RunCall{"attention, MLA cached", {70, 1, 2, 64, 512, 64}, DType::kBF16}}},
      {"index_select_many", {"rope, F32, sizes of tokens"}},
      {"reduce_sum_long", {"cross_entropy, F32, sizes of tokens"}},
      {"swiglu_saturated_nan", {"swiglu, F32, gates that saturate"}},
      {"add_hides_nan", {"add, F32, zeros, largest, infinities and NaN"}},
      {"fa_hides_nan",
       {"attention, BF16, equal, negative and dominating scores, infinities and NaN"}},
      {"fia_hides_nan", {"attention, BF16, NaN in the pages of a cache"}},
      {"softmax_hides_nan", {"router, F32, equal, extreme and infinite logits, and NaN"}},
      {"cast_clamps", {"add, F32, zeros, largest, infinities and NaN"}},
      {"mm_clamps", {"matmul, F32, sums beyond 65,504, infinities and NaN"}},
      {"rms_norm_tiny", {"rms_norm, F32, rows of zeros, small, large and NaN"}},
      {"softmax_all_negative", {"router, F32, equal, extreme and infinite logits, and NaN"}},
      {"mm_float32_as_hf32_when_deep", {"matmul, F32, sizes of depth"}},
      {"gmm_leans", {"grouped_linear, BF16, sizes of rows"}},
      {"mm_keeps_first_depth", {"matmul, F32, sizes of depth"}},
      {"rms_norm_first_call", {"first calls of a process"}},
      {"swiglu_every_1000th", {"100000 calls of an op"}}};
  return all;
}

struct Quiet final : Listener {};

/// Options with which the check of many calls takes swiglu: it draws the op by the seed.
Options many_calls_of_swiglu() {
  Options o{.device = "ascend"};
  const auto op_of = [](uint64_t seed) {
    const Random random(seed, RandomPurpose::kTest, 0x100000);
    return checked_specs()[random.below(0, checked_specs().size())].op;
  };
  while (op_of(o.seed) != "swiglu") ++o.seed;
  return o;
}

/// Checks by defect, made before anything is planted.
std::map<std::string, std::pair<Options, Check>> checks_of_finders() {
  std::map<std::string, std::pair<Options, Check>> found;
  const Options quick{.device = "ascend", .quick = true}, many = many_calls_of_swiglu();
  std::map<std::string, std::pair<Options, Check>> by_name;
  for (const Check& c : make_checks(quick)) by_name.emplace(c.head.name, std::pair(quick, c));
  for (const Check& c : state_checks(many)) by_name.emplace(c.head.name, std::pair(many, c));
  for (const auto& [defect, finder] : finders()) {
    if (finder.call) {
      Options o = quick;
      o.run = {.name = "a run", .calls = {*finder.call}};
      found.emplace(defect, std::pair(o, run_checks(o).front()));
    } else if (const auto it = by_name.find(finder.check); it != by_name.end()) {
      found.emplace(defect, it->second);
    } else {
      ADD_FAILURE() << defect << ": there is no check " << finder.check;
    }
  }
  return found;
}

/// Problems that a check has in a process of its own, with this planted.
int problems(const Options& options, const Check& check, const std::string& defect) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM, 1);
    ::setenv("FERRY_THREADS", "1", 1);
    if (!defect.empty()) ::setenv("FERRY_ASCEND_SIM_DEFECT", defect.c_str(), 1);
    const Result<Device*> device = open_device("ascend");
    if (!device) ::_exit(100);
    Quiet quiet;
    bool lost = false;
    const Outcome o = run_check(check, **device, options, quiet, &lost);
    ::_exit(static_cast<int>(std::min<size_t>(o.problems.size(), 99)));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Doctor, FindsEachConditionalDefectByTheCheckForIt) {
  static_cast<void>(ops::CallRules::all());  // once, for all children
  for (const auto& [defect, check] : checks_of_finders()) {
    const int found = problems(check.first, check.second, defect);
    EXPECT_TRUE(found > 0 && found < 100) << defect << ": " << check.second.head.name << found;
    if (defect == "swiglu_every_1000th") continue;  // sound, it takes as long as it may
    EXPECT_EQ(problems(check.first, check.second, ""), 0) << check.second.head.name;
  }
}

TEST(Doctor, HasACheckForEachConditionalDefect) {
  void* runtime = nullptr;
  for (const char* name : {"libascendcl.so", "libnnopbase.so", "libopapi.so"}) {
    void* const library =
        ::dlopen((FERRY_ASCEND_SIM "/" + std::string(name)).c_str(), RTLD_NOW | RTLD_GLOBAL);
    ASSERT_NE(library, nullptr) << ::dlerror();
    if (runtime == nullptr) runtime = library;
  }
  using List = const char* (*)(const char*);
  const auto list = reinterpret_cast<List>(::dlsym(runtime, "ferrySoftwareAscendList"));
  ASSERT_NE(list, nullptr);
  std::set<std::string> planted, known;
  std::istringstream lines(list("conditional"));
  for (std::string line; std::getline(lines, line);)
    planted.insert(line.substr(0, line.find('\t')));
  for (const auto& [defect, finder] : finders()) known.insert(defect);
  EXPECT_EQ(planted, known);
}

}  // namespace
}  // namespace ferry::doctor
