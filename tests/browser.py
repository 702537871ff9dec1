"""Headless Chromium, driven over a pipe by its DevTools protocol, as a person would with keys."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WAIT_S = 60  # for what a page is about to show
_CODES = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32, "ArrowDown": 40, "ArrowUp": 38}


def program() -> str:
    """Of this machine, or ``CHROMIUM``; the test is skipped if there is none."""
    for name in filter(None, [os.environ.get("CHROMIUM"), *PROGRAMS]):
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser: neither CHROMIUM names one, nor is there {', '.join(PROGRAMS)}")


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        return self._browser.send(method, parameters, self._session)

    def value(self, expression: str) -> Any:
        """What an expression of the page's script is."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        return self.value(f"(document.querySelector({json.dumps(selector)})||{{}}).textContent||''")

    def wait(self, expression: str) -> Any:
        """Until an expression is true: what it is then."""
        end = time.monotonic() + WAIT_S
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"never: {expression}\n{self.text('body')[:2000]}"
            time.sleep(0.05)
        return found

    def press(self, *keys: str) -> None:
        """Keys one after another; ``Shift+M`` with the shift key."""
        for key in keys:
            shift, name = key.startswith("Shift+"), key.removeprefix("Shift+")
            event = {
                "key": name,
                "modifiers": 8 if shift else 0,
                "windowsVirtualKeyCode": _CODES.get(name, ord(name[0].upper())),
            }
            typed = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
            down = {"type": "keyDown", "text": typed} if typed else {"type": "rawKeyDown"}
            self.send("Input.dispatchKeyEvent", **event, **down)
            self.send("Input.dispatchKeyEvent", **event, type="keyUp")

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def reload(self) -> None:
        self.value("window.stale = true")
        self.send("Page.reload")
        self.wait("!window.stale && document.readyState === 'complete'")

    def picture(self, path: Path) -> None:
        """A PNG of what is in sight."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    @property
    def complaints(self) -> list[str]:
        """What the browser has said against the page: errors of scripts, refused contents."""
        return self._browser.complaints


class Browser:
    def __init__(self, read: int, write: int) -> None:
        self._in, self._out = os.fdopen(read, "rb", 0), os.fdopen(write, "wb", 0)
        self._rest, self._sent = b"", 0
        self.complaints: list[str] = []

    def open(self, address: str, width: int = 1280, height: int = 900) -> Page:
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"])
        page.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        page.send("Page.navigate", url=address)
        page.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        return page

    def send(self, method: str, parameters: Any, session: str | None = None) -> Any:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._listen(answer)

    def _receive(self) -> Any:
        while b"\0" not in self._rest:
            data = self._in.read(1 << 16)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _listen(self, event: Any) -> None:
        told = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # It reads from descriptor 3 and writes to 4. Two steps, since ours may be 3 or 4.
        moved = f'exec 8<&{theirs_in} 9>&{theirs_out}; exec 3<&8 4>&9; exec "$0" "$@"'
        flags = ("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
                 "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", f"--user-data-dir={profile}")  # fmt: skip
        running = subprocess.Popen(
            ["bash", "-c", moved, program(), *flags, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        found = Browser(ours_in, ours_out)
        try:
            yield found
        finally:
            running.terminate()
            running.wait()
            found._in.close()
            found._out.close()
