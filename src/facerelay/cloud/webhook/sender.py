"""A web address that is told of each new face: signed, tried again until it is taken, at least once.

As "Standard Webhooks" 1.0.0 has it: headers, signature, success and failure. A face is in the spool before
its receipt goes out, so it is told even if the store dies at that moment. Nothing that comes from a face or
from an answer decides where a request goes: redirects are not followed, and answers are thrown away.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import random
import sqlite3
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from facerelay import __version__
from facerelay.cloud.webhook.post import Post, Reply
from facerelay.cloud.webhook.spool import Spool, Waiting
from facerelay.face import Frozen
from facerelay.sections import Webhook as Settings
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_FIRST_S: Final = 5.0
_LONGEST_S: Final = 14_400.0
_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 300.0
_GONE_PAUSE_S: Final = 3600.0
_PAGE: Final = 64
_HOUR_S: Final = 3600.0
_SAY_EVERY_S: Final = 60.0
_DISK_PAUSE_S: Final = 10.0
_GONE: Final = 410
_ITS_OWN_FAULT: Final = frozenset(range(400, 500)) - {401, 403, 404, 407, 408, 410, 421, 425, 429}
"""Answers that speak of one message; any other failure is the address's, and holds up all."""

_JITTER: Final = random.Random()  # noqa: S311 - spreads retries, keeps no secret


class WebhookError(Exception):
    """The webhook's settings cannot be right."""


class Webhook:
    """Tells, and keeps on telling.

    Args:
        settings: where, and with which key.

    Raises:
        WebhookError: the key or the certificate cannot be read.
        SpoolError: the spool cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.url is not None  # noqa: S101 - by the caller's choice
        try:
            self._key = settings.key()
            self._post = Post(settings)
        except (ValueError, OSError) as error:
            raise WebhookError(f"webhook: {error}: see webhook.secret, secret_file and ca") from error
        self._settings = settings
        self._spool = Spool(settings.spool, most=settings.most_waiting)
        self._page: deque[Waiting] = deque()
        self._busy: set[str] = set()
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._pause_s = self._resume = 0.0
        self._unspooled = 0
        self._seldom = Seldom(log, every_s=_SAY_EVERY_S)

    @property
    def counts(self) -> dict[str, int]:
        """How many wait, and what became of the others since the spool was made.

        `delivered`; `given-up` after too many hours; `overflow`: gave way to newer ones; `unspooled`: the
        disk did not take it.
        """
        named = {name: self._spool.counts.get(name, 0) for name in ("delivered", "given-up", "overflow")}
        return {"waiting": self._spool.waiting, **named, "unspooled": self._unspooled}

    async def add(self, frozen: Frozen) -> None:
        """Take a face that is in the bucket; it will be told once this returns.

        Where the disk does not take it that is counted: no face waits at the edge for a webhook.
        """
        try:
            new = await self._spool.add(frozen.face.id, message(frozen))
        except sqlite3.Error as error:
            self._unspooled += 1
            form = "webhook: the spool does not take a face: %s: see that its disk has room"
            self._seldom.say(logging.ERROR, "spool", form, error)
        else:
            if new:
                self._news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._settings.at_once):
                tasks.create_task(self._work())
            tasks.create_task(self._keep_house())

    async def close(self) -> None:
        """Drop all connections; what waits is told after the next start."""
        await self._post.close()
        await self._spool.close()

    async def _work(self) -> None:
        while True:
            try:
                waiting = await self._next()
                try:
                    answer = await self._try(waiting)
                    await self._settle(waiting, answer)
                finally:
                    self._busy.discard(waiting.id)
            except sqlite3.Error as error:
                form = "webhook: the spool cannot be used now: %s: see that its disk has room"
                self._seldom.say(logging.ERROR, "spool", form, error)
                await asyncio.sleep(_DISK_PAUSE_S)
            except Exception:
                log.exception("a fault of ours; the webhook goes on")
                await asyncio.sleep(_DISK_PAUSE_S)

    async def _next(self) -> Waiting:
        """Wait for a message whose time has come, and for the address to be left in peace for long enough."""
        async with self._turn:
            while True:
                self._news.clear()
                rest = self._resume - time.monotonic()
                if rest > 0:
                    await asyncio.sleep(rest)
                    continue
                while self._page:
                    waiting = self._page.popleft()
                    if waiting.id not in self._busy:
                        self._busy.add(waiting.id)
                        return waiting
                found = await self._spool.due(_PAGE + len(self._busy), longest_s=_LONGEST_S)
                self._page.extend(each for each in found if each.id not in self._busy)
                if not self._page:
                    await self._rest(await self._spool.next_due())

    async def _rest(self, due: float | None) -> None:
        """Wait for news, or until something is due; what is on its way at this moment may come due soon."""
        seconds = None if due is None else max(0.05, min(due - time.time(), _LONGEST_S))
        if self._busy:
            seconds = min(seconds or _PAUSE_S, _PAUSE_S)
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    async def _try(self, waiting: Waiting) -> Reply:
        second = int(time.time())
        proof = sign(self._key, waiting.id, second, waiting.body)
        headers = {
            "content-type": "application/json", "user-agent": f"facerelay/{__version__}",
            "webhook-id": waiting.id, "webhook-timestamp": str(second), "webhook-signature": proof,
        }  # fmt: skip
        return await self._post.send(waiting.body, headers)

    async def _settle(self, waiting: Waiting, answer: Reply) -> None:
        if answer.taken:
            if self._pause_s:
                log.info("webhook: %s takes messages again", self._post.host)
            self._pause_s = 0.0
            await self._spool.done(waiting.id, "delivered")
            return
        if answer.status not in _ITS_OWN_FAULT:
            self._hold(answer)
        form = "webhook: %s: %s; %d wait, and are tried again"
        self._seldom.say(logging.WARNING, "failed", form, self._post.host, answer.words, self._spool.waiting)
        seconds = min(_FIRST_S * 4 ** min(waiting.tries, 10), _LONGEST_S / 2)
        if answer.status not in _ITS_OWN_FAULT:
            seconds = 0.0  # once the address is well again
        await self._spool.later(waiting.id, _JITTER.uniform(0.5, 1.5) * seconds)

    def _hold(self, answer: Reply) -> None:
        """Leave the address in peace, each time for longer; as long as it says itself, within reason."""
        if time.monotonic() < self._resume:
            return  # several at once found out the same
        self._pause_s = min(max(_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        least = _GONE_PAUSE_S if answer.status == _GONE else min(answer.after_s, _GONE_PAUSE_S)
        self._resume = time.monotonic() + max(least, self._pause_s * _JITTER.uniform(0.5, 1.5))

    async def _keep_house(self) -> None:
        """Give up what is too old, and say now and then how it goes."""
        said: dict[str, int] = {}
        while True:
            with suppress(sqlite3.Error):
                before = time.time() - self._settings.give_up_hours * _HOUR_S
                await self._spool.expire(before, "given-up")
            if (now := self.counts) != said and any(now.values()):
                log.info("webhook: %s", ", ".join(f"{name} {n}" for name, n in now.items()))
                said = now
            await asyncio.sleep(_SAY_EVERY_S)


async def reach(settings: Settings) -> str:
    """Look at whether the key can be read and the address answers; returns its host.

    Raises:
        ValueError: the key is none.
        OSError: it cannot be read, or the address does not answer.
    """
    settings.key()
    post = Post(settings)
    await post.reach()
    return post.host


def sign(key: bytes, message_id: str, second: int, body: bytes) -> str:
    """Return the signature of a message, version 1: HMAC-SHA256 of its id, its time and its body."""
    signed = f"{message_id}.{second}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def message(frozen: Frozen) -> bytes:
    """Return what is told of a face: where it lies and what is known of it, no picture."""
    face = frozen.face
    data: dict[str, Any] = {
        "id": face.id, "site": face.site, "camera": face.camera,
        "time": face.time.astimezone(UTC).isoformat(), "key": frozen.key, "sha256": frozen.sha256,
        "bytes": len(frozen.data),
    }  # fmt: skip
    if face.sealed:
        data["sealed"] = True
    else:
        data |= {
            "quality": round(face.quality, 4), "score": round(face.score, 4),
            "box": list(face.box), "frame": list(face.frame), "visit": f"{face.run}-{face.track}",
        }  # fmt: skip
    told = {"type": "face.stored", "timestamp": datetime.now(UTC).isoformat(), "data": data}
    return json.dumps(told, separators=(",", ":")).encode()
