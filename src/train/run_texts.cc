#include "train/run_texts.h"

#include <nlohmann/json.hpp>

#include "base/input_file.h"
#include "base/json.h"
#include "base/signature.h"
#include "text/chat_template.h"
#include "train/model_setup.h"

namespace ferry {

constexpr uint64_t kChatTemplateBytesMax = 1 << 20;

Result<RunTexts> RunTexts::read(const std::string& path) {
  RunTexts texts;
  TRY_ASSIGN(texts.settings, read_input(path, kSettingsBytesMax));
  return texts;
}

Result<void> RunTexts::read_named(const Settings& of) {
  for (const auto& [key, path] : {std::pair{"rl.tasks", &of.rl.tasks},
                                  {"rl.held_out", &of.rl.held_out},
                                  {"dpo.pairs", &of.dpo.pairs},
                                  {"dpo.held_out", &of.dpo.held_out}})
    TRY(check_rereadable(*path, fmt::format("{} is read again whenever the run goes on", key)));
  if (!of.model.config.empty())
    if (Result<std::string> text = read_input(of.model.config, kConfigJsonBytesMax); text)
      model_config = *std::move(text);
  // What could not be looked at is no reason to end here, nor one to trust whatever a worker finds there later.
  if (!of.model.init.empty()) {
    const Result<std::string> state = state_of_init(of.model.init);
    init_state = state ? *state : "could not be read: " + state.error().message;
  }
  if (!of.checkpoint.key.empty()) {
    TRY_ASSIGN(const KeyPair key, read_secret_key(of.checkpoint.key));
    secret_key = key.secret_key;
  }
  if (const std::string& path = of.checkpoint.chat_template; !path.empty()) {
    TRY_ASSIGN(chat_template, read_input(path, kChatTemplateBytesMax));
    TRY(text::ChatTemplate::parse(*chat_template, path));
  }
  return {};
}

// Both ends are this program. Bytes are kept as they are, be they UTF-8 or not.
std::string RunTexts::handed() const {
  nlohmann::json all = {{"settings", settings}};
  if (model_config) all["model_config"] = *model_config;
  if (secret_key) all["secret_key"] = *secret_key;
  if (chat_template) all["chat_template"] = *chat_template;
  if (init_state) all["init_state"] = *init_state;
  std::string text;
  nlohmann::json::to_cbor(all, text);
  return text;
}

Result<RunTexts> RunTexts::of_handed(std::string_view text) {
  const nlohmann::json all = nlohmann::json::from_cbor(text, true, false);
  const auto is_text = [&](const char* name) {
    return all.contains(name) && all[name].is_string();
  };
  if (!all.is_object() || !is_text("settings"))
    return fail(Code::kInvalidInput, "the settings that a supervisor handed: are none");
  RunTexts texts;
  texts.settings = all["settings"].get<std::string>();
  if (is_text("model_config")) texts.model_config = all["model_config"].get<std::string>();
  if (is_text("secret_key")) texts.secret_key = all["secret_key"].get<std::string>();
  if (is_text("chat_template")) texts.chat_template = all["chat_template"].get<std::string>();
  if (is_text("init_state")) texts.init_state = all["init_state"].get<std::string>();
  return texts;
}

Result<Settings> RunTexts::parse(std::string_view name,
                                 std::span<const std::string> overrides) const {
  TRY_ASSIGN(Settings parsed, parse_settings(settings, name, overrides));
  parsed.model.config_text = model_config;
  parsed.model.init_state = init_state;
  parsed.checkpoint.secret_key = secret_key;
  parsed.checkpoint.chat_template_text = chat_template;
  return parsed;
}

}  // namespace ferry
