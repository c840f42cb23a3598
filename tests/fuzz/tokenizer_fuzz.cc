// Fuzzes the tokenizer.json reader: whatever loads must keep every byte of text that its added
// tokens and normalizer do not take.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

using ferry::text::StreamDecoder;
using ferry::text::Tokenizer;

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

/// The input is the file; its own bytes and a fixed text are what a file that loads must encode.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const ferry::Result<Tokenizer> tokenizer = Tokenizer::parse(input, "fuzz.json");
  if (!tokenizer) {
    require(!tokenizer.error().message.empty());
    return 0;
  }
  using std::string_literals::operator""s;  // with what lies behind the zero byte
  const std::string text = "Hello 中文 1234\r\n\xff\xc3(\xe4\xb8 '\0 e\xcc\x81 <|bos|>"s +
                           std::string(input.substr(0, 4096));
  // NFC is the one thing besides added tokens that may change text; kPlain leaves the tokens out.
  const bool may_normalize =
      input.find("NFC") != std::string_view::npos ||
      input.find("\\u") != std::string_view::npos;  // "NFC" may be written in escapes
  for (const auto specials :
       {Tokenizer::Specials::kPlain, Tokenizer::Specials::kAsText, Tokenizer::Specials::kParse}) {
    std::vector<int32_t> ids;
    tokenizer->encode(text, specials, ids);
    const std::string back = tokenizer->decode(ids);
    if (specials == Tokenizer::Specials::kPlain && !may_normalize) require(back == text);
    StreamDecoder stream(*tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      require(specials == Tokenizer::Specials::kParse || !tokenizer->is_special(id));
      streamed += stream.push(id);
    }
    streamed += stream.flush();
    require(streamed == ferry::text::replace_ill_formed(back));
  }
  return 0;
}
