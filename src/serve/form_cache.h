// The automata of the forms that were asked for last: a program asks with the same schema or the same
// tools again and again, and a large one takes longer to compile than a short answer to make.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>

#include "grammar/answer_form.h"

namespace ferry::serve {

/// Any thread. Bounded: what was not asked for the longest is forgotten first.
class FormCache {
 public:
  struct Limits {
    size_t forms = 64;
    size_t bytes = size_t{64} << 20;  // of forms and automata together
  };
  FormCache() : FormCache(Limits()) {}
  explicit FormCache(const Limits& limits) : limits_(limits) {}

  /// As grammar::answer_automaton(), of which refusals are kept, too.
  Result<std::shared_ptr<const grammar::Automaton>> automaton(const grammar::AnswerForm& form);

  /// Whether automaton() of it takes no time.
  bool keeps(const grammar::AnswerForm& form);

  // For tests:
  int64_t compiled() const { return compiled_; }  // so far
  size_t forms() const { return kept_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Kept {
    grammar::AnswerForm form;
    Result<std::shared_ptr<const grammar::Automaton>> automaton;
    size_t bytes;
  };
  using Found = std::optional<Result<std::shared_ptr<const grammar::Automaton>>>;
  Found find(const grammar::AnswerForm& form);

  Limits limits_;
  std::mutex mutex_;      // of what follows
  std::list<Kept> kept_;  // the last one that was asked for is the first
  size_t bytes_ = 0;
  int64_t compiled_ = 0;
};

}  // namespace ferry::serve
