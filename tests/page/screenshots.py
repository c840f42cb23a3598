"""Makes the README's pictures of the chat page. usage: screenshots.py BUILD docs/images"""

import sys
import threading

from canned_server import CannedServer, delta, ending, tokens
from chromium import Chromium

ANSWER = """A crossing of $d$ nautical miles at $v$ knots takes

$$t = \\frac{d}{v}\\ \\text{hours},$$

so 12 miles at 16 knots are **45 minutes**.

```python
def crossing(miles, knots):
    return 60 * miles / knots  # minutes
```
"""


def main():
    build, out = sys.argv[1:]
    server, browser = CannedServer(build), Chromium()
    server.model = "dictionary"
    server.passport["model"] = "dictionary"
    page = browser.page()
    try:
        page.size(1120, 720)
        page.scheme("light")
        page.go(server.url)
        page.wait("!document.querySelector('#passport').hidden")

        def ask(text):
            page.click("#message")
            page.type(text)
            page.key("Enter")
            page.wait("document.querySelector('#stop').hidden && document.querySelector('.message:last-child .figures')")

        unsure = [(0.98, []), (0.97, []), (0.96, []), (0.31, [(" boat", 0.42), (" vessel", 0.15), (" bridge", 0.06)]),
                  (0.93, []), (0.9, []), (0.55, [(" over", 0.3)]), (0.97, []), (0.72, [(" river", 0.2)])]
        words = tokens("A ferry is a ship that carries people across water, there and back again.", unsure)
        server.answers = [[*(step for word in words for step in (word, 0.02)), *ending(24, 0, 14)]]
        ask("define ferry")
        page.click("[aria-label^='Tokens']")
        page.wait("document.querySelector('.token')")
        page.screenshot(f"{out}/page_tokens.png")
        page.click("#new-chat")
        thought = "Twelve miles at sixteen knots: 12 / 16 of an hour, which is 45 minutes."
        server.answers = [[delta(reasoning_content=thought), 1.4, *(c for word in ANSWER.split(" ") for c in
                           (delta(content=word + " "), 0.02)), *ending(31, 24, 74)]]
        ask("How long does a crossing of 12 miles take at 16 knots?")
        page.click(".thought summary")
        page.scheme("dark")
        page.screenshot(f"{out}/page_dark.png")
        page.scheme("light")
        page.screenshot(f"{out}/page_light.png")
        never = threading.Event()
        server.answers = [[delta(reasoning_content=thought[:60]), never]]
        page.size(400, 760, 1, True)
        page.click("#message")
        page.type("And against the tide?")
        page.click("#send")
        page.wait("document.querySelector('.message:last-child .thought')?.open")
        page.js("new Promise((done) => setTimeout(done, 400))")
        page.screenshot(f"{out}/page_phone.png")
        never.set()
    finally:
        browser.close()
        server.close()


if __name__ == "__main__":
    main()
