"""One day of an outbox as it lies in the bucket: cumulative counts at each hour's end, and minutes as bits.

Two that tell of the same day merge into one, in any order and as often as one likes: of two marks of an hour
the later one stands, of two sets of minutes all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from facerelay.messages import Account, CameraName, Count, Milliseconds, Reason
from facerelay.reasons import explain

COUNTS: Final = (
    "frames", "inspected", "detections", "captured", "stored", "sent", "dropped", "refused", "erased",
    "duplicates", "bytes", "gaps", "dark_s",
)  # fmt: skip
"""What is counted of a camera, in the order of a mark's row; `waiting` comes last, and is no count."""

MINUTES: Final = 1440
MOST_CAMERAS: Final = 4_000
_MOST_REASONS: Final = 16

_ROW: Final = len(COUNTS) + 1
_CAPTURED, _FRAMES, _STORED, _ERASED = (
    COUNTS.index(name) for name in ("captured", "frames", "stored", "erased")
)
_ANSWERS: Final = tuple(COUNTS.index(name) for name in ("stored", "sent", "dropped", "refused", "erased"))

Bits = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,360}$")]
"""Minutes of a day as a number in hex digits: minute n is bit n."""

HourNumber = Annotated[int, Field(ge=0, le=23)]
MinuteNumber = Annotated[int, Field(ge=0, lt=MINUTES)]


class MarksError(ValueError):
    """This is no day of an outbox."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Mark(_Model):
    """A camera's books at a time.

    Attributes:
        n: the counts, as `COUNTS` has them, and how many faces waited.
        ms: p50 and p99 of its last answers, camera to receipt.
        why: why faces were dropped or refused so far.
    """

    n: Annotated[tuple[Count, ...], Field(min_length=_ROW, max_length=_ROW)] = (0,) * _ROW
    ms: tuple[Milliseconds | None, Milliseconds | None] = (None, None)
    why: Annotated[dict[Reason, Count], Field(max_length=_MOST_REASONS)] = {}

    @classmethod
    def of(cls, account: Account) -> Self:
        """Return the mark of an account."""
        why = [(code, n) for code, n in account.reasons.items() if n and explain(code).column != "unsent"]
        return cls(
            n=(*(getattr(account, name) for name in COUNTS), account.waiting),
            ms=(account.latency_ms.p50, account.latency_ms.p99),
            why=dict(sorted(why, key=lambda each: -each[1])[:_MOST_REASONS]),
        )

    @property
    def waiting(self) -> int:
        """How many faces waited."""
        return self.n[-1]

    @property
    def rank(self) -> tuple[int, ...]:
        """Orders the marks of a camera in time: what these count never grows less, and one of them moves."""
        n = self.n
        return n[_CAPTURED], n[_FRAMES], sum(n[at] for at in _ANSWERS), n[_STORED], n[_ERASED], *n


class Camera(_Model):
    """A camera's day: the mark it began with, the last one of each hour, and minutes in which it was gone."""

    base: Mark | None = None
    hours: dict[HourNumber, Mark] = {}
    dark: Bits = ""

    def merge(self, other: Camera) -> Camera:
        """Return what both know."""
        bases = [mark for mark in (self.base, other.base) if mark]
        hours = dict(self.hours)
        for hour, mark in other.hours.items():
            hours[hour] = max(hours.get(hour, mark), mark, key=lambda one: one.rank)
        return Camera(
            base=min(bases, key=lambda one: one.rank, default=None),
            hours=hours,
            dark=join(self.dark, other.dark),
        )


class DayMarks(_Model):
    """An outbox's day.

    Attributes:
        cameras: by `<site>/<camera>`.
        heard: minutes in which something new was heard of it.
        unanswered: minutes in which it had sent faces and got no receipts.
        late: minutes in which its oldest face had waited for long.
        back: what its first word after a silence told of that: by the minute in which it came.
    """

    most_bytes: ClassVar[int] = 8_000_000

    v: Literal[1] = 1
    cameras: Annotated[dict[CameraName, Camera], Field(max_length=MOST_CAMERAS)] = {}
    heard: Bits = ""
    unanswered: Bits = ""
    late: Bits = ""
    back: Annotated[dict[MinuteNumber, Literal["link", "capture"]], Field(max_length=MINUTES)] = {}

    def merge(self, other: DayMarks) -> DayMarks:
        """Return what both know."""
        cameras = dict(self.cameras)
        for name, camera in other.cameras.items():
            if name in cameras:
                cameras[name] = cameras[name].merge(camera)
            elif len(cameras) < MOST_CAMERAS:
                cameras[name] = camera
        return DayMarks(
            cameras=cameras,
            heard=join(self.heard, other.heard),
            unanswered=join(self.unanswered, other.unanswered),
            late=join(self.late, other.late),
            back={**self.back, **other.back},
        )

    def to_bytes(self) -> bytes:
        """Return the object's bytes."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read an object.

        Raises:
            MarksError: it is not of this form; the first fault is named.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise MarksError(error.errors(include_url=False, include_input=False)[0]["msg"]) from error


def difference(mark: Mark, before: Mark | None) -> tuple[dict[str, int], dict[str, int]]:
    """Return what was counted between two marks, and why; of a column that faces have left it is below 0."""
    old = before or Mark()
    counts = {name: mark.n[at] - old.n[at] for at, name in enumerate(COUNTS)}
    why = {code: n - old.why.get(code, 0) for code, n in mark.why.items()}
    return counts, {code: n for code, n in why.items() if n > 0}


def join(one: Bits, other: Bits) -> Bits:
    """Return the minutes of both."""
    return bits(minutes(one) | minutes(other))


def minutes(text: Bits) -> int:
    """Return bits as a number."""
    return int(text or "0", 16) & ((1 << MINUTES) - 1)


def bits(number: int) -> Bits:
    """Return a number as bits."""
    return f"{number:x}" if number else ""


def between(first: int, last: int) -> int:
    """Return the minutes from one to another, both included, as a number."""
    return ((1 << (last + 1)) - (1 << first)) if first <= last else 0


def runs(number: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of set bits, each as its first bit and the one after its last."""
    at = 0
    while number:
        clear = (number & -number).bit_length() - 1
        number >>= clear
        length = (~number & (number + 1)).bit_length() - 1
        number >>= length
        yield at + clear, at + clear + length
        at += clear + length


def of(cameras: Mapping[str, Account]) -> dict[str, Mark]:
    """Return the marks of accounts."""
    return {name: Mark.of(account) for name, account in cameras.items()}
