#include "device/cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>

namespace ferry::cuda {

std::string Library::recent_report() const {
  const char* text = report == nullptr ? nullptr : report();
  return text == nullptr || *text == '\0' ? "" : fmt::format(" ({})", text);
}

Result<Library> open_library_in(const std::string& folder) {
  const std::string path = folder.empty() ? "libcuda.so.1" : folder + "/libcuda.so.1";
  void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return fail(Code::kUnavailable,
                "no NVIDIA device: libcuda.so.1 not found ({}); it comes with NVIDIA's driver; or "
                "set FERRY_CUDA_LIBRARIES to the folder of software NVIDIA (docs/cuda.md)",
                why == nullptr ? path : why);
  }
  Library library;
  std::string missing;
#define FERRY_CUDA_FIND(name, result, ...)                                         \
  library.name = reinterpret_cast<decltype(library.name)>(::dlsym(handle, #name)); \
  if (library.name == nullptr) missing += (missing.empty() ? "" : ", ") + std::string(#name);
  FERRY_CUDA_DRIVER(FERRY_CUDA_FIND)
#undef FERRY_CUDA_FIND
  if (!missing.empty())
    return fail(Code::kUnavailable,
                "{} lacks what Ferry needs: {}; is NVIDIA's driver older than 580?",
                path,
                missing);
  using Text = const char* (*)();
  if (void* const version = ::dlsym(handle, "ferrySoftwareNvidia"))
    library.software = reinterpret_cast<Text>(version)();
  if (void* const report = ::dlsym(handle, "ferrySoftwareNvidiaReport"))
    library.report = reinterpret_cast<Text>(report);
  return library;
}

Result<const Library*> open_library() {
  // A folder that was named is the only one: what else lies on the machine was not asked for.
  const char* const named = std::getenv("FERRY_CUDA_LIBRARIES");
  static const Result<Library> library = open_library_in(named == nullptr ? "" : named);
  if (!library) return tl::unexpected(library.error());
  return &*library;
}

}  // namespace ferry::cuda
