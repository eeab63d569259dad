"""HLS: the segments of a playlist, fetched from its own server alone, as one stream for the decoder.

FFmpeg's own reader would open whatever a playlist names; this one reads playlists itself (RFC 8216), so that
a hostile one reaches neither another host, nor another port, nor a file.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator
from itertools import chain
from typing import Final, Self, cast

import av
import av.error

from facerelay.edge.cameras import origin, playlist, video
from facerelay.edge.cameras.opening import MAX_PIXELS, CameraError, Container, reason_of, split_url
from facerelay.edge.cameras.origin import Origin
from facerelay.edge.cameras.playlist import Media, Segment
from facerelay.edge.cameras.video import Picture

__all__ = ["Stream", "is_playlist"]

_MAX_DEPTH: Final = 3
_LEAP_S: Final = 1.0
_LATE_S: Final = 0.5
_LONGEST_DELAY_S: Final = 1.5
_SHORTEST_POLL_S: Final = 0.25
_LONGEST_POLL_S: Final = 2.0
_BEHIND: Final = 2
"""With so many segments waiting, a live stream is behind, and goes on with the last one."""

_TARGETS: Final = 3
"""A live playlist that does not go on for so many of its target durations has stopped."""


def is_playlist(source: str) -> bool:
    """Tell whether a source is the address of an HLS playlist."""
    parts = split_url(source)
    return parts.scheme.lower() in {"http", "https"} and parts.path.lower().endswith(".m3u8")


class Stream:
    """An HLS stream; its playlist is read when this is made.

    Attributes:
        ended: whether it is a recording: nothing will be added to it.

    Raises:
        CameraError: the playlist cannot be had or read, or names what lies on another server.
    """

    def __init__(self, source: str, *, stop: threading.Event) -> None:
        self._source, self._stop = source, stop
        self._origin = Origin(source)
        self._url, self._media = self._find(source, 0)
        if not self._media.segments:
            raise CameraError(source, "its playlist has no segments")
        self.ended = self._media.ended

    def live(self) -> Container:
        """Open it as a live stream: from its last segment on, at its own pace.

        Raises:
            CameraError, av.error.FFmpegError: it cannot be opened.
        """
        following = self._following()
        container = _open(_Feed(self._origin, next(following), following, self._stop))
        # It is used as a container is: opened already, read packet by packet, closed.
        return cast("Container", _Paced(container, self._media.target, self._stop))

    def pictures(self) -> Generator[Picture, None, None]:
        """Yield every picture of a recording, on one clock.

        Raises:
            CameraError: at the end of what came, where the rest cannot be had or read.
        """
        rest, offset = list(self._media.segments), 0.0
        while rest:
            count = next((n for n, each in enumerate(rest) if each.init != rest[0].init), len(rest))
            part, rest = rest[:count], rest[count:]
            last = offset
            for picture in self._part(part):
                last = offset + picture.pts
                yield Picture(last, picture.raster)
            offset = max(last, offset + sum(each.seconds for each in part))

    def _part(self, segments: list[Segment]) -> Iterator[Picture]:
        """Yield the pictures of segments that share their beginning."""
        rest = iter(segments)
        feed = _Feed(self._origin, next(rest), rest, self._stop, patient=True)
        try:
            with _open(feed) as container:
                yield from video.pictures(container, self._source)
        except (av.error.FFmpegError, OSError) as error:
            raise feed.error or CameraError(
                self._source, f"it cannot be read ({reason_of(error)})"
            ) from error
        if feed.error is not None:
            raise feed.error

    def _find(self, url: str, depth: int) -> tuple[str, Media]:
        """Return the media playlist behind an address, and its own address."""
        if depth >= _MAX_DEPTH:
            raise CameraError(self._source, "its playlists name but more playlists")
        url, data = self._origin.get(url, most=origin.PLAYLIST_BYTES)
        found = playlist.parse(data, url, self._source)
        return (url, found) if isinstance(found, Media) else self._find(found.best, depth + 1)

    def _reload(self) -> Media:
        _, data = self._origin.get(self._url, most=origin.PLAYLIST_BYTES)
        found = playlist.parse(data, self._url, self._source)
        if not isinstance(found, Media):
            raise CameraError(self._source, "its playlist became one of playlists")
        return found

    def _following(self) -> Iterator[Segment]:
        """Yield the last segment, and each that is added after it."""
        media, number, moved = self._media, -1, time.monotonic()
        while True:
            if media.segments and media.segments[-1].number < number:
                number = -1  # its numbers began anew
            waiting = [each for each in media.segments if each.number > number]
            if number < 0 or len(waiting) > _BEHIND:
                waiting = waiting[-1:]
            for segment in waiting:
                yield segment
                number, moved = segment.number, time.monotonic()
            if media.ended:
                return
            if time.monotonic() - moved > max(origin.TIMEOUT_S, _TARGETS * media.target):
                raise CameraError(self._source, "its playlist does not go on")
            poll = min(_LONGEST_POLL_S, max(_SHORTEST_POLL_S, media.target / 4))
            if not waiting and self._stop.wait(poll):
                return
            media = self._reload()


class _Feed:
    """Segments one after the other, as the file that the decoder reads.

    Args:
        server: where segments are fetched.
        first: the first one, whose beginning (`init`) all share; another one ends the feed.
        rest: those that follow.
        stop: ends the feed.
        patient: keep an error until all that came before it is decoded, in `error`; else raise it.
    """

    def __init__(
        self,
        server: Origin,
        first: Segment,
        rest: Iterator[Segment],
        stop: threading.Event,
        *,
        patient: bool = False,
    ) -> None:
        self._server, self._init, self._stop = server, first.init, stop
        self._segments = chain([first], rest)
        self._patient = patient
        self._chunk, self._at = b"", 0
        self._begun = self._over = False
        self.error: CameraError | None = None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end."""
        while self._at >= len(self._chunk) and not (self._over or self._stop.is_set()):
            try:
                self._fetch()
            except CameraError as error:
                if not self._patient:
                    raise
                self._over, self.error = True, error
        if self._over or self._stop.is_set():
            return b""
        piece = self._chunk[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def _fetch(self) -> None:
        """Take the next segment."""
        segment = next(self._segments, None)
        if segment is None or segment.init != self._init:
            self._over = True
            return
        head = b""
        if segment.init is not None and not self._begun:
            head = self._server.get(segment.init.url, most=origin.SEGMENT_BYTES, part=segment.init.part)[1]
        body = self._server.get(segment.url, most=origin.SEGMENT_BYTES, part=segment.part)[1]
        self._chunk, self._at, self._begun = head + body, 0, True


class _Paced:
    """A container whose packets come at their own time: a segment comes all at once, a live stream does not.

    Args:
        container: open.
        target: the longest that a segment lasts, in seconds. All is held back for a part of it, so that the
            next segment is there in time.
        stop: ends the waiting.
    """

    def __init__(self, container: Container, target: float, stop: threading.Event) -> None:
        self._container, self._stop = container, stop
        self._delay, self._leap = min(_LONGEST_DELAY_S, target / 2), max(_LEAP_S, target)
        self._zero, self._last = math.inf, math.inf

    def __getattr__(self, name: str) -> object:
        return getattr(self._container, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def demux(self, stream: av.VideoStream) -> Iterator[video.Packet]:
        """Yield packets when they are due."""
        for packet in self._container.demux(stream):
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is not None and packet.time_base is not None:
                self._stop.wait(self._until(float(stamp * packet.time_base)))
            yield packet

    def _until(self, stamp: float) -> float:
        """Return in how many seconds a packet of this time is due."""
        now = time.monotonic()
        if not 0 <= stamp - self._last <= self._leap:
            # The beginning, segments left out, or another clock.
            delay = self._delay if self._last == math.inf else 0.0
            self._zero = max(now + delay, self._zero + self._last if self._last < math.inf else 0.0) - stamp
        elif now - self._zero - stamp > _LATE_S:
            self._zero = now - stamp
        self._last = stamp
        return max(0.0, self._zero + stamp - now)


def _open(feed: _Feed) -> Container:
    options = {
        "format_whitelist": "mpegts,mov", "protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS),
        "fpsprobesize": "0",
    }  # fmt: skip
    return cast("Container", av.open(feed, metadata_errors="replace", options=options))
