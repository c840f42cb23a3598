// Fuzzer of answers: the first byte chooses the syntax, the second where the text is cut. Whatever the
// text, its parts are the same however it is cut, and without tools or thoughts it is content.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "text/answer_parser.h"

namespace {

using namespace ferry;
using namespace ferry::text;

/// The deltas, neighbours of a kind and call joined.
std::string parsed(const AnswerParserOptions& options, std::string_view text, size_t piece) {
  AnswerParser parser(options);
  std::string out;
  AnswerDelta last{.kind = AnswerDelta::Kind::kCallEnd, .text = "", .call = -1};
  const auto add = [&](const std::vector<AnswerDelta>& deltas) {
    for (const AnswerDelta& d : deltas) {
      check(d.kind == AnswerDelta::Kind::kCallEnd || !d.text.empty(), "fuzz: an empty delta");
      if (d.kind != last.kind || d.call != last.call)
        out += fmt::format("\n{} {} {}: ", static_cast<int>(d.kind), d.call, d.json_object);
      out += d.text;
      last = d;
    }
  };
  for (size_t at = 0; at < text.size(); at += piece) add(parser.push(text.substr(at, piece)));
  add(parser.finish());
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  AnswerParserOptions options;
  options.syntax.tools = static_cast<ToolSyntax>(data[0] % 5);
  options.syntax.thinks = (data[0] & 64) != 0;
  options.thinking = (data[0] & 128) != 0;
  options.only_calls = (data[0] & 32) != 0;
  options.tools = {"f"};
  const std::string whole = parsed(options, text, text.size() + 1);
  for (const size_t piece : {size_t{1}, size_t{1} + data[1] % 16})
    check(
        parsed(options, text, piece) == whole, "fuzz: cut into pieces of {}, it is another", piece);
  std::string content;
  AnswerParser plain(AnswerParserOptions{});
  for (const auto& deltas : {plain.push(text), plain.finish()})
    for (const AnswerDelta& d : deltas) {
      check(d.kind == AnswerDelta::Kind::kContent, "fuzz: text without marks is not content");
      content += d.text;
    }
  check(content == text, "fuzz: content is not the text");
  return 0;
}
