// ferry generate with many requests: each answer is the one it gets alone, a run that was cut off
// goes on, and what cannot be asked is refused by its line.
#include <gtest/gtest.h>
#include <sys/file.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "on_terminal.h"
#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

class GenerateE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    ran(train("run", {"--train.steps=4", "--schedule.warmup_steps=1"}));
    ran({"convert", path("run") + "/step-00000004", "--out", path("model")});
    std::string all;
    for (int i = 0; i < 12; ++i) {
      Json j = {
          {"prompt",
           "the ferry " + std::string(static_cast<size_t>(7 * i), static_cast<char>('a' + i % 3))},
          {"max_tokens", 3 + i},
          {"id", "request " + std::to_string(i)},
          {"logprobs", i % 3}};
      if (i % 2 == 0) j["temperature"] = 0;
      if (i % 4 == 1) j["top_k"] = 5, j["n"] = 2;
      if (i % 4 == 3) j["stop"] = {"e", "zz"};
      all += j.dump() + "\n";
    }
    write(path("in.jsonl"), all);
  }
  static Strings batch(const std::string& out, const Strings& more = {}) {
    Strings args = {
        "generate", path("model"), "--batch", path("in.jsonl"), "--out", path(out), "--seed", "3"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  /// The lines of a file of answers by request and choice.
  static std::map<std::pair<int, int>, std::string> answers(const std::string& file) {
    std::map<std::pair<int, int>, std::string> all;
    std::istringstream lines(read(path(file)));
    for (std::string line; std::getline(lines, line);) {
      const Json j = Json::parse(line);
      EXPECT_TRUE(
          all.emplace(std::pair{j["index"].get<int>(), j["choice"].get<int>()}, line).second)
          << "twice: " << line;
    }
    return all;
  }
};

/// Of a model that has no template, or another.
TEST_F(GenerateE2e, AConversationIsWrittenByTheTemplateThatIsGiven) {
  write(path("q.json"), R"([{"role": "user", "content": "the ferry"}])");
  write(path("a.jinja"), "{% for m in messages %}{{ m.content }} crosses{% endfor %}");
  write(path("go.jinja"), "{{ .System }}");
  const Strings greedy = {"--temperature", "0", "--tokens", "5"};
  const auto asked = [&](const Strings& more) {
    Strings args = {"generate", path("model"), "--chat", path("q.json")};
    args.insert(args.end(), more.begin(), more.end());
    args.insert(args.end(), greedy.begin(), greedy.end());
    return args;
  };
  refused(2, asked({}), {"has no chat template", "--chat-template FILE gives it one"});
  // What is wrong with a conversation no template mends.
  write(path("wrong.json"), R"([{"rule": "user"}])");
  const Ended wrong = end_of({"generate", path("model"), "--chat", path("wrong.json")});
  EXPECT_EQ(wrong.status, 2) << wrong.output;
  EXPECT_NE(wrong.output.find("wrong.json"), std::string::npos) << wrong.output;
  EXPECT_EQ(wrong.output.find("--chat-template"), std::string::npos) << wrong.output;
  refused(2, asked({"--chat-template", path("go.jinja")}), {"go.jinja", "Go's language"});
  fs::copy(path("model"), path("go"), fs::copy_options::recursive);
  fs::remove(path("go") + "/checksums.json");
  write(path("go") + "/chat_template.jinja", "{{ .System }}");
  refused(2,
          {"generate", path("go"), "--chat", path("q.json")},
          {"Go's language", "--chat-template FILE gives it one"});
  Strings plain = {"generate", path("model"), "--prompt", "the ferry crosses"};
  plain.insert(plain.end(), greedy.begin(), greedy.end());
  EXPECT_EQ(ran(asked({"--chat-template", path("a.jinja")})), ran(plain));
  plain.insert(plain.end(), {"--chat-template", path("a.jinja")});
  refused(2, plain, {"--chat-template is for conversations"});
  // What it says is a part of what a batch asks: answers to another template's prompts are others.
  write(path("chats.jsonl"),
        R"({"messages": [{"role": "user", "content": "the ferry"}], "max_tokens": 3})"
        "\n");
  const Strings batched = {"generate",
                           path("model"),
                           "--batch",
                           path("chats.jsonl"),
                           "--out",
                           path("chats.out"),
                           "--chat-template",
                           path("a.jinja")};
  ran(batched);
  EXPECT_EQ(Json::parse(read(path("chats.out")))["index"], 0);
  ran(batched);  // nothing is left to ask
  write(path("a.jinja"), "{{ messages[0].content }} sinks");
  refused(2, batched, {"chats.out"});
}

TEST_F(GenerateE2e, EachAnswerIsTheOneItGetsAlone) {
  const std::string said = ran(batch("together"));
  const Json last = Json::parse(said.substr(said.rfind('{')));
  EXPECT_EQ(last["requests"], 15);
  EXPECT_EQ(last["refused"], 0);
  ran(batch("one by one", {"--running", "1"}));
  const auto together = answers("together");
  EXPECT_EQ(together.size(), 15u);
  EXPECT_EQ(together, answers("one by one"));
  // By itself, as people ask: greedy, and the first of those that are drawn.
  std::istringstream lines(read(path("in.jsonl")));
  int index = 0;
  for (std::string line; std::getline(lines, line); ++index) {
    const Json asked = Json::parse(line);
    Strings args = {"generate",
                    path("model"),
                    "--prompt",
                    asked["prompt"].get<std::string>(),
                    "--tokens",
                    std::to_string(asked["max_tokens"].get<int>()),
                    "--seed",
                    "3",
                    "--no-echo",
                    "--json",
                    "--draft",
                    "3"};
    if (asked.contains("temperature")) args.insert(args.end(), {"--temperature", "0"});
    if (asked.contains("top_k")) args.insert(args.end(), {"--top-k", "5"});
    if (asked.contains("stop"))
      for (const Json& s : asked["stop"]) args.insert(args.end(), {"--stop", s.get<std::string>()});
    const std::string output = ran(args);
    const Json alone = Json::parse(output.substr(output.find("{\"text\"")));
    const Json there = Json::parse(together.at({index, 0}));
    for (const char* field : {"text", "finish", "tokens", "prompt_tokens"})
      EXPECT_EQ(alone[field], there[field]) << "request " << index << ": " << field;
    EXPECT_EQ(there["id"], asked["id"]);
    EXPECT_EQ(there["log_probs"].size(), there["tokens"].get<size_t>());
    EXPECT_EQ(there.contains("top"), asked["logprobs"] != 0);
  }
}

TEST_F(GenerateE2e, WhatWasCutOffGoesOn) {
  ran(batch("whole"));
  const std::string all = read(path("whole"));
  for (const size_t kept : {size_t{0}, all.find('\n') + 1, all.size() / 2, all.size() - 1}) {
    write(path("cut"), all.substr(0, kept));
    ran(batch("cut"));
    EXPECT_EQ(answers("cut"), answers("whole")) << "after " << kept << " bytes";
    // Whole lines are kept as they were.
    const size_t lines = kept == 0 ? 0 : all.rfind('\n', kept - 1) + 1;
    EXPECT_EQ(read(path("cut")).substr(0, lines), all.substr(0, lines)) << kept;
  }
  const std::string again = ran(batch("whole"));  // nothing is left to do
  EXPECT_NE(again.find("\"requests\":0"), std::string::npos) << again;
  EXPECT_EQ(read(path("whole")), all);
  // Somebody else writes it: it stays as it is, also what would be taken away.
  write(path("held"), all + "{\"index\": 1");
  const int fd = ::open(path("held").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::flock(fd, LOCK_EX), 0);
  EXPECT_NE(end_of(batch("held")).status, 0);
  EXPECT_EQ(read(path("held")), all + "{\"index\": 1");
  ::close(fd);
  // Other settings, other requests, a file of something else.
  refused(2, batch("whole", {"--quantize", "int8"}), {"whole:1", "give another --out"});
  refused(2, batch("whole", {"--top-p", "0.5"}), {"whole:1", "give another --out"});
  write(path("note"), "a letter\n");
  refused(2, batch("note"), {"note:1"});
  EXPECT_EQ(read(path("note")), "a letter\n");
}

/// What is not the beginning of an answer is somebody's, also where its only line has no end; so are the requests.
TEST_F(GenerateE2e, WhatOthersWroteStays) {
  for (const char* const text :
       {"my notes", "{\"precious\": 1}", "{", "{\"index\":0,\"mine\":1", " "}) {
    const bool begins = std::string(text) == "{";  // that may be ours
    write(path("others"), text);
    const Ended e = end_of(batch("others"));
    EXPECT_EQ(e.status, begins ? 0 : 2) << text << "\n" << e.output;
    if (!begins) {
      EXPECT_EQ(read(path("others")), text);
    }
  }
  const std::string requests = read(path("in.jsonl"));
  refused(2, batch("in.jsonl"), {"is the file with the requests"});
  fs::create_symlink(path("in.jsonl"), path("link.jsonl"));
  refused(2, batch("link.jsonl"), {"is the file with the requests"});
  EXPECT_EQ(read(path("in.jsonl")), requests);
  // A link to where there is room stays one.
  write(path("room"), "{\"index\":0");
  fs::create_symlink(path("room"), path("leads"));
  ran(batch("leads"));
  EXPECT_TRUE(fs::is_symlink(path("leads")));
  EXPECT_EQ(answers("room").size(), answers("leads").size());
  EXPECT_GT(answers("room").size(), 12u);
}

/// Of a model that no passport has summed up all weights are read once more: minutes, for large ones.
TEST_F(GenerateE2e, ABatchShowsThatItHashesTheModel) {
  OnTerminal p({"generate", path("model"), "--batch", path("in.jsonl"), "--out", path("shown")});
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said(" of the model's weights hashed")) << p.output();
}

/// What was answered stays, and the same command makes the rest.
TEST_F(GenerateE2e, AStoppedBatchSaysHowFarItIs) {
  std::string many;
  for (int i = 0; i < 4000; ++i)
    many += Json{{"prompt", "the ferry " + std::to_string(i)}, {"max_tokens", 40}}.dump() + "\n";
  write(path("many.jsonl"), many);
  Program p(path("log"),
            {"generate", path("model"), "--batch", path("many.jsonl"), "--out", path("part")});
  ASSERT_TRUE(wait_for([&] {
    return p.ended() || (fs::exists(path("part")) && fs::file_size(path("part")) > 0);
  })) << p.output();
  p.signal(SIGINT);
  EXPECT_EQ(p.wait(), 256 + SIGINT) << p.output();  // a loop of the shell ends with it
  EXPECT_TRUE(p.said("stopped by SIGINT: ")) << p.output();
  EXPECT_TRUE(p.said("of 4000 answers; the same command makes the others")) << p.output();
  EXPECT_TRUE(read(path("part")).ends_with("\n"));
  EXPECT_GT(answers("part").size(), 0u);
}

TEST_F(GenerateE2e, ADashIsStandardInput) {
  write(path("said.txt"), "the ferry");
  const auto said = [&](const std::string& more, const std::string& input) {
    const std::string command = std::string(FERRY_PROGRAM) + " generate " + path("model") +
                                " --tokens 4 --temperature 0 " + more + " " + input + " >" +
                                path("out") + " 2>" + path("err");
    EXPECT_EQ(status_of(std::system(command.c_str())), 0) << read(path("err"));
    return read(path("out"));
  };
  const std::string asked = said("--prompt 'the ferry'", "</dev/null");
  EXPECT_EQ(said("--file -", "<" + path("said.txt")), asked);
  const std::string go = "--batch - --out " + path("dashed");
  for (int times = 0; times < 2; ++times) said(go, "<" + path("in.jsonl"));
  EXPECT_GT(answers("dashed").size(), 12u);
  fs::copy(path("in.jsonl"), path("both"));
  const std::string onto_itself = std::string(FERRY_PROGRAM) + " generate " + path("model") +
                                  " --batch - --out " + path("both") + " <" + path("both") + " 2>" +
                                  path("err");
  EXPECT_EQ(status_of(std::system(onto_itself.c_str())), 2) << read(path("err"));
  EXPECT_EQ(read(path("both")), read(path("in.jsonl")));
  const std::string twice = std::string(FERRY_PROGRAM) + " tokenizer train - - --out " +
                            path("none.json") + " <" + path("said.txt") + " 2>" + path("err");
  EXPECT_EQ(status_of(std::system(twice.c_str())), 2) << read(path("err"));
  said("", "<" + path("said.txt"));
  EXPECT_NE(read(path("err")).find("--file - takes the text from there"), std::string::npos)
      << read(path("err"));
  said("--prompt a", "<" + path("said.txt"));
  EXPECT_EQ(read(path("err")).find("--file -"), std::string::npos) << read(path("err"));
  refused(2,
          {"generate", path("model"), "--batch", path("in.jsonl"), "--out", "-"},
          {"--out -: answers go to a file"});
}

/// Two models of one make differ far behind their files' beginnings: one does not go on where another was.
TEST_F(GenerateE2e, AnotherModelDoesNotGoOn) {
  const auto copy = [](const std::string& from, const std::string& to) {
    std::filesystem::copy(path(from), path(to), std::filesystem::copy_options::recursive);
    return path(to) + "/model.safetensors";
  };
  // A header may be as long as it likes: blanks make it 2 MiB.
  constexpr uint64_t kBlanks = uint64_t{2} << 20;
  const std::string large = copy("model", "large");
  std::filesystem::remove(path("large") + "/checksums.json");  // as other tools leave models
  std::string bytes = read(large);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  bytes.insert(8 + header, kBlanks, ' ');
  header += kBlanks;
  std::memcpy(bytes.data(), &header, sizeof header);
  write(large, bytes);
  const auto from = [](const std::string& model) {
    Strings args = batch("of large");
    args[1] = path(model);
    return args;
  };
  ran(from("large"));
  const std::string all = read(path("of large"));
  const std::string first = all.substr(0, all.find('\n') + 1);
  write(path("of large"), first);
  const Json tensors = Json::parse(bytes.substr(8, header));
  const auto norm = tensors["model.norm.weight"]["data_offsets"][0].get<uint64_t>();
  bytes[8 + header + norm] ^= 1;  // one bit of one weight
  write(copy("large", "other"), bytes);
  refused(2, from("other"), {"of large:1", "give another --out"});
  EXPECT_EQ(read(path("of large")), first);
  // The same model elsewhere is the same.
  copy("large", "moved");
  ran(from("moved"));
  std::istringstream lines(all);
  std::set<std::string> expected, got;
  for (std::string line; std::getline(lines, line);) expected.insert(line);
  std::istringstream others(read(path("of large")));
  for (std::string line; std::getline(others, line);) got.insert(line);
  EXPECT_EQ(got, expected);
}

/// What a command reads as text may be packed, and what is no text is refused by its name.
TEST_F(GenerateE2e, EveryInputOfTextComesThroughOneOpener) {
  write(path("lines.jsonl"), "{\"text\":\"the ferry\"}\n{\"text\":\"a river\"}\n");
  write(path("one.jsonl"), "{\"text\":\"the ferry\"}\n");
  write(path("texts.txt"), "the ferrya river");
  write(path("schema.json"), "{\n  \"type\": \"boolean\"\n}\n");
  write(path("tasks.jsonl"), "{\"prompt\":\"1+1=\",\"answer\":\"2\"}\n");
  for (const char* name : {"lines.jsonl", "one.jsonl", "schema.json", "tasks.jsonl", "in.jsonl"})
    ASSERT_EQ(std::system(("gzip -k " + path(name)).c_str()), 0);
  for (const char* name : {"lines.jsonl", "schema.json", "tasks.jsonl", "texts.txt"})
    ASSERT_EQ(std::system(
                  ("iconv -f UTF-8 -t UTF-16 " + path(name) + " > " + path(name) + ".16").c_str()),
              0);

  const auto encoded = [&](const std::string& file, const Strings& more = {}) {
    Strings args = {"tokenizer", "encode", "--tokenizer", path("tok.json"), "--file", path(file)};
    args.insert(args.end(), more.begin(), more.end());
    return ran(args);
  };
  const std::string two =
      ran({"tokenizer", "encode", "--tokenizer", path("tok.json"), "the ferry", "a river"});
  EXPECT_EQ(encoded("lines.jsonl"), two);
  EXPECT_EQ(encoded("lines.jsonl.gz"), two);
  const std::string as_text = encoded("lines.jsonl", {"--as-text"});
  EXPECT_EQ(std::count(as_text.begin(), as_text.end(), '\n'), 1);

  const auto continued = [&](const std::string& file, const Strings& more = {}) {
    Strings args = {
        "generate", path("model"), "--file", path(file), "--tokens", "2", "--seed", "1"};
    args.insert(args.end(), more.begin(), more.end());
    return ran(args);
  };
  EXPECT_EQ(
      continued("one.jsonl.gz"),
      ran({"generate", path("model"), "--prompt", "the ferry", "--tokens", "2", "--seed", "1"}));
  EXPECT_EQ(continued("one.jsonl", {"--as-text"}),
            ran({"generate",
                 path("model"),
                 "--prompt",
                 "{\"text\":\"the ferry\"}\n",
                 "--tokens",
                 "2",
                 "--seed",
                 "1"}));
  refused(2,
          {"generate", path("model"), "--file", path("lines.jsonl")},
          {"lines.jsonl", "--batch", "--as-text"});

  ran(batch("plain"));
  ran({"generate",
       path("model"),
       "--batch",
       path("in.jsonl.gz"),
       "--out",
       path("packed"),
       "--seed",
       "3"});
  EXPECT_EQ(answers("packed"), answers("plain"));
  ran({"generate", path("model"), "--json-schema", path("schema.json.gz"), "--tokens", "8"});
  ran({"score", path("model"), path("tasks.jsonl.gz"), "--tokens", "2"});
  for (const Strings& args : {Strings{"--batch", path("lines.jsonl.16"), "--out", path("none")},
                              Strings{"--json-schema", path("schema.json.16")},
                              Strings{"--chat", path("schema.json.16")}}) {
    Strings all = {"generate", path("model")};
    all.insert(all.end(), args.begin(), args.end());
    refused(2, all, {"UTF-16", "iconv"});
  }
  refused(2, {"score", path("model"), path("tasks.jsonl.16")}, {"UTF-16", "iconv"});

  // What int8 costs is told of a text, not of its packing, and of the field of lines.
  const auto cost = [&](const std::string& text, const std::string& out) {
    const std::string said =
        ran({"convert", path("model"), "--to", "int8", "--out", path(out), "--text", path(text)});
    return Json::parse(said.substr(said.rfind("{\"out\"")));
  };
  const Json packed = cost("lines.jsonl.gz", "q0");
  EXPECT_EQ(packed["text_tokens"], std::count(two.begin(), two.end(), ' ') + 1);
  EXPECT_EQ(packed["kl"], cost("lines.jsonl", "q1")["kl"]);
  for (const char* name : {"texts.txt.16", "q0/model.safetensors"}) {
    refused(2,
            {"convert", path("model"), "--to", "int8", "--out", path("q2"), "--text", path(name)},
            {path(name)});
    EXPECT_FALSE(fs::exists(path("q2"))) << name;  // before hours are spent
  }
}

/// The model is whole then, and whoever asks the comparison to end is not kept waiting.
TEST_F(GenerateE2e, ASignalEndsTheComparisonOfWhatWasConverted) {
  std::string text = generated_text(7);
  for (int doubled = 0; doubled < 4; ++doubled) text += std::string(text);
  write(path("long.txt"), text);
  const auto convert = [](const std::string& out) {
    return Strings{"convert",
                   path("model"),
                   "--to",
                   "int8",
                   "--out",
                   out,
                   "--text",
                   path("long.txt"),
                   "--tokens",
                   "16000000"};
  };
  Program p(path("log"), convert(path("compared")));
  ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("makes its passport"); }));
  p.signal(SIGINT);
  EXPECT_EQ(p.wait(), 256 + SIGINT) << p.output();
  ran({"generate", path("compared"), "--prompt", "a", "--tokens", "2"});
  // Where it comes before the comparison begins.
  Program early(
      path("log"), convert(path("stopped")), {{"FERRY_FAULT", "file.sync_folder:*:delay1000"}});
  ASSERT_TRUE(wait_for([&] { return early.ended() || fs::exists(path("stopped")); }));
  early.signal(SIGINT);
  EXPECT_EQ(early.wait(), 256 + SIGINT) << early.output();
  EXPECT_TRUE(early.said(path("stopped") + " is written whole; what it costs was not measured"))
      << early.output();
  ran({"generate", path("stopped"), "--prompt", "a", "--tokens", "2"});
}

TEST_F(GenerateE2e, WrongLinesAreNamedBeforeAnythingIsComputed) {
  const auto wrong = [&](const std::string& line, const Strings& says) {
    write(path("bad.jsonl"), "{\"prompt\":\"a\"}\n\n" + line + "\n");
    Strings all = says;
    all.push_back("bad.jsonl:3");
    refused(
        2, {"generate", path("model"), "--batch", path("bad.jsonl"), "--out", path("none")}, all);
    EXPECT_FALSE(fs::exists(path("none"))) << line;
  };
  wrong("{\"prompt\":\"a\",\"temprature\":1}", {"temprature"});
  wrong("{\"prompt\":\"a\",\"temperature\":-1}", {"\"temperature\": -1 must be"});
  wrong("{\"prompt\":\"a\",\"temperature\":\"hot\"}", {"temperature"});
  wrong("{\"prompt\":\"a\",\"n\":1000000}", {"\"n\""});
  wrong("{\"prompt\":\"a\",\"logit_bias\":{\"x\":1}}", {"logit_bias"});
  wrong("{\"prompt\":\"a\",\"stop\":[1]}", {"stop"});
  wrong("{\"prompt\":\"a\",\"messages\":[]}", {"prompt"});
  wrong("{}", {"prompt"});
  wrong("[1]", {"not a JSON object"});
  wrong("{\"prompt\":", {});
  refused(2, {"generate", path("model"), "--batch", path("in.jsonl")}, {"--out"});
  refused(2, batch("none", {"--prompt", "a"}), {"--batch has the prompts"});
}

/// Also what only shows when a prompt is made of a line: all of it before the first token.
TEST_F(GenerateE2e, AllLinesThatCannotBeAskedAreNamedTogether) {
  fs::copy(path("model"), path("strict"), fs::copy_options::recursive);
  for (const char* const no_longer : {"checksums.json", "passport.json", "verified.json"})
    fs::remove(path("strict") + "/" + no_longer);
  write(path("strict") + "/chat_template.jinja",
        "{% for m in messages %}{% if m.role != 'user' %}"
        "{{ raise_exception('no role ' + m.role) }}{% endif %}{{ m.content }}{% endfor %}");
  const auto said = [&](const std::string& lines) {
    write(path("mixed.jsonl"), lines);
    const Ended end = end_of(
        {"generate", path("strict"), "--batch", path("mixed.jsonl"), "--out", path("mixed")});
    EXPECT_EQ(end.status, 2) << end.output;
    EXPECT_FALSE(fs::exists(path("mixed"))) << end.output;
    return end.output;
  };
  const auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\nis not in\n" << text;
  };
  const std::string some = said(
      "{\"prompt\":\"" + std::string(2000, 'q') +
      "\"}\n{\"prompt\":[0,1],\"max_tokens\":2}\n\n{\"prompt\":[99999]}\n"
      "{\"messages\":[{\"role\":\"pirate\",\"content\":\"a\"}]}\n{\"prompt\":[],\"logit_bias\":{}}"
      "\n"
      "{\"prompt\":\"a\",\"logit_bias\":{\"60000\":1}}\n{\"prompt\":\"a\",\"promt\":1}\n{"
      "\"prompt\":[1.5]}\n"
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n");
  has(some, "7 of 9 requests cannot be asked; nothing was computed");
  for (const char* const part : {"mixed.jsonl:1: prompt: ",
                                 " positions",
                                 "mixed.jsonl:4: prompt: token 99999",
                                 "mixed.jsonl:5: ",
                                 "no role pirate",
                                 "mixed.jsonl:6: prompt: empty",
                                 "mixed.jsonl:7: logit bias of token 60000",
                                 "mixed.jsonl:8",
                                 "promt",
                                 "mixed.jsonl:9: \"prompt\" has 1.5"})
    has(some, part);
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "{}\n";
  const std::string told = said(many);
  has(told, "1000 of 1000 requests");
  has(told, "and 980 more");
  EXPECT_LT(told.size(), 4000u);
  // What is no line's own fault is told at once, and not for each of them.
  fs::remove(path("strict") + "/chat_template.jinja");
  const std::string one = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n";
  const std::string templateless = said("{\"prompt\":\"a\"}\n" + one + one);
  has(templateless, "mixed.jsonl:2: ");
  EXPECT_EQ(templateless.find("requests cannot be asked"), std::string::npos) << templateless;
}

TEST_F(GenerateE2e, WhatHasNoAnswerGetsALineThatSaysWhyAndIsAskedAgain) {
  fs::copy(path("model"), path("broken"), fs::copy_options::recursive);
  fs::remove(path("broken") + "/checksums.json");
  const std::string weights = path("broken") + "/model.safetensors";
  std::string bytes = read(weights);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const Json norm = Json::parse(bytes.substr(8, header))["model.norm.weight"];
  ASSERT_EQ(norm["dtype"], "F32");
  const float large = 3e38f;  // finite, and what is multiplied with it is not
  for (auto at = norm["data_offsets"][0].get<uint64_t>(); at < norm["data_offsets"][1];
       at += sizeof large)
    std::memcpy(bytes.data() + 8 + header + at, &large, sizeof large);
  write(weights, bytes);
  write(path("two.jsonl"), "{\"prompt\":\"the ferry\"}\n{\"prompt\":\"a\",\"id\":\"second\"}\n");
  const Strings args = {
      "generate", path("broken"), "--batch", path("two.jsonl"), "--out", path("two")};
  refused(1, args, {"2 of 2 answers could not be made"});
  const auto all = answers("two");
  EXPECT_NE(all.at({0, 0}).find("\"error\":\"position"), std::string::npos) << all.at({0, 0});
  EXPECT_NE(all.at({1, 0}).find("\"id\":\"second\""), std::string::npos);
  // Given again, it asks them once more, and fails as before.
  refused(1, args, {"2 of 2 answers could not be made"});
  EXPECT_EQ(answers("two"), all);
}

/// A template sees the fields of a line's messages as the line has them.
TEST_F(GenerateE2e, ALinesMessagesKeepTheirOrder) {
  fs::copy(path("model"), path("chats"), fs::copy_options::recursive);
  for (const char* const no_longer : {"checksums.json", "passport.json", "verified.json"})
    fs::remove(path("chats") + "/" + no_longer);
  write(path("chats") + "/chat_template.jinja", kInFileOrder);
  write(path("chats.jsonl"),
        R"({"messages": [{"role": "user", "content": "the ferry"}], "max_tokens": 2})"
        "\n");
  ran({"generate", path("chats"), "--batch", path("chats.jsonl"), "--out", path("chatted")});
  EXPECT_EQ(answers("chatted").size(), 1u);
}

/// From the model that was trained to its codes, each says what it was made from, and is judged against it.
TEST_F(GenerateE2e, AConvertedModelSaysWhatItWasMadeFrom) {
  const std::string source = path("run") + "/step-00000004";
  ran({"keygen", path("made.key")});
  ran({"passport", source, "--key", path("made.key")});
  ran({"verify", source});
  const Json trained = Json::parse(read(source + "/passport.json"));
  const auto to = [&](const std::string& kind, const std::string& from, const std::string& name) {
    ran({"convert", from, "--to", kind, "--out", path(name)});
    ran({"passport", path(name)});
    return Json::parse(read(path(name) + "/passport.json"))["statement"]["made_from"];
  };
  const Json f32 = to("f32", source, "made f32"), int8 = to("int8", source, "made int8"),
             bf16 = to("bf16", source, "made bf16"),
             int4 = to("int4", path("made bf16"), "made int4");
  EXPECT_EQ(int8["to"], "int8");
  EXPECT_EQ(int8["source"], "directory");
  EXPECT_EQ(int8["passport"], trained["root"]);
  EXPECT_EQ(int8["signed_by"], trained["signature"]["public_key"]);
  EXPECT_EQ(int8["verified"], true);
  EXPECT_EQ(int8["weights"], f32["weights"]);
  EXPECT_EQ(bf16["weights"], f32["weights"]);
  EXPECT_NE(int4["weights"], f32["weights"]);
  EXPECT_EQ(int4["verified"], false);
  EXPECT_FALSE(int4.contains("signed_by"));
  const auto judged = [&](const std::string& name, const std::string& by) {
    const std::string said =
        ran({"verify", path(name), "--source", by, "--quick", "--no-remember", "--json"});
    EXPECT_NE(said.find("made from  " + name.substr(5)), std::string::npos) << said;
    return Json::parse(said.substr(said.rfind("{\"verdict\"")))["source"]["worst"].get<double>();
  };
  EXPECT_EQ(judged("made f32", source), 0);
  for (const double worst : {judged("made int8", source), judged("made int4", path("made bf16"))}) {
    EXPECT_GT(worst, 0.3);
    EXPECT_LE(worst, 1);
  }
  refused(2,
          {"verify", path("made int4"), "--source", source},
          {"states that it was made from the weights " + int4["weights"].get<std::string>(),
           "give its own source"});
  // What is stated of a passport and who signed it is the source's own, or refused.
  EXPECT_NE(ran({"verify", path("made int8"), "--quick", "--no-remember"})
                .find("made from  it states that it was made from: int8 codes"),
            std::string::npos);
  const auto copied = [&](const std::string& from, const char* name) {
    fs::copy(from, path(name), fs::copy_options::recursive);
    return path(name);
  };
  const std::string resigned = copied(source, "resigned"), bare = copied(source, "bare");
  ran({"keygen", path("other.key")});
  ran({"passport", resigned, "--key", path("other.key")});
  refused(2,
          {"verify", path("made int8"), "--source", resigned},
          {"states that it was made from a model signed by " + int8["signed_by"].get<std::string>(),
           "is signed by"});
  for (const char* const gone : {"checksums.json", "passport.json"}) fs::remove(bare + "/" + gone);
  refused(2,
          {"verify", path("made int8"), "--source", bare},
          {"states that it was made from a model with the passport " +
               int8["passport"].get<std::string>(),
           "has none"});
  // A passport that came before the file says nothing of it until it is added, and without one the file counts.
  const std::string early = copied(path("made int8"), "early");
  for (const char* const later : {"checksums.json", "passport.json", "made_from.json"})
    fs::remove(early + "/" + later);
  ran({"passport", early});
  fs::copy(path("made int8") + "/made_from.json", early + "/made_from.json");
  ran({"passport", early, "--add"});
  EXPECT_EQ(Json::parse(read(early + "/passport.json"))["statement"]["made_from"], int8);
  fs::remove(early + "/passport.json");
  refused(2,
          {"verify", early, "--source", path("made bf16")},
          {"states that it was made from the weights " + int8["weights"].get<std::string>()});
  // Other codes, and a passport that is right for them.
  fs::copy(path("made int8"), path("swapped"), fs::copy_options::recursive);
  const std::string weights = path("swapped") + "/quant_model_weights.safetensors";
  std::string bytes = read(weights);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const Json tensors = Json::parse(bytes.substr(8, header));
  const std::string name = "model.layers.0.self_attn.o_proj.weight";
  const auto begin = 8 + header + tensors[name]["data_offsets"][0].get<uint64_t>();
  for (int i = 0; i < 64; ++i) bytes[begin + static_cast<size_t>(i)] = static_cast<char>(i);
  write(weights, bytes);
  for (const char* const no_longer : {"checksums.json", "passport.json"})
    fs::remove(path("swapped") + "/" + no_longer);
  ran({"passport", path("swapped")});
  ran({"verify", path("swapped"), "--quick", "--no-remember"});
  refused(1,
          {"verify", path("swapped"), "--source", source, "--quick", "--no-remember"},
          {name, "times as far from that of " + source, "it was not made of it"});
  // The device computes it as it is, and that is what is remembered of the device.
  refused(1,
          {"verify", path("swapped"), "--source", source, "--quick"},
          {"passed on cpu, but its numbers are not those of " + source});
  EXPECT_EQ(Json::parse(read(path("swapped") + "/verified.json"))["verifications"][0]["verdict"],
            "passed");
}

TEST_F(GenerateE2e, AnAnswerSaysWhyItEnded) {
  const auto finish = [&](const Strings& more) {
    Strings args = {
        "generate", path("model"), "--prompt", "the ferry", "--temperature", "0", "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const std::string out = ran(args);
    return Json::parse(out.substr(out.find("{\"text\"")))["finish"].get<std::string>() +
           (out.find("positions do") == std::string::npos ? "" : ", noted");
  };
  EXPECT_EQ(finish({"--tokens", "4"}), "length");
  EXPECT_EQ(finish({"--tokens", "4", "--cache-tokens", "128"}), "length");
  const std::string all = finish({"--tokens", "5000"});
  EXPECT_TRUE(all == "context, noted" || all == "end") << all;
}

TEST_F(GenerateE2e, ThePromptsLogProbabilitiesAreShownOnDemand) {
  const Strings args = {"generate", path("model"), "--prompt", "the ferry", "--tokens", "1"};
  Strings with = args;
  with.insert(with.end(), {"--json", "--prompt-log-probs", "2"});
  const std::string out = ran(with);
  const Json j = Json::parse(out.substr(out.find("{\"text\"")));
  const Json &ids = j["prompt_ids"], &log_probs = j["prompt_log_probs"], &top = j["prompt_top"];
  ASSERT_EQ(ids.size(), j["prompt_tokens"].get<size_t>());
  ASSERT_EQ(log_probs.size(), ids.size());
  ASSERT_EQ(top.size(), ids.size());
  EXPECT_TRUE(log_probs[0].is_null() && top[0].is_null());
  for (size_t i = 1; i < ids.size(); ++i) {
    EXPECT_LT(log_probs[i].get<double>(), 0);
    ASSERT_EQ(top[i].size(), 2u);
    EXPECT_GE(top[i][0][1].get<double>(), log_probs[i].get<double>());
    for (const Json& t : top[i])
      if (t[0] == ids[i]) {
        EXPECT_EQ(t[1], log_probs[i]);
      }
  }
  Strings without = args;
  without.insert(without.end(), {"--prompt-log-probs", "2"});
  refused(2, without, {"--json"});
}

TEST_F(GenerateE2e, ACacheThatIsLargerThanTheMachineIsRefused) {
  const Strings says = {"the cache's pages and the table of positions take", "--cache-tokens"};
  const Strings much = {"--cache-tokens", "1073741824"};
  Strings one = {"generate", path("model"), "--prompt", "a"};
  one.insert(one.end(), much.begin(), much.end());
  refused(3, one, says);
  refused(3, batch("unmade", much), says);
  EXPECT_FALSE(fs::exists(path("unmade")));
}

TEST_F(GenerateE2e, AnAnswerIsHeldToASchema) {
  write(path("schema.json"),
        R"({"type": "object", "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 40},
            "b": {"type": "string", "maxLength": 6}, "c": {"enum": ["x", null]}},
            "required": ["a", "b", "c"], "additionalProperties": false})");
  const auto asked = [&](const Strings& more) {
    Strings args = {"generate",
                    path("model"),
                    "--prompt",
                    "the ferry",
                    "--no-echo",
                    "--json",
                    "--tokens",
                    "100"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const auto text_of = [](const std::string& said) {
    return Json::parse(said.substr(said.rfind("{\"text\"")))["text"].get<std::string>();
  };
  for (const char* seed : {"1", "2", "3"}) {
    const Strings held = {"--json-schema", path("schema.json"), "--seed", seed};
    const std::string text = text_of(ran(asked(held)));
    const Json j = Json::parse(text, nullptr, false);
    ASSERT_TRUE(j.is_object() && j.size() == 3) << text;
    EXPECT_TRUE(j["a"].is_number_integer() && j["a"] >= 3 && j["a"] <= 40) << text;
    EXPECT_TRUE(j["b"].is_string() && (j["c"] == "x" || j["c"].is_null())) << text;
    Strings drafted = held;
    drafted.insert(drafted.end(), {"--draft", "3"});
    EXPECT_EQ(text_of(ran(asked(drafted))), text);
  }
  write(path("schema.json"), R"({"properties": {"a": {"not": {}}}})");
  refused(
      2, asked({"--json-schema", path("schema.json")}), {"the schema/a: 'not' is not supported"});
  refused(2, batch("held", {"--json-object"}), {"--json-object", "--batch"});
}

}  // namespace
