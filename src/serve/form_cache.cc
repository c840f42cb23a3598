#include "serve/form_cache.h"

#include <algorithm>
#include <utility>

namespace ferry::serve {
namespace {

using grammar::AnswerForm;
using grammar::Automaton;

template <typename T>
size_t bytes_of(const std::vector<T>& list) {
  return list.size() * sizeof(T);
}

size_t bytes_of(const AnswerForm& form) {
  size_t bytes = sizeof form + form.schema.size();
  for (const grammar::Tool& tool : form.tools)
    bytes += sizeof tool + tool.name.size() + tool.parameters.size();
  return bytes;
}

size_t bytes_of(const Automaton& a) {
  return sizeof a + bytes_of(a.edges) + bytes_of(a.first) + bytes_of(a.height) + bytes_of(a.ends) +
         bytes_of(a.free);
}

}  // namespace

FormCache::Found FormCache::find(const AnswerForm& form) {
  const auto found =
      std::find_if(kept_.begin(), kept_.end(), [&](const Kept& k) { return k.form == form; });
  if (found == kept_.end()) return std::nullopt;
  kept_.splice(kept_.begin(), kept_, found);
  return kept_.front().automaton;
}

bool FormCache::keeps(const AnswerForm& form) {
  const std::lock_guard lock(mutex_);
  return find(form).has_value();
}

Result<std::shared_ptr<const Automaton>> FormCache::automaton(const AnswerForm& form) {
  {
    const std::lock_guard lock(mutex_);
    if (Found found = find(form)) return *std::move(found);
  }
  // Meanwhile others may find what is kept, and make the same.
  Result<std::shared_ptr<const Automaton>> made = grammar::answer_automaton(form);
  const size_t bytes = bytes_of(form) + (made ? bytes_of(**made) : made.error().message.size());
  const std::lock_guard lock(mutex_);
  ++compiled_;
  if (Found found = find(form)) return *std::move(found);
  kept_.push_front({form, made, bytes});
  bytes_ += bytes;
  while (!kept_.empty() && (kept_.size() > limits_.forms || bytes_ > limits_.bytes)) {
    bytes_ -= kept_.back().bytes;
    kept_.pop_back();
  }
  return made;
}

}  // namespace ferry::serve
