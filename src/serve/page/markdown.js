// What a model wrote, as elements. Its Markdown becomes HTML (marked), of which only the listed tags and attributes
// are left (DOMPurify); HTML that the model itself wrote is shown as the text that it is, and pictures, which would
// tell their host that somebody reads this, as links. Formulas and code are set afterwards from their text.
import { element, icon, copyText } from "./dom.js";

const { marked, DOMPurify, katex, hljs } = window;

// Debian 12's build of DOMPurify (2.4.1, deb12u1) asks an undeclared shadowNode for its depth before it begins, and
// would throw. The depth of each node is checked where it should be, too, so this answer takes nothing away.
window.shadowNode = { __depth: 0 };

const kTags = ["p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a",
  "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span", "div"];
const kEmphasisMax = 5e6;  // characters of a paragraph times its stars
const kHighlightedMax = 20000;  // characters: highlighting takes longer than drawing the rest

const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/// A formula between delimiters; where dollars might be money, they are.
const formula = (name, level, start, pattern, display) => ({
  name,
  level,
  start: (text) => text.match(start)?.index,
  tokenizer(text) {
    const found = pattern.exec(text);
    return found ? { type: name, raw: found[0], formula: found[1] } : undefined;
  },
  renderer: (token) => display
    ? `<div class="formula">${escaped(token.formula)}</div>`
    : `<span class="formula">${escaped(token.formula)}</span>`,
});

marked.use({
  gfm: true,
  breaks: true,
  mangle: false,
  headerIds: false,
  extensions: [
    formula("dollarsBlock", "block", /\$\$/, /^ {0,3}\$\$([^$]+?)\$\$ *(?:\n|$)/, true),
    formula("bracketsBlock", "block", /\\\[/, /^ {0,3}\\\[([\s\S]+?)\\\] *(?:\n|$)/, true),
    formula("dollarsDisplay", "inline", /\$\$/, /^\$\$([^$\n]+?)\$\$/, true),
    formula("bracketsDisplay", "inline", /\\\[/, /^\\\[([^\n]+?)\\\]/, true),
    formula("parentheses", "inline", /\\\(/, /^\\\(([^\n]+?)\\\)/, false),
    formula("dollars", "inline", /\$/, /^\$(?![\s$])([^$\n]*?[^\s\\$])\$(?![\d$])/, false),
  ],
  renderer: {
    html: (html) => escaped(html),
    image: (href, title, text) => `<a href="${escaped(href ?? "")}">${text || escaped(href ?? "")}</a>`,
    checkbox: (checked) => (checked ? "\u2611 " : "\u2610 "),
  },
});

/// marked's, but that a paragraph on which it would work for seconds (thousands of stars that open what nothing closes:
/// a model that repeats itself) is its text as it is.
class Lexer extends marked.Lexer {
  inlineTokens(text, tokens = []) {
    if (text.length * text.split(/[*_]/).length < kEmphasisMax) return super.inlineTokens(text, tokens);
    tokens.push({ type: "text", raw: text, text: escaped(text) });
    return tokens;
  }
}

/// The top-level pieces of a text as HTML that is not cleaned yet, in order. Text that marked cannot read (nested
/// thousands deep) is one piece, as it is.
export function pieces(text) {
  try {
    return new Lexer(marked.defaults).lex(text).map((token) => marked.parser([token]))
      .filter((html) => html.trim() !== "");
  } catch {
    return [`<p>${escaped(text)}</p>`];
  }
}

/// The elements of one of pieces().
export function elementsOf(html) {
  const fragment = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: kTags,
    ALLOWED_ATTR: ["href", "class", "align", "start"],
    ADD_URI_SAFE_ATTR: ["align", "start"],  // they are not held to be addresses, which these are not
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of fragment.querySelectorAll("a")) setLink(link);
  for (const found of fragment.querySelectorAll(".formula")) setFormula(found);
  for (const code of fragment.querySelectorAll("pre > code")) setCode(code);
  for (const table of fragment.querySelectorAll("table")) {
    const scroller = element("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" });
    table.replaceWith(scroller);
    scroller.append(table);
  }
  for (const block of fragment.children) if (!block.matches(".code, .formula")) block.dir = "auto";
  return fragment;
}

function setLink(link) {
  if (!link.hasAttribute("href")) {
    link.replaceWith(...link.childNodes);  // it led nowhere that a link may lead
    return;
  }
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
}

function setFormula(found) {
  const text = found.textContent;
  try {
    katex.render(text, found, { displayMode: found.tagName === "DIV", throwOnError: true, trust: false,
      strict: "ignore", maxExpand: 1000, maxSize: 50 });
  } catch {
    found.replaceChildren(text);  // not (yet) a formula: as it was written
    found.classList.add("unset");
  }
}

function setCode(code) {
  const language = /(?:^|\s)language-(\S+)/.exec(code.className)?.[1] ?? "";
  const text = code.textContent;
  const copy = element("button", { type: "button", class: "soft small", onclick: () => copyText(text, copy) },
    icon("copy"), "Copy");
  code.className = "hljs";
  if (hljs.getLanguage(language) && text.length <= kHighlightedMax)
    code.replaceChildren(DOMPurify.sanitize(hljs.highlight(language, text, true).value,
      { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true }));
  const pre = code.parentElement;
  pre.tabIndex = 0;  // to be scrolled by keys
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const block = element("div", { class: "code" },
    element("div", { class: "code-top" }, element("span", {}, language || "text"), copy));
  pre.replaceWith(block);
  block.append(pre);
}
