#include "checkpoint/checksums.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "base/json_fields.h"
#include "checkpoint/json.h"

namespace ferry {
namespace {

constexpr const char* kFormat = "ferry-checksums-1";
constexpr uint64_t kBytesMax = uint64_t{64} << 20;

}  // namespace

Result<Checksums> Checksums::open(const std::string& folder) {
  const std::string path = join_path(folder, kChecksumsName);
  Checksums sums;
  sums.folder_ = folder;
  TRY_ASSIGN(sums.text_, read_file(path, kBytesMax));
  TRY_ASSIGN(const nlohmann::json root, parse_json(sums.text_, path));
  JsonProblem problem;
  JsonFields f(root, path, problem);
  if (f.text("format") != kFormat) f.refuse("format", fmt::format("must be \"{}\"", kFormat));
  for (const auto& [name, entry] : f.members("files").items()) {
    if (!is_inside(name))
      return fail(Code::kCorrupt, "{}: {} points outside the folder", path, printable(name));
    JsonFields file(entry, fmt::format("{}: {}", path, printable(name)), problem);
    FileDigest digest{file.natural("bytes"), file.text("blake2b")};
    if (!digest_from_hex(digest.blake2b)) file.refuse("blake2b", "must be 64 hex digits");
    sums.files_[name] = std::move(digest);
  }
  TRY(problem.done());
  return sums;
}

std::string Checksums::to_json(const std::map<std::string, FileDigest>& files) {
  nlohmann::json list = nlohmann::json::object();
  for (const auto& [name, digest] : files)
    list[name] = {{"bytes", digest.bytes}, {"blake2b", digest.blake2b}};
  return json_text(nlohmann::json{{"format", kFormat}, {"files", list}}, 1) + "\n";
}

Result<bool> Checksums::leave_out(const std::string& subfolder) {
  const std::string prefix = subfolder + "/";
  const auto begin = files_.lower_bound(prefix);
  auto end = begin;
  for (; end != files_.end() && end->first.starts_with(prefix); ++end) {
    TRY_ASSIGN(const bool there, is_there(join_path(folder_, end->first)));
    if (there) return false;
  }
  const bool any = begin != end;
  files_.erase(begin, end);
  return any;
}

Result<void> Checksums::check_sizes() const {
  for (const auto& [name, digest] : files_) {
    const std::string path = join_path(folder_, name);
    TRY_ASSIGN(const bool there, is_there(path));
    if (!there)
      return fail(Code::kCorrupt,
                  "{}: missing, but listed in {}; restore it, or use another copy of the folder",
                  path,
                  kChecksumsName);
    TRY_ASSIGN(const uint64_t bytes, file_size(path));
    if (bytes != digest.bytes)
      return fail(Code::kCorrupt,
                  "{}: {} bytes, {} lists {}; it was changed or damaged: restore it",
                  path,
                  bytes,
                  kChecksumsName,
                  digest.bytes);
  }
  return {};
}

Result<void> Checksums::check_bytes(const std::string& relative, const void* data, size_t size) {
  if (right_.contains(relative)) return {};
  const std::string path = join_path(folder_, relative);
  const auto it = files_.find(relative);
  if (it == files_.end())
    return fail(Code::kCorrupt,
                "{}: not listed in {}, so it was put there later; remove it",
                path,
                kChecksumsName);
  if (it->second != FileDigest{size, blake2b_hex(data, size)})
    return fail(Code::kCorrupt,
                "{}: its content does not have the checksum in {}; it was changed or damaged: "
                "restore it, or, if you "
                "changed it on purpose, write the folder anew",
                path,
                kChecksumsName);
  right_.insert(relative);
  return {};
}

Result<void> Checksums::check_all() {
  TRY(check_sizes());
  for (const auto& [name, digest] : files_) {
    if (right_.contains(name)) continue;
    TRY_ASSIGN(const MappedFile file, MappedFile::open(join_path(folder_, name)));
    TRY(check_bytes(name, file.bytes().data(), file.bytes().size()));
  }
  return {};
}

}  // namespace ferry
