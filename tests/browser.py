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


class Tab:
    """One page of it."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number, self._rest = 0, b""
        self._session: str | None = None
        made = self.call("Target.createTarget", url="about:blank")
        attached = self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the protocol's
        """Give a command, and return its answer."""
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            said["sessionId"] = self._session
        os.write(self._write, json.dumps(said).encode() + b"\0")
        until = time.monotonic() + _ANSWER_S
        while (answer := self._next(until)).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

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
        """Wait until an expression is true in the page."""
        end = time.monotonic() + timeout
        while not self.value(expression):
            assert time.monotonic() < end, f"never true in the page: {expression}"
            time.sleep(0.1)

    def picture(self, path: Path) -> None:
        """Save what is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

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
        yield Tab(write, read)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
        os.close(write)
        os.close(read)
