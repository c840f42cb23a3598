// A conversation with the built program: of a person at a terminal, and of a pipe.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "on_terminal.h"
#include "trains.h"

namespace {

using namespace ferry::program;

class ChatE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    write(path("chat.jinja"),
          "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}"
          "{% if add_generation_prompt %}<think>\n{% endif %}");
    ran(train("talks",
              {"--train.steps=4",
               "--schedule.warmup_steps=1",
               "--checkpoint.chat_template=" + path("chat.jinja")}));
    fs::remove(path("chat.jinja"));  // the model has its own now, and its passport says so
    ran({"convert", talking(), "--out", path("mute")});
    fs::remove(path("mute") + "/checksums.json");  // a file is taken away
    fs::remove(path("mute") + "/chat_template.jinja");
  }
  static std::string talking() { return path("talks") + "/step-00000004"; }
  static Strings chat(const Strings& more = {}) {
    Strings all = {"chat", talking(), "--tokens", "5", "--temperature", "0"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static bool waits(OnTerminal& p, const std::string& text, int times = 1) {
    return wait_for([&] {
             int found = 0;
             for (size_t at = 0; (at = p.output().find(text, at)) != std::string::npos; ++at)
               ++found;
             return found >= times || p.ended();
           }) &&
           !p.ended();
  }
};

TEST_F(ChatE2e, APersonTalks) {
  OnTerminal p(chat({"--system", "short"}));
  ASSERT_TRUE(waits(p, "> ")) << p.output();
  int turns = 0;
  const auto answers = [&](const char* typed) {
    p.type(typed);
    return waits(p, "tokens of prompt", ++turns);
  };
  ASSERT_TRUE(answers("the ferry\n")) << p.output();
  EXPECT_TRUE(p.said("tokens of prompt, 0 of them known")) << p.output();
  EXPECT_TRUE(p.said("\033[2m<think>\n\033[0m")) << "the thought is dimmed\n" << p.output();
  ASSERT_TRUE(answers("and back\n")) << p.output();  // it goes on: most of it is known
  EXPECT_EQ(p.output().rfind("prompt, 0 of them"), p.output().find("prompt, 0 of them"))
      << p.output();
  p.type("/new\n");
  ASSERT_TRUE(waits(p, "Another conversation")) << p.output();
  ASSERT_TRUE(answers("\"\"\"\nfirst\nsecond\n\"\"\"\n")) << p.output();
  p.type("/new\n");
  ASSERT_TRUE(answers("one \\\ntwo\n")) << p.output();
  p.type("/what\n");
  ASSERT_TRUE(waits(p, "/what: unknown")) << p.output();
  p.type("/help\n");
  ASSERT_TRUE(waits(p, "stop the answer")) << p.output();
  p.type("/new\n");
  p.type("what is <|eos|> good for\n");  // a control token is no word of a message
  ASSERT_TRUE(waits(p, "control token")) << p.output();
  ASSERT_TRUE(answers("the ferry\n")) << p.output();
  p.type("/bye\n");
  EXPECT_EQ(p.wait(), 0) << p.output();
}

TEST_F(ChatE2e, AModelWithoutATemplateGoesOnWithTexts) {
  OnTerminal p({"chat", path("mute"), "--plain", "--tokens", "5", "--temperature", "0"});
  ASSERT_TRUE(waits(p, "goes on with it")) << p.output();
  p.type("the ferry\n");
  ASSERT_TRUE(waits(p, "tokens of prompt", 1)) << p.output();
  p.type("the ferry\n");  // a text of its own: the same answer
  ASSERT_TRUE(waits(p, "tokens of prompt", 2)) << p.output();
  const std::string greedy = ran({"generate",
                                  path("mute"),
                                  "--prompt",
                                  "the ferry",
                                  "--tokens",
                                  "5",
                                  "--temperature",
                                  "0",
                                  "--no-echo"});
  p.type("/quit\n");
  EXPECT_EQ(p.wait(), 0) << p.output();
  // By a pipe: the answers alone, each what generate gives.
  write(path("lines"), "the ferry\nthe ferry\n");
  const std::string command = std::string(FERRY_PROGRAM) + " chat " + path("mute") +
                              " --plain --tokens 5 --temperature 0 <" + path("lines") + " >" +
                              path("out") + " 2>" + path("err");
  ASSERT_EQ(status_of(std::system(command.c_str())), 0) << read(path("err"));
  const std::string once = read(path("out")).substr(0, read(path("out")).size() / 2);
  EXPECT_EQ(read(path("out")), once + once);
  EXPECT_NE(greedy.find(once), std::string::npos) << greedy << "\n" << once;
}

TEST_F(ChatE2e, AConversationThatIsTooLongIsToldAndCanBeBegunAnew) {
  OnTerminal p(chat());
  ASSERT_TRUE(waits(p, "> ")) << p.output();
  std::string line;
  for (int i = 0; i < 150; ++i) line += "q z ";
  p.type((line + "\n").c_str());
  ASSERT_TRUE(waits(p, "and there is room for 128 with the answer: /new begins another"))
      << p.output();
  // More than a terminal keeps of a line: nothing is asked.
  p.type((std::string(5000, 'a') + "\n").c_str());
  ASSERT_TRUE(waits(p, "cut that line off behind 4095 bytes")) << p.output();
  // Nor is anything of the message that it is a part of.
  p.type(("\"\"\"\n" + std::string(5000, 'a') + "\nmore\n\"\"\"\n").c_str());
  ASSERT_TRUE(waits(p, "cut that line off behind 4095 bytes", 2)) << p.output();
  p.type("the ferry\n");
  ASSERT_TRUE(waits(p, "tokens of prompt")) << p.output();
  p.type("\x04");  // Ctrl-D
  EXPECT_EQ(p.wait(), 0) << p.output();
}

/// The answer ends where the room does, and how there is more is told.
TEST_F(ChatE2e, AConversationMayFillItsRoom) {
  OnTerminal p(
      {"chat", talking(), "--tokens", "1000", "--temperature", "0", "--cache-tokens", "64"});
  ASSERT_TRUE(waits(p, "> ")) << p.output();
  p.type("the ferry\n");
  ASSERT_TRUE(waits(p, "no room for more of this conversation: /new begins another")) << p.output();
  p.type("and back\n");
  ASSERT_TRUE(waits(p, "and there is room for 128 with the answer")) << p.output();
  p.type("\x04");
  EXPECT_EQ(p.wait(), 0) << p.output();
}

/// Who sits there is asked of the input: not of the output, which may be a poor terminal or go elsewhere.
TEST_F(ChatE2e, APersonIsWhoTypes) {
  OnTerminal p(chat(), {.environment = {{"TERM", "dumb"}}});
  ASSERT_TRUE(waits(p, "> ")) << p.output();
  p.type("the ferry\n");
  ASSERT_TRUE(waits(p, "tokens of prompt")) << p.output();
  EXPECT_FALSE(p.said("\033")) << p.output();
  p.type("\x03");
  ASSERT_TRUE(waits(p, "once more")) << p.output();
  p.type("\x04");
  EXPECT_EQ(p.wait(), 0) << p.output();
}

TEST_F(ChatE2e, CtrlCAtThePromptLeavesTheSecondTime) {
  OnTerminal p(chat());
  ASSERT_TRUE(waits(p, "> ")) << p.output();
  p.type("half a mess\x03");
  ASSERT_TRUE(waits(p, "once more")) << p.output();
  p.type("the ferry\n");  // not the end of what was given up
  ASSERT_TRUE(waits(p, "tokens of prompt")) << p.output();
  p.type("\x03");
  ASSERT_TRUE(waits(p, "once more", 2)) << p.output();
  p.type("\x03");
  EXPECT_EQ(p.wait(), 0) << p.output();
}

TEST_F(ChatE2e, APipeGetsAnswersAndNothingElse) {
  write(path("lines"), "the ferry\n\nand back\n");
  const auto piped = [&](const std::string& model) {
    const std::string command = std::string(FERRY_PROGRAM) + " chat " + model +
                                " --tokens 5 --temperature 0 <" + path("lines") + " >" +
                                path("out") + " 2>" + path("err");
    return status_of(std::system(command.c_str()));
  };
  ASSERT_EQ(piped(talking()), 0) << read(path("err"));
  const std::string out = read(path("out"));
  EXPECT_EQ(out.rfind("<think>\n", 0), 0u) << out;
  EXPECT_NE(out.find("<think>\n", 1), std::string::npos) << out;
  for (const char* not_there : {"> ", "\033", "tokens of prompt"})
    EXPECT_EQ(out.find(not_there), std::string::npos) << out;
  write(path("lines"), "caf\xe9\n");  // of another age: shown as what it is not, but answered
  EXPECT_EQ(piped(talking()), 0) << read(path("err"));
  EXPECT_EQ(piped(path("mute")), 2);
  EXPECT_NE(read(path("err")).find("has no chat template"), std::string::npos) << read(path("err"));
}

TEST_F(ChatE2e, ATinyModelLearnsToAnswerFromConversations) {
  std::string chats;
  for (int i = 0; i < 200; ++i)
    chats += R"({"messages": [{"role": "user", "content": "no )" + std::to_string(i * i) +
             R"("}, {"role": "assistant", "content": "aye"}], "id": )" + std::to_string(i) + "}\n";
  write(path("chats.jsonl"), chats + R"({"messages": [{"role": "user", "content": "no"}]})" + "\n");
  const Strings prepare = {"data",
                           "prepare",
                           path("chats.jsonl"),
                           "--chat",
                           talking(),
                           "--out",
                           path("chats"),
                           "--held-out-bytes",
                           "1K"};
  const auto with = [](Strings args, const Strings& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  refused(2,
          prepare,
          {"chats.jsonl: line 201",
           "no message of the assistant",
           "remove the line; --skip-bad N leaves out up to N"});
  write(path("table"), "PAR1 and so on");
  Strings table = prepare;
  table[2] = path("table");
  const std::string said_of_table = end_of(table).output;
  EXPECT_NE(said_of_table.find("jq -c 'del(..|nulls)' > "), std::string::npos) << said_of_table;
  for (const char* is_for_text : {"--as-text", "--skip-bad"})
    EXPECT_EQ(said_of_table.find(is_for_text), std::string::npos) << said_of_table;
  refused(2, with(prepare, {"--tokenizer", path("tok.json")}), {"either --tokenizer", "--chat"});
  ran(with(prepare, {"--skip-bad", "1"}));
  write(path("chat.toml"), kRun);
  const auto learn = [&](const std::string& run, int steps, const Strings& more = {}) {
    return with({"train",
                 path("chat.toml"),
                 "--model.init=" + talking(),
                 "--data.dir=" + path("chats"),
                 "--data.format=chat",
                 "--optimizer.lr=0.01",
                 "--schedule.decay_steps=0",
                 "--checkpoint.every=20",
                 "--checkpoint.dir=" + path(run),
                 "--train.steps=" + std::to_string(steps)},
                more);
  };
  ran(learn("learns", 80));
  // To go on is to have gone through.
  ran(learn("stopped", 20));
  ran(learn("stopped", 80, {"--resume"}));
  EXPECT_TRUE(read(checkpoint("learns", 80) + "/model.safetensors") ==
              read(checkpoint("stopped", 80) + "/model.safetensors"));
  // Its template went along, and so it can be asked.
  write(path("asked.json"), R"([{"role": "user", "content": "no 12345"}])");
  const std::string said = ran({"generate",
                                checkpoint("learns", 80),
                                "--chat",
                                path("asked.json"),
                                "--tokens",
                                "20",
                                "--temperature",
                                "0",
                                "--json"});
  EXPECT_NE(said.find("</think>\n\naye\n"), std::string::npos) << said;
  // Other templates, other kinds of data.
  write(path("mute") + "/chat_template.jinja", "{{ messages[0].content }}");
  fs::remove(path("mute") + "/checksums.json");
  refused(
      2, learn("other", 4, {"--model.init=" + path("mute")}), {"another chat template", "--chat"});
  refused(2, learn("other", 4, {"--data.format=text"}), {"data.format text", "conversations"});
  refused(2, learn("other", 4, {"--data.dir=" + path("text")}), {"data.format chat", "holds text"});
  refused(2, train("other", {"--data.dir=" + path("chats")}), {"model.init must name"});
  write(path("own.jinja"), "{{ messages[0].content }}");
  refused(2,
          learn("other", 4, {"--checkpoint.chat_template=" + path("own.jinja")}),
          {path("own.jinja"), "leave it out"});
  refused(2, {"eval", talking(), "--data", path("chats")}, {"holds conversations"});
}

/// Data that were prepared before fingerprints told of special tokens have one of the templates alone.
TEST_F(ChatE2e, ARunGoesOnWithDataThatDoNotTellOfSpecialTokens) {
  const std::string base = path("names");
  ran({"convert", talking(), "--out", base});
  fs::remove(base + "/checksums.json");  // files are changed
  write(base + "/chat_template.jinja",
        "{# names eos_token #}" + read(talking() + "/chat_template.jinja"));
  std::string chats;
  for (int i = 0; i < 200; ++i)
    chats += R"({"messages": [{"role": "user", "content": "no )" + std::to_string(i * i) +
             R"("}, {"role": "assistant", "content": "aye"}]})" + "\n";
  write(path("named.jsonl"), chats);
  ran({"data",
       "prepare",
       path("named.jsonl"),
       "--chat",
       base,
       "--out",
       path("named"),
       "--held-out-bytes",
       "1K"});
  write(path("chat.toml"), kRun);
  const auto learn = [&](const std::string& run, const std::string& steps, const Strings& more) {
    Strings args = {"train",
                    path("chat.toml"),
                    "--model.init=" + base,
                    "--data.dir=" + path("named"),
                    "--lora.rank=2",
                    "--lora.target_modules=q_proj",
                    "--schedule.decay_steps=0",
                    "--checkpoint.dir=" + path(run),
                    "--train.steps=" + steps};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  ran(learn("named-run", "2", {}));
  nlohmann::json names = nlohmann::json::parse(read(base + "/tokenizer_config.json"));
  names["eos_token"] = "<|pad|>";
  write(base + "/tokenizer_config.json", names.dump());
  refused(2,
          learn("named-anew", "2", {}),
          {"another chat template, or with other special tokens", "--chat"});
  const std::string said = ran(learn("named-run", "3", {"--resume"}));
  EXPECT_NE(said.find("was given other special tokens than now (eos_token '"), std::string::npos)
      << said;
  EXPECT_NE(said.find("' then, '<|pad|>' now)"), std::string::npos) << said;
  EXPECT_TRUE(fs::exists(checkpoint("named-run", 3)));
  write(base + "/chat_template.jinja", "{{ messages[0].content }}");
  refused(2, learn("named-run", "4", {"--resume"}), {"another chat template"});
}

}  // namespace
