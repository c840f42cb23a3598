// What a screen reader says, and what everybody is told that is not part of a conversation.
import { byId, element } from "./dom.js";

/// Said when the reader is idle; nothing is seen of it.
export function announce(text) {
  const region = byId("announcements");
  region.append(element("p", {}, text));
  while (region.childElementCount > 20) region.firstElementChild.remove();
}

/// Seen and said, for some seconds; once, however often it happens meanwhile.
export function notice(text) {
  if ([...byId("notices").children].some((shown) => shown.textContent === text)) return;
  const shown = element("div", { class: "notice" }, text);
  byId("notices").append(shown);
  setTimeout(() => shown.remove(), 6000);
}
