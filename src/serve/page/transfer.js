// Chats as a file: written for keeping, read from wherever it comes, which may be anywhere.
import { byId, element } from "./dom.js";
import { ownTitle, randomId } from "./chat_tree.js";
import { cleanSettings } from "./settings.js";

const kFormat = "ferry-chats";
const kVersion = 1;
const kBytesMax = 64 << 20;
const kRoles = ["user", "assistant"];

export function exportChats(chats, name) {
  const text = JSON.stringify({ format: kFormat, version: kVersion, chats }, null, 1);
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
    download: `${name.replace(/[^\p{L}\p{N} ._-]+/gu, "_").slice(0, 80) || "chats"}.json` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/// Lets a person choose a file; onread is given its chats, onfail what is wrong with it.
export function importChats(onread, onfail) {
  const input = byId("import-file");
  input.value = "";
  input.onchange = async () => {
    const [file] = input.files;
    if (!file) return;
    try {
      if (file.size > kBytesMax) throw new Error("it is larger than 64 MB");
      onread(readChats(await file.text()));
    } catch (error) {
      onfail(`${file.name} was not imported: ${error.message}.`);
    }
  };
  input.click();
}

/// The chats of a file's text, made anew from the fields that are known, under ids of their own.
/// Errors: throws what is wrong.
export function readChats(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("it is no JSON");
  }
  if (file?.format !== kFormat) throw new Error("it is no file of chats that Ferry exported");
  if (file.version !== kVersion) throw new Error(`its version ${file.version} is not known to this page`);
  if (!Array.isArray(file.chats)) throw new Error("it has no list of chats");
  return file.chats.map(readChat);
}

function readChat(from, index) {
  const wrong = (what) => new Error(`chat ${index + 1} ${what}`);
  if (typeof from !== "object" || from === null || typeof from.nodes !== "object" || from.nodes === null)
    throw wrong("is not one");
  const source = new Map(Object.entries(from.nodes));
  const ids = new Map([...source.keys()].map((id) => [id, randomId()]));
  if (followThemselves(source)) throw wrong("has messages that follow themselves");
  const chat = { id: randomId(), title: textOf(from.title).slice(0, 200) || "Imported chat", named: from.named === true,
    created: timeOf(from.created), changed: timeOf(from.changed), settings: cleanSettings(from.settings),
    nodes: {}, chosen: {} };
  for (const [id, node] of source) {
    if (!kRoles.includes(node?.role) || typeof node.content !== "string") throw wrong("has a message that is none");
    if (node.parent !== null && !source.has(node.parent)) throw wrong("has a message that hangs in the air");
    chat.nodes[ids.get(id)] = { id: ids.get(id), parent: node.parent === null ? null : ids.get(node.parent),
      role: node.role, content: node.content, reasoning: textOf(node.reasoning), created: timeOf(node.created),
      thoughtS: numberOf(node.thoughtS), firstS: numberOf(node.firstS), lastS: numberOf(node.lastS),
      usage: usageOf(node.usage), finish: typeof node.finish === "string" ? node.finish : null,
      stopped: node.stopped === true, model: textOf(node.model) };
  }
  for (const [parent, child] of Object.entries(from.chosen ?? {})) {
    if (source.get(child)?.parent === (parent === "" ? null : parent))
      chat.chosen[parent === "" ? "" : ids.get(parent)] = ids.get(child);
  }
  chat.named ||= chat.title !== ownTitle(chat);  // it would not keep the file's title otherwise
  return chat;
}

function followThemselves(nodes) {
  const good = new Set([null, undefined]);  // from where every way leads to the beginning
  for (const id of nodes.keys()) {
    const way = new Set();
    for (let at = id; !good.has(at); at = nodes.get(at)?.parent) {
      if (way.has(at)) return true;
      way.add(at);
    }
    for (const at of way) good.add(at);
  }
  return false;
}

const textOf = (value) => (typeof value === "string" ? value : "");
const numberOf = (value) => (Number.isFinite(value) ? value : null);
const timeOf = (value) => (Number.isFinite(value) && value > 0 ? value : Date.now());

function usageOf(usage) {
  if (typeof usage !== "object" || usage === null) return null;
  return { prompt_tokens: numberOf(usage.prompt_tokens), completion_tokens: numberOf(usage.completion_tokens),
    prompt_tokens_details: { cached_tokens: numberOf(usage.prompt_tokens_details?.cached_tokens) } };
}
