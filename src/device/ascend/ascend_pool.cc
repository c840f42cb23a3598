#include "device/ascend/ascend_pool.h"

#include "base/units.h"
#include "device/ascend/ascend_device.h"
#include "device/ascend/errors.h"

namespace ferry {
void* AscendPool::allocate(size_t bytes) {
  const size_t whole = pool_block_bytes(bytes);
  void* block = nullptr;
  if (auto& cached = free_[whole]; !cached.empty()) {
    block = cached.back();
    cached.pop_back();
  } else {
    const acl::Library& library = device_.cann();
    acl::Error code = library.aclrtMalloc(&block, whole, acl::kHugeFirst);
    const ErrorMeaning* meaning = acl::meaning_of(code);
    const bool full = meaning != nullptr && meaning->fault == Fault::kMemory;
    if (full && use_.reserved_bytes > use_.live_bytes) {
      release_cached();
      code = library.aclrtMalloc(&block, whole, acl::kHugeFirst);
    }
    if (code != 0)
      device_.stream().fail(code,
                            "aclrtMalloc",
                            fmt::format(": asking for {}, {} in use",
                                        format_bytes(static_cast<double>(whole)),
                                        format_bytes(static_cast<double>(use_.live_bytes))));
    use_.reserved_bytes += whole;
  }
  use_.live_bytes += whole;
  if (use_.live_bytes > use_.peak_bytes) use_.peak_bytes = use_.live_bytes;
  return block;
}

void AscendPool::deallocate(void* p, size_t bytes) {
  const size_t whole = pool_block_bytes(bytes);
  use_.live_bytes -= whole;
  free_[whole].push_back(p);
}

void AscendPool::release_cached() {
  device_.stream().synchronize();  // aclrtFree does not wait for who still uses the memory
  for (auto& [whole, blocks] : free_) {
    for (void* block : blocks) {
      const acl::Error code = device_.cann().aclrtFree(block);
      if (code != 0) device_.stream().fail(code, "aclrtFree");
      use_.reserved_bytes -= whole;
    }
    blocks.clear();
  }
}

}  // namespace ferry
