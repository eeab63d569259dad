"""What was erased, as a store tells it to the outboxes in which copies may still lie.

An outbox keeps a mark of what it was told, and its books say it. A store tells what comes after that mark
until they say the last one: so nothing need be known of who was offline when.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from facerelay.face import FaceId, Slug

MOST_IDS: Final = 2_000
"""In one message: 78 kB, which every broker takes."""

MOST_RULES: Final = 200

Mark = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,64}$")]
"""What an outbox was told so far: made by stores, for them alone to understand; empty for nothing."""


class Erasure(BaseModel):
    """Faces that were erased: of these ids, of this site and camera, taken from `start` until `end`.

    A face is covered when it agrees with all that is given. Times are UTC.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    ids: Annotated[tuple[FaceId, ...], Field(max_length=MOST_IDS), FailFast()] = ()
    site: Slug | None = None
    camera: Slug | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    @field_validator("start", "end")
    @classmethod
    def _utc(cls, moment: datetime | None) -> datetime | None:
        if moment is None:
            return None
        try:
            return moment.astimezone(UTC)
        except OverflowError:  # within a day of the first or the last moment that there is
            return moment.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _covers_something(self) -> Self:
        """Refuse one that says nothing: it would cover every face there is."""
        if not (self.ids or self.site or self.camera or self.start or self.end):
            raise ValueError("it names no ids, site, camera or time")
        return self


class Erasures(BaseModel):
    """What was erased between two marks.

    Attributes:
        since: the mark after which these come; empty where they are the first.
        until: the mark of who has done all up to these.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    since: Mark = ""
    until: Mark
    rules: Annotated[tuple[Erasure, ...], Field(max_length=MOST_RULES), FailFast()]
