"""A face: what is known of it, its picture, its identity, its key in the bucket.

The picture is the message and the record. What is known of a face stands in standard EXIF tags where
there is one, and in one versioned JSON in UserComment for the rest, so the same bytes travel every hop
and lie in the bucket.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from facerelay import face_exif, picture
from facerelay.face_exif import FaceTags

SCHEMA: Final = 1
SLUG: Final = r"[a-z0-9][a-z0-9_-]{0,62}"
"""Names of sites and cameras: lower case letters, digits, `-` and `_`, 63 at most."""

FACE_ID: Final = r"[0-9a-f-]{36}"
"""What a face's id looks like."""

Slug = Annotated[str, StringConstraints(pattern=f"^{SLUG}$")]
FaceId = Annotated[str, StringConstraints(pattern=f"^{FACE_ID}$")]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
Pixels = Annotated[int, Field(ge=0, le=1_000_000)]
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FaceError(ValueError):
    """A picture that is not a face of ours, or not one that may be stored.

    Attributes:
        reason: a short slug for counters and receipts (`truncated`, `not-ours`, `malformed`, …); `version`:
            a face of a later version than this program reads.
        face: what could be read of it all the same, so that its owner can be told.
    """

    def __init__(self, reason: str, message: str, face: Face | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.face = face


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))


def first_id(at: datetime) -> str:
    """Return what the ids made from a time on are not less than, as texts."""
    milliseconds = f"{max(0, int(at.timestamp() * 1000)):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


class Thinned(BaseModel):
    """How a picture was encoded that was made smaller for a thin line; each no more than was set.

    Attributes:
        quality: of JPEG and WebP.
        side: longest side at most, in pixels.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    quality: Annotated[int, Field(ge=1, le=100)]
    side: Pixels


class _Comment(BaseModel):
    """The JSON in UserComment, version 1. Unknown keys are of a later version, and are let pass."""

    model_config = ConfigDict(extra="ignore", strict=True)

    v: Literal[1]
    site: Slug
    camera: Slug
    outbox: Hex
    run: Hex
    seq: Annotated[int, Field(ge=1, le=2**62)]
    box: tuple[Pixels, Pixels, Pixels, Pixels]
    frame: tuple[Pixels, Pixels]
    score: Unit
    quality: Unit
    parts: Annotated[dict[str, Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=16)] = {}
    track: Annotated[int, Field(ge=0, le=2**62)]
    clock: Literal["synchronised", "unsynchronised", "unknown"]
    thinned: Thinned | None = None
    sealed: bool = False


class _Outside(BaseModel):
    """What the comment has in every version, this one's and each later one's: whose face it is."""

    model_config = ConfigDict(extra="ignore", strict=True)

    v: Annotated[int, Field(gt=SCHEMA)]
    site: Slug
    camera: Slug
    outbox: Hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What is known of a face.

    Attributes:
        id: UUIDv7, in its canonical form.
        outbox: the outbox that owns it, 32 hex digits; made with the file.
        run: the opening of the outbox that numbered it, 8 hex digits.
        seq: its number in the outbox, from 1.
        time: when the frame was taken, in UTC.
        box: x, y, width, height of the face in the frame, in pixels.
        frame: width and height of the frame, in pixels.
        score: the detector's, 0 to 1.
        quality: how good a picture of the face this is, 0 to 1; `parts` says why.
        track: the visit it belongs to, unique in its camera's run.
        clock: whether the edge's clock was synchronised.
        thinned: how it was encoded, if it was made smaller for a thin line.
        sealed: whether its picture is encrypted; then all from `box` to `thinned`, but for `clock`, stands
            inside, with the picture.
    """

    id: str
    outbox: str
    run: str
    seq: int
    site: str
    camera: str
    time: datetime
    box: tuple[int, int, int, int]
    frame: tuple[int, int]
    score: float
    quality: float
    track: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)
    clock: Literal["synchronised", "unsynchronised", "unknown"] = "unknown"
    thinned: Thinned | None = None
    sealed: bool = False

    def exif(self) -> bytes:
        """Return the EXIF block that says all of it."""
        comment: dict[str, object] = {
            "v": SCHEMA, "site": self.site, "camera": self.camera, "outbox": self.outbox, "run": self.run,
            "seq": self.seq, "box": self.box, "frame": self.frame, "score": round(self.score, 4),
            "quality": round(self.quality, 4), "parts": {k: round(v, 4) for k, v in self.parts.items()},
            "track": self.track, "clock": self.clock,
        }  # fmt: skip
        if self.thinned is not None:
            comment["thinned"] = self.thinned.model_dump()
        about = f"{self.camera} at {self.site}, score {self.score:.2f}, quality {self.quality:.2f}"
        if self.sealed:
            comment["sealed"] = True
            about = f"{self.camera} at {self.site}, sealed"
        return face_exif.build(
            face_id=self.id, time=self.time, source=f"{self.site}/{self.camera}", about=about, comment=comment
        )


@dataclass(frozen=True, slots=True)
class Frozen:
    """A face with its frozen bytes: encoded, sized and hashed once, never changed after."""

    face: Face
    data: bytes
    sha256: str
    extension: str

    @property
    def key(self) -> str:
        """Where it lies in the bucket: this follows from the face alone."""
        return key_of(self.face, self.sha256, self.extension)


def key_of(face: Face, sha256: str, extension: str) -> str:
    """Return the key: site, camera, date and hour in UTC, time, id, and eight digits of the hash."""
    at = face.time.astimezone(UTC).isoformat(timespec="microseconds")
    return (
        f"faces/site={face.site}/camera={face.camera}/date={at[:10]}/hour={at[11:13]}/"
        f"{at[11:13]}{at[14:16]}{at[17:26]}-{face.id}-{sha256[:8]}.{extension}"
    )


def freeze(face: Face, encoded: bytes) -> Frozen:
    """Put what is known of a face into its encoded picture (JPEG, PNG or WebP without EXIF), and freeze it.

    Raises:
        picture.PictureError: the bytes are no such picture.
    """
    data = picture.with_exif(encoded, face.exif())
    extension = {b"\xff": "jpg", b"\x89": "png"}.get(data[:1], "webp")
    return Frozen(face, data, hashlib.sha256(data).hexdigest(), extension)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may be, at most."""

    bytes: int = 1_000_000
    pixels: int = 50_000_000


def parse(data: bytes, limits: Limits) -> Frozen:
    """Read a face from its bytes: the header alone, no pixel is decoded.

    Raises:
        FaceError: the one error for every kind of hostile or foreign bytes; `reason` is `not-ours` for
            a sound picture without our EXIF, and `face` is set where the owner could be read.
    """
    try:
        seen = picture.read(data, max_bytes=limits.bytes, max_pixels=limits.pixels)
    except picture.PictureError as error:
        raise FaceError(error.reason, str(error)) from error
    face = _read_face(seen)
    if not seen.complete:
        raise FaceError("truncated", "the picture is cut off: its end marker is missing", face)
    if face is None:
        raise FaceError("not-ours", "a picture without facerelay's EXIF")
    if face.sealed != seen.sealed:
        raise FaceError("malformed", "its EXIF and its chunks don't agree on whether it is sealed", face)
    return Frozen(face, data, hashlib.sha256(data).hexdigest(), seen.extension)


def _read_face(seen: picture.Picture) -> Face | None:
    """Return the face that the EXIF tells of; None where a picture has none of ours."""
    tags = face_exif.read(seen.exif) if seen.exif is not None else None
    if tags is None:
        return None
    try:
        known = _Comment.model_validate_json(tags.comment)
        return Face(
            id=tags.id, outbox=known.outbox, run=known.run, seq=known.seq, site=known.site,
            camera=known.camera, time=tags.time, box=known.box, frame=known.frame, score=known.score,
            quality=known.quality, track=known.track, parts=known.parts, clock=known.clock,
            thinned=known.thinned, sealed=known.sealed,
        )  # fmt: skip
    except ValidationError as error:
        _see_version(tags)
        first = error.errors(include_url=False, include_input=False)[0]
        where = ascii(".".join(map(str, first["loc"]))[:100])
        raise FaceError("malformed", f"its EXIF comment: {where}: {first['msg']}") from error
    except (KeyError, ValueError, OverflowError) as error:
        raise FaceError("malformed", "an EXIF tag of its time or id is missing or wrong") from error


def _see_version(tags: FaceTags) -> None:
    """See whether a face that cannot be read is of a later version; its owner is told so, and keeps it.

    Raises:
        FaceError: it is.
    """
    try:
        known = _Outside.model_validate_json(tags.comment)
        face = Face(
            id=tags.id, outbox=known.outbox, run="0" * 8, seq=0, site=known.site,
            camera=known.camera, time=tags.time, box=(0, 0, 0, 0), frame=(0, 0), score=0, quality=0,
        )  # fmt: skip
    except (ValidationError, KeyError, ValueError, OverflowError):
        return
    raise FaceError(
        "version", f"a face of version {known.v}, and this program reads {SCHEMA}: upgrade it", face
    )


def describe(face: Face) -> dict[str, Any]:
    """Return a face as plain values, for JSON and for tables; of a sealed one what stands outside."""
    inside = {
        "box": list(face.box), "frame": list(face.frame), "score": face.score, "quality": face.quality,
        "track": face.track,
    }  # fmt: skip
    return {
        "id": face.id, "site": face.site, "camera": face.camera, "time": face.time.isoformat(),
        **({"sealed": True} if face.sealed else inside),
        "outbox": face.outbox, "run": face.run, "seq": face.seq, "clock": face.clock,
        **({"thinned": face.thinned.model_dump()} if face.thinned else {}),
    }  # fmt: skip
