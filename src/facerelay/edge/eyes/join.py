"""Which detection of a frame is whose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final, TypeAlias

from facerelay.edge.eyes.course import Found, Track

_MAX_RATIO: Final = math.log(1.8)
_FAR_RATIO: Final = math.log(1.4)
"""How much a face's size may differ from what it was; less from afar."""

_COLOURS_WEIGHT: Final = 3.0
"""What colours count for, beside distances in sizes of the face, where it is in doubt whose face it is."""

_SAME, _NOT_SAME, _OTHER = 0.28, 0.33, 0.45
_LOST_S: Final = 0.3
"""Who was not seen for so long does not come back in quite other colours."""

_LEFT_REACH: Final = 0.5
_ALONE: Final = 2.5

_Pair: TypeAlias = tuple[float, int, int]
"""What may be joined: cost, place of the track, place of the detection in their lists."""


def join(
    tracks: Sequence[Track], found: Sequence[Found], pts: float, *, doubt: bool = False
) -> dict[int, Track]:
    """Return whose each detection is, by its place in the list; those that are missing are nobody's.

    In `doubt` the picture may be of another scene: who has other colours is another person.

    The cost is the distance between the predicted and the found centre in sizes of the face, plus how much
    the size differs (as a logarithm); where it is in doubt, plus how much the colours do. Who is still free
    then may have come from farther, in the same colours.
    """
    owner: dict[int, Track] = {}
    _assign(_near(tracks, found, pts, doubt=doubt), tracks, owner)
    _assign(_far(tracks, found, pts, owner, doubt=doubt), tracks, owner)
    return owner


def _assign(pairs: list[_Pair], tracks: Sequence[Track], owner: dict[int, Track]) -> None:
    """Give each detection its cheapest track, then let two exchange theirs wherever that is cheaper."""
    costs = {(number, at): cost for cost, number, at in pairs}
    chosen: dict[int, int] = {}
    for _, number, at in sorted(pairs):
        if number not in chosen.values() and at not in chosen:
            chosen[at] = number
    offered = Counter(at for _, _, at in pairs)
    for one, other in combinations([at for at in chosen if offered[at] > 1], 2):
        a, b = chosen[one], chosen[other]
        if costs[a, one] + costs[b, other] > costs.get((a, other), math.inf) + costs.get((b, one), math.inf):
            chosen[one], chosen[other] = b, a
    owner.update((at, tracks[number]) for at, number in chosen.items())


def _near(tracks: Sequence[Track], found: Sequence[Found], pts: float, *, doubt: bool) -> list[_Pair]:
    """Return what may be joined; whoever should be out of the frame by now is not looked for so far in it."""
    pairs = []
    raster = found[0].raster if found else None
    for number, track in enumerate(tracks):
        left = raster is not None and track.has_left(pts, raster.size)
        reach = track.reach(pts) * (_LEFT_REACH if left else 1)
        for at, each in enumerate(found):
            away, ratio = track.apart(pts, each)
            if away <= reach and ratio <= _MAX_RATIO:
                pairs.append((away + ratio, number, at))
    wanted, offered = Counter(number for _, number, _ in pairs), Counter(at for _, _, at in pairs)
    weighed = []
    for cost, number, at in pairs:
        track, each, more = tracks[number], found[at], 0.0
        lost = pts - track.seen > _LOST_S
        if doubt or lost or wanted[number] > 1 or offered[at] > 1:
            more = track.unlike(each, doubt=doubt) or 0.0
        if doubt and more > _NOT_SAME:
            continue
        if not (lost and more > _OTHER and alone(each, [other for other in found if other is not each])):
            weighed.append((cost + _COLOURS_WEIGHT * more, number, at))
    return weighed


def _far(
    tracks: Sequence[Track], found: Sequence[Found], pts: float, owner: dict[int, Track], *, doubt: bool
) -> list[_Pair]:
    """Return pairs of whoever is left, farther from each other, but in the same colours.

    Whoever should be out of the frame by now does not come back from so far.
    """
    taken, pairs = {id(track) for track in owner.values()}, []
    raster = found[0].raster if found else None
    for number, track in enumerate(tracks):
        if id(track) in taken or raster is None or track.has_left(pts, raster.size):
            continue
        reach = track.far_reach(pts)
        for at, each in enumerate(found):
            away, ratio = track.apart(pts, each)
            if at not in owner and away <= reach and ratio <= _FAR_RATIO:
                unlike = track.unlike(each, doubt=doubt)
                if unlike is not None and unlike <= _SAME:
                    pairs.append((away + ratio + _COLOURS_WEIGHT * unlike, number, at))
    return pairs


def alone(found: Found, others: Iterable[Found | Track]) -> bool:
    """Tell whether none of the others is so near (2.5 sizes of a face) that one may hide a part of it."""
    return all(
        math.hypot(each.x - found.x, each.y - found.y) >= _ALONE * max(each.size, found.size)
        for each in others
    )
