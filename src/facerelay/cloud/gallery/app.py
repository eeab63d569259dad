"""The gallery role: the faces of a bucket on web pages, on loopback."""

from __future__ import annotations

import asyncio
import logging
import socket

from starlette.applications import Starlette

from facerelay import web
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.gallery import api, health, nudges
from facerelay.cloud.gallery.measures import Measures
from facerelay.cloud.gallery.parts import Parts, assembled
from facerelay.config import Config
from facerelay.metrics import Meters
from facerelay.mqtt import Connect

log = logging.getLogger(__name__)

_PACKAGE = "facerelay.cloud.gallery"


def make_app(parts: Parts) -> Starlette:
    """Return the pages and their routes. Requests that name another host than loopback are refused."""
    routes = [*api.routes(parts), *health.routes(parts.bucket)]
    return web.make_app(_PACKAGE, web.page_files(_PACKAGE), routes)


async def serve_gallery(
    config: Config, connect: Connect | None = None, *, meters: Meters | None = None
) -> None:
    """Serve the pages until cancelled.

    Args:
        config: this machine's settings.
        connect: makes a session with this side's broker, for `gallery.listen`.
        meters: are asked for figures.

    Raises:
        BucketError: the bucket's settings cannot be right.
        OSError: the port is taken.
    """
    bucket = open_bucket(config.bucket)
    with _listening(config) as listening:
        async with assembled(bucket, config.gallery, config.limits.face) as parts:
            app = make_app(parts)
            if meters is not None:
                measures = Measures(parts)
                app.add_middleware(measures.counted)
                meters.add(measures.read)
            log.info("the gallery is at http://%s:%d/", config.gallery.host, listening.getsockname()[1])
            await _serve(app, parts, listening, connect if config.gallery.listen else None)


async def _serve(app: Starlette, parts: Parts, listening: socket.socket, connect: Connect | None) -> None:
    server = web.make_server(app)
    async with asyncio.TaskGroup() as tasks:
        behind = [tasks.create_task(parts.obedience.run())]
        if connect is not None:
            behind.append(tasks.create_task(nudges.listen(parts.live, connect)))
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            await asyncio.shield(serving)
        finally:
            for task in behind:
                task.cancel()
            await parts.live.close()
            server.should_exit = True
            await asyncio.wait([serving])


def _listening(config: Config) -> socket.socket:
    host = "127.0.0.1" if config.gallery.host == "localhost" else config.gallery.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, config.gallery.port), family=family)
    except OSError as error:
        raise OSError(f"the gallery cannot listen: {error.strerror}; set gallery.port") from error
