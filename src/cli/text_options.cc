#include "cli/text_options.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/counted.h"
#include "cli/command.h"

namespace ferry::cli {

void add_as_text_option(Command& command, data::TextOptions& options) {
  options.hint = "--as-text takes any bytes";
  command.flag("--as-text",
               options.as_text,
               "Every byte is text: recognise neither JSON lines nor other formats and encodings");
}

void add_field_option(Command& command, data::SourceOptions& options) {
  command.option("--field", options.field, "The field of JSON lines that holds the text")
      .any_text()
      .shows_default();
}

void add_document_options(Command& command, data::SourceOptions& options) {
  add_as_text_option(command, options.text);
  options.text.line_hint = "--skip-bad N leaves out up to N such lines";
  command
      .option("--skip-bad",
              options.text.skip_bad,
              "Leave out so many lines at most that cannot be read, and name them")
      .shows_default();
  add_field_option(command, options);
}

void tell_damage(const std::string& path, const data::Damage& damage) {
  constexpr size_t kTold = 20;
  for (size_t i = 0; i < std::min(kTold, damage.lines.size()); ++i)
    tell(fmt::format("ferry: note: {}: line {} was left out: it {}",
                     path,
                     damage.lines[i].number,
                     damage.lines[i].why));
  if (damage.skipped > kTold)
    tell(fmt::format("ferry: note: {}: {} lines were left out in all", path, damage.skipped));
  if (damage.ill_formed > 0)
    tell(fmt::format(
        "ferry: note: {}: {} not UTF-8 (the first in line {}), and kept as in the file; "
        "--skip-bad N leaves such lines out",
        path,
        counted(damage.ill_formed, "byte is", "bytes are"),
        damage.ill_formed_line));
}

}  // namespace ferry::cli
