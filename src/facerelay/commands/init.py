"""Write a first configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from facerelay import private, settings

CLOUD_METRICS: Final = 9480
"""The first port of the cloud's metrics, so that both sides may share a machine."""

_FIRST: Final[dict[str, tuple[tuple[str, ...], dict[str, Any]]]] = {
    "edge": (
        settings.EDGE,
        {
            "site": "home",
            "broker": {"url": "mqtt://127.0.0.1:1883"},
            "cloud": {"url": "mqtt://127.0.0.1:2883"},
            "camera": [{"name": "door", "source": "0"}],
        },
    ),
    "cloud": (
        settings.CLOUD,
        {
            "broker": {"url": "mqtt://127.0.0.1:2883", "data": "cloud-broker"},
            "bucket": {"url": "file://bucket"},
            "metrics": {"port": CLOUD_METRICS},
        },
    ),
}


def write(side: str, path: Path) -> list[str]:
    """Write the configuration of one side, never over a file, and return the commands that come next.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    names, values = _FIRST[side]
    text = settings.template(names, values)
    try:
        private.create(path, text.encode())
    except FileExistsError:
        raise settings.ConfigError(f"{path}: exists; name another file, or remove it first") from None
    except OSError as error:
        raise settings.ConfigError(f"{path}: {error.strerror}") from None
    roles = ("broker", "forward", "capture") if side == "edge" else ("broker", "store", "gallery")
    return [f"facerelay {word} -c {path}" for word in ("doctor", *roles)]
