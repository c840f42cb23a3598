#include "data/external_sort.h"

#include <algorithm>
#include <cstring>
#include <queue>

#include "base/check.h"
#include "base/file.h"

namespace ferry::data {
namespace {

constexpr size_t kRunsMax = 64;         // merged at once: open files, and a block of each
constexpr size_t kBlockRecords = 4096;  // read and written at once

/// A file of sorted records, read from its start.
class Run {
 public:
  static Result<Run> open(const std::string& path) {
    TRY_ASSIGN(FileReader file, FileReader::open(path));
    return Run(std::move(file));
  }

  Result<bool> next(Record& record) {
    if (at_ == block_.size()) {
      block_.resize(kBlockRecords);
      auto* bytes = reinterpret_cast<char*>(block_.data());
      const size_t size = kBlockRecords * sizeof(Record);
      size_t got = 0;
      while (got < size) {
        TRY_ASSIGN(const size_t n, file_.read(bytes + got, size - got));
        if (n == 0) break;
        got += n;
      }
      if (got % sizeof(Record) != 0)
        return fail(Code::kCorrupt, "{}: changed while it was in use", file_.path());
      block_.resize(got / sizeof(Record));
      at_ = 0;
      if (block_.empty()) return false;
    }
    record = block_[at_++];
    return true;
  }

 private:
  explicit Run(FileReader file) : file_(std::move(file)) {}
  FileReader file_;
  std::vector<Record> block_;
  size_t at_ = 0;
};

/// The records of several runs, in order.
class Merge {
 public:
  Result<void> add(const std::string& path) {
    TRY_ASSIGN(Run run, Run::open(path));
    runs_.push_back(std::move(run));
    return advance(runs_.size() - 1);
  }
  Result<bool> next(Record& record) {
    if (heads_.empty()) return false;
    const Head head = heads_.top();
    heads_.pop();
    record = head.record;
    TRY(advance(head.run));
    return true;
  }

 private:
  struct Head {
    Record record;
    size_t run;
    bool operator>(const Head& other) const { return record > other.record; }
  };
  Result<void> advance(size_t run) {
    Record record{};
    TRY_ASSIGN(const bool more, runs_[run].next(record));
    if (more) heads_.push({record, run});
    return {};
  }

  std::vector<Run> runs_;
  std::priority_queue<Head, std::vector<Head>, std::greater<>> heads_;
};

Result<void> write_records(FileWriter& file, const Record* records, size_t count) {
  return file.write(records, count * sizeof(Record));
}

}  // namespace

struct ExternalSort::State {
  std::string folder, name;
  size_t records_max;
  std::vector<Record> buffer;
  std::vector<std::string> runs;  // paths
  uint64_t files = 0;             // made so far
  bool finished = false;
  size_t at = 0;  // of buffer, once it is read
  Merge merge;

  std::string next_path() { return join_path(folder, fmt::format("{}-{:05}.sort", name, files++)); }

  Result<void> spill() {
    std::sort(buffer.begin(), buffer.end());
    const std::string path = next_path();
    runs.push_back(path);
    TRY_ASSIGN(FileWriter file, FileWriter::create(path));
    TRY(write_records(file, buffer.data(), buffer.size()));
    TRY(file.close());
    buffer.clear();
    if (runs.size() == kRunsMax) TRY(merge_runs());
    return {};
  }

  /// All runs become one.
  Result<void> merge_runs() {
    Merge all;
    for (const std::string& path : runs) TRY(all.add(path));
    const std::string path = next_path();
    runs.push_back(path);
    TRY_ASSIGN(FileWriter file, FileWriter::create(path));
    std::vector<Record> block;
    Record record{};
    for (;;) {
      TRY_ASSIGN(const bool more, all.next(record));
      if (more) block.push_back(record);
      if (block.size() == kBlockRecords || (!more && !block.empty())) {
        TRY(write_records(file, block.data(), block.size()));
        block.clear();
      }
      if (!more) break;
    }
    TRY(file.close());
    for (size_t i = 0; i + 1 < runs.size(); ++i) TRY(remove_tree(runs[i]));
    runs = {path};
    return {};
  }

  ~State() {
    // A file that stays is removed by the next prepare: there is nobody to tell.
    for (const std::string& path : runs) static_cast<void>(remove_tree(path));
  }
};

ExternalSort::ExternalSort(std::string folder, std::string name, size_t records)
    : state_(std::make_unique<State>()) {
  state_->folder = std::move(folder);
  state_->name = std::move(name);
  state_->records_max = records;
}
ExternalSort::ExternalSort(ExternalSort&&) noexcept = default;
ExternalSort& ExternalSort::operator=(ExternalSort&&) noexcept = default;
ExternalSort::~ExternalSort() = default;

Result<void> ExternalSort::add(const Record& record) {
  State& s = *state_;
  check(!s.finished, "external_sort: add after finish");
  s.buffer.push_back(record);
  return s.buffer.size() == s.records_max ? s.spill() : Result<void>();
}

Result<void> ExternalSort::finish() {
  State& s = *state_;
  check(!s.finished, "external_sort: finished twice");
  s.finished = true;
  if (s.runs.empty()) {
    std::sort(s.buffer.begin(), s.buffer.end());
    return {};
  }
  if (!s.buffer.empty()) TRY(s.spill());
  std::vector<Record>().swap(s.buffer);
  for (const std::string& path : s.runs) TRY(s.merge.add(path));
  return {};
}

Result<bool> ExternalSort::next(Record& record) {
  State& s = *state_;
  check(s.finished, "external_sort: next before finish");
  if (!s.runs.empty()) return s.merge.next(record);
  if (s.at == s.buffer.size()) return false;
  record = s.buffer[s.at++];
  return true;
}

}  // namespace ferry::data
