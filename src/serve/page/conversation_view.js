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

  /// All of a chat.
  show(chat) {
    this.#views.clear();
    const path = shownPath(chat);
    byId("messages").replaceChildren(...path.map((node) => {
      const all = siblings(chat, node);
      const view = new MessageView(node, { index: all.indexOf(node), count: all.length }, this.actions);
      this.#views.set(node.id, view);
      return view.root;
    }));
    byId("welcome").hidden = path.length > 0;
  }

  view(node) {
    return this.#views.get(node.id);
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
