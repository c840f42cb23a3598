"""Headless Chromium, driven by its DevTools protocol through a pipe: nothing beside Python is needed for it."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

KEYS = {  # key: (code, virtual key code, text)
    "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), "Tab": ("Tab", 9, ""),
    "ArrowUp": ("ArrowUp", 38, ""), "ArrowDown": ("ArrowDown", 40, ""), "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""), "Home": ("Home", 36, ""), "?": ("Slash", 191, "?"), "/": ("Slash", 191, "/"),
    "[": ("BracketLeft", 219, "["), "]": ("BracketRight", 221, "]"), "Backspace": ("Backspace", 8, ""),
}
ALT, CTRL, SHIFT = 1, 2, 8


class PageError(Exception):
    """What went wrong in the page or in driving it."""


class Chromium:
    """The browser; each page has a profile of its own within it."""

    def __init__(self):
        program = shutil.which("chromium")
        if program is None:
            raise PageError("chromium is not installed")
        self._folder = tempfile.mkdtemp(prefix="ferry-chromium.")
        commands_out, commands_in = os.pipe()
        answers_out, answers_in = os.pipe()
        # The browser reads commands from descriptor 3 and writes to 4: the shell puts them there.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$@" 3<&{commands_out} 4>&{answers_in}', "sh", program, "--headless=new",
             "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
             "--force-color-profile=srgb", f"--user-data-dir={self._folder}", "about:blank"],
            pass_fds=(commands_out, answers_in), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(commands_out)
        os.close(answers_in)
        self._in, self._out = commands_in, answers_out
        self._rest = b""
        self._next = 0
        self._pages = {}

    def close(self):
        os.close(self._in)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    def page(self):
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return self._attach(target, context)

    def beside(self, page):
        """Another tab of the same profile."""
        target = self.call("Target.createTarget", url="about:blank", browserContextId=page.context)["targetId"]
        return self._attach(target, page.context)

    def _attach(self, target, context):
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target, context)
        self._pages[session] = page
        page.begin()
        return page

    def call(self, method, session=None, timeout_s=30, **params):
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout_s
        while True:
            answer = self.read(until - time.monotonic(), method)
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def read(self, timeout_s, what):
        """The next message; an event is noted with its page before it is returned."""
        while b"\0" not in self._rest:
            if timeout_s <= 0 or not select.select([self._out], [], [], timeout_s)[0]:
                raise PageError(f"{what}: the browser is silent")
            more = os.read(self._out, 1 << 16)
            if not more:
                raise PageError(f"{what}: the browser is gone")
            self._rest += more
        one, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(one)
        page = self._pages.get(message.get("sessionId"))
        if page and "method" in message:
            page.note(message["method"], message["params"])
        return message


class Page:
    def __init__(self, browser, session, target, context):
        self.browser, self.session, self.target, self.context = browser, session, target, context
        self.errors = []  # what the page complained of: exceptions, refusals by its policy
        self.requests = []  # addresses that were asked for

    def begin(self):
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(1280, 800)

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def note(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            entry = params["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(json.dumps([a.get("value", a.get("description")) for a in params["args"]]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.errors.append(f"a dialog: {params['message']}")

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'", 20)

    def reload(self):
        self.js("window.beforeReload = true")
        self.call("Page.reload")
        self.wait("!window.beforeReload && document.readyState === 'complete'", 20)

    def js(self, expression):
        """The value of an expression, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True,
                           userGesture=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return result["result"].get("value")

    def wait(self, condition, timeout_s=15):
        until = time.monotonic() + timeout_s
        while True:
            try:
                value = self.js(condition)
            except PageError as error:  # between two documents
                if "context" not in str(error) and "navigated" not in str(error):
                    raise
                value = None
            if value not in (None, False, 0, ""):  # an element is {}
                return value
            if time.monotonic() > until:
                raise PageError(f"never came true in {timeout_s} s: {condition}; the page says: "
                                f"{self.js('document.body?.innerText.slice(0, 2000)')!r}; errors: {self.errors}")
            time.sleep(0.02)

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def count(self, selector):
        return self.js(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector):
        """As a mouse does: whatever lies there gets it, which must be (in) the element."""
        quoted = json.dumps(selector)
        place = self.wait(f"""(() => {{
            const e = document.querySelector({quoted});
            if (!e) return null;
            e.scrollIntoView({{block: "nearest", behavior: "instant"}});
            const r = e.getBoundingClientRect();
            if (r.width === 0 || r.height === 0) return null;
            const x = r.x + r.width / 2, y = r.y + r.height / 2;
            const hit = document.elementFromPoint(x, y);
            return hit && (e.contains(hit) || hit.contains(e)) ? [x, y] : null;
        }})()""")
        self.mouse(*place)

    def mouse(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="none" if kind == "mouseMoved" else "left",
                      clickCount=0 if kind == "mouseMoved" else 1)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def key(self, key, modifiers=0):
        code, number, text = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()), key)
        plain = modifiers in (0, SHIFT) and text != ""
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown" if plain else "rawKeyDown", **common,
                  **({"text": text} if plain else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def size(self, width, height, scale=1, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def offline(self, is_offline):
        self.call("Network.emulateNetworkConditions", offline=is_offline, latency=0, downloadThroughput=-1,
                  uploadThroughput=-1)

    def scheme(self, name):
        """light or dark, as the system says it is"""
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": name}, {"name": "prefers-reduced-motion", "value": "reduce"}])

    def screenshot(self, path):
        with open(path, "wb") as out:
            out.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
