// Fuzzer of the reader of servers' answers: whatever a server sends is refused with words, or gives
// tokens whose ids and log-probabilities can be used.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "verify/server_answer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto usable = [](const verify::NamedToken& t) {
    check(!t.id || *t.id >= 0, "fuzz: id {}", t.id.value_or(0));
    check(!t.log_prob || (*t.log_prob <= 0 && *t.log_prob >= -1e4),
          "fuzz: log-probability {}",
          t.log_prob.value_or(0));
  };
  for (const bool echoed : {false, true}) {
    const auto answer = verify::read_answer(body, "fuzz", echoed);
    if (!answer) {
      check(answer.error().code == Code::kUnavailable && !answer.error().message.empty(),
            "fuzz: refused without a word, or as somebody else's fault");
      continue;
    }
    for (const auto* tokens : {&answer->prompt, &answer->tokens})
      for (const verify::AnswerToken& t : *tokens) {
        usable(t.chosen);
        for (const verify::NamedToken& other : t.top) usable(other);
      }
  }
  static_cast<void>(verify::read_models(body, "fuzz"));
  static_cast<void>(verify::read_tokens(body, "fuzz"));
  check(!verify::error_of(body).empty(), "fuzz: an error without words");
  return 0;
}
