// The rules about Ferry's sources that a machine can check: who may include whom, and what may be
// called where. Pure functions of file names and texts, so that the rules themselves can be tested.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace ferry::rules {

struct SourceFile {
  std::string path;  // from the repository's root: "src/ops/add/add.cc"
  std::string text;
};

struct Violation {
  std::string path;
  int line;          // from 1; 0: the file as a whole
  std::string what;  // what is wrong, why it is a rule, what to do
};

std::string describe(const std::vector<Violation>& violations);  // one line each

/// Files that git would track: those below src/, tests/, bench/ and the simulators of the repository.
std::vector<SourceFile> read_sources(const std::string& root);

// --- layers
// ---------------------------------------------------------------------------------------

/// Folder of src/ -> the folders directly below it. Whoever may include a folder may include what
/// lies below it too.
using Layers = std::map<std::string, std::vector<std::string>>;

/// The table that CMakeLists.txt links by, and its copy in ARCHITECTURE.md.
Layers layers_of_build(const std::string& cmake);
Layers layers_of_document(const std::string& architecture);

/// The folder itself and all that it may include.
std::set<std::string> visible_from(const Layers& layers, const std::string& folder);

/// Includes of Ferry's own files: only from folders that the file's folder may see; every included
/// file exists; simulators and src/ share nothing.
std::vector<Violation> check_layers(const std::vector<SourceFile>& files, const Layers& layers);

/// No file includes itself, by whatever way round.
std::vector<Violation> check_cycles(const std::vector<SourceFile>& files);

/// Libraries and operating-system headers stay in the folders that wrap them; chips' vendors'
/// headers in that vendor's folder.
std::vector<Violation> check_libraries(const std::vector<SourceFile>& files);

// --- tidiness
// -------------------------------------------------------------------------------------

/// Calls and words that have one place or none: clocks, randomness, environment, threads, memory,
/// libm in kernels, unfinished work.
std::vector<Violation> check_banned(const std::vector<SourceFile>& files);

/// A comment on the first line, at most 120 columns, a last line that ends, no tabs, #pragma once.
std::vector<Violation> check_form(const std::vector<SourceFile>& files);

/// Text without comments, string and character literals: each of their characters is a space, lines
/// stay.
std::string code_only(const std::string& text);

}  // namespace ferry::rules
