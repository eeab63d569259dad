"""Real HTTP servers for tests, on free loopback ports: a handler of one's own, or the files of a folder."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def serve(handle: Handler) -> Iterator[str]:
    """Serve until the block ends; yields `http://someone:secret@127.0.0.1:<port>`."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                handle(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://someone:secret@127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: http.server.BaseHTTPRequestHandler, data: bytes, kind: str = "video/mp4") -> None:
    """Answer with some bytes."""
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def files(folder: Path, *, share: float = 1.0, asked: list[str] | None = None) -> Handler:
    """Serve a folder's files, whole or by range; with a `share` it breaks off after so much of one.

    What is asked for is put into `asked`.
    """

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.partition("?")[0].lstrip("/")
        if asked is not None:
            asked.append(name)
        if not (folder / name).is_file():
            request.send_error(404)
            return
        data = (folder / name).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        begin, end = 0, len(data)
        if wanted:
            begin, end = int(wanted[1]), min(end, int(wanted[2]) + 1 if wanted[2] else end)
        request.send_response(206 if wanted else 200)
        request.send_header("Accept-Ranges", "bytes")
        if wanted:
            request.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        request.send_header("Content-Length", str(end - begin))
        request.end_headers()
        request.wfile.write(data[begin : min(end, int(len(data) * share))])

    return handle
