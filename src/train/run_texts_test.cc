// What a run read of its files is what its workers are handed, whatever became of the files since.
#include "train/run_texts.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "base/signature.h"

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
