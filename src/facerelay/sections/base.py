"""What all sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Port = Annotated[int, Field(ge=0, le=65_535)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
_MAX_SECRET_BYTES: Final = 4096


class Section(BaseModel):
    """Settings that belong together; unknown ones are mistakes, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def read_secret(value: SecretStr | None, path: Path | None) -> str | None:
    """Return a secret: the value itself, or what its file holds at this moment."""
    if path is None:
        return value.get_secret_value() if value else None
    with path.open(encoding="utf-8") as file:
        return file.read(_MAX_SECRET_BYTES).rstrip("\r\n")
