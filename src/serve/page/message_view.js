// One message as it is seen: what was said, how long it thought, what it cost, and what can be done with it.
import { copyText, element, icon, iconButton, isComposing } from "./dom.js";
import { announce } from "./announce.js";
import { GrowingText } from "./growing_text.js";
import { tokenList } from "./token_list.js";
import { drawnInstead, TokenPlaces } from "./token_places.js";
import { tokensOf } from "./store.js";

/// actions: {edit(node, text), again(node), beside(node, step), retry(node), goOn(node, begun, tokens)}. place: {index,
/// count} among siblings.
export class MessageView {
  #thoughtOpen = null;  // as a person left it; null: as it comes
  #showsTokens = false;
  #shown = "";  // of the node, when it was drawn last

  constructor(node, place, actions) {
    this.node = node;
    this.actions = actions;
    this.root = element("article", { class: `message ${node.role}`, "aria-label":
      node.role === "user" ? "You" : "Answer" });
    this.body = element("div", { class: "body" });
    this.below = element("div", { class: "below" });
    if (node.role === "user") this.#layUser();
    else this.#layAnswer();
    this.root.append(this.body, this.below);
    this.#layBelow(place);
    this.update();
  }

  #layUser() {
    this.body.append(element("div", { class: "said", dir: "auto" }, this.node.content));
  }

  #layAnswer() {
    this.thoughtText = element("div", { class: "thought-text" });
    this.thoughtTitle = element("span", {});
    this.thought = element("details", { class: "thought", hidden: true },
      element("summary", { onclick: () => { this.#thoughtOpen = !this.thought.open; } },
        icon("right"), this.thoughtTitle), this.thoughtText);
    this.text = element("div", { class: "answer" });
    this.waiting = element("div", { class: "waiting", "aria-hidden": "true" },
      element("i"), element("i"), element("i"));
    this.tokens = element("div", { class: "token-place", hidden: true });
    this.trouble = element("div", { class: "trouble", hidden: true });
    this.body.append(this.thought, this.text, this.tokens, this.waiting, this.trouble);
    this.growingThought = new GrowingText(this.thoughtText);
    this.growingText = new GrowingText(this.text, (piece) => {
      if (this.node.running || this.wasRunning) announce(piece);
    });
  }

  /// Shows the answer as it is now. The thoughts are open while it thinks, and fold when it answers.
  update(place = this.place) {
    const { node } = this;
    if (place.index !== this.place.index || place.count !== this.place.count) this.#layBelow(place);
    const said = JSON.stringify([node.content.length, node.reasoning?.length, node.running, node.stopped, node.error]);
    if (node.role === "user" || said === this.#shown) return;
    this.#shown = said;
    const thinking = node.running && node.content === "";
    this.thought.hidden = node.reasoning === "";
    if (node.reasoning !== "") {
      this.growingThought.show(node.reasoning, !thinking);
      this.thought.open = this.#thoughtOpen ?? thinking;
      this.thoughtTitle.textContent = thoughtTitle(node, thinking);
    }
    this.thought.classList.toggle("busy", thinking);
    this.growingText.show(node.content, !node.running);
    this.waiting.hidden = !(node.running && node.content === "" && node.reasoning === "");
    this.root.setAttribute("aria-busy", String(Boolean(node.running)));
    this.root.classList.toggle("running", Boolean(node.running));
    this.#showTrouble();
    if (Boolean(node.running) !== Boolean(this.wasRunning)) this.#layBelow(this.place);
    this.wasRunning = node.running;
  }

  #showTrouble() {
    const { error, stopped, finish } = this.node;
    const said = error ? error.message
      : stopped ? "Stopped."
      : finish === "length" ? "The answer reached the limit of its tokens." : "";
    this.trouble.hidden = said === "" || Boolean(this.node.running);
    if (this.trouble.hidden) return;
    this.trouble.classList.toggle("error", Boolean(error));
    this.trouble.replaceChildren(element("span", {}, said));
    const offer = (drawing, words, act) => this.trouble.append(
      element("button", { type: "button", class: "soft small", onclick: act }, icon(drawing), words));
    if (error) offer("again", "Try again", () => this.actions.retry(this.node));
    if (this.node.content !== "" || this.node.reasoning) offer("right", "Go on", () => this.#goOn());
  }

  async #goOn() {
    const { reasoning = "", content } = this.node;
    this.actions.goOn(this.node, { reasoning, content }, new TokenPlaces(this.node, await tokensOf(this.node)).said());
  }

  /// The row below: versions, actions, figures.
  #layBelow(place) {
    this.place = place;
    const { node, actions } = this;
    const row = [];
    if (place.count > 1) {
      row.push(element("span", { class: "versions", role: "group", "aria-label": "Versions" },
        iconButton("left", "Earlier version", () => actions.beside(node, -1), { disabled: place.index === 0 }),
        element("span", {}, `${place.index + 1}/${place.count}`),
        iconButton("right", "Later version", () => actions.beside(node, 1),
          { disabled: place.index === place.count - 1 })));
    }
    const isEmpty = node.role !== "user" && node.content === "" && node.reasoning === "";
    if (!node.running && !(isEmpty && node.error)) {
      const copy = iconButton("copy", "Copy", () => copyText(node.content, copy));
      row.push(copy);
      if (node.role === "user") {
        row.push(iconButton("edit", "Edit", () => this.edit()));
      } else {
        row.push(iconButton("again", "Answer again", () => actions.again(node)));
        this.tokensButton = iconButton("tokens", "Tokens and their alternatives", () => this.#toggleTokens(),
          { "aria-pressed": String(this.#showsTokens) });
        row.push(this.tokensButton);
        const figures = figuresOf(node);
        if (figures) row.push(element("span", { class: "figures" }, figures));
      }
    }
    this.below.replaceChildren(...row);
  }

  async #toggleTokens() {
    this.#showsTokens = !this.#showsTokens;
    this.tokensButton.setAttribute("aria-pressed", String(this.#showsTokens));
    if (this.#showsTokens) {
      const tokens = await tokensOf(this.node);
      const places = new TokenPlaces(this.node, tokens);
      this.tokens.replaceChildren(tokenList(tokens, places, (index, other) => this.actions.goOn(this.node,
        places.beginning(index, other), [...tokens.slice(0, index), drawnInstead(tokens[index], other)])));
    }
    this.tokens.hidden = !this.#showsTokens;
    this.text.hidden = this.#showsTokens;
    this.tokens.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "center" });
  }

  /// The message becomes a field; what is sent stands beside the message as another version of it.
  edit() {
    const field = element("textarea", { class: "edit", rows: "1", "aria-label": "Edit the message" });
    field.value = this.node.content;
    const leave = () => {
      this.body.replaceChildren();
      this.#layUser();
      this.below.hidden = false;
    };
    const send = () => {
      if (field.value.trim() !== "") this.actions.edit(this.node, field.value);
    };
    field.addEventListener("keydown", (event) => {
      if (isComposing(event)) return;
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
        this.below.querySelector("[aria-label=Edit]")?.focus();
      } else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        send();
      }
    });
    field.addEventListener("input", () => fit(field));
    this.body.replaceChildren(field, element("div", { class: "dialog-row" },
      element("button", { type: "button", class: "soft", onclick: leave }, "Cancel"),
      element("button", { type: "button", class: "strong", onclick: send }, "Send")));
    this.below.hidden = true;
    fit(field);
    field.focus();
  }
}

const kRightToLeft = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/;

/// As high as what is in it, up to what the style allows, and in the direction of its first letter. (With dir="auto"
/// each key takes seconds where somebody has pasted a megabyte.)
export function fit(field) {
  field.dir = kRightToLeft.test(/\p{L}/u.exec(field.value)?.[0] ?? "") ? "rtl" : "ltr";
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

const seconds = (s) => (s < 9.95 ? `${s.toFixed(1)} s` : s < 60 ? `${Math.round(s)} s`
  : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`);

function thoughtTitle(node, thinking) {
  if (thinking) return "Thinking\u2026";
  return node.thoughtS == null ? "Thoughts" : `Thought for ${seconds(node.thoughtS)}`;
}

/// "42 tokens · 35.1 tokens/s · first after 0.20 s · 128 of 190 prompt tokens cached"
function figuresOf({ usage, firstS, lastS }) {
  const figures = [];
  const tokens = usage?.completion_tokens;
  if (tokens) figures.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  if (tokens > 1 && lastS > firstS) figures.push(`${((tokens - 1) / (lastS - firstS)).toFixed(1)} tokens/s`);
  if (firstS != null) figures.push(`first after ${firstS < 1 ? `${firstS.toFixed(2)} s` : seconds(firstS)}`);
  const known = usage?.prompt_tokens_details?.cached_tokens ?? usage?.prompt_cache_hit_tokens;
  if (known != null) figures.push(`${known} of ${usage.prompt_tokens} prompt tokens cached`);
  return figures.join(" \u00b7 ");
}
