"""The gallery's wall in a real browser, over a bucket whose faces lie in shards."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from bench.packs import put_shard

from browser import browsing
from chains import Part, eventually
from conftest import Make
from facerelay.face import Frozen
from gallery_parts import folder
from servers import free_port

TILES = "document.querySelectorAll('.tiles a').length"
SHOWN = "[...document.querySelectorAll('.tiles img')].every((each) => each.naturalWidth > 0)"
KEYS = "[...document.querySelectorAll('.tiles a')].map((each) => each.dataset.key)"


def test_the_wall_shows_faces_of_shards_and_new_ones_as_they_land(tmp_path: Path, make_face: Make) -> None:
    now = datetime.now(UTC)
    faces = [make_face(time=now - timedelta(hours=3 * n), camera=f"c{n % 3}") for n in range(9)]
    bucket = folder(tmp_path / "bucket")
    days: dict[str, list[Frozen]] = {}
    for one in faces:
        days.setdefault(one.face.time.date().isoformat(), []).append(one)
    for some in days.values():
        asyncio.run(put_shard(bucket, some))
    port = free_port()
    chosen = (f"bucket.url=file://{tmp_path / 'bucket'}", f"gallery.port={port}",
              f"gallery.cache={tmp_path / 'cache'}", "gallery.look_s=1")  # fmt: skip
    command = [sys.executable, "-m", "facerelay", "gallery"]
    part = Part("gallery", [*command, *(f"--set={one}" for one in chosen)], tmp_path / "gallery.log")
    part.start()
    try:
        url = f"http://127.0.0.1:{port}/"
        eventually(lambda: _answers(url))
        with browsing(tmp_path) as tab:
            tab.open(url)
            tab.until(f"{TILES} === {len(faces)} && {SHOWN}")
            assert tab.value(KEYS) == [one.key for one in faces]
            late = make_face(time=datetime.now(UTC), camera="c1")
            asyncio.run(put_shard(bucket, [late], store="other"))
            tab.until(f"{KEYS}[0] === '{late.key}' && {SHOWN}")
            tab.open(f"{url}face?key={quote(faces[7].key)}")
            tab.until("[...document.querySelectorAll('img')].some((each) => each.naturalWidth === 96)")
            assert not tab.faults
    finally:
        part.end()
    assert "Traceback" not in part.text()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own
            return int(answer.status) == 200
    except OSError:
        return False
