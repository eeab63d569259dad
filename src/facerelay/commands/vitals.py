"""What a role must have to do its work, looked at beside it where a health check wants to know."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

from facerelay import __version__, alive, topics
from facerelay.commands.running import connector
from facerelay.commands.traces import open_tracer
from facerelay.config import Config
from facerelay.link.session import Session
from facerelay.metrics import Meters, Reading, catalogue, process, text
from facerelay.metrics.serve import Answer, Page, serving

log = logging.getLogger(__name__)

T = TypeVar("T")
Look = Callable[[], Coroutine[Any, Any, str]]
"""Returns what is wrong; nothing where all is well."""

_FIRST_S: Final = 1.0
_LOOK_S: Final = 20.0
_ANSWER_S: Final = 5.0
_READ_EVERY_S: Final = 20.0
_WRITE_EVERY_S: Final = 3600.0
_PAGE_EVERY_S: Final = 60.0
_MISSING: Final = "probe/none.txt"


class Instruments:
    """What watches a role from outside, as the settings say.

    Args:
        config: this machine's settings.
        role: the role's name.

    Attributes:
        meters: are asked for the role's figures; None where metrics are not enabled.
        trace: is told of faces.

    Raises:
        ModuleNotFoundError: traces are wanted, and the `trace` extra is not installed.
    """

    def __init__(self, config: Config, role: str) -> None:
        self._settings = config.metrics
        self._role = role
        self.meters = Meters() if config.metrics.enabled else None
        self.trace = open_tracer(config.trace, role=role, site=config.site if role == "capture" else None)

    @asynccontextmanager
    async def serving(self, health: Health) -> AsyncIterator[None]:
        """Tell figures and health on the role's port, if that is asked for; traces end with the block."""
        try:
            if self.meters is None:
                yield
                return
            self.meters.add(partial(self._own, self.meters, health))
            self.meters.add(process.read)
            pages: dict[str, Page] = {
                "/metrics": partial(_metrics, self.meters), "/healthz": _healthz, "/readyz": health.page,
            }  # fmt: skip
            settings = self._settings
            async with serving(settings.host, settings.port_of(self._role), pages, called="metrics.port"):
                yield
        finally:
            await self.trace.close()

    async def _own(self, meters: Meters, health: Health) -> list[Reading]:
        return [
            Reading(catalogue.BUILD, (__version__, self._role), 1),
            Reading(catalogue.READY, (), int(not health.wrong)),
            Reading(catalogue.FAILURES, (), meters.failures),
        ]


class Health:
    """What the last look at a role has found.

    Attributes:
        wrong: in a line; nothing where all is well.
    """

    def __init__(self) -> None:
        self.wrong = alive.SILENT

    async def page(self, _: Mapping[str, str]) -> Answer:
        """Answer whether the role can do its work."""
        status = HTTPStatus.SERVICE_UNAVAILABLE if self.wrong else HTTPStatus.OK
        return Answer(status, f"{self.wrong or 'ready'}\n".encode())


async def _healthz(_: Mapping[str, str]) -> Answer:
    """Answer at all, which is what is asked: the role's event loop turns."""
    return Answer(HTTPStatus.OK, b"alive\n")


async def _metrics(meters: Meters, headers: Mapping[str, str]) -> Answer:
    form = text.media(headers.get("accept", ""))
    body = await asyncio.to_thread(text.expose, await meters.read(), form)
    return Answer(HTTPStatus.OK, body, form)


async def beside(role: Awaitable[T], *looks: Look, instruments: Instruments | None = None) -> T:
    """Run a role, and say meanwhile how it does.

    Args:
        role: runs until it ends.
        looks: at what the role needs for its work.
        instruments: tell it on a port, too, and not alone in the file that the environment names.
    """
    path = alive.file()
    health = Health()

    async def beat() -> None:
        await asyncio.sleep(_FIRST_S)
        while True:
            health.wrong = await wrong(looks)
            try:
                if path is not None:
                    alive.say(path, health.wrong)
            except OSError as error:
                log.warning("%s: how this role does cannot be told: %s", path, error)
            await asyncio.sleep(alive.EVERY_S)

    async with instruments.serving(health) if instruments else nullcontext():
        told = path is not None or (instruments is not None and instruments.meters is not None)
        beating = asyncio.ensure_future(beat()) if told else None
        try:
            return await role
        finally:
            if beating is not None:
                beating.cancel()


async def wrong(looks: tuple[Look, ...]) -> str:
    """Return what is wrong in a line; nothing where all is well."""

    async def one(look: Look) -> str:
        try:
            return await asyncio.wait_for(look(), _LOOK_S)
        except TimeoutError:
            return f"no answer in {_LOOK_S:.0f} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return f"{error}" or type(error).__name__

    return "; ".join(filter(None, await asyncio.gather(*map(one, looks))))


class Sessions:
    """Makes a role's sessions with its broker, and says whether they are connected."""

    def __init__(self, config: Config) -> None:
        self._connect = connector(config)
        self._url = config.broker.url
        self._made: list[Session] = []

    def __call__(self, **options: Any) -> Session:  # noqa: ANN401 - as `Connect` has them
        """Make a session."""
        session = self._connect(**options)
        self._made.append(session)
        return session

    async def look(self) -> str:
        """Say if one is not connected."""
        up = self._made and all(session.connected for session in self._made if not session.closed)
        return "" if up else f"not connected to {self._url}"


async def forwarding(config: Config, role: Awaitable[T], instruments: Instruments) -> T:
    """Run the forwarder beside a look at what it tells the edge: whether it carries faces and receipts."""
    if alive.file() is None and instruments.meters is None:
        return await beside(role, instruments=instruments)
    session = connector(config)(
        client_id=f"{config.site}-forward-health",
        subscribe=((topics.link(config.site), 1),),
        clean=True,
        window=1,
    )
    state = topics.DOWN

    async def listen() -> None:
        nonlocal state
        async for message in session:
            message.ack()
            state = message.payload

    async def look() -> str:
        if not session.connected:
            return f"not connected to {config.broker.url}"
        return "" if state == topics.UP else "not connected to both brokers: see its log"

    async with session:
        listening = asyncio.ensure_future(listen())
        try:
            return await beside(role, look, instruments=instruments)
        finally:
            listening.cancel()


def broker(config: Config) -> Look:
    """Return what says whether the embedded broker answers."""
    from facerelay.link.hail import greet  # noqa: PLC0415 - the images of other roles have no broker

    async def look() -> str:
        try:
            await asyncio.wait_for(greet(config.broker.listening), _ANSWER_S)
        except TimeoutError:
            return f"no answer on {config.broker.url}"
        return ""

    return look


def bucket(config: Config) -> Look:
    """Return what says whether a bucket can be read (now), and written (some time in the last hour).

    Reading asks for an object that is not there, which costs a tenth of what a listing does.
    """
    from facerelay.cloud.bucket import Bucket, BucketError, MissingError, open_bucket  # noqa: PLC0415 - as above

    opened: Bucket | None = None
    written: float | None = None

    async def look() -> str:
        nonlocal opened, written
        try:
            opened = opened or open_bucket(config.bucket)
            if written is None or time.monotonic() - written > _WRITE_EVERY_S:
                await opened.probe()
                written = time.monotonic()
            with suppress(MissingError):
                await opened.get(_MISSING, max_bytes=100)
        except BucketError as error:
            written = None
            return f"the bucket: {error}"
        return ""

    return seldom(look, every=_READ_EVERY_S)


def page(config: Config, *, probe: str = "") -> Look:
    """Return what says whether the gallery shows what the bucket holds; `probe` opens it for this alone."""
    import ssl  # noqa: PLC0415 - no other role asks a page
    import urllib.error  # noqa: PLC0415 - as above
    import urllib.request  # noqa: PLC0415 - as above

    settings = config.gallery
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to be asked at loopback
    host = anywhere.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    url = f"{'https' if settings.cert else 'http'}://{host}:{settings.port}/api/ready"
    headers = {"Authorization": f"Bearer {probe}"} if probe and settings.has_login else {}

    def ask() -> str:
        try:
            tls = None
            if settings.cert:  # its names are for others; that it is the one of the file is what counts
                tls = ssl.create_default_context(cafile=settings.cert)
                tls.check_hostname = False
                tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own
            with urllib.request.urlopen(request, timeout=_ANSWER_S, context=tls) as answer:  # noqa: S310 - as above
                answer.read()
        except urllib.error.HTTPError as error:
            return f"the page answers {error.code}: see its log"
        except OSError as error:
            return f"the page does not answer: {error}"
        return ""

    return seldom(lambda: asyncio.to_thread(ask), every=_PAGE_EVERY_S)


def seldom(look: Look, *, every: float) -> Look:
    """Return a look that goes by the last one for so many seconds, if that was good."""
    good: float | None = None

    async def again() -> str:
        nonlocal good
        if good is not None and time.monotonic() - good < every:
            return ""
        found = await look()
        good = None if found else time.monotonic()
        return found

    return again
