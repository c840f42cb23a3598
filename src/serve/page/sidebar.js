// The list of chats: search, choose, rename, delete; on a phone it slides over the conversation.
import { byId, element, iconButton, isComposing } from "./dom.js";
import { matches } from "./chat_tree.js";

export class Sidebar {
  #shown = "";  // what the list was made of

  /// state(): {chats, current, running}, running a set of ids. actions: {open(chat), create(), rename(chat, title),
  /// remove(chat)}.
  constructor(state, actions) {
    this.state = state;
    this.actions = actions;
    this.search = byId("search");
    this.search.addEventListener("input", () => this.show());
    byId("new-chat").addEventListener("click", () => {
      this.close();
      actions.create();
    });
    byId("open-sidebar").addEventListener("click", () => this.open());
    byId("close-sidebar").addEventListener("click", () => this.close());
    byId("backdrop").addEventListener("click", () => this.close());
    byId("sidebar").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isOpen()) {
        event.stopPropagation();
        this.close();
      }
    });
  }

  isOpen() {
    return document.body.classList.contains("sidebar-open");
  }

  open() {
    document.body.classList.add("sidebar-open");
    byId("backdrop").hidden = false;
    byId("open-sidebar").setAttribute("aria-expanded", "true");
    byId("close-sidebar").focus();
  }

  close() {
    if (!this.isOpen()) return;
    document.body.classList.remove("sidebar-open");
    byId("backdrop").hidden = true;
    byId("open-sidebar").setAttribute("aria-expanded", "false");
    byId("open-sidebar").focus();
  }

  /// Not while a title is being written among them: that shows them when it ends.
  show() {
    if (byId("chats").querySelector("input")) return;
    const { chats, current, running } = this.state();
    const words = this.search.value;
    const found = chats.filter((chat) => matches(chat, words)).sort((a, b) => b.changed - a.changed);
    const shown = JSON.stringify(found.map((chat) => [chat.id, chat.title, chat === current, running.has(chat.id)]));
    if (shown !== this.#shown)  // what stands is left alone: somebody may be going through it by keyboard
      byId("chats").replaceChildren(...found.map((chat) => this.#row(chat, chat === current, running.has(chat.id))));
    this.#shown = shown;
    const none = byId("no-chats");
    none.hidden = found.length > 0;
    none.textContent = words.trim() ? "No chat has these words." : "No chats yet.";
  }

  #row(chat, isCurrent, isRunning) {
    const open = element("button", { type: "button", class: "chat", dir: "auto",
      "aria-current": isCurrent ? "true" : null, onclick: () => {
        this.close();
        this.actions.open(chat);
      } }, chat.title);
    if (isRunning) open.append(element("span", { class: "dot", role: "img", "aria-label": "is being answered" }));
    const row = element("li", { class: isCurrent ? "current" : null }, open,
      element("span", { class: "chat-actions" },
        iconButton("edit", `Rename ${chat.title}`, () => this.#rename(row, chat)),
        iconButton("trash", `Delete ${chat.title}`, () => this.#remove(chat))));
    return row;
  }

  #rename(row, chat) {
    const field = element("input", { dir: "auto", "aria-label": "Title of the chat", maxlength: "200" });
    field.value = chat.title;
    let left = false;
    const leave = (keep) => {
      if (left) return;
      left = true;
      const title = field.value.trim();
      field.remove();
      if (keep && title !== "" && title !== chat.title) this.actions.rename(chat, title);
      this.show();
    };
    field.addEventListener("keydown", (event) => {
      if (isComposing(event)) return;
      if (event.key === "Enter") leave(true);
      if (event.key === "Escape") {
        event.stopPropagation();
        leave(false);
      }
    });
    field.addEventListener("blur", () => leave(true));
    this.#shown = "";
    row.replaceChildren(field);
    field.select();
  }

  #remove(chat) {
    const dialog = byId("delete-dialog");
    byId("delete-text").textContent = `\u201c${chat.title}\u201d is gone then, with all its versions.`;
    dialog.returnValue = "";
    dialog.onclose = () => {
      if (dialog.returnValue === "delete") this.actions.remove(chat);
    };
    dialog.showModal();
  }
}
