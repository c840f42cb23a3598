// What becomes of launches and copies when their stream comes to them, where a defect is planted; and
// whom it spoils, which is measured: a launch is done right first, with the same memory.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "driver/driver.h"
#include "driver/result.h"

namespace nvidia_sim {
namespace {

/// What a launch writes when it is done right.
class SoundResult {
 public:
  /// Runs it, keeps what it wrote and puts back what was there.
  SoundResult(DeviceMemory& memory, const Launch& launch) : memory_(memory) {
    DeviceMemory::Record before;
    memory.record(&before);
    try {
      execute(launch);
      done_ = true;
    } catch (const Violation&) {  // by what was spoiled earlier: the launch that counts will say it
    }
    memory.record(nullptr);
    for (auto& [address, held] : before) {
      Allocation& a = memory.at(address);
      after_[address] = a.data;
      a.data = std::move(held.data);
      a.written = std::move(held.written);
    }
  }

  bool done() const { return done_; }

  /// Bytes that are other than they should be, in what this launch or `record`'s one wrote.
  uint64_t wrong_bytes(const DeviceMemory::Record& record) {
    for (const auto& [address, held] : record) after_.try_emplace(address, held.data);
    uint64_t wrong = 0;
    for (const auto& [address, right] : after_) {
      const std::vector<uint8_t>& now = memory_.at(address).data;
      for (size_t n = 0; n < std::min(now.size(), right.size()); ++n) wrong += now[n] != right[n];
    }
    return wrong;
  }

 private:
  DeviceMemory& memory_;
  std::map<uint64_t, std::vector<uint8_t>> after_;
  bool done_ = false;
};

/// In one piece: other processes append to the same file.
void append(const char* setting, const std::string& path, const std::string& line) {
  std::FILE* const file = std::fopen(path.c_str(), "ae");
  const bool taken =
      file != nullptr && std::fwrite(line.data(), 1, line.size(), file) == line.size();
  const bool written = file != nullptr && std::fclose(file) == 0 && taken;
  if (written) return;
  std::fprintf(stderr, "software NVIDIA: %s=%s cannot be written\n", setting, path.c_str());
  std::exit(3);
}

}  // namespace

void Driver::land(CUstream stream, Defect late, CUdeviceptr to, std::vector<uint8_t> bytes) {
  auto write = [&memory = stream->context->memory, to, bytes = std::move(bytes)] {
    if (bytes.empty() || !memory.holds(to, bytes.size())) return;  // freed before it landed
    Allocation& a = memory.around(to, bytes.size(), Access::kWrite);
    std::copy(
        bytes.begin(), bytes.end(), a.data.begin() + static_cast<std::ptrdiff_t>(to - a.address));
    std::fill_n(a.written.begin() + static_cast<std::ptrdiff_t>(to - a.address), bytes.size(), 1);
  };
  if (planted(late))
    stream->late.emplace_back(std::move(write));
  else
    write();
}

void Driver::repeat_last_copy(std::vector<uint8_t>& bytes) {
  const std::vector<uint8_t> these = bytes;
  if (now(Defect::copy_in_repeats, 40))
    std::copy_n(last_copy_.begin(), std::min(last_copy_.size(), bytes.size()), bytes.begin());
  last_copy_ = these;
}

void Driver::execute_spoiled(CUstream stream, Launch launch) {
  if (now(Defect::launch_dropped, 300)) return;
  if (planted(Defect::launch_old_arguments)) {
    std::vector<uint8_t>& last = last_arguments_[launch.kernel];
    const std::vector<uint8_t> these = launch.params;
    if (now(Defect::launch_old_arguments, 100) && !last.empty()) launch.params = last;
    last = these;
  }
  if (planted(Defect::first_launch_short))
    launch.skips_first = launched_.insert(launch.kernel).second && launch.grid.count() > 1;
  if (planted(Defect::last_block_late) && launch.grid.count() > 1) {
    launch.blocks = Blocks::kLast;
    stream->late.emplace_back([launch] { execute(launch); });
    launch.blocks = Blocks::kAllButLast;
  }
  execute(launch);
  if (now(Defect::launch_twice, 50)) execute(launch);
}

void Driver::carry_out(CUstream stream, const CUfunction_& function, Launch launch) {
  const bool measures = !settings_.deviations.empty();
  if (!settings_.planted.any()) {
    Counters counters;
    if (!settings_.counters.empty()) launch.counters = &counters;
    execute(launch);
    if (measures) note_deviation(launch.kernel->name, 0);
    if (launch.counters != nullptr) note_counters(launch, counters);
    return;
  }
  launch.checked = false;  // a GPU would not notice either
  Launch sound = launch;
  launch.planted = settings_.planted;
  launch.counts = &counts_;
  launch.seed_of_defects = settings_.seed;
  if (!measures || function.sound == nullptr) return execute_spoiled(stream, launch);
  DeviceMemory& memory = stream->context->memory;
  sound.kernel = function.sound;
  SoundResult right(memory, sound);
  DeviceMemory::Record record;
  memory.record(&record);
  try {
    execute_spoiled(stream, launch);
  } catch (const Violation&) {
    memory.record(nullptr);
    note_deviation(launch.kernel->name, UINT64_MAX);
    throw;
  }
  memory.record(nullptr);
  if (right.done()) note_deviation(launch.kernel->name, right.wrong_bytes(record));
}

void Driver::note_deviation(const std::string& kernel, uint64_t wrong_bytes) {
  const auto [at, first] = deviations_.try_emplace(kernel, wrong_bytes);
  if (!first && wrong_bytes <= at->second) return;
  at->second = wrong_bytes;
  append("FERRY_NVIDIA_SIM_DEVIATIONS",
         settings_.deviations,
         kernel + "\tBYTES\t" + std::to_string(wrong_bytes) + "\n");
}

void Driver::note_counters(const Launch& launch, const Counters& c) const {
  const std::pair<const char*, uint64_t> numbers[] = {{"blocks", launch.grid.count()},
                                                      {"threads", launch.block.count()},
                                                      {"instructions", c.instructions},
                                                      {"matrix_products", c.matrix_products},
                                                      {"shared_requests", c.shared_requests},
                                                      {"bank_conflicts", c.bank_conflicts},
                                                      {"global_requests", c.global_requests},
                                                      {"global_sectors", c.global_sectors},
                                                      {"bytes_read", c.global_bytes_read},
                                                      {"bytes_written", c.global_bytes_written}};
  std::string line = launch.kernel->name;
  for (const auto& [name, number] : numbers)
    line += std::string("\t") + name + " " + std::to_string(number);
  append("FERRY_NVIDIA_SIM_COUNTERS", settings_.counters, line + "\n");
}

}  // namespace nvidia_sim
