"""What a bucket takes alone: the store's own PUTs of 9 kB faces, without brokers, outbox and receipts.

`python -m bench.alone FILE COUNT`: FILE holds a store's settings. Prints faces a second and CPU a face.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench.chains import FAR_MS, on_s3, write_toml
from bench.faces import ready
from bench.processes import S3, Process, python
from facerelay import settings
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.contract import content_type
from facerelay.commands.supervise import free_ports


def buckets_alone(repeats: int, count: int, folder: Path, s3: S3 | None) -> dict[str, dict[str, float]]:
    """Return what each bucket takes without a chain before it; medians."""
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        wheres: dict[str, dict[str, str]] = {}
        for name, delay_ms in (("null", 0), ("far", FAR_MS)):
            (port,) = free_ports(1)
            server = Process(name, python("bench.nulls3", port, delay_ms), folder / f"{name}.log", talks=True)
            stack.callback(server.end)
            server.hear("ready")
            wheres[name] = on_s3(f"http://127.0.0.1:{port}")
        for repeat in range(repeats):
            for name in ("folder", *wheres, *(["s3"] if s3 else [])):
                where = wheres.get(name) or {"url": f"file://{folder}/alone-{repeat}"}
                if name == "s3" and s3:
                    where = on_s3(s3.endpoint, f"alone-{repeat}")
                path = write_toml(folder / "alone.toml", {}, {"bucket": where})
                command = python("bench.alone", path, count)
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.setdefault(name, []).append(json.loads(said))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }


async def main(path: str, count: str) -> None:
    config = settings.load(Path(path))
    bucket = open_bucket(config.bucket, quick=True)
    faces = iter(ready(int(count)))

    async def put() -> None:
        for frozen in faces:
            media = content_type(frozen.extension)
            new = await bucket.put_new(frozen.key, frozen.data, content_type=media, sha256=frozen.sha256)
            assert new, f"{frozen.key} was there"

    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(put() for _ in range(config.store.concurrency)))
    took, used = time.perf_counter() - begin, time.process_time() - cpu
    await bucket.close()
    found = {"faces_per_s": round(int(count) / took, 1), "cpu_us": round(used / int(count) * 1e6)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
