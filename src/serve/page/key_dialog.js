// Asks for the API key that the server wants.
import { byId } from "./dom.js";
import { apiKey, setApiKey } from "./server.js";

/// Resolves to whether there is another key now.
export function askForKey(why) {
  const dialog = byId("key-dialog");
  const field = dialog.querySelector("input");
  byId("key-text").textContent = why;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const before = apiKey();
      if (dialog.returnValue === "use") setApiKey(field.value.trim());
      field.value = "";
      resolve(apiKey() !== before);
    };
  });
}
