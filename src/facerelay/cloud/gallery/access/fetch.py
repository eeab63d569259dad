"""JSON from an identity provider: over TLS, of bounded size, in bounded time, without redirects."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, Final

from facerelay.sections.base import address, is_open

_MAX_BYTES: Final = 256_000
_ANSWER_S: Final = 10.0
_CHUNK: Final = 16_384


class FetchError(Exception):
    """There was no answer that can be used; the message is for the log."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: what an issuer names is where it is."""


_opener: Final = urllib.request.build_opener(_NoRedirect())


async def fetch(
    url: str, *, form: bytes | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the JSON object at an address, or what it answers to a form.

    Raises:
        FetchError: http beyond this machine, no answer in 10 s, an error, more than 256 kB, no object.
    """
    if address(url, "http", "https") is None or is_open(url):
        raise FetchError(f"{url[:200]!r} is no https:// address")
    try:
        async with asyncio.timeout(2 * _ANSWER_S):
            return await asyncio.to_thread(_fetch, url, form, headers or {})
    except TimeoutError:
        raise FetchError(f"{_host(url)} does not answer in time") from None


def _fetch(url: str, form: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(url, form, {"Accept": "application/json", **headers})  # noqa: S310 - looked at above
    until = time.monotonic() + _ANSWER_S
    data = b""
    try:
        with _opener.open(request, timeout=_ANSWER_S) as answer:
            while chunk := answer.read1(_CHUNK):
                data += chunk
                if len(data) > _MAX_BYTES or time.monotonic() > until:
                    raise FetchError(f"{_host(url)} answers too much, or too slowly")
        found = json.loads(data)
    except urllib.error.HTTPError as error:
        with error:
            raise FetchError(f"{_host(url)} answers {error.code}") from error
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise FetchError(f"{_host(url)}: {error or type(error).__name__}") from error
    if not isinstance(found, dict):
        raise FetchError(f"{_host(url)} answers something else than a JSON object")
    return found


def _host(url: str) -> str:
    parts = address(url, "http", "https")
    return parts.netloc if parts else "it"
