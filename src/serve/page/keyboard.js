// Keyboard shortcuts, and the list of them.
import { byId, element, isComposing } from "./dom.js";

/// Each: keys as they are shown, what they do, when they are meant, the action's name.
const kShortcuts = [
  { keys: ["Enter"], does: "Send the message" },
  { keys: ["Shift", "Enter"], does: "A new line in the message" },
  { keys: ["Esc"], does: "Stop the answer", action: "stop",
    when: (e) => e.key === "Escape" },
  { keys: ["\u2191"], does: "Edit the last message, from an empty box", action: "editLast",
    when: (e) => e.key === "ArrowUp" && e.target.id === "message" && e.target.value === "" },
  { keys: ["Ctrl", "Shift", "O"], does: "New chat", action: "create",
    when: (e) => command(e) && e.shiftKey && e.code === "KeyO" },
  { keys: ["Ctrl", "K"], does: "Search chats", action: "search",
    when: (e) => command(e) && !e.shiftKey && e.code === "KeyK" },
  { keys: ["Alt", "R"], does: "Answer again", action: "again",
    when: (e) => e.altKey && !command(e) && e.code === "KeyR" },
  { keys: ["Alt", "["], does: "Earlier version of the last answer", action: "earlier",
    when: (e) => e.altKey && !command(e) && e.code === "BracketLeft" },
  { keys: ["Alt", "]"], does: "Later version of the last answer", action: "later",
    when: (e) => e.altKey && !command(e) && e.code === "BracketRight" },
  { keys: ["Alt", "S"], does: "Settings", action: "settings",
    when: (e) => e.altKey && !command(e) && e.code === "KeyS" },
  { keys: ["/"], does: "To the message box", action: "focusMessage",
    when: (e) => e.key === "/" && !isTyping(e) },
  { keys: ["?"], does: "This list", action: "keys",
    when: (e) => e.key === "?" && !isTyping(e) },
];

const command = (event) => event.ctrlKey || event.metaKey;
const isTyping = (event) => event.target.matches("input, textarea, select") || command(event) || event.altKey;

/// actions: by name; one that returns false had nothing to do, and the key is the browser's.
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (isComposing(event) || document.querySelector("dialog[open]")) return;
    const shortcut = kShortcuts.find((s) => s.when?.(event));
    if (shortcut && actions[shortcut.action]() !== false) event.preventDefault();
  });
}

export function showKeys() {
  byId("keys-list").replaceChildren(...kShortcuts.flatMap(({ keys, does }) => [
    element("dt", {}, ...keys.map((key) => element("kbd", {}, key))), element("dd", {}, does)]));
  byId("keys-dialog").showModal();
}
