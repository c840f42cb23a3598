// A chat is a tree: an edited question and an answer that was asked for again stand beside what they replace. Of each
// fork one branch is chosen; the path of the chosen is what is seen and what the model is told.

/// A chat: {id, title, named, created, changed, settings, nodes, chosen}. nodes: by id, {id, parent, role, content,
/// ...}; parent null for the first. chosen: by a parent's id ("" for none) the id of the child that is shown. changed:
/// when something was said; edited: when title or settings were set (none: never); gone: ids of nodes that were removed;
/// named: somebody gave it its title, which follows its questions otherwise.
export function newChat(settings) {
  const now = Date.now();
  return { id: randomId(), title: "New chat", named: false, created: now, changed: now,
    settings: { ...settings }, nodes: {}, chosen: {} };
}

/// 128 random bits. (randomUUID is withheld from pages that came by http from another machine.)
export function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/// Adds a node behind parent (null: at the beginning) and chooses it.
export function addNode(chat, parent, fields) {
  const node = { id: randomId(), parent, created: Date.now(), ...fields };
  chat.nodes[node.id] = node;
  chat.chosen[parent ?? ""] = node.id;
  chat.changed = node.created;
  if (!chat.named) chat.title = ownTitle(chat);
  return node;
}

/// A failed answer, of which nothing came.
export function removeNode(chat, node) {
  delete chat.nodes[node.id];
  chat.gone = [...(chat.gone ?? []), node.id];
}

/// Takes what another tab kept of the same chat: its messages beside those that are here, and of what both have the
/// newer. isOurs(id): this tab wrote the node, and nobody else does. Nodes that were here stay the same objects.
export function mergeInto(chat, kept, isOurs) {
  for (const [id, node] of Object.entries(kept.nodes)) {
    const here = chat.nodes[id];
    // It was interrupted, as this tab knows, and whoever answered it did not live to say so.
    const isKnownBetter = here && node.running && !here.running && lengthOf(node) <= lengthOf(here);
    if (!here) chat.nodes[id] = node;
    else if (!isOurs(id) && !isKnownBetter) Object.assign(here, node);
  }
  chat.gone = [...new Set([...(kept.gone ?? []), ...(chat.gone ?? [])])];
  const parents = new Set(Object.values(chat.nodes).map((node) => node.parent));
  for (const id of chat.gone) if (!parents.has(id)) delete chat.nodes[id];  // what somebody went on from stays
  const [older, newer] = kept.changed > chat.changed ? [chat, kept] : [kept, chat];
  chat.chosen = Object.fromEntries([...Object.entries(older.chosen), ...Object.entries(newer.chosen)]
    .filter(([, id]) => chat.nodes[id]));
  chat.changed = newer.changed;
  if ((kept.edited ?? 0) > (chat.edited ?? 0)) {
    const { title, named, settings, edited } = kept;
    Object.assign(chat, { title, named, settings, edited });
  }
  if (!chat.named) chat.title = ownTitle(chat);
}

const lengthOf = ({ reasoning = "", content }) => reasoning.length + content.length;

/// The title of a chat that nobody named: how the newest of its first questions begins.
export function ownTitle(chat) {
  const first = Object.values(chat.nodes).filter(({ parent, role }) => parent === null && role === "user")
    .sort(byAge).at(-1);
  return first ? titleOf(first.content) : chat.title;
}

function titleOf(text) {
  const line = text.trim().split("\n")[0].trim();
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}\u2026` : line || "New chat";
}

/// The nodes that are shown, first to last.
export function shownPath(chat) {
  const path = [];
  for (let id = chat.chosen[""]; id && chat.nodes[id]; id = chat.chosen[id]) path.push(chat.nodes[id]);
  return path;
}

/// A node and what stands beside it, oldest first.
export function siblings(chat, node) {
  return Object.values(chat.nodes).filter((other) => other.parent === node.parent).sort(byAge);
}

const byAge = (a, b) => a.created - b.created || (a.id < b.id ? -1 : 1);

/// Chooses the branch that lies `step` beside node's; at the ends nothing happens. Returns whether it did.
export function chooseBeside(chat, node, step) {
  const all = siblings(chat, node);
  const next = all[all.indexOf(node) + step];
  if (!next) return false;
  chat.chosen[node.parent ?? ""] = next.id;
  return true;
}

/// Chooses the branches that lead to a node.
export function choose(chat, node) {
  for (let at = node; at; at = chat.nodes[at.parent]) chat.chosen[at.parent ?? ""] = at.id;
}

/// The path up to a node, without it.
export function pathBefore(chat, node) {
  const path = [];
  for (let id = node.parent; id; id = chat.nodes[id].parent) path.unshift(chat.nodes[id]);
  return path;
}

/// The conversation as the API has it. Thoughts are not told again, as DeepSeek's models expect; an answer that never
/// came is left out.
export function apiMessages(chat, nodes) {
  const messages = nodes.filter((node) => node.role === "user" || node.content !== "")
    .map(({ role, content }) => ({ role, content }));
  if (chat.settings.system) messages.unshift({ role: "system", content: chat.settings.system });
  return messages;
}

/// Whether a chat's title or one of its messages has the words.
export function matches(chat, words) {
  const wanted = words.trim().toLocaleLowerCase();
  return chat.title.toLocaleLowerCase().includes(wanted) ||
    Object.values(chat.nodes).some((node) => node.content.toLocaleLowerCase().includes(wanted));
}
