"""Chromium without a window, for tests of pages, through the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = [
    "--headless=new",
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-pipe",
    "--window-size=1400,900",
]


class Page:
    """A page that is open.

    Attributes:
        messages: what it wrote to the console, and its exceptions and broken rules of its policy.
        requests: the addresses that it asked for, except its own.
    """

    def __init__(self, browser, session):
        self._browser = browser
        self._session = session
        self.messages = []
        self.requests = []

    def send(self, method, **params):
        return self._browser.send(method, params, self._session)

    def run(self, code):
        """Return the value of an expression, which may be a promise."""
        found = self.send(
            "Runtime.evaluate",
            expression=code,
            returnByValue=True,
            awaitPromise=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path, until="document.documentElement?.dataset.drawn"):
        self.send("Page.navigate", url=path.as_uri())
        self.wait(until)

    def wait(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, (condition, self.messages)
            time.sleep(0.02)

    def press(self, *keys):
        for key in keys:
            text = "\r" if key == "Enter" else key if len(key) == 1 else ""
            common = {"key": key, "code": key, "windowsVirtualKeyCode": _CODES.get(key, 0)}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path):
        found = self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def _see(self, method, params):
        if method == "Runtime.consoleAPICalled":
            self.messages.append(str(params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.messages.append(f"a dialog: {params['message']}")
            self._browser.post("Page.handleJavaScriptDialog", {"accept": True}, self._session)
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


_CODES = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
_CODES |= {"ArrowDown": 40, "Home": 36, "Tab": 9}


class Browser:
    def __init__(self, profile):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        high = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in (to_browser, from_browser)]

        def connect():  # Chromium reads commands from 3 and writes answers to 4
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [PATH, *_FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=connect,  # noqa: PLW1509 no threads
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for each in (to_browser, from_browser, *high):
            os.close(each)
        self._pages = {}
        self._number = 0
        self._buffer = b""

    def page(self, dark=False):
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": target, "flatten": True}
        session = self.send("Target.attachToTarget", attach)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for each in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{each}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        return page

    def post(self, method, params, session=None):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._number

    def send(self, method, params, session=None):
        number = self.post(method, params, session)
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return message["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], 60)
            assert ready, "Chromium does not answer"
            found = os.read(self._in, 1 << 20)
            assert found, "Chromium has ended"
            self._buffer += found
        first, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(first)
        page = self._pages.get(message.get("sessionId"))
        if page is not None and "method" in message:
            page._see(message["method"], message["params"])
        return message

    def close(self):
        self.post("Browser.close", {})
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


@contextlib.contextmanager
def browser():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        made = Browser(profile)
        try:
            yield made
        finally:
            made.close()
