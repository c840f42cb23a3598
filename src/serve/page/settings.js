// How the model is asked: what it is told before, and how tokens are chosen. What is left empty is not sent, so that
// the server's own defaults, which suit the model, hold.
import { byId } from "./dom.js";

const kStored = "ferry.settings";
export const kDefaults = { system: "", temperature: "", top_p: "", max_tokens: "", seed: "", frequency_penalty: "",
  presence_penalty: "", thinking: "", alternatives: "5" };
const kNumbers = ["temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty"];

/// Of unknown origin: only the fields that there are, as texts.
export function cleanSettings(from) {
  const settings = { ...kDefaults };
  for (const name of Object.keys(settings)) {
    const value = from?.[name];
    if (typeof value === "string" || typeof value === "number") settings[name] = String(value);
  }
  return settings;
}

/// Those that were saved last.
export function lastSettings() {
  try {
    return cleanSettings(JSON.parse(localStorage.getItem(kStored)));
  } catch {
    return { ...kDefaults };
  }
}

/// The fields of a request that follow from settings.
export function requestFields(settings) {
  const fields = {};
  for (const name of kNumbers) if (settings[name] !== "") fields[name] = Number(settings[name]);
  if (Number(settings.alternatives) > 0) {
    fields.logprobs = true;
    fields.top_logprobs = Number(settings.alternatives);
  }
  if (settings.thinking) fields.thinking = { type: settings.thinking === "on" ? "enabled" : "disabled" };
  return fields;
}

/// Lets a person change them; onsave is given what was saved, onkey is called when the key is to be changed.
export function openSettings(current, onsave, onkey) {
  const dialog = byId("settings-dialog");
  const form = dialog.querySelector("form");
  const fill = (settings) => {
    for (const [name, value] of Object.entries(settings)) form.elements[name].value = value;
  };
  fill(current);
  byId("defaults").onclick = () => fill(kDefaults);
  byId("change-key").onclick = () => {
    dialog.close();
    onkey();
  };
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "save") return;
    const saved = cleanSettings(Object.fromEntries(new FormData(form)));
    try {
      localStorage.setItem(kStored, JSON.stringify(saved));
    } catch {
      // they hold for this chat
    }
    onsave(saved);
  };
  dialog.showModal();
}
