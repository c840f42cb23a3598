// The page's beginning: what is there when it opens, and what happens when somebody does something.
import { announce, notice } from "./announce.js";
import { beginningOf, emptyAnswer, fillAnswer } from "./answering.js";
import { addNode, choose, chooseBeside, mergeInto, newChat, removeNode, shownPath } from "./chat_tree.js";
import { ConversationView } from "./conversation_view.js";
import { byId, drawIcons, isComposing } from "./dom.js";
import { askForKey } from "./key_dialog.js";
import { listenToKeys, showKeys } from "./keyboard.js";
import { fit } from "./message_view.js";
import { showBadge } from "./passport.js";
import { models, ServerError } from "./server.js";
import { lastSettings, openSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { allChats, deletedChats, holdTokens, openStore, removeChat, saveChat, saveTokens } from "./store.js";
import { exportChats, importChats } from "./transfer.js";

const kDrawnEveryMs = 50;  // an answer that grows is drawn at most so often,
const kPauses = 4;  // and, as it becomes long, at most in a fifth of the time
const kSavedEveryMs = 2000;
const kAskedEveryMs = 2000;  // a server that is not ready
const kNoModel = { 0: "no connection", 401: "needs an API key", 503: "is being loaded\u2026" };

const state = { chats: [], current: newChat(lastSettings()), model: "" };
const running = new Map();  // by chat's id, the AbortController of its answer
const ours = new Set();  // ids of nodes that were written here: no other tab changes them
const isOurs = (id) => ours.has(id);
const removed = new Set();  // ids of chats that were deleted while this page is open
const input = byId("message");

const sidebar = new Sidebar(
  () => ({ chats: state.chats, current: state.current, running }),
  { open, create, rename, remove });
const conversation = new ConversationView({ 
  edit, again, beside, goOn, retry: (node) => replaceAnswer(state.current, node),
});
// Other tabs of this browser show the same chats.
const tabs = new BroadcastChannel("ferry.chats");

// --- what is seen ----------------------------------------------------------------------------------

function show() {
  conversation.show(state.current);
  showFrame();
}

/// All but the messages.
function showFrame() {
  const { current } = state;
  const isKept = state.chats.includes(current);
  byId("title").textContent = current.title;
  document.title = isKept ? `${current.title} \u00b7 Ferry` : "Ferry";
  byId("export-chat").hidden = !isKept;
  const answering = running.has(current.id);
  byId("stop").hidden = !answering;
  byId("send").hidden = answering;
  byId("send").disabled = input.value.trim() === "";
  sidebar.show();
}

// --- chats -------------------------------------------------------------------------------------------

function open(chat) {
  state.current = chat;
  location.hash = chat.id;
  show();
  conversation.toEnd();
  focusInput();
}

function create() {
  state.current = newChat(lastSettings());
  history.replaceState(null, "", location.pathname + location.search);
  show();
  focusInput();
}

/// Not where a keyboard would slide over the page.
function focusInput() {
  if (!matchMedia("(pointer: coarse)").matches) input.focus();
}

function rename(chat, title) {
  chat.title = title;
  chat.named = true;
  chat.edited = Date.now();
  keep(chat);
  showFrame();
}

async function remove(chat) {
  forget(chat.id);
  if (await isKept("This chat could not be deleted", removeChat(chat.id))) tabs.postMessage({ removed: chat.id });
}

/// It was deleted in another tab. What was being written in it, or asked, is left to be sent in another chat.
function lose(id, isTold = false) {
  const chat = state.chats.find((other) => other.id === id);
  const answered = Object.values(chat?.nodes ?? {}).find((node) => node.running && isOurs(node.id));
  if (chat && chat === state.current) {
    input.value = [chat.nodes[answered?.parent]?.content, conversation.written(), input.value]
      .filter((text) => text?.trim()).join("\n\n");
    fit(input);
  }
  if (chat && (isTold || answered || chat === state.current))
    notice(`\u201c${chat.title}\u201d was deleted in another tab.`);
  forget(id);
}

/// It was deleted, here or in another tab: an answer that is under way ends, and does not bring it back.
function forget(id) {
  running.get(id)?.abort();
  removed.add(id);
  state.chats = state.chats.filter((other) => other.id !== id);
  if (id === state.current.id) create();
  else sidebar.show();
}

/// Waits for what the browser is to keep. What it refuses (its disk, or what it grants the page, is full) is told, and
/// the chat goes on.
async function isKept(refused, saving) {
  try {
    await saving;
    return true;
  } catch (error) {
    notice(`${refused}: ${error.message || error.name}`);
    return false;
  }
}

async function keep(chat) {
  if (!state.chats.includes(chat)) return;  // deleted while it was answered
  const saving = saveChat(chat, isOurs);
  if (!await isKept("This chat could not be kept; delete others, or export it, before you leave the page", saving))
    return;
  if (await saving) tabs.postMessage("changed");
  else if (state.chats.includes(chat)) lose(chat.id, true);
}

/// Behind the chat: they are large, and it is worth more.
async function keepTokens(chat, node) {
  if (!state.chats.includes(chat)) return;
  await isKept("The alternatives of this answer's tokens could not be kept", saveTokens(node));
}

// --- asking --------------------------------------------------------------------------------------------

/// A question behind parent (null: the chat's first), and its answer.
function ask(text, parent) {
  const chat = state.current;
  if (!state.chats.includes(chat)) {
    state.chats.push(chat);
    history.replaceState(null, "", `#${chat.id}`);
  }
  const question = addNode(chat, parent, { role: "user", content: text });
  ours.add(question.id);
  run(chat, addNode(chat, question.id, emptyAnswer(state.model)));
}

function edit(node, text) {
  if (running.has(state.current.id)) stop();
  ask(text, node.parent);
}

/// Another answer to the same question.
function again(node) {
  if (running.has(state.current.id)) return;
  run(state.current, addNode(state.current, node.parent, emptyAnswer(state.model)));
}

/// Another answer that begins with what begun, {reasoning, content}, has of this one; of it tokens are known.
function goOn(node, begun, tokens) {
  if (running.has(state.current.id)) return;
  const thoughtS = begun.reasoning === node.reasoning ? node.thoughtS : null;
  run(state.current, addNode(state.current, node.parent, emptyAnswer(state.model, { ...begun, thoughtS })), tokens);
}

function beside(node, step) {
  if (!chooseBeside(state.current, node, step)) return false;
  keep(state.current);
  show();
  return true;
}

/// The answer comes also while another chat is looked at. known: tokens of what it begins with.
async function run(chat, node, known = []) {
  const controller = new AbortController();
  running.set(chat.id, controller);
  ours.add(node.id);
  show();
  conversation.toEnd();
  announce("The model answers.");
  keep(chat);
  let drawn = 0;
  let pause = kDrawnEveryMs;
  let saved = performance.now();
  let timer = 0;
  const draw = () => {
    timer = 0;
    const begin = performance.now();
    conversation.view(node)?.update();
    drawn = performance.now();
    pause = Math.max(kDrawnEveryMs, kPauses * (drawn - begin));
    if (drawn - saved > kSavedEveryMs) {
      saved = drawn;
      keep(chat);
    }
  };
  const fresh = await fillAnswer(chat, node, controller.signal, () => {
    if (timer === 0) timer = setTimeout(draw, Math.max(0, pause - (performance.now() - drawn)));
  });
  clearTimeout(timer);
  if (running.get(chat.id) === controller) running.delete(chat.id);
  chat.changed = Date.now();
  if (fresh.length > 0 && state.chats.includes(chat)) holdTokens(chat, node, [...known, ...fresh]);
  draw();
  showFrame();
  await keep(chat);
  await keepTokens(chat, node);
  announce(node.error ? node.error.message : node.stopped ? "The answer was stopped." : "The answer is complete.");
  if (node.error?.status === 401 && chat === state.current && await askForKey(node.error.message)) {
    learnModel();
    replaceAnswer(chat, node);
  }
}

/// Asks again after a failure; an answer that never began goes.
function replaceAnswer(chat, node) {
  if (running.has(chat.id)) return;
  const { parent } = node;
  const begun = beginningOf(node);
  if (node.content === (begun?.content ?? "") && node.reasoning === (begun?.reasoning ?? "")) removeNode(chat, node);
  run(chat, addNode(chat, parent, emptyAnswer(state.model, begun)));
}

function stop() {
  const controller = running.get(state.current.id);
  if (!controller) return false;
  running.delete(state.current.id);
  controller.abort();
  return true;
}

// --- the server ------------------------------------------------------------------------------------------

/// A server that still loads its model, or is not there, is asked again.
async function learnModel() {
  try {
    [state.model] = await models();
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    byId("model").textContent = kNoModel[error.status] ?? error.message;
    if (error.status === 401 ? await askForKey(error.message) : await later()) return learnModel();
    return;
  }
  byId("model").textContent = state.model ?? "no model";
  const facts = await showBadge();
  if (facts?.chat === false) tellThatItCannotChat();
}

/// Before anybody has typed what would be refused.
function tellThatItCannotChat() {
  byId("welcome-title").textContent = "This model does not chat";
  byId("welcome-text").textContent =
    "It has no chat template, or one that cannot be run (the server's log says which): it goes on with texts, which " +
    "POST /v1/completions asks for. `ferry serve --chat-template FILE` gives it one.";
  input.placeholder = "This model has no chat template that can be used";
  input.disabled = true;
}

const later = () => new Promise((resolve) => setTimeout(() => resolve(true), kAskedEveryMs));

// --- listening -----------------------------------------------------------------------------------------------

function send() {
  const text = input.value;
  if (text.trim() === "" || running.has(state.current.id)) return;
  input.value = "";
  fit(input);
  ask(text, shownPath(state.current).at(-1)?.id ?? null);
}

function lastOf(role) {
  return shownPath(state.current).findLast((node) => node.role === role);
}

const settings = () => openSettings(state.current.settings, (saved) => {
  state.current.settings = saved;
  state.current.edited = Date.now();
  keep(state.current);
}, async () => {
  if (await askForKey("The key that this server is to be given; none, if the field stays empty.")) learnModel();
});

function listen() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  input.addEventListener("input", () => {
    fit(input);
    byId("send").disabled = input.value.trim() === "";
  });
  input.addEventListener("keydown", (event) => {
    // Where there is no key for Shift, the button sends.
    if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
    if (matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    send();
  });
  byId("stop").addEventListener("click", () => {
    stop();
    input.focus();
  });
  byId("open-settings").addEventListener("click", settings);
  byId("export-chat").addEventListener("click", () => exportChats([state.current], state.current.title));
  byId("export-all").addEventListener("click", () => exportChats(state.chats, "ferry-chats"));
  byId("import").addEventListener("click", () => importChats(async (chats) => {
    state.chats.push(...chats);
    await Promise.all(chats.map(keep));
    sidebar.show();
    notice(`${chats.length} chat${chats.length === 1 ? "" : "s"} imported.`);
  }, notice));
  // Not buttons that submit: Enter in a field would take the first of these.
  for (const button of document.querySelectorAll("[data-close]"))
    button.addEventListener("click", () => button.closest("dialog").close());
  byId("show-keys").addEventListener("click", showKeys);
  listenToKeys({
    stop,
    create,
    search: () => {
      if (getComputedStyle(byId("open-sidebar")).display !== "none") sidebar.open();
      byId("search").focus();
    },
    again: () => (lastOf("assistant") ? again(lastOf("assistant")) : false),
    earlier: () => (lastOf("assistant") ? beside(lastOf("assistant"), -1) : false),
    later: () => (lastOf("assistant") ? beside(lastOf("assistant"), 1) : false),
    editLast: () => {
      const node = lastOf("user");
      if (!node) return false;
      conversation.view(node).edit();
    },
    settings,
    focusMessage: () => input.focus(),
    keys: showKeys,
  });
  tabs.onmessage = ({ data }) => {
    if (data === "opened") {
      tabs.postMessage({ answering: answering() });
      return;
    }
    if (data.removed) lose(data.removed);
    for (const chat of state.chats) {
      endInterrupted(chat, data.left ?? []);
      goOnThere(chat, data.answering ?? []);
    }
    reload();
  };
  addEventListener("hashchange", openFromAddress);
  addEventListener("pagehide", () => {
    tabs.postMessage({ left: answering() });
    running.forEach((controller) => controller.abort());
  });
}

/// Another tab changed something: that is taken, beside what is here. What it deleted it need not have lived to say.
async function reload() {
  for (const id of await deletedChats()) if (state.chats.some((chat) => chat.id === id)) lose(id);
  for (const kept of await allChats()) {
    const chat = state.chats.find(({ id }) => id === kept.id);
    if (chat) mergeInto(chat, kept, isOurs);
    else if (!removed.has(kept.id)) state.chats.push(kept);
  }
  // Another branch that was chosen there takes nothing away that is being written here.
  const edited = conversation.edited();
  if (edited && state.current.nodes[edited.id] === edited) choose(state.current, edited);
  show();
}

function openFromAddress() {
  const chat = state.chats.find((other) => other.id === location.hash.slice(1));
  if (chat && chat !== state.current) open(chat);
  if (chat || !state.chats.includes(state.current)) return;
  if (location.hash === "") create();  // back to where none was open
  else history.replaceState(null, "", `#${state.current.id}`);  // it named a place within the page, or what is gone
}

/// What was being answered when the page was left is as if it had been stopped. ids: of these nodes alone.
function endInterrupted(chat, ids = Object.keys(chat.nodes)) {
  for (const node of ids.map((id) => chat.nodes[id])) {
    if (!node?.running) continue;
    node.running = false;
    node.stopped = true;
  }
}

/// Ids of the nodes that are being answered here.
const answering = () => state.chats.flatMap((chat) => Object.values(chat.nodes))
  .filter((node) => node.running && isOurs(node.id)).map((node) => node.id);

/// Another tab says that it is answering these.
function goOnThere(chat, ids) {
  for (const node of ids.map((id) => chat.nodes[id])) if (node) Object.assign(node, { running: true, stopped: false });
}

async function begin() {
  drawIcons();
  listen();
  if (!await openStore()) notice("This browser keeps no data here: the chats are gone when the page is left.");
  state.chats = await allChats();
  state.chats.forEach((chat) => endInterrupted(chat));
  tabs.postMessage("opened");  // whoever is answering says so
  show();
  openFromAddress();
  focusInput();
  learnModel();
}

begin();
