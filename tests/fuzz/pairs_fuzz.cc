// Fuzzer of pairs of answers: a file of them is refused with words and a line, or its answers are lessons whose first
// token nobody has to write and whose last one ends them, no longer than may be, and of which no two are the same.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "text/bpe_trainer.h"
#include "train/preference_pairs.h"

namespace {

using namespace ferry;

constexpr int64_t kTokensMax = 400;

ModelTexts model() {
  text::BpeTrainerOptions options;
  options.vocab_size = 259;
  auto trainer = text::BpeTrainer::create(options);
  check(trainer.has_value(), "fuzz: no tokenizer");
  auto tokenizer = text::Tokenizer::parse(trainer->train().json, "fuzz");
  check(tokenizer.has_value(), "fuzz: no tokenizer");
  ModelTexts texts;
  texts.tokenizer = std::make_shared<text::Tokenizer>(*std::move(tokenizer));
  texts.eos = {*texts.tokenizer->token_id("<|eos|>")};
  texts.files["chat_template.jinja"] =
      "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>{% endfor %}"
      "{% if add_generation_prompt %}<|bos|>assistant\n{% endif %}";
  return texts;
}

void check_answer(const std::vector<text::Lesson>& lessons, int32_t eos) {
  check(!lessons.empty(), "fuzz: an answer without a lesson");
  for (const text::Lesson& l : lessons) {
    check(l.ids.size() == l.learnt.size() && !l.ids.empty(), "fuzz: half a lesson");
    check(std::ssize(l.ids) <= kTokensMax, "fuzz: {} tokens", l.ids.size());
    check(!l.learnt.front(), "fuzz: nothing predicts the first token");
    check(l.learnt.back() && l.ids.back() == eos, "fuzz: an answer that does not end");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ModelTexts texts = model();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<PreferencePairs> all = parse_preference_pairs(
      text, "fuzz.jsonl", texts, {.directory = "model", .tokens_max = kTokensMax, .bad_max = 1});
  if (!all) {
    check(all.error().message.starts_with("fuzz.jsonl:"), "fuzz: {}", all.error().message);
    return 0;
  }
  check(!all->pairs.empty() && all->left_out.size() <= 1, "fuzz: {} pairs", all->pairs.size());
  for (const PreferencePair& p : all->pairs) {
    check_answer(p.chosen, texts.eos.front());
    check_answer(p.rejected, texts.eos.front());
    check(tokens_of(p) > 0, "fuzz: a pair of nothing");
  }
  return 0;
}
