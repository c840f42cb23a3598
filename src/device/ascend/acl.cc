#include "device/ascend/acl.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace ferry::acl {
namespace {

std::string path_in(const std::string& folder, const char* file) {
  return folder.empty() ? file : folder + "/" + file;
}

std::string loader_message() {
  const char* text = ::dlerror();
  return text == nullptr ? "no reason given" : text;
}

/// The folders to look in, in order; the last, "", is the loader's own search.
std::vector<std::string> folders() {
  // A folder that was named is the only one: what else lies on the machine was not asked for.
  if (const char* named = std::getenv("FERRY_ASCEND_LIBRARIES"); named != nullptr && *named != '\0')
    return {named};
  std::vector<std::string> out;
  for (const char* variable : {"ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"})
    if (const char* home = std::getenv(variable); home != nullptr && *home != '\0')
      out.push_back(std::string(home) + "/lib64");
  out.emplace_back();
  return out;
}

Result<Library> open_first() {
  std::string tried;
  for (const std::string& folder : folders()) {
    auto library = open_library_in(folder);
    // Half an installation is said as such; looking further would hide it.
    if (library || library.error().code != Code::kNotFound) return library;
    tried += (tried.empty() ? "" : "; ") + library.error().message;
  }
  return fail(Code::kUnavailable,
              "no Ascend here: libascendcl.so not found ({}); source CANN's set_env.sh, or set "
              "FERRY_ASCEND_LIBRARIES to the folder of its libraries, or of software Ascend "
              "(docs/ascend.md)",
              tried);
}

}  // namespace

void* Library::find_operator(const char* name) const { return ::dlsym(operators, name); }

std::string Library::recent_message() const {
  const char* text = aclGetRecentErrMsg();
  if (text == nullptr || *text == '\0') return "";
  std::string line = " (";
  for (; *text != '\0'; ++text) line += *text == '\n' ? ' ' : *text;
  while (line.ends_with(' ')) line.pop_back();
  return line + ")";
}

Result<Library> open_library_in(const std::string& folder) {
  Library library;
  library.folder = folder;
  const std::string runtime = path_in(folder, "libascendcl.so");
  if (!folder.empty() && !std::filesystem::exists(runtime))
    return fail(Code::kNotFound, "{} does not exist", runtime);
  library.runtime = ::dlopen(runtime.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library.runtime == nullptr)
    return fail(folder.empty() ? Code::kNotFound : Code::kUnavailable, "{}", loader_message());
  const auto other = [&](const char* file) -> Result<void*> {
    void* handle = ::dlopen(path_in(folder, file).c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (handle == nullptr)
      return fail(Code::kUnavailable,
                  "half of CANN is installed: {} is there, {} is not usable: {}",
                  runtime,
                  file,
                  loader_message());
    return handle;
  };
  TRY_ASSIGN(void* const base, other("libnnopbase.so"));
  TRY_ASSIGN(library.operators, other("libopapi.so"));
  std::string missing;
  const auto find = [&](void* handle, const char* name) {
    void* const address = ::dlsym(handle, name);
    if (address == nullptr) missing += (missing.empty() ? "" : ", ") + std::string(name);
    return address;
  };
#define FERRY_ACL_FIND(name, result, ...) \
  library.name = reinterpret_cast<decltype(library.name)>(find(handle, #name));
  void* handle = library.runtime;
  FERRY_ACL_RUNTIME(FERRY_ACL_FIND)
  handle = base;
  FERRY_ACL_BASE(FERRY_ACL_FIND)
#undef FERRY_ACL_FIND
  if (!missing.empty())
    return fail(Code::kUnavailable,
                "CANN in {} lacks what Ferry needs: {}; is it older than 8.5 or incomplete?",
                folder.empty() ? "the loader's folders" : folder,
                missing);
  using Version = const char* (*)();
  if (void* const version = ::dlsym(library.runtime, "ferrySoftwareAscend"))
    library.software = reinterpret_cast<Version>(version)();
  return library;
}

Result<const Library*> open_library() {
  static const Result<Library> library = open_first();
  if (!library) return tl::unexpected(library.error());
  return &*library;
}

}  // namespace ferry::acl
