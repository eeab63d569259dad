"""Answers of the gallery: JSON, with what the bucket was asked for it, and errors in words for people."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from facerelay import web
from facerelay.cloud.contract import BucketError, MissingError
from facerelay.cloud.gallery.access.log import AccessLogError
from facerelay.cloud.gallery.asked import AskedError
from facerelay.cloud.gallery.counted import counting
from facerelay.cloud.gallery.thumbs import DamagedError
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

REQUESTS: Final = "X-Bucket-Requests"
"""The header that says how many requests an answer took."""

_FRESH: Final = web.ALWAYS | {"Cache-Control": "no-store"}
_seldom = Seldom(log)


def guarded(work: Callable[[Request], Awaitable[Response]]) -> web.Endpoint:
    """Return an endpoint that answers no other page, counts its requests, and says in words what is wrong."""

    async def endpoint(request: Request) -> Response:
        if web.is_foreign(request):
            return error(403, "another page has asked for this")
        try:
            with counting() as tally:
                response = await _answered(work, request)
        except AccessLogError as fault:
            _seldom.say(logging.ERROR, "access-log", "no face is shown: %s", fault)
            return error(503, "the access log cannot be written: see the gallery's log")
        response.headers[REQUESTS] = str(tally.requests)
        return response

    return endpoint


async def _answered(work: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    try:
        return await work(request)
    except AskedError as fault:
        return error(400, str(fault))
    except MissingError:
        return error(404, "there is no such face (any more)")
    except DamagedError as fault:
        return error(422, f"this picture cannot be shown: {fault}")
    except BucketError as fault:
        if fault.fault == "too-large":
            return error(422, "this picture cannot be shown: too-large")
        _seldom.say(logging.WARNING, "bucket", "the gallery cannot read the bucket: %s", fault)
        return error(503, "the bucket cannot be read now: see the gallery's log")


def answer(data: dict[str, Any], **headers: str) -> Response:
    """Return an answer that nobody keeps."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(data, headers=_FRESH | more)


def error(status: int, words: str) -> Response:
    """Return an error."""
    return JSONResponse({"error": words}, status, _FRESH)
