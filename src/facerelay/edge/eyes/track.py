"""Which detections belong to one visit: tracks over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from facerelay.edge.cameras.raster import Raster
from facerelay.edge.eyes.course import Found, Track
from facerelay.edge.eyes.detect import Detection
from facerelay.edge.eyes.join import alone, join
from facerelay.edge.eyes.places import OFTEN, Places, Rest

_LOOK_S: Final = 0.5
"""The colours of whoever stands alone are looked at so often."""

_SETTLED_S: Final = 10.0
_LONG_S: Final = 20.0
"""Whoever does not move for so long is taken for a picture that may come back; people move."""


class Sighting(NamedTuple):
    """A face in a frame, and the visit it belongs to.

    Attributes:
        track: the visit's number.
        detection: the face.
        screen: whether it is only one more face on a screen.
        returned: whether it is new in its place, and was taken for that earlier visit.
    """

    track: int
    detection: Detection
    screen: bool = False
    returned: bool = False


class Update(NamedTuple):
    """What a frame's detections were taken for, and the tracks that ended."""

    seen: list[Sighting]
    ended: list[int]


class Tracker:
    """Joins detections to tracks: the nearest to where each should be, if it is near enough.

    A track is one visit. It lives through misses of up to `gap_s` seconds of the stream's clock. Where two
    are near each other, their colours tell them apart. A visit that did not move for 20 seconds, or the third
    of the same look in one place (a poster), goes on when its face comes back there within `rest_s` seconds.
    """

    def __init__(self, *, gap_s: float = 1.5, rest_s: float = 600.0) -> None:
        self._gap_s = gap_s
        self._places = Places(rest_s=rest_s)
        self._tracks: list[Track] = []
        self._last = 0
        self._looked = 0.0

    def update(
        self,
        pts: float,
        detections: Sequence[Detection],
        raster: Raster | None = None,
        *,
        doubt: bool = False,
        still: bool = False,
    ) -> Update:
        """Take a frame's detections.

        Args:
            pts: the frame's time on the stream's clock, in seconds; not before the last one's.
            detections: all faces of the frame.
            raster: the frame; with it, colours are looked at, places are remembered, and who walked out of
                it has ended at once.
            doubt: the frame may be of another scene, so that place alone does not tell whose a face is.
            still: the frame stands alone, so that nobody in it is known to have never moved.

        Returns:
            Each detection with its track's number (from 1, never used twice), and the tracks that ended.
        """
        ended, self._looked = self.miss(pts).ended, pts
        found = [Found.of(each, raster) for each in detections]
        last = self._last
        owner = join(self._tracks, found, pts, doubt=doubt)
        missing = [each for each in self._tracks if each not in owner.values()]
        tracks = [owner.get(at) or self._begin(pts, each, still=still) for at, each in enumerate(found)]
        returned = [at not in owner and each.number <= last for at, each in enumerate(tracks)]
        for track, each in zip(tracks, found, strict=True):
            track.take(pts, each)
        self._look(pts, list(zip(tracks, found, strict=True)))
        for track in missing:
            track.missed = True
        if raster is not None:
            ended += self._end([each for each in missing if each.has_left(pts, raster.size)])
        ended += [number for each in tracks for number in self._promote(each)]
        seen = [
            Sighting(each.number, each.detection, each.screen is not None, back)
            for each, back in zip(tracks, returned, strict=True)
        ]
        return Update(seen, ended)

    @property
    def coasting(self) -> bool:
        """Whether somebody was not seen in the last frame, and may come back."""
        return any(each.seen < self._looked for each in self._tracks)

    def miss(self, pts: float) -> Update:
        """Let time pass of which nothing is known, and return the tracks that it ended."""
        ended = self._end([each for each in self._tracks if pts - each.seen > self._gap_s])
        return Update([], ended + self._places.forget(pts))

    def rest(self, pts: float) -> None:
        """Take a frame in which nothing changed: whoever was seen in the last one is there still."""
        for each in self._tracks:
            if each.seen == self._looked:
                each.seen = pts
        self._looked = pts

    def finish(self) -> list[int]:
        """End all tracks, forget all places, and return the numbers of the visits that end with them."""
        numbers = {each.number for each in self._tracks} | set(self._places.clear())
        self._tracks = []
        return sorted(numbers)

    def _end(self, tracks: list[Track]) -> list[int]:
        """End tracks, and return the visits that are over: all but those that may come back in their place.

        Of whom was lost while nobody looked, it is not known whether they walked away, unless they had
        been there for long.
        """
        ended: list[int] = []
        for track in tracks:
            self._tracks.remove(track)
            if track.screen is not None:
                track.screen.seen = track.seen
                ended += self._places.leave(track.screen)
            elif track.colours and _may_rest(track):
                times = OFTEN if track.seen - track.began >= _LONG_S else track.times
                rest = Rest(track.number, track.detection, track.colours, track.seen, times)
                ended += self._places.leave(rest)
            else:
                ended.append(track.number)
        return ended

    def _begin(self, pts: float, found: Found, *, still: bool) -> Track:
        looked = None if still else found.colours
        back = self._places.enter(found.detection, looked, pts) if looked else None
        if back and back.rest.held:
            track = Track.begin(back.rest.number, pts, found, back.rest if back.screen else None)
            track.colours, track.times = back.rest.colours, back.rest.times
        else:
            self._last += 1
            track = Track.begin(self._last, pts, found)
            track.still, track.times = still, back.rest.times + 1 if back else 1
        self._tracks.append(track)
        return track

    def _promote(self, track: Track) -> list[int]:
        """Make a visitor of what was taken for a face on a screen, and moves; return visits that are over."""
        if track.screen is None or track.stayed:
            return []
        over = self._places.leave(track.screen)
        self._last += 1
        track.number, track.screen, track.times = self._last, None, 1
        return over

    def _look(self, pts: float, seen: list[tuple[Track, Found]]) -> None:
        """Look at the colours of whoever stands alone, now and then, and of whoever is new."""
        for track, found in seen:
            if pts - track.looked < _LOOK_S:
                continue
            if track.colours is None or alone(found, [each for each in self._tracks if each is not track]):
                track.look(pts, found)


def _may_rest(track: Track) -> bool:
    """Tell whether it never moved, and was looked for since, or had been there for long."""
    known = track.missed or track.seen - track.began >= _SETTLED_S
    return track.stayed and known and not track.still
