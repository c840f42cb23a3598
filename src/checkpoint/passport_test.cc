#include "checkpoint/passport.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "base/stopping.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/test_support.h"

namespace ferry {
namespace {

Digest digest_of(const std::string& text) {
  Hasher hasher;
  hasher.update(text.data(), text.size());
  return hasher.digest();
}

std::string raw(const Digest& d) { return {reinterpret_cast<const char*>(d.data()), d.size()}; }

TEST(HashTree, IsTheDocumentedOne) {
  const std::string a(kChunkBytes, 'a'), b(kChunkBytes, 'b'), c = "c";
  const std::string file = a + b + c;
  const std::vector<Digest> leaves = *hash_chunks(std::as_bytes(std::span(file)));
  ASSERT_EQ(leaves.size(), 3u);
  const auto leaf = [](const std::string& chunk) {
    return digest_of(std::string(1, '\0') + chunk);
  };
  EXPECT_EQ(leaves[0], leaf(a));
  EXPECT_EQ(leaves[2], leaf(c));
  const Digest pair = digest_of('\1' + raw(leaf(a)) + raw(leaf(b)));
  EXPECT_EQ(tree_root(leaves), digest_of('\1' + raw(pair) + raw(leaf(c))));
  EXPECT_EQ(tree_root({}), digest_of("\2"));
  EXPECT_EQ(hash_chunks({})->size(), 0u);
}

TEST(HashTree, HashingTellsHowFarItIsAndHearsThatItIsToStop) {
  const std::vector<std::byte> file(2 * kChunkBytes + 5);
  std::vector<uint64_t> told;
  ASSERT_TRUE(hash_chunks(file, [&](uint64_t more) { told.push_back(more); }));
  EXPECT_EQ(told, (std::vector<uint64_t>{kChunkBytes, kChunkBytes, 5}));
  // In a child: what it has heard it cannot unhear.
  const pid_t child = ::fork();
  if (child == 0) {
    stop_files_by_signals();
    int chunks = 0;
    const auto stopped = hash_chunks(file, [&](uint64_t) {
      ++chunks;
      ::raise(SIGTERM);
    });
    const bool right = !stopped && stopped.error().code == Code::kUnavailable && chunks == 1;
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Signature, HoldsForItsMessageAndKeyAlone) {
  const KeyPair key = new_key_pair(), other = new_key_pair();
  EXPECT_NE(key.public_key, other.public_key);
  const std::string signature = sign(key, "root");
  EXPECT_TRUE(is_signed_by(key.public_key, "root", signature));
  EXPECT_FALSE(is_signed_by(key.public_key, "toor", signature));
  EXPECT_FALSE(is_signed_by(other.public_key, "root", signature));
  EXPECT_FALSE(is_signed_by("", "root", signature));
  EXPECT_FALSE(is_signed_by(key.public_key, "root", "ab"));

  const std::string path = fresh_folder("keys") + "/my.key";
  ASSERT_TRUE(write_key_files(path, key));
  EXPECT_EQ(read_secret_key(path)->public_key, key.public_key);
  EXPECT_EQ(*read_public_key(path + ".pub"), key.public_key);
  EXPECT_EQ(read_secret_key(path + ".pub").error().code, Code::kInvalidInput);
  EXPECT_EQ(write_key_files(path, other).error().code, Code::kInvalidInput);
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

Passport some_passport() {
  Passport p;
  p.program = "ferry test";
  p.training = PassportTraining{.steps = 7,
                                .tokens = 700,
                                .skipped_tokens = 30,
                                .data = "abc",
                                .settings = "[train]\nsteps = 7\n",
                                .devices = {"cpu", "software Ascend"},
                                .mla_form = "expanded",
                                .held_out_loss = 0.1};
  p.base = std::string(64, 'a');
  p.base_vocabulary = {.ids = 300, .hash = std::string(64, 'b')};
  p.made_from = MadeFrom{.program = "ferry test",
                         .to = "int8",
                         .source = "directory",
                         .weights = std::string(64, 'd'),
                         .adapter = {},
                         .passport = std::string(64, 'e'),
                         .signed_by = std::string(64, 'f'),
                         .verified = true};
  p.probes = {.dtype = DType::kF32, .reference = "cpu", .top_k = 2};
  Probe probe{.name = "one", .tokens = {3, 1, 4}, .prompt = 2};
  for (int i = 0; i < 2; ++i) probe.logits.push_back({{5, 9}, {1.5f, -0.1f}, 2.25f});
  probe.logit_noise = 0.125f;
  probe.layers.push_back({{1, 2, 3}, std::vector<float>(3 * kProjections, 0.3f), 0.01f});
  probe.routers.push_back({{0, 1, 1, 2, 2, 0}, {0.5f, 0.25f, 1e-9f}, 1e-3f});
  p.probes.list.push_back(probe);
  return p;
}

/// A model directory with a passport: two tensors, of which the second ends in the third chunk.
std::string some_model(const std::string& name, const std::optional<KeyPair>& key = {}) {
  std::string path = fresh_folder(name) + "/model";
  ModelContents c;
  c.tensors = {{"a", random_tensor({300, 1000}, 1)}, {"b", random_tensor({400, 1000}, 2)}};
  c.texts = {{"config.json", "{\"model_type\": \"none\"}"}, {"tokenizer.json", "{}"}};
  c.passport = some_passport();
  c.key = key;
  const auto saved = write_model_dir(path, c);
  EXPECT_TRUE(saved) << saved.error().message;
  return path;
}

std::string passport_of(const std::string& model) {
  return *read_file(join_path(model, kPassportName));
}

TEST(Passport, ReadsBackWhatWasWritten) {
  const KeyPair key = new_key_pair();
  const std::string model = some_model("roundtrip", key);
  const auto p = Passport::parse(passport_of(model), "p");
  ASSERT_TRUE(p) << p.error().message;
  const Passport expected = some_passport();
  EXPECT_EQ(p->training, expected.training);
  EXPECT_EQ(p->base, expected.base);
  EXPECT_EQ(p->base_vocabulary, expected.base_vocabulary);
  EXPECT_EQ(p->made_from, expected.made_from);
  EXPECT_EQ(p->probes, expected.probes);
  EXPECT_EQ(p->program, expected.program);
  EXPECT_EQ(p->numerics, kNumerics);
  ASSERT_TRUE(p->signature);
  EXPECT_EQ(p->signature->public_key, key.public_key);
  ASSERT_EQ(p->files.size(), 3u);
  EXPECT_EQ(p->files.at("model.safetensors").chunks.size(), 3u);
  EXPECT_EQ(p->to_json(), passport_of(model));
  auto dir = ModelDir::open(model);
  ASSERT_TRUE(dir) << dir.error().message;
  EXPECT_TRUE(dir->verify());
  EXPECT_TRUE(dir->load("b", cpu(), DType::kF32));
}

TEST(MadeFrom, IsReadAsWrittenAndRefusedByItsField) {
  const MadeFrom made = *some_passport().made_from;
  const auto again = parse_made_from(made_from_text(made), "m.json");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, made);
  const auto refused = [&](const char* field, const nlohmann::json& value) {
    nlohmann::json j = nlohmann::json::parse(made_from_text(made));
    j[field] = value;
    EXPECT_TRUE(fails(parse_made_from(j.dump(), "m.json"), Code::kCorrupt, {"m.json", field}));
  };
  refused("format", "another");
  refused("to", "int2");
  refused("source", "");
  refused("weights", "abc");
  refused("passport", nullptr);  // of none nobody can have signed the root
  refused("verified", 1);
  EXPECT_TRUE(fails(parse_made_from("[1]", "m.json"), Code::kCorrupt, {"m.json"}));
}

TEST(Passport, EveryEditIsNoticed) {
  const std::string text = passport_of(some_model("edits", new_key_pair()));
  const nlohmann::json whole = nlohmann::json::parse(text);
  std::vector<nlohmann::json::json_pointer> leaves;
  const nlohmann::json flat = whole.flatten();
  for (const auto& [pointer, value] : flat.items()) leaves.emplace_back(pointer);
  ASSERT_GT(leaves.size(), 20u);
  for (const auto& leaf : leaves) {
    nlohmann::json edited = whole;
    nlohmann::json& value = edited[leaf];
    if (value.is_string()) {
      std::string s = value.get<std::string>();
      if (s.empty()) continue;
      s.back() = s.back() == '0' ? '1' : '0';
      value = s;
    } else {
      value = 3;  // no number in the example is
    }
    const auto p = Passport::parse(edited.dump(), "p");
    ASSERT_FALSE(p) << leaf.to_string();
    EXPECT_TRUE(p.error().message.starts_with("p: ")) << p.error().message;
  }
  for (const char* part : {"statement", "chunks", "root", "format", "version"}) {
    nlohmann::json edited = whole;
    edited.erase(part);
    EXPECT_FALSE(Passport::parse(edited.dump(), "p")) << part;
  }
  nlohmann::json unsigned_one = whole;  // a signature may be taken away: verify --key asks for it
  unsigned_one.erase("signature");
  EXPECT_TRUE(Passport::parse(unsigned_one.dump(), "p"));
}

/// An edited passport with the root that its statement needs.
std::string with_its_root(nlohmann::json edited) {
  Hasher hasher;
  const std::string statement = "ferry-passport-1\n" + edited["statement"].dump();
  hasher.update(statement.data(), statement.size());
  edited["root"] = hasher.hex();
  return edited.dump();
}

TEST(Passport, AStatementThatNobodyReadsIsRefused) {
  const nlohmann::json whole = nlohmann::json::parse(passport_of(some_model("unknown")));
  for (const char* pointer : {"/statement/trainnig", "/statement/probes/list/0/extra"}) {
    nlohmann::json edited = whole;
    edited[nlohmann::json::json_pointer(pointer)] = 7;
    EXPECT_TRUE(
        fails(Passport::parse(with_its_root(edited), "p"), Code::kCorrupt, {"p: ", pointer + 10}));
  }
}

/// Adapters of 2026-11-30 say it as one hash.
TEST(Passport, AVocabularyOfBeforeSaysNothing) {
  nlohmann::json edited = nlohmann::json::parse(passport_of(some_model("former")));
  edited["statement"]["base_vocabulary"] = std::string(64, 'c');
  const auto p = Passport::parse(with_its_root(edited), "p");
  ASSERT_TRUE(p) << p.error().message;
  EXPECT_FALSE(p->base_vocabulary);
  EXPECT_TRUE(Passport::parse(p->to_json(), "p"));
  edited["statement"]["base_vocabulary"] = "another tokenizer";
  EXPECT_TRUE(
      fails(Passport::parse(with_its_root(edited), "p"), Code::kCorrupt, {"base_vocabulary"}));
}

TEST(Passport, CutShortOrFromANewerVersion) {
  const std::string text = passport_of(some_model("short"));
  for (size_t size = 0; size + 2 < text.size(); size += 97)
    EXPECT_EQ(Passport::parse(text.substr(0, size), "p").error().code, Code::kCorrupt) << size;
  nlohmann::json newer = nlohmann::json::parse(text);
  newer["version"] = kPassportVersion + 1;
  const auto p = Passport::parse(newer.dump(), "p");
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code, Code::kInvalidInput);
  EXPECT_NE(p.error().message.find("use a newer"), std::string::npos) << p.error().message;
}

TEST(Passport, ChunkIsCheckedWhenItIsFirstRead) {
  const std::string model = some_model("chunks"), file = model + "/model.safetensors";
  flip_bit(file, 2 * kChunkBytes + 100);
  auto dir = ModelDir::open(model);
  ASSERT_TRUE(dir) << dir.error().message;          // nothing waits for the whole
  EXPECT_TRUE(dir->load("a", cpu(), DType::kF32));  // chunks 0 and 1 are right
  const auto b = dir->load("b", cpu(), DType::kF32);
  ASSERT_FALSE(b);
  EXPECT_EQ(b.error().code, Code::kCorrupt);
  EXPECT_NE(b.error().message.find("model.safetensors: chunk 2"), std::string::npos);
  EXPECT_NE(b.error().message.find("It holds b."), std::string::npos) << b.error().message;
  EXPECT_EQ(dir->verify().error().code, Code::kCorrupt);
}

TEST(Passport, OtherWeightsOrTextsAreRefused) {
  const std::string model = some_model("others");
  flip_bit(model + "/model.safetensors", 20);  // in the header, which open() relies on
  EXPECT_EQ(ModelDir::open(model).error().code, Code::kCorrupt);

  const std::string shorter = some_model("shorter");
  ASSERT_TRUE(remove_tree(shorter + "/checksums.json"));
  const std::string content = *read_file(shorter + "/model.safetensors");
  ASSERT_TRUE(
      write_file_atomic(shorter + "/model.safetensors", content.substr(0, content.size() - 1)));
  const auto opened = ModelDir::open(shorter);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("belongs to another model"), std::string::npos)
      << opened.error().message;

  const std::string text = some_model("text");
  ASSERT_TRUE(remove_tree(text + "/checksums.json"));
  ASSERT_TRUE(write_file_atomic(text + "/config.json", "{\"model_type\": \"some\"}"));
  EXPECT_EQ(ModelDir::open(text).error().code, Code::kCorrupt);
}

/// Files are put beside a signed model in every way that is not an edit of a listed one.
TEST(Passport, WhatItDoesNotListIsNotRead) {
  const KeyPair key = new_key_pair();
  const std::string model = some_model("smuggled", key);
  ASSERT_TRUE(remove_tree(model + "/checksums.json"));
  ASSERT_TRUE(ModelDir::open(model)->verify());

  const std::string config = *read_file(model + "/config.json");
  for (const char* name : {"generation_config.json",
                           "tokenizer_config.json",
                           "special_tokens_map.json",
                           "added_tokens.json",
                           "chat_template.jinja",
                           "chat_template.json",
                           "merges.txt",
                           "tokenizer.model",
                           "modeling_deepseek.py",
                           "Tokenizer.json",
                           "model-00002-of-00002.safetensors"}) {
    const std::string path = join_path(model, name);
    ASSERT_TRUE(write_file_atomic(path, config));
    auto dir = ModelDir::open(model);
    ASSERT_TRUE(dir) << dir.error().message;
    EXPECT_TRUE(fails(dir->text(name), Code::kCorrupt, {path, "does not list it"}));
    EXPECT_TRUE(fails(dir->optional_text(name), Code::kCorrupt, {path, "does not list it"}));
    EXPECT_TRUE(fails(dir->verify(), Code::kCorrupt, {path, "does not list it"}));
    EXPECT_TRUE(fails(read_listed_file(path, 1 << 20), Code::kCorrupt, {path, "does not list it"}));
    ASSERT_TRUE(remove_tree(path));
  }
  // An index leads to files that are not listed; so does a link to a file that is.
  const std::string index = model + "/model.safetensors.index.json";
  ASSERT_TRUE(write_file_atomic(index, R"({"weight_map": {"a": "model.safetensors"}})"));
  EXPECT_FALSE(ModelDir::open(model));
  ASSERT_TRUE(rename_path(model + "/model.safetensors", model + "/other.safetensors"));
  EXPECT_TRUE(fails(ModelDir::open(model), Code::kCorrupt, {"model.safetensors", "missing"}));
  ASSERT_TRUE(rename_path(model + "/other.safetensors", model + "/model.safetensors"));
  ASSERT_TRUE(remove_tree(index));
  ASSERT_EQ(::symlink("config.json", (model + "/generation_config.json").c_str()), 0);
  EXPECT_FALSE(ModelDir::open(model)->verify());
  ASSERT_TRUE(remove_tree(model + "/generation_config.json"));

  // What checksums.json says counts for nothing beside a passport.
  ASSERT_TRUE(write_file_atomic(model + "/generation_config.json", config));
  ASSERT_TRUE(write_file_atomic(
      model + "/checksums.json",
      Checksums::to_json({{"generation_config.json",
                           {config.size(), blake2b_hex(config.data(), config.size())}}})));
  auto dir = ModelDir::open(model);
  ASSERT_TRUE(dir) << dir.error().message;
  EXPECT_FALSE(dir->text("generation_config.json"));
  EXPECT_FALSE(dir->verify());
  ASSERT_TRUE(remove_tree(model + "/generation_config.json"));
  ASSERT_TRUE(remove_tree(model + "/checksums.json"));
  dir = ModelDir::open(model);
  EXPECT_TRUE(dir->verify());
  EXPECT_FALSE(*dir->optional_text("generation_config.json"));
  EXPECT_EQ(*read_listed_file(model + "/tokenizer.json", 1 << 20), "{}");
}

TEST(Passport, FilesThatCount) {
  const std::string folder = fresh_folder("count");
  for (const char* name : {"config.json",
                           "model.safetensors",
                           "chat_template.jinja",
                           "tokenizer.model",
                           "merges.txt",
                           "modeling.py"})
    ASSERT_TRUE(write_file_atomic(join_path(folder, name), "x"));
  for (const char* name : {"passport.json",
                           "verified.json",
                           "checksums.json",
                           "README.md",
                           "LICENSE",
                           ".gitattributes",
                           "notes.txt"})
    ASSERT_TRUE(write_file_atomic(join_path(folder, name), "x"));
  ASSERT_TRUE(make_folders(folder + "/additional_chat_templates"));
  ASSERT_TRUE(make_folders(folder + "/state"));
  ASSERT_TRUE(write_file_atomic(folder + "/additional_chat_templates/rag.jinja", "x"));
  ASSERT_TRUE(write_file_atomic(folder + "/state/state.json", "x"));
  EXPECT_EQ(*files_that_count(folder),
            (std::vector<std::string>{"additional_chat_templates/rag.jinja",
                                      "chat_template.jinja",
                                      "config.json",
                                      "merges.txt",
                                      "model.safetensors",
                                      "modeling.py",
                                      "tokenizer.model"}));
}

TEST(Passport, VerifySaysThatTheDirectoryWasReplacedMeanwhile) {
  const std::string model = some_model("replaced");
  auto dir = ModelDir::open(model);
  ASSERT_TRUE(dir);
  ASSERT_TRUE(rename_path(model, model + ".away"));
  auto away = dir->verify();
  ASSERT_FALSE(away);
  EXPECT_EQ(away.error().code, Code::kUnavailable);
  EXPECT_NE(away.error().message.find("replaced meanwhile"), std::string::npos);
  ASSERT_TRUE(rename_path(model + ".away", model));
  EXPECT_TRUE(dir->verify());
}

TEST(Verifications, BelongToTheRoot) {
  const std::string folder = fresh_folder("verified");
  EXPECT_TRUE(read_verifications(folder, "r1")->empty());
  ASSERT_TRUE(add_verification(folder, "r1", {"cpu", DType::kBF16, false, "ferry", 5}));
  ASSERT_TRUE(add_verification(folder, "r1", {"cpu", DType::kF32, true, "ferry", 6}));
  ASSERT_TRUE(add_verification(folder, "r1", {"cpu", DType::kBF16, true, "ferry", 7}));
  const auto list = read_verifications(folder, "r1");
  ASSERT_EQ(list->size(), 2u);
  EXPECT_TRUE((*list)[1].passed);
  EXPECT_EQ((*list)[1].unix_ms, 7);
  EXPECT_TRUE(read_verifications(folder, "r2")->empty());
  ASSERT_TRUE(write_file_atomic(folder + "/verified.json", "{\"format\": 3}"));
  EXPECT_EQ(read_verifications(folder, "r1").error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace ferry
