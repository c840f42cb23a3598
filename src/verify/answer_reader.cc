#include "verify/answer_reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"

namespace ferry::verify {

AnswerReader::AnswerReader(const text::Tokenizer& tokenizer, const ModelTexts& texts)
    : tokenizer_(tokenizer), texts_(texts) {
  for (const bool special : {false, true})
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
      if (tokenizer.is_special(id) == special && !tokenizer.token_bytes(id).empty())
        by_bytes_.try_emplace(std::string(tokenizer.token_bytes(id)), id);
}

bool AnswerReader::ends(int32_t id) const {
  return std::find(texts_.eos.begin(), texts_.eos.end(), id) != texts_.eos.end();
}

std::optional<int32_t> AnswerReader::id_of(const NamedToken& token) const {
  if (token.id) {
    if (*token.id >= tokenizer_.vocab_size()) return std::nullopt;
    return token.id;
  }
  const auto it = by_bytes_.find(token.text);
  return it == by_bytes_.end() ? std::nullopt : std::optional(it->second);
}

std::vector<std::pair<int32_t, double>> AnswerReader::top_of(const AnswerToken& token) const {
  std::vector<std::pair<int32_t, double>> top;
  for (const NamedToken& t : token.top)
    if (const auto id = id_of(t); id && t.log_prob) top.emplace_back(*id, *t.log_prob);
  return top;
}

/// The prompt's places, aligned at its end: servers leave the begin token out, or do not.
void AnswerReader::read_prompt(const ServerAnswer& answer, Exchange& e) {
  const int64_t missing = e.prompt - std::ssize(answer.prompt);
  if (answer.prompt.empty() || missing < 0 || missing > 1 || (missing == 1 && !texts_.begins))
    return;
  for (int64_t at = std::max<int64_t>(missing, 0); at < e.prompt; ++at) {
    const AnswerToken& told = answer.prompt[static_cast<size_t>(at - missing)];
    const int32_t id = e.text[static_cast<size_t>(at)];
    const std::string_view bytes = tokenizer_.token_bytes(id);
    const bool known = told.chosen.id || by_bytes_.contains(told.chosen.text);
    if (known && told.chosen.id.value_or(id) != id) {
      if (!echo_differs_)
        echo_differs_ =
            fmt::format("token {} of {} is {}, not {}", at + 1, e.prompt, *told.chosen.id, id);
      return;
    }
    if (known && !told.chosen.id && told.chosen.text != bytes) {
      if (!echo_differs_)
        echo_differs_ = fmt::format("token {} of {} is {}, not {}",
                                    at + 1,
                                    e.prompt,
                                    printable(told.chosen.text),
                                    printable(bytes));
      return;
    }
    if (at == 0) continue;
    Seen s{.at = at, .id = id, .log_prob = told.chosen.log_prob, .top = top_of(told)};
    for (const auto& [other, log_prob] : s.top)
      if (other == id && !s.log_prob) s.log_prob = log_prob;
    if (s.log_prob) e.seen.push_back(std::move(s));
  }
}

Exchange AnswerReader::read(std::span<const int32_t> prompt,
                            const ServerAnswer& answer,
                            bool greedy) {
  Exchange e{
      .what = "", .text = {prompt.begin(), prompt.end()}, .prompt = std::ssize(prompt), .seen = {}};
  read_prompt(answer, e);
  bool whole = true;
  for (const AnswerToken& t : answer.tokens) {
    const auto id = id_of(t.chosen);
    if (!id) {
      whole = false;
      break;
    }
    e.seen.push_back({.at = std::ssize(e.text),
                      .id = *id,
                      .log_prob = t.chosen.log_prob,
                      .top = top_of(t),
                      .greedy = greedy});
    e.text.push_back(*id);
  }
  if (answer.tokens.empty() && answer.reasoning.empty()) {
    constexpr std::string_view kBroken = "\xef\xbf\xbd";  // where bytes were no character
    const std::string text = answer.text.substr(0, answer.text.find(kBroken));
    whole = text.size() == answer.text.size();
    std::vector<int32_t> ids;
    tokenizer_.encode(text, text::Tokenizer::Specials::kAsText, ids);
    // The broken character may have begun in the last token, which was another one then.
    if (!whole && !ids.empty()) ids.pop_back();
    for (const int32_t id : ids) {
      e.seen.push_back(
          {.at = std::ssize(e.text), .id = id, .log_prob = {}, .top = {}, .greedy = greedy});
      e.text.push_back(id);
    }
  }
  if (answer.text.empty() && answer.reasoning.empty())
    e.unshown = answer.tokens.empty()
                    ? answer.finish != "stop"
                    : has_words(std::span(e.text).subspan(static_cast<size_t>(e.prompt)));
  const bool end_told = std::ssize(e.text) > e.prompt && ends(e.text.back());
  e.stopped = greedy && answer.finish == "stop" && whole && !end_told &&
              (!answer.tokens.empty() || answer.reasoning.empty());
  return e;
}

bool AnswerReader::has_words(std::span<const int32_t> ids) const {
  return std::any_of(ids.begin(), ids.end(), [&](int32_t id) {
    const std::string_view bytes = tokenizer_.token_bytes(id);
    return !tokenizer_.is_special(id) &&
           std::any_of(bytes.begin(), bytes.end(), [](char c) { return c > ' ' && c < 0x7f; });
  });
}

bool AnswerReader::cut_as(Exchange& e, std::span<const std::optional<Thought>> thoughts) const {
  for (size_t i = 0; i < e.seen.size(); ++i) {
    const Seen& s = e.seen[i];
    if (s.at < e.prompt || !thoughts[i] || thoughts[i]->best == s.id) continue;
    if (tokenizer_.is_special(thoughts[i]->best) && !ends(thoughts[i]->best)) {
      e.text.resize(static_cast<size_t>(s.at));
      e.seen.resize(i);
      e.stopped = false;
      return true;
    }
    const std::string rest =
        tokenizer_.decode(std::span(e.text).subspan(static_cast<size_t>(s.at)));
    const std::string best(tokenizer_.token_bytes(thoughts[i]->best));
    if (best.empty() || !rest.starts_with(best)) continue;
    const bool greedy = s.greedy;
    std::vector<int32_t> ids = {thoughts[i]->best};
    tokenizer_.encode(
        std::string_view(rest).substr(best.size()), text::Tokenizer::Specials::kAsText, ids);
    e.text.resize(static_cast<size_t>(s.at));
    e.seen.resize(i);
    for (const int32_t id : ids) {
      e.seen.push_back(
          {.at = std::ssize(e.text), .id = id, .log_prob = {}, .top = {}, .greedy = greedy});
      e.text.push_back(id);
    }
    return true;
  }
  return false;
}

std::optional<std::string> AnswerReader::tokens_differ(std::span<const int32_t> ours,
                                                       std::span<const int32_t> theirs) const {
  const auto without_begin = [&](std::span<const int32_t> ids) {
    return texts_.bos && !ids.empty() && ids.front() == *texts_.bos ? ids.subspan(1) : ids;
  };
  ours = without_begin(ours);
  theirs = without_begin(theirs);
  const auto [a, b] = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end());
  if (a == ours.end() && b == theirs.end()) return std::nullopt;
  const auto named = [&](auto at, auto end) {
    return at == end ? std::string("nothing")
                     : fmt::format("{} ({})", *at, printable(tokenizer_.token_bytes(*at)));
  };
  return fmt::format(
      "token {} is {}, not {}", a - ours.begin() + 1, named(b, theirs.end()), named(a, ours.end()));
}

std::optional<int32_t> AnswerReader::end_passed(
    std::span<const Exchange> exchanges,
    std::span<const std::vector<std::optional<Thought>>> thoughts) const {
  for (size_t e = 0; e < exchanges.size(); ++e)
    for (size_t i = 0; i < exchanges[e].seen.size(); ++i) {
      const Seen& s = exchanges[e].seen[i];
      if (!s.greedy || !thoughts[e][i]) continue;
      // It chose the end, and went on; or it was kept from choosing it.
      if (ends(s.id) && i + 1 < exchanges[e].seen.size()) return s.id;
      if (!ends(s.id) && ends(thoughts[e][i]->best)) return thoughts[e][i]->best;
    }
  return std::nullopt;
}

std::optional<int64_t> AnswerReader::garbled_from(
    std::span<const Exchange> exchanges,
    std::span<const std::vector<std::optional<Thought>>> thoughts,
    double kl_bound,
    double margin) const {
  const auto most = std::max_element(
      exchanges.begin(), exchanges.end(), [](const Exchange& a, const Exchange& b) {
        return a.seen.size() < b.seen.size();
      });
  if (most == exchanges.end()) return std::nullopt;
  const auto& of_most = thoughts[static_cast<size_t>(most - exchanges.begin())];
  std::vector<double> kl;
  std::vector<int64_t> at;
  for (size_t i = 0; i < most->seen.size(); ++i)
    if (of_most[i])
      if (const auto d = divergence(most->seen[i], *of_most[i])) {
        kl.push_back(*d);
        at.push_back(most->seen[i].at);
      }
  if (std::ssize(kl) > most->prompt / 2) {
    const auto from = parts_from(kl, kl_bound);
    return from ? std::optional(at[*from]) : std::nullopt;
  }
  // The longest prompt up to which answers are right, if all longer ones are wrong.
  int64_t right = 0, wrong = INT64_MAX;
  for (size_t e = 0; e < exchanges.size(); ++e) {
    const Closeness c = closeness(exchanges.subspan(e, 1), thoughts.subspan(e, 1), margin);
    const bool good = (c.compared == 0 || c.kl_typical <= kl_bound) && c.wrong == 0;
    if (good)
      right = std::max(right, exchanges[e].prompt);
    else
      wrong = std::min(wrong, exchanges[e].prompt);
  }
  if (right == 0 || wrong == INT64_MAX || wrong < right) return std::nullopt;
  return right;
}

}  // namespace ferry::verify
