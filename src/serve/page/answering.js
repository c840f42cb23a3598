// One answer on its way: asks the server, and writes what comes into the message that it becomes.
import { answer, ServerError } from "./server.js";
import { apiMessages, pathBefore } from "./chat_tree.js";
import { requestFields } from "./settings.js";
import { tokensOfLogprobs } from "./token_places.js";

/// The node that an answer fills: as addNode() takes it. begun: {reasoning, content, thoughtS}, what it goes on from;
/// where there is no content, its thought goes on.
export const emptyAnswer = (model, begun = null) => ({ role: "assistant", reasoning: "", content: "", thoughtS: null,
  ...begun, begun, running: true, model, firstS: null, lastS: null, usage: null, finish: null, stopped: false,
  error: null });

/// What it went on from; null: nothing.
export function beginningOf(node) {
  if (typeof node.begun !== "string") return node.begun ?? null;
  // As an earlier page kept it: the content alone.
  return node.begun ? { reasoning: node.reasoning, content: node.begun, thoughtS: node.thoughtS } : null;
}

/// Fills the node until the answer is there, fails or is stopped; none of these throws: the node says it.
/// onchange is called for each piece. Returns the tokens, where they were asked for.
export async function fillAnswer(chat, node, signal, onchange) {
  const begin = performance.now();
  const sinceBegin = () => (performance.now() - begin) / 1000;
  const tokens = [];
  const body = { model: node.model, messages: apiMessages(chat, pathBefore(chat, node)), stream: true,
    stream_options: { include_usage: true }, ...requestFields(chat.settings) };
  const begun = beginningOf(node);
  if (begun) {  // DeepSeek's chat prefix completion
    body.messages.push({ role: "assistant", content: begun.content, prefix: true,
      ...(begun.reasoning && { reasoning_content: begun.reasoning }) });
    if (!begun.content) delete body.thinking;  // to forbid it would end the thought that is to go on
  }
  const thoughtFor = () => (begun?.thoughtS ?? 0) + (node.firstS == null ? 0 : sinceBegin() - node.firstS);
  try {
    for await (const piece of answer(body, signal)) {
      if (piece.content || piece.reasoning) {
        node.firstS ??= sinceBegin();
        node.lastS = sinceBegin();
      }
      node.reasoning += piece.reasoning;
      if (piece.content && node.content === "" && node.reasoning !== "") node.thoughtS = thoughtFor();
      node.content += piece.content;
      tokens.push(...tokensOfLogprobs(piece.logprobs));
      if (piece.finish) node.finish = piece.finish;
      if (piece.usage) node.usage = piece.usage;
      onchange();
    }
  } catch (error) {
    if (error.name === "AbortError") node.stopped = true;
    else if (error instanceof ServerError) node.error = { status: error.status, message: error.message };
    else throw error;
  } finally {
    if (node.reasoning !== "" && node.content === "") node.thoughtS = thoughtFor();
    node.running = false;
  }
  return tokens;
}
