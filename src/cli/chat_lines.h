// What a person types into a conversation: lines, of which several may make one message.
#pragma once

#include <cstdio>
#include <string>

namespace ferry::cli {

struct ChatInput {
  enum class Kind { kMessage, kCommand, kCut, kInterrupted, kEnd };
  Kind kind = Kind::kEnd;
  /// Of a message; of a command with its slash; what is left of a line that was cut.
  std::string text;
};

/// Reads from `in` and, where `prompts`, says on `out` that it is the reader's turn. A line that is
/// """ alone begins and ends a message of several lines, and a backslash at the end of a line lets it
/// go on on the next; a first line that begins with '/' is a command. Lines that are blank are passed
/// over. kInterrupted: `interrupts` could be read while it waited, and what was typed so far is
/// forgotten. (A signal's handler writes to it. A signal alone that comes just before the wait would be missed.) kCut:
/// a terminal keeps no more of a line than 4,095 bytes, and drops the rest without a word; the whole message that it is
/// a part of is passed over.
class ChatLines {
 public:
  /// Descriptors: `interrupts` is an eventfd that does not block, -1 where nothing interrupts. Nobody
  /// else reads `in`.
  ChatLines(int in, int interrupts, std::FILE* out, bool prompts)
      : in_(in), interrupts_(interrupts), out_(out), prompts_(prompts) {}
  ChatInput next();

 private:
  enum class Line { kRead, kInterrupted, kEnd };
  Line read(const char* prompt, std::string& line);
  bool interrupted();

  int in_, interrupts_;
  std::string read_;  // and not yet taken
  bool ended_ = false;
  std::FILE* out_;
  bool prompts_;
};

}  // namespace ferry::cli
