// What a run read of its files is what its workers are handed, whatever became of the files since.
#include "train/run_texts.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>

#include "base/file.h"
#include "base/signature.h"
#include "train/model_setup.h"

namespace ferry {
namespace {

TEST(RunTexts, AreHandedAsTheyWereRead) {
  const std::string folder = testing::TempDir() + "ferry-run-texts/";
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(make_folders(folder));
  const KeyPair key = new_key_pair();
  ASSERT_TRUE(write_key_files(folder + "key", key));
  ASSERT_TRUE(write_file_atomic(folder + "config.json", "{\"hidden_size\": 32}"));
  ASSERT_TRUE(write_file_atomic(folder + "chat.jinja", "{{ messages[0].content }}"));
  const std::string toml = "[model]\nconfig = \"" + folder +
                           "config.json\"\n[data]\ndir = \"d\"\n" + "[checkpoint]\nkey = \"" +
                           folder + "key\" # \xe6\xb8\xa1\nchat_template = \"" + folder +
                           "chat.jinja\"\n";
  ASSERT_TRUE(write_file_atomic(folder + "run.toml", toml));

  Result<RunTexts> texts = RunTexts::read(folder + "run.toml");
  ASSERT_TRUE(texts) << texts.error().message;
  const std::vector<std::string> overrides = {"--train.steps=200"};
  const Result<Settings> named = texts->parse("run.toml", overrides);
  ASSERT_TRUE(named) << named.error().message;
  ASSERT_TRUE(texts->read_named(*named));
  ASSERT_TRUE(write_file_atomic(folder + "chat.jinja", "\n{% for %}"));
  RunTexts again;
  const Result<void> wrong = again.read_named(*named);
  EXPECT_NE(wrong.error().message.find("chat.jinja: line 2"), std::string::npos);
  std::filesystem::remove_all(folder);

  const Result<RunTexts> handed = RunTexts::of_handed(texts->handed());
  ASSERT_TRUE(handed) << handed.error().message;
  EXPECT_EQ(handed->settings, toml);
  const Result<Settings> settings = handed->parse("run.toml", overrides);
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_EQ(settings->train.steps, 200);
  EXPECT_EQ(settings->model.config_text, "{\"hidden_size\": 32}");
  EXPECT_EQ(settings->checkpoint.secret_key, key.secret_key);
  EXPECT_EQ(settings->checkpoint.chat_template_text, "{{ messages[0].content }}");
  EXPECT_FALSE(RunTexts::of_handed("[model]"));
  EXPECT_FALSE(RunTexts::of_handed(""));
  EXPECT_FALSE(texts->read_named(*named)) << "a key that is not there";
}

/// A GGUF file without tensors; `part` of three unless it is negative.
std::string gguf_part(int part) {
  std::string bytes = "GGUF";
  const auto put = [&](auto v) { bytes.append(reinterpret_cast<const char*>(&v), sizeof v); };
  const auto key = [&](std::string_view name, int v) {
    put(uint64_t{name.size()});
    bytes += name;
    put(uint32_t{4});  // a whole number of 32 bits
    put(static_cast<uint32_t>(v));
  };
  put(uint32_t{3});
  put(uint64_t{0});
  put(uint64_t{part < 0 ? 0u : 2u});
  if (part >= 0) {
    key("split.no", part);
    key("split.count", 3);
  }
  bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
  return bytes;
}

/// Whatever becomes of model.init is noticed: of each file of a model in several, of a whole file that is only called
/// like the first of several, and of one that could not be read at first. (Fails where the name is believed, and
/// where the error of looking is dropped.)
TEST(RunTexts, KnowWhetherTheModelToBeginWithWasChanged) {
  const std::string folder = testing::TempDir() + "ferry-run-init/";
  const auto state = [](const std::string& init) {
    Settings settings;
    settings.model.init = init;
    RunTexts texts;
    EXPECT_TRUE(texts.read_named(settings));
    return texts.init_state;
  };
  const auto later = [](const std::string& path) {
    std::filesystem::last_write_time(
        path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
  };
  const auto name = [](int part) { return fmt::format("-0000{}-of-00003.gguf", part + 1); };
  for (const bool split : {true, false}) {
    std::filesystem::remove_all(folder);
    ASSERT_TRUE(make_folders(folder));
    const std::string first = folder + "m" + name(0);
    const std::optional<std::string> absent = state(first);
    ASSERT_TRUE(absent);
    for (int part = 0; part < (split ? 3 : 1); ++part)
      ASSERT_TRUE(write_file_atomic(folder + "m" + name(part), gguf_part(split ? part : -1)));
    std::optional<std::string> before = state(first);
    const Result<std::string> looked = state_of_init(first);
    ASSERT_TRUE(looked) << looked.error().message;
    EXPECT_EQ(before, *looked);
    EXPECT_NE(before, absent);
    for (int part = 0; part < (split ? 3 : 1); ++part) {
      later(folder + "m" + name(part));
      const std::optional<std::string> after = state(first);
      EXPECT_NE(after, before) << "part " << part;
      before = after;
    }
    EXPECT_EQ(state(first), before);
  }
  std::filesystem::remove_all(folder);
}

/// What a worker reads again cannot come through a pipe: the next worker would wait, or learn from nothing.
TEST(RunTexts, TasksAndPairsArePipesNowhere) {
  const std::string folder = testing::TempDir() + "ferry-run-pipes/", pipe = folder + "pipe";
  ASSERT_TRUE(make_folders(folder));
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const char* key : {"rl.tasks", "rl.held_out", "dpo.pairs", "dpo.held_out"}) {
    Settings settings;
    (key[0] == 'r'   ? key[3] == 't' ? settings.rl.tasks : settings.rl.held_out
     : key[4] == 'p' ? settings.dpo.pairs
                     : settings.dpo.held_out) = pipe;
    const Result<void> read = RunTexts().read_named(settings);
    ASSERT_FALSE(read) << key;
    EXPECT_EQ(read.error().message,
              pipe + ": is not a regular file, and " + key +
                  " is read again whenever the run goes on; write it to a file first");
  }
}

}  // namespace
}  // namespace ferry
