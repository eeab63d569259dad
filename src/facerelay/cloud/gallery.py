"""The gallery role: one plain page of the latest faces, on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
from dataclasses import asdict
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from facerelay import web
from facerelay.cloud import keys
from facerelay.cloud.bucket import Bucket, BucketError, MissingError, content_type, open_bucket
from facerelay.cloud.newest import Newest
from facerelay.config import Config

log = logging.getLogger(__name__)

_MAX_FACE: Final = 60_000_000
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def make_app(bucket: Bucket) -> Starlette:
    """Return the page over a bucket. Requests that name another host than loopback are refused."""
    newest = Newest(bucket)

    async def latest(request: Request) -> Response:
        return await _latest(newest, request)

    async def face(request: Request) -> Response:
        return await _face(bucket, request.path_params["key"])

    routes = [Route("/latest", latest), Route("/face/{key:path}", face)]
    return web.make_app("facerelay.cloud", _FILES, routes)


async def serve_gallery(config: Config) -> None:
    """Serve the page until cancelled.

    Raises:
        BucketError: the bucket's settings cannot be right.
        OSError: the port is taken.
    """
    server = web.make_server(make_app(open_bucket(config.bucket)))
    host = "127.0.0.1" if config.gallery.host == "localhost" else config.gallery.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, config.gallery.port), family=family) as listening:
        log.info("the gallery is at http://%s:%d/", config.gallery.host, listening.getsockname()[1])
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            await asyncio.wait([serving])


async def _latest(newest: Newest, request: Request) -> Response:
    headers = web.ALWAYS | {"Cache-Control": "no-store"}
    try:
        faces = await newest.look()
    except BucketError as error:
        log.warning("the gallery cannot read the bucket: %s", error)
        return JSONResponse({"error": "The bucket cannot be read: see the log."}, 503, headers)
    body = json.dumps({"faces": [asdict(face) for face in faces]}).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers["ETag"] = tag
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


async def _face(bucket: Bucket, key: str) -> Response:
    if keys.parse(key) is None:
        return JSONResponse({"error": "not the key of a face"}, 404, web.ALWAYS)
    try:
        data = await bucket.get(key, max_bytes=_MAX_FACE)
    except MissingError:
        return JSONResponse({"error": "there is no such face (any more)"}, 404, web.ALWAYS)
    except BucketError as error:
        log.warning("the gallery cannot read a face: %s", error)
        return JSONResponse({"error": "the bucket cannot be read: see the log"}, 503, web.ALWAYS)
    headers = web.ALWAYS | {
        "Content-Security-Policy": web.PICTURE_CSP,
        "Cache-Control": "private, max-age=300",
    }
    return Response(data, media_type=content_type(key.rpartition(".")[2]), headers=headers)
