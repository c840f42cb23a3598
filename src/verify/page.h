// What the reports as HTML have in common: one page without script that loads nothing from
// elsewhere, readable on light and dark screens, on a telephone and on paper.
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "base/markup.h"

namespace ferry {

enum class Tone { kGood, kWarn, kBad };

/// Text that is handed to add() is markup; what comes from outside goes through escape_markup().
class Page {
 public:
  Page(std::string_view title, std::string_view heading);

  template <typename... A>
  void add(fmt::format_string<A...> format, A&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<A>(args)...);
  }

  /// The large words at the top; more may be added until the section is closed by "</section>".
  void begin_verdict(Tone tone, std::string_view words);

  /// A line of a <dl>; nothing if there is no value.
  void fact(std::string_view name, std::string_view value, bool code = false);

  /// The page, ended by a line of small print.
  std::string finish(std::string_view footer);

 private:
  std::string text_;
};

}  // namespace ferry
