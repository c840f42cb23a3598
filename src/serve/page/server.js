// The server, as any client of OpenAI's API meets it. Paths are relative: the page may lie behind a prefix.
import { readEvents } from "./event_stream.js";

const kKey = "ferry.key";
let keyInMemory = "";  // where the browser keeps nothing

export function apiKey() {
  try {
    return sessionStorage.getItem(kKey) ?? "";
  } catch {
    return keyInMemory;
  }
}

export function setApiKey(key) {
  keyInMemory = key;
  try {
    if (key) sessionStorage.setItem(kKey, key);
    else sessionStorage.removeItem(kKey);
  } catch {
    // it holds until the page is left
  }
}

/// A refusal or a failure, in words for a person. status 0: there was no answer at all.
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const kSpoken = {
  0: "The server does not answer.",
  401: "The server asks for an API key.",
  403: "The server refuses this API key.",
  404: "The server does not know this request.",
  429: "The server is busy.",
  503: "The server is not ready.",
};

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, kSpoken[0]);
  }
  if (response.ok) return response;
  throw await refusal(response);
}

/// What a refusal says: OpenAI's {"error": {"message"}} where there is one.
async function refusal(response) {
  let said = "";
  try {
    const error = JSON.parse(await response.text()).error;
    said = typeof error === "string" ? error : error?.message ?? "";
  } catch {
    // A proxy's page, or nothing: the status says it.
  }
  const spoken = kSpoken[response.status] ?? (said ? "" : `The server answers with status ${response.status}.`);
  const after = Number(response.headers.get("Retry-After"));
  const wait = after > 0 ? `It asks to wait ${after} s.` : "";
  return new ServerError(response.status, [spoken, said, wait].filter(Boolean).join(" "));
}

/// The names of the models that are served.
export async function models() {
  const list = await (await request("v1/models")).json();
  return (list.data ?? []).map((model) => String(model.id));
}

/// What the server says of its model: see passport.js.
export async function passport() {
  return (await request("ferry/passport")).json();
}

/// Asks, and yields what comes: {reasoning, content, logprobs, finish, usage}, each where there is some.
/// Errors: a ServerError; an AbortError once signal aborts.
export async function* answer(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  let ended = false;
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") {
        ended = true;
        continue;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.code ?? 500, chunk.error.message ?? String(chunk.error));
      const choice = chunk.choices?.[0];
      yield {
        reasoning: choice?.delta?.reasoning_content ?? choice?.delta?.reasoning ?? "",
        content: choice?.delta?.content ?? "",
        logprobs: choice?.logprobs ?? null,
        finish: choice?.finish_reason ?? null,
        usage: chunk.usage ?? null,
      };
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServerError) throw error;
    if (error instanceof SyntaxError) throw new ServerError(0, "The server sent what is no answer.");
    throw new ServerError(0, "The connection to the server was lost.");
  }
  if (!ended) throw new ServerError(0, "The answer was cut off: the server ended the connection.");
}
