from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from buckets import Weed
from conftest import Make
from facerelay import config
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.gallery import asked
from facerelay.cloud.gallery.counted import counting
from facerelay.cloud.gallery.parts import Parts
from facerelay.cloud.gallery.walk import MOST_REQUESTS
from facerelay.cloud.gallery.wall import MOST_READS
from facerelay.face import Frozen
from gallery_parts import fill, folder, parts_of
from nights import Edge, Store

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WAVE = 64


@pytest.fixture(params=["folder", "memory", "seaweedfs"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    if request.param == "seaweedfs":
        weed: Weed = request.getfixturevalue("weed")
        yield open_bucket(weed.bucket(prefix=tmp_path.name))
    else:
        yield open_bucket(
            config.Bucket(url={"folder": f"file://{tmp_path}/b", "memory": "memory://"}[request.param])
        )


def month(make_face: Make, count: int, *, cameras: int = 5, seed: int = 1) -> list[Frozen]:
    """Faces of some cameras over three days, some of them at the same moment; newest first."""
    chance = random.Random(seed)  # noqa: S311 - the same faces each time
    times = [NOON - timedelta(seconds=chance.randrange(3 * 86_400)) for _ in range(count // 2)]
    faces = [
        make_face(
            time=chance.choice(times), camera=f"c{chance.randrange(cameras)}", site=chance.choice(["a", "b"]),
            quality=chance.random(),
        )
        for _ in range(count)
    ]  # fmt: skip
    return sorted(faces, key=lambda one: (one.face.time, one.key), reverse=True)


async def page(parts: Parts, **query: str) -> tuple[list[str], dict[str, Any]]:
    found = await parts.wall.page(asked.wall(query))
    return [face["key"] for face in found["faces"]], found


async def all_pages(parts: Parts, **query: str) -> list[str]:
    """Go on to the end; return every key, in the order in which they came."""
    found: list[str] = []
    cursor = query.pop("start", "")
    for _ in range(500):
        keys, answer = await page(parts, **query, **({"cursor": cursor} if cursor else {}))
        found += keys
        if answer["next"] is None:
            return found
        cursor = answer["next"]
    raise AssertionError("the pages have no end")


def test_pages_hold_every_face_once_newest_first(bucket: Bucket, tmp_path: Path, make_face: Make) -> None:
    faces = month(make_face, 90)

    async def scenario() -> None:
        await fill(bucket, faces)
        await bucket.put_new("faces/site=a/camera=c1/readme.txt", b"x")
        await bucket.put_new("faces/site=a/camera=c1/date=2026-11-20/hour=12/readme.txt", b"x")
        async with parts_of(bucket, tmp_path) as parts:
            whole = [one.key for one in faces]
            assert await all_pages(parts, limit="7") == whole
            assert await all_pages(parts, limit="100") == whole
            for site, camera in (("a", ""), ("", "c2"), ("b", "c3"), ("none", "")):
                some = [
                    one.key
                    for one in faces
                    if site in {"", one.face.site} and camera in {"", one.face.camera}
                ]
                assert await all_pages(parts, limit="9", site=site, camera=camera) == some
            for at in (faces[40].face.time, NOON - timedelta(hours=20, minutes=13)):
                up_to = [one.key for one in faces if one.face.time <= at]
                assert (await page(parts, at=at.isoformat(), limit="20"))[0] == up_to[:20]

    asyncio.run(scenario())


def test_neighbours_are_those_of_the_camera(bucket: Bucket, tmp_path: Path, make_face: Make) -> None:
    faces = [make_face(time=NOON + timedelta(hours=7 * n), camera="door") for n in range(9)]
    other = [make_face(time=NOON + timedelta(hours=7 * n), camera="yard") for n in range(9)]

    async def scenario() -> None:
        await fill(bucket, [*faces, *other])
        async with parts_of(bucket, tmp_path) as parts:
            for number, one in enumerate(faces):
                learnt = (await parts.reader.learn([one.key]))[one.key]
                found = await parts.wall.neighbours(one.key, learnt)
                earlier, later = found["earlier"], found["later"]
                assert (earlier and earlier["key"]) == (faces[number - 1].key if number else None)
                assert (later and later["key"]) == (faces[number + 1].key if number < 8 else None)
                assert [each["key"] for each in found["visit"]] == [one.key]

    asyncio.run(scenario())


def test_the_quality_filter_reads_so_many_faces_a_page_and_goes_on(
    bucket: Bucket, tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.wall.MOST_READS", 25)
    faces = month(make_face, 90)
    wanted = [one.key for one in faces if round(one.face.quality, 4) >= 0.9]

    async def scenario() -> None:
        await fill(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            keys, answer = await page(parts, quality="0.9")
            assert keys == [one.key for one in faces[:25] if one.key in wanted]
            assert answer["searched_to"] == faces[24].face.time.isoformat(timespec="microseconds")
            assert await all_pages(parts, quality="0.9", limit="5") == wanted
            with counting() as tally:
                assert await all_pages(parts, quality="0.9", limit="5") == wanted
            assert tally.requests < len(faces)  # listings; no face is read again
            assert await all_pages(parts, quality="0.9", camera="none") == []
        async with parts_of(bucket, tmp_path) as parts:  # and not by the next process either
            keys, _ = await page(parts, limit="5")
            known = await parts.reader.known(keys)
            assert {round(one.quality or 0, 4) for one in known.values()} == {
                round(one.face.quality, 4) for one in faces[:5]
            }

    asyncio.run(scenario())


def test_days_and_their_hours(bucket: Bucket, tmp_path: Path, make_face: Make) -> None:
    faces = month(make_face, 60)
    days = sorted({one.face.time.date().isoformat() for one in faces})

    async def scenario() -> None:
        await fill(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            found = await parts.timeline.days(site=None, camera=None)
            assert [day["date"] for day in found["days"]] == days
            for camera in (None, "c1"):
                some = [one.face for one in faces if camera in {None, one.face.camera}]
                for day in days:
                    hours = (await parts.timeline.hours(day, site=None, camera=camera))["hours"]
                    times = [one.time for one in some if one.time.date().isoformat() == day]
                    assert hours == [sum(time.hour == hour for time in times) for hour in range(24)]

    asyncio.run(scenario())


def test_days_are_counted_by_what_the_stores_wrote_down(tmp_path: Path, make_face: Make) -> None:
    morning = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0) - timedelta(days=3)
    before = morning - timedelta(days=20)

    async def scenario() -> None:
        bucket, edge = open_bucket(config.Bucket(url="memory://")), Edge()
        store = Store(bucket, morning)
        for day, (door, yard) in enumerate([(3, 1), (5, 0)]):
            await store.pass_time(morning + timedelta(days=day, minutes=1), edge)
            edge.count("door", captured=door, stored=door)
            edge.count("yard", captured=yard, stored=yard)
            await store.pass_time(morning + timedelta(days=day, minutes=5), edge)
        times = (before, morning, morning + timedelta(days=1))
        await fill(bucket, [make_face(time=time, camera=c) for time in times for c in ("door", "yard")])

        async def counts(camera: str | None = None, site: str | None = None) -> list[int | None]:
            found = await parts.timeline.days(site=site, camera=camera)
            return [day["faces"] for day in found["days"]]

        async with parts_of(bucket, tmp_path) as parts:
            async with asyncio.timeout(20):
                while (await counts())[1] is None:
                    await asyncio.sleep(0.02)
            assert await counts() == [None, 4, 5]
            assert await counts("door") == [None, 3, 5]
            assert await counts(site="home") == [None, 4, 5]
            requests = parts.bucket.requests
            await counts("yard")
            assert parts.bucket.requests <= requests + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["cameras", "sites"])
def test_requests_of_a_page_are_bounded_and_all_cameras_are_found(
    tmp_path: Path, make_face: Make, kind: str
) -> None:
    names = {"cameras": ("home", "c{}"), "sites": ("s{}", "door")}[kind]
    faces = [
        make_face(site=names[0].format(n), camera=names[1].format(n), time=NOON - timedelta(minutes=n))
        for n in range(700)
    ]

    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url="memory://"))
        await fill(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            found: list[str] = []
            cursor, requests = "", []
            while cursor is not None:
                with counting() as tally:
                    keys, answer = await page(parts, **({"cursor": cursor} if cursor else {}))
                found += keys
                cursor = answer["next"]
                requests.append(tally.requests)
            assert found == [one.key for one in faces]
            assert max(requests) <= MOST_REQUESTS + WAVE
            assert sum(requests) <= 4 * len(faces) + 10  # cameras, dates, hours, faces: each is listed once

    asyncio.run(scenario())


def test_a_page_whose_requests_are_spent_at_once_goes_on_where_it_began(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.wall.MOST_REQUESTS", 3)
    faces = [make_face(camera=f"c{n}", time=NOON - timedelta(minutes=n // 4)) for n in range(40)]

    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url="memory://"))
        await fill(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            whole = await all_pages(parts, limit="3")
            assert sorted(whole) == sorted(one.key for one in faces)
        for at in (0, 5, 17):
            async with parts_of(bucket, tmp_path) as parts:  # nothing is known: the first pages are empty
                assert await all_pages(parts, limit="3", start=whole[at]) == whole[at + 1 :]

    asyncio.run(scenario())


def test_listings_of_very_many_cameras_do_not_age_faster_than_they_are_read(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.wall.MOST_REQUESTS", 100)
    monkeypatch.setattr("facerelay.cloud.gallery.walk.CLOSED_S", 0.0)  # as in the hour that is written now
    faces = [make_face(camera=f"c{n}", time=NOON) for n in range(400)]

    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url="memory://"))
        await fill(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            found: list[str] = []
            cursor = ""
            for _ in range(40):
                found, answer = await page(parts, **({"cursor": cursor} if cursor else {}))
                cursor = answer["next"]
                if found:
                    break
            assert found

    asyncio.run(scenario())


def test_a_page_that_filters_is_bounded_too(tmp_path: Path, make_face: Make) -> None:
    faces = [make_face(time=NOON - timedelta(minutes=n), quality=0.1) for n in range(2 * MOST_READS)]

    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url="memory://"))
        await fill(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            with counting() as tally:
                keys, answer = await page(parts, quality="0.5")
            assert keys == []
            assert answer["next"] == faces[MOST_READS - 1].key
            assert tally.requests <= MOST_REQUESTS + WAVE + MOST_READS

    asyncio.run(scenario())


def test_what_is_asked_again_is_listed_once(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, month(make_face, 60))
        async with parts_of(bucket, tmp_path) as parts:
            with counting() as first:
                await page(parts)
            with counting() as together:
                await asyncio.gather(*(page(parts) for _ in range(20)))
            assert first.requests > 20
            assert together.requests == 0

    asyncio.run(scenario())


def test_what_comes_late_shows_when_its_hour_is_listed_again(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = make_face(time=NOON)
    late = make_face(time=NOON + timedelta(minutes=1))

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [early])
        async with parts_of(bucket, tmp_path) as parts:
            assert (await page(parts))[0] == [early.key]
            await fill(bucket, [late])
            assert (await page(parts))[0] == [early.key]
            monkeypatch.setattr("facerelay.cloud.gallery.walk.CLOSED_S", 0)
            assert (await page(parts))[0] == [late.key, early.key]

    asyncio.run(scenario())


def test_a_clock_that_is_years_ahead_does_not_fill_the_page(tmp_path: Path, make_face: Make) -> None:
    one, ahead = make_face(), make_face(camera="yard", time=datetime(9998, 1, 1, tzinfo=UTC))
    soon = make_face(camera="hall", time=datetime.now(UTC) + timedelta(days=1))
    long_ago = make_face(camera="hall", time=datetime(1, 1, 1, tzinfo=UTC))

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, (one, ahead, soon, long_ago))
        for date in ("0000-00-00", "2026-02-31", "9999-12-31", "\u0662\u0660-10-20", "7-01-01", "x"):
            (tmp_path / f"b/faces/site=home/camera=door/date={date}/hour=00").mkdir(parents=True)
            (tmp_path / f"b/faces/site=home/camera=door/date=2026-11-20/hour={date}").mkdir(parents=True)
        async with parts_of(bucket, tmp_path) as parts:
            assert await all_pages(parts) == [soon.key, one.key, long_ago.key]
            assert await all_pages(parts, at="0001-01-01T00:00:00+14:00") == [long_ago.key]
            assert await all_pages(parts, at="9999-12-31T23:59:59-12:00") == [soon.key, one.key, long_ago.key]
            learnt = (await parts.reader.learn([long_ago.key]))[long_ago.key]
            assert (await parts.wall.neighbours(long_ago.key, learnt))["later"]["key"] == soon.key
            days = (await parts.timeline.days(site=None, camera=None))["days"]
            assert "9998-01-01" not in {day["date"] for day in days}

    asyncio.run(scenario())


def test_memory_of_listings_is_bounded(tmp_path: Path, make_face: Make) -> None:
    faces = month(make_face, 60)

    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url="memory://"))
        await fill(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            parts.listings._max_bytes = 4_000
            assert await all_pages(parts, limit="7") == [one.key for one in faces]
            assert parts.listings._bytes <= 4_000
            assert sum(len(one.text) + 400 for one in parts.listings._kept.values()) == parts.listings._bytes

    asyncio.run(scenario())


def test_a_busy_hour_is_listed_by_its_minutes(
    bucket: Bucket, tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.listings.PAGE", 20)
    times = [NOON + timedelta(seconds=15 * n) for n in range(150)]
    faces = [make_face(time=time, camera=camera) for time in reversed(times) for camera in ("yard", "door")]
    calm = make_face(time=NOON - timedelta(hours=1))

    async def scenario() -> None:
        await fill(bucket, [*faces, calm])
        for number in range(50):  # what is no face takes no face's place
            await bucket.put_new(f"{calm.key.rpartition('/')[0]}/{number:06}.txt", b"x")
        async with parts_of(bucket, tmp_path) as parts:
            with counting() as tally:
                keys, _ = await page(parts, limit="8")
            assert keys == [one.key for one in faces[:8]]
            assert tally.requests < 40
            assert await all_pages(parts, limit="30") == [one.key for one in (*faces, calm)]
            for one in (faces[1], faces[151]):
                assert await parts.listings.has(one.key, age_s=30)
                learnt = (await parts.reader.learn([one.key]))[one.key]
                found = await parts.wall.neighbours(one.key, learnt)
                later = [each.key for each in faces if each.face.camera == "door"]
                at = later.index(one.key)
                assert (found["later"] and found["later"]["key"]) == (later[at - 1] if at else None)
            parts.listings.drop([faces[0].key])
            assert (await page(parts, limit="3"))[0] == [one.key for one in faces[1:4]]

    asyncio.run(scenario())
