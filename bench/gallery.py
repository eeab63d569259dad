"""The gallery over a month of faces: `python -m bench.gallery [--faces N] [--buckets folder,seaweedfs]`.

With `--layout shards` the faces lie in shards of a thousand, and not each as an object.

Fills a bucket with faces of 20 cameras over 30 days, each a small JPEG with an EXIF of its own, then asks the
gallery, as a process of its own with an empty cache, what its pages ask: first cold, then again; over
SeaweedFS a second time with a line of 30 ms between. Beside it, in the same run, the plain way: list
everything, sort by time, take the first sixty.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from bench import gallery_shards
from bench.gallery_fill import CAMERAS, DAYS, fill_folder, fill_s3, fresh
from bench.plain import ACCESS_KEY, BUCKET, SECRET_KEY, client_s3
from bench.processes import Process, program, python, seaweedfs, wait_for_port
from facerelay import config
from facerelay.commands.supervise import free_ports
from facerelay.face import Frozen

_RESULTS = Path(__file__).parent / "results" / "gallery.json"
_PAGE = 60
_DEEP = 30
_TIMES = 5
_LIVE = 20
_AWAY_S = 0.03


@dataclass(frozen=True, slots=True)
class Row:
    """What one question cost: the median and the worst time in milliseconds, and requests to the bucket."""

    asked: str
    times: int
    ms: float
    worst_ms: float
    requests: int


Put = Callable[[Frozen], None]


class Page:
    """A connection to the gallery, as a browser keeps it open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> tuple[bytes, float, int]:
        """Return an answer, the milliseconds that it took, and the bucket requests behind it."""
        begin = time.perf_counter()
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - begin) * 1000
        assert answer.status == 200, (path, answer.status, body[:200])
        return body, took, int(answer.headers["X-Bucket-Requests"])

    def row(self, asked: str, paths: list[str]) -> Row:
        """Ask each once, and return what it cost."""
        found = [self.get(path)[1:] for path in paths]
        times = [took for took, _ in found]
        return Row(
            asked, len(paths), round(statistics.median(times), 1), round(max(times), 1),
            max(requests for _, requests in found),
        )  # fmt: skip


@contextmanager
def gallery(settings: dict[str, str], folder: Path, name: str) -> Iterator[tuple[Page, Process]]:
    """Run the gallery with an empty cache."""
    (port,) = free_ports(1)
    chosen = {**settings, "gallery.port": str(port), "gallery.cache": str(folder / f"cache-{port}")}
    command = [program("facerelay"), "gallery"]
    for key, value in chosen.items():
        command += ["--set", f"{key}={value}"]
    process = Process(f"gallery-{name}", command, folder / f"gallery-{name}.log")
    try:
        wait_for_port(port, process)
        yield Page(port), process
    finally:
        process.end()


def measure(settings: dict[str, str], folder: Path, now: datetime, put: Put) -> dict[str, Any]:
    """Ask all questions of one bucket."""
    dates = [(now - timedelta(days=back)).date().isoformat() for back in range(DAYS)]
    noons = [f"/api/faces?limit={_PAGE}&at={date}T12:00:00Z" for date in dates[1:]]
    hours = [f"/api/timeline/day?date={date}" for date in dates]
    first = f"/api/faces?limit={_PAGE}"
    colds: list[tuple[float, int]] = []
    for number in range(_TIMES):  # each in a process of its own
        with gallery(settings, folder, f"cold{number}") as (page, _):
            colds.append(page.get(first)[1:])
    with gallery(settings, folder, "all") as (page, process):
        rows = [
            Row(
                "first page, cold", len(colds), round(statistics.median(ms for ms, _ in colds), 1),
                round(max(ms for ms, _ in colds), 1), max(requests for _, requests in colds),
            ),
            page.row("the month's days, cold", ["/api/timeline"]),
            page.row("any day's page, cold", noons),
            page.row("any day's page, again", noons),
            page.row("any day's hours, cold", hours),
            page.row("any day's hours, again", hours),
            page.row("first page, again", [first] * 20),
            page.row("two cameras' first page", [f"{first}&camera=camera-{n}" for n in range(10)]),
            _scroll(page, first),
            page.row("first page of quality 0.8, cold", [f"{first}&quality=0.8"]),
            page.row("first page of quality 0.8, again", [f"{first}&quality=0.8"] * 5),
            _thumbs(page, noons[3], "thumbnail, cold"),
            _thumbs(page, noons[3], "thumbnail, again"),
            _faces(page, noons[3]),
            _live(page, put),
        ]  # fmt: skip
        peak = process.usage().peak_mb
    return {"rows": [asdict(row) for row in rows], "peak_mb": round(peak, 1)}


def _live(page: Page, put: Put) -> Row:
    """Listen, put faces one by one, and take the time from a PUT's answer to its event."""
    times = []
    with socket.create_connection(("127.0.0.1", page.port)) as stream, stream.makefile("rb") as lines:
        stream.sendall(b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while not lines.readline().startswith(b"event: hello"):
            pass
        time.sleep(2)
        chance = random.Random(1)  # noqa: S311 - moments
        for one in fresh(_LIVE):
            put(one)
            begin = time.perf_counter()
            while one.face.id.encode() not in lines.readline():
                pass
            times.append((time.perf_counter() - begin) * 1000)
            time.sleep(chance.random())
    return Row("from a PUT to its event", _LIVE, round(statistics.median(times), 1), round(max(times), 1), 0)


def _scroll(page: Page, first: str) -> Row:
    """Go back page by page."""
    found, path = [], first
    for _ in range(_DEEP):
        body, took, requests = page.get(path)
        found.append((took, requests))
        path = f"{first}&cursor={quote(json.loads(body)['next'])}"
    times = [took for took, _ in found]
    return Row(
        f"scrolling {_DEEP} pages", _DEEP, round(statistics.median(times), 1), round(max(times), 1),
        max(requests for _, requests in found),
    )  # fmt: skip


def _keys(page: Page, path: str) -> list[str]:
    return [quote(face["key"]) for face in json.loads(page.get(path)[0])["faces"]]


def _thumbs(page: Page, path: str, asked: str) -> Row:
    return page.row(asked, [f"/thumb?key={key}" for key in _keys(page, path)])


def _faces(page: Page, path: str) -> Row:
    return page.row("a face's page", [f"/api/face?key={key}" for key in _keys(page, path)[:20]])


def peer(kind: str, where: str) -> dict[str, Any]:
    """Run the plain way in a process of its own; the median of three."""
    runs = []
    for _ in range(3):
        done = subprocess.run(
            python("bench.gallery_peer", kind, where, _PAGE), check=True, capture_output=True, text=True
        )
        runs.append(json.loads(done.stdout))
    return dict(sorted(runs, key=lambda run: run["ms"])[1])


def run_folder(count: int, now: datetime, folder: Path, *, layout: str) -> dict[str, Any]:
    """Measure over a folder."""
    bucket = folder / "bucket"
    if layout == "shards":
        where = config.Bucket(url=f"file://{bucket}")
        filled = _timed(lambda: gallery_shards.fill(where, count, now))
        found = measure({"bucket.url": where.url}, folder, now, gallery_shards.putting(where))
        return {"bucket": "folder, shards", "filled_s": filled, **found, "peer": None}
    filled = _timed(lambda: fill_folder(bucket, count, now))
    found = measure({"bucket.url": f"file://{bucket}"}, folder, now, lambda one: _write(bucket, one))
    return {"bucket": "folder", "filled_s": filled, **found, "peer": peer("folder", str(bucket))}


def run_seaweedfs(count: int, now: datetime, folder: Path, *, layout: str) -> dict[str, Any]:
    """Measure over SeaweedFS."""
    with seaweedfs(folder) as s3:
        where = config.Bucket(
            url=f"s3://{BUCKET}/month", endpoint=s3.endpoint, access_key=ACCESS_KEY,
            secret_key=SecretStr(SECRET_KEY),
        )  # fmt: skip
        shards = layout == "shards"
        filled = _timed(
            (lambda: gallery_shards.fill(where, count, now))
            if shards
            else (lambda: fill_s3(s3.endpoint, count, now))
        )
        settings = {
            "bucket.url": f"s3://{BUCKET}/month", "bucket.endpoint": s3.endpoint,
            "bucket.access_key": ACCESS_KEY, "bucket.secret_key": SECRET_KEY,
        }  # fmt: skip
        client = client_s3(s3.endpoint)

        def put_object(one: Frozen) -> None:
            client.put_object(Bucket=BUCKET, Key=f"month/{one.key}", Body=one.data)

        put = gallery_shards.putting(where) if shards else put_object
        found = measure(settings, folder, now, put)
        (port,) = free_ports(1)
        proxy = Process("away", python("bench.gallery_away", port, s3.endpoint, _AWAY_S), folder / "away.log")
        try:
            wait_for_port(port, proxy)
            away = measure(settings | {"bucket.endpoint": f"http://127.0.0.1:{port}"}, folder, now, put)
        finally:
            proxy.end()
        peers = None if shards else peer("s3", s3.endpoint)
        return {
            "bucket": "seaweedfs, shards" if shards else "seaweedfs",
            "filled_s": filled,
            **found,
            "peer": peers,
            "away": away,
        }


def _write(bucket: Path, one: Frozen) -> None:
    """Give a file its name when it is whole, as the store does."""
    path, partial = bucket / one.key, bucket / ".part"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(one.data)
    partial.rename(path)


def _timed(work: Callable[[], None]) -> float:
    begin = time.monotonic()
    work()
    return round(time.monotonic() - begin, 1)


def show(found: dict[str, Any]) -> None:
    """Print one bucket's table."""
    if found.get("away"):
        show(
            {
                **found,
                **found["away"],
                "bucket": f"{found['bucket']}, {_AWAY_S * 1000:.0f} ms away",
                "away": None,
            }
        )
    title = f"{found['bucket']}, filled in {found['filled_s']} s: peak of the gallery {found['peak_mb']} MB"
    table = Table(title=title)
    for head in ("asked", "times", "median ms", "worst ms", "bucket requests"):
        table.add_column(head, justify="left" if head == "asked" else "right")
    for row in found["rows"]:
        table.add_row(*(str(row[name]) for name in ("asked", "times", "ms", "worst_ms", "requests")))
    if plain := found["peer"]:
        table.add_section()
        table.add_row(
            f"{plain['name']} ({plain['peak_mb']} MB)", "3", str(plain["ms"]), "", str(plain["requests"])
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faces", type=int, default=200_000)
    parser.add_argument("--buckets", default="folder,seaweedfs")
    parser.add_argument("--layout", choices=["objects", "shards"], default="objects")
    parser.add_argument(
        "--save", action="store_true", help="write bench/results/gallery.json, or gallery-shards.json"
    )
    chosen = parser.parse_args()
    known = {"folder": run_folder, "seaweedfs": run_seaweedfs}
    now, load = datetime.now(UTC), os.getloadavg()[0]
    results = []
    for name in chosen.buckets.split(","):
        with tempfile.TemporaryDirectory(prefix="facerelay-", ignore_cleanup_errors=True) as made:
            results.append(known[name](chosen.faces, now, Path(made), layout=chosen.layout))
            show(results[-1])
    if chosen.save:
        about = {
            "time": now.isoformat(), "faces": chosen.faces, "cameras": CAMERAS, "days": DAYS,
            "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "load_before": round(load, 2)},
            "python": platform.python_version(),
        }  # fmt: skip
        path = _RESULTS if chosen.layout == "objects" else _RESULTS.with_name("gallery-shards.json")
        path.write_text(json.dumps({**about, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
