// What the commands that read text share: their options, and what they tell of damaged text.
#pragma once

#include <string>

#include "cli/command_line.h"
#include "data/text_source.h"

namespace ferry::cli {

/// --as-text.
void add_as_text_option(Command& command, data::TextOptions& options);
/// --field.
void add_field_option(Command& command, data::SourceOptions& options);
/// --as-text, --skip-bad, --field: of commands that read documents.
void add_document_options(Command& command, data::SourceOptions& options);

/// Tells which lines were left out of the file, and that bytes in it are no UTF-8, if so.
void tell_damage(const std::string& path, const data::Damage& damage);

}  // namespace ferry::cli
