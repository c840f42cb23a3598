// The tokens of an answer, each with the alternatives that the model weighed.
import { element } from "./dom.js";

const percent = (logprob) => {
  const p = 100 * Math.exp(logprob);
  return p >= 99.95 ? "100 %" : p >= 0.1 ? `${p.toFixed(1)} %` : "< 0.1 %";
};

/// Blanks and ends of lines as signs: a token may be nothing else.
const visible = (text) => (text === "" ? "\u2205" : text.replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5")
  .replaceAll(" ", "\u00b7"));

let lists = 0;  // that were made: ids of tokens are unique in the page

/// An element that shows them: unlikely ones coloured; the one that is pointed at, or chosen with the arrow keys,
/// with its alternatives. places: TokenPlaces. onother(index, other): somebody wants the answer to go on with this
/// alternative in place of the token at index; what no answer can begin with is shown, but not offered.
export function tokenList(tokens, places, onother) {
  if (tokens.length === 0)
    return element("p", { class: "quiet" },
      "The probabilities of this answer were not asked for, or not kept (Settings: Alternatives of a token).");
  const prefix = `tokens-${++lists}`;
  const panel = element("div", { class: "alternatives" });
  const list = element("div", { class: "tokens", role: "listbox", tabindex: "0", "aria-label":
    "Tokens of this answer: arrow keys go through them" });
  const spans = tokens.map(([text, logprob], index) => {
    const span = element("span", {
      class: `token ${likelihood(logprob)}${places.isThought(index) ? " of-thought" : ""}`,
      role: "option", id: `${prefix}-${index}`, "aria-selected": "false",
      "aria-label": `${text.trim() || "blank"}, ${percent(logprob)}` });
    span.append(text.replaceAll("\n", "\u21b5\n"));
    span.dataset.index = index;
    return span;
  });
  list.append(...spans);
  let chosen = -1;
  let isPinned = false;  // by a click: then the pointer may pass over others on its way to the alternatives
  const choose = (index) => {
    if (index === chosen || !spans[index]) return;
    spans[chosen]?.setAttribute("aria-selected", "false");
    chosen = index;
    spans[chosen].setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", spans[chosen].id);
    panel.replaceChildren(alternatives(tokens[chosen],
      (other) => places.beginning(index, other) !== null, (other) => onother(index, other)));
  };
  const point = (event) => {
    const index = event.target.closest?.(".token")?.dataset.index;
    if (index !== undefined) choose(Number(index));
  };
  list.addEventListener("pointerover", (event) => {
    if (!isPinned) point(event);
  });
  list.addEventListener("click", (event) => {
    isPinned = true;
    point(event);
  });
  list.addEventListener("keydown", (event) => {
    const to = { ArrowRight: chosen + 1, ArrowLeft: chosen - 1, Home: 0, End: spans.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(Math.min(Math.max(to, 0), spans.length - 1));
    spans[chosen].scrollIntoView({ block: "nearest" });
  });
  choose(unsurest(tokens));
  return element("div", { class: "token-view" }, list, panel);
}

const likelihood = (logprob) => {
  const p = Math.exp(logprob);
  return p >= 0.9 ? "sure" : p >= 0.5 ? "likely" : p >= 0.2 ? "open" : "unlikely";
};

/// Where the model hesitated most: what one looks for.
function unsurest(tokens) {
  let at = 0;
  tokens.forEach(([, logprob], index) => {
    if (logprob < tokens[at][1]) at = index;
  });
  return at;
}

/// A table of what might have stood there; what was written is marked, also where it is not among the best.
function alternatives([text, logprob, others], isOffered, onother) {
  const rows = others.some(([other]) => other === text) ? [...others] : [...others, [text, logprob]];
  rows.sort((a, b) => b[1] - a[1]);
  const body = element("tbody");
  for (const row of rows) {
    const [other, otherLogprob] = row;
    const bar = element("div", { class: "bar", "aria-hidden": "true" }, element("div"));
    bar.firstElementChild.style.width = `${100 * Math.exp(otherLogprob)}%`;
    const written = other === text;
    const name = element("code", {}, visible(other));
    const cell = written ? [name, element("span", { class: "unseen" }, " (written)")]
      : !isOffered(row) ? [name]
      : [element("button", { type: "button", class: "soft small", title: "Let the answer go on with this",
          onclick: () => onother(row) }, name)];
    body.append(element("tr", { class: written ? "written" : null }, element("td", {}, ...cell),
      element("td", { class: "number" }, percent(otherLogprob)), element("td", {}, bar)));
  }
  return element("table", {},
    element("thead", { class: "unseen" }, element("tr", {}, element("th", {}, "Token"),
      element("th", {}, "Probability"), element("td"))), body);
}
