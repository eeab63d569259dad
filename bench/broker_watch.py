"""What a Mosquitto holds and drops, by its own word."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from bench.processes import BenchError

_TOLD: Final = {
    "bytes": "$SYS/broker/store/messages/bytes",
    "count": "$SYS/broker/store/messages/count",
    "dropped": "$SYS/broker/publish/messages/dropped",
}
"""Payload bytes and messages in memory, what is retained included; messages dropped for want of it."""


class BrokerWatch:
    """Listens to a broker on loopback, to its `$SYS` topics and some more, while the block runs."""

    def __init__(self, port: int, *more: str) -> None:
        self._port = port
        self._topics = [*_TOLD.values(), *more]
        self._last: dict[str, bytes] = {}
        self._most: dict[str, int] = {}
        self._news = threading.Condition()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.subscribe([(topic, 0) for topic in self._topics])
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def peak(self, name: str) -> int:
        """Return the most that the broker told of `bytes`, `count` or `dropped`; 0 if it told nothing."""
        return self._most.get(_TOLD[name], 0)

    def wait(self, topic: str, payload: bytes, seconds: float) -> None:
        """Return once a topic says so.

        Raises:
            BenchError: it does not.
        """
        until = time.monotonic() + seconds
        with self._news:
            while self._last.get(topic) != payload:
                if not self._news.wait(max(0.0, until - time.monotonic())):
                    raise BenchError(f"{topic} is not {payload!r} after {seconds:.0f} s")

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        with self._news:
            self._last[message.topic] = bytes(message.payload)
            if message.topic.startswith("$SYS/"):
                self._most[message.topic] = max(self._most.get(message.topic, 0), int(message.payload))
            self._news.notify_all()
