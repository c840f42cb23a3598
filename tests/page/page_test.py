"""The chat page in headless Chromium: against canned answers, and (with a model's directory) against ferry serve.

usage: page_test.py BUILD [--axe axe.min.js] [--model DIR] [TEST...]: BUILD holds ferry and the list of embedded files
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from canned_server import CannedServer, delta, ending, given, page_policy, said, tokens
from chromium import ALT, CTRL, SHIFT, Chromium

SETTINGS = argparse.Namespace()

RICH = """## Ferries

The **ferry** crosses in $t = \\frac{d}{v}$ minutes, costs $5 to $10, and

$$\\int_0^T v(t)\\,dt = d$$

- [x] load the *cars*
- [ ] cast off

```python
def cross(distance, speed):
    return distance / speed  # "hours"
```

| harbour | depth |
|---|---|
| north | 4 m |

See [the docs](https://example.org/x).
"""

# What must never become an element, a request or a call. The page defines nothing called owned.
HOSTILE = """<script>owned=1</script><img src=x onerror="owned=2"><svg onload="owned=3"><iframe srcdoc="<script>parent.owned=4</script>"></iframe>

[a](javascript:owned=5) [b](data:text/html,<script>owned=6</script>) [c](vbscript:x) [d](JaVaScRiPt:owned=7) [e](/v1/models)

![picture](http://127.0.0.1:9/secret?q=1)

<a href="https://example.org" onclick="owned=8">raw</a> <style>body{display:none}</style> <form action=/x><input name=y></form>

`<b>code</b>` $\\href{javascript:owned=9}{x}$ $\\htmlClass{a}{x}$ $\\includegraphics{http://127.0.0.1:9/p.png}$ $\\rule{9999999em}{9999999em}$

```"><img/src=x/onerror=owned=10>
<img src=x onerror=owned=11>
```

```html
<img src=x onerror="owned=12">
```

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror=owned=13&gt;">

<noscript><p title="</noscript><img src=x onerror=owned=14>">

| <img src=x onerror=owned=15> | b |
|---|---|
| <svg/onload=owned=16> | [x](javascript:owned=17) |

<https://example.org/"onmouseover="owned=18> <javascript:owned=19>
"""


class PageCase(unittest.TestCase):
    """A browser for all tests of a class; a server and a profile for each test."""

    @classmethod
    def setUpClass(cls):
        cls.browser = Chromium()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.server = CannedServer(SETTINGS.build)
        self.addCleanup(self.server.close)
        self.page = self.browser.page()
        self.open()

    def tearDown(self):
        unexpected = [e for e in self.page.errors if not e.startswith("Failed to load resource")]
        self.assertEqual(unexpected, [], "the page complains")
        self.page.close()

    def open(self):
        self.page.go(self.server.url)
        self.page.wait("document.querySelector('#model').textContent !== ''")

    def ask(self, text, wait=True):
        self.page.click("#message")
        self.page.type(text)
        self.page.key("Enter")
        if wait:
            self.answered()

    def answered(self):
        self.page.wait("document.querySelector('#stop').hidden && document.querySelector('.message:last-child')"
                       "?.matches('.assistant:not(.running)')")

    def last(self, part=".answer"):
        return self.page.text(f".message:last-child {part}")


class Answers(PageCase):
    def test_an_answer_is_seen_while_it_comes(self):
        more = threading.Event()
        self.server.answers = [[delta(role="assistant"), delta(content="One "), more, delta(content="two."), *ending()]]
        self.ask("Count", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText.trim() === 'One'")
        self.assertEqual(self.page.js("document.querySelector('.assistant').ariaBusy"), "true")
        self.assertIsNone(self.page.text(".assistant .figures"))
        more.set()
        self.answered()
        self.assertEqual(self.last(), "One two.")
        self.assertEqual(self.page.js("document.querySelector('.assistant').ariaBusy"), "false")
        self.assertEqual(self.page.text("#title"), "Count")

    def test_what_is_asked_is_openais(self):
        self.server.answers = [said("Two."), said("Three.")]
        self.ask("One?")
        self.ask("And then?")
        self.assertEqual(self.server.asked[1], {
            "model": "tiny", "stream": True, "stream_options": {"include_usage": True}, "logprobs": True,
            "top_logprobs": 5, "messages": [
                {"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."},
                {"role": "user", "content": "And then?"}]})

    def test_markdown_code_and_formulas(self):
        self.server.answers = [[*(delta(content=c) for c in RICH), *ending()]]
        self.ask("Show me")
        page = self.page
        self.assertEqual(page.text(".answer h2"), "Ferries")
        self.assertEqual(page.count(".answer strong"), 1)
        self.assertEqual(page.count(".answer .katex"), 2)
        self.assertEqual(page.count(".answer .katex-display"), 1)
        self.assertIn("costs $5 to $10", self.last())
        self.assertEqual(page.text(".code pre"), 'def cross(distance, speed):\n    return distance / speed  # "hours"\n')
        self.assertGreater(page.count(".code .hljs-keyword"), 1)
        self.assertEqual(page.text(".code-top span"), "python")
        self.assertEqual(page.count(".table td"), 2)
        self.assertIn("\u2611 load", self.last())
        self.assertEqual(page.js("(({href, target, rel}) => [href, target, rel])(document.querySelector('.answer a'))"),
                         ["https://example.org/x", "_blank", "noopener noreferrer nofollow"])

    def test_every_direction_of_writing(self):
        arabic = "\u0645\u0631\u062d\u0628\u0627"
        self.server.answers = [said(f"{arabic} `x`:\n\n1. {arabic}\n\n> {arabic}\n\n|{arabic}|\n|---|\n|1|\n\nEnglish\n\n```\n{arabic}\n```")]
        self.page.click("#message")
        self.page.type(f"1. {arabic}")
        self.assertEqual(self.page.js("document.querySelector('#message').dir"), "rtl")
        self.page.key("Enter")
        self.answered()
        self.assertEqual(self.page.js("document.querySelector('#message').dir"), "ltr")
        directions = ("[...document.querySelectorAll('.piece > *')].map((e) => getComputedStyle(e.querySelector('pre, table') ?? e)"
                      ".direction)")
        self.assertEqual(self.page.js(directions), ["rtl"] * 4 + ["ltr"] * 2)
        for selector in (".said", "#title", ".chat"):
            self.assertEqual(self.page.js(f"getComputedStyle(document.querySelector('{selector}')).direction"), "rtl", selector)

    def test_tables_keep_their_words_and_columns(self):
        self.page.size(400, 780)
        self.server.answers = [said("| harbour | depth | remarks | owner of the pier | opened |\n|---|--:|:-:|---|---|\n" +
                                    "| north | 4 m | a rather long remark | The Harbour Company | 1871 |")]
        self.ask("Table")
        # As high as a line of text, or two: no word is cut into letters.
        self.assertLess(self.page.js("document.querySelector('.table thead').getBoundingClientRect().height"), 100)
        self.assertEqual(self.page.js("[...document.querySelectorAll('.table td')].map((e) => getComputedStyle(e).textAlign)"),
                         ["start", "right", "center", "start", "start"])
        self.assertLessEqual(self.page.js("document.documentElement.scrollWidth"), 400)

    def test_a_list_begins_where_it_was_begun(self):
        self.server.answers = [said("7. seven\n8. eight")]
        self.ask("List")
        self.assertEqual(self.page.js("document.querySelector('.answer ol').start"), 7)

    def test_code_is_copied(self):
        self.page.browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite"],
                               browserContextId=self.page.context)
        self.server.answers = [said("```c\nint x;\n```")]
        self.ask("Code")
        self.page.click(".code button")
        self.page.wait("document.querySelector('.code button.done')")
        self.assertEqual(self.page.js("navigator.clipboard.readText()"), "int x;\n")
        self.page.click(".message:last-child [aria-label=Copy]")
        self.page.wait("document.querySelector('.below .done')")
        self.assertEqual(self.page.js("navigator.clipboard.readText()"), "```c\nint x;\n```")

    def test_what_stands_is_not_made_anew(self):
        more = threading.Event()
        self.server.answers = [[delta(content="First.\n\nSecond"), more, delta(content=" goes on."), *ending()]]
        self.ask("Grow", wait=False)
        self.page.wait("document.querySelectorAll('.answer .piece').length === 2")
        self.page.js("document.querySelector('.answer .piece').marked = true")
        more.set()
        self.answered()
        self.assertTrue(self.page.js("document.querySelector('.answer .piece').marked"))
        self.assertEqual(self.last(), "First.\n\nSecond goes on.")

    def test_thoughts_are_open_while_it_thinks_and_fold_then(self):
        answer, end = threading.Event(), threading.Event()
        self.server.answers = [[delta(reasoning_content="Let me "), delta(reasoning_content="see."), answer,
                                delta(content="Yes."), end, *ending()]]
        self.ask("Well?", wait=False)
        self.page.wait("document.querySelector('.thought')?.open")
        self.page.wait("document.querySelector('.thought-text').innerText === 'Let me see.'")
        self.assertIn("Thinking", self.page.text(".thought summary"))
        answer.set()
        self.page.wait("!document.querySelector('.thought').open")
        self.assertRegex(self.page.text(".thought summary"), r"^Thought for \d\.\d s$")
        self.page.click(".thought summary")  # who opens it finds it open at the end
        end.set()
        self.answered()
        self.assertTrue(self.page.js("document.querySelector('.thought').open"))
        self.ask("And?")
        self.assertEqual(self.server.asked[1]["messages"][1], {"role": "assistant", "content": "Yes."})

    def test_stopping_ends_the_request_and_keeps_what_came(self):
        never = threading.Event()
        self.server.answers = [[delta(content="One two"), never], said("Again.")]
        self.ask("Count", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'One two'")
        self.page.key("Escape")
        self.answered()
        self.assertTrue(self.server.gone.wait(5), "the server was not told")
        self.assertEqual(self.last(), "One two")
        self.assertEqual(self.last(".trouble span"), "Stopped.")
        self.ask("Go on")
        self.assertEqual(self.server.asked[1]["messages"][1]["content"], "One two")

    def test_figures(self):
        self.server.answers = [[delta(content="a"), 0.3, delta(content="b"), *ending(190, 128, 31)]]
        self.ask("Speed")
        figures = self.last(".figures")
        self.assertRegex(figures, r"^31 tokens \u00b7 \d+\.\d tokens/s \u00b7 first after 0\.\d\d s \u00b7 128 of 190 prompt")
        self.assertLess(abs(float(figures.split()[3]) - 100), 40)  # 30 tokens in 0.3 s, give or take 0.1 s

    def test_an_answer_that_reached_its_limit_says_so(self):
        self.server.answers = [said("And so", finish="length")]
        self.ask("Go")
        self.assertIn("limit", self.last(".trouble"))

    def test_alternatives_of_a_token(self):
        self.server.answers = [[*tokens("The sea is deep", [(0.99, []), (0.12, [(" ocean", 0.6), ("\n", 0.02)])]), *ending()]]
        self.ask("What?")
        self.assertEqual(self.page.count(".token"), 0)
        self.page.click("[aria-label^='Tokens']")
        self.page.wait("document.querySelectorAll('.token').length === 4")
        rows = "[...document.querySelectorAll('.alternatives tbody tr')].map((r) => r.innerText.replaceAll(String.fromCharCode(10), String()).split('\\t').slice(0, 2))"
        # The one that was least likely is shown first.
        self.assertEqual(self.page.js(rows), [["\u00b7ocean", "60.0 %"], ["\u00b7sea(written)", "12.0 %"], ["\u21b5", "2.0 %"]])
        self.page.js("document.querySelector('.tokens').focus()")
        self.page.key("ArrowLeft")
        self.assertEqual(self.page.js(rows), [["The(written)", "99.0 %"]])
        self.page.click(".token:last-child")
        self.assertEqual(self.page.js(rows), [["\u00b7deep(written)", "95.0 %"]])
        self.page.reload()  # they are kept with the chat
        self.page.click("[aria-label^='Tokens']")
        self.page.wait("document.querySelectorAll('.token').length === 4")


class Hostile(PageCase):
    def test_what_a_model_writes_is_data(self):
        self.server.answers = [[delta(reasoning_content=HOSTILE), delta(content=HOSTILE), *ending()]]
        self.ask(HOSTILE)
        self.page.click(".thought summary")
        self.page.js("new Promise((done) => setTimeout(done, 300))")
        self.assertEqual(self.page.js("typeof owned"), "undefined")
        for selector in ("script:not([src])", "#messages img", "#messages iframe", "#messages style", "#messages form",
                         "#messages input", "#messages svg:not(.drawing):not(.katex svg)", "#messages math a",
                         "#messages [onclick], #messages [onerror], #messages [onload], #messages [onmouseover]"):
            self.assertEqual(self.page.count(selector), 0, selector)
        links = self.page.js("[...document.querySelectorAll('#messages a')].map((a) => a.getAttribute('href'))")
        self.assertTrue(links)
        for link in links:
            self.assertRegex(link, r"^(https?://|mailto:)")
        elsewhere = [r for r in self.page.requests if not r.startswith(self.server.url)]
        self.assertEqual(elsewhere, [])
        self.assertIn("<script>owned=1</script>", self.page.text(".message.user .said"))
        self.assertIn("<script>owned=1</script>", self.last())  # shown, as text

    def test_titles_and_names_are_data(self):
        self.server.model = "<img src=x onerror=owned=1>"
        self.server.passport = {"model": "<b>x</b>", "passport": {"root": "<svg onload=owned=2>"},
                                "verified": [{"device": "<i>", "dtype": "F32", "passed": True}]}
        self.open()
        self.ask("<img src=x onerror=owned=3>")
        self.page.click("#passport")
        self.page.wait("document.querySelector('#passport-dialog').open")
        self.assertEqual(self.page.js("typeof owned"), "undefined")
        self.assertIn("<svg onload=owned=2>", self.page.text("#passport-facts"))
        self.assertEqual(self.page.text(".chat"), "<img src=x onerror=owned=3>")

    def test_monstrous_texts_do_not_hang_it(self):
        for text in (">" * 20000, "[" * 20000, "*a " * 10000, "$" * 5001, "`" * 9999, "- " * 3000 + "x",
                     "|a" * 3000 + "\n" + "|-" * 3000 + "\n" + "|b" * 3000, "\\(" * 3000, "x\u202e\u0000y" * 1000):
            self.server.answers = [said(text)]
            self.ask("More")
            self.assertNotEqual(self.page.text(".message:last-child"), "")
        for text in ("*a " * 10000, "_a " * 10000, "- *a " + "*b " * 10000, "| a |\n|---|\n| " + "*b " * 10000 + "|"):
            s = self.page.js(f"""import('/page/markdown.js').then((m) => {{
                const begin = performance.now();
                m.pieces({json.dumps(text)});
                return (performance.now() - begin) / 1000;
            }})""")
            self.assertLess(s, 4, text[:20])  # marked alone: over ten

    def test_what_is_no_event_stream_is_told(self):
        for stream, words in (
                (["data: {oops\n\n"], "no answer"), ([delta(content="Half"), None], "cut off"),
                ([{"error": {"message": "The engine failed.", "code": 500}}], "The engine failed.")):
            self.server.answers = [stream]
            self.ask("More")
            self.assertIn(words, self.last(".trouble"))
        self.assertEqual(self.page.text(".message:nth-last-child(3) .answer"), "Half")

    def test_events_may_be_cut_anywhere(self):
        text = 'data: {"choices":[{"delta":{"content":"\u00e4\u4e16\U0001f6a2"}}]}\r\n\r\n: ping\r\ndata:{"choices":[{"delta":{"content":"!"}}]}\n\n'
        self.server.answers = [[character for character in text] + [*ending()]]
        self.ask("Slowly")
        self.assertEqual(self.last(), "\u00e4\u4e16\U0001f6a2!")


class Versions(PageCase):
    def test_answering_again_keeps_both(self):
        self.server.answers = [said("First."), said("Second.")]
        self.ask("Well?")
        self.page.click("[aria-label='Answer again']")
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'Second.'")
        self.answered()
        self.assertEqual(self.last(".versions"), "2/2")
        self.assertEqual(self.server.asked[0]["messages"], self.server.asked[1]["messages"])
        self.page.click("[aria-label='Earlier version']")
        self.assertEqual(self.last(), "First.")
        self.page.key("]", ALT)
        self.assertEqual(self.last(), "Second.")

    def test_an_edited_question_is_a_branch(self):
        self.server.answers = [said("A."), said("B."), said("C."), said("D.")]
        self.ask("one")
        self.ask("two")
        self.page.click(".message:first-child [aria-label=Edit]")
        self.page.wait("document.activeElement.matches('.edit')")
        self.page.type(" more")
        self.page.key("Enter")
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'C.'")
        self.answered()
        self.assertEqual(self.server.asked[2]["messages"], [{"role": "user", "content": "one more"}])
        self.assertEqual(self.page.text(".message:first-child .versions"), "2/2")
        self.page.click(".message:first-child [aria-label='Earlier version']")
        self.assertEqual(self.page.js("[...document.querySelectorAll('.said')].map((e) => e.innerText)"), ["one", "two"])
        self.ask("three")
        self.assertEqual([m["content"] for m in self.server.asked[3]["messages"]], ["one", "A.", "two", "B.", "three"])

    def test_a_megabyte_is_pasted_and_sent(self):
        text = "lorem ipsum dolor sit amet, " * 38000

        def pasted_s(page):
            page.click("#message")
            begin = time.monotonic()
            page.type(text)
            page.type("end")
            return time.monotonic() - begin
        # What this machine needs for a field that nobody listens to: with dir="auto" it is some 50 times that.
        plain = self.browser.beside(self.page)
        plain.go(self.server.url)
        plain.js("addEventListener('input', (e) => e.stopImmediatePropagation(), true)")
        plain.js("document.querySelector('#message').dir = 'ltr'")
        plain_s = pasted_s(plain)
        plain.close()
        self.page.call("Page.bringToFront")
        self.assertLess(pasted_s(self.page), 1 + 10 * plain_s)
        self.page.key("Enter")
        self.answered()
        self.assertEqual(self.server.asked[0]["messages"][0]["content"], text + "end")

    def test_arrow_up_edits_and_escape_leaves(self):
        self.ask("one")
        self.page.click("#message")
        self.page.key("ArrowUp")
        self.page.wait("document.activeElement.matches('.edit')")
        self.page.key("Escape")
        self.page.wait("document.querySelector('.said')?.innerText === 'one'")
        self.assertEqual(len(self.server.asked), 1)


    def test_a_stopped_answer_goes_on(self):
        self.server.answers = [[delta(reasoning_content="Hm."), *tokens("One two"), threading.Event()],
                               [*tokens(" three."), *ending()]]
        self.ask("Count", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'One two'")
        self.page.key("Escape")
        self.answered()
        self.page.click(".trouble button")
        self.page.wait("document.querySelector('.message:last-child .answer').innerText === 'One two three.'")
        self.answered()
        self.assertEqual(self.server.asked[1]["messages"][1:], [
            {"role": "assistant", "content": "One two", "prefix": True, "reasoning_content": "Hm."}])
        self.assertEqual(self.last(".versions"), "2/2")
        self.assertEqual(self.last(".thought-text"), "")  # folded
        self.page.click("[aria-label^='Tokens']")
        self.page.wait("document.querySelectorAll('.token').length === 3")

    def test_an_answer_goes_on_with_another_token(self):
        self.server.answers = [[*tokens("Let me", field="reasoning_content"),
                                *tokens("The sea is deep", [(0.99, []), (0.12, [(" ocean", 0.6)])]), *ending()],
                               [*tokens(" is wide"), *ending()]]
        self.ask("What?")
        self.page.click("[aria-label^='Tokens']")
        self.page.wait("document.querySelectorAll('.token').length === 6")
        self.assertEqual(self.page.count(".token.of-thought"), 2)
        self.page.click(".alternatives button")
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'The ocean is wide'")
        self.answered()
        self.assertEqual(self.server.asked[1]["messages"][-1]["content"], "The ocean")
        self.assertEqual(self.last(".versions"), "2/2")

    def show_tokens(self, count):
        self.page.click(".message:last-child [aria-label^='Tokens']")
        self.page.wait(f"document.querySelectorAll('.token').length === {count}")

    def choose(self, index):
        """(A blank has no middle that a mouse could be sent to.)"""
        self.page.js(f"document.querySelector('.token[data-index=\\'{index}\\']').click()")

    def go_on_with(self, index, answer, thought=None):
        """Chooses the alternative of a token; what was asked then."""
        asked = len(self.server.asked)
        self.choose(index)
        self.page.click(".alternatives button")
        self.page.wait(f"document.querySelector('.message:last-child .answer')?.innerText === {json.dumps(answer)}")
        self.answered()
        if thought is not None:
            said = self.page.js("document.querySelector('.message:last-child .thought-text').textContent.trim()")
            self.assertEqual(said, thought.replace("\n", ""))
        self.assertEqual(len(self.server.asked), asked + 1)
        return self.server.asked[-1]["messages"][-1]

    # As the server streams an answer that has a thought: its marks, and blanks beside them, come without a text.
    THOUGHT = [given("<think>"), given("\n"), given("Let", reasoning_content="Let", others=[("Well", 0.02)]),
               given("\n", others=[(" us", 0.02)]), given("me", reasoning_content="\nme"),
               given("\n", others=[(" see", 0.02)]), given("</think>", others=[("Hm", 0.02)]), given("\n\n", others=[("\n", 0.02)]),
               given("The", content="The", others=[("A", 0.02), ("\n", 0.01)]),
               given(" sea", 0.12, [(" ocean", 0.6), ("<|end|>", 0.1), (b" \xf0\x9f", 0.1), ("</think>", 0.01)], content=" sea"),
               given("\n"), given("is", content="\nis"), *ending()]

    def test_it_goes_on_behind_a_thought_and_again(self):
        self.server.answers = [self.THOUGHT, [*tokens(" is wide", [(0.9, []), (0.5, [(" deep", 0.3)])]), *ending()],
                               [*tokens("!"), *ending()]]
        self.ask("What?")
        self.show_tokens(12)
        self.assertEqual(self.page.count(".token.of-thought"), 8)
        # Neither control tokens nor parts of letters nor marks are offered.
        self.assertEqual(self.page.js("[...document.querySelectorAll('.alternatives button')].map((e) => e.innerText)"),
                         ["\u00b7ocean"])
        self.assertEqual(self.page.count(".alternatives tbody tr"), 5)
        self.assertEqual(self.go_on_with(9, "The ocean is wide"), {
            "role": "assistant", "content": "The ocean", "prefix": True, "reasoning_content": "Let\nme"})
        self.show_tokens(12)
        self.assertEqual(self.page.text(".token[data-index='9']"), " ocean")
        self.assertEqual(self.page.count(".token.of-thought"), 8)
        self.assertEqual(self.go_on_with(11, "The ocean is deep!")["content"], "The ocean is deep")
        self.assertEqual(self.last(".versions"), "3/3")

    def test_the_first_token_behind_a_thought(self):
        self.server.answers = [self.THOUGHT, [*tokens(" sea"), *ending()]]
        self.ask("What?")
        self.show_tokens(12)
        self.choose(7)  # a blank that is no part of the answer
        self.assertEqual(self.page.count(".alternatives button"), 0)
        self.assertEqual(self.go_on_with(8, "A sea")["content"], "A")  # not the blank

    def test_a_thought_goes_on_with_another_token(self):
        rest = [given(" think", reasoning_content=" think"), given("</think>"), *tokens("Yes."), *ending()]
        self.page.key("s", ALT)
        self.page.js("document.querySelector('#settings-dialog [name=thinking]').value = 'on'")
        self.page.click("#settings-dialog [value=save]")
        for index, begun, thought in ((2, "Well", "Well think"), (3, "Let us", "Let us think"),
                                      (5, "Let\nme see", "Let\nme see think"), (6, "Let\nme\nHm", "Let\nme\nHm think")):
            with self.subTest(index):
                self.server.answers = [self.THOUGHT, rest]
                self.page.click("#new-chat")
                self.ask("What?")
                self.show_tokens(12)
                self.assertEqual(self.go_on_with(index, "Yes.", thought), {
                    "role": "assistant", "content": "", "prefix": True, "reasoning_content": begun})
                # To forbid it would end the thought; to ask for it is needless.
                self.assertNotIn("thinking", self.server.asked[-1])

    def test_letters_that_several_tokens_make(self):
        ship = "\U0001f6a2"
        self.server.answers = [[given(b"\xf0\x9f", others=[("An", 0.02)]), given(b"\x9a\xa2", content=ship, others=[("x", 0.02)]),
                                *tokens(" sails", [(0.2, [(" is", 0.7)])]), *ending()],
                               [*tokens(" far"), *ending()], [*tokens(" island"), *ending()]]
        self.ask("What?")
        self.show_tokens(3)
        self.choose(1)  # half a letter stands before it
        self.assertEqual(self.page.count(".alternatives button"), 0)
        self.assertEqual(self.go_on_with(2, f"{ship} is far")["content"], f"{ship} is")
        self.show_tokens(4)
        self.assertEqual(self.go_on_with(0, "An island")["content"], "An")

    def test_a_stopped_thought_goes_on(self):
        self.server.answers = [[given("Let", reasoning_content="Let"), given(" me", reasoning_content=" me"),
                                given("\n"), threading.Event()],
                               [given(" see", 0.5, [(" be", 0.4)], reasoning_content=" see"), given("</think>"),
                                *tokens("Yes."), *ending()], [given("."), given("</think>"), *tokens("No."), *ending()]]
        self.ask("What?", wait=False)
        self.page.wait("document.querySelector('.thought-text')?.innerText === 'Let me'")
        self.page.key("Escape")
        self.answered()
        self.page.click(".trouble button")
        self.page.wait("document.querySelector('.message:last-child .answer').innerText === 'Yes.'")
        self.answered()
        self.assertEqual(self.server.asked[1]["messages"][-1], {
            "role": "assistant", "content": "", "prefix": True, "reasoning_content": "Let me"})
        self.show_tokens(5)
        self.assertEqual(self.go_on_with(2, "No.")["reasoning_content"], "Let me be")


class Chats(PageCase):
    def test_chats_outlive_the_page(self):
        self.server.answers = [said("**Kept.**"), said("Also.")]
        self.ask("First chat")
        self.page.click("#new-chat")
        self.ask("Second chat")
        self.page.reload()
        self.page.wait("document.querySelectorAll('.chat').length === 2")
        self.assertEqual(self.page.text("#title"), "Second chat")  # the address names it
        self.page.click("#chats li:last-child .chat")
        self.assertEqual(self.last(), "Kept.")
        self.assertEqual(self.page.count(".answer strong"), 1)

    def test_the_address_is_that_of_the_chat(self):
        title = "document.querySelector('#title').textContent"
        self.ask("one")
        self.page.click("#new-chat")
        self.ask("two")
        self.page.click("#chats li:last-child .chat")
        self.page.wait(f"{title} === 'one'")
        self.page.js("history.back()")
        self.page.wait(f"{title} === 'two'")
        self.page.click("#new-chat")
        self.page.click("#chats li:last-child .chat")
        self.page.wait(f"{title} === 'one'")
        self.page.js("history.back()")
        self.page.wait("!document.querySelector('#welcome').hidden")
        self.page.click("#chats li:last-child .chat")
        self.page.js("document.querySelector('.skip').click()")
        self.page.js("new Promise((done) => setTimeout(done, 100))")
        self.page.reload()
        self.page.wait(f"{title} === 'one'")

    def test_an_answer_that_was_left_is_as_stopped(self):
        self.server.answers = [[delta(content="Half"), threading.Event()]]
        self.ask("Well?", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'Half'")
        self.page.js("new Promise((done) => setTimeout(done, 200))")
        self.page.reload()
        self.answered()
        self.assertEqual(self.last(".trouble span"), "Stopped.")
        self.assertTrue(self.server.gone.wait(5), "the server was not told")

    def test_another_chat_can_be_read_meanwhile(self):
        more = threading.Event()
        self.server.answers = [said("Short."), [delta(content="Long"), more, delta(content=" answer"), *ending()]]
        self.ask("one")
        self.page.click("#new-chat")
        self.ask("two", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'Long'")
        self.page.click("#chats li:last-child .chat")
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'Short.'")
        self.assertEqual(self.page.count("#chats .dot"), 1)
        more.set()
        self.page.wait("document.querySelectorAll('#chats .dot').length === 0")
        self.assertEqual(self.last(), "Short.")
        self.page.click("#chats li:first-child .chat")
        self.assertEqual(self.last(), "Long answer")

    def test_search_rename_and_delete(self):
        self.server.answers = [said("About harbours."), said("About winds.")]
        self.ask("one")
        self.page.click("#new-chat")
        self.ask("two")
        self.page.key("k", CTRL)
        self.page.type("HARBOUR")
        titles = "[...document.querySelectorAll('.chat')].map((e) => e.innerText)"
        self.assertEqual(self.page.js(titles), ["one"])
        self.page.js("document.querySelector('#search').select()")
        self.page.key("Backspace")
        self.page.js("document.querySelector('[aria-label=\"Rename two\"]').click()")
        self.page.type("Winds & tides")
        self.page.key("Enter")
        self.assertEqual(self.page.text("#title"), "Winds & tides")
        self.page.js("document.querySelector('[aria-label=\"Delete one\"]').click()")
        self.page.click("#delete-dialog [data-close]")
        self.assertEqual(self.page.count(".chat"), 2)
        self.page.js("document.querySelector('[aria-label=\"Delete one\"]').click()")
        self.page.click("#delete-dialog [value=delete]")
        self.page.wait("document.querySelectorAll('.chat').length === 1")
        self.page.reload()
        self.page.wait("document.querySelectorAll('.chat').length === 1")
        self.assertEqual(self.page.js(titles), ["Winds & tides"])

    def test_tabs_see_each_others_chats(self):
        other = self.browser.beside(self.page)
        other.go(self.server.url)
        self.ask("From the first tab")
        other.wait("document.querySelector('.chat')?.innerText === 'From the first tab'")
        other.close()

    def test_two_tabs_speak_in_the_same_chat(self):
        more = threading.Event()
        self.server.answers = [[delta(content="One"), more, delta(content=" two"), *ending()], said("Three."), said("Four.")]
        self.ask("one", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'One'")
        other = self.browser.beside(self.page)
        other.go(self.page.js("location.href"))
        # It knows that this is answered, not stopped.
        other.wait("document.querySelector('.message:last-child')?.matches('.assistant.running')")
        self.assertEqual(other.count(".trouble:not([hidden])"), 0)

        def ask_there(text, answer):
            other.click("#message")
            other.type(text)
            other.key("Enter")
            other.wait(f"document.querySelector('.message:last-child .answer')?.innerText === '{answer}'")
            other.wait("document.querySelector('#stop').hidden")
        ask_there("two", "Three.")
        other.click(".message:first-child [aria-label=Edit]")
        other.type(" and a half")
        more.set()
        self.answered()
        texts = "[...document.querySelectorAll('.message')].map((m) => m.querySelector('.said, .answer')?.innerText)"
        both = ["one", "One two", "two", "Three."]
        self.page.wait(f"JSON.stringify({texts}) === {json.dumps(json.dumps(both, separators=(',', ':')))}")
        # Who writes is left alone, and sees the rest.
        other.wait("document.querySelector('.message:nth-child(2) .answer').innerText === 'One two'")
        self.assertEqual(other.js("[document.activeElement.matches('.edit'), document.activeElement.value]"),
                         [True, "one and a half"])
        other.key("Escape")
        ask_there("three", "Four.")
        self.assertEqual([m["content"] for m in self.server.asked[2]["messages"]], [*both, "three"])
        self.page.wait("document.querySelectorAll('.message').length === 6")
        for page in (self.page, other):
            page.call("Page.bringToFront")
            page.reload()
            page.wait("document.querySelectorAll('.message').length === 6")
            self.assertEqual(page.js(texts), [*both, "three", "Four."])
            self.assertEqual(page.count(".versions"), 0)
        other.close()

    def test_what_is_being_written_stays_while_another_tab_goes_on(self):
        more = threading.Event()
        self.server.answers = [said("One."), [delta(content="Other"), more, delta(content=" one."), *ending()]]
        self.ask("one")
        other = self.browser.beside(self.page)
        other.go(self.page.js("location.href"))
        other.click(".message:first-child [aria-label=Edit]")
        other.type(" and a half")
        other.js("window.field = document.activeElement; 0")
        self.page.call("Page.bringToFront")
        self.page.click(".message:first-child [aria-label=Edit]")
        self.page.type(", again")
        self.page.key("Enter")
        other.wait("document.querySelector('.chat').innerText === 'one, again'")
        self.assertEqual(other.js("[window.field.isConnected, window.field.value]"), [True, "one and a half"])
        other.call("Page.bringToFront")
        other.js("document.querySelector('[aria-label^=Rename]').click()")
        other.js("window.field.isConnected && document.activeElement.select()")
        other.type("Half a title")
        other.js("new BroadcastChannel('ferry.chats').postMessage('changed')")
        self.page.js("new BroadcastChannel('ferry.chats').postMessage('changed')")
        more.set()
        self.answered()
        other.js("new Promise((done) => setTimeout(done, 200))")
        self.assertEqual(other.js("document.querySelector('#chats input')?.value"), "Half a title")
        other.key("Enter")
        other.wait("document.querySelector('.chat')?.innerText === 'Half a title'")
        other.js("window.row = document.querySelector('.chat'); window.row.focus()")
        self.page.wait("document.querySelector('.chat').innerText === 'Half a title'")
        self.page.js("new BroadcastChannel('ferry.chats').postMessage('changed')")
        other.js("new Promise((done) => setTimeout(done, 200))")
        self.assertEqual(other.js("[window.field.isConnected, window.field.value]"), [True, "one and a half"])
        self.assertTrue(other.js("document.activeElement === window.row"))
        other.js("window.field.focus()")
        other.key("Escape")
        self.assertEqual(other.text(".message:first-child .versions"), "1/2")
        other.click(".message:first-child [aria-label='Later version']")
        self.assertEqual(other.text(".message:last-child .answer"), "Other one.")
        other.close()

    def test_an_edited_first_question_is_the_title_in_all_tabs(self):
        self.ask("one")
        other = self.browser.beside(self.page)
        other.go(self.page.js("location.href"))
        other.click(".message:first-child [aria-label=Edit]")
        other.type(" and a half")
        other.key("Enter")
        for selector in ("#title", ".chat"):
            self.page.wait(f"document.querySelector('{selector}').innerText === 'one and a half'")
        self.answered()
        # Who sets something else meanwhile takes no title along; one that is given stays.
        self.page.js("""import('/page/chat_tree.js').then(({addNode, mergeInto, newChat}) => {
            const ask = (chat, content) => addNode(chat, null, {role: "user", content});
            const here = newChat({});
            ask(here, "old").created -= 9;
            const there = structuredClone(here);
            Object.assign(there, {settings: {seed: 7}, edited: Date.now()});
            const named = Object.assign(structuredClone(here), {title: "Given", named: true, edited: Date.now() + 1});
            ask(here, "new");
            mergeInto(here, there, () => false);
            window.titles = [here.title, here.settings.seed];
            mergeInto(here, named, () => false);
            ask(here, "newer");
            window.titles.push(here.title);
        })""")
        self.assertEqual(self.page.js("window.titles"), ["new", 7, "Given"])
        for page in (self.page, other):
            page.call("Page.bringToFront")
            page.reload()
            page.wait("document.querySelector('#title').innerText === 'one and a half'")
        other.close()

    def test_who_leaves_tells_the_other_tab(self):
        self.server.answers = [[delta(content="Half"), threading.Event()]]
        self.ask("one", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'Half'")
        other = self.browser.beside(self.page)
        other.go(self.page.js("location.href"))
        other.wait("document.querySelector('.message:last-child')?.matches('.running')")
        self.page.go("about:blank?left")
        other.wait("document.querySelector('.trouble span')?.innerText === 'Stopped.'")
        other.close()

    def test_what_another_tab_removed_and_named_stays_so(self):
        self.server.refusal = (429, "busy", [])
        self.ask("one")
        other = self.browser.beside(self.page)
        other.go(self.page.js("location.href"))
        other.wait("document.querySelectorAll('.message').length === 2")
        self.server.refusal = None
        self.page.click(".trouble button")  # the failed answer goes
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'Hello.'")
        self.answered()
        self.page.js("document.querySelector('[aria-label=\"Rename one\"]').click()")
        self.page.type("Harbours")
        self.page.key("Enter")
        other.wait("document.querySelector('.message:last-child .answer')?.innerText === 'Hello.'")
        other.wait("document.querySelector('#title').innerText === 'Harbours'")
        other.click("#message")
        other.type("two")
        other.key("Enter")
        other.wait("document.querySelectorAll('.message').length === 4 && document.querySelector('#stop').hidden")
        for page in (self.page, other):
            page.wait("document.querySelectorAll('.message').length === 4")
            page.call("Page.bringToFront")
            page.reload()
            page.wait("document.querySelectorAll('.message').length === 4")
            self.assertEqual((page.text("#title"), page.count(".versions"), page.count(".trouble:not([hidden])")),
                             ("Harbours", 0, 0))
        other.close()

    def test_a_chat_that_another_tab_deletes_stays_deleted_though_it_is_answered(self):
        never = threading.Event()
        self.server.answers = [[delta(content="One two"), never]]
        self.ask("one", wait=False)
        self.page.wait("document.querySelector('.assistant .answer')?.innerText === 'One two'")
        other = self.browser.beside(self.page)
        other.go(self.server.url)
        other.wait("document.querySelectorAll('.chat').length === 1")
        other.js("document.querySelector('[aria-label^=\"Delete\"]').click()")
        other.click("#delete-dialog [value=delete]")
        self.page.wait("document.querySelectorAll('.chat').length === 0")
        never.set()
        self.page.js("new Promise((done) => setTimeout(done, 200))")
        kept = "import('/page/store.js').then((store) => store.allChats()).then((chats) => chats.length)"
        for page in (self.page, other):
            self.assertEqual((page.count(".chat"), page.js(kept)), (0, 0))
        other.close()

    def test_a_chat_that_was_deleted_unheard_is_not_written_again(self):
        self.server.answers = [said("A."), said("B."), [delta(content="Not yet"), threading.Event()]]
        self.ask("kept")
        self.page.click("#new-chat")
        self.ask("one")
        other = self.browser.beside(self.page)
        other.go(self.page.js("location.href"))
        other.wait("document.querySelectorAll('.message').length === 2")
        titles = "[...document.querySelectorAll('.chat')].map((e) => e.innerText)"
        # As in a tab that is closed before it says so.
        self.page.js("import('/page/store.js').then(({removeChat}) => removeChat(location.hash.slice(1)))")
        other.click("#message")
        other.type("two")
        other.key("Enter")
        other.wait("document.querySelector('.notice')?.innerText.includes('was deleted in another tab')")
        self.assertEqual(other.js(titles), ["kept"])
        self.assertEqual(other.js("document.querySelector('#message').value"), "two")  # to be sent elsewhere
        self.assertTrue(self.server.gone.wait(5), "nobody wants that answer")
        other.reload()
        other.wait("document.querySelectorAll('.chat').length === 1")
        self.assertEqual(other.js(titles), ["kept"])
        other.close()

    def test_a_chat_that_was_deleted_unheard_goes_where_something_is_changed(self):
        self.server.answers = [said("A."), said("B.")]
        self.ask("kept")
        self.page.click("#new-chat")
        self.ask("one")
        other = self.browser.beside(self.page)
        other.go(self.page.js("location.href"))
        other.click(".message:first-child [aria-label=Edit]")
        other.type(" and a half")
        other.js("import('/page/store.js').then(({removeChat}) => removeChat(location.hash.slice(1)))")
        other.js("new BroadcastChannel('ferry.chats').postMessage('changed')")
        for page in (self.page, other):
            page.wait("document.querySelectorAll('.chat').length === 1")
            self.assertEqual(page.text(".chat"), "kept")
            page.wait("document.querySelector('.notice')?.innerText.includes('was deleted in another tab')")
        self.assertEqual(other.js("document.querySelector('#message').value"), "one and a half")
        other.close()

    def test_a_browser_that_is_full_is_told_and_loses_nothing_meanwhile(self):
        notices = "[...document.querySelectorAll('.notice')].map((n) => n.innerText)"
        answer = [*tokens("The sea is deep", [(0.99, []), (0.12, [(" ocean", 0.6)])]), *ending()]
        self.server.answers = [said("Kept."), answer, said("Kept again.")]
        self.ask("one")
        self.page.reload()
        self.page.wait("document.querySelectorAll('.chat').length === 1")
        # As where the quota is used up: the request is done, and its transaction comes to nothing.
        self.page.js("""
            window.put = IDBObjectStore.prototype.put;
            IDBObjectStore.prototype.put = function (...entry) {
              const request = window.put.apply(this, entry);
              request.addEventListener("success", () => request.transaction.abort());
              return request;
            }; 0""")
        self.page.click("#new-chat")
        self.ask("two")
        self.page.wait(f"{notices}.some((n) => n.startsWith('This chat could not be kept'))")
        self.page.wait(f"{notices}.some((n) => n.startsWith('The alternatives of this'))")
        self.assertEqual(len(set(self.page.js(notices))), len(self.page.js(notices)), "told twice at once")
        self.assertEqual(self.last(), "The sea is deep")
        self.page.click("[aria-label^='Tokens']")
        self.page.wait("document.querySelectorAll('.token').length === 4")
        # What another tab does takes nothing away.
        self.page.js("new BroadcastChannel('ferry.chats').postMessage('changed')")
        self.page.js("new Promise((done) => setTimeout(done, 200))")
        self.assertEqual(self.page.count(".chat"), 2)
        # Where there is room again, all of it is kept.
        self.page.js("IDBObjectStore.prototype.put = window.put; 0")
        self.ask("three")
        self.page.js("new Promise((done) => setTimeout(done, 200))")
        self.page.reload()
        self.page.wait("document.querySelectorAll('.chat').length === 2")
        self.assertEqual(self.page.count(".message"), 4)

    def test_export_and_import_give_the_same_chat(self):
        self.server.answers = [[delta(reasoning_content="Hm."), delta(content="First."), *ending()], said("Second.")]
        self.ask("one")
        self.page.click("[aria-label='Answer again']")
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'Second.'")
        self.answered()
        exported = self.page.js("""(async () => {
            const click = HTMLAnchorElement.prototype.click;
            let link;
            HTMLAnchorElement.prototype.click = function () { link = this; };
            document.querySelector("#export-all").click();
            HTMLAnchorElement.prototype.click = click;
            return [link.download, await (await window.fetchBlob(link.href))];
        })()""".replace("await window.fetchBlob(link.href)", """import("/page/store.js").then(async (store) =>
            JSON.stringify({format: "ferry-chats", version: 1, chats: await store.allChats()}))"""))
        self.assertEqual(exported[0], "ferry-chats.json")
        read = self.page.js(f"import('/page/transfer.js').then((m) => m.readChats({json.dumps(exported[1])}))")
        self.assertEqual([sorted(n["content"] for n in c["nodes"].values()) for c in read], [["First.", "Second.", "one"]])
        self.import_file(exported[1])
        self.page.wait("document.querySelectorAll('.chat').length === 2")
        self.page.click("#chats li:not(.current) .chat")
        self.assertEqual(self.last(), "Second.")
        self.assertEqual(self.last(".versions"), "2/2")
        self.page.click("[aria-label='Earlier version']")
        self.assertEqual(self.last(), "First.")
        self.assertIn("Thought", self.last(".thought"))

    def import_file(self, text):
        self.page.js(f"""(() => {{
            const data = new DataTransfer();
            data.items.add(new File([{json.dumps(text)}], "chats.json"));
            const input = document.querySelector("#import-file");
            input.click = () => {{}};
            document.querySelector("#import").click();
            input.files = data.files;
            input.dispatchEvent(new Event("change"));
        }})()""")

    def test_files_that_are_no_chats_are_refused(self):
        def chats(**nodes):
            return json.dumps({"format": "ferry-chats", "version": 1, "chats": [{"title": "x", "nodes": nodes}]})

        def node(parent, content="x", role="user"):
            return {"parent": parent, "content": content, "role": role}
        for text, words in (
                ("{", "no JSON"), ("[]", "exported"), ('{"format":"ferry-chats","version":9}', "version 9"),
                ('{"format":"ferry-chats","version":1}', "no list"), ('{"format":"ferry-chats","version":1,"chats":[7]}', "is not one"),
                (chats(a=node("a")), "follow themselves"), (chats(a=node("b"), b=node("a")), "follow themselves"),
                (chats(a=node("z")), "in the air"), (chats(a=node(None, 7)), "is none"), (chats(a=node(None, role="system")), "is none")):
            self.import_file(text)
            self.page.wait(f"[...document.querySelectorAll('.notice')].some((n) => n.innerText.includes({json.dumps(words)}))")
            self.page.js("document.querySelectorAll('.notice').forEach((n) => n.remove())")
        self.assertEqual(self.page.count(".chat"), 0)


class Server(PageCase):
    def test_the_key_is_asked_for_and_kept_for_the_tab_alone(self):
        self.server.key = "right"
        self.page.go(self.server.url + "?again")
        self.page.wait("document.querySelector('#key-dialog').open")
        self.page.type("wrong")
        self.page.key("Enter")
        self.page.wait("document.querySelector('#key-text').innerText.includes('Incorrect') && document.querySelector('#key-dialog').open")
        self.page.type("right")
        self.page.key("Enter")
        self.page.wait("document.querySelector('#model').textContent === 'tiny'")
        self.ask("Hello")
        self.assertEqual(self.last(), "Hello.")
        self.assertEqual(self.server.keys[-1], "Bearer right")
        self.assertEqual(self.page.js("[sessionStorage['ferry.key'], JSON.stringify(localStorage).includes('right')]"),
                         ["right", False])
        self.page.reload()
        self.page.wait("document.querySelector('#model').textContent === 'tiny'")

    def test_a_question_survives_the_asking_for_a_key(self):
        self.server.key = "right"
        self.ask("Hello", wait=False)
        self.page.wait("document.querySelector('#key-dialog').open")
        self.page.type("right")
        self.page.key("Enter")
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'Hello.'")
        self.assertEqual(self.page.count(".message"), 2)

    def test_a_busy_server_is_told_and_asked_again(self):
        self.server.refusal = (429, "8 requests wait.", [("Retry-After", "7")])
        self.ask("Hello")
        self.assertEqual(self.last(".trouble span"), "The server is busy. 8 requests wait. It asks to wait 7 s.")
        self.server.refusal = None
        self.page.click(".trouble button")
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'Hello.'")
        self.assertEqual(self.page.count(".message"), 2)
        self.assertEqual(self.page.count(".versions"), 0)  # the failure is no version

    def test_a_server_that_is_gone(self):
        self.page.offline(True)
        self.ask("Hello")
        self.assertEqual(self.last(".trouble span"), "The server does not answer.")
        self.assertGreater(self.page.js("document.querySelector('.trouble use').getBBox().width"), 0)  # it is drawn
        self.page.offline(False)
        self.page.click(".trouble button")
        self.page.wait("document.querySelector('.message:last-child .answer')?.innerText === 'Hello.'")

    def test_a_refused_field_is_told_as_the_server_says_it(self):
        self.server.refusal = (400, "top_logprobs: at most 3", [])
        self.ask("Hello")
        self.assertEqual(self.last(".trouble span"), "top_logprobs: at most 3")

    def test_the_passport(self):
        self.page.click("#passport")
        facts = self.page.text("#passport-facts")
        for words in ("deepseek_v3", "51a0b7c2", "8c0f5a4f", "480 steps, 7,864,320 tokens", "cpu (BF16, 2026-11-29)"):
            self.assertIn(words, facts)
        for passport, words in ((None, None), ({"model": "x", "passport": None}, "No passport"),
                                ({"passport": {"root": "a"}}, "Passport"), ({"passport": {"signed_by": "a"}}, "Signed")):
            self.server.passport = passport
            self.page.reload()
            self.page.wait("document.querySelector('#model').textContent === 'tiny'")
            if words:
                self.page.wait("!document.querySelector('#passport').hidden")
                self.assertEqual(self.page.text("#passport"), words)
            else:
                self.page.js("new Promise((done) => setTimeout(done, 100))")
                self.assertTrue(self.page.js("document.querySelector('#passport').hidden"))

    def test_the_badge_speaks_of_what_serves(self):
        def noted(device, dtype, passed):
            return {"device": device, "dtype": dtype, "passed": passed}

        def state(verified, signed_by="a", **more):
            facts = {"passport": {"signed_by": signed_by}, "weights": "as stored", "chat_template": "as stored",
                     "device": "Ascend 910B", "verified_as": "ascend", "dtype": "bf16", "verified": verified, **more}
            return self.page.js("(async () => { const {stateOf} = await import('/page/passport.js'); "
                                f"return stateOf({json.dumps(facts)}); }})()")

        here = noted("ascend", "bf16", True)
        failed_here = noted("ascend", "bf16", False)
        for verified, more, kind, text, word in (
                ([here], {}, "good", "Signed and verified", "gave this model's answers"),
                ([here], {"signed_by": None}, "good", "Verified", "nobody signed"),
                ([here, noted("cpu", "bf16", False)], {}, "good", "Signed and verified", "did not"),
                # Others gave the answers: that says nothing of this one.
                ([noted("cpu", "bf16", True)], {}, "some", "Signed", "was not verified"),
                ([noted("ascend", "f32", True)], {}, "some", "Signed", "was not verified"),
                ([noted("cpu", "bf16", False)], {}, "some", "Signed", "did not give them"),
                ([], {"signed_by": None}, "some", "Passport", "was not verified"),
                ([here], {"verified_as": None}, "some", "Signed", "was not verified"),
                # It did not itself, whatever others did.
                ([failed_here, noted("cpu", "bf16", True)], {}, "bad", "Not verified", "ascend, bf16"),
                ([failed_here], {"weights": "int4"}, "bad", "Not verified", "ascend, bf16"),
                # Verified were the files.
                ([here], {"weights": "int4"}, "some", "Changed", "int4"),
                ([here], {"chat_template": "another"}, "some", "Changed", "another chat template"),
                ([here], {"weights": "none"}, "good", "Signed and verified", "")):
            with self.subTest(verified=verified, more=more):
                said = state(verified, **more)
                self.assertEqual((said["class"], said["text"]), (kind, text))
                self.assertIn(word, said["summary"])

    def test_what_the_passport_does_not_know_is_not_made_up(self):
        verified = [{"device": "cpu", "dtype": "BF16", "passed": True, "unix_ms": 0}]
        for passport, words in (({"passport": {"root": "a"}, "verified": verified}, "cpu (BF16)"),
                                ({"passport": None, "format": "gguf"}, "ferry convert FILE --out DIR")):
            self.server.passport = passport
            self.page.reload()
            self.page.wait("!document.querySelector('#passport').hidden")
            self.page.click("#passport")
            self.assertIn(words, self.page.text("#passport-summary") + self.page.text("#passport-facts"))

    def test_a_model_that_does_not_chat_is_not_offered_to(self):
        self.server.passport = {"model": "x", "passport": None, "chat": False}
        self.page.reload()
        self.page.wait("document.querySelector('#message').disabled")
        self.assertEqual(self.page.text("#welcome-title"), "This model does not chat")
        self.assertIn("/v1/completions", self.page.text("#welcome-text"))

    def test_settings_are_sent_and_remembered(self):
        self.page.key("s", ALT)
        self.page.wait("document.querySelector('#settings-dialog').open")
        self.page.type("Be brief.")
        fields = {"temperature": "0.25", "top_p": "0.5", "max_tokens": "77", "seed": "3", "frequency_penalty": "-1",
                  "presence_penalty": "1.5", "thinking": "off", "alternatives": "0"}
        for name, value in fields.items():
            self.page.js(f"document.querySelector('#settings-dialog [name={name}]').value = {json.dumps(value)}")
        self.page.click("#settings-dialog [value=save]")
        self.ask("Hello")
        asked = self.server.asked[0]
        self.assertEqual(asked.pop("messages"), [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
        self.assertEqual(asked, {"model": "tiny", "stream": True, "stream_options": {"include_usage": True},
                                 "temperature": 0.25, "top_p": 0.5, "max_tokens": 77, "seed": 3, "frequency_penalty": -1,
                                 "presence_penalty": 1.5, "thinking": {"type": "disabled"}})
        self.page.click("#new-chat")
        self.ask("Hello")
        self.assertEqual(self.server.asked[1]["temperature"], 0.25)
        self.page.click("#open-settings")
        self.page.js("document.querySelector('#settings-dialog [name=temperature]').value = 9")
        self.page.click("#settings-dialog [value=save]")  # the browser says what is wrong
        self.assertTrue(self.page.js("document.querySelector('#settings-dialog').open"))
        self.page.click("#defaults")
        self.page.click("#settings-dialog [value=save]")
        self.ask("Hello")
        self.assertNotIn("temperature", self.server.asked[2])


class Everybody(PageCase):
    """Keyboard, reader, phone, colours."""

    def test_keys(self):
        self.page.js("document.activeElement.blur()")
        self.page.key("?")
        self.page.wait("document.querySelector('#keys-dialog').open")
        self.assertGreater(self.page.count("#keys-list dt"), 8)
        self.page.key("Escape")
        self.page.key("/")
        self.assertEqual(self.page.js("document.activeElement.id"), "message")
        self.page.type("a")
        self.page.key("Enter", SHIFT)
        self.page.type("b?")
        self.assertEqual(self.page.js("document.querySelector('#message').value"), "a\nb?")
        self.page.key("Enter")
        self.answered()
        self.page.key("r", ALT)
        self.page.wait("document.querySelector('.versions')")
        self.answered()
        self.page.key("o", CTRL | SHIFT)
        self.page.wait("!document.querySelector('#welcome').hidden")

    def test_a_key_that_composes_a_word_sends_nothing(self):
        def press(selector, key):
            for how in ("isComposing: true", "keyCode: 229"):  # the other is Safari's
                self.page.js(f"document.querySelector('{selector}').dispatchEvent(new KeyboardEvent('keydown', "
                             f"{{key: '{key}', bubbles: true, cancelable: true, {how}}}))")
        self.page.click("#message")
        self.page.type("\u65e5\u672c")
        press("#message", "Enter")
        self.assertEqual(self.server.asked, [])
        self.page.key("Enter")
        self.answered()
        self.page.click(".message:first-child [aria-label=Edit]")
        for key in ("Enter", "Escape"):
            press(".edit", key)
        self.assertEqual((len(self.server.asked), self.page.count(".edit")), (1, 1))
        self.page.js("document.querySelector('[aria-label^=\"Rename\"]').click()")
        for key in ("Enter", "Escape"):
            press("#chats input", key)
        self.assertEqual(self.page.count("#chats input"), 1)

    def test_what_a_reader_hears(self):
        self.server.answers = [said("One.\n\nTwo $x^2$.")]
        self.ask("Hello")
        self.page.wait("document.querySelector('#announcements').lastChild.innerText === 'The answer is complete.'")
        heard = self.page.js("[...document.querySelectorAll('#announcements p')].map((p) => p.textContent)")
        self.assertEqual(heard[:2], ["The model answers.", "One."])
        self.assertEqual(len(heard), 4)

    def test_a_phone(self):
        self.page.size(400, 780, 2, True)
        self.server.answers = [said(RICH + "\n\n```\n" + "wide " * 60 + "\n```\n\n" + "x" * 400)]
        self.page.click("#message")
        self.page.type("A question whose first line is longer than a phone is wide")
        self.page.click("#send")
        self.answered()
        self.assertEqual(self.page.js("innerWidth"), 400)  # nothing made the browser zoom out
        self.assertLessEqual(self.page.js("document.documentElement.scrollWidth"), 400)
        self.assertLessEqual(self.page.js("Math.max(...[...document.querySelectorAll('#messages .piece > *, #composer, header')]"
                                          ".map((e) => e.getBoundingClientRect().right))"), 400)
        self.assertFalse(self.page.js("document.querySelector('#sidebar').checkVisibility({visibilityProperty: true})"))
        self.page.click("#open-sidebar")
        self.page.wait("document.activeElement.id === 'close-sidebar'")
        self.page.click("#new-chat")
        self.page.wait("!document.querySelector('#welcome').hidden")
        self.page.wait("!document.querySelector('#sidebar').checkVisibility({visibilityProperty: true})")

    def test_colours_follow_the_system_and_the_button(self):
        ground = "getComputedStyle(document.body).backgroundColor"
        self.page.scheme("light")
        light = self.page.js(ground)
        self.page.scheme("dark")
        dark = self.page.js(ground)
        self.assertNotEqual(light, dark)
        self.page.click("#theme")
        self.assertEqual(self.page.js(ground), light)
        self.page.reload()
        self.assertEqual(self.page.js(ground), light)
        self.page.click("#theme")
        self.page.scheme("light")
        self.assertEqual(self.page.js(ground), dark)

    def test_buttons_stand_where_they_stay_while_chats_are_read(self):
        places = ("[...document.querySelectorAll('button')].filter((e) => e.checkVisibility() && e.id !== 'passport')"
                  ".map((e) => [e.id, e.getBoundingClientRect().x, e.getBoundingClientRect().y])")
        there = self.page.js(places)
        self.assertIn("theme", [name for name, _, _ in there])
        # A disk that is slow: what is read of it never comes.
        self.page.call("Page.addScriptToEvaluateOnNewDocument", source="IDBFactory.prototype.open = () => ({})")
        self.page.reload()
        self.assertEqual(self.page.js(places), there)

    def test_axe_finds_nothing(self):
        if not SETTINGS.axe:
            self.skipTest("no axe.min.js was given")
        axe = pathlib.Path(SETTINGS.axe).read_text()
        self.server.answers = [[*(delta(reasoning_content=c) for c in "Let me see."), *tokens(RICH), *ending()],
                               said("Second."), [delta(content="x"), None]]
        self.ask("Show me")
        self.page.click("[aria-label='Answer again']")
        self.page.wait("document.querySelector('.versions')")
        self.answered()
        self.page.click("[aria-label='Earlier version']")
        self.ask("Fail")
        self.page.click(".message:nth-child(2) .thought summary")

        def examine(where):
            violations = self.page.js(f"""axe.run(document).then((r) => r.violations.map((v) =>
                v.id + " (" + v.impact + "): " + v.nodes.map((n) => n.target + " " + n.failureSummary).join("; ")))""")
            self.assertEqual(violations, [], where)
        self.page.call("Page.setBypassCSP", enabled=True)
        self.page.reload()
        self.page.wait("document.querySelector('.versions')")
        self.page.js(axe + ";0")
        for scheme in ("light", "dark"):
            self.page.scheme(scheme)
            examine(f"{scheme}, a conversation")
            self.page.click(".message:nth-child(2) [aria-label^='Tokens']")
            self.page.wait("document.querySelector('.token')")
            examine(f"{scheme}, tokens")
            self.page.click(".message:nth-child(2) [aria-label^='Tokens']")
            for opener, dialog in (("#passport", "passport"), ("#open-settings", "settings"), ("#show-keys", "keys")):
                self.page.click(opener)
                self.page.wait(f"document.querySelector('#{dialog}-dialog').open")
                examine(f"{scheme}, {dialog}")
                self.page.key("Escape")
            self.page.click(".message:first-child [aria-label=Edit]")
            examine(f"{scheme}, editing")
            self.page.key("Escape")
            self.page.size(400, 780, 2, True)
            self.page.click("#open-sidebar")
            examine(f"{scheme}, a phone")
            self.page.click("#close-sidebar")
            self.page.size(1280, 800)


class Served(unittest.TestCase):
    """The page with what it is for: ferry serve, and a model (which writes nonsense)."""

    @classmethod
    def setUpClass(cls):
        if not SETTINGS.model:
            raise unittest.SkipTest("no --model was given")
        cls.browser = Chromium()
        cls.addClassCleanup(cls.browser.close)
        keys = tempfile.NamedTemporaryFile("w", suffix=".keys")
        keys.write("a-key-of-this-test\n")
        keys.flush()
        cls.addClassCleanup(keys.close)
        cls.process = subprocess.Popen(
            [f"{SETTINGS.build}/ferry", "serve", SETTINGS.model, "--port", "0", "--temperature", "0", "--api-key-file",
             keys.name],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        cls.addClassCleanup(cls.process.stdout.close)
        cls.addClassCleanup(cls.process.wait)
        cls.addClassCleanup(cls.process.terminate)
        for line in cls.process.stdout:
            address = re.search(r"http://127\.0\.0\.1:\d+/?", line)
            if address:
                break
        cls.url = address[0].rstrip("/") + "/"
        threading.Thread(target=cls.process.stdout.read, daemon=True).start()  # its log, so that it never waits

    def setUp(self):
        self.page = self.browser.page()
        self.addCleanup(self.page.close)
        self.page.go(self.url)
        self.page.wait("document.querySelector('#key-dialog').open")
        self.page.type("a-key-of-this-test")
        self.page.key("Enter")
        self.page.wait("!document.querySelector('#passport').hidden", 30)

    def tearDown(self):
        unexpected = [e for e in self.page.errors if not e.startswith("Failed to load resource")]
        self.assertEqual(unexpected, [], "the page complains")

    def answered(self):
        self.page.wait("document.querySelector('#stop').hidden && "
                       "document.querySelector('.message:last-child')?.matches('.assistant:not(.running)')", 60)

    def set(self, **settings):
        self.page.click("#open-settings")
        for name, value in settings.items():
            self.page.js(f"document.querySelector('#settings-dialog [name={name}]').value = {json.dumps(value)}")
        self.page.click("#settings-dialog [value=save]")

    def ask(self, text):
        self.page.click("#message")
        self.page.type(text)
        self.page.key("Enter")

    def test_a_conversation(self):
        self.set(max_tokens="20", alternatives="3")
        self.ask("define ferry")
        self.answered()
        self.assertIsNone(self.page.text(".trouble.error"))
        self.assertRegex(self.page.text(".figures"), r"^20 tokens .* tokens/s .* of \d+ prompt tokens cached")
        self.page.click("[aria-label^='Tokens']")
        self.page.wait("document.querySelectorAll('.token').length === 20")
        rows = self.page.js("[...document.querySelectorAll('.alternatives .number')].map((e) => parseFloat(e.innerText))")
        self.assertEqual(len(rows), 3)
        self.assertEqual(rows, sorted(rows, reverse=True))
        self.page.click("[aria-label='Answer again']")
        self.page.wait("document.querySelector('.versions')")
        self.answered()
        texts = self.page.js("(async () => { const {allChats} = await import('/page/store.js'); return Object.values("
                             "(await allChats())[0].nodes).filter((n) => n.role === 'assistant').map((n) => n.content); })()")
        self.assertEqual(texts[0], texts[1])  # greedy, as the server was told: the same bits

    def test_an_answer_goes_on_with_another_token(self):
        self.set(max_tokens="20", alternatives="5")
        self.ask("define ferry")
        self.answered()
        self.page.click("[aria-label^='Tokens']")
        self.page.wait("document.querySelectorAll('.token').length === 20")
        for index in (0, 7, 13):  # each in the version that the one before made
            chosen = self.page.js(f"""(() => {{
                for (let i = {index}; i < {index} + 6; ++i) {{
                    const token = document.querySelector(`.token[data-index="${{i}}"]`);
                    token.click();
                    const button = document.querySelector(".alternatives button");
                    if (!button) continue;
                    const before = [...document.querySelectorAll(".token")].slice(0, i).map((t) => t.innerText);
                    button.click();
                    return before;
                }}
            }})()""")
            self.assertIsNotNone(chosen, "no alternative is offered")
            self.page.wait(f"document.querySelector('.versions')?.innerText.endsWith('{(0, 7, 13).index(index) + 2}')")
            self.answered()
            self.assertIsNone(self.page.text(".trouble.error"))
            self.page.click("[aria-label^='Tokens']")
            self.page.wait("document.querySelectorAll('.token').length > 0")
            self.assertEqual(self.page.js("[...document.querySelectorAll('.token')].map((t) => t.innerText)")[:len(chosen)],
                             chosen)

    def test_the_badge_says_what_is_served(self):
        self.assertEqual(self.page.text("#passport"), "Verified")
        self.page.click("#passport")
        facts = self.page.text("#passport-facts")
        for words in ("16 steps", "nobody", "cpu"):
            self.assertIn(words, facts.lower())

    def test_stopping(self):
        self.set(max_tokens="100")
        self.ask("define ferry")
        self.page.wait("document.querySelector('.assistant .answer')?.innerText.length > 0 || "
                       "document.querySelector('#stop').hidden")
        self.page.key("Escape")
        self.answered()
        self.assertIsNone(self.page.text(".trouble.error"))

    def test_how_files_are_served(self):
        head = self.page.js("""fetch("/").then((r) => [...r.headers]).then(Object.fromEntries)""")
        self.assertEqual(head["content-security-policy"], page_policy())
        self.assertEqual(head["content-type"], "text/html; charset=utf-8")
        self.assertTrue(head["etag"].startswith('W/"'))
        status = self.page.js(f"""fetch("/", {{headers: {{"If-None-Match": {json.dumps(head["etag"])}}},
                                              cache: "no-store"}}).then((r) => r.status)""")
        self.assertEqual(status, 304)
        for path in ("/page/..%2f..%2fetc/passwd", "/page/", "/page/none.js", "//page/app.js"):
            self.assertEqual(self.page.js(f"fetch(location.origin + {json.dumps(path)}).then((r) => r.status)"), 404, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build")
    parser.add_argument("--axe")
    parser.add_argument("--model")
    parser.add_argument("tests", nargs="*")
    parser.parse_intermixed_args(namespace=SETTINGS)
    unittest.main(argv=[sys.argv[0], *SETTINGS.tests], verbosity=2)


if __name__ == "__main__":
    main()
