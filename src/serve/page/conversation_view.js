// The conversation in the middle: its messages, and where it is scrolled to.
import { byId } from "./dom.js";
import { shownPath, siblings } from "./chat_tree.js";
import { MessageView } from "./message_view.js";

const kAtEnd = 60;  // pixels from the end that still count as being there

export class ConversationView {
  #views = new Map();  // by node id
  #follows = true;  // stays at the end while an answer grows

  constructor(actions) {
    this.actions = actions;
    this.scroll = byId("scroll");
    this.scroll.addEventListener("scroll", () => {
      this.#follows = this.#atEnd();
      byId("to-bottom").hidden = this.#follows;
    });
    byId("to-bottom").addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#keepEnd()).observe(byId("messages"));
  }

  /// All of a chat. What stands already is left alone: somebody may be writing in it.
  show(chat) {
    const path = shownPath(chat);
    const before = this.#views;
    this.#views = new Map(path.map((node) => {
      const all = siblings(chat, node);
      const place = { index: all.indexOf(node), count: all.length };
      const view = before.get(node.id);
      if (view?.node !== node) return [node.id, new MessageView(node, place, this.actions)];
      view.update(place);
      return [node.id, view];
    }));
    const messages = byId("messages");
    const roots = [...this.#views.values()].map((view) => view.root);
    let same = 0;
    while (same < roots.length && messages.children[same] === roots[same]) ++same;
    while (messages.children.length > same) messages.lastChild.remove();
    messages.append(...roots.slice(same));
    byId("welcome").hidden = path.length > 0;
  }

  view(node) {
    return this.#views.get(node.id);
  }

  /// What is being written in place of a message; null: nothing.
  written() {
    return byId("messages").querySelector(".edit")?.value ?? null;
  }

  /// The node of the message in whose place something is being written.
  edited() {
    return [...this.#views.values()].find((view) => view.root.querySelector(".edit"))?.node ?? null;
  }

  toEnd() {
    this.#follows = true;
    this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  #atEnd() {
    return this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < kAtEnd;
  }

  #keepEnd() {
    if (this.#follows) this.scroll.scrollTop = this.scroll.scrollHeight;
    byId("to-bottom").hidden = this.#follows || this.#atEnd();
  }
}
