#include "checkpoint/staged_folder.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "base/check.h"
#include "base/hash.h"
#include "base/os_error.h"
#include "base/units.h"
#include "checkpoint/json.h"
#include "checkpoint/passport.h"

namespace ferry {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kKinds[] = {"tmp", "old", "trash"};

/// ".NAME.KIND." of the siblings of a destination.
std::string sibling_prefix(const std::string& destination, std::string_view kind) {
  return fmt::format(".{}.{}.", fs::path(destination).filename().string(), kind);
}

std::string new_sibling(const std::string& destination, std::string_view kind) {
  static std::atomic<unsigned> serial{0};
  return join_path(parent_folder(destination),
                   fmt::format("{}{}.{}", sibling_prefix(destination, kind), ::getpid(), serial++));
}

Result<std::vector<std::string>> siblings(const std::string& destination, std::string_view kind) {
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(parent_folder(destination)));
  const std::string prefix = sibling_prefix(destination, kind);
  std::vector<std::string> paths;
  for (const std::string& name : names)
    if (name.starts_with(prefix) &&
        is_process_and_serial(std::string_view(name).substr(prefix.size())))
      paths.push_back(join_path(parent_folder(destination), name));
  return paths;
}

/// Absolute, links resolved: a link to a folder must not itself be exchanged for a folder. The last
/// name is only asked whether it is a link, since what it names may be away for a moment.
Result<std::string> resolve(const std::string& destination) {
  constexpr int kLinksMax = 40;
  std::error_code error;
  fs::path path = fs::absolute(destination, error);
  for (int links = 0; !error; ++links) {
    if (path.filename().empty()) path = path.parent_path();
    if (path.filename() == "." || path.filename() == "..") path = fs::weakly_canonical(path, error);
    if (path.filename().empty())
      return fail(Code::kInvalidInput, "{}: cannot be replaced by a model", destination);
    path = fs::weakly_canonical(path.parent_path(), error) / path.filename();
    std::error_code no_link;
    const fs::path target = fs::read_symlink(path, no_link);
    if (error || no_link) break;
    if (links == kLinksMax) error = std::make_error_code(std::errc::too_many_symbolic_link_levels);
    path = path.parent_path() / target;
  }
  if (error)
    return fail(Code::kInvalidInput, "{}: not a usable path: {}", destination, error.message());
  return path.string();
}

/// Whether a folder is one of ours by what is in it: nothing, or checksums.json. A name alone is
/// nobody's: a person may have called his own so.
Result<bool> is_ours(const std::string& folder) {
  if (!is_folder(folder)) return false;
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  return names.empty() || std::find(names.begin(), names.end(), kChecksumsName) != names.end();
}

/// With the parent claimed. While the destination is there, ".old" folders are only in the way;
/// while it is not, there is at most one, and it is the destination.
Result<void> recover_claimed(const std::string& destination) {
  TRY_ASSIGN(const std::vector<std::string> old, siblings(destination, "old"));
  for (const std::string& path : old) {
    TRY_ASSIGN(const bool ours, is_ours(path));
    if (!ours) continue;
    TRY_ASSIGN(const bool there, is_there(destination));
    TRY(rename_path(path, there ? new_sibling(destination, "trash") : destination));
  }
  return {};
}

/// Removes a .tmp or .trash folder unless somebody alive writes or removes it.
Result<void> remove_abandoned(const std::string& path, bool is_trash) {
  const Result<std::optional<FolderClaim>> claim = FolderClaim::try_now(path);
  if (!claim && claim.error().code == Code::kNotFound) return {};
  if (!claim) return tl::unexpected(claim.error());
  if (!claim->has_value()) return {};
  if (!(*claim)->exclusive() && !is_trash)
    return fail(Code::kUnavailable,
                "{}: left there, since this file system cannot tell whether its writer is alive; "
                "remove it if nothing is being saved",
                path);
  return remove_tree(path);
}

}  // namespace

Result<void> check_replaceable(const std::string& destination) {
  TRY_ASSIGN(const bool there, is_there(destination));
  if (!there) return {};
  if (!is_folder(destination))
    return fail(
        Code::kInvalidInput, "{}: exists and is not a folder; choose another name", destination);
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(destination));
  if (names.empty()) return {};
  const Result<Checksums> sums = Checksums::open(destination);
  if (!sums)
    return fail(
        Code::kInvalidInput,
        "{}: exists and is not a folder that Ferry wrote ({}); choose another name, or remove it",
        destination,
        sums.error().message);
  std::error_code error;
  for (fs::recursive_directory_iterator it(destination, error), end; !error && it != end;
       it.increment(error)) {
    if (it->is_directory(error) && !it->is_symlink(error)) continue;
    const std::string relative = fs::path(it->path()).lexically_relative(destination).string();
    if (relative != kChecksumsName && relative != kPassportName && relative != kVerifiedName &&
        !sums->files().contains(relative))
      return fail(Code::kInvalidInput,
                  "{}: would be lost when {} is replaced or removed, and Ferry did not write it; "
                  "move it away",
                  it->path().string(),
                  destination);
  }
  if (error) return fail(Code::kUnavailable, "{}: cannot list: {}", destination, error.message());
  return {};
}

StagedFolder::StagedFolder(std::string destination, std::string path, FolderClaim claim)
    : destination_(std::move(destination)), path_(std::move(path)), claim_(std::move(claim)) {}

StagedFolder::StagedFolder(StagedFolder&& o) noexcept
    : destination_(std::move(o.destination_)),
      path_(std::move(o.path_)),
      claim_(std::move(o.claim_)),
      files_(std::move(o.files_)),
      subfolders_(std::move(o.subfolders_)),
      warnings_(std::move(o.warnings_)),
      published_(o.published_),
      done_(std::exchange(o.done_, true)) {}

StagedFolder::~StagedFolder() {
  // What cannot be removed now is a leftover, which the next writer removes or warns about.
  if (!done_) static_cast<void>(remove_tree(path_));
}

Result<StagedFolder> StagedFolder::create(const std::string& requested) {
  TRY_ASSIGN(const std::string destination, resolve(requested));
  TRY(make_folders(parent_folder(destination)));
  {
    // What another writer is just exchanging looks like no folder of ours.
    TRY_ASSIGN(const FolderClaim turn, FolderClaim::wait(parent_folder(destination)));
    TRY(recover_claimed(destination));
    TRY(check_replaceable(destination));
  }
  std::vector<std::string> warnings = remove_leftovers(destination);
  while (true) {
    const std::string path = new_sibling(destination, "tmp");
    TRY_ASSIGN(const bool made, create_folder(path));
    if (!made) continue;
    // Between these two lines another process may take the folder for a leftover: then try again.
    Result<std::optional<FolderClaim>> claim = FolderClaim::try_now(path);
    if (!claim && claim.error().code != Code::kNotFound) {
      static_cast<void>(remove_tree(path));
      return tl::unexpected(std::move(claim).error());
    }
    if (!claim || !*claim) continue;
    StagedFolder folder(destination, path, std::move(**claim));
    folder.warnings_ = std::move(warnings);
    return folder;
  }
}

Result<void> StagedFolder::make_subfolder(const std::string& name) {
  TRY(make_folders(file(name)));
  subfolders_.push_back(name);
  return {};
}

Result<void> StagedFolder::write_text(const std::string& relative, std::string_view text) {
  TRY_ASSIGN(FileWriter out, FileWriter::create(file(relative)));
  TRY(out.write(text));
  TRY(out.sync());
  TRY(out.close());
  add(relative, {.bytes = text.size(), .blake2b = blake2b_hex(text.data(), text.size())});
  return {};
}

void StagedFolder::add(const std::string& relative, FileDigest digest) {
  // The list of files is JSON: a name that is no UTF-8 would be listed as another one.
  check(relative != kChecksumsName && is_inside(relative) && json_quoted(relative).has_value(),
        "staged folder: a file named {}",
        printable(relative));
  check(files_.emplace(relative, std::move(digest)).second,
        "staged folder: {} is written twice",
        relative);
}

uint64_t StagedFolder::bytes() const {
  uint64_t sum = 0;
  for (const auto& [name, digest] : files_) sum += digest.bytes;
  return sum;
}

std::vector<std::string> StagedFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, digest] : files_) names.push_back(name);
  return names;
}

Result<void> StagedFolder::commit() {
  check(!done_, "staged folder: committed twice");
  const std::string sums = Checksums::to_json(files_);
  TRY_ASSIGN(FileWriter out, FileWriter::create(file(kChecksumsName)));
  TRY(out.write(sums));
  TRY(out.sync());
  TRY(out.close());
  for (const std::string& name : subfolders_) TRY(sync_folder(file(name)));
  TRY(sync_folder(path_));
  TRY(publish());
  done_ = true;
  claim_.reset();
  for (std::string& warning : remove_leftovers(destination_))
    warnings_.push_back(std::move(warning));
  return {};
}

namespace {

/// Known not to be there; an error is no answer.
bool is_gone(const std::string& path) {
  const Result<bool> there = is_there(path);
  return there && !*there;
}

}  // namespace

Result<void> StagedFolder::publish() {
  TRY_ASSIGN(const FolderClaim turn, FolderClaim::wait(parent_folder(destination_)));
  TRY(recover_claimed(destination_));
  TRY(check_replaceable(destination_));
  TRY_ASSIGN(const bool there, is_there(destination_));
  if (!there) {
    Result<void> moved = rename_path(path_, destination_);
    published_ = is_gone(path_);
    return moved;
  }
  if (exchange_paths(path_, destination_)) {  // path_ is the old folder now: a leftover
    published_ = true;
    return sync_folder(parent_folder(destination_));
  }
  const std::string old = new_sibling(destination_, "old");
  Result<void> moved = rename_path(destination_, old);
  if (moved) moved = rename_path(path_, destination_);
  published_ = is_gone(path_);
  if (!published_) {
    // Either rename may have failed, also only in its sync. Whatever happened, the old one goes
    // back.
    if (!is_gone(old) && is_gone(destination_)) {
      const Result<void> back = rename_path(old, destination_);
      if (!back && is_gone(destination_))
        return fail(
            back.error().code,
            "{}; and putting the previous one back failed, too: {}; it is whole in {}, and the "
            "next time it is opened or written it is put back",
            moved.error().message,
            back.error().message,
            old);
    }
    return moved;
  }
  TRY(rename_path(old, new_sibling(destination_, "trash")));
  return moved;
}

Result<void> recover_folder(const std::string& requested) {
  TRY_ASSIGN(const std::string destination, resolve(requested));
  TRY_ASSIGN(const std::vector<std::string> seen, siblings(destination, "old"));
  if (seen.empty()) return {};
  TRY_ASSIGN(const FolderClaim turn, FolderClaim::wait(parent_folder(destination)));
  return recover_claimed(destination);
}

Result<FolderClaim> keep_from_being_replaced(const std::string& requested) {
  TRY_ASSIGN(const std::string destination, resolve(requested));
  return FolderClaim::wait(parent_folder(destination));
}

std::vector<std::string> remove_leftovers(const std::string& destination) {
  std::vector<std::string> problems;
  for (const std::string_view kind : {"tmp", "trash"}) {
    const Result<std::vector<std::string>> paths = siblings(destination, kind);
    if (!paths) return {paths.error().message};
    for (const std::string& path : *paths)
      if (const Result<void> removed = remove_abandoned(path, kind == "trash"); !removed)
        problems.push_back(removed.error().message);
  }
  return problems;
}

Result<void> remove_folder(const std::string& path) {
  const std::string trash = new_sibling(path, "trash");
  {
    TRY_ASSIGN(const FolderClaim turn, FolderClaim::wait(parent_folder(path)));
    TRY(check_replaceable(path));
    TRY(rename_path(path, trash));
  }
  return remove_abandoned(trash, true);
}

std::optional<std::string> leftover_of(std::string_view name) {
  if (!name.starts_with('.')) return std::nullopt;
  for (const std::string_view kind : kKinds) {
    const std::string infix = fmt::format(".{}.", kind);
    const size_t at = name.rfind(infix);
    if (at != name.npos && at > 1 && is_process_and_serial(name.substr(at + infix.size())))
      return std::string(name.substr(1, at - 1));
  }
  return std::nullopt;
}

Result<void> require_space(const std::string& folder, uint64_t bytes) {
  TRY_ASSIGN(const uint64_t available, free_disk_bytes(folder));
  const uint64_t needed = bytes + bytes / 100;
  if (needed <= available) return {};
  return fail(Code::kExhausted,
              "{}: saving needs {}, {} are free; nothing was written: {}, or choose another folder",
              folder,
              format_bytes(static_cast<double>(needed)),
              format_bytes(static_cast<double>(available)),
              kFreeSpace);
}

}  // namespace ferry
