"""What lies on one server: fetched over HTTP with limits, and nothing from anywhere else."""

from __future__ import annotations

import base64
import http.client
import re
import ssl
import time
from contextlib import closing
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from facerelay.edge.cameras.opening import CameraError, split_url

PLAYLIST_BYTES: Final = 4_000_000
SEGMENT_BYTES: Final = 64_000_000
TIMEOUT_S: Final = 10.0
"""A server that says nothing for so long has failed."""

WHOLE_S: Final = 60.0
"""What takes longer than this to come is given up, however steadily it drips."""

LONGEST_URL: Final = 4096
"""Characters of an address; a playlist keeps one for each of its entries."""

_PIECE: Final = 65_536
_MAX_REDIRECTS: Final = 3
_PORTS: Final = {"http": 80, "https": 443}
_MOVED: Final = {
    HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}  # fmt: skip
_HARMLESS: Final = re.compile(r"[!-~]+")


class Part(NamedTuple):
    """A part of a resource, in bytes."""

    begin: int
    length: int


class Origin:
    """The server of one URL: the same scheme, host and port, with the URL's own user and password.

    Args:
        source: the URL, http:// or https://.

    Raises:
        CameraError: it is none.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        parts = split_url(source)
        self._home = _place(parts)
        self._headers = {"User-Agent": "facerelay", "Accept": "*/*", "Connection": "close"}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"

    def get(self, url: str, *, most: int, part: Part | None = None) -> tuple[str, bytes]:
        """Return what lies at an address, and the address where it was found.

        Args:
            url: absolute; anything but this very server is refused unasked.
            most: bytes; a larger answer is given up.
            part: only these bytes of it.

        Raises:
            CameraError: it lies elsewhere, is too large, or cannot be had.
        """
        until = time.monotonic() + WHOLE_S
        for _ in range(_MAX_REDIRECTS + 1):
            found = self._ask(url, most, part, until)
            if isinstance(found, bytes):
                return url, found
            url = found
        raise CameraError(self._source, "it is redirected again and again")

    def _ask(self, url: str, most: int, part: Part | None, until: float) -> bytes | str:
        """Return an answer, or where it says to ask."""
        path = self._path(url)
        headers = dict(self._headers)
        if part is not None:
            headers["Range"] = f"bytes={part.begin}-{part.begin + part.length - 1}"
        try:
            with closing(self._connect()) as connection:
                connection.request("GET", path, headers=headers)
                with closing(connection.getresponse()) as answer:
                    if answer.status in _MOVED:
                        return urljoin(url, answer.headers.get("Location", ""))
                    return self._read(answer, most, part, until)
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise CameraError(self._source, f"its server: {ascii(str(said)[:120])[1:-1]}") from error

    def _read(self, answer: http.client.HTTPResponse, most: int, part: Part | None, until: float) -> bytes:
        expected = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        if answer.status != expected:
            raise CameraError(self._source, f"its server answers {answer.status} instead of {expected:d}")
        most = most if part is None else min(most, part.length)
        said = answer.length
        data = bytearray()
        while piece := answer.read1(_PIECE):
            data += piece
            if len(data) > most:
                raise CameraError(self._source, f"its server sends more than {most} bytes at once")
            if time.monotonic() > until:
                raise CameraError(self._source, f"its server takes more than {WHOLE_S:.0f} s for one answer")
        if said is not None and len(data) < said:
            raise CameraError(self._source, "the connection broke off")
        return bytes(data)

    def _path(self, url: str) -> str:
        """Return what to ask this server for.

        Raises:
            CameraError: the URL is of another server, or none.
        """
        if len(url) > LONGEST_URL:
            raise CameraError(self._source, f"it names an address of more than {LONGEST_URL} characters")
        try:
            parts = urlsplit(url)
            here = _place(parts) == self._home
        except ValueError:
            here = False
        if not here:
            raise CameraError(self._source, "it names what lies on another server, which is not opened")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _HARMLESS.fullmatch(path):
            raise CameraError(self._source, "it names an address that is none")
        return path

    def _connect(self) -> http.client.HTTPConnection:
        scheme, host, port = self._home
        if scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


def _place(parts: SplitResult) -> tuple[str, str, int]:
    """Return scheme, host and port; a ValueError for what has no such place."""
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        raise ValueError("neither http nor https")
    return scheme, parts.hostname.lower(), parts.port or _PORTS[scheme]
