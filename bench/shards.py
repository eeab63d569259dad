"""What shards cost against objects: `python -m bench.shards [--faces N] [--save]`.

Both layouts take the same faces into a real S3 (SeaweedFS), through the parts that stores use, over a proxy
that counts requests by their method and bytes both ways. Beside it: one face fetched out of a tar, and how
long DuckDB takes to count faces by hour and camera from the catalogues.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from bench.gallery_fill import pictures
from bench.packs import put_shard
from bench.plain import ACCESS_KEY, BUCKET, SECRET_KEY
from bench.processes import seaweedfs
from facerelay import config, face
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.shards.names import MOST_CATALOGUE_BYTES
from facerelay.cloud.shards.view import ShardView
from facerelay.face import Frozen

_RESULTS = Path(__file__).parent / "results" / "shards.json"
_AT_ONCE = 32
_GETS = 50
_CHUNK = 65_536
_MOST = 1_000_000
_WRITES = ("PUT", "POST", "LIST")
_WRITE_PRICE, _READ_PRICE = 0.005 / 1000, 0.0004 / 1000
"""Dollars a request: what AWS lists for S3 Standard in us-east-1, of PUT, POST and LIST, and of the rest."""

_MONTH_S = 30 * 86_400
_QUERY = """
    SELECT date_trunc('hour', time AT TIME ZONE 'UTC') AS hour, site, camera, count(DISTINCT id) AS faces
    FROM read_parquet('{0}/*/*.parquet') GROUP BY ALL ORDER BY ALL
"""


class Counted:
    """What went over a line: requests by method, bytes up and down."""

    def __init__(self) -> None:
        self.methods: Counter[str] = Counter()
        self.up = self.down = 0

    def note(self, head: bytes) -> None:
        """Count a piece that a client sent, if a request begins with it."""
        method, _, rest = head.partition(b" ")
        if method in {b"GET", b"PUT", b"POST", b"HEAD", b"DELETE"} and b" HTTP/1.1" in rest:
            path = rest.partition(b" ")[0]
            self.methods["LIST" if b"list-type=2" in path else method.decode()] += 1


@asynccontextmanager
async def counted(endpoint: str) -> AsyncIterator[tuple[str, Counted]]:
    """Run a proxy before an endpoint; its own address, and what goes over it."""
    found, there = Counted(), urlsplit(endpoint)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if up:
                    found.note(data)
                    found.up += len(data)
                else:
                    found.down += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(there.hostname, there.port)
        await asyncio.gather(carry(reader, far_writer, up=True), carry(far_reader, writer, up=False))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", found


def faces(count: int) -> Iterator[Frozen]:
    """Yield faces of four cameras, taken now."""
    shown = list(pictures())
    for number in range(count):
        yield face.freeze(
            face.Face(
                id=face.new_id(), outbox="f" * 32, run="c" * 8, seq=number + 1, site="site-0",
                camera=f"camera-{number % 4}", time=datetime.now(UTC), box=(40, 30, 80, 96),
                frame=(1280, 720), score=0.9, quality=0.5, clock="synchronised",
            ),
            shown[number % len(shown)],
        )  # fmt: skip


async def as_objects(bucket: Bucket, made: list[Frozen]) -> None:
    """Put each face, as many at once as a store does."""
    waiting = iter(made)

    async def work() -> None:
        for one in waiting:
            await bucket.put_new(one.key, one.data, content_type="image/jpeg", sha256=one.sha256)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


async def as_shards(bucket: Bucket, made: list[Frozen], each: int) -> None:
    """Put faces as shards of so many: the tar, then its catalogue."""
    for at in range(0, len(made), each):
        await put_shard(bucket, made[at : at + each])


async def stored(
    endpoint: str, prefix: str, count: int, work: Callable[[Bucket], Awaitable[None]]
) -> dict[str, Any]:
    """Store faces, and return what that cost."""
    async with counted(endpoint) as (address, cost):
        bucket = open_bucket(_where(address, prefix), quick=True)
        begin, cpu = time.perf_counter(), time.process_time()
        await work(bucket)
        took, spent = time.perf_counter() - begin, time.process_time() - cpu
        await bucket.close()
    requests = sum(cost.methods.values())
    money = _money(cost.methods) / count
    return {
        "per_1000": {
            "requests": round(1000 * requests / count, 2), "bytes": 1000 * (cost.up + cost.down) // count,
            "dollars": round(1000 * money, 7),
        },
        "methods": dict(cost.methods), "faces_per_s": round(count / took),
        "cpu_us_per_face": round(1e6 * spent / count, 1),
        "dollars_a_month_at_1_per_s": round(money * _MONTH_S, 4),
    }  # fmt: skip


async def fetched(endpoint: str, prefix: str, made: list[Frozen]) -> dict[str, Any]:
    """Get single faces: the first, which reads catalogues, and others."""
    async with counted(endpoint) as (address, cost):
        view = ShardView(open_bucket(_where(address, prefix)))
        times = []
        for one in made[:: max(1, len(made) // _GETS)]:
            begin = time.perf_counter()
            assert await view.get(one.key, max_bytes=_MOST) == one.data
            times.append((time.perf_counter() - begin) * 1000)
        await view.close()
    return {
        "first_ms": round(times[0], 1), "then_ms": round(statistics.median(times[1:]), 2),
        "faces": len(times), "methods": dict(cost.methods), "bytes": cost.down,
    }  # fmt: skip


async def asked(endpoint: str, prefix: str, count: int, folder: Path) -> dict[str, Any]:
    """Copy the catalogues, and count with DuckDB."""
    bucket = open_bucket(_where(endpoint, prefix))
    size = 0
    async for entry in bucket.list("catalogue"):
        path = folder / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(await bucket.get(entry.key, max_bytes=MOST_CATALOGUE_BYTES))
        size += entry.size
    begin = time.perf_counter()
    with duckdb.connect() as db:
        found = db.execute(_QUERY.format(folder / "catalogue")).fetchall()
    took = (time.perf_counter() - begin) * 1000
    assert sum(row[-1] for row in found) == count, found
    return {"ms": round(took, 1), "catalogue_bytes_per_face": round(size / count, 1), "rows": len(found)}


def _where(endpoint: str, prefix: str) -> config.Bucket:
    return config.Bucket(
        url=f"s3://{BUCKET}/{prefix}", endpoint=endpoint, access_key=ACCESS_KEY,
        secret_key=SecretStr(SECRET_KEY),
    )  # fmt: skip


def _money(methods: Counter[str]) -> float:
    return sum(n * (_WRITE_PRICE if method in _WRITES else _READ_PRICE) for method, n in methods.items())


async def measure(count: int, each: list[int], folder: Path) -> dict[str, Any]:
    """Measure all, over one server."""
    made = list(faces(count))
    found: dict[str, Any] = {}
    with seaweedfs(folder) as s3:
        found["objects"] = await stored(s3.endpoint, "objects", count, lambda to: as_objects(to, made))
        for size in each:
            prefix = f"shards-{size}"

            async def work(bucket: Bucket, size: int = size) -> None:
                await as_shards(bucket, made, size)

            here = await stored(s3.endpoint, prefix, count, work)
            here["times_fewer_requests"] = round(
                found["objects"]["per_1000"]["requests"] / here["per_1000"]["requests"]
            )
            here["get"] = await fetched(s3.endpoint, prefix, made)
            here["duckdb"] = await asked(s3.endpoint, prefix, count, folder / prefix)
            found[prefix] = here
    return found


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title="per 1,000 faces")
    heads = ("layout", "requests", "MB", "$", "$ a month at 1/s", "faces/s", "CPU µs", "get: first, then ms",
             "DuckDB ms")  # fmt: skip
    for head in heads:
        table.add_column(head, justify="left" if head == "layout" else "right")
    for name, one in found.items():
        per, get = one["per_1000"], one.get("get")
        table.add_row(
            name, str(per["requests"]), f"{per['bytes'] / 1e6:.2f}", f"{per['dollars']:.6f}",
            str(one["dollars_a_month_at_1_per_s"]), str(one["faces_per_s"]), str(one["cpu_us_per_face"]),
            f"{get['first_ms']}, {get['then_ms']}" if get else "", str(one.get("duckdb", {}).get("ms", "")),
        )  # fmt: skip
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--each", default="300,1000,3000", help="faces in a shard")
    parser.add_argument("--save", action="store_true", help="write bench/results/shards.json")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="facerelay-", ignore_cleanup_errors=True) as made:
        each = [int(size) for size in chosen.each.split(",")]
        found = asyncio.run(measure(chosen.faces, each, Path(made)))
    show(found)
    if chosen.save:
        about = {
            "time": datetime.now(UTC).isoformat(), "faces": chosen.faces,
            "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "load_before": round(load, 2)},
            "prices": {"write_per_1000": _WRITE_PRICE * 1000, "read_per_1000": _READ_PRICE * 1000},
        }  # fmt: skip
        _RESULTS.write_text(json.dumps({**about, "results": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
