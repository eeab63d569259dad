"""The preview's page: a stream of pictures for each camera, and events of what became of the faces."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from facerelay import web
from facerelay.edge.preview.panel import STEP_S, Panel
from facerelay.edge.preview.reel import Reel

MOST_VIEWERS: Final = 8
"""So many streams of pictures are given at once, and so many of events."""

_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_BOUNDARY: Final = b"a-picture-of-the-preview"
_AGAIN_S: Final = 0.5
"""A picture that stays is sent again after so long: Chromium shows one when the next one comes."""

_EVENTS_EVERY_S: Final = 0.25
_STATE_EVERY_S: Final = 5.0
"""The cameras' state is told again after so long, though it is the same: so a lost connection is noticed."""

_FRESH: Final = web.ALWAYS | {"Cache-Control": "no-store"}


@dataclass(frozen=True, kw_only=True)
class Show:
    """What the page shows.

    Attributes:
        run: another one at each start, so that a page knows when to begin anew.
        panels: gives them, by the camera's name.
        faces: that were sent.
        visits: that ended without a face.
        ended: tells whether to end the streams.
    """

    run: str
    panels: Callable[[], Mapping[str, Panel]]
    faces: Reel
    visits: Reel
    ended: Callable[[], bool]


def make_app(show: Show) -> Starlette:
    """Return the page; it answers to loopback's names only, and gives no streams to other pages."""
    streams, listeners = _Seats(), _Seats()

    async def stream(request: Request) -> Response:
        panel = show.panels().get(request.path_params["camera"])
        if panel is None:
            return _refusal(404, "there is no such camera")
        media = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        return _endless(request, streams, lambda: _pictures(panel, show.ended), media)

    async def events(request: Request) -> Response:
        return _endless(request, listeners, lambda: _events(show), "text/event-stream")

    async def still(request: Request) -> Response:
        panel = show.panels().get(request.path_params["camera"])
        return _jpeg(None if panel is None or _foreign(request) else panel.picture().jpeg)

    def reel(reel: Reel) -> web.Endpoint:
        async def picture(request: Request) -> Response:
            entry = reel.get(request.path_params["number"])
            return _jpeg(None if entry is None else entry.jpeg())

        return picture

    routes = [
        Route("/camera/{camera}.mjpeg", stream),
        Route("/camera/{camera}.jpg", still),
        Route("/face/{number:int}.jpg", reel(show.faces)),
        Route("/visit/{number:int}.jpg", reel(show.visits)),
        Route("/events", events),
    ]
    return web.make_app("facerelay.edge.preview", _FILES, routes)


class _Seats:
    """Counts who is being served, up to a limit."""

    def __init__(self) -> None:
        self.taken = 0

    def full(self) -> bool:
        return self.taken >= MOST_VIEWERS


class _Stream(StreamingResponse):
    """An answer without an end, which takes a seat until its reader leaves."""

    def __init__(self, parts: AsyncIterator[bytes], media: str, seats: _Seats) -> None:
        super().__init__(parts, media_type=media, headers=_FRESH)
        self._seats = seats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._seats.taken += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._seats.taken -= 1


def _endless(
    request: Request, seats: _Seats, parts: Callable[[], AsyncIterator[bytes]], media: str
) -> Response:
    if _foreign(request):
        return _refusal(403, "another page has asked for this")
    if request.method == "HEAD":
        return Response(media_type=media, headers=_FRESH)
    if seats.full():
        return _refusal(503, f"{MOST_VIEWERS} viewers are being served: close another window")
    return _Stream(parts(), media, seats)


def _foreign(request: Request) -> bool:
    """Whether another page asks, as browsers say: it could not read the answer, but take a seat."""
    return request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}


def _refusal(status: int, words: str) -> Response:
    return PlainTextResponse(words, status, web.ALWAYS)


def _jpeg(data: bytes | None) -> Response:
    if data is None:
        return _refusal(404, "there is no such picture (any more)")
    headers = _FRESH | {"Content-Security-Policy": web.PICTURE_CSP}
    return Response(data, media_type="image/jpeg", headers=headers)


async def _pictures(panel: Panel, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield a camera's pictures as parts of a multipart answer, each when the reader has taken the last."""
    yield b"--" + _BOUNDARY + b"\r\n"
    number, sent = 0, 0.0
    while not ended():
        picture, now = panel.picture(), time.monotonic()
        if picture.number != number or now - sent >= _AGAIN_S:
            number, sent = picture.number, now
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n".encode()
            yield head + picture.jpeg + b"\r\n--" + _BOUNDARY + b"\r\n"
        await asyncio.sleep(STEP_S)


async def _events(show: Show) -> AsyncIterator[bytes]:
    """Yield what has changed, as server-sent events; a slow reader misses what is kept no more."""
    yield _event("hello", {"run": show.run})
    last = {"faces": 0, "visits": 0}
    told: object = None
    told_at = 0.0
    while not show.ended():
        state = [panel.state() for panel in show.panels().values()]
        if state != told or time.monotonic() - told_at > _STATE_EVERY_S:
            told, told_at = state, time.monotonic()
            yield _event("cameras", state)
        for name, reel in (("faces", show.faces), ("visits", show.visits)):
            new = reel.after(last[name])
            if new:
                last[name] = new[-1].number
                yield _event(name, [each.known for each in new])
        await asyncio.sleep(_EVENTS_EVERY_S)
    yield _event("end", {})


def _event(name: str, data: Any) -> bytes:  # noqa: ANN401 - whatever JSON can hold
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
