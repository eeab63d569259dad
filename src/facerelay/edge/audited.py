"""What the last audit of a whole outbox found, in a file beside it: capture tells it with the books."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from facerelay.edge import beside
from facerelay.face import Hex
from facerelay.messages import Count

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 4096


class Audited(BaseModel):
    """The word of an audit.

    Attributes:
        outbox: whose faces were looked for.
        time: when.
        lost: how many of them are neither where the books say nor in any column.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    outbox: Hex
    time: AwareDatetime
    lost: Count


def keep(path: Path, audited: Audited) -> None:
    """Write it down beside an outbox; a reader never sees half of it.

    Raises:
        OSError: it cannot be written.
    """
    beside.write(_beside(path), audited.model_dump_json())


def last(path: Path, outbox: str) -> Audited | None:
    """Return the last word on an outbox; None without one, or where it is of another."""
    try:
        with _beside(path).open("rb") as file:
            audited = Audited.model_validate_json(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s: cannot be read: %s", _beside(path), str(error).partition("\n")[0])
        return None
    return audited if audited.outbox == outbox else None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.audit")
