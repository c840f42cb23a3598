// Where an answer's tokens lie in it, and what it would begin with if another stood in the place of one. A token is
// kept as [text, log-probability, [[text, log-probability, bytes], ...], bytes], alternatives best first; bytes only
// where they are not those of the text: of a part of a letter, or of a control token, which has none. (Earlier pages
// kept something else there, which is no list.)

const encoder = new TextEncoder();
const bytesOf = ([text, , , bytes]) => (Array.isArray(bytes) ? Uint8Array.from(bytes) : encoder.encode(text));
const isBlank = (text) => text.trim() === "";
const kPartOfLetter = "\ufffd";
const kMark = /<\/?think>/;

/// Of the API's logprobs: {content: [{token, logprob, bytes, special, top_logprobs}]}.
export function tokensOfLogprobs(logprobs) {
  const bytes = ({ token, bytes: list, special }) =>
    (special ? [[]] : token.includes(kPartOfLetter) && Array.isArray(list) ? [list] : []);
  return (logprobs?.content ?? []).map((entry) => [entry.token, entry.logprob,
    (entry.top_logprobs ?? []).map((other) => [other.token, other.logprob, ...bytes(other)]), ...bytes(entry)]);
}

/// The token at index, had another of its alternatives been drawn.
export function drawnInstead([text, logprob, others, ...bytes], other) {
  const all = others.some(([one]) => one === text) ? others : [...others, [text, logprob, ...bytes]];
  return [other[0], other[1], all];
}

/// The tokens' texts, joined, are the answer with more around it: marks of thoughts, blanks beside them, and what was
/// held back when it was stopped.
export class TokenPlaces {
  #tokens;
  #reasoning;
  #content;
  #text = "";
  #starts;  // of each token in text
  #thoughtStart = null;  // null: there is no thought, or it is not these tokens'
  #contentStart = null;  // less than 0: the tokens of what it went on from are not there

  constructor({ reasoning = "", content }, tokens) {
    this.#tokens = tokens;
    this.#reasoning = reasoning;
    this.#content = content;
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    this.#starts = tokens.map((token) => {
      const start = this.#text.length;
      this.#text += decoder.decode(bytesOf(token), { stream: true });
      return start;
    });
    this.#text += decoder.decode();
    const at = this.#text.lastIndexOf(content);
    if (content === "") this.#contentStart = Infinity;
    else if (at >= 0 && isBlank(this.#text.slice(at + content.length).replaceAll(kPartOfLetter, "")))
      this.#contentStart = at;
    else if (content.endsWith(this.#text)) this.#contentStart = this.#text.length - content.length;
    const mark = /^\s*(?:<think>)?\s*/.exec(this.#text)[0].length;
    if (reasoning !== "" && this.#text.slice(0, this.#contentStart ?? 0).startsWith(reasoning, mark))
      this.#thoughtStart = mark;
  }

  /// Of a thought, or of the marks and blanks around it.
  isThought(index) {
    return this.#contentStart !== null && this.#starts[index] < this.#contentStart &&
      (this.#starts[index + 1] ?? this.#text.length) <= this.#contentStart;
  }

  /// What the answer begins with, {reasoning, content}, if `other` stands in place of the token at index. Null: no
  /// answer can begin so, as with a control token or a part of a letter; or it is not known what stands before.
  beginning(index, [other, , bytes]) {
    if (bytes !== undefined || other.includes(kPartOfLetter) || kMark.test(other)) return null;
    if ((bytesOf(this.#tokens[index])[0] & 0xc0) === 0x80) return null;  // within a letter
    const isThought = this.isThought(index);
    const before = isThought ? this.#thoughtBefore(index) : this.#contentBefore(index);
    if (before === null || before.includes(kPartOfLetter)) return null;
    // Blanks behind a mark are no part of what follows.
    const text = before === "" && (isThought || this.#contentStart > 0) ? other.trimStart() : before + other;
    if (text === "") return null;
    return isThought ? { reasoning: text, content: "" } : { reasoning: this.#reasoning, content: text };
  }

  /// The tokens of what the answer thought and said, without those that were held back when it was stopped.
  said() {
    const end = this.#content === "" ? (this.#thoughtStart ?? 0) + this.#reasoning.length
      : (this.#contentStart ?? Infinity) + this.#content.length;
    return this.#tokens.filter((_, index) => this.#starts[index] < end);
  }

  #contentBefore(index) {
    if (this.#contentStart === null) return null;
    return this.#content.slice(0, Math.max(0, this.#starts[index] - this.#contentStart));
  }

  /// Also at the thought's end, where blanks and its mark are.
  #thoughtBefore(index) {
    const start = this.#starts[index];
    if (this.#thoughtStart === null || start < this.#thoughtStart) return null;
    const before = this.#text.slice(this.#thoughtStart, start);
    return isBlank(before.slice(this.#reasoning.length)) ? before : null;
  }
}
