"""Books and links as metrics: of this machine's outbox, or of all that a store has heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, get_args

from facerelay.alarms import Alarm, Kind, Severity
from facerelay.messages import Account, LinkHealth
from facerelay.metrics import catalogue as c
from facerelay.metrics.base import Metric, Reading
from facerelay.reasons import KNOWN, explain

Camera = tuple[str, str]
"""Site and camera."""

_COUNTERS: Final[Mapping[Metric, str]] = {
    c.FRAMES: "frames", c.INSPECTED: "inspected", c.GAPS: "gaps", c.DARK: "dark_s",
    c.DETECTIONS: "detections", c.CAPTURED: "captured", c.STORED: "stored", c.SENT: "sent",
    c.ERASED: "erased", c.DUPLICATES: "duplicates", c.SENT_BYTES: "bytes",
}  # fmt: skip
_COLUMNS: Final = {"dropped": c.DROPPED, "refused": c.REFUSED, "unsent": c.UNSENT}
_ALWAYS: Final = {
    column: [code for code, reason in KNOWN.items() if reason.column == column]
    for column in ("dropped", "refused")
}
"""Reasons told at 0 as well: an increase from nothing at all is one that Prometheus does not see."""


class Books:
    """Turns books into readings.

    A face that was dropped or refused, and then receipted after all, leaves its column; a counter that falls
    counts for Prometheus as one that began anew. So a counter that falls a little is told as it was; one that
    falls by more than half has indeed begun anew.
    """

    def __init__(self) -> None:
        self._most: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def read(self, cameras: Mapping[Camera, Sequence[Account]]) -> Iterator[Reading]:
        """Yield the readings of cameras, each with the books that several outboxes may have of it.

        Those beyond `MOST_CAMERAS` are summed up as `other`.
        """
        rows = list(_capped(cameras))
        for camera, accounts in rows:
            for reading in _of(camera, accounts):
                yield self._risen(reading) if reading.metric.kind == "counter" else reading

    def _risen(self, reading: Reading) -> Reading:
        assert isinstance(reading.value, float | int)  # noqa: S101 - counters alone come here
        key = reading.metric, reading.labels
        most = self._most.get(key, 0)
        told = self._most[key] = most if most / 2 < reading.value < most else reading.value
        return reading._replace(value=told)


def camera_of(name: str) -> Camera:
    """Return site and camera of a name in the books."""
    site, _, camera = name.partition("/")
    return site, camera


def _fairly(cameras: Iterable[Camera]) -> list[Camera]:
    """Return cameras by name; what a site has beyond half of those that are named comes after all others."""
    seen = Counter[str]()
    order: list[tuple[bool, Camera]] = []
    for camera in sorted(cameras):
        seen[camera[0]] += 1
        order.append((seen[camera[0]] > c.MOST_CAMERAS // 2, camera))
    return [camera for _, camera in sorted(order)]


def _capped(cameras: Mapping[Camera, Sequence[Account]]) -> Iterator[tuple[Camera, Sequence[Account]]]:
    names = _fairly(cameras)
    for name in names[: c.MOST_CAMERAS]:
        yield name, cameras[name]
    if rest := names[c.MOST_CAMERAS :]:
        yield (c.OTHER, c.OTHER), [account for name in rest for account in cameras[name]]


def _of(camera: Camera, accounts: Sequence[Account]) -> Iterator[Reading]:
    for metric, name in _COUNTERS.items():
        yield Reading(metric, camera, sum(getattr(account, name) for account in accounts))
    for column, metric in _COLUMNS.items():
        for reason, n in _reasons(column, accounts).items():
            yield Reading(metric, (*camera, reason), n)
    yield Reading(c.WAITING, camera, sum(account.waiting for account in accounts))
    yield Reading(c.UNACCOUNTED, camera, sum(map(_unaccounted, accounts)))
    yield Reading(c.DARK_NOW, camera, int(any(account.dark_since for account in accounts)))
    for metric, name in ((c.LATENCY_P50, "p50"), (c.LATENCY_P99, "p99")):
        times = [ms for account in accounts if (ms := getattr(account.latency_ms, name)) is not None]
        if times:
            yield Reading(metric, camera, max(times) / 1000)


def _reasons(column: str, accounts: Sequence[Account]) -> Counter[str]:
    """Return a column by its reasons; what no known one explains is under `other`."""
    found: Counter[str] = Counter(dict.fromkeys(_ALWAYS.get(column, ()), 0))
    for account in accounts:
        for code, n in account.reasons.items():
            if explain(code).column == column:
                found[code if code in KNOWN else c.OTHER] += n
        whole = getattr(account, column, 0)
        explained = sum(n for code, n in account.reasons.items() if explain(code).column == column)
        if whole > explained:
            found[c.OTHER] += whole - explained
    return found


def _unaccounted(account: Account) -> int:
    answered = account.stored + account.sent + account.dropped + account.refused + account.erased
    return account.captured - answered - account.waiting


def link(site: str, healths: Iterable[LinkHealth]) -> Iterator[Reading]:
    """Yield how a site's links do: counts summed, of the rest the worst."""
    known = list(healths)
    labels = (site,)
    yield Reading(c.OLDEST, labels, max((health.oldest_s or 0 for health in known), default=0))
    yield Reading(c.SILENT, labels, max((health.silent_s or 0 for health in known), default=0))
    trips = [health.round_trip_s for health in known if health.round_trip_s is not None]
    if trips:
        yield Reading(c.ROUND_TRIP, labels, max(trips))
    yield Reading(c.IN_FLIGHT, labels, sum(health.in_flight for health in known))
    yield Reading(c.HELD_FACES, labels, sum(health.held for health in known))
    yield Reading(c.WINDOW, labels, sum(health.window for health in known))
    dropped = [health.broker_dropped for health in known if health.broker_dropped is not None]
    if dropped:
        yield Reading(c.EDGE_DROPPED, labels, max(dropped))
    yield Reading(c.CUTS, labels, sum(health.cuts for health in known))
    yield Reading(c.RESETS, labels, sum(health.resets for health in known))


def lost(site: str, counts: Iterable[int | None]) -> Iterator[Reading]:
    """Yield how many faces the last audits of a site's outboxes have missed, if there was one."""
    known = [n for n in counts if n is not None]
    if known:
        yield Reading(c.LOST, (site,), sum(known))


_KINDS: Final[Sequence[tuple[Severity, Kind]]] = tuple(
    (severity, kind) for kind in get_args(Kind) for severity in get_args(Severity)
)


def alarms(found: Iterable[Alarm]) -> Iterator[Reading]:
    """Yield how many alarms there are of each kind, 0 included, so that each is seen to clear."""
    counts = Counter((alarm.severity, alarm.kind) for alarm in found)
    for severity, kind in _KINDS:
        yield Reading(c.ALARMS, (severity, kind), counts[severity, kind])
