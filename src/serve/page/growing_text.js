// Markdown that grows while it is read: only what changed is made anew, so that marked text, scrolled code and copy
// buttons of what stands already are left alone.
import { element } from "./dom.js";
import { elementsOf, pieces } from "./markdown.js";

export class GrowingText {
  #made = [];  // {html, block}
  #said = 0;  // pieces that were handed to onwhole

  /// onwhole: called with the text of each piece once it is whole.
  constructor(root, onwhole = () => {}) {
    this.root = root;
    this.onwhole = onwhole;
  }

  /// text: all of it. ended: nothing more will come.
  show(text, ended) {
    const now = pieces(text);
    let same = 0;
    while (same < now.length && this.#made[same]?.html === now[same]) ++same;
    for (const { block } of this.#made.splice(same)) block.remove();
    for (const html of now.slice(same)) {
      const block = element("div", { class: "piece" });
      block.append(elementsOf(html));
      this.root.append(block);
      this.#made.push({ html, block });
    }
    const whole = ended ? now.length : now.length - 1;
    for (; this.#said < whole; ++this.#said) this.onwhole(spoken(this.#made[this.#said].block));
  }
}

/// A piece as it is read out: formulas once (KaTeX sets them twice, for eyes and for readers), without buttons.
function spoken(block) {
  const copy = block.cloneNode(true);
  for (const unspoken of copy.querySelectorAll("button, [aria-hidden=true], annotation")) unspoken.remove();
  return copy.textContent.trim();
}
