"""A real browser without a window, spoken to over a pair of pipes (the DevTools protocol)."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import need

_ANSWER_S = 30.0
_KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip


class LeftError(AssertionError):
    """The page went to another while it was asked something."""


class _Pipe:
    """What goes to the browser and comes from it, for all of its pages."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number, self._rest = 0, b""
        self.faults: dict[str, list[str]] = {}

    def call(self, session: str | None, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            said["sessionId"] = session
        os.write(self._write, json.dumps(said).encode() + b"\0")
        until = time.monotonic() + _ANSWER_S
        while (answer := self._next(until)).get("id") != self._number:
            self._note(answer)
        if answer.get("error", {}).get("message") == "Inspected target navigated or closed":
            raise LeftError(method)
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what a page's scripts threw, and what its policy blocked."""
        params, faults = event.get("params", {}), self.faults.setdefault(event.get("sessionId", ""), [])
        if event.get("method") == "Runtime.exceptionThrown":
            faults.append(json.dumps(params["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"].get("source") == "security":
            faults.append(params["entry"]["text"])

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


class Tab:
    """One page of it."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        made = pipe.call(None, "Target.createTarget", {"url": "about:blank"})
        self._target = {"targetId": made["targetId"]}
        self._session = pipe.call(None, "Target.attachToTarget", {**self._target, "flatten": True})[
            "sessionId"
        ]
        self.call("Runtime.enable")
        self.call("Log.enable")

    @property
    def faults(self) -> list[str]:
        """What its scripts threw and nobody caught, and what its content policy blocked, so far."""
        self.value("0")  # what the browser has said until now comes before the answer
        return self._pipe.faults.get(self._session, [])

    def another(self) -> Tab:
        """Open one more page in the same browser."""
        return Tab(self._pipe)

    def front(self) -> None:
        """Bring it before the other pages: those behind it count as hidden."""
        self.call("Page.bringToFront")

    def call(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the protocol's
        """Give a command, and return its answer."""
        return self._pipe.call(self._session, method, params)

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the window's size in pixels, and whether the user likes it dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to a page; `until` waits for what is to be seen there."""
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page computes
        """Return what an expression comes to in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, timeout: float = 40) -> None:
        """Wait until an expression is true in the page; one that throws, as between two pages, is not yet."""
        end = time.monotonic() + timeout
        asked = f"(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        while not self._holds(asked):
            assert time.monotonic() < end, f"never true in the page: {expression}: {self._shown()}"
            time.sleep(0.1)

    def _shown(self) -> str:
        """What is there instead, for a test that fails."""
        try:
            return str(self.value("location.href + '\\n' + document.body?.innerText.slice(0, 500)"))
        except (LeftError, AssertionError) as error:
            return f"{error}"

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.value(expression))
        except LeftError:
            return False

    def picture(self, path: Path) -> None:
        """Save what is to be seen, as PNG or WebP."""
        form = {"format": "webp", "quality": 85} if path.suffix == ".webp" else {"format": "png"}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **form)["data"]))

    def press(self, key: str, *, ctrl: bool = False, shift: bool = False) -> None:
        """Press a key by its name (`Tab`, `Enter`, `Escape`, `ArrowLeft`, …), as a user would."""
        modifiers = (2 if ctrl else 0) | (8 if shift else 0)
        said = {"key": key, "code": key, "modifiers": modifiers, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **said, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **said)

    def point(self, selector: str, *, across: float = 0.5, drag_to: float | None = None) -> None:
        """Click on an element, at a share of its width; or drag from there to another share."""
        box = self.value(
            f"(() => {{ const {{ x, y, width, height }} = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return { x, y, width, height } })()"
        )
        y = box["y"] + box["height"] / 2

        def mouse(kind: str, share: float) -> None:
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box["x"] + box["width"] * share,
                y=y,
                button="left",
                buttons=1,
                clickCount=1,
            )

        mouse("mousePressed", across)
        end = across if drag_to is None else drag_to
        if drag_to is not None:
            for step in range(1, 6):
                mouse("mouseMoved", across + (drag_to - across) * step / 5)
        mouse("mouseReleased", end)


@contextmanager
def browsing(folder: Path) -> Iterator[Tab]:
    """Run Chromium for as long as the block runs; its profile and log lie in a folder."""
    program = need("chromium")
    read_there, write = os.pipe()
    read, write_there = os.pipe()
    # Chromium reads its commands from descriptor 3, and answers at 4.
    script = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'
    command = [
        "/bin/bash", "-c", script, program, "--headless=new", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
        f"--user-data-dir={folder / 'profile'}",
    ]  # fmt: skip
    with (folder / "browser.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(read_there, write_there)
        )
    os.close(read_there)
    os.close(write_there)
    try:
        yield Tab(_Pipe(write, read))
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
        os.close(write)
        os.close(read)
