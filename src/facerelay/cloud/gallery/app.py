"""The gallery role: the faces of a bucket on web pages, on loopback, or beyond it for who logs in."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import closing

from starlette.applications import Starlette

from facerelay import http_server, web
from facerelay.admission import MOST_EACH, Admission, network
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.gallery import api, health, nudges
from facerelay.cloud.gallery.access.guard import Access
from facerelay.cloud.gallery.access.log import AccessLogError
from facerelay.cloud.gallery.certificate import Certificate
from facerelay.cloud.gallery.measures import Measures
from facerelay.cloud.gallery.parts import Parts, assembled
from facerelay.cloud.proof_signing import signing
from facerelay.cloud.shards import catalogue_cache
from facerelay.cloud.unseal import unsealer
from facerelay.config import Config
from facerelay.metrics import Meters
from facerelay.mqtt import Connect
from facerelay.sections import Gallery
from facerelay.settings import ConfigError

log = logging.getLogger(__name__)

_PACKAGE = "facerelay.cloud.gallery"


def make_app(parts: Parts, access: Access, *, names: tuple[str, ...] = ()) -> Starlette:
    """Return the pages and their routes; they answer to loopback's names, and to these."""
    routes = [*api.routes(parts, access), *health.routes(parts.bucket), *access.routes()]
    return web.make_app(_PACKAGE, web.page_files(_PACKAGE), routes, names=names, guards=[access.guard])


async def serve_gallery(
    config: Config, connect: Connect | None = None, *, meters: Meters | None = None, probe: str = ""
) -> None:
    """Serve the pages until cancelled.

    Args:
        config: this machine's settings.
        connect: makes a session with this side's broker, for `gallery.listen`.
        meters: are asked for figures.
        probe: a secret by which this process's own health check asks `/api/ready`; empty: none.

    Raises:
        BucketError: the bucket's settings cannot be right.
        ConfigError: token, certificate or access log are not there, or no good.
        OSError: the port is taken.
        IdentityError: seal.identity_file cannot be used.
    """
    settings = config.gallery
    bucket = open_bucket(config.bucket)
    await asyncio.to_thread(catalogue_cache.load)
    certificate = _certificate(settings)
    access = _access(settings, probe)
    with closing(access), _listening(config) as listening:
        async with assembled(
            bucket, config.gallery, config.limits.face, unsealer=unsealer(config), sign=signing(config.trust)
        ) as parts:
            app = make_app(parts, access, names=settings.names)
            if meters is not None:
                measures = Measures(parts, logins=access.logins)
                app.add_middleware(measures.counted)
                meters.add(measures.read)
            server = http_server.make_server(
                app, tls=certificate.context if certificate else None,
                admission=_admission(settings), proxies=settings.proxy,
            )  # fmt: skip
            log.info("the gallery is at %s", _url(settings, listening.getsockname()[1]))
            await _serve(server, parts, listening, connect if settings.listen else None, certificate)


async def _serve(
    server: http_server.Server,
    parts: Parts,
    listening: socket.socket,
    connect: Connect | None,
    certificate: Certificate | None,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        behind = [tasks.create_task(parts.obedience.run()), tasks.create_task(parts.faces.warm())]
        if certificate is not None:
            behind.append(tasks.create_task(certificate.follow()))
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


def _certificate(settings: Gallery) -> Certificate | None:
    if settings.cert is None or settings.key is None:
        return None
    try:
        return Certificate(settings.cert, settings.key)
    except OSError as error:
        raise ConfigError(str(error)) from error


def _access(settings: Gallery, probe: str) -> Access:
    try:
        return Access(settings, probe=probe)
    except AccessLogError as error:
        raise ConfigError(str(error)) from error


def _admission(settings: Gallery) -> Admission:
    """Return who may be connected: without TLS of its own, the proxy before it and this machine alone."""
    many = None if settings.proxy or settings.allow_insecure else MOST_EACH
    return Admission(
        most_each=many, welcome=_is_proxy(settings) if settings.proxy and not settings.cert else None
    )


def _is_proxy(settings: Gallery) -> Callable[[str], bool]:
    networks = [ipaddress.ip_network(each) for each in settings.proxy]

    def proxy(address: str) -> bool:
        whose = ipaddress.ip_address(address.partition("%")[0])
        whose = getattr(whose, "ipv4_mapped", None) or whose
        return network(address) is None or any(whose in each for each in networks)

    return proxy


def _url(settings: Gallery, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.cert else 'http'}://{host}:{port}/"


def _listening(config: Config) -> socket.socket:
    host = "127.0.0.1" if config.gallery.host == "localhost" else config.gallery.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, config.gallery.port), family=family)
    except OSError as error:
        raise OSError(f"the gallery cannot listen: {error.strerror}; set gallery.port") from error
