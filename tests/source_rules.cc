#include "source_rules.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

namespace ferry::rules {
namespace {

namespace fs = std::filesystem;

/// "ops" of "src/ops/add/add.cc"; empty outside src/.
std::string folder_of(const std::string& path) {
  if (path.rfind("src/", 0) != 0) return "";
  const size_t end = path.find('/', 4);
  return end == std::string::npos ? "" : path.substr(4, end - 4);
}

struct Include {
  int line;
  bool quoted;
  std::string name;
};

std::vector<Include> includes_of(const std::string& text) {
  static const std::regex pattern(R"re(^\s*#\s*include\s*([<"])([^>"]+)[>"])re");
  std::vector<Include> out;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.find('#') == std::string::npos) continue;
    std::smatch m;
    if (std::regex_search(line, m, pattern)) out.push_back({number, m[1] == "\"", m[2]});
  }
  return out;
}

/// "ascend_sim/" or "nvidia_sim/" of what lies in a simulator; "" of anything else.
std::string simulator_of(const std::string& path) {
  for (const char* top : {"ascend_sim/", "nvidia_sim/"})
    if (path.rfind(top, 0) == 0) return top;
  return "";
}

/// Where a quoted include leads: Ferry includes from src/ on, a simulator from its own folder on;
/// tests and benches also beside themselves.
std::string resolve(const std::string& from,
                    const std::string& name,
                    const std::set<std::string>& paths) {
  if (const std::string own = simulator_of(from); !own.empty() && paths.contains(own + name))
    return own + name;
  if (paths.contains("src/" + name)) return "src/" + name;
  std::string beside = (fs::path(from).parent_path() / name).lexically_normal().string();
  if (from.rfind("src/", 0) != 0 && paths.contains(beside)) return beside;
  return "";
}

std::set<std::string> paths_of(const std::vector<SourceFile>& files) {
  std::set<std::string> paths;
  for (const SourceFile& f : files) paths.insert(f.path);
  return paths;
}

/// A pattern, and the only files (by pattern of their path) in which it may stand.
struct Place {
  const char* pattern;
  const char* where;
  const char* why;
};

/// A regular expression that is looked for in every line of the tree: std::regex takes a minute for them all.
class Pattern {
 public:
  explicit Pattern(const char* text) {
    int error = 0;
    size_t at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<const unsigned char*>(text),
                              PCRE2_ZERO_TERMINATED,
                              0,
                              &error,
                              &at,
                              nullptr));
    if (code_ == nullptr)
      throw std::invalid_argument("no regular expression, from " + std::to_string(at) +
                                  " on: " + text);
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is none, it is slower
    match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  }

  /// What of the text it matches first, if anything.
  std::optional<std::string> find_in(const std::string& text) const {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(text.data());
    const int found = pcre2_match(code_.get(), bytes, text.size(), 0, 0, match_.get(), nullptr);
    if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (found < 0)
      throw std::runtime_error("PCRE2 gives up (" + std::to_string(found) + ") on: " + text);
    const size_t* const bounds = pcre2_get_ovector_pointer(match_.get());
    return text.substr(bounds[0], bounds[1] - bounds[0]);
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_data, Free> match_;
};

std::vector<Violation> check_places(const std::vector<SourceFile>& files,
                                    const std::vector<Place>& places,
                                    const std::function<std::string(const SourceFile&)>& text_of) {
  std::vector<std::pair<Pattern, Pattern>> compiled;
  compiled.reserve(places.size());
  for (const Place& p : places) compiled.emplace_back(Pattern(p.pattern), Pattern(p.where));
  std::vector<Violation> out;
  for (const SourceFile& file : files) {
    std::istringstream lines(text_of(file));
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number)
      for (size_t i = 0; i < places.size(); ++i) {
        const std::optional<std::string> found = compiled[i].first.find_in(line);
        if (!found || compiled[i].second.find_in(file.path)) continue;
        out.push_back({file.path, number, "\"" + *found + "\": " + places[i].why});
      }
  }
  return out;
}

}  // namespace

std::string describe(const std::vector<Violation>& violations) {
  std::string out;
  for (const Violation& v : violations)
    out += v.path + ":" + std::to_string(v.line) + ": " + v.what + "\n";
  return out;
}

std::vector<SourceFile> read_sources(const std::string& root) {
  std::vector<SourceFile> files;
  for (const char* top : {"src", "tests", "bench", "ascend_sim", "nvidia_sim"}) {
    if (!fs::exists(fs::path(root) / top)) continue;
    for (const fs::directory_entry& entry :
         fs::recursive_directory_iterator(fs::path(root) / top)) {
      const std::string extension = entry.path().extension().string();
      if (!entry.is_regular_file() ||
          (extension != ".h" && extension != ".cc" && extension != ".cu"))
        continue;
      std::ifstream in(entry.path(), std::ios::binary);
      std::ostringstream text;
      text << in.rdbuf();
      files.push_back({fs::relative(entry.path(), root).string(), text.str()});
    }
  }
  std::sort(files.begin(), files.end(), [](const SourceFile& a, const SourceFile& b) {
    return a.path < b.path;
  });
  return files;
}

// --- layers
// ---------------------------------------------------------------------------------------

Layers layers_of_build(const std::string& cmake) {
  static const std::regex pattern(R"(^ferry_(module|program)\((.*)\))");
  Layers layers;
  std::istringstream lines(cmake);
  for (std::string line; std::getline(lines, line);) {
    line.erase(0, line.find_first_not_of(' '));
    std::smatch m;
    if (!std::regex_search(line, m, pattern)) continue;
    std::istringstream words(m[2]);
    std::string folder, word;
    while (words >> word && word != "DEPS") folder = word;  // a program's name comes first
    std::vector<std::string>& below = layers[folder];
    while (words >> word) below.push_back(word);
  }
  return layers;
}

Layers layers_of_document(const std::string& architecture) {
  const size_t begin = architecture.find("\n## Who may include whom\n");
  Layers layers;
  if (begin == std::string::npos) return layers;
  std::istringstream lines(architecture.substr(begin + 1));
  std::string line, word, folder;
  std::getline(lines, line);
  while (std::getline(lines, line) && line.rfind("#", 0) != 0) {
    if (line.rfind("    ", 0) != 0) continue;
    std::istringstream words(line);
    while (words >> word) {
      if (word.back() == ':')
        layers[folder = word.substr(0, word.size() - 1)];
      else
        layers[folder].push_back(word);
    }
  }
  layers["base"];  // below all, so not named
  return layers;
}

std::set<std::string> visible_from(const Layers& layers, const std::string& folder) {
  std::set<std::string> seen;
  std::function<void(const std::string&)> visit = [&](const std::string& f) {
    if (!seen.insert(f).second) return;
    const auto entry = layers.find(f);
    if (entry == layers.end()) return;
    for (const std::string& below : entry->second) visit(below);
  };
  visit(folder);
  return seen;
}

std::vector<Violation> check_layers(const std::vector<SourceFile>& files, const Layers& layers) {
  std::vector<Violation> out;
  const std::set<std::string> paths = paths_of(files);
  for (const SourceFile& file : files) {
    const std::string simulator = simulator_of(file.path);
    const std::string folder = folder_of(file.path);
    if (file.path.rfind("src/", 0) == 0 && !layers.contains(folder)) {
      out.push_back(
          {file.path,
           0,
           "lies in no folder that CMakeLists.txt knows; give it a place among the layers"});
      continue;
    }
    for (const Include& include : includes_of(file.text)) {
      if (!include.quoted) continue;
      const std::string target = resolve(file.path, include.name, paths);
      if (target.empty()) {
        out.push_back({file.path,
                       include.line,
                       "\"" + include.name +
                           "\" is no file of Ferry; name it from src/ on, "
                           "and libraries in <>"});
      } else if (simulator != simulator_of(target)) {
        out.push_back({file.path,
                       include.line,
                       "a simulator judges src/ and shares no line with it, or with another"});
      } else if (!folder.empty() && !visible_from(layers, folder).contains(folder_of(target))) {
        out.push_back({file.path,
                       include.line,
                       folder + " may not include " + include.name +
                           ": see the table of layers in CMakeLists.txt"});
      }
    }
  }
  return out;
}

std::vector<Violation> check_cycles(const std::vector<SourceFile>& files) {
  const std::set<std::string> paths = paths_of(files);
  std::map<std::string, std::vector<std::string>> edges;
  for (const SourceFile& file : files)
    for (const Include& include : includes_of(file.text)) {
      const std::string target = include.quoted ? resolve(file.path, include.name, paths) : "";
      if (!target.empty()) edges[file.path].push_back(target);
    }
  std::vector<Violation> out;
  std::map<std::string, int> state;  // 1: on the way down, 2: done
  std::vector<std::string> way;
  std::function<void(const std::string&)> visit = [&](const std::string& path) {
    state[path] = 1;
    way.push_back(path);
    for (const std::string& next : edges[path]) {
      if (state[next] == 0) visit(next);
      if (state[next] != 1) continue;
      std::string round;
      for (auto it = std::find(way.begin(), way.end(), next); it != way.end(); ++it)
        round += *it + " -> ";
      out.push_back({path, 0, "includes itself: " + round + next});
    }
    way.pop_back();
    state[path] = 2;
  };
  for (const SourceFile& file : files)
    if (state[file.path] == 0) visit(file.path);
  return out;
}

std::vector<Violation> check_libraries(const std::vector<SourceFile>& files) {
  static const std::vector<Place> places = {
      {R"(<(cuda|cublas|cudnn|curand|cutlass|cute|nvtx|nvml)[^>]*>)",
       R"(^src/device/cuda/|_cuda\.cu$)",
       "CUDA stays in src/device/cuda and *_cuda.cu"},
      {R"(<nccl[^>]*>)", R"(^src/comm/nccl/)", "NCCL stays in src/comm/nccl"},
      {R"(<(acl|aclnn|hccl)[^>]*>)",
       R"(^src/(device/ascend|comm/hccl)/|_ascend\.cc$|^ascend_sim/)",
       "Ascend's headers stay in src/device/ascend, src/comm/hccl and *_ascend.cc"},
      {R"("[a-z_/]*/(ascend|cuda)/[^"]*")",
       R"(^src/(device|ops|comm)/|^tests/|^bench/)",
       "a device is reached through Device and ops (ARCHITECTURE.md)"},
      {R"(<(immintrin|arm_neon)\.h>)",
       R"(^src/base/|^src/ops/cpu/|^bench/|_cpu\.cc$|_kernel\.h$)",
       "vector instructions stay in src/ops/cpu and *_cpu.cc, which are built once for each tier"},
      {R"(<CLI/[^>]*>)",
       R"(^src/cli/command_line\.cc$|^bench/)",
       "the command line is read in src/cli/command_line"},
      {R"(<toml\+\+/[^>]*>)",
       R"(^src/train/[a-z_]*config[a-z_]*\.cc$|^src/cli/.*\.cc$)",
       "TOML is read by the training configuration alone"},
      {R"(<nlohmann/json\.hpp>)",
       R"(\.cc$)",
       "<nlohmann/json.hpp> is slow to compile: in .cc files only, headers take json_fwd.hpp"},
      {R"(<pcre2\.h>)",
       R"(^src/text/|^tests/source_rules)",
       "regular expressions stay in src/text"},
      {R"(<sodium\.h>)", R"(^src/base/)", "hashes come in through base/hash.h"},
      {R"(<xxhash\.h>)", R"(^src/base/)", "hashes come in through base/fast_hash.h"},
      {R"(<(zlib|zstd|lzma)\.h>)",
       R"(^src/data/|^src/cli/)",
       "compression stays in src/data and the yardsticks of ferry eval"},
      {R"(<curl/[^>]*>)",
       R"(^src/verify/http_client\.cc$)",
       "servers are asked in src/verify/http_client"},
      {R"(<(thread|future|condition_variable|shared_mutex|semaphore|latch|barrier|pthread\.h)>)",
       R"(^src/base/|^ascend_sim/|_test\.cc$|test_support\.h$|^tests/)",
       "threads are base/threads.h's: FTZ/DAZ must be set on each (ARCHITECTURE.md, contract 2)"},
      {R"(<(fcntl|sys/(mman|stat|statvfs|file|statfs))\.h>|<fstream>)",
       R"(^src/(base|device)/|^ascend_sim/runtime/|^nvidia_sim/driver/|_process\.cc$|_test\.cc$)"
       R"(|test_support\.h$|^tests/)",
       "files come in through base/file.h, where faults can be injected"},
      {R"(<(sys/socket|netinet/in|netdb|arpa/inet)\.h>)",
       R"(^src/base/|^src/serve/|^src/comm/|_test\.cc$|^tests/)",
       "the network comes in through base, serve and comm"},
      {R"(<chrono>|<ctime>|<time\.h>)",
       R"(^src/base/|^ascend_sim/runtime/|^nvidia_sim/driver/|_test\.cc$|^tests/|^bench/)",
       "time comes in through base/clock.h"},
      {R"(<(cmath|math\.h)>)",
       R"(^(?!.*_cpu\.cc$))",
       "libm's results differ between versions: kernels take their functions from ops/cpu"},
      {R"(<random>)", R"(^$)", "randomness is counter-based: base/random.h"},
      {R"(<regex>)",
       R"(^tests/source_rules)",
       "std::regex recurses on its input: text/split_regex.h"},
      {R"(<iostream>)",
       R"(^$)",
       "print with fmt; streams initialise at start and format by locale"},
      {R"(<gtest/[^>]*>)", R"(_test\.cc$|test_support\.h$|^tests/)", "GoogleTest belongs in tests"},
  };
  return check_places(files, places, [](const SourceFile& f) {
    std::string out;
    int at = 1;
    for (const Include& include : includes_of(f.text)) {
      for (; at < include.line; ++at) out += '\n';
      out += include.quoted ? "" : "<" + include.name + ">";
    }
    return out;
  });
}

// --- tidiness
// -------------------------------------------------------------------------------------

std::string code_only(const std::string& text) {
  std::string out = text;
  enum { kCode, kLine, kBlock, kString, kChar, kRaw } state = kCode;
  std::string raw_end;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char next = i + 1 < text.size() ? text[i + 1] : '\0';
    const auto blank = [&](size_t at) {
      if (at < out.size() && out[at] != '\n') out[at] = ' ';
    };
    switch (state) {
      case kCode:
        if (c == '/' && next == '/') {
          state = kLine;
          blank(i);
        } else if (c == '/' && next == '*') {
          state = kBlock;
          blank(i);
          blank(++i);
        } else if (c == '"' && i > 0 && text[i - 1] == 'R') {
          const size_t open = text.find('(', i);
          raw_end = ")" + text.substr(i + 1, open - i - 1) + "\"";
          state = kRaw;
        } else if (c == '"')
          state = kString;
        else if (c == '\'' && !(i > 0 && std::isalnum(static_cast<unsigned char>(text[i - 1]))))
          state = kChar;
        break;
      case kLine:
        if (c == '\n')
          state = kCode;
        else
          blank(i);
        break;
      case kBlock:
        blank(i);
        if (c == '*' && next == '/') {
          blank(++i);
          state = kCode;
        }
        break;
      case kRaw:
        if (text.compare(i, raw_end.size(), raw_end) == 0) {
          i += raw_end.size() - 1;
          state = kCode;
        } else
          blank(i);
        break;
      case kString:
      case kChar:
        if (c == '\\') {
          blank(i);
          blank(++i);
        } else if (c == (state == kString ? '"' : '\''))
          state = kCode;
        else
          blank(i);
        break;
    }
  }
  return out;
}

std::vector<Violation> check_banned(const std::vector<SourceFile>& files) {
  static const std::vector<Place> in_code = {
      {R"(_clock::now\b|\b(gettimeofday|clock_gettime)\s*\()",
       R"(^src/base/|^ascend_sim/runtime/|^nvidia_sim/driver/|_test\.cc$|^tests/)",
       "take a Clock (base/clock.h): what reads the system's time cannot be replayed"},
      {R"(\bs?rand(48)?\s*\(|::random\s*\(|\brandom_device\b|\bmt19937\b)",
       R"(^$)",
       "take numbers from base/random.h: keyed by purpose, step and index, never by call order"},
      {R"(\btime\s*\(\s*(nullptr|NULL|0|&))", R"(^src/base/)", "take a Clock (base/clock.h)"},
      {R"(\b(secure_)?getenv\s*\()",
       R"(^src/(base|device)/|^ascend_sim/runtime/|^nvidia_sim/driver/|_test\.cc$|^tests/|^bench/)",
       "settings arrive as arguments; the environment is read in base and device only"},
      {R"(\bsetenv\s*\()",
       R"(_test\.cc$|^tests/|^bench/|^(ascend|nvidia)_sim/tests/)",
       "not safe beside threads: pass a setting"},
      {R"(std::j?thread\b|\bpthread_create\b|std::async\b)",
       R"(^src/base/threads\.cc$|^ascend_sim/(runtime/|opapi/workers\.cc)|_test\.cc$|test_support\.h$|^tests/)",
       "use base/threads.h: every thread must have FTZ/DAZ set"},
      {R"(\b(malloc|calloc|realloc|aligned_alloc|posix_memalign)\s*\()",
       R"(^src/device/|^tests/fuzz/)",
       "memory of tensors is Device::allocate's; elsewhere use containers"},
      {R"(^(?!.*_ptr<).*\bnew\s+(\(|[A-Za-z_:]))",
       R"(^src/device/|_test\.cc$|^tests/)",
       "use make_unique, make_shared or a container"},
      {R"(\bdelete\s*(\[\s*\])?\s*[A-Za-z_(*])",
       R"(^src/device/)",
       "owners delete: unique_ptr, shared_ptr or a container"},
      {R"(\b(cudaMalloc|aclrtMalloc)\w*\s*\()",
       R"(^src/device/|^ascend_sim/)",
       "memory of a chip is Device::allocate's"},
      {R"(\bsystem\s*\(|\bpopen\s*\()",
       R"(_test\.cc$|^tests/)",
       "a shell reads what it is given: start programs with their arguments"},
      {R"(\bisatty\s*\()",
       R"(^src/base/terminal\.cc$)",
       "base/terminal.h decides what a terminal is, and what it can do"},
      {R"((^|[^A-Za-z0-9_>])::(v?fork|exec[vl][pe]*|posix_spawnp?)\s*\()",
       R"(^src/base/child_process\.cc$|^src/train/supervisor_process\.cc$|(_test\.cc|test_support\.h)$|^tests/)",
       "programs are started in one place: base/child_process.h"},
      {R"(\busing\s+namespace\s+std\b)", R"(^$)", "name what is used"},
      {R"(\bassert\s*\()", R"(^$)", "check() is on in release builds and says what was wrong"},
      {R"(\b(strcpy|strcat|sprintf|gets|strtok|atoi|atof|atol)\s*\()",
       R"(^$)",
       "use fmt, std::from_chars and std::string_view"},
      // sqrt, fma, ldexp, frexp, fmod and roundings to whole numbers are exact everywhere. Kernels
      // have exp and log of lanes.
      {R"((std::|[^\w:.>]::|__builtin_)(a?(cos|sin|tan)h?|atan2|exp2?|exp10|expm1|log(2|10|1p)?|pow|)"
       R"(hypot|cbrt|erfc?|[tl]gamma)[fl]?\s*\(|\b(a?(cos|sin|tan)h?|atan2|exp2?|expm1|log(2|10|1p)?|)"
       R"(pow|hypot|cbrt|erfc?|[tl]gamma)f\s*\()",
       R"(^(?!src/)|_test\.cc$)",
       "libm's results differ between versions: base/math.h has exp, log, pow, cos and sin, "
       "ops/cpu/simd.h has what kernels need"},
      {R"(\.dump\s*\()",
       R"(^src/(base|checkpoint)/json\.cc$|^(?!src/)|_test\.cc$)",
       "throws on ill-formed UTF-8, which a path or a person may bring: json_text (base/json.h)"},
      {R"((if|while|for|return|&&|\|\||!)[^;,=]*\bis_there\()",
       R"(^tests/|_test\.cc$)",
       "a Result is true where it holds a no: TRY_ASSIGN(const bool there, is_there(path))"},
      {R"(catch\s*\(\s*\.\.\.\s*\))",
       R"(^src/base/|^src/cli/main\.cc$|_test\.cc$|^tests/)",
       "swallows bugs: name the failure that is expected here"},
  };
  static const std::vector<Place> in_kernels = {
      {R"(std::(function|vector|map|string)\b)",
       R"(^$)",
       "templates of the library would be compiled with this tier's instructions and linked for "
       "all"},
  };
  static const std::vector<Place> in_arguments = {
      {R"(^\s+(const\s+)?[\w:]+(\s+const)?\s*\*+\s*\w+\s*(=[^;]*)?;)",
       R"(^$)",
       "arguments of kernels are views and scalars: a pointer to the host's memory dangles when "
       "the "
       "call is launched again, and cannot be captured in a graph (Plan::segments)"},
  };
  static const std::vector<Place> in_text = {
      {R"(\bTO)"
       R"(DO\b|\bFIX)"
       R"(ME\b|\bX)"
       R"(XX\b|\bHA)"
       R"(CK\b)",
       R"(^$)",
       "finish it, or refuse it by name and say so in the docs"},
      {R"(\\(x1b|033|e)\[)",
       R"(^src/base/terminal\.cc$|_test\.cc$|^tests/)",
       "base/terminal.h paints, and knows where not to"},
      {R"(\bNOLINT\b)",
       R"(^$)",
       "mend it, or take the check off the list in .clang-tidy with a reason"},
  };
  std::vector<Violation> out =
      check_places(files, in_code, [](const SourceFile& f) { return code_only(f.text); });
  const auto check_those = [&](const char* ending, const std::vector<Place>& places) {
    std::vector<SourceFile> those;
    std::copy_if(files.begin(), files.end(), std::back_inserter(those), [&](const SourceFile& f) {
      return f.path.ends_with(ending);
    });
    for (Violation& v :
         check_places(those, places, [](const SourceFile& f) { return code_only(f.text); }))
      out.push_back(std::move(v));
  };
  check_those("_cpu.cc", in_kernels);
  check_those("_kernels.h", in_arguments);
  for (Violation& v : check_places(files, in_text, [](const SourceFile& f) { return f.text; }))
    out.push_back(std::move(v));
  return out;
}

std::vector<Violation> check_form(const std::vector<SourceFile>& files) {
  constexpr size_t kColumnsMax = 120;
  std::vector<Violation> out;
  for (const SourceFile& file : files) {
    // A .cc that has a header of its name is introduced there, and so is that header's test.
    std::string stem = file.path.substr(0, file.path.rfind('.'));
    if (stem.ends_with("_test")) stem.resize(stem.size() - 5);
    const bool beside_header = file.path.ends_with(".cc") &&
                               std::any_of(files.begin(), files.end(), [&](const SourceFile& f) {
                                 return f.path == stem + ".h";
                               });
    if (file.text.rfind("//", 0) != 0 && !beside_header)
      out.push_back({file.path, 1, "begins without a comment that says what it is"});
    if (!file.text.empty() && file.text.back() != '\n')
      out.push_back({file.path, 0, "does not end its last line"});
    if (file.path.ends_with(".h") && file.text.find("#pragma once") == std::string::npos)
      out.push_back({file.path, 0, "is a header without #pragma once"});
    std::istringstream lines(file.text);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
      const auto continuation = [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
      };
      const size_t columns =
          line.size() - static_cast<size_t>(std::count_if(line.begin(), line.end(), continuation));
      if (columns > kColumnsMax)
        out.push_back(
            {file.path, number, "has " + std::to_string(columns) + " columns; at most 120"});
      if (line.find('\t') != std::string::npos)
        out.push_back({file.path, number, "has a tab; indent with spaces"});
      if (!line.empty() && line.back() == ' ')
        out.push_back({file.path, number, "ends in a space"});
    }
  }
  return out;
}

}  // namespace ferry::rules
