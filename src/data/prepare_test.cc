#include "data/prepare.h"

#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/fault.h"
#include "base/file.h"
#include "data/data_testing.h"
#include "data/dataset.h"
#include "data/near_duplicates.h"

namespace ferry::data {
namespace {

/// Options for one document a line.
PrepareOptions line_options(const TestFolder& folder, std::vector<std::string> inputs) {
  PrepareOptions options;
  options.inputs = std::move(inputs);
  options.out = folder / "dataset";
  options.tokenizer = folder.write("tokenizer.json", tokenizer_json());
  options.source.split = Split::kLine;
  options.held_out_bytes = 2000;
  options.threads = 2;
  return options;
}

std::string lines(uint64_t stream, int count) {
  const Random random(11, RandomPurpose::kTest, stream);
  std::string text;
  for (int i = 0; i < count; ++i)
    text +=
        random_words(
            random, static_cast<uint64_t>(i) * 1000, 1 + static_cast<int>(random.below(i, 40))) +
        "\n";
  return text;
}

std::shared_ptr<const Dataset> open_whole(const std::string& folder) {
  auto dataset = Dataset::open(folder, Dataset::Verify::kAll);
  EXPECT_TRUE(dataset) << dataset.error().message;
  return *dataset;
}

void expect_failure(const Result<Manifest>& result, Code code, std::string_view why) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(why), std::string::npos) << result.error().message;
}

TEST(Prepare, EveryDocumentIsTrainedOnOrHeldOutOnceByteForByte) {
  const TestFolder folder;
  constexpr char kOdd[] = "nul \0 and <|eos|> \xFF\xC3 and \xE4\xB8 end\n";
  const std::string odd(kOdd, sizeof kOdd - 1);
  const std::string a = lines(1, 300) + odd, b = "same\n" + lines(2, 300) + "same\n" + odd;
  PrepareOptions options =
      line_options(folder, {folder.write("a.txt", a), folder.write("b.txt.gz", gzip(b))});
  options.shard_bytes = 4096;
  options.source.text.as_text = true;
  options.sort_records = 64;  // the documents' hashes are sorted in files
  const auto manifest = prepare(options);
  ASSERT_TRUE(manifest) << manifest.error().message;
  const auto dataset = open_whole(options.out);
  EXPECT_EQ(dataset->manifest().fingerprint(), manifest->fingerprint());
  EXPECT_EQ(dataset->manifest().to_json(), manifest->to_json());

  std::vector<std::string> expected;
  std::set<std::string> seen;
  const std::string all = a + b;
  for (size_t i = 0; i < all.size(); i = all.find('\n', i) + 1)
    if (std::string line = all.substr(i, all.find('\n', i) + 1 - i); seen.insert(line).second)
      expected.push_back(line);
  std::vector<std::string> train = texts(*dataset, dataset->train());
  const std::vector<std::string> held_out = texts(*dataset, dataset->held_out());
  EXPECT_EQ(manifest->duplicates, 2u);
  EXPECT_GT(manifest->train.shards.size(), 3u);
  EXPECT_EQ(manifest->near_duplicates, 0u);
  ASSERT_FALSE(held_out.empty());

  // Training documents keep their order, and the held-out ones are what lacks.
  const std::set<std::string> out(held_out.begin(), held_out.end());
  std::erase_if(expected, [&](const std::string& d) { return out.contains(d); });
  EXPECT_EQ(train, expected);
  EXPECT_EQ(train.size() + out.size(), seen.size());
  std::string held_out_text;
  for (const std::string& d : held_out) held_out_text += d;
  EXPECT_EQ(*read_file(dataset->held_out_text_path()), held_out_text);
  EXPECT_GE(held_out_text.size(), options.held_out_bytes);
  EXPECT_LT(held_out_text.size(), options.held_out_bytes * 3 / 2);
  EXPECT_EQ(manifest->train.bytes() + manifest->held_out.bytes() + odd.size() + 5, all.size());

  // The text of a special token is text: the end token stands at the ends of documents alone.
  const Shard& shard = *dataset->train()[0].shard;
  int64_t ends = 0;
  for (int64_t i = 0; i < shard.tokens(); ++i) ends += shard.token(i) == manifest->eos;
  EXPECT_EQ(ends, shard.documents());
}

TEST(Prepare, HowMuchIsSortedInMemoryDoesNotMatter) {
  const TestFolder folder;
  std::string text = lines(1, 700);
  text += text.substr(0, text.size() / 2) + lines(2, 50);
  PrepareOptions options = line_options(folder, {folder.write("a.txt", text)});
  const auto whole = prepare(options);
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_GT(whole->duplicates, 300u);
  options.force = true;
  for (const size_t records : {7, 100}) {
    options.sort_records = records;
    const auto spilled = prepare(options);
    ASSERT_TRUE(spilled) << spilled.error().message;
    EXPECT_EQ(spilled->to_json(), whole->to_json());
  }
  const std::vector<std::string> names = *list_folder(options.out);
  for (const std::string& name : names) EXPECT_FALSE(name.ends_with(".sort")) << name;
  // What a killed prepare left is taken away, and is nobody else's.
  const std::string left = join_path(options.out, ".prepare-hashes-00003.sort");
  check(write_file_atomic(left, "x").has_value(), "test");
  ASSERT_TRUE(prepare(options));
  EXPECT_FALSE(path_exists(left));
}

TEST(Prepare, WhatIsLeftOutOfTheTextIsInTheManifest) {
  const TestFolder folder;
  std::string json;
  for (int i = 0; i < 200; ++i) json += fmt::format("{{\"text\":\"document {}\"}}\n", i);
  PrepareOptions options =
      line_options(folder,
                   {folder.write("a.json", "{\"text\":\"cut\n" + json + "{\"body\":1}\n"),
                    folder.write("b.txt", lines(1, 300) + "bad \xFF line\n")});
  options.held_out_bytes = 500;
  options.source.text.skip_bad = 2;
  expect_failure(prepare(options), Code::kInvalidInput, "b.txt: line 301");
  // The number is that of all files, and the last file is read as strictly as the first.
  expect_failure(prepare(options), Code::kInvalidInput, "2 bad lines before it");
  options.source.text.skip_bad = 3;
  const auto manifest = prepare(options);
  ASSERT_TRUE(manifest) << manifest.error().message;
  const Manifest read = open_whole(options.out)->manifest();
  ASSERT_EQ(read.inputs.size(), 2u);
  EXPECT_EQ(read.inputs[0].damage.skipped, 2u);
  ASSERT_EQ(read.inputs[0].damage.lines.size(), 2u);
  EXPECT_EQ(read.inputs[0].damage.lines[0].number, 1u);
  EXPECT_NE(read.inputs[0].damage.lines[1].why.find("has no field 'text'"), std::string::npos);
  EXPECT_EQ(read.inputs[1].damage.lines[0].number, 301u);
  EXPECT_EQ(read.text_options.skip_bad, 3u);
  EXPECT_EQ(read.to_json(), manifest->to_json());
}

TEST(Prepare, ThreadsDoNotMatterAndTheHeldOutDoNotDependOnTheOrder) {
  const TestFolder folder;
  const std::string a = folder.write("a.txt", lines(1, 2000)),
                    b = folder.write("b.txt", lines(2, 2000));
  PrepareOptions options = line_options(folder, {a, b});
  options.threads = 1;
  const auto one = prepare(options);
  ASSERT_TRUE(one) << one.error().message;
  const std::string held_out = *read_file(folder / "dataset/held-out.txt");
  options.force = true;
  options.threads = 3;
  EXPECT_EQ(prepare(options)->fingerprint(), one->fingerprint());
  options.inputs = {b, a};
  EXPECT_NE(prepare(options)->fingerprint(), one->fingerprint());
  EXPECT_EQ(*read_file(folder / "dataset/held-out.txt"), held_out);
  options.seed = 1;
  ASSERT_TRUE(prepare(options));
  EXPECT_NE(*read_file(folder / "dataset/held-out.txt"), held_out);
}

TEST(Prepare, HeldOutNearDuplicatesOfTrainingTextAreLeftOut) {
  const TestFolder folder;
  const Random random(3, RandomPurpose::kTest, 9);
  std::string text;
  for (uint64_t i = 0; i < 200; ++i) {
    const std::string head = random_words(random, i * 1000, 30),
                      tail = random_words(random, i * 1000 + 500, 30);
    text += head + " " + tail + "\n";
    if (i % 2 == 0) text += head + " changed " + tail + "\n";  // shares 52 of 60 shingles
  }
  PrepareOptions options = line_options(folder, {folder.write("a.txt", text)});
  options.held_out_bytes = 6000;
  const auto manifest = prepare(options);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_GT(manifest->near_duplicates, 0u);
  std::shared_ptr<const Dataset> dataset = open_whole(options.out);
  const auto shingles = [](const std::string& s) {
    std::vector<uint64_t> v;
    append_shingles(s, v);
    return std::set<uint64_t>(v.begin(), v.end());
  };
  ASSERT_GT(dataset->held_out().size(), 3);
  for (const std::string& h : texts(*dataset, dataset->held_out()))
    for (const std::string& t : texts(*dataset, dataset->train())) {
      const std::set<uint64_t> x = shingles(h), y = shingles(t);
      std::vector<uint64_t> both;
      std::set_intersection(x.begin(), x.end(), y.begin(), y.end(), std::back_inserter(both));
      ASSERT_LT(
          static_cast<double>(both.size()) / static_cast<double>(x.size() + y.size() - both.size()),
          0.7);
    }
  dataset.reset();  // what is read is not replaced
  options.near_duplicate = 2;
  options.force = true;
  EXPECT_EQ(prepare(options)->near_duplicates, 0u);
}

TEST(Prepare, AChangedFileIsNoticed) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  ASSERT_TRUE(prepare(options));
  for (const char* name :
       {"train-00000.tok", "held-out-00000.tok", "held-out.txt", "tokenizer.json"}) {
    const std::string path = join_path(options.out, name);
    const std::string whole = *read_file(path);
    std::string changed = whole;
    changed[whole.size() / 2] ^= 1;
    ASSERT_TRUE(write_file_atomic(path, changed));
    const auto dataset = Dataset::open(options.out, Dataset::Verify::kAll);
    ASSERT_FALSE(dataset) << name;
    EXPECT_EQ(dataset.error().code, Code::kCorrupt);
    EXPECT_NE(dataset.error().message.find(path), std::string::npos) << dataset.error().message;
    ASSERT_TRUE(write_file_atomic(path, whole));
  }
  // Every damage to a shard that sizes can show is found without hashing; none is ever read past.
  const std::string path = join_path(options.out, "train-00000.tok");
  const std::string whole = *read_file(path);
  for (const size_t size :
       {size_t{0}, size_t{23}, size_t{47}, whole.size() - 8, whole.size() - 1}) {
    ASSERT_TRUE(write_file_atomic(path, whole.substr(0, size)));
    EXPECT_EQ(Dataset::open(options.out, Dataset::Verify::kSizes).error().code, Code::kCorrupt)
        << size;
  }
  ASSERT_TRUE(remove_tree(path));
  EXPECT_EQ(Dataset::open(options.out, Dataset::Verify::kSizes).error().code, Code::kNotFound);
}

TEST(Prepare, AManifestThatLacksAnythingIsRefused) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  ASSERT_TRUE(prepare(options));
  const std::string path = join_path(options.out, kManifestFile);
  const nlohmann::json whole = nlohmann::json::parse(*read_file(path));
  int refused = 0;
  const nlohmann::json flat = whole.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    for (const nlohmann::json& wrong : {nlohmann::json(nullptr),
                                        nlohmann::json(-1),
                                        nlohmann::json("../x"),
                                        nlohmann::json::array()}) {
      nlohmann::json changed = whole;
      changed[nlohmann::json::json_pointer(pointer)] = wrong;
      const auto parsed = Manifest::parse(changed.dump(), path);
      if (wrong.is_string() && value.is_string() && pointer.find("format") == pointer.npos &&
          !pointer.ends_with("/file"))
        continue;
      if (pointer == "/tokenizer/file" ||
          (pointer == "/settings/near_duplicate" && wrong.is_number()))
        continue;
      ASSERT_FALSE(parsed) << pointer << " = " << wrong;
      EXPECT_NE(parsed.error().message.find(path), std::string::npos);
      ++refused;
    }
  }
  EXPECT_GT(refused, 80);
  EXPECT_EQ(Manifest::parse("{", path).error().code, Code::kCorrupt);
  EXPECT_EQ(Manifest::parse("[]", path).error().code, Code::kCorrupt);
}

/// Nor is what was to be replaced lost before it is.
TEST(Prepare, NoSpaceAtAnyMomentLeavesWhatWasThere) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  options.shard_bytes = 16384;
  const std::string fingerprint = prepare(options)->fingerprint();
  options.force = true;
  for (const char* point : {"file.create", "file.write", "file.sync", "file.rename"}) {
    for (int n = 1;; ++n) {
      arm_faults(fmt::format("{}:{}:enospc", point, n));
      const auto result = prepare(options);
      arm_faults("");
      if (result) {
        EXPECT_GT(n, 1) << point;
        EXPECT_EQ(result->fingerprint(), fingerprint);
        break;
      }
      expect_failure(result, Code::kExhausted, "No space left");
      EXPECT_NE(result.error().message.find(options.out), std::string::npos)
          << result.error().message;
      if (result.error().message.find("whole, but") != std::string::npos) {  // between the two
        options.force = false;
        expect_failure(prepare(options), Code::kInvalidInput, "--force");  // it has finished that
        options.force = true;
      }
      const auto earlier = Dataset::open(options.out, Dataset::Verify::kAll);
      ASSERT_TRUE(earlier) << point << " " << n << ": " << earlier.error().message;
      EXPECT_EQ((*earlier)->manifest().fingerprint(), fingerprint);
      EXPECT_FALSE(path_exists(join_path(options.out, ".next"))) << point << " " << n;
    }
  }
  arm_faults("file.read:3:eio");
  expect_failure(prepare(options), Code::kUnavailable, "read");
  arm_faults("");
}

/// Runs f in a child process; its wait status.
template <typename F>
int in_child(F f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

TEST(Prepare, KilledAtAnyMomentItIsEitherWholeOrNoDataset) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  options.shard_bytes = 16384;
  const std::string fingerprint = prepare(options)->fingerprint();
  ASSERT_TRUE(remove_tree(options.out));
  options.force = true;  // one that was killed in time may have left a dataset
  int killed = 0;
  for (const char* point :
       {"file.create", "file.write", "file.sync", "file.rename", "file.sync_folder"}) {
    for (int n = 1;; ++n) {
      ASSERT_TRUE(remove_tree(
          join_path(options.out, kManifestFile)));  // other remains stay: prepare must cope
      const int status = in_child([&] {
        arm_faults(fmt::format("{}:{}:kill", point, n));
        return prepare(options) ? 0 : 1;
      });
      if (WIFEXITED(status)) {
        EXPECT_EQ(WEXITSTATUS(status), 0) << point << " " << n;
        break;
      }
      ++killed;
      const auto dataset = Dataset::open(options.out, Dataset::Verify::kAll);
      if (dataset) {
        EXPECT_EQ((*dataset)->manifest().fingerprint(), fingerprint) << point << " " << n;
      } else {
        EXPECT_EQ(dataset.error().code, Code::kNotFound) << dataset.error().message;
      }
    }
  }
  EXPECT_GT(killed, 15);
  ASSERT_TRUE(remove_tree(join_path(options.out, kManifestFile)));
  EXPECT_EQ(prepare(options)->fingerprint(), fingerprint);
}

/// A dataset that is being replaced by one with another tokenizer, killed at any moment, can still be
/// replaced, by that or by a third.
TEST(Prepare, KilledWithAnotherTokenizerItCanBeRepeated) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  const std::string first = options.tokenizer;
  const std::string second = folder.write("second.json", tokenizer_json(text::SplitStyle::kQwen2));
  ASSERT_NE(*read_file(first), *read_file(second));
  options.force = true;
  int killed = 0;
  for (const char* point :
       {"file.create", "file.write", "file.sync", "file.rename", "file.remove", "file.sync_folder"})
    for (int n = 1;; ++n) {
      options.tokenizer = first;
      const auto whole = prepare(options);
      ASSERT_TRUE(whole) << point << " " << n << ": " << whole.error().message;
      options.tokenizer = second;
      const int status = in_child([&] {
        arm_faults(fmt::format("{}:{}:kill", point, n));
        return prepare(options) ? 0 : 1;
      });
      if (WIFEXITED(status)) break;
      ++killed;
      // One of the two is there, whole.
      options.force = false;
      expect_failure(prepare(options), Code::kInvalidInput, "--force");
      options.force = true;
      const auto left = Dataset::open(options.out, Dataset::Verify::kAll);
      ASSERT_TRUE(left) << point << " " << n << ": " << left.error().message;
    }
  EXPECT_GT(killed, 10);
}

TEST(Prepare, RefusesAFolderThatIsNotItsOwn) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  {
    const auto lock = FolderLock::acquire(options.out);
    ASSERT_TRUE(lock);
    expect_failure(prepare(options), Code::kInvalidInput, "another run uses this folder");
  }
  ASSERT_TRUE(prepare(options));
  expect_failure(prepare(options), Code::kInvalidInput, "--force");
  options.tokenizer = join_path(options.out, kTokenizerFile);  // its own copy may be the source
  options.force = true;
  EXPECT_TRUE(prepare(options));
  options.inputs.push_back(folder / "absent.txt");
  expect_failure(prepare(options), Code::kNotFound, "absent.txt");
  EXPECT_TRUE(
      Dataset::open(options.out, Dataset::Verify::kAll));  // what was to be replaced is still there
  ASSERT_TRUE(write_file_atomic(join_path(options.out, "thesis.txt"), "mine"));
  expect_failure(prepare(options), Code::kInvalidInput, "thesis.txt");
  options.inputs = {join_path(options.out, "thesis.txt")};
  expect_failure(prepare(options), Code::kInvalidInput, "choose another --out");
  EXPECT_EQ(*read_file(join_path(options.out, "thesis.txt")), "mine");
  EXPECT_TRUE(Dataset::open(options.out, Dataset::Verify::kAll));
  // What lies where the next one is written is only removed if it is a part of a dataset.
  options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  options.force = true;
  ASSERT_TRUE(remove_tree(join_path(options.out, "thesis.txt")));
  const std::string notes = join_path(options.out, ".next/notes.txt");
  ASSERT_TRUE(make_folders(parent_folder(notes)));
  ASSERT_TRUE(write_file_atomic(notes, "mine"));
  expect_failure(prepare(options), Code::kInvalidInput, "notes.txt");
  EXPECT_EQ(*read_file(notes), "mine");
  ASSERT_TRUE(remove_tree(parent_folder(notes)));
  ASSERT_TRUE(write_file_atomic(parent_folder(notes), "mine"));
  expect_failure(prepare(options), Code::kInvalidInput, ".next: is no folder");
  EXPECT_EQ(*read_file(parent_folder(notes)), "mine");
}

TEST(Prepare, ADatasetThatIsReadIsNotReplaced) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  ASSERT_TRUE(prepare(options));
  options.force = true;
  {
    const auto first = Dataset::open(options.out, Dataset::Verify::kAll);
    const auto second = Dataset::open(options.out, Dataset::Verify::kSizes);  // readers share it
    ASSERT_TRUE(first && second);
    expect_failure(prepare(options),
                   Code::kInvalidInput,
                   fmt::format("is in use by process {}", ::getpid()).c_str());
    EXPECT_TRUE(Dataset::open(options.out, Dataset::Verify::kAll));
  }
  {
    const auto writer = FileHold::alone(join_path(options.out, kManifestFile));
    ASSERT_TRUE(writer);
    const auto refused = Dataset::open(options.out, Dataset::Verify::kAll);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kUnavailable);
  }
  EXPECT_TRUE(prepare(options));
}

/// Names of a dataset are not its files: without a manifest they are somebody's.
TEST(Prepare, WritesOverNothingThatItDidNotWrite) {
  for (const char* name : {"held-out.txt", "tokenizer.json", "train-00000.tok"}) {
    const TestFolder folder;
    const PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
    ASSERT_TRUE(make_folders(options.out));
    ASSERT_TRUE(write_file_atomic(join_path(options.out, name), "my own notes"));
    expect_failure(prepare(options), Code::kInvalidInput, name);
    EXPECT_EQ(*read_file(join_path(options.out, name)), "my own notes");
  }
  // Nor beside a manifest, somebody's or our own.
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  ASSERT_TRUE(make_folders(options.out));
  options.force = true;
  const auto mine = [&](const char* name) {
    ASSERT_TRUE(write_file_atomic(join_path(options.out, name), "{}"));
    expect_failure(prepare(options), Code::kInvalidInput, name);
    EXPECT_EQ(*read_file(join_path(options.out, name)), "{}");
    ASSERT_TRUE(remove_tree(join_path(options.out, name)));
  };
  mine("manifest.json");
  ASSERT_TRUE(prepare(options));
  for (const char* name :
       {"train-00007.tok", "train-mine.tok", "hashes-1.sort", "hashes-00001.sort"})
    mine(name);
  EXPECT_TRUE(Dataset::open(options.out, Dataset::Verify::kAll));
}

TEST(Prepare, RefusesWhatCannotBecomeADataset) {
  const TestFolder folder;
  PrepareOptions options = line_options(folder, {folder.write("a.txt", lines(1, 300))});
  const auto with = [&](auto change) {
    PrepareOptions o = options;
    change(o);
    return prepare(o);
  };
  expect_failure(with([](auto& o) { o.inputs = {}; }), Code::kInvalidInput, "no input");
  expect_failure(with([&](auto& o) { o.inputs = {folder.write("empty.txt", "")}; }),
                 Code::kInvalidInput,
                 "nothing is left to train on");
  expect_failure(with([&](auto& o) { o.inputs = {folder.write("one.txt", "one\n")}; }),
                 Code::kInvalidInput,
                 "nothing is left to train on");
  expect_failure(with([&](auto& o) {
                   o.inputs = {folder.write("long.txt",
                                            std::string(kPieceBytes + 9, 'x') + "\n" +
                                                std::string(kPieceBytes + 10, 'x'))};
                 }),
                 Code::kInvalidInput,
                 "too long to hold one out");
  expect_failure(
      with([](auto& o) { o.near_duplicate = 0; }), Code::kInvalidInput, "--near-duplicate");
  expect_failure(with([](auto& o) { o.held_out_bytes = kHeldOutBytesMax + 1; }),
                 Code::kInvalidInput,
                 "--held-out-bytes");
  expect_failure(with([](auto& o) { o.eos = "<nothing>"; }), Code::kInvalidInput, "--eos");
  expect_failure(with([](auto& o) { o.bos = "<nothing>"; }), Code::kInvalidInput, "--bos");
  expect_failure(with([](auto& o) { o.tokenizer = o.inputs[0]; }), Code::kCorrupt, "a.txt");
  expect_failure(with([](auto& o) { o.inputs[0] += ".absent"; }),
                 Code::kNotFound,
                 "a.txt.absent: cannot open: No such file");
  const auto dataset = Dataset::open(folder / "absent", Dataset::Verify::kSizes);
  ASSERT_FALSE(dataset);
  EXPECT_EQ(dataset.error().code, Code::kNotFound);
  EXPECT_NE(dataset.error().message.find("absent: no such folder"), std::string::npos);
  const std::string path = folder.write("changing.txt", lines(1, 300));
  expect_failure(with([&](auto& o) {
                   o.inputs = {path};
                   o.progress = [&](const PrepareProgress& p) {
                     if (p.phase == PrepareProgress::Phase::kScan && p.done == p.total)
                       folder.write("changing.txt", lines(2, 300));
                   };
                 }),
                 Code::kInvalidInput,
                 "changed while it was being prepared");
  EXPECT_FALSE(path_exists(join_path(options.out, kManifestFile)));
}

TEST(Prepare, OneLongLineNeedsNoMoreMemoryThanManyShortOnes) {
#if defined(FERRY_ADDRESS_SANITIZER)
  GTEST_SKIP() << "AddressSanitizer keeps freed memory";
#endif
  const TestFolder folder;
  std::string text = random_words(Random(1, RandomPurpose::kTest, 2), 0, 30000);
  while (text.size() < size_t{32} << 20) text += text;
  const std::string path = folder.write("long.gz", gzip(text));
  text = std::string();
  PrepareOptions options = line_options(folder, {path});
  options.held_out_bytes = 0;
  const int status = in_child([&] {
    const auto peak_kb = [] {
      rusage usage{};
      ::getrusage(RUSAGE_SELF, &usage);
      return usage.ru_maxrss;
    };
    const long before = peak_kb();
    if (!prepare(options)) return 1;
    const long grown_mb = (peak_kb() - before) >> 10;
    if (grown_mb >= 60) fmt::print(stderr, "grown by {} MiB\n", grown_mb);
    return grown_mb < 60 ? 0 : 2;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const auto dataset = open_whole(options.out);
  EXPECT_EQ(dataset->train().size(), 1);
  EXPECT_GE(dataset->train().bytes(), int64_t{32} << 20);
}

}  // namespace
}  // namespace ferry::data
