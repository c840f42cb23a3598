// Chats in this browser: IndexedDB, or this tab's memory where the browser keeps nothing. Tokens with their
// alternatives are large and seldom looked at: they lie apart, by their message's id.

const kName = "ferry";
const kVersion = 1;
let database = null;
const memory = { chats: new Map(), tokens: new Map() };

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

async function put(name, entry) {
  const transaction = database.transaction(name, "readwrite");
  transaction.objectStore(name).put(entry);
  await complete(transaction);
}

export async function allChats() {
  return database ? done(objects("chats").getAll()) : [...memory.chats.values()];
}

export async function saveChat(chat) {
  if (database) await put("chats", chat);
  else memory.chats.set(chat.id, chat);
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

/// tokens: see token_list.js. Those that the browser refuses are there for as long as the page is.
export async function saveTokens(chat, node, tokens) {
  const entry = { id: node.id, chat: chat.id, tokens };
  memory.tokens.set(entry.id, entry);
  if (!database) return;
  await put("tokens", entry);
  memory.tokens.delete(entry.id);
}

export async function tokensOf(node) {
  const entry = memory.tokens.get(node.id) ?? (database && await done(objects("tokens").get(node.id)));
  return entry?.tokens ?? [];
}
