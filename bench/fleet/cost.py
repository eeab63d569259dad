"""What a fleet costs: tables for docs/cost.md from what was measured and a list of prices.

`python -m bench.fleet.cost` writes the tables between the marks of docs/cost.md; `--check` only compares.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

_HERE: Final = Path(__file__).parent
_PAGE: Final = _HERE.parent.parent / "docs" / "cost.md"
_BEGIN, _END = "<!-- made by bench/fleet/cost.py -->\n", "<!-- end -->\n"
_DAY_S: Final = 86_400
_MONTH_DAYS: Final = 30
_GB: Final = 1e9

CAMERAS: Final = (10, 1_000, 100_000)
DOORS: Final = {"a quiet door": 2_000, "a face a second": _DAY_S}
"""Faces of a camera in a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one site and one face took, beside each other.

    Attributes:
        face_up: bytes of MQTT that a face takes up; `face_down`: its receipt's.
        idle_up: bytes a second of a site at rest, and `idle_down`.
        face_us: CPU microseconds a face takes of brokers and stores.
        idle_us: CPU microseconds a second that a site at rest takes of them.
        site_mb: megabytes of brokers and stores for each site.
    """

    face_up: float
    face_down: float
    idle_up: float
    idle_down: float
    face_us: float
    idle_us: float
    site_mb: float

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Self:
        """Read it from a result of `python -m bench.fleet` that had an idle phase and counted lines."""
        phases = run["phases"]
        idle, busy = phases["idle"], phases.get("before") or phases["play"]
        sites, rate = run["fleet"]["sites"], run["fleet"]["rate"]
        cloud = ("broker", "store")
        return cls(
            face_up=(busy["line_bytes_s"]["up"] - idle["line_bytes_s"]["up"]) / rate,
            face_down=(busy["line_bytes_s"]["down"] - idle["line_bytes_s"]["down"]) / rate,
            idle_up=idle["line_bytes_s"]["up"],
            idle_down=idle["line_bytes_s"]["down"],
            face_us=sum(run["cpu_us_per_face"][role]["marginal"] for role in cloud),
            idle_us=sum(idle["cpu_share"][role] for role in cloud) / sites * 1e6,
            site_mb=sum(idle["peak_mb"][role] for role in cloud) / sites,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """What a fleet takes in 30 days.

    Attributes:
        up_gb, down_gb: over the lines of all sites.
        cores: of brokers and stores, on average.
        stored_gb: in the bucket, once as much goes as comes.
        face_requests: class A: objects, or tars and catalogues.
        site_requests: class A: books and history.
        store_requests: class A: looks at tombstones.
        reads: class B.
    """

    up_gb: float
    down_gb: float
    cores: float
    stored_gb: float
    face_requests: float
    site_requests: float
    store_requests: float
    reads: float

    @property
    def requests(self) -> float:
        """All of class A."""
        return self.face_requests + self.site_requests + self.store_requests


def month(
    cameras: int,
    faces_a_day: float,
    measured: Measured,
    assumed: Mapping[str, float],
    *,
    shards: bool = False,
) -> Month:
    """Return what a fleet of sites of one camera each takes; its arithmetic is that of docs/cost.md."""
    faces = cameras * faces_a_day * _MONTH_DAYS
    seconds = _MONTH_DAYS * _DAY_S
    cores = (faces * measured.face_us / seconds + cameras * measured.idle_us) / 1e6
    count = stores(cameras, assumed)
    busy_s = min(_DAY_S, faces_a_day * assumed["busy_ledger_s"])
    ledgers = _MONTH_DAYS * (busy_s / assumed["busy_ledger_s"] + (_DAY_S - busy_s) / assumed["ledger_s"])
    marks = seconds / assumed["history_s"]
    size = faces * measured.face_up
    tars = max(size / assumed["shard_bytes"], count * min(seconds / assumed["shard_s"], faces / count))
    looks = count * min(seconds / assumed["shards_tombstones_s" if shards else "tombstones_s"], faces / count)
    return Month(
        up_gb=(size + cameras * measured.idle_up * seconds) * assumed["line_overhead"] / _GB,
        down_gb=(faces * measured.face_down + cameras * measured.idle_down * seconds)
        * assumed["line_overhead"] / _GB,
        cores=cores,
        stored_gb=size / _MONTH_DAYS * assumed["retention_days"] / _GB,
        face_requests=2 * tars if shards else faces,
        site_requests=cameras * (ledgers + marks),
        store_requests=looks + (assumed["looks_at_closing"] * tars if shards else 0),
        reads=cameras * marks,
    )  # fmt: skip


def stores(cameras: int, assumed: Mapping[str, float]) -> int:
    """Return how many stores it takes for the books of all sites."""
    return math.ceil(cameras / assumed["sites_per_store"])


def machines(one: Month, cameras: int, measured: Measured, assumed: Mapping[str, float]) -> int:
    """Return machines for brokers and stores: by cores, by memory at 6 of 8 GB, or one for each store."""
    by_cores = one.cores / (assumed["cores_per_machine"] * assumed["busy"])
    by_memory = cameras * measured.site_mb / 6_000
    return max(1, math.ceil(by_cores), math.ceil(by_memory), math.ceil(stores(cameras, assumed) / 2))


def money(one: Month, prices: Mapping[str, float], count: int) -> dict[str, float]:
    """Return dollars a month, by what they are for."""
    a = prices["class_a_1000"] / 1000
    return {
        "storage": one.stored_gb * prices["storage_gb_month"],
        "faces' requests": one.face_requests * a,
        "sites' requests": one.site_requests * a + one.reads * prices["class_b_1000"] / 1000,
        "stores' requests": one.store_requests * a,
        "machines": count * prices["machine_month"],
    }


def tables(measured: Measured, known: Mapping[str, Any]) -> str:
    """Return the tables in Markdown."""
    assumed, lines = known["assumed"], []
    lines += [
        "Measured, for one site of one camera:\n",
        "| a face, up / down | at rest, up / down | CPU in the cloud, a face | at rest | memory |",
        "|-|-|-|-|-|",
        _row(
            f"{measured.face_up:,.0f} / {measured.face_down:,.0f} B",
            f"{measured.idle_up * 3.6:,.0f} / {measured.idle_down * 3.6:,.0f} kB an hour",
            f"{measured.face_us:,.0f} µs",
            f"{measured.idle_us:,.0f} µs a second",
            f"{measured.site_mb:.2f} MB",
        ),
        "",
        "In a month of 30 days:\n",
        _row(
            "cameras",
            "each",
            "lines up / down",
            "cores",
            "in the bucket",
            "PUTs of faces: objects / shards",
            "PUTs of books and history",
            "machines",
        ),
        "|-|-|-|-|-|-|-|-|",
    ]
    rows = [(n, door, faces) for door, faces in DOORS.items() for n in CAMERAS]
    for n, door, faces in rows:
        one = month(n, faces, measured, assumed)
        tars = month(n, faces, measured, assumed, shards=True).face_requests
        lines.append(
            f"| {n:,} | {door} | {_gb(one.up_gb)} / {_gb(one.down_gb)} | {one.cores:,.2f} |"
            f" {_gb(one.stored_gb)} | {_millions(one.face_requests)} / {_millions(tars)} |"
            f" {_millions(one.site_requests)} | {machines(one, n, measured, assumed)} |"
        )
    for provider in known["provider"].values():
        lines += ["", *_bill(provider, rows, measured, assumed)]
    return "\n".join(lines) + "\n"


def _bill(
    prices: Mapping[str, Any],
    rows: Sequence[tuple[int, str, int]],
    measured: Measured,
    assumed: Mapping[str, float],
) -> list[str]:
    heads = ("storage", "faces' requests", "sites' requests", "stores' requests", "machines")
    lines = [
        f"{prices['title']}, dollars a month ({prices['source']}):\n",
        f"| cameras | each | layout | {' | '.join(heads)} | all |",
        "|-" * (len(heads) + 4) + "|",
    ]
    for n, door, faces in rows:
        for layout in ("objects", "shards"):
            one = month(n, faces, measured, assumed, shards=layout == "shards")
            paid = money(one, prices, machines(one, n, measured, assumed))
            costs = " | ".join(f"{paid[head]:,.2f}" for head in heads)
            lines.append(f"| {n:,} | {door} | {layout} | {costs} | {sum(paid.values()):,.0f} |")
    return lines


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _gb(gb: float) -> str:
    return f"{gb / 1000:,.1f} TB" if gb >= 1000 else f"{gb:,.1f} GB"


def _millions(n: float) -> str:
    return f"{n / 1e6:,.2f} M"


def page(text: str, made: str) -> str:
    """Return the page with its tables made anew."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + "\n" + made + "\n" + _END + rest.partition(_END)[2]


def main() -> int:
    """Write the tables, or compare them."""
    parser = argparse.ArgumentParser(prog="bench.fleet.cost", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--name", default="cost", help="of the run in bench/results/fleet.json (cost)")
    options = parser.parse_args()
    found = json.loads((_HERE.parent / "results" / "fleet.json").read_text(encoding="utf-8"))
    known = tomllib.loads((_HERE / "prices.toml").read_text(encoding="utf-8"))
    text = _PAGE.read_text(encoding="utf-8")
    fresh = page(text, tables(Measured.of(found[options.name]["runs"][-1]), known))
    if options.check:
        return int(fresh != text)
    _PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
