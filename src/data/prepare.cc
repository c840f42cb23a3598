#include "data/prepare.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/check.h"
#include "base/counted.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/input_file.h"
#include "base/threads.h"
#include "data/external_sort.h"
#include "data/near_duplicates.h"
#include "data/shard.h"
#include "text/tokenizer.h"

namespace ferry::data {
namespace {

using text::Tokenizer;

constexpr size_t kBatchBytes = size_t{4} << 20;         // of text tokenised at once
constexpr size_t kTaskBytes = size_t{128} << 10;        // of text for one thread
constexpr const char* kHashesName = ".prepare-hashes";  // of the files that sorting needs
constexpr const char* kRepeatedName = ".prepare-repeated";
constexpr uint64_t kShardDocumentsMax = uint64_t{1} << 20;  // bounds the table that a writer holds

struct HeldOutDocument {
  uint64_t index;  // among all documents
  std::string text;
};

/// Reads all inputs as one stream of pieces.
class Inputs {
 public:
  /// `taken`: which conversations the first reading took, in their order; nullptr: this is the first.
  Inputs(const PrepareOptions& options,
         PrepareProgress::Phase phase,
         uint64_t total,
         const std::vector<bool>* taken = nullptr)
      : options_(options), progress_{phase, 0, total, 0}, taken_before_(taken) {}

  Result<bool> next(Piece& piece) {
    for (;;) {
      if (!reader_) {
        if (files_.size() == options_.inputs.size()) return false;
        SourceOptions source = options_.source;
        source.text.skipped = skipped_;
        if (options_.conversations)
          source.takes = [this](std::string_view line) { return take(line); };
        TRY_ASSIGN(reader_, DocumentReader::open(options_.inputs[files_.size()], source));
        documents_ = 0;
      }
      TRY_ASSIGN(const bool more, reader_->next(piece));
      progress_.done = before_ + reader_->file_bytes_read();
      if (more) {
        progress_.text_bytes += piece.text.size();
        documents_ += piece.last;
        return true;
      }
      files_.push_back({options_.inputs[files_.size()],
                        reader_->file_bytes_read(),
                        reader_->file_hash(),
                        documents_,
                        reader_->damage()});
      skipped_ += reader_->damage().skipped;
      before_ = progress_.done;
      reader_.reset();
    }
  }

  const PrepareProgress& progress() const { return progress_; }
  const std::vector<InputInfo>& files() const { return files_; }  // those read to their end
  std::vector<bool>& taken() { return taken_; }                   // conversations, so far

 private:
  /// Conversations are rendered once to see whether they can be; the second reading remembers it.
  Result<void> take(std::string_view line) {
    if (taken_before_ != nullptr) {
      const size_t number = second_++;
      if (number >= taken_before_->size() || !(*taken_before_)[number])
        return fail(Code::kInvalidInput, "was not taken when it was read first");
      return {};
    }
    const Result<std::vector<text::Lesson>> lessons = options_.conversations->lessons(line);
    taken_.push_back(lessons.has_value());
    if (!lessons) return tl::unexpected(lessons.error());
    return {};
  }

  const PrepareOptions& options_;
  PrepareProgress progress_;
  std::optional<DocumentReader> reader_;
  std::vector<InputInfo> files_;
  uint64_t before_ = 0, documents_ = 0, skipped_ = 0;
  std::vector<bool> taken_;
  const std::vector<bool>* taken_before_;
  size_t second_ = 0;
};

/// What the first reading finds out.
struct Survey {
  std::vector<InputInfo> files;
  uint64_t documents = 0;
  std::optional<ExternalSort> repeated;          // by index: documents that an earlier one equals
  std::map<uint64_t, HeldOutDocument> held_out;  // by hash, ascending
  uint64_t held_out_bytes = 0;
  uint64_t bytes = 0, duplicates = 0;
  std::vector<bool> taken;  // of conversations

  /// Indices, ascending.
  std::vector<uint64_t> held_out_indices() const {
    std::vector<uint64_t> indices;
    for (const auto& [hash, document] : held_out) indices.push_back(document.index);
    std::sort(indices.begin(), indices.end());
    return indices;
  }

  void forget(std::map<uint64_t, HeldOutDocument>::iterator document) {
    held_out_bytes -= document->second.text.size();
    held_out.erase(document);
  }

  /// Forgets the largest hashes without which there is enough. Never the other way: a document
  /// that is forgotten does not come back with any number of further documents, nor when its
  /// equal is met.
  void trim(uint64_t wanted) {
    while (!held_out.empty() && held_out_bytes - held_out.rbegin()->second.text.size() >= wanted)
      forget(std::prev(held_out.end()));
  }
};

/// The hash by which documents are told apart and held out: 64 bits of BLAKE2b under the seed.
class DocumentHash {
 public:
  explicit DocumentHash(uint64_t seed) { hasher_.update(&seed, sizeof seed); }
  void update(std::string_view text) { hasher_.update(text.data(), text.size()); }
  uint64_t value() { return std::stoull(hasher_.hex().substr(0, 16), nullptr, 16); }

 private:
  Hasher hasher_;
};

void report(const PrepareOptions& options, const Inputs& inputs) {
  if (options.progress) options.progress(inputs.progress());
}

/// Near-duplicates will be taken from what is held out: hold out an eighth more than asked for.
uint64_t with_margin(const PrepareOptions& options, uint64_t bytes) {
  return options.near_duplicate <= 1 ? bytes + bytes / 8 : bytes;
}

/// Finds the documents that an earlier one equals: neighbours, once the hashes are sorted.
Result<void> find_repeated(const PrepareOptions& options, ExternalSort& hashes, Survey& s) {
  TRY(hashes.finish());
  s.repeated.emplace(options.out, kRepeatedName, options.sort_records);
  Record record{}, before{};
  bool first = true;
  for (;; before = record, first = false) {
    TRY_ASSIGN(const bool more, hashes.next(record));
    if (!more) break;
    if (first || record.key != before.key) continue;
    ++s.duplicates;
    TRY(s.repeated->add({record.value, 0}));
    // Its equal came in several pieces, so it was not held out; this one may not be either.
    const auto held = s.held_out.find(record.key);
    if (held != s.held_out.end() && held->second.index == record.value) s.forget(held);
  }
  return s.repeated->finish();
}

Result<Survey> survey(const PrepareOptions& options, uint64_t total) {
  constexpr uint64_t kReportEvery = uint64_t{1} << 20;
  Inputs inputs(options, PrepareProgress::Phase::kScan, total);
  Survey s;
  ExternalSort hashes(options.out, kHashesName, options.sort_records);
  Piece piece;
  std::optional<DocumentHash> hash;
  bool one_piece = true;
  uint64_t next_report = 0;
  for (;;) {
    TRY_ASSIGN(const bool more, inputs.next(piece));
    if (inputs.progress().text_bytes >= next_report || !more) {
      report(options, inputs);
      next_report = inputs.progress().text_bytes + kReportEvery;
    }
    if (!more) break;
    const bool first = !hash;
    if (first) hash.emplace(options.seed);
    hash->update(piece.text);
    one_piece = first && piece.last;
    if (!piece.last) continue;
    const uint64_t value = hash->value();
    hash.reset();
    const uint64_t index = s.documents++;
    if (!options.keep_duplicates) TRY(hashes.add({value, index}));
    if (one_piece && options.held_out_bytes > 0 && !s.held_out.contains(value)) {
      s.held_out_bytes += piece.text.size();
      s.held_out.emplace(value, HeldOutDocument{index, std::move(piece.text)});
      s.trim(with_margin(options, options.held_out_bytes));
    }
  }
  s.files = inputs.files();
  s.taken = std::move(inputs.taken());
  s.bytes = inputs.progress().text_bytes;
  if (!options.keep_duplicates) TRY(find_repeated(options, hashes, s));
  s.trim(
      with_margin(options, std::max<uint64_t>(1, std::min(options.held_out_bytes, s.bytes / 10))));
  return s;
}

/// Text on its way to tokens.
struct Batch {
  struct Item {
    size_t begin, end;  // in `text`
    bool last;          // ends its document
  };
  std::string text;
  std::vector<Item> items;
  std::vector<size_t> task_begin;  // first item of each task, and one past the last item
};

/// Reads the training documents of the inputs, in batches.
class TrainingText {
 public:
  TrainingText(const PrepareOptions& options, Survey& s, uint64_t total)
      : survey_(s),
        inputs_(options, PrepareProgress::Phase::kTokenise, total, &s.taken),
        held_out_(s.held_out_indices()) {}

  /// An empty batch at the end. Errors: also kInvalidInput if the inputs are not what they were.
  Result<void> fill(Batch& batch) {
    batch.text.clear();
    batch.text.reserve(kBatchBytes + kPieceBytes);
    batch.items.clear();
    batch.task_begin.clear();
    Piece piece;
    size_t task_begin = 0;
    while (batch.text.size() < kBatchBytes) {
      TRY_ASSIGN(const bool more, inputs_.next(piece));
      TRY(compare_files());
      if (!more) break;
      if (document_ >= survey_.documents) return changed(survey_.files.back().path);
      TRY_ASSIGN(const bool trains, trained_on());
      document_ += piece.last;
      if (!trains) continue;
      if (batch.items.empty() || batch.text.size() - task_begin >= kTaskBytes) {
        batch.task_begin.push_back(batch.items.size());
        task_begin = batch.text.size();
      }
      batch.items.push_back({batch.text.size(), batch.text.size() + piece.text.size(), piece.last});
      batch.text += piece.text;
    }
    batch.task_begin.push_back(batch.items.size());
    return {};
  }

  const Inputs& inputs() const { return inputs_; }

 private:
  static tl::unexpected<Status> changed(const std::string& path) {
    return fail(
        Code::kInvalidInput,
        "{}: changed while it was being prepared; let no one write to it, and prepare again",
        path);
  }
  /// Whether the current document is neither held out nor a repetition. Both come in order.
  Result<bool> trained_on() {
    while (survey_.repeated && (!repeated_ || *repeated_ < document_)) {
      Record record{};
      TRY_ASSIGN(const bool more, survey_.repeated->next(record));
      repeated_ = more ? record.key : UINT64_MAX;
    }
    while (held_out_at_ < held_out_.size() && held_out_[held_out_at_] < document_) ++held_out_at_;
    const bool held_out = held_out_at_ < held_out_.size() && held_out_[held_out_at_] == document_;
    return !held_out && repeated_ != document_;
  }
  Result<void> compare_files() {
    for (; compared_ < inputs_.files().size(); ++compared_)
      if (inputs_.files()[compared_].blake2b != survey_.files[compared_].blake2b)
        return changed(survey_.files[compared_].path);
    return {};
  }

  Survey& survey_;
  Inputs inputs_;
  std::vector<uint64_t> held_out_;
  size_t held_out_at_ = 0;
  std::optional<uint64_t> repeated_;  // the next one from document_ on; UINT64_MAX: none
  size_t compared_ = 0;
  uint64_t document_ = 0;
};

/// Writes documents into as many shards as they need.
class PartWriter {
 public:
  PartWriter(const PrepareOptions& options,
             const Tokenizer& tokenizer,
             int32_t eos,
             const char* name)
      : options_(options), tokenizer_(tokenizer), eos_(eos), name_(name) {}

  /// A whole document.
  Result<void> append(const text::Lesson& lesson) {
    check(lesson.ids.size() > 1, "prepare: a lesson of {} tokens", lesson.ids.size());
    TRY(begin());
    TRY(shard_->append(lesson.ids, lesson.learnt));
    uint64_t bytes = 0;
    for (size_t i = 1; i < lesson.ids.size(); ++i)
      if (lesson.learnt[i] && !tokenizer_.is_special(lesson.ids[i]))
        bytes += tokenizer_.token_bytes(lesson.ids[i]).size();
    return end_document(bytes);
  }

  /// Appends part of a document: tokens, and the text they came from.
  Result<void> append(std::span<const int32_t> tokens, uint64_t text_bytes, bool last) {
    TRY(begin());
    TRY(shard_->append(tokens));
    document_bytes_ += text_bytes;
    for (const int32_t token : tokens) token_bytes_ += tokenizer_.token_bytes(token).size();
    if (!last) return {};
    TRY(shard_->append({&eos_, 1}));
    exact_ = exact_ && token_bytes_ == document_bytes_;
    const uint64_t bytes = document_bytes_;
    document_bytes_ = token_bytes_ = 0;
    return end_document(bytes);
  }

  Result<Part> finish() {
    if (shard_) TRY(finish_shard());
    return std::move(part_);
  }

  bool exact() const { return exact_; }

 private:
  /// Opens a shard if none is.
  Result<void> begin() {
    if (!shard_) {
      const std::string file = fmt::format("{}-{:05}.tok", name_, part_.shards.size());
      TRY_ASSIGN(shard_,
                 ShardWriter::create(join_path(options_.out, file),
                                     tokenizer_.vocab_size(),
                                     options_.conversations.has_value()));
      part_.shards.push_back({.file = file});
    }
    return {};
  }

  Result<void> end_document(uint64_t text_bytes) {
    shard_->end_document(text_bytes);
    const uint64_t bytes = shard_->tokens() * shard_->token_bytes();
    if (bytes < options_.shard_bytes && shard_->documents() < kShardDocumentsMax) return {};
    return finish_shard();
  }
  Result<void> finish_shard() {
    const std::string file = part_.shards.back().file;
    TRY_ASSIGN(part_.shards.back(), shard_->finish());
    part_.shards.back().file = file;
    shard_.reset();
    return {};
  }

  const PrepareOptions& options_;
  const Tokenizer& tokenizer_;
  int32_t eos_;
  const char* name_;
  Part part_;
  std::optional<ShardWriter> shard_;
  uint64_t document_bytes_ = 0, token_bytes_ = 0;
  bool exact_ = true;
};

/// The tokens of the items of one task.
struct Tokens {
  std::vector<int32_t> ids;
  std::vector<size_t> ends;                        // of each item
  std::vector<std::vector<text::Lesson>> lessons;  // of each item, if they are conversations
  Result<void> failed;
  std::vector<uint64_t> shingles;
};

/// Tokenises batch after batch: while one is worked on by all threads, one of them reads the next.
Result<void> write_training(const PrepareOptions& options,
                            const Tokenizer& tokenizer,
                            TrainingText& text,
                            OverlapIndex& overlap,
                            PartWriter& writer) {
  ThreadPool pool(options.threads);
  Batch current, next;
  std::vector<Tokens> results;
  TRY(text.fill(current));
  while (!current.items.empty()) {
    const size_t tasks = current.task_begin.size() - 1;
    if (results.size() < tasks) results.resize(tasks);
    Result<void> read;
    pool.parallel_for(static_cast<int64_t>(tasks) + 1, [&](int64_t number, int) {
      if (number == 0) {
        read = text.fill(next);
        return;
      }
      const size_t task = static_cast<size_t>(number) - 1;
      Tokens& out = results[task];
      out.ids.clear();
      out.ends.clear();
      out.lessons.clear();
      out.failed = {};
      for (size_t i = current.task_begin[task]; i < current.task_begin[task + 1]; ++i) {
        const Batch::Item& item = current.items[i];
        const std::string_view piece =
            std::string_view(current.text).substr(item.begin, item.end - item.begin);
        overlap.see(piece, out.shingles);
        if (options.conversations) {
          Result<std::vector<text::Lesson>> lessons = options.conversations->lessons(piece);
          if (lessons)
            out.lessons.push_back(*std::move(lessons));
          else
            out.failed = tl::unexpected(lessons.error());
          continue;
        }
        tokenizer.encode(piece, Tokenizer::Specials::kPlain, out.ids);
        out.ends.push_back(out.ids.size());
      }
    });
    for (size_t task = 0; task < tasks; ++task) {
      const Tokens& done = results[task];
      TRY(done.failed);
      for (const std::vector<text::Lesson>& lessons : done.lessons)
        for (const text::Lesson& lesson : lessons) TRY(writer.append(lesson));
      for (size_t k = 0, begin = 0; k < done.ends.size(); begin = done.ends[k++]) {
        const Batch::Item& item = current.items[current.task_begin[task] + k];
        TRY(writer.append(std::span(done.ids).subspan(begin, done.ends[k] - begin),
                          item.end - item.begin,
                          item.last));
      }
    }
    TRY(read);
    report(options, text.inputs());
    std::swap(current, next);
  }
  return {};
}

Result<int32_t> find_token(const Tokenizer& tokenizer,
                           const std::string& path,
                           const char* option,
                           const std::string& wanted,
                           std::initializer_list<const char*> usual) {
  if (!wanted.empty()) {
    if (const std::optional<int32_t> id = tokenizer.token_id(wanted)) return *id;
    return fail(Code::kInvalidInput, "{}: has no token '{}', which {} names", path, wanted, option);
  }
  for (const char* name : usual)
    if (const std::optional<int32_t> id = tokenizer.token_id(name); id && tokenizer.is_special(*id))
      return *id;
  return fail(Code::kInvalidInput,
              "{}: has no special token of a usual name ({}); name it with {}",
              path,
              fmt::format("{} ...", *usual.begin()),
              option);
}

/// "<first>-00000<last>", with any number of five digits or more.
bool is_numbered(std::string_view name, std::string_view first, std::string_view last) {
  if (!name.starts_with(first) || !name.ends_with(last)) return false;
  if (name.size() < first.size() + 6 + last.size() || name[first.size()] != '-') return false;
  name = name.substr(first.size() + 1, name.size() - first.size() - 1 - last.size());
  return name.find_first_not_of("0123456789") == std::string_view::npos;
}

bool is_shard(std::string_view name) {
  return is_numbered(name, "train", ".tok") || is_numbered(name, "held-out", ".tok");
}

/// Whether the name is one that a prepare gives, tokenizer.json's aside.
bool is_removable(std::string_view name) {
  const auto temporary_of = [&](std::string_view file) {
    constexpr std::string_view kTemporary = ".tmp.";
    if (!name.starts_with(file)) return false;
    const std::string_view rest = name.substr(file.size());
    return rest.starts_with(kTemporary) && is_process_and_serial(rest.substr(kTemporary.size()));
  };
  return is_shard(name) || name == kManifestFile || name == kHeldOutTextFile ||
         temporary_of(kManifestFile) || temporary_of(kTokenizerFile);
}

/// A file that sorting needed in a prepare that was killed.
bool is_sort_file(std::string_view name) {
  return is_numbered(name, kHashesName, ".sort") || is_numbered(name, kRepeatedName, ".sort");
}

Result<void> remove_sort_files(const std::string& folder) {
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  for (const std::string& name : names)
    if (is_sort_file(name)) TRY(remove_tree(join_path(folder, name)));
  return {};
}

/// Where a dataset is written before it takes the place of another: in the folder itself, on its disk and under its
/// lock.
constexpr const char* kNextFolder = ".next";

/// Removes what an earlier prepare left, its manifest first: what is half removed must not look
/// whole. The tokenizer goes before the shards, by which the next prepare knows whose it is, should
/// this one be killed; but not if it is the very file that options.tokenizer names.
Result<void> remove_dataset(const PrepareOptions& options) {
  const std::string& folder = options.out;
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  TRY(remove_tree(join_path(folder, kManifestFile)));
  TRY(sync_folder(folder));
  const bool ours = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name == kManifestFile || is_shard(name);
  });
  const std::string tokenizer = join_path(folder, kTokenizerFile);
  std::error_code none;
  if (ours && !std::filesystem::equivalent(tokenizer, options.tokenizer, none))
    TRY(remove_tree(tokenizer));
  for (const std::string& name : names)
    if (is_removable(name)) TRY(remove_tree(join_path(folder, name)));
  return {};
}

/// Files with a dataset's names: what a prepare wrote, be it that it was killed, may be written
/// over, what a user put there may not. Shards and manifests say themselves what they are, and
/// speak for the files beside them.
Result<void> check_contents(const PrepareOptions& options, const std::vector<std::string>& names) {
  bool ours = false;
  const auto foreign = [&](const std::string& name) {
    return fail(
        Code::kInvalidInput,
        "{}: holds '{}', which no ferry data prepare wrote; choose an empty or a new folder",
        options.out,
        name);
  };
  for (const std::string& name : names) {
    if (name == kManifestFile) {
      TRY_ASSIGN(const std::string manifest, read_file(join_path(options.out, name)));
      if (!Manifest::is_manifest(manifest)) return foreign(name);
      ours = true;
    }
    if (!is_shard(name)) continue;
    ours = true;
    TRY_ASSIGN(FileReader reader, FileReader::open(join_path(options.out, name)));
    char begin[8] = {};
    TRY_ASSIGN(const size_t size, reader.read(begin, sizeof begin));
    if (size > 0 && std::string_view(begin, size) != std::string_view(kShardMagic).substr(0, size))
      return foreign(name);
  }
  for (const std::string& name : names) {
    if (ours) break;
    if (name == kHeldOutTextFile) return foreign(name);
    if (name != kTokenizerFile) continue;
    TRY_ASSIGN(const std::string there, read_file(join_path(options.out, name)));
    TRY_ASSIGN(const std::string given, read_file(options.tokenizer));
    if (there != given) return foreign(name);
  }
  return {};
}

/// Whether the folder holds nothing but a dataset, whole or in part, and what may lie beside it.
Result<void> check_names(const PrepareOptions& options,
                         const std::vector<std::string>& names,
                         std::initializer_list<std::string_view> beside) {
  TRY(check_contents(options, names));
  for (const std::string& name : names)
    if (name != kTokenizerFile && !is_removable(name) && !is_sort_file(name) &&
        std::find(beside.begin(), beside.end(), name) == beside.end())
      return fail(Code::kInvalidInput,
                  "{}: holds '{}', which is no dataset's; choose an empty or a new folder",
                  options.out,
                  name);
  return {};
}

/// The same options for the dataset that is written aside.
PrepareOptions next_to(const PrepareOptions& options) {
  PrepareOptions next = options;
  next.out = join_path(options.out, kNextFolder);
  return next;
}

/// The files of `next` take their places; the manifest comes last.
Result<void> move_up(const std::string& next, const std::string& folder) {
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(next));
  for (const std::string& name : names)
    if (name != kManifestFile) TRY(rename_path(join_path(next, name), join_path(folder, name)));
  return rename_path(join_path(next, kManifestFile), join_path(folder, kManifestFile));
}

/// Where a prepare was killed between a dataset's end and the new one's place, the new one gets it. The old one's files
/// went before any of the new one's came: what the new manifest names, and is not in `next` any more, has come.
Result<void> finish_replacement(const std::string& next, const std::string& folder) {
  const std::string path = join_path(next, kManifestFile);
  TRY_ASSIGN(const bool old, is_there(join_path(folder, kManifestFile)));
  TRY_ASSIGN(const bool whole, is_there(path));
  if (old || !whole) return {};
  TRY_ASSIGN(const std::string text, read_file(path));
  TRY_ASSIGN(const Manifest manifest, Manifest::parse(text, path));
  std::set<std::string> own = {kTokenizerFile, kHeldOutTextFile};
  for (const Part* part : {&manifest.train, &manifest.held_out})
    for (const ShardInfo& shard : part->shards) own.insert(shard.file);
  TRY_ASSIGN(const std::vector<std::string> there, list_folder(folder));
  for (const std::string& name : there)
    if (is_removable(name) && !own.contains(name)) TRY(remove_tree(join_path(folder, name)));
  TRY(move_up(next, folder));
  return remove_tree(next);
}

/// Refuses what is not a dataset's; what a prepare before this one left half done is done.
Result<void> take_folder(const PrepareOptions& options) {
  for (const std::string& input : options.inputs) {
    std::error_code none;  // a path that does not exist is told of when it is opened
    if (std::filesystem::equivalent(parent_folder(input), options.out, none))
      return fail(
          Code::kInvalidInput,
          "{}: lies in the folder that the dataset is to have for itself; choose another --out",
          input);
    TRY(check_rereadable(input, "what is prepared is read twice"));
  }
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(options.out));
  TRY(check_names(options, names, {".lock", kNextFolder}));
  const PrepareOptions next = next_to(options);
  std::error_code none;
  if (std::filesystem::is_directory(std::filesystem::symlink_status(next.out, none))) {
    TRY_ASSIGN(const std::vector<std::string> left, list_folder(next.out));
    TRY(check_names(next, left, {}));
    TRY(finish_replacement(next.out, options.out));
  } else if (path_exists(next.out)) {
    return fail(Code::kInvalidInput,
                "{}: is no folder; take it elsewhere, or choose another folder",
                next.out);
  }
  TRY_ASSIGN(const bool there, is_there(join_path(options.out, kManifestFile)));
  if (!options.force && there)
    return fail(Code::kInvalidInput,
                "{}: holds a dataset; choose another folder, or replace it with --force",
                options.out);
  return {};
}

Result<void> check_options(const PrepareOptions& options) {
  if (options.inputs.empty())
    return fail(Code::kInvalidInput, "no input: name at least one text file");
  if (options.held_out_bytes > kHeldOutBytesMax)
    return fail(Code::kInvalidInput,
                "--held-out-bytes {}: at most {}, which is held in memory",
                options.held_out_bytes,
                kHeldOutBytesMax);
  if (!(options.near_duplicate > 0))
    return fail(Code::kInvalidInput,
                "--near-duplicate {}: must be above 0 (and above 1 to keep all)",
                options.near_duplicate);
  if (options.source.min_document_bytes > kPieceBytes / 2)
    return fail(Code::kInvalidInput,
                "--min-document-bytes {}: at most {}",
                options.source.min_document_bytes,
                kPieceBytes / 2);
  if (options.shard_bytes < 4096)
    return fail(Code::kInvalidInput, "--shard-bytes {}: at least 4096", options.shard_bytes);
  return {};
}

/// The held-out part: tokens, and the same documents as text.
Result<void> write_held_out(const PrepareOptions& options,
                            const Tokenizer& tokenizer,
                            const Survey& s,
                            const OverlapIndex& overlap,
                            Manifest& m) {
  PartWriter writer(options, tokenizer, m.eos, "held-out");
  TRY_ASSIGN(FileWriter text, FileWriter::create(join_path(options.out, kHeldOutTextFile)));
  Hasher hasher;
  std::vector<int32_t> ids;
  for (const auto& [hash, document] : s.held_out) {
    if (options.near_duplicate <= 1 &&
        overlap.share_seen(document.text) >= options.near_duplicate) {
      ++m.near_duplicates;
      continue;
    }
    if (options.conversations) {
      TRY_ASSIGN(const auto lessons, options.conversations->lessons(document.text));
      for (const text::Lesson& lesson : lessons) TRY(writer.append(lesson));
    } else {
      ids.clear();
      tokenizer.encode(document.text, Tokenizer::Specials::kPlain, ids);
      TRY(writer.append(ids, document.text.size(), true));
    }
    TRY(text.write(document.text));
    hasher.update(document.text.data(), document.text.size());
  }
  TRY(text.sync());
  TRY(text.close());
  m.held_out_text_blake2b = hasher.hex();
  TRY_ASSIGN(m.held_out, writer.finish());
  m.token_bytes_exact = m.token_bytes_exact && writer.exact();
  return {};
}

/// All that is known before anything is written.
struct Plan {
  std::string tokenizer_json;
  Tokenizer tokenizer;
  Manifest manifest;  // as far as known
  Survey survey;
  uint64_t file_bytes = 0;  // of all inputs
};

Result<Plan> make_plan(const PrepareOptions& options) {
  TRY_ASSIGN(std::string tokenizer_json, read_file(options.tokenizer));
  TRY_ASSIGN(Tokenizer tokenizer, Tokenizer::parse(tokenizer_json, options.tokenizer));
  Manifest m;
  m.tokenizer_blake2b = blake2b_hex(tokenizer_json.data(), tokenizer_json.size());
  m.vocab_size = tokenizer.vocab_size();
  TRY_ASSIGN(
      m.eos,
      find_token(tokenizer,
                 options.tokenizer,
                 "--eos",
                 options.eos,
                 {"<|eos|>", "<｜end▁of▁sentence｜>", "<|end_of_text|>", "<|endoftext|>", "</s>"}));
  // Tokenizers without a begin token (Qwen2, GPT-2) begin a text after the end of another.
  const auto bos = find_token(tokenizer,
                              options.tokenizer,
                              "--bos",
                              options.bos,
                              {"<|bos|>", "<｜begin▁of▁sentence｜>", "<|begin_of_text|>", "<s>"});
  if (!bos && !options.bos.empty()) return tl::unexpected(bos.error());
  m.bos = bos ? *bos : m.eos;
  if (options.conversations) m.chat_template_blake2b = options.conversations->template_blake2b;
  m.split = split_name(options.source);
  m.field = options.source.field;
  m.min_document_bytes = options.source.min_document_bytes;
  m.held_out_bytes = options.held_out_bytes;
  m.near_duplicate = options.near_duplicate;
  m.text_options = options.source.text;
  m.seed = options.seed;

  uint64_t total = 0;
  for (const std::string& path : options.inputs) {
    TRY(FileReader::open(path));  // says of what is no file what it is
    TRY_ASSIGN(const uint64_t size, file_size(path));
    total += size;
  }
  TRY_ASSIGN(Survey s, survey(options, total));
  m.inputs = s.files;
  m.duplicates = s.duplicates;
  const uint64_t taken = s.documents - s.duplicates;
  if (taken <= s.held_out.size())
    return fail(Code::kInvalidInput,
                "{}: {} in {} bytes of text: nothing is left to train on; give more text, a finer "
                "--split, or --held-out-bytes 0",
                options.inputs.front(),
                counted(taken, "document"),
                s.bytes);
  if (options.held_out_bytes > 0 && s.held_out.empty())
    return fail(
        Code::kInvalidInput,
        "{}: every document is longer than {} bytes, too long to hold one out; choose a finer "
        "--split, or --held-out-bytes 0",
        options.inputs.front(),
        kPieceBytes);
  return Plan{std::move(tokenizer_json), std::move(tokenizer), std::move(m), std::move(s), total};
}

Result<Manifest> write_dataset(const PrepareOptions& options, Plan plan) {
  const Tokenizer& tokenizer = plan.tokenizer;
  Survey& s = plan.survey;
  Manifest& m = plan.manifest;
  std::vector<std::string_view> held_out_texts;
  if (options.near_duplicate <= 1)
    for (const auto& [hash, document] : s.held_out) held_out_texts.push_back(document.text);
  OverlapIndex overlap(held_out_texts);
  TrainingText text(options, s, plan.file_bytes);
  PartWriter writer(options, tokenizer, m.eos, "train");
  TRY(write_training(options, tokenizer, text, overlap, writer));
  TRY_ASSIGN(m.train, writer.finish());
  m.token_bytes_exact = writer.exact();
  TRY(write_held_out(options, tokenizer, s, overlap, m));
  TRY(write_file_atomic(join_path(options.out, kTokenizerFile), plan.tokenizer_json));
  TRY(sync_folder(options.out));
  TRY(write_file_atomic(join_path(options.out, kManifestFile), m.to_json()));
  return std::move(plan.manifest);
}

/// What is whole takes the place of what is there, which stays whole until this moment. Killed in between, the next
/// prepare finishes it.
Result<void> put_in_place(const PrepareOptions& options, const std::string& next) {
  const auto replace = [&]() -> Result<void> {
    TRY(remove_dataset(options));
    return move_up(next, options.out);
  };
  Result<void> done = replace();
  if (!done)
    done.error().message += fmt::format(
        "; the dataset is whole, but a part of it lies still in {}: the next ferry data prepare "
        "moves it",
        next);
  return done;
}

}  // namespace

Result<Manifest> prepare(const PrepareOptions& options) {
  TRY(check_options(options));
  TRY_ASSIGN(const FolderLock lock, FolderLock::acquire(options.out));
  if (!lock.exclusive() && options.note)
    options.note(fmt::format(
        "{}: its file system cannot lock files, so nothing keeps another ferry data prepare out "
        "of this folder: start none",
        options.out));
  TRY(take_folder(options));
  std::optional<FileHold> hold;  // from before the work: whoever reads it is to be told at once
  if (const std::string manifest = join_path(options.out, kManifestFile); path_exists(manifest)) {
    Result<FileHold> alone = FileHold::alone(manifest);
    if (!alone)
      return fail(
          alone.error().code,
          "{}; the dataset is not replaced: wait for that, stop it, or choose another folder",
          alone.error().message);
    hold = *std::move(alone);
  }
  TRY(remove_sort_files(options.out));
  TRY(remove_tree(next_to(options).out));
  TRY_ASSIGN(Plan plan, make_plan(options));
  const PrepareOptions next = next_to(options);
  TRY(make_folders(next.out));
  Result<Manifest> result = write_dataset(next, std::move(plan));
  if (result) {
    if (const Result<void> placed = put_in_place(options, next.out); !placed)
      return tl::unexpected(placed.error());
  }
  // Partial shards may be what filled the disk. The first failure is the one to tell.
  const Result<void> removed = remove_tree(next.out);
  if (!result && !removed)
    result.error().message += fmt::format("; and {}", removed.error().message);
  return result;
}

}  // namespace ferry::data
