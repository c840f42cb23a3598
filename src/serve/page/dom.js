// Elements of the page, made and found.

export const byId = (id) => document.getElementById(id);

/// element("button", {type: "button", onclick: f, hidden: true}, "text", child...): names that begin with "on" are
/// listeners, false and null leave an attribute out.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/// Whether a key is meant for what composes a word of it (Japanese, Chinese): Enter takes the word then, and Escape
/// leaves it. Safari tells it of the last key by its number alone.
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

const kSvg = "http://www.w3.org/2000/svg";

/// One of index.html's drawings; what it means is said by the button that holds it.
export function icon(name) {
  const svg = document.createElementNS(kSvg, "svg");
  svg.setAttribute("class", "drawing");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(kSvg, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/// A button that is an icon; its label is its tooltip, too.
export function iconButton(name, label, onclick, attributes = {}) {
  return element("button",
    { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

/// Gives the buttons of index.html the drawings that they name.
export function drawIcons(root = document) {
  for (const button of root.querySelectorAll("[data-icon]")) button.prepend(icon(button.dataset.icon));
}

/// Copies, and shows on the button that it did.
export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Where the page did not come by https or from this machine, there is no clipboard but the old way.
    const area = element("textarea", { class: "unseen", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const before = button.querySelector("svg");
  const done = icon("check");
  before.replaceWith(done);
  button.classList.add("done");
  setTimeout(() => {
    done.replaceWith(before);
    button.classList.remove("done");
  }, 1500);
}
