"""What the gallery measures: answers, requests of the bucket, pages that listen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facerelay.cloud.gallery.parts import Parts
from facerelay.metrics import Reading
from facerelay.metrics import catalogue as c

_CLASSES = ("2xx", "3xx", "4xx", "5xx")


class Measures:
    """Counts what an app answers, and reads the rest from the parts.

    Args:
        parts: of the gallery.
        logins: how many tries to log in came to what.
    """

    def __init__(self, parts: Parts, *, logins: Mapping[str, int]) -> None:
        self._parts = parts
        self._logins = logins
        self._answers = Counter(dict.fromkeys(_CLASSES, 0))

    def counted(self, app: ASGIApp) -> ASGIApp:
        """Return an app whose answers are counted."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._answers[f"{message['status'] // 100}xx"] += 1
                await send(message)

            await app(scope, receive, sending)

        return measured

    async def read(self) -> Iterator[Reading]:
        """Return the figures as they are now."""
        return self._readings()

    def _readings(self) -> Iterator[Reading]:
        for code, n in dict(self._answers).items():
            yield Reading(c.REQUESTS, (code,), n)
        for outcome, n in dict(self._logins).items():
            yield Reading(c.LOGINS, (outcome,), n)
        yield Reading(c.BUCKET_REQUESTS, (), self._parts.bucket.requests)
        yield Reading(c.LISTENERS, (), self._parts.live.listeners)
