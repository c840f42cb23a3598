// Chats in this browser: IndexedDB, or this tab's memory where the browser keeps nothing. Tokens with their
// alternatives are large and seldom looked at: they lie apart, by their message's id.

import { mergeInto } from "./chat_tree.js";

const kName = "ferry";
const kVersion = 1;
let database = null;
const memory = { chats: new Map(), tokens: new Map() };
const stored = new Set();  // ids of chats that were seen in the database: one that is there no longer was deleted

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/// Returns whether what is kept outlives the page.
export async function openStore() {
  try {
    const request = indexedDB.open(kName, kVersion);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("chats", { keyPath: "id" });
      request.result.createObjectStore("tokens", { keyPath: "id" }).createIndex("chat", "chat");
    };
    database = await done(request);
    database.onversionchange = () => database.close();  // a newer page in another tab goes first
    return true;
  } catch {
    return false;
  }
}

const objects = (name) => database.transaction(name).objectStore(name);

/// What a transaction wrote is kept when it is complete, not when its requests are done: a disk or a quota that is
/// full shows at its end.
const complete = (transaction) => new Promise((resolve, reject) => {
  transaction.oncomplete = resolve;
  transaction.onabort = () => reject(transaction.error ?? new Error("the browser gave it up"));
});

export async function allChats() {
  if (!database) return [...memory.chats.values()];
  const chats = await done(objects("chats").getAll());
  for (const { id } of chats) stored.add(id);
  return chats;
}

/// Ids of those that were there once and are no longer.
export async function deletedChats() {
  if (!database) return [];
  const known = [...stored];  // what is stored from here on, the list below need not have
  const kept = new Set(await done(objects("chats").getAllKeys()));
  return known.filter((id) => !kept.has(id));
}

/// With what other tabs kept of it meanwhile, which the chat then has, too; isOurs: see mergeInto. Returns false, and
/// keeps nothing, where the chat was deleted meanwhile.
export async function saveChat(chat, isOurs) {
  if (!database) {
    memory.chats.set(chat.id, chat);
    return true;
  }
  const transaction = database.transaction("chats", "readwrite");
  const chats = transaction.objectStore("chats");
  const kept = await done(chats.get(chat.id));
  if (!kept && stored.has(chat.id)) return false;
  if (kept) mergeInto(chat, kept, isOurs);
  chats.put(chat);
  await complete(transaction);
  stored.add(chat.id);
  return true;
}

/// With the tokens of its messages.
export async function removeChat(id) {
  memory.chats.delete(id);
  for (const { id: node, chat } of memory.tokens.values()) if (chat === id) memory.tokens.delete(node);
  if (!database) return;
  const transaction = database.transaction(["chats", "tokens"], "readwrite");
  const tokens = transaction.objectStore("tokens");
  transaction.objectStore("chats").delete(id);
  for (const key of await done(tokens.index("chat").getAllKeys(id))) tokens.delete(key);
  await complete(transaction);
}

/// tokens: see token_places.js. They are there from now on, and for as long as the page is.
export function holdTokens(chat, node, tokens) {
  memory.tokens.set(node.id, { id: node.id, chat: chat.id, tokens });
}

/// Those that are held outlive the page, unless the browser refuses, or their chat was deleted.
export async function saveTokens(node) {
  const entry = memory.tokens.get(node.id);
  if (!database || !entry) return;
  const transaction = database.transaction(["chats", "tokens"], "readwrite");
  const kept = await done(transaction.objectStore("chats").getKey(entry.chat));
  if (kept === undefined && stored.has(entry.chat)) return;
  transaction.objectStore("tokens").put(entry);
  await complete(transaction);
  memory.tokens.delete(node.id);
}

export async function tokensOf(node) {
  const entry = memory.tokens.get(node.id) ?? (database && await done(objects("tokens").get(node.id)));
  return entry?.tokens ?? [];
}
