"""Mosquitto as this side's broker: a configuration that keeps to our limits."""

from __future__ import annotations

from pathlib import Path

from facerelay.config import Broker
from facerelay.sections.base import LOOPBACK
from facerelay.topics import MAX_MESSAGE_BYTES


def mosquitto_listener(broker: Broker, *, data: Path, max_message: int) -> str:
    """Return a mosquitto.conf for this side's broker, without TLS and password: on loopback alone.

    Args:
        broker: its address is where Mosquitto will listen.
        data: a folder for its state.
        max_message: bytes of one message at most, as the outbox keeps it.

    Raises:
        ValueError: the address is not loopback.
    """
    if broker.host not in LOOPBACK:
        raise ValueError(
            f"{broker.url}: beyond loopback Mosquitto needs TLS and passwords: write it yourself"
        )
    return (
        f"listener {broker.port} {broker.host}\n"
        "allow_anonymous true\n"
        "persistence true\n"
        f"persistence_location {data}/\n"
        f"message_size_limit {max(max_message, MAX_MESSAGE_BYTES)}\n"
        "set_tcp_nodelay true\n"
        "max_inflight_messages 200\n"
        "max_queued_messages 1000\n"
    )
