"""What all sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Port = Annotated[int, Field(ge=0, le=65_535)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
_MAX_SECRET_BYTES: Final = 4096

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""Names of this machine that nobody else reaches."""


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
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def read_secret(value: SecretStr | None, path: Path | None) -> str | None:
    """Return a secret: the value itself, or what its file holds at this moment."""
    if path is None:
        return value.get_secret_value() if value else None
    with path.open(encoding="utf-8") as file:
        return file.read(_MAX_SECRET_BYTES).rstrip("\r\n")
