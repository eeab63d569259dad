"""HLS playlists (RFC 8216): what they list, within limits; nothing is opened here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urljoin

from facerelay.edge.cameras.opening import CameraError
from facerelay.edge.cameras.origin import LONGEST_URL, Part

_MAX_ENTRIES: Final = 10_000
_LONGEST_LINE: Final = 8192
_MAX_NUMBER: Final = 2**53
_LONGEST_S: Final = 3600.0
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_ATTRIBUTE: Final = re.compile(r'(?<![A-Z0-9-])([A-Z0-9-]{1,64})=("[^"]*"|[^,]*)')


class Init(NamedTuple):
    """What a decoder must read before a segment (EXT-X-MAP)."""

    url: str
    part: Part | None


class Segment(NamedTuple):
    """A piece of the stream: where it lies, its number, how many seconds it lasts."""

    url: str
    part: Part | None
    init: Init | None
    number: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Media:
    """A list of segments: `target` is the longest that one lasts, in seconds; `ended` says it is complete."""

    segments: tuple[Segment, ...]
    target: float
    ended: bool


@dataclass(frozen=True, slots=True)
class Master:
    """A list of playlists, of which `best` is the address of the one with the largest picture."""

    best: str


def parse(data: bytes, url: str, source: str) -> Media | Master:
    """Read a playlist.

    Args:
        data: as it came.
        url: where it lies: what it names is relative to it.
        source: the camera's, for errors.

    Raises:
        CameraError: it is none, is encrypted, or lists too much.
    """
    lines = data.decode(errors="replace").splitlines()
    if not lines or not lines[0].lstrip("\ufeff").startswith("#EXTM3U"):
        raise CameraError(source, "what came is not a playlist")
    reader = _Reader(url, source)
    for line in lines:
        reader.take(line.strip())
    if reader.variants:
        return Master(max(reader.variants)[1])
    return Media(tuple(reader.segments), reader.target, reader.ended)


@dataclass(slots=True)
class _Reader:
    url: str
    source: str
    segments: list[Segment] = field(default_factory=list)
    variants: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    target: float = 1.0
    ended: bool = False
    _first: int = 0
    _seconds: float | None = None
    _part: Part | None = None
    _end: int = 0
    _joins: int = 0
    _init: Init | None = None
    _variant: tuple[int, int] | None = None

    def take(self, line: str) -> None:
        """Take one line."""
        if len(line) > _LONGEST_LINE:
            raise CameraError(self.source, f"its playlist has a line of more than {_LONGEST_LINE} characters")
        if not line.startswith("#"):
            if line:
                self._address(self._join(line))
            return
        tag, _, value = line.partition(":")
        self._describe(tag, value)
        match tag:
            case "#EXT-X-TARGETDURATION":
                self.target = max(0.1, _float(value))
            case "#EXT-X-MEDIA-SEQUENCE":
                self._first = _whole(value)
            case "#EXT-X-ENDLIST":
                self.ended = True

    def _describe(self, tag: str, value: str) -> None:
        """Take a line that says how the next entries are."""
        match tag:
            case "#EXTINF":
                self._seconds = _float(value.split(",", maxsplit=1)[0])
            case "#EXT-X-BYTERANGE":
                self._part = self._range(value)
            case "#EXT-X-MAP":
                found = _attributes(value)
                where = found.get("BYTERANGE")
                self._init = Init(self._join(found.get("URI", "")), self._range(where) if where else None)
            case "#EXT-X-STREAM-INF":
                self._variant = _rank(_attributes(value))
            case "#EXT-X-KEY":
                if _attributes(value).get("METHOD", "NONE") != "NONE":
                    raise CameraError(self.source, "its segments are encrypted, which is not supported")

    def _address(self, url: str) -> None:
        if len(self.segments) + len(self.variants) >= _MAX_ENTRIES:
            raise CameraError(self.source, f"its playlist has more than {_MAX_ENTRIES} entries")
        if self._variant is not None:
            self.variants.append((self._variant, url))
        elif self._seconds is not None:
            number = self._first + len(self.segments)
            self.segments.append(Segment(url, self._part, self._init, number, self._seconds))
        self._variant = self._seconds = self._part = None

    def _range(self, value: str) -> Part:
        """Read `length` or `length@begin`; without a begin it follows the last one."""
        length, _, begin = value.partition("@")
        part = Part(_whole(begin) if begin else self._end, max(1, _whole(length)))
        self._end = part.begin + part.length
        return part

    def _join(self, name: str) -> str:
        """Return a name as an address; an empty one, which is refused when opened, where it cannot be."""
        self._joins += 1
        if self._joins > 2 * _MAX_ENTRIES:
            raise CameraError(self.source, f"its playlist has more than {_MAX_ENTRIES} entries")
        try:
            url = urljoin(self.url, name)
        except ValueError:
            return ""
        if len(url) > LONGEST_URL:
            raise CameraError(self.source, f"it names an address of more than {LONGEST_URL} characters")
        return url


def _attributes(value: str) -> dict[str, str]:
    return {name: text.strip('"') for name, text in _ATTRIBUTE.findall(value)}


def _rank(attributes: dict[str, str]) -> tuple[int, int]:
    """Return a variant's pixels and its bits per second."""
    width, _, height = attributes.get("RESOLUTION", "").partition("x")
    return _whole(width) * _whole(height), _whole(attributes.get("BANDWIDTH", ""))


def _whole(text: str) -> int:
    found = _NUMBER.match(text.strip())
    return min(int(found[0]), _MAX_NUMBER) if found else 0


def _float(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return min(max(0.0, seconds), _LONGEST_S) if math.isfinite(seconds) else 0.0
