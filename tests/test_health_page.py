"""The operator's view in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import pytest

from browser import Tab, browsing
from chains import Part, eventually
from facerelay import config
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.gallery import health
from facerelay.edge.cameras import portrait
from facerelay.edge.cameras.portrait import COLLINS, HOPPER
from facerelay.face import Face, freeze, new_id
from gallery_parts import serving
from nights import Edge, Store, eventful
from servers import free_port
from test_gallery_browser import axe

SHOTS = os.environ.get("HEALTH_SHOTS")
"""A folder for the pictures of the docs; without it they are made, and thrown away."""

NOON = 12


def answer(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


# the walk of docs/health.md


def zone(now: datetime) -> tuple[str, datetime]:
    """Return a time zone in which it is about noon, and its last midnight: so that last night is over."""
    ahead = NOON - now.hour
    return f"Etc/GMT{-ahead:+d}", now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=NOON)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """Serve a bucket after a night in which faces were lost; yields the port, and the browser's time zone."""
    folder, port, now = tmp_path_factory.mktemp("night"), free_port(), datetime.now(UTC)
    name, midnight = zone(now)

    async def fill() -> None:
        memory = open_bucket(config.Bucket(url="memory://night"))
        await eventful(memory, now, midnight)
        there = open_bucket(config.Bucket(url=f"file://{folder / 'bucket'}"))
        async for entry in memory.list():
            await there.put(entry.key, await memory.get(entry.key, max_bytes=10**7))
        await portraits(there, now)

    asyncio.run(fill())
    (folder / "cloud.toml").write_text(f'[bucket]\nurl = "file://bucket"\n[gallery]\nport = {port}\n')
    command = [sys.executable, "-m", "facerelay", "gallery", "-c", str(folder / "cloud.toml")]
    role = Part("gallery", command, folder / "gallery.log")
    role.start()
    try:
        eventually(lambda: up(port))
        yield port, name
    finally:
        role.end()


def up(port: int) -> bool:
    with suppress(OSError):
        return answer(port, "/api/health")[0] == 200
    return False


async def portraits(bucket: Bucket, now: datetime) -> None:
    """Put a face to each camera: those of the built-in scene."""
    for n, (source, site, camera) in enumerate([(HOPPER, "home", "door"), (COLLINS, "home", "hall"),
                                                (COLLINS, "shop", "till")]):  # fmt: skip
        image, (x, y, height) = portrait._read(source), source.face
        half = round(0.8 * height)
        cut = image[max(0, y - half) : y + half, max(0, x - half) : x + half]
        frozen = freeze(
            Face(
                id=new_id(), outbox="a" * 32, run="b" * 8, seq=n + 1, site=site, camera=camera,
                time=now - timedelta(minutes=3 + n), box=(0, 0, height, height), frame=(1280, 720), score=0.9,
                quality=0.8, clock="synchronised",
            ),
            cv2.imencode(".jpg", cut)[1].tobytes(),
        )  # fmt: skip
        await bucket.put_new(frozen.key, frozen.data)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory, night: tuple[int, str]) -> Iterator[Tab]:
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        found.call("Emulation.setTimezoneOverride", timezoneId=night[1])
        found.size(1180, 900)
        yield found


def shot(tab: Tab, name: str, tmp_path: Path) -> None:
    tab.picture(tmp_path / "shot.png")
    image = cv2.imread(str(tmp_path / "shot.png"))
    assert image is not None
    assert cv2.imwrite(
        str((Path(SHOTS) if SHOTS else tmp_path) / f"{name}.webp"), image, [cv2.IMWRITE_WEBP_QUALITY, 82]
    )


def text(tab: Tab, selector: str) -> str:
    return str(tab.value(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))


def open_health(tab: Tab, port: int, query: str = "") -> None:
    tab.open("about:blank")
    tab.until("location.href === 'about:blank'")
    tab.open(f"http://127.0.0.1:{port}/health{query}")
    tab.until("document.getElementById('verdict')?.dataset.level")


ANSWERED = "document.getElementById('past-verdict')?.dataset.level && !document.querySelector('[aria-busy]')"
PICTURES = (
    "[...document.querySelectorAll('.face img')].filter(each => each.complete && each.naturalWidth).length"
)


def test_within_three_clicks_why_a_face_was_lost_last_night(
    night: tuple[int, str], tab: Tab, tmp_path: Path
) -> None:
    """The walk that docs/health.md describes; each click is one."""
    clicks = 0

    def click(selector: str) -> None:
        nonlocal clicks
        clicks += 1
        tab.value(f"document.querySelector({json.dumps(selector)}).click()")

    tab.open(f"http://127.0.0.1:{night[0]}/")
    tab.until("document.querySelector('nav a[href=\"/health\"]')")
    click('nav a[href="/health"]')
    tab.until("document.getElementById('verdict')?.dataset.level === 'critical'")
    assert text(tab, "#verdict") == "Faces of home/door were lost; nothing is late; nothing is dark."
    assert "7 gave way in a full outbox" in text(tab, "#alarms li.critical[data-kind=dropped]")
    tab.until(f"{PICTURES} === 3")
    shot(tab, "health-open", tmp_path)
    click("[data-past=night]")
    tab.until(ANSWERED)
    assert text(tab, "#past-verdict").startswith("Yes: 7 faces of ")
    assert "7 gave way in a full outbox" in text(tab, "#past-verdict")
    assert "home/hall for 35 min" in text(tab, "#past-verdict")
    shot(tab, "health-night", tmp_path)
    click("#losses summary")
    assert clicks == 3
    why = text(tab, "#losses details[open] .why")
    assert "its link was down" in why
    assert "raise outbox.max_bytes" in why
    assert "22:15 to" in text(tab, "#losses summary")
    shot(tab, "health-why", tmp_path)
    assert tab.faults == []


def test_a_time_has_an_address_and_back_leads_back(night: tuple[int, str], tab: Tab) -> None:
    open_health(tab, night[0], "?past=night")
    tab.until(ANSWERED)
    asked = text(tab, "#past-verdict")
    tab.value("document.querySelector('[data-past=today]').click()")
    tab.until(f"document.getElementById('past-verdict').textContent !== {json.dumps(asked)} && {ANSWERED}")
    assert tab.value("location.search") == "?past=today"
    assert "NaN" not in str(tab.value("document.body.textContent"))
    tab.value("history.back()")
    tab.until(f"document.getElementById('past-verdict').textContent === {json.dumps(asked)}")
    assert tab.value("document.querySelector('[data-past=night]').getAttribute('aria-pressed')") == "true"
    tab.value("""(() => { const day = document.getElementById('day');
        day.value = '2020-02-29'; day.dispatchEvent(new Event('change')); })()""")
    tab.until("document.getElementById('past-verdict').dataset.level === 'unknown'")
    assert "Nothing is known of that time" in text(tab, "#past-verdict")
    assert tab.value("document.querySelectorAll('#chart .unheard').length") == 24
    assert "NaN" not in str(tab.value("document.body.textContent"))


def test_each_camera_and_each_link_stage_by_stage(night: tuple[int, str], tab: Tab) -> None:
    open_health(tab, night[0])
    door = "#cameras tr.critical"
    assert text(tab, f"{door} th").startswith("door")
    _, now = answer(night[0], "/api/health")
    counts = {each["name"]: each["counts"] for each in now["cameras"]}["home/door"]
    cells = {
        name: text(tab, f"{door} [data-name={name}]").replace(",", "")
        for name in ("Seen", "Inspected", "Captured", "Stored", "Waiting", "Dropped", "Received")
    }
    assert cells["Seen"] == str(counts["frames"])
    assert cells["Captured"] == str(counts["captured"])
    assert cells["Dropped"] == "77 evicted"
    share = (counts["captured"] - 7) / counts["captured"]
    assert cells["Received"].startswith(f"{100 * share:.1f} %")
    assert "31 ms / 88 ms" in text(tab, f'{door} [data-name="p50 / p99"]')
    assert "7 dropped" in str(tab.value(f"document.querySelector('{door} svg').getAttribute('aria-label')"))
    assert "9.4 kB/s" in text(tab, '#edges [data-name="Going up"]')
    assert len(now["day"]) == 24


@pytest.mark.parametrize("dark", [False, True])
def test_everybody_can_use_it(night: tuple[int, str], tab: Tab, tmp_path: Path, dark: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    try:
        for width, height in ((1180, 900), (360, 760)):
            tab.size(width, height, dark=dark)
            open_health(tab, night[0], "?past=night")
            tab.until(ANSWERED)
            tab.value("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert axe(tab) == []
            assert tab.value("document.documentElement.scrollWidth <= innerWidth")
        shot(tab, f"health-phone{'-dark' * dark}", tmp_path)
    finally:
        tab.size(1180, 900)
    assert tab.faults == []


def test_an_empty_bucket_and_one_that_cannot_be_read(
    tmp_path: Path, tab: Tab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_BOOKS_S", 0)

    served_url = f"file://{tmp_path / 'bucket'}"

    async def scenario() -> None:
        async with serving(served_url, tmp_path, caplog) as served:
            assert (await served.json("/api/health"))["verdict"]["level"] == "unknown"
            await asyncio.to_thread(open_health, tab, served.port)
            said = await asyncio.to_thread(text, tab, "#none")
            assert "No edge has reported yet" in said
            assert "facerelay capture -c edge.toml" in said
            edge, told = Edge(), Store(open_bucket(config.Bucket(url=served_url)), datetime.now(UTC))
            edge.count("door", captured=1)
            told.hear(edge)
            await told.write()
            await asyncio.to_thread(tab.until, "document.querySelector('#cameras tr')")  # by itself
            assert await asyncio.to_thread(tab.value, "document.getElementById('none').hidden")
            shutil.rmtree(tmp_path / "bucket" / "ledger")
            (tmp_path / "bucket" / "ledger").write_text("a file where a folder is wanted")
            await served.json("/api/health", 503)
            await asyncio.to_thread(open_health, tab, served.port)
            assert "cannot be read" in await asyncio.to_thread(text, tab, "#state")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "query",
    ["", "start=yesterday", "start=2026-11-20&hours=0", "start=2026-11-20&hours=999999", "start=0001-01-01",
     "start=9999-12-31T23:59:59-23:59", "start=2026-11-20&hours=%D9%A3",
     "start=2026-11-20&hours=0000000011000", "hours=24"],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_in_words(night: tuple[int, str], query: str) -> None:
    status, said = answer(night[0], f"/api/health/period?{query}")
    assert status == 400
    assert said["error"].startswith(("start: ", "hours: "))
