"""Where a store's faces come from, if not by its MQTT session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facerelay.config import Config
from facerelay.metrics import Meters
from facerelay.settings import ConfigError

if TYPE_CHECKING:
    from facerelay.link.jetstream import JetStreamPull

_MISSING = "store.intake = \"jetstream\" needs nats-py: pip install 'facerelay[jetstream]'"
_WINDOW = 64


def pull(config: Config) -> JetStreamPull | None:
    """Return the stream that this store shares with others; None where faces come by MQTT.

    Raises:
        ConfigError: what it takes is not installed.
    """
    if config.store.intake != "jetstream":
        return None
    try:
        from facerelay.link.jetstream import JetStreamPull  # noqa: PLC0415 - few stores have one
    except ModuleNotFoundError:
        raise ConfigError(_MISSING) from None
    return JetStreamPull(
        config.broker,
        config.jetstream,
        faces=config.face_topic.filter,
        name=config.store.name,
        group=config.store.group,
        window=min(_WINDOW, config.store.concurrency),
        max_message=config.limits.message_bytes,
    )


def measured(pull: JetStreamPull, meters: Meters | None) -> None:
    """Let its figures be told, where any are."""
    if meters is not None:
        from facerelay.link import measures  # noqa: PLC0415 - as above

        meters.add(measures.intake(pull))


async def examine(config: Config) -> str:
    """Return how the stream does, in words.

    Raises:
        Exception: it does not; the message says why.
    """
    try:
        from facerelay.link import jetstream  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        raise ConfigError(_MISSING) from None
    store = config.store
    return await jetstream.examine(config.broker, config.jetstream, name=store.name, group=store.group)
