"""Which faces are meant: those of a camera, and of a range of time by the moment of their capture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORMS: Final = "write 2026-11-20, 2026-11-20T18:00, 2026-11-20T18:00+01:00 (UTC without a zone), or 12h, 30m"


class MomentError(ValueError):
    """This is no time; the message says what is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Faces of a site and of its camera, captured at `start` or later and before `end`; None asks nothing.

    A face belongs to a time by the moment its frame was taken: its key says it, in the books of the edge
    and in the bucket alike.
    """

    site: str | None = None
    camera: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    @property
    def timed(self) -> bool:
        """Whether it asks for a time."""
        return self.start is not None or self.end is not None

    def holds(self, site: str, camera: str, taken: datetime) -> bool:
        """Whether a face is meant."""
        return (
            self.site in {None, site}
            and self.camera in {None, camera}
            and (self.start is None or self.start <= taken)
            and (self.end is None or taken < self.end)
        )


def moment(text: str, *, now: datetime) -> datetime:
    """Read a time as a user writes it: ISO 8601, in UTC where no zone is said, or how long ago (`2h`).

    Raises:
        MomentError: it is neither.
    """
    said = text.strip()
    try:
        if ago := _AGO.fullmatch(said):
            return now.replace(microsecond=0) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        found = datetime.fromisoformat(said)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MomentError(f"{said!r} is no time: {_FORMS}") from error


def written(at: datetime) -> str:
    """Return a time in UTC for people, with a fraction of a second only where there is one."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
