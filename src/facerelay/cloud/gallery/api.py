"""The gallery's routes: what pages ask, and who answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from facerelay import web
from facerelay.cloud import keys
from facerelay.cloud.bucket import content_type
from facerelay.cloud.contract import MissingError
from facerelay.cloud.gallery import asked, erasing, reading, thumbs
from facerelay.cloud.gallery.access.guard import Access
from facerelay.cloud.gallery.access.log import Action
from facerelay.cloud.gallery.access.sessions import while_open
from facerelay.cloud.gallery.access.visitor import visitor_of
from facerelay.cloud.gallery.answers import answer, error, guarded
from facerelay.cloud.gallery.asked import AskedError
from facerelay.cloud.gallery.known import told
from facerelay.cloud.gallery.live import MOST_LISTENERS
from facerelay.cloud.gallery.parts import Parts

_MAX_BODY: Final = 200_000
_LISTING_S: Final = 30.0
_THUMB_KEPT: Final = "private, max-age=600, immutable"
_UNKEPT: Final = "private, no-store"
"""What was sealed comes on no disk, not even on that of who looks at it."""

_STREAM: Final = web.ALWAYS | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def routes(parts: Parts, access: Access) -> list[Route]:
    """Return the routes over the gallery's parts."""
    api = _Api(parts, access)
    plain = {
        "/api/places": api.places, "/api/faces": api.faces, "/api/face": api.face, "/api/live": api.live,
        "/api/timeline": api.timeline, "/api/timeline/day": api.day, "/api/settings": api.settings,
        "/api/ready": api.ready, "/thumb": api.thumb, "/picture": api.picture,
    }  # fmt: skip
    erase = Route("/api/erase", guarded(api.erase), methods=["POST"])
    return [*(Route(path, guarded(work)) for path, work in plain.items()), erase]


class _Api:
    """One method a route."""

    def __init__(self, parts: Parts, access: Access) -> None:
        self._parts = parts
        self._access = access

    async def places(self, _: Request) -> Response:
        return answer(await self._parts.wall.places())

    async def faces(self, request: Request) -> Response:
        return answer(await self._parts.wall.page(asked.wall(request.query_params)))

    async def timeline(self, request: Request) -> Response:
        site, camera = (asked.name(request.query_params, which) for which in ("site", "camera"))
        return answer(await self._parts.timeline.days(site=site, camera=camera))

    async def day(self, request: Request) -> Response:
        site, camera = (asked.name(request.query_params, which) for which in ("site", "camera"))
        date = asked.date(request.query_params)
        return answer(await self._parts.timeline.hours(date, site=site, camera=camera))

    async def settings(self, request: Request) -> Response:
        visitor = visitor_of(request)
        may_erase = self._parts.eraser is not None and visitor.may_erase
        return answer({"erase": may_erase, "login": visitor.session is not None})

    async def ready(self, _: Request) -> Response:
        await self._parts.listings.names(keys.ROOT, age_s=0)
        return answer({"ok": True})

    async def face(self, request: Request) -> Response:
        key = await self._one(request)
        self._note(request, "page", [key])
        look = await self._parts.reader.picture(key)
        learnt = thumbs.learn(look, self._parts.limits)
        neighbours = await self._parts.wall.neighbours(key, learnt)
        exif = told(look.data, self._parts.limits)
        if look.face and not keys.is_own(key, look.face, opened=bool(look.seal and not look.closed)):
            exif["fault"] = keys.WRONG_KEY
        return answer({
            "face": reading.describe(key, {key: learnt}), "exif": exif,
            "bytes": look.size, "fault": learnt.fault, **neighbours,
            **({"seal": look.seal.told()} if look.seal else {}),
        })  # fmt: skip

    async def thumb(self, request: Request) -> Response:
        key = await self._one(request)
        if not await self._parts.listings.has(key, age_s=_LISTING_S):
            raise MissingError(key)
        data = await self._parts.reader.thumb(key)
        sealed = await self._parts.reader.is_sealed(key)
        return _picture(data, thumbs.MEDIA, _UNKEPT if sealed else _THUMB_KEPT)

    async def picture(self, request: Request) -> Response:
        key = await self._one(request)
        download = bool(request.query_params.get("download"))
        self._note(request, "download" if download else "picture", [key])
        look = await self._parts.reader.picture(key)
        ending = look.face.extension if look.face else key.rpartition(".")[2]
        kept = _UNKEPT if look.seal or self._access.has_login else "private, no-cache"
        response = _picture(look.data, content_type(ending), kept)
        if download:
            response.headers["Content-Disposition"] = f'attachment; filename="{_file_name(key, ending)}"'
        return response

    async def live(self, request: Request) -> Response:
        site, camera = (asked.name(request.query_params, which) for which in ("site", "camera"))
        if self._parts.live.full():
            return error(503, f"{MOST_LISTENERS} pages are open already: close another one")
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=_STREAM)
        events = self._parts.live.listen(site=site, camera=camera)
        until_out = while_open(events, visitor_of(request).session)
        return _Stream(until_out, media_type="text/event-stream", headers=_STREAM)

    async def erase(self, request: Request) -> Response:
        eraser = self._parts.eraser
        if eraser is None:
            return error(403, "erasing is switched off here: gallery.erase = false")
        visitor = visitor_of(request)
        ours = request.headers.get("x-facerelay") == "1" and web.is_same_origin(request)
        if not ours and not visitor.by_header:
            return error(403, "another page has asked for this")
        if not visitor.may_erase:
            return error(403, "you may see faces here, and not erase them: gallery.oidc_may_erase")
        chosen = _chosen(await _body(request))
        self._note(request, "erase", chosen)
        done = await eraser.erase(chosen)
        clear = {"Clear-Site-Data": '"cache"'}
        return answer({"deleted": done.deleted, "proof": done.proof}, **clear)

    def _note(self, request: Request, action: Action, chosen: list[str]) -> None:
        """Write down who sees what, before it is seen."""
        visitor = visitor_of(request)
        found = tuple(facts.id for key in chosen if (facts := keys.parse(key)))
        self._access.log.note(action, who=visitor.name, address=visitor.address, faces=found)

    async def _one(self, request: Request) -> str:
        """Return the key that is asked for, if its face was not erased."""
        key = asked.face(request.query_params)
        if not await self._parts.obedience.may_show(key):
            raise MissingError(key)
        return key


class _Stream(StreamingResponse):
    """An answer without an end."""

    body_iterator: AsyncIterator[bytes]


async def _body(request: Request) -> Any:  # noqa: ANN401 - whatever JSON can hold
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MAX_BODY:
            raise AskedError(f"more than {_MAX_BODY} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise AskedError('send {"keys": [...]} as JSON') from None


def _chosen(body: Any) -> list[str]:  # noqa: ANN401 - as above
    chosen = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(chosen, list) or not 1 <= len(chosen) <= erasing.MOST:
        raise AskedError(f'send {{"keys": [...]}} with 1 to {erasing.MOST} keys')
    if not all(isinstance(key, str) and keys.parse(key) for key in chosen):
        raise AskedError("keys: one of them is not the key of a face")
    return sorted(set(chosen))


def _picture(data: bytes, media: str, keep: str) -> Response:
    headers = web.ALWAYS | {"Content-Security-Policy": web.PICTURE_CSP, "Cache-Control": keep}
    return Response(data, media_type=media, headers=headers)


def _file_name(key: str, ending: str) -> str:
    facts = keys.parse(key)
    assert facts is not None  # noqa: S101 - looked at before
    return f"{facts.site}-{facts.camera}-{facts.time:%Y%m%dT%H%M%S}Z-{facts.id[:8]}.{ending}"
