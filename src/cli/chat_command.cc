#include "cli/chat_command.h"

#include <fmt/core.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/counted.h"
#include "base/json.h"
#include "base/terminal.h"
#include "checkpoint/model_chat.h"
#include "cli/answer_options.h"
#include "cli/chat_lines.h"
#include "cli/command.h"
#include "cli/given_template.h"
#include "cli/model_options.h"
#include "engine/generate.h"
#include "text/answer_text.h"
#include "text/thought_painter.h"
#include "text/utf8.h"

namespace ferry::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kHelp =
    "  /new     begin another conversation\n"
    "  /bye     leave (Ctrl-D does, too)\n"
    "  Ctrl-C   stop the answer\n"
    "  \"\"\" alone on a line begins and ends a message of several lines; so does a \\ at a line's "
    "end";

volatile std::sig_atomic_t g_interrupted = 0;
int g_interrupts = -1;  // an eventfd that the handler counts up

struct Arguments {
  OpenOptions open;
  std::string system;
  GivenTemplate chat_template;
  bool plain = false;
  AnswerOptions answer;
};

class Chat {
 public:
  Chat(const Arguments& args, const OpenedModel& model)
      : args_(args),
        model_(model),
        engine_(*model.model, engine_options(args.answer, *model.model, 1, 0)),
        terminal_(Terminal::of(stdout)),
        talks_(is_terminal(STDIN_FILENO)) {
    begin_anew();
  }

  /// Errors: what makes every answer impossible, and, where nobody sits at a terminal, the first
  /// that one meets.
  Result<void> run() {
    // Whether it can talk at all is better known before somebody has typed.
    messages_.push_back({{"role", "user"}, {"content", "?"}});
    TRY(prompt());
    begin_anew();
    if (talks_)
      say(args_.plain ? "Begin a text, and the model goes on with it; /help explains."
                      : "Say something; /help explains.");
    // Whoever keeps the answers in a file still sees that it is his turn.
    ChatLines lines(
        STDIN_FILENO, g_interrupts, is_terminal(STDOUT_FILENO) ? stdout : stderr, talks_);
    for (bool leaving = false;;) {
      const ChatInput input = lines.next();
      switch (input.kind) {
        case ChatInput::Kind::kEnd:
          if (talks_) fmt::print("\n");
          return flush_output();
        case ChatInput::Kind::kInterrupted:
          fmt::print("\n");
          if (leaving) return flush_output();
          say("Ctrl-C once more, Ctrl-D or /bye leaves.");
          leaving = true;
          continue;
        case ChatInput::Kind::kCut:
          tell(
              fmt::format("ferry: the terminal cut that line off behind {} bytes, and nothing was "
                          "asked: type \"\"\", shorter lines, and \"\"\" again",
                          input.text.size()));
          break;
        case ChatInput::Kind::kCommand:
          if (input.text == "/bye" || input.text == "/exit" || input.text == "/quit")
            return flush_output();
          obey(input.text);
          break;
        case ChatInput::Kind::kMessage: {
          // A terminal or a file may hold anything; a template is given text.
          messages_.push_back(
              {{"role", "user"}, {"content", text::replace_ill_formed(input.text)}});
          const Result<void> answered = answer();
          if (answered) break;
          messages_.erase(messages_.size() - 1);
          if (!talks_) return answered;
          tell("ferry: " + answered.error().message);
          break;
        }
      }
      leaving = false;
    }
  }

  bool talks() const { return talks_; }
  Result<void> require_room() const { return require_cache(engine_, *model_.model); }

 private:
  void begin_anew() {
    messages_ = Json::array();
    if (!args_.system.empty())
      messages_.push_back(
          {{"role", "system"}, {"content", text::replace_ill_formed(args_.system)}});
  }

  void obey(const std::string& command) {
    if (command == "/new") {
      begin_anew();
      say("Another conversation.");
    } else if (command == "/help") {
      say(kHelp);
    } else {
      say(command + ": unknown; /help lists what there is. A message may begin with a blank.");
    }
  }

  Result<ChatPrompt> prompt() const {
    if (args_.plain) {
      const auto text = messages_.back()["content"].get<std::string>();
      ChatPrompt p{.text = text, .ids = {}};
      if (model_.texts.begins) p.ids.push_back(*model_.texts.bos);
      model_.tokenizer->encode(text, text::Tokenizer::Specials::kAsText, p.ids);
      return p;
    }
    return chat_prompt(
        model_.texts, json_text(messages_), "the conversation", args_.open.directory);
  }

  /// To the last message; becomes the next one.
  Result<void> answer() {
    g_interrupted = 0;
    TRY_ASSIGN(const ChatPrompt asked, prompt());
    engine::GenerateOptions options = args_.answer.generate;
    const int64_t room = engine_.length_max() - std::ssize(asked.ids);
    if (talks_ && room < 1)
      return fail(Code::kInvalidInput,
                  "the conversation has {} tokens, and there is room for {} with the answer: /new "
                  "begins another{}",
                  asked.ids.size(),
                  engine_.length_max(),
                  larger_cache());
    if (talks_) options.tokens_max = std::min(options.tokens_max, room);
    const text::AnswerSyntax syntax = answer_syntax(model_.texts);
    const bool thinking = text::begins_thinking(syntax, asked.text);
    text::ThoughtPainter painter(syntax, thinking, terminal_.colours());
    text::AnswerText pieces(*model_.tokenizer, args_.answer.stop);
    std::string text;
    const auto show = [&](const std::string& piece) {
      text += piece;
      fmt::print("{}", painter.push(piece));
      std::fflush(stdout);
    };
    fmt::print("{}", painter.opening());
    const double begin = system_clock().monotonic_s();
    double first = 0;
    known_ = engine_.counts().tokens_reused;
    TRY_ASSIGN(const engine::Generated out,
               engine::generate(
                   engine_,
                   {.prompt = asked.ids, .options = options, .salt = ""},
                   [&](const engine::Token& t) {
                     if (first == 0) first = system_clock().monotonic_s();
                     show(pieces.push(t.id));
                     return g_interrupted == 0 && !pieces.stopped();
                   },
                   [] { return g_interrupted == 0; }));
    known_ = engine_.counts().tokens_reused - known_;
    show(pieces.flush());
    fmt::print("{}\n", painter.flush());
    TRY(flush_output());
    if (talks_) say(summary(asked.ids.size(), out.tokens.size(), begin, first));
    if (talks_ && std::ssize(out.tokens) == room)
      say("There is no room for more of this conversation: /new begins another" + larger_cache() +
          ".");
    if (out.tokens.empty() && g_interrupted != 0)
      messages_.erase(messages_.size() - 1);  // not asked after all
    else
      messages_.push_back({{"role", "assistant"}, {"content", text}});
    return {};
  }

  /// Where the model could take more than the cache has room for.
  std::string larger_cache() const {
    if (engine_.length_max() >= model_.model->max_positions()) return "";
    return fmt::format(", and --cache-tokens {} at the start makes room for a longer one",
                       std::min(model_.model->max_positions(), 2 * engine_.length_max()));
  }

  std::string summary(size_t prompt, size_t tokens, double begin, double first) const {
    std::string line = g_interrupted != 0 ? "stopped; " : "";
    line += fmt::format("{} of prompt, {} of them known", counted(prompt, "token"), known_);
    if (tokens == 0) return line;
    const double end = system_clock().monotonic_s();
    line +=
        fmt::format("; first token after {:.2f} s, {}", first - begin, counted(tokens, "token"));
    if (tokens > 1)
      line += fmt::format(", {:.1f} a second", static_cast<double>(tokens - 1) / (end - first));
    return line;
  }

  /// To the person, not part of the conversation.
  void say(const std::string& text) const {
    tell(painted(text, "2", Terminal::of(stderr).colours()));
  }

  const Arguments& args_;
  const OpenedModel& model_;
  engine::Engine engine_;
  int64_t known_ = 0;  // tokens of the last prompt that need not be computed
  Terminal terminal_;
  bool talks_;  // with a person
  Json messages_;
};

/// From now on Ctrl-C sets g_interrupted and can be read from g_interrupts.
Result<void> take_interrupts() {
  g_interrupts = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (g_interrupts < 0)
    return fail(Code::kExhausted, "chat: no descriptor is left: {}", std::strerror(errno));
  struct sigaction action {};
  action.sa_handler = [](int) {
    const int before = errno;
    g_interrupted = 1;
    const uint64_t one = 1;  // a counter that is full says it already
    [[maybe_unused]] const ssize_t written = ::write(g_interrupts, &one, sizeof one);
    errno = before;
  };
  ::sigaction(SIGINT, &action, nullptr);
  return {};
}

Result<void> chat(Arguments& args) {
  TRY(check_answer_options(args.answer));
  if (args.plain && args.chat_template.given())
    return fail(Code::kInvalidInput, "chat: give one of --plain and --chat-template");
  TRY(read_template(args.chat_template));
  TRY_ASSIGN(OpenedModel model, open_model(args.open));
  use_template(args.chat_template, model.texts);
  args.answer.generate.end_tokens = model.texts.eos;
  Chat conversation(args, model);
  TRY(conversation.require_room());
  // Without a person Ctrl-C ends the command, as it ends any other.
  if (conversation.talks()) TRY(take_interrupts());
  return conversation.run();
}

}  // namespace

void add_chat_command(Command& program) {
  Command command = program.add("chat", "Talk with a model, by its own chat template");
  const auto args = std::make_shared<Arguments>();
  args->answer.generate.tokens_max = 2048;
  args->answer.generate.sampling = {.temperature = 0.6, .top_p = 0.95, .seed = 1};
  add_open_options(command, args->open);
  command.flag("--plain",
               args->plain,
               "for models that were taught no conversation: each line is a text that they go on "
               "with");
  add_template_option(command, args->chat_template);
  command.option("--system", args->system, "what the model is told before the conversation")
      .any_text();
  add_answer_options(command, args->answer);
  command.runs([args] { return report(chat(*args)); });
}

}  // namespace ferry::cli
