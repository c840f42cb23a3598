// What a run is told in files that people edit: its settings, the config.json, the key and the chat
// template that they name. Read once for a whole run, whatever becomes of the files while it goes on: a worker that
// follows another is handed the same texts.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "train/config.h"

namespace ferry {

struct RunTexts {
  std::string settings;                      // TOML
  std::optional<std::string> model_config;   // of model.config; nothing: not named, or not there
  std::optional<std::string> secret_key;     // of checkpoint.key, in hex
  std::optional<std::string> chat_template;  // of checkpoint.chat_template
  /// Of model.init's files, which are too large to be read here; or why it could not be told.
  std::optional<std::string> init_state;

  /// The settings alone: from a file of at most 1 MiB, a pipe as well. Errors: as read_settings.
  static Result<RunTexts> read(const std::string& path);
  /// And what they name. A config.json or a model that is not there may not be needed (train/resume.h):
  /// whether it is, the worker says. Tasks and pairs, which may be too large to be handed on, each worker reads again.
  /// Errors: of the key; of the chat template, with its line; kInvalidInput for tasks or pairs from a pipe.
  Result<void> read_named(const Settings& of);

  /// One text with all of it, and back. Errors: kInvalidInput (not such a text).
  std::string handed() const;
  static Result<RunTexts> of_handed(std::string_view text);

  /// The settings, holding what was read of the files that they name. Errors: as parse_settings.
  Result<Settings> parse(std::string_view name, std::span<const std::string> overrides) const;
};

}  // namespace ferry
