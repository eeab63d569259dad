from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from conftest import Make
from facerelay import config
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.cloud.quarantine import Note, Quarantine, notes


def folder(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


def quarantine(bucket: Bucket, *, max_bytes: int = 100_000, days: float = 7) -> Quarantine:
    return Quarantine(bucket, max_bytes=max_bytes, keep=timedelta(days=days))


def payloads(path: Path) -> list[Path]:
    return sorted(path.rglob("*.bin"))


def make_old(path: Path) -> None:
    for found in path.rglob("*-*.*"):
        os.utime(found, (time.time() - 100_000,) * 2)


def test_a_message_is_kept_as_it_came_with_its_reason(tmp_path: Path, make_face: Make) -> None:
    face = make_face().face
    assert asyncio.run(quarantine(folder(tmp_path)).put("Some Topic/ü", b"\x80junk.", "pickle", face))
    (kept,) = payloads(tmp_path)
    assert kept.read_bytes() == b"\x80junk."
    assert kept.parent.name.startswith("date=20")
    note = Note.model_validate_json(kept.with_suffix(".json").read_bytes())
    assert (note.topic, note.reason, note.size) == ("Some Topic/ü", "pickle", 6)
    assert note.face is not None
    assert note.face.id == face.id


def test_the_same_again_is_not_kept_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = quarantine(folder(tmp_path))
        assert await here.put("a", b"junk", "not-a-picture")
        for _ in range(50):
            assert not await here.put("a", b"junk", "not-a-picture")
        assert await here.put("b", b"junk", "not-a-picture")

    asyncio.run(scenario())
    assert len(payloads(tmp_path)) == 2


def test_the_same_many_times_at_once_is_kept_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = quarantine(folder(tmp_path))
        kept = await asyncio.gather(*(here.put("a", b"junk", "fault") for _ in range(5)))
        assert sorted(kept) == [False] * 4 + [True]

    asyncio.run(scenario())
    assert len(payloads(tmp_path)) == 1


def test_the_budget_holds_over_a_restart(tmp_path: Path) -> None:
    async def fill() -> int:
        here = quarantine(folder(tmp_path), max_bytes=10_000)
        return sum([await here.put("a", os.urandom(1000), "not-a-picture") for _ in range(20)])

    first = asyncio.run(fill())
    assert 0 < first < 10
    assert asyncio.run(fill()) == 0
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 10_000


def test_what_is_old_goes_and_makes_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = quarantine(folder(tmp_path), max_bytes=9_000, days=1)
        assert await here.put("a", b"x" * 1000, "not-a-picture")
        assert not await here.put("a", b"y" * 1000, "not-a-picture")
        make_old(tmp_path)
        assert await here.sweep() == 2
        assert await here.put("a", b"y" * 1000, "not-a-picture")

    asyncio.run(scenario())


def test_what_is_remembered_does_not_grow_with_topics(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = quarantine(folder(tmp_path), max_bytes=1_000_000)
        for n in range(20):
            assert await here.put("t" * 60_000, b"%d" % n, "not-a-picture")
            assert not await here.put("t" * 60_000, b"%d" % n, "not-a-picture")
        assert sum(map(len, here._recent)) < 20 * 100

    asyncio.run(scenario())


def test_a_topic_in_the_log_is_short_and_plain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = quarantine(folder(tmp_path), max_bytes=0)

    async def scenario() -> None:
        for n in range(50):
            assert not await here.put("x\n\x1b[2J" + "y" * 9000, b"%d" % n, "not-a-picture")

    asyncio.run(scenario())
    assert len(caplog.messages) == 1
    assert "\\x1b[2J" in caplog.text
    assert len(caplog.messages[0]) < 400


def test_a_bucket_that_is_down_hides_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = folder(tmp_path)

    async def down(key: str, *, max_bytes: int) -> bytes:  # noqa: ARG001 - as the bucket has it
        raise BucketError(key, "down", "unreachable")

    async def scenario() -> None:
        await quarantine(bucket).put("a", b"junk", "not-a-picture")
        monkeypatch.setattr(bucket, "get", down)
        with pytest.raises(BucketError, match="down"):
            [note async for note in notes(bucket)]

    asyncio.run(scenario())


def test_notes_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await bucket.put("quarantine/date=2026-01-01/a.json", b"{")
        await bucket.put("quarantine/date=2026-01-01/b.json", b"x" * 100_000)
        await quarantine(bucket, max_bytes=1_000_000).put("a", b"junk", "not-a-picture")
        assert [note.reason async for note in notes(bucket)] == ["not-a-picture"]

    asyncio.run(scenario())
