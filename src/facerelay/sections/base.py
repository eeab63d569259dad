"""What all sections share."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

Port = Annotated[int, Field(ge=0, le=65_535)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
_MAX_SECRET_BYTES: Final = 4096
FOREVER: Final = "forever"
_MOST_KEPT: Final = 36_500.0


def _kept(value: object) -> object:
    """Read how long something is kept: a number above 0, or the word for no end."""
    if isinstance(value, str) and value.strip().lower() == FOREVER:
        return FOREVER
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except ValueError:
        number = 0.0
    if not 0 < number <= _MOST_KEPT:
        most = f"a number above 0 and at most {_MOST_KEPT:.0f}"
        raise ValueError(f'{most}; to keep them for ever say "{FOREVER}"')
    return value if isinstance(value, int) else number


Kept = Annotated[float | Literal["forever"], BeforeValidator(_kept)]
"""How long personal data is kept; that it is for ever must be said."""


def is_loopback(host: str) -> bool:
    """Whether a host, by its name or address, is this machine and nobody else reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Section(BaseModel):
    """Settings that belong together; unknown ones are mistakes, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def address(url: str, *schemes: str) -> SplitResult | None:
    """Return the parts of a URL that has one of these schemes and a host; None of any other text."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if right else None


def is_open(url: str) -> bool:
    """Whether what is said to a URL crosses a network without TLS."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def read_secret(value: SecretStr | None, path: Path | None) -> str | None:
    """Return a secret: the value itself, or what its file holds at this moment."""
    if path is None:
        return value.get_secret_value() if value else None
    with path.open(encoding="utf-8") as file:
        return file.read(_MAX_SECRET_BYTES).rstrip("\r\n")
