#include "ops/run_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/clock.h"
#include "base/cpu_tier.h"
#include "base/file.h"
#include "base/system.h"
#include "base/units.h"

namespace ferry::ops {
namespace {

constexpr uint64_t kBytesMax = 1 << 20;

std::vector<std::string> split(const std::string& line, char at) {
  std::vector<std::string> parts(1);
  for (const char c : line) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

std::string tiers() {
  std::string all;
  for (const CpuTier t : kCpuTiers)
    if (cpu_has(t)) all += (all.empty() ? "" : ", ") + std::string(to_string(t));
  return all;
}

#if defined(__x86_64__)
constexpr const char* kProcessor = "x86-64";
#else
constexpr const char* kProcessor = "aarch64";
#endif

}  // namespace

RunRecord record_of(DeviceKind kind, const std::string& description) {
  RunRecord r;
  r.device = to_string(kind);
  r.date = format_utc(system_clock().unix_ms()).substr(0, 10);
  if (kind == DeviceKind::kCpu) {
    const std::string emulator = emulator_name();
    r.software = !emulator.empty();
    r.where = fmt::format(
        "{}: {}{}", kProcessor, tiers(), r.software ? fmt::format(" ({})", emulator) : "");
    return r;
  }
  r.where = description;
  r.software = r.where.find("software") != std::string::npos;
  return r;
}

Result<std::vector<RunRecord>> read_run_records(const std::string& path) {
  TRY_ASSIGN(const std::string text, read_file(path, kBytesMax));
  std::vector<RunRecord> records;
  int64_t number = 0;
  for (const std::string& line : split(text, '\n')) {
    ++number;
    if (line.empty()) continue;
    const std::vector<std::string> p = split(line, '\t');
    if (p.size() != 5 || (p[2] != "hardware" && p[2] != "software"))
      return fail(Code::kCorrupt,
                  "{}:{}: is no record of a run (op, device, hardware or software, where, date); "
                  "remove the line",
                  path,
                  number);
    records.push_back({p[0], p[1], p[2] == "software", p[3], p[4]});
  }
  return records;
}

Result<void> add_run_records(const std::string& path, const std::vector<RunRecord>& records) {
  std::vector<RunRecord> all;
  TRY_ASSIGN(const bool there, is_there(path));
  if (there) {
    TRY_ASSIGN(all, read_run_records(path));
  }
  for (const RunRecord& r : records) {
    std::erase_if(all, [&](const RunRecord& old) {
      return old.op == r.op && old.device == r.device && old.software == r.software &&
             old.where == r.where;
    });
    all.push_back(r);
  }
  std::sort(all.begin(), all.end(), [](const RunRecord& a, const RunRecord& b) {
    return std::tie(a.device, a.software, a.where, a.op) <
           std::tie(b.device, b.software, b.where, b.op);
  });
  std::string text;
  for (const RunRecord& r : all)
    text += fmt::format("{}\t{}\t{}\t{}\t{}\n",
                        r.op,
                        r.device,
                        r.software ? "software" : "hardware",
                        r.where,
                        r.date);
  return write_file_atomic(path, text);
}

}  // namespace ferry::ops
