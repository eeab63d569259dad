"""The plain way to the newest faces: list every key, sort by time, take the first.

`python -m bench.gallery_peer folder|s3 WHERE COUNT` prints time, requests and peak memory as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator

from bench.plain import BUCKET, client_s3


def _folder(root: str) -> Iterator[list[str]]:
    for path, _, names in os.walk(root):
        yield [f"{path}/{name}" for name in names]


def _s3(endpoint: str) -> Iterator[list[str]]:
    pages = client_s3(endpoint).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="month/")
    for page in pages:
        yield [entry["Key"] for entry in page.get("Contents", [])]


def main() -> None:
    kind, where, count = sys.argv[1:]
    begin = time.perf_counter()
    keys: list[str] = []
    requests = 0
    for found in _folder(where) if kind == "folder" else _s3(where):
        requests += 1
        keys += found
    newest = sorted(keys, key=lambda key: key.split("/date=")[-1], reverse=True)[: int(count)]
    took = (time.perf_counter() - begin) * 1000
    assert len(newest) == int(count)
    name = "os.walk, all sorted" if kind == "folder" else "boto3, all listed and sorted"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"name": name, "ms": round(took, 1), "requests": requests, "peak_mb": round(peak, 1)}))


if __name__ == "__main__":
    main()
