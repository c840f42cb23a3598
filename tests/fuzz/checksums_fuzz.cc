// Fuzzer of the reader of checksums.json: any bytes are refused with words, or give digests of files
// inside the folder that survive being written and read again.
#include <cstdint>

#include "checkpoint/checksums.h"
#include "fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  static const FuzzFolder folder;
  folder.write(kChecksumsName, {reinterpret_cast<const char*>(data), size});
  Result<Checksums> sums = Checksums::open(folder.path());
  if (!sums) {
    check(!sums.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  for (const auto& [name, digest] : sums->files())
    check(name.find("..") != 0 && name.front() != '/', "fuzz: {} is outside", name);
  const Result<void> sizes = sums->check_sizes(), all = sums->check_all();
  check(sizes.has_value() || !sizes.error().message.empty(), "fuzz: refused without a word");
  check(all.has_value() == sizes.has_value() || !all, "fuzz: content right, sizes wrong");
  folder.write(kChecksumsName, Checksums::to_json(sums->files()));
  const Result<Checksums> again = Checksums::open(folder.path());
  check(again.has_value() && again->files() == sums->files(), "fuzz: changed by writing");
  return 0;
}
