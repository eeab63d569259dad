"""The link as a Mosquitto bridge, from the settings."""

from __future__ import annotations

from facerelay.config import Config
from facerelay.link.bridge import mosquitto_bridge
from facerelay.settings import ConfigError


def bridge_config(config: Config) -> str:
    """Return the bridge's lines for the edge's mosquitto.conf.

    Raises:
        ConfigError: the settings name no cloud broker.
    """
    if config.cloud is None:
        raise ConfigError("no cloud broker: add a [cloud] section with its url")
    return mosquitto_bridge(
        cloud=config.cloud,
        site=config.site,
        faces=config.face_topic.filter,
        qos=config.level,
        delivery=config.delivery,
        max_message=config.limits.message_bytes,
    )
