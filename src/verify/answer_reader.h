// From what a server said to what the reference can be asked: tokens by their ids, in their places.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/model_texts.h"
#include "text/tokenizer.h"
#include "verify/server_answer.h"
#include "verify/server_judge.h"

namespace ferry::verify {

/// One thread. Tokenizer and texts outlive it.
class AnswerReader {
 public:
  AnswerReader(const text::Tokenizer& tokenizer, const ModelTexts& texts);

  /// What can be said of the answer to `prompt`. It ends at the first token that the tokenizer does
  /// not have. An answer of text alone is cut into tokens as the tokenizer does it.
  Exchange read(std::span<const int32_t> prompt, const ServerAnswer& answer, bool greedy);

  /// Whether there are letters, digits or signs of ASCII among the tokens that are no special ones.
  bool has_words(std::span<const int32_t> ids) const;

  /// For an answer of text alone: cuts it otherwise at the first place where the same bytes begin with
  /// the token that the reference holds most probable. Where that is a special one, which servers do not
  /// show, nobody knows what the text goes on behind: it ends there. False: there is no such place.
  bool cut_as(Exchange& exchange, std::span<const std::optional<Thought>> thoughts) const;

  /// How the server's tokens of a text part from ours, in words. That one begins with the begin token
  /// and the other does not is no difference here: endpoints that tokenise are of two minds.
  std::optional<std::string> tokens_differ(std::span<const int32_t> ours,
                                           std::span<const int32_t> theirs) const;
  /// The first token of a prompt that a server repeated otherwise, in words.
  const std::optional<std::string>& echo_differs() const { return echo_differs_; }

  /// An end token that the reference would clearly have chosen where the server went on.
  std::optional<int32_t> end_passed(
      std::span<const Exchange> exchanges,
      std::span<const std::vector<std::optional<Thought>>> thoughts) const;

  /// The number of tokens behind which texts are not continued as the reference would, although they
  /// are before: by the places of a prompt, or else by the lengths of prompts.
  std::optional<int64_t> garbled_from(std::span<const Exchange> exchanges,
                                      std::span<const std::vector<std::optional<Thought>>> thoughts,
                                      double kl_bound,
                                      double margin) const;

 private:
  std::optional<int32_t> id_of(const NamedToken& token) const;
  void read_prompt(const ServerAnswer& answer, Exchange& e);
  std::vector<std::pair<int32_t, double>> top_of(const AnswerToken& token) const;
  bool ends(int32_t id) const;

  const text::Tokenizer& tokenizer_;
  const ModelTexts& texts_;
  std::unordered_map<std::string, int32_t> by_bytes_;  // ordinary tokens before special ones
  std::optional<std::string> echo_differs_;
};

}  // namespace ferry::verify
