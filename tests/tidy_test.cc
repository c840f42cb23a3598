// The style rules that are really about bugs, checked on the whole tree; and each rule on a breach
// of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "source_rules.h"

namespace ferry::rules {
namespace {

const std::vector<SourceFile>& tree() {
  static const std::vector<SourceFile> files = read_sources(FERRY_SOURCE_DIR);
  return files;
}

std::string read_text(const std::string& path) {
  std::ifstream in(std::string(FERRY_SOURCE_DIR) + "/" + path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(Tidy, CallsStayInTheirPlaces) { EXPECT_EQ(describe(check_banned(tree())), ""); }
TEST(Tidy, FilesHaveTheirForm) { EXPECT_EQ(describe(check_form(tree())), ""); }

/// Lines of packages.txt: need, package, header (or "-"), what for.
struct Package {
  std::string need, name, header, what_for;
};

std::vector<Package> packages() {
  std::vector<Package> out;
  std::istringstream lines(read_text("packages.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    Package p;
    std::istringstream words(line);
    words >> p.need >> p.name >> p.header >> std::ws;
    std::getline(words, p.what_for);
    out.push_back(p);
  }
  return out;
}

TEST(Tidy, EveryPackageIsUsedAndExplained) {
  const std::string readme = read_text("README.md");
  ASSERT_GT(packages().size(), 10u);
  for (const Package& p : packages()) {
    EXPECT_FALSE(p.what_for.empty()) << p.name << " has no reason in packages.txt";
    EXPECT_NE(readme.find("`" + p.name + "`"), std::string::npos)
        << "README.md does not list " << p.name;
    if (p.header == "-") continue;
    EXPECT_TRUE(std::any_of(tree().begin(),
                            tree().end(),
                            [&](const SourceFile& f) {
                              return f.text.find("#include <" + p.header + ">") !=
                                     std::string::npos;
                            }))
        << "nothing includes <" << p.header << ">: take " << p.name << " off packages.txt";
  }
}

/// Workers flush denormals from their start and kernels wherever they are launched; what the program
/// computes between them does because its first statement says so.
TEST(Tidy, TheProgramFlushesDenormalsFromItsFirstLine) {
  EXPECT_NE(read_text("src/cli/main.cc")
                .find("int main(int argc, char** argv) {\n"
                      "  using namespace ferry;\n"
                      "  const FlushDenormals flush;\n"),
            std::string::npos);
}

bool built_by_folder(const std::string& path) {
  return path.rfind("src/", 0) == 0 || path.rfind("ascend_sim/", 0) == 0 ||
         path.rfind("nvidia_sim/", 0) == 0;
}

/// CMake takes src/*.cc and those of simulators by glob. What it would miss: a test or bench source
/// that no list names, a header that nothing includes, an extension that is not built.
TEST(Tidy, NothingLiesAboutUnused) {
  const std::string lists = read_text("tests/CMakeLists.txt") +
                            read_text("tests/fuzz/CMakeLists.txt") +
                            read_text("bench/CMakeLists.txt") + read_text("cmake/checks.cmake");
  for (const SourceFile& file : tree()) {
    const std::string name = file.path.substr(file.path.rfind('/') + 1);
    const std::string stem = name.substr(0, name.rfind('.'));
    if (file.path.ends_with(".h")) {
      const bool by_folder = built_by_folder(file.path);
      const std::string from_src = by_folder ? file.path.substr(file.path.find('/') + 1) : name;
      EXPECT_TRUE(std::any_of(tree().begin(),
                              tree().end(),
                              [&](const SourceFile& f) {
                                return f.text.find("#include \"" + from_src + "\"") !=
                                       std::string::npos;
                              }))
          << file.path << ": nothing includes it";
    } else if (!built_by_folder(file.path)) {
      const bool fuzzer = file.path.ends_with("_fuzz.cc");
      EXPECT_TRUE(lists.find(fuzzer ? stem.substr(0, stem.size() - 5) : stem) != std::string::npos)
          << file.path << ": no CMakeLists.txt builds it";
    }
  }
}

size_t breaches(const std::string& path, const std::string& text) {
  return check_banned({{path, text}}).size();
}

TEST(TidyRules, BannedCallsAreFound) {
  EXPECT_EQ(breaches("src/train/a.cc", "auto t = std::chrono::steady_clock::now();"), 1u);
  EXPECT_EQ(breaches("src/base/clock.cc", "auto t = std::chrono::steady_clock::now();"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "srand(7);"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "return j.dump(1);"), 1u);
  EXPECT_EQ(breaches("src/base/json.cc", "return j.dump(1);"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "if (!is_there(path)) return {};"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "TRY_ASSIGN(const bool there, is_there(path));"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "x = rand ();"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "x = operand();"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "std::time(nullptr)"), 1u);
  EXPECT_EQ(breaches("src/ops/a.cc", "std::getenv(\"X\")"), 1u);
  EXPECT_EQ(breaches("src/device/a.cc", "std::getenv(\"X\")"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "std::thread t;"), 1u);
  EXPECT_EQ(breaches("src/base/file.cc", "std::thread t;"), 1u);
  EXPECT_EQ(breaches("src/base/threads.cc", "std::thread t;"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "std::this_thread::yield();"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "auto* p = new Tape;"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "auto* p = new (place) Tape;"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "return std::unique_ptr<Tape>(new Tape(1));"),
            0u);  // a private constructor
  EXPECT_EQ(breaches("src/train/a.cc", "delete p;"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "Tape(const Tape&) = delete;"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "void* p = malloc(4);"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "catch (...) {}"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "assert(x);"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "static_assert(x);"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", std::string("// TO") + "DO: later"), 1u);
}

TEST(TidyRules, NothingInTheSourcesMayCallLibm) {
  for (const char* call : {"std::exp(x)",
                           "std::log (x)",
                           "std::pow(x, 2)",
                           "std::cos(x)",
                           "std::tanhf(x)",
                           "std::exp2(x)",
                           "std::log1p(x)",
                           "std::atan2(x, y)",
                           "std::lgamma(x)",
                           "y + ::exp(x)",
                           "expf(x)",
                           "sinf(x)",
                           "__builtin_exp(x)"}) {
    EXPECT_EQ(breaches("src/train/a.cc", call), 1u) << call;
    EXPECT_EQ(breaches("src/ops/a/a_cpu.cc", call), 1u) << call;
    EXPECT_EQ(breaches("src/ops/a/a_reference.cc", call), 1u) << call;
    EXPECT_EQ(breaches("src/base/math.cc", call), 1u) << call;
    EXPECT_EQ(breaches("src/base/math_test.cc", call), 0u) << call;
    EXPECT_EQ(breaches("ascend_sim/opapi/a.cc", call), 0u) << call;
  }
  for (const char* call : {"std::sqrt(x)",
                           "std::fma(x, y, z)",
                           "math::exp(x)",
                           "w = exp(lanes)",
                           "std::ldexp(x, 2)",
                           "std::floor(x)",
                           "MetricsLog log(x)",
                           "aclnn::Exp(x)",
                           "supervisor.log(x)"})
    EXPECT_EQ(breaches("src/train/a.cc", call), 0u) << call;
}

TEST(TidyRules, KernelsMayNotUseContainers) {
  EXPECT_EQ(breaches("src/ops/a/a_cpu.cc", "std::vector<float> v;"), 1u);
}

TEST(TidyRules, ArgumentsOfKernelsHoldNoPointers) {
  const auto in_struct = [](const std::string& member) {
    return breaches("src/ops/a/a_kernels.h", "struct Args {\n  " + member + "\n};");
  };
  EXPECT_EQ(in_struct("const int32_t* host_position;"), 1u);
  EXPECT_EQ(in_struct("float *p = nullptr;"), 1u);
  EXPECT_EQ(in_struct("View a, b;  // a * b;"), 0u);
  EXPECT_EQ(in_struct("bool (*helps)(int64_t rows, DType compute) = nullptr;"), 0u);
  EXPECT_EQ(breaches("src/ops/a/a.cc", "struct Sum {\n  float* p;\n};"), 0u);
}

TEST(TidyRules, CommentsAndTextsAreNotCode) {
  EXPECT_EQ(breaches("src/train/a.cc", "// the new Tape owns it; delete p\nint x;"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "/* malloc(4)\n new Tape */ int x;"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "say(\"new Tape \\\" rand()\");"), 0u);
  EXPECT_EQ(breaches("src/train/a.cc", "say(R\"(\" rand() \\)\"); srand(1);"), 1u);
  EXPECT_EQ(breaches("src/train/a.cc", "x = 1'000; c = '\"'; y = rand();"), 1u);
  EXPECT_EQ(code_only("a // b\nc"), "a     \nc");
}

TEST(TidyRules, FormIsChecked) {
  const std::string good = "// What it is.\n#pragma once\n";
  EXPECT_EQ(check_form({{"src/base/a.h", good}}).size(), 0u);
  EXPECT_EQ(check_form({{"src/base/a.h", "#pragma once\n"}}).size(), 1u);
  EXPECT_EQ(check_form({{"src/base/a.h", "// What it is.\n"}}).size(), 1u);
  EXPECT_EQ(check_form({{"src/base/a.cc", "int x;\n"}}).size(), 1u);
  EXPECT_EQ(check_form({{"src/base/a.cc", "int x;\n"}, {"src/base/a.h", good}}).size(), 0u);
  EXPECT_EQ(check_form({{"src/base/a_test.cc", "int x;\n"}, {"src/base/a.h", good}}).size(), 0u);
  EXPECT_EQ(check_form({{"src/base/a.h", good + "int x;"}}).size(), 1u);
  EXPECT_EQ(check_form({{"src/base/a.h", good + "\tint x;\n"}}).size(), 1u);
  EXPECT_EQ(check_form({{"src/base/a.h", good + "int x; \n"}}).size(), 1u);
  EXPECT_EQ(check_form({{"src/base/a.h", good + std::string(121, 'x') + "\n"}}).size(), 1u);
  std::string wide;
  for (int i = 0; i < 120; ++i) wide += "\u00e9";
  EXPECT_EQ(check_form({{"src/base/a.h", good + "//" + wide.substr(4) + "\n"}}).size(), 0u);
}

}  // namespace
}  // namespace ferry::rules
