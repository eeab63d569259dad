"""One trace a face, as an option: its trace id is the face's own id, so nothing more travels with it.

A face's id is a UUIDv7: 128 bits, as a trace id has. Who holds a face can speak of it, and so can whoever
holds its receipt. Spans are told when they are over.

Which faces are taken follows from the last 56 bits of their ids, as OpenTelemetry has it for sampling that
every part does alike: a face that one part takes is taken by all whose ratio is not less.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal, Protocol
from uuid import UUID

_RANDOM_BITS: Final = 56

Value = str | int | float | bool
Name = Literal["face", "capture", "publish", "store", "receipt"]
"""`face` is the whole way, the parent of the others; it is told with the receipt."""


class Tracer(Protocol):
    """Takes spans of faces."""

    def takes(self, face_id: str) -> bool:
        """Whether this face's spans are wanted; cheap."""

    def span(
        self, face_id: str, name: Name, *, start: float, end: float, fault: str = "", **facts: Value
    ) -> None:
        """Tell a span that is over; returns at once, whatever becomes of it.

        Args:
            face_id: the face's id.
            name: of the span.
            start: when it began, in Unix seconds.
            end: when it was over.
            fault: what went wrong; empty where nothing did.
            facts: attributes, under `facerelay.`.
        """

    async def close(self) -> None:
        """Send what is left, in a few seconds or not at all."""


class _Off:
    def takes(self, face_id: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def span(self, face_id: str, name: Name, **_: object) -> None:
        """Take nothing."""

    async def close(self) -> None:
        """Do nothing."""


OFF: Final[Tracer] = _Off()
"""Where no traces are wanted."""


def born(face_id: str) -> float:
    """Return when a face was made, in Unix seconds: its id begins with it."""
    return (UUID(face_id).int >> 80) / 1000


def sampled(face_id: str, ratio: float) -> bool:
    """Whether a face belongs to the share that is traced; what is no id does not."""
    try:
        return UUID(face_id).int & (1 << _RANDOM_BITS) - 1 < ratio * (1 << _RANDOM_BITS)
    except ValueError:
        return False


def root(face_id: str) -> int:
    """Return the id of a face's `face` span, which every part can name as the parent of its own."""
    return int.from_bytes(hashlib.blake2b(UUID(face_id).bytes, digest_size=8).digest()) or 1
