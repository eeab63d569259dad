# ruff: noqa: INP001 - a script, not a package
"""A page of the newest faces for everybody, without a public bucket: each picture is a link with an end.

`python page.py [--endpoint URL]` serves it; what it knows of the bucket it has from FACERELAY_CONFIG or the
environment. Who keeps an old page keeps nothing: its links end.
"""

from __future__ import annotations

import argparse
import html
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NEWEST = 50
LASTS = "10m"
EVERY_S = 15.0
HEAD = "<!doctype html><html lang=en><meta charset=utf-8><title>Faces</title><h1>The newest faces</h1>"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; img-src http: https:",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """The page, made anew at most every so many seconds, however many look at it."""

    def __init__(self, endpoint: str | None) -> None:
        self._more = ["--endpoint", endpoint] if endpoint else []
        self._lock = threading.Lock()
        self._body = b""
        self._made = -EVERY_S

    def body(self) -> bytes:
        """Return it as it is now."""
        with self._lock:
            if time.monotonic() - self._made >= EVERY_S:
                self._body = self._make()
                self._made = time.monotonic()
            return self._body

    def _make(self) -> bytes:
        faces = sorted(ask("ls", "faces/", "--json"), key=lambda face: face["modified"], reverse=True)
        keys = [face["key"] for face in faces[:NEWEST]]
        links = ask("share", *keys, "--for", LASTS, "--json", *self._more) if keys else []
        return "".join([HEAD, *map(figure, links)]).encode()


def ask(*words: str) -> list[dict[str, str]]:
    """Run one of facerelay's commands, and return what it says."""
    command = [sys.executable, "-m", "facerelay", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - no word of it is a visitor's
    return [json.loads(line) for line in done.stdout.splitlines()]


def figure(link: dict[str, str]) -> str:
    """Return one picture."""
    return f'<img src="{html.escape(link["url"])}" alt="{html.escape(link["key"])}" loading=lazy>'


def handler(page: Page) -> type[BaseHTTPRequestHandler]:
    """Return what answers a request: the page, at `/` alone."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path != "/":
                self.send_error(404)
                return
            try:
                body = page.body()
            except (subprocess.CalledProcessError, ValueError):
                self.send_error(503, "The bucket does not answer")
                return
            self.send_response(200)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--endpoint", help="the bucket as visitors reach it")
    options = parser.parse_args()
    with ThreadingHTTPServer((options.host, options.port), handler(Page(options.endpoint))) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
