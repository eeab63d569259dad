from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import days
from browser import Tab, browsing
from buckets import Weed
from chains import chain, eventually, facerelay
from conftest import Make
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.contract import Bucket
from facerelay.cloud.history.period import Hour
from facerelay.cloud.sample import sample
from facerelay.commands import day as daily
from facerelay.commands import plots, sheet
from facerelay.config import Bucket as Settings
from facerelay.face import Limits

DAY = days.DAY.date()
FACES = 90
LIMITS = Limits(bytes=100_000, pixels=10_000_000)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day") / "bucket"
    made = open_bucket(Settings(url=f"file://{folder}"))
    asyncio.run(days.make_marks(made))
    asyncio.run(days.put_faces(made, FACES))
    return folder


def _open(folder: Path) -> Bucket:
    return open_bucket(Settings(url=f"file://{folder}"))


def _read(folder: Path, *, pictures: bool = False, camera: str | None = None) -> daily.Day:
    return asyncio.run(daily.read(_open(folder), DAY, camera=camera, pictures=pictures, pixels=10_000_000))


def _report(folder: Path, output: Path, *words: str) -> dict[str, Any]:
    flags = ["--bucket", f"file://{folder}", "-o", str(output), "--json", *words]
    done = facerelay("report", "--day", DAY.isoformat(), *flags)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class _Links(HTMLParser):
    """What a page would load, or run."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]


def test_the_day_by_the_marks_is_the_day_that_was(bucket: Path) -> None:
    found = _read(bucket)
    assert found.names == ["home/door", "home/yard", "shop/till"]
    assert found.closes
    for name, balance in found.balances.items():
        counts = balance.counts
        assert counts.captured == counts.stored + counts.dropped, name
        assert balance.closes is True
    assert found.total.dropped > 0
    kinds = {(band.kind, band.site, band.camera, band.start, band.end) for band in found.bands}
    start = days.DAY
    assert (
        "dark",
        "home",
        "yard",
        start + timedelta(hours=9, minutes=5),
        start + timedelta(hours=10, minutes=50),
    ) in kinds
    assert ("store", "", None, start + timedelta(hours=13), start + timedelta(hours=13, minutes=25)) in kinds
    assert (
        "silent",
        "home",
        None,
        start + timedelta(hours=1, minutes=10),
        start + timedelta(hours=4, minutes=40),
    ) in kinds


def test_a_day_without_trouble_is_well(tmp_path: Path) -> None:
    made = _open(tmp_path / "bucket")
    asyncio.run(days.make_marks(made, outages=False))
    found = _read(tmp_path / "bucket")
    assert daily.verdict(found) == (
        "good",
        "No face was lost: each one that was captured is accounted for.",
    )
    assert found.bands == []
    assert "None: a store was at work" in sheet.page(found)


def test_one_camera_is_of_its_own_books_bands_and_pictures(bucket: Path) -> None:
    found = _read(bucket, pictures=True, camera="shop/till")
    assert found.names == ["shop/till"]
    assert {band.kind for band in found.bands} == {"store"}
    assert {f"{one.face.site}/{one.face.camera}" for one in found.sample.pictures} == {"shop/till"}


def test_the_file_stands_for_itself(bucket: Path, tmp_path: Path) -> None:
    said = _report(bucket, tmp_path / "day.html")
    text = (tmp_path / "day.html").read_text()
    page = _Links()
    page.feed(text)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {*page.tags}
    assert not page.handlers
    assert page.loads
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "personal data" in text
    assert stat.S_IMODE((tmp_path / "day.html").stat().st_mode) == 0o600
    assert said["pictures_read"] == FACES
    assert said["closes"] is True
    assert said["verdict"]["level"] == "critical"
    assert "home/yard gave no picture for 1.8 h" in said["verdict"]["words"]


def test_the_pictures_are_the_best_and_the_worst_of_the_sample(bucket: Path, tmp_path: Path) -> None:
    found = _read(bucket, pictures=True)
    best, worst = found.strips()
    qualities = sorted(one.face.quality for one in found.sample.pictures)
    assert [one.face.quality for one in best] == qualities[:-13:-1]
    assert [one.face.quality for one in worst] == qualities[:12]
    _report(bucket, tmp_path / "day.html")
    text = (tmp_path / "day.html").read_text()
    assert f"Out of all {FACES} faces" in text
    for one in (*best, *worst):
        assert base64.b64encode(one.data).decode() in text


def test_without_pictures_it_holds_none_and_reads_none(bucket: Path, tmp_path: Path) -> None:
    said = _report(bucket, tmp_path / "day.html", "--no-pictures")
    text = (tmp_path / "day.html").read_text()
    assert said["pictures_read"] == 0
    assert "data:image" not in text
    assert "It holds no picture." in text
    assert f"<strong>{FACES}</strong><span>of the day in the bucket now" in text


def test_a_sample_is_bounded_of_every_camera_and_the_same_again(bucket: Path) -> None:
    told: list[str] = []
    first = asyncio.run(
        sample(_open(bucket), DAY, pictures=9, limits=LIMITS, watch=lambda step, *_: told.append(step))
    )
    again = asyncio.run(sample(_open(bucket), DAY, pictures=9, limits=LIMITS))
    assert len(first.pictures) == 9
    assert [one.key for one in first.pictures] == [one.key for one in again.pictures]
    assert len({one.face.camera for one in first.pictures}) == 3
    assert first.total == FACES
    assert set(told) == {"listing", "reading pictures"}


def test_what_is_no_face_or_too_large_is_counted_and_not_shown(tmp_path: Path, make_face: Make) -> None:
    made = _open(tmp_path / "bucket")
    good, bad, large = (make_face(time=days.DAY + timedelta(hours=n), camera="door") for n in (1, 2, 3))

    async def work() -> None:
        await made.put_new(good.key, good.data)
        await made.put_new(bad.key, b"<script>alert(1)</script>")
        await made.put_new(large.key, large.data + bytes(200_000))
        await made.put_new(f"{good.key.rpartition('/')[0]}/notes.txt", b"hello")

    asyncio.run(work())
    found = _read(tmp_path / "bucket", pictures=True)
    assert found.sample.counts == {"home/door": (0, 1, 1, 1, *([0] * 20))}
    assert [one.key for one in found.sample.pictures] == [good.key]
    text = sheet.page(found)
    assert "<script" not in text
    assert "No store has kept marks of this day" in text


def test_a_day_without_anything_and_a_file_in_the_way_say_what_to_do(bucket: Path, tmp_path: Path) -> None:
    at = ["--bucket", f"file://{bucket}"]
    none = facerelay("report", "--day", "2026-01-01", *at, "-o", str(tmp_path / "x.html"))
    assert none.returncode == 1
    assert "no face and no books of 2026-01-01 (UTC)" in none.stderr
    assert not (tmp_path / "x.html").exists()
    (tmp_path / "day.html").write_text("mine")
    again = facerelay("report", "--day", str(DAY), *at, "-o", str(tmp_path / "day.html"))
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert (tmp_path / "day.html").read_text() == "mine"
    of = ["--camera", "till", "--set", "site=shop"]
    forced = facerelay("report", "--day", str(DAY), *at, "-o", str(tmp_path / "day.html"), "--force", *of)
    assert forced.returncode == 0, forced.stderr
    assert "shop/till" in (tmp_path / "day.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.html"]
    piped = facerelay("report", "--day", str(DAY), *at, "-o", "-", "--no-pictures")
    assert piped.stdout.startswith("<!doctype html>")
    lost = facerelay("report", "--day", str(DAY), *at, "-o", str(tmp_path / "none" / "day.html"))
    assert lost.returncode == 1
    assert "no such folder" in lost.stderr


def test_a_balance_closes_or_not() -> None:
    def hour(n: int, **counts: int) -> Hour:
        at = days.DAY + timedelta(hours=n)
        return Hour(start=at, since=at, **counts)  # type: ignore[arg-type]

    before = hour(-1, waiting=2)
    whole = daily._balance([before, hour(0, captured=5, stored=4, waiting=3), hour(1)])
    assert (whole.before, whole.after, whole.closes) == (2, 3, True)
    broken = daily._balance([before, hour(0, captured=5, stored=4, waiting=1)])
    assert broken.closes is False
    unknown = daily._balance([None, hour(0, captured=5, stored=7)])
    assert unknown.closes is None
    begun = daily._balance([None, hour(0, captured=5, stored=4, waiting=1)])
    assert begun.closes is True


@pytest.mark.parametrize("value", [1, 4, 5, 7, 23, 99, 100, 101, 12_345, 9_999_999])
def test_a_scale_holds_its_values_and_has_round_ends(value: int) -> None:
    top = plots._nice(value)
    assert value <= top <= max(4, 2.5 * value)
    assert top % 4 == 0


def test_numbers_and_times_for_people() -> None:
    said = [plots.words(n) for n in (0, 7, 9999, 10_000, 154_321, 5_292_000, 3e9)]
    assert said == ["0", "7", "9999", "10k", "154k", "5.3M", "3G"]
    assert plots.words(5_292_000, "B") == "5.3 MB"
    assert plots.words(12, "B") == "12 B"
    assert [plots.lasting(ms) for ms in (38, 1500, 60_000, 5_400_000)] == ["38 ms", "1.5 s", "1 min", "1.5 h"]


@pytest.fixture(scope="module")
def shown(bucket: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    folder = tmp_path_factory.mktemp("browser")
    _report(bucket, folder / "day.html")
    with browsing(folder) as tab:
        tab.size(1100, 900)
        tab.open(f"file://{folder}/day.html")
        tab.until("document.readyState === 'complete'")
        yield tab


def test_a_browser_draws_every_plot_and_picture(shown: Tab) -> None:
    assert shown.value("document.querySelector('h1').textContent") == "Faces on Friday, 20 November 2026"
    assert shown.value("[...document.images].length") == 24
    assert shown.value("[...document.images].every(i => i.complete && i.naturalWidth > 20)")
    titles = shown.value("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert titles == [
        "Faces captured an hour", "Outages", "Dropped and refused an hour", "Each camera",
        "From camera to receipt", "Bytes sent up an hour", "The day's books", "Best quality", "Worst quality",
    ]  # fmt: skip
    outside = """[...document.querySelectorAll('svg[role=img] *')].filter(each => {
      const plot = each.ownerSVGElement.getBoundingClientRect(), it = each.getBoundingClientRect();
      return it.width > 0 && (it.left < plot.left - 1 || it.right > plot.right + 1
        || it.top < plot.top - 1 || it.bottom > plot.bottom + 1);
    }).length"""
    assert shown.value(outside) == 0
    named = "[...document.querySelectorAll('svg')].every(s => s.getAttribute('aria-label') || s.ariaHidden)"
    assert shown.value(named)


def test_nothing_in_it_keeps_anybody_out(shown: Tab) -> None:
    from test_gallery_browser import axe  # noqa: PLC0415 - the gallery's own tests may not be importable here

    assert axe(shown) == []


def test_it_is_pictured_for_the_docs(shown: Tab, tmp_path: Path) -> None:
    path = Path(os.environ.get("FACERELAY_SHOTS", tmp_path)).resolve() / "report.webp"
    shown.call("Emulation.setScrollbarsHidden", hidden=True)
    shown.size(1100, 1425)
    shown.picture(path)
    assert path.stat().st_size > 10_000


def test_it_fits_a_phone(shown: Tab) -> None:
    shown.size(390, 800)
    assert shown.value("document.documentElement.scrollWidth") <= 390


def test_it_prints_on_a_few_pages(shown: Tab) -> None:
    shown.size(1100, 900)
    pdf = base64.b64decode(shown.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 2 <= pages <= 5
    assert re.search(rb"/MediaBox\s*\[0 0 59[45]\S* 84[12]", pdf), "A4"


def test_of_a_real_chain_and_a_real_bucket_it_tells_of_today(tmp_path: Path, weed: Weed) -> None:
    settings = weed.bucket("report")
    assert settings.secret_key is not None
    values = {"url": settings.url, "endpoint": settings.endpoint, "access_key": settings.access_key,
              "secret_key": settings.secret_key.get_secret_value()}  # fmt: skip
    with chain(tmp_path, bucket=values) as c:
        c.finished(c.feed(5, rate=50))
        today = datetime.now(UTC).date()

        def told() -> bool:
            command = ["report", "--day", str(today), "-o", str(tmp_path / "today.html"), "--force", "--json"]
            done = c.command(*command)
            if done.returncode != 0:
                return False
            said = json.loads(done.stdout)
            door = said["cameras"].get("home/door", {})
            return (door.get("captured"), door.get("stored"), said["closes"]) == (5, 5, True)

        eventually(told, 40)
    assert "so far" in (tmp_path / "today.html").read_text()
