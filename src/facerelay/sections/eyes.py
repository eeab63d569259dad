"""Cameras, detector, visits, pictures: what is seen, and what of it is kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from facerelay.face import Slug
from facerelay.sections.base import Port, Seconds, Section

Share = Annotated[float, Field(ge=0, le=1)]

_MAX_POLYGONS: Final = 32
_MAX_CORNERS: Final = 100
_LEAST_CORNERS: Final = 3
_LEAST_AREA: Final = 1e-6
"""Of a polygon, as a share of the picture: about one pixel of a 720p frame."""

_EXAMPLE: Final = "[[[0, 0], [0.3, 0], [0.3, 0.2]]]"
_Corner: TypeAlias = tuple[float, float]


def read_polygons(value: object) -> tuple[tuple[_Corner, ...], ...]:
    """Return polygons as they stand in a TOML file, or as JSON in the environment and in flags.

    Each is a list of corners in order, a corner a pair of shares of the frame's width and height, from its
    left upper corner.

    Raises:
        ValueError: something else; the message says which polygon and corner (from 1), and what to write.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"write it as JSON, such as {_EXAMPLE}") from None
    if not isinstance(value, list | tuple):
        raise ValueError(f"write a list of polygons, such as {_EXAMPLE}")  # noqa: TRY004 - pydantic's way to say it
    if len(value) > _MAX_POLYGONS:
        raise ValueError(f"{len(value)} polygons are more than {_MAX_POLYGONS}")
    if value and _is_corner(value[0]):
        raise ValueError(f"one more pair of brackets around it: a list of polygons, such as {_EXAMPLE}")
    return tuple(_polygon(each, f"polygon {number}") for number, each in enumerate(value, start=1))


def _is_corner(value: object) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(each, int | float) for each in value)


def _polygon(value: object, which: str) -> tuple[_Corner, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{which}: write all of them at once, such as {_EXAMPLE}")  # noqa: TRY004 - as above
    if not _LEAST_CORNERS <= len(value) <= _MAX_CORNERS:
        wanted = f"name {_LEAST_CORNERS} to {_MAX_CORNERS} (a rectangle has four)"
        raise ValueError(f"{which} has {len(value)} corners: {wanted}")
    corners = tuple(_corner(each, f"{which}, corner {number}") for number, each in enumerate(value, start=1))
    if any(_cross(one, other) for one, other in itertools.combinations(_sides(corners), 2)):
        raise ValueError(f"{which}: its sides cross: name the corners in their order around the edge")
    if abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in _sides(corners))) / 2 < _LEAST_AREA:
        raise ValueError(f"{which} has no area: its corners lie on one line")
    return corners


def _corner(value: Any, which: str) -> _Corner:  # noqa: ANN401 - whatever the user wrote
    if not isinstance(value, list | tuple) or [type(each) in {int, float} for each in value] != [True, True]:
        raise ValueError(f"{which}: write two numbers, [x, y]")
    if not all(0 <= each <= 1 for each in value):
        raise ValueError(f"{which}: shares of the picture's width and height, 0 to 1, not pixels")
    return float(value[0]), float(value[1])


def _sides(corners: Sequence[_Corner]) -> list[tuple[_Corner, _Corner]]:
    return list(zip(corners, [*corners[1:], corners[0]], strict=True))


def _cross(one: tuple[_Corner, _Corner], other: tuple[_Corner, _Corner]) -> bool:
    """Tell whether two sides cross; to touch is not to cross."""
    (a, b), (c, d) = one, other
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


def _turn(a: _Corner, b: _Corner, c: _Corner) -> float:
    """Return the side of the line from a to b on which c lies, by its sign."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


Polygons = Annotated[tuple[tuple[tuple[Share, Share], ...], ...], BeforeValidator(read_polygons)]


class Camera(Section):
    """A camera."""

    name: Slug = Field(
        title="Name", description="Lower case letters, digits, - and _: part of topics and keys."
    )
    source: str = Field(
        title="Source",
        description="Webcam number, file, folder, shot-%d.jpg, rtsp:// or http:// URL, mqtt:<topic>, scene.",
    )
    pace: bool = Field(
        default=True,
        title="Real time",
        description="Play files at their own speed; false takes every frame as fast as it can.",
    )
    fps: Annotated[float, Field(gt=0, le=1000)] = Field(
        25.0, title="Frame rate", description="Of a numbered sequence of pictures, which has none of its own."
    )
    transport: Literal["auto", "tcp", "udp"] = Field(
        "auto", title="RTSP transport", description="auto: TCP, and UDP where the camera refuses TCP."
    )
    freeze_s: Seconds = Field(
        60.0,
        title="Frozen after",
        description="A stream whose picture did not change at all for so long is opened again; 0 never.",
    )
    zones: Polygons = Field(
        (),
        title="Zones",
        description="Polygons of [x, y], each 0 to 1: only faces whose centre lies in one are kept.",
    )
    masks: Polygons = Field(
        (),
        title="Privacy masks",
        description=f"Polygons, blackened before anything looks: {_EXAMPLE} is one.",
    )

    @field_validator("source", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Detect(Section):
    """The face detector."""

    model: Slug = Field(
        "auto",
        title="Model",
        description="auto: yunet (onnxruntime), else opencv (the same); haar: the old cascade; or a plugin.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7, title="Threshold", description="The least score of a face."
    )
    size: Annotated[int, Field(ge=160, le=4096)] = Field(
        640, title="Size", description="Long side of the picture that the detector sees, in pixels."
    )
    tiles: Annotated[int, Field(ge=1, le=4)] = Field(
        1,
        title="Tiles",
        description="For small faces: N x N overlapping parts of the frame are looked at as well.",
    )
    providers: Annotated[tuple[str, ...], Field(max_length=8)] = Field(
        (),
        title="Execution providers",
        description="Of onnxruntime, first choice first, such as CUDAExecutionProvider; else the CPU.",
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, title="Threads", description="Of the network, for each picture; cameras run side by side anyway."
    )
    motion: bool = Field(
        default=True,
        title="Motion gate",
        description="Pass over frames in which nothing changed since the last one looked at.",
    )
    max_fps: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0, title="Rate", description="Frames looked at per second and camera, at most; 0: all."
    )

    @field_validator("providers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Take names with commas between them, as the environment and flags give them."""
        if isinstance(value, str):
            return [name.strip() for name in value.split(",") if name.strip()]
        return value


class Visits(Section):
    """Which pictures of a visit are sent."""

    policy: Literal["best", "first-and-best", "every"] = Field(
        "best",
        title="Policy",
        description="best: one per visit; first-and-best: the first good one as well; every: as detected.",
    )
    wait_s: Seconds = Field(
        2.0,
        title="Wait",
        description="The best picture is sent at the latest so long after the first good one.",
    )
    again: bool = Field(
        default=False,
        title="Again",
        description="Send a clearly better picture that comes later, as a second face of the same visit.",
    )
    every: Annotated[int, Field(ge=1)] = Field(
        1, title="Every", description="With policy every: send every N-th detection."
    )
    gap_s: Seconds = Field(
        1.5, title="Gap", description="A visit ends when its face was not seen for so long."
    )
    rest_s: Seconds = Field(
        600.0,
        title="Rest",
        description="A face that never moves (a poster) and is seen again within so long is the same visit.",
    )
    min_eyes: Annotated[float, Field(ge=1, le=1000)] = Field(
        4.0,
        title="Least size",
        description="Pixels between the eyes; a smaller face is refused, and counted.",
    )
    min_sharpness: Share = Field(
        0.15,
        title="Least sharpness",
        description="0 to 1, as in the face's quality; a more smeared one is refused, and counted.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Visits:
        if self.again and self.policy == "every":
            raise ValueError('again does not go with policy "every", which sends them all')
        return self


class PictureFormat(Section):
    """How a face is cut out and encoded."""

    format: Literal["jpeg", "png", "webp"] = Field("jpeg", title="Format", description="jpeg, png or webp.")
    quality: Annotated[int, Field(ge=1, le=100)] = Field(90, title="Quality", description="Of JPEG and WebP.")
    margin: Annotated[float, Field(ge=0, le=2)] = Field(
        0.3, title="Margin", description="Around the face's box, as a share of its size."
    )
    align: bool = Field(
        default=False, title="Align", description="Turn the picture so that the eyes are level."
    )
    grey: bool = Field(default=False, title="Grey", description="Send grey pictures.")
    max_side: Annotated[int, Field(ge=16, le=8192)] = Field(
        640, title="Largest side", description="Larger crops are scaled down to it, in pixels."
    )
    max_bytes: Annotated[int, Field(ge=2000, le=60_000_000)] | None = Field(
        None,
        title="Target bytes",
        description="A larger face is encoded at lower quality, then smaller; unset: as large as a message.",
    )


class Preview(Section):
    """The page that shows what the cameras see, with `facerelay capture --preview`: loopback only."""

    port: Port = Field(8090, title="Port", description="Of the page, on 127.0.0.1; 0 takes a free one.")
