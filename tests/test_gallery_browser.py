"""The gallery's pages in a real browser, on the real chain; their pictures go where GALLERY_SHOTS says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import statistics
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest

import month
from browser import Tab, browsing
from chains import Chain, _role, chain, eventually
from conftest import lacking
from facerelay import config, sections
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.erase import erase
from facerelay.cloud.gallery import serve_gallery
from facerelay.face import Frozen
from servers import free_port

FACES = 700
TILES = "document.querySelectorAll('.tiles a').length"
KEYS = "[...document.querySelectorAll('.tiles a')].map((each) => each.dataset.key)"
FIRST = f"{KEYS}[0]"
CURRENT = "document.activeElement.dataset.key"


@dataclass
class House:
    """The chain with a month of faces in its bucket, its gallery, and a browser."""

    chain: Chain
    url: str
    faces: list[Frozen]
    tab: Tab
    shots: Path

    def wall(
        self,
        where: str = "",
        tab: Tab | None = None,
        *,
        size: tuple[int, int] = (1280, 860),
        dark: bool = False,
    ) -> Tab:
        """Open the wall."""
        tab = tab or self.tab
        tab.size(*size, dark=dark)
        tab.open(self.url + where)
        tab.until(
            f"document.readyState === 'complete' && {TILES} > 0 && !document.querySelector('[aria-busy]')"
        )
        tab.until("document.getElementById('state').textContent !== 'Connecting…'")
        return tab

    def face(self, frozen: Frozen, tab: Tab | None = None) -> Tab:
        """Open a face's page."""
        tab = tab or self.tab
        tab.open(f"{self.url}face?key={quote(frozen.key)}")
        tab.until("document.getElementById('face')?.hidden === false")
        tab.until("document.getElementById('picture').naturalWidth > 0")
        return tab

    def feed(self, count: int, rate: float = 20) -> None:
        """Have faces captured at the edge, and wait until each has its answer."""
        self.chain.finished(self.chain.feed(count, rate))

    def shoot(self, name: str, tab: Tab | None = None) -> Path:
        """Save what is to be seen."""
        tab = tab or self.tab
        tab.until("[...document.images].filter((e) => e.getBoundingClientRect().top < innerHeight)"
                  ".every((e) => e.complete)")  # fmt: skip
        path = self.shots / f"gallery-{name}.webp"
        tab.picture(path)
        return path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    shots = Path(os.environ.get("GALLERY_SHOTS", folder)).resolve()
    port = free_port()
    with chain(folder, gallery={"port": port}) as running, browsing(folder) as tab:
        faces = month.fill(f"file://{folder}/bucket", FACES)
        gallery = _role(folder, "gallery", "cloud")
        running.parts["gallery"] = gallery
        gallery.start()
        url = f"http://127.0.0.1:{port}/"
        eventually(lambda: answers(url))
        yield House(running, url, faces, tab, shots)
        assert tab.faults == []
        assert "Traceback" not in gallery.text()


def answers(url: str) -> int:
    """Return the status of an answer; 0 where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own page
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def gallery(folder: Path, **bucket: Any) -> Iterator[str]:  # noqa: ANN401 - any of the bucket's settings
    """Serve one more gallery, of another bucket, in this process."""
    port = free_port()
    known = config.Config(
        bucket=config.Bucket(**bucket), gallery=sections.Gallery(port=port, cache=folder / "cache")
    )
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve_gallery(known))

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/"))
        yield f"http://127.0.0.1:{port}/"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


def axe(tab: Tab) -> list[str]:
    """Return what axe-core finds that is serious or worse."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or not spec.submodule_search_locations:
        lacking("axe-core (axe-playwright-python) is not installed")
        raise AssertionError
    tab.value((Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text() + "; 0")
    found = tab.value("axe.run(document, { rules: { 'target-size': { enabled: true } } })")
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html']}: {each['nodes'][0]['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def click(tab: Tab, selector: str) -> None:
    tab.value(f"document.querySelector({json.dumps(selector)}).click()")


def test_dark_where_the_reader_likes_it_dark_and_without_faults_of_accessibility(house: House) -> None:
    tab = house.tab
    house.wall(size=(360, 740))
    house.shoot("phone")
    for dark in (False, True):
        house.wall(dark=dark)
        tab.until("document.getElementById('day-count').textContent.includes('face')")
        path = house.shoot("dark" if dark else "wall")
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        assert (np.median(pixels) < 80) == dark
        assert axe(tab) == []
        house.face(house.faces[1])
        if not dark:
            house.shoot("face")
        assert axe(tab) == []
    tab.open(f"{house.url}?site=home&at=2000-01-01T00:00Z")
    tab.until("document.querySelector('.notice h2').textContent === 'No such faces'")
    assert axe(tab) == []
    tab.open(f"{house.url}health")
    tab.until("document.readyState === 'complete' && document.querySelector('h1, h2')")
    assert axe(tab) == []


def test_a_captured_face_appears_without_reload(
    house: House, portrait: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tab = house.wall()
    tab.value("""window.mark = 'the same page'; window.seen = {};
        new MutationObserver(() => {
            for (const each of document.querySelectorAll('.tiles a')) seen[each.dataset.key] ??= Date.now();
        }).observe(document.getElementById('groups'), { childList: true, subtree: true }); 0""")
    before = set(tab.value(KEYS))
    stored = set(house.chain.objects())
    house.feed(6, 5)
    tab.until(f"{KEYS}.filter((key) => !{json.dumps(sorted(before))}.includes(key)).length === 6")
    assert tab.value("window.mark") == "the same page"
    seen = tab.value("seen")
    landed = {path.relative_to(house.chain.folder / "bucket"): path for path in house.chain.objects()}
    late = [
        seen[str(key)] - path.stat().st_ctime * 1000 for key, path in landed.items() if path not in stored
    ]
    with capsys.disabled():
        print(f"\nPUT to page, ms: median {statistics.median(late):.0f}, most {max(late):.0f} of {len(late)}")  # noqa: T201
    newest = "document.querySelector('.tiles img')"
    tab.until(f"{newest}.naturalWidth > 0")
    assert tab.value(f"{newest}.alt").startswith("Face at door, ")
    assert tab.value("document.querySelector('.tiles a').classList.contains('new')")
    tab.until("document.getElementById('said').textContent.includes('at door')")
    assert tab.value("document.querySelectorAll('[aria-live], [role=status]').length") == 2
    done = house.chain.command("send", str(portrait), "--camera", "gate")
    assert done.returncode == 0, done.stderr
    tab.until(f"{newest}.alt.startsWith('Face at gate, ') && {newest}.naturalWidth > 0")
    assert tab.value("window.mark") == "the same page"


def test_who_looks_further_down_is_told_of_new_faces_and_not_moved(house: House) -> None:
    tab = house.wall()
    tab.value("scrollTo(0, 900)")
    house.feed(3)
    tab.until("document.getElementById('fresh').textContent === '3 new faces ↑'")
    assert tab.value("scrollY") == 900
    click(tab, "#fresh")
    tab.until("scrollY === 0")
    assert tab.value("document.getElementById('fresh').hidden")
    assert tab.value(f"{CURRENT} === {FIRST}")


def test_filters_and_times_stand_in_the_address(house: House) -> None:
    tab = house.wall()
    tab.until("document.querySelectorAll('#camera option').length >= 6")
    tab.value("(() => { const c = document.getElementById('camera'); c.value = 'home/yard';"
              " c.dispatchEvent(new Event('change')) })()")  # fmt: skip
    tab.until("location.search === '?site=home&camera=yard'")
    tab.until(f"{TILES} > 5 && {KEYS}.every((key) => key.startsWith('faces/site=home/camera=yard/'))")
    tab.value("(() => { const q = document.getElementById('quality'); q.value = '0.75';"
              " q.dispatchEvent(new Event('change')) })()")  # fmt: skip
    good = [one.key for one in house.faces if one.face.camera == "yard" and one.face.quality >= 0.75]
    tab.until("location.search.endsWith('&quality=0.75')")
    tab.until(f"{FIRST} === {json.dumps(good[0])} && !document.querySelector('[aria-busy]')")
    assert tab.value(KEYS) == good[: len(tab.value(KEYS))]
    tab.value("history.back()")
    tab.until(
        "location.search === '?site=home&camera=yard' && document.getElementById('quality').value === '0'"
    )
    tab.until(f"{KEYS}.length > 5 && !document.querySelector('[aria-busy]')")
    tab.value("history.back()")
    tab.until("location.search === '' && document.getElementById('camera').value === ''")
    tab.until(f"{KEYS}.some((key) => key.includes('camera=till'))")
    # A deep link: up to the middle of some day.
    middle = house.faces[FACES // 2].face
    house.wall(f"?site={middle.site}&at={middle.time.strftime('%Y-%m-%dT%H:%M:%SZ')}")
    until = middle.time.replace(microsecond=0)
    wanted = [one.key for one in house.faces if one.face.site == middle.site and one.face.time < until]
    assert tab.value(KEYS)[:20] == wanted[:20]
    assert tab.value("document.getElementById('camera').value") == f"{middle.site}/"
    assert tab.value("document.getElementById('state').textContent").startswith("Up to")
    click(tab, "#tolive")
    tab.until(f"location.search === '?site={middle.site}'")
    tab.until("document.getElementById('state').textContent === 'Live'")


def test_the_timeline_leads_through_the_month(house: House) -> None:
    tab = house.wall()
    tab.until("document.querySelectorAll('#days i:not(.none)').length > 20")
    tab.until("document.querySelectorAll('#hours i.here').length === 1")
    tab.point("#days", across=0.96, drag_to=0.5)
    tab.until("location.search.startsWith('?at=') && !document.querySelector('[aria-busy]')")
    shown = "document.querySelector('.day h2').firstChild.data"
    day = tab.value(shown)
    assert (
        tab.value("document.getElementById('days').getAttribute('aria-valuetext')").split(",")[0][4:] in day
    )
    tab.value("document.getElementById('days').focus()")
    tab.press("ArrowLeft")
    tab.until(f"!document.querySelector('[aria-busy]') && {shown} !== {json.dumps(day)}")
    tab.press("ArrowRight")
    tab.until(f"!document.querySelector('[aria-busy]') && {shown} === {json.dumps(day)}")
    tab.until("document.querySelectorAll('#hours i:not(.none)').length > 3")
    tab.value("document.getElementById('hours').focus()")
    hour = tab.value("document.querySelector('.hour h3 time').textContent")
    tab.press("ArrowLeft")
    tab.until(f"document.querySelector('.hour h3 time').textContent < {json.dumps(hour)}")
    assert tab.value(shown) == day
    tab.press("Escape")
    tab.until("location.search === '' && document.getElementById('state').textContent === 'Live'")


def test_days_are_those_of_the_reader(house: House) -> None:
    tab = house.wall()
    tab.call("Emulation.setTimezoneOverride", timezoneId="Asia/Tokyo")
    try:
        house.wall()
        key = tab.value(FIRST)
        clock = tab.value("document.querySelector('.tiles .cap b').textContent")
        hour = int(key.split("hour=")[1][:2])
        assert int(clock[:2]) == (hour + 9) % 24
        tab.until("document.querySelectorAll('#days i:not(.none)').length > 20")
        tab.point("#days", across=0.5)
        tab.until("location.search.includes('T15:00Z') && !document.querySelector('[aria-busy]')")
    finally:
        tab.call("Emulation.setTimezoneOverride", timezoneId="")


def test_everything_by_keyboard(house: House) -> None:
    tab = house.wall()
    tab.until("document.querySelectorAll('#days i').length === 31")
    walked = []
    for _ in range(12):
        tab.press("Tab")
        walked.append(tab.value("document.activeElement.id || document.activeElement.textContent"))
        ring = "getComputedStyle(document.activeElement.querySelector('img') ?? document.activeElement)"
        assert tab.value(f"{ring}.outlineStyle") != "none", walked
        if tab.value(f"!!{CURRENT}"):
            break
    assert walked[0] == "Skip to the faces"
    stops = ["camera", "quality", "days", "hours"]
    assert [each for each in walked if each in stops] == stops
    keys = tab.value(KEYS)
    assert tab.value(CURRENT) == keys[0]
    tab.press("ArrowRight")
    assert tab.value(CURRENT) == keys[1]
    tab.press("ArrowDown")
    below = tab.value("document.activeElement.getBoundingClientRect().top")
    tab.press("ArrowUp")
    assert tab.value("document.activeElement.getBoundingClientRect().top") < below
    for _ in range(3):
        tab.press("PageDown")
    tab.press("End")
    far, y = tab.value(CURRENT), tab.value("scrollY")
    assert y > 500
    assert tab.value("document.querySelectorAll('.tiles a[tabindex=\"0\"]').length") == 1
    tab.press("Enter")
    tab.until("location.pathname === '/face' && document.getElementById('face')?.hidden === false")
    first = tab.value("document.title")
    tab.press("ArrowLeft")
    tab.until(f"document.title !== {json.dumps(first)}")
    tab.press("Escape")
    tab.until(f"location.pathname === '/' && {CURRENT} === {json.dumps(far)}")
    assert abs(tab.value("scrollY") - y) < 5
    tab.press("Enter")
    tab.until("location.pathname === '/face' && document.getElementById('face')?.hidden === false")
    tab.value("history.back()")
    tab.until(f"location.pathname === '/' && {CURRENT} === {json.dumps(far)}")


def test_thousands_scroll_with_few_tiles_in_the_page_and_nothing_moves(house: House) -> None:
    tab = house.wall()
    tab.value("""window.shifts = 0; new PerformanceObserver((list) => {
        for (const each of list.getEntries()) if (!each.hadRecentInput) shifts += each.value;
    }).observe({ type: 'layout-shift', buffered: false }); 0""")
    most = 0
    while "earliest" not in tab.value("document.getElementById('end').textContent"):
        tab.value("scrollTo(0, document.documentElement.scrollHeight)")
        tab.value("new Promise((done) => setTimeout(done, 60))")
        most = max(most, tab.value(TILES))
    counted = (
        "[...document.querySelectorAll('.hour h3 span')].reduce((sum, e) => sum + Number(e.textContent), 0)"
    )
    assert tab.value(counted) == len(house.chain.objects())
    assert most < FACES / 3
    tab.value("scrollTo(0, document.documentElement.scrollHeight)")
    tab.until(f"{KEYS}.at(-1) === {json.dumps(house.faces[-1].key)}")
    assert tab.value("shifts") < 0.05


@pytest.mark.parametrize("page", ["wall", "face", "empty"])
def test_on_a_phone_nothing_is_cut_off_or_too_small_to_touch(house: House, page: str) -> None:
    tab = house.wall(size=(360, 740))
    if page == "face":
        house.face(house.faces[3])
    if page == "empty":
        tab.open(f"{house.url}?at=2000-01-01T00:00Z")
        tab.until("!!document.querySelector('.notice')")
    assert tab.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    small = tab.value("""[...document.querySelectorAll('a, button, select, input, [role=slider]')]
        .filter((e) => e.checkVisibility() && !e.matches('.skip'))
        .map((e) => [(e.closest('label') ?? e).getBoundingClientRect(), e.outerHTML])
        .filter(([{ width, height }]) => width < 24 || height < 24).map(([, html]) => html)""")
    assert small == []


def test_an_erased_face_is_gone_everywhere(house: House) -> None:
    tab, other = house.wall(), house.tab.another()
    house.wall(tab=other)
    doomed = next(one for one in house.faces if one.key in tab.value(KEYS)[:12])
    path = house.chain.folder / "bucket" / doomed.key
    thumb = f"{house.url}thumb?key={quote(doomed.key)}"
    assert path.exists()
    assert answers(thumb) == 200
    tab.front()
    click(tab, f".tiles a[data-key='{doomed.key}']")
    tab.until("location.pathname === '/face' && document.getElementById('erase')?.checkVisibility()")
    click(tab, "#erase")
    assert tab.value("document.activeElement.id") == "sure-no"
    house.shoot("erase")
    assert axe(tab) == []
    tab.press("Escape")
    assert not tab.value("document.getElementById('sure').open")
    assert path.exists()
    click(tab, "#erase")
    click(tab, "#sure-yes")
    tab.until(f"location.pathname === '/' && {TILES} > 5")
    gone = f"!document.querySelector(\".tiles a[data-key='{doomed.key}']\")"
    tab.until(gone)
    other.until(gone)
    assert not path.exists()
    assert answers(thumb) == 404
    assert answers(f"{house.url}picture?key={quote(doomed.key)}") == 404
    tab.open(f"{house.url}face?key={quote(doomed.key)}")
    tab.until("document.querySelector('.notice h1')?.textContent === 'This face is not here'")
    # One that is erased elsewhere goes from open pages, too.
    second = next(one for one in house.faces if one.key in other.value(KEYS)[:12])
    bucket = open_bucket(config.Bucket(url=f"file://{house.chain.folder}/bucket"))
    asyncio.run(erase(bucket, ids=[second.face.id], longest_put=0))
    other.front()
    other.until(f"!document.querySelector(\".tiles a[data-key='{second.key}']\")")
    assert other.faults == []


def test_a_visit_is_shown_together_and_erased_together(house: House) -> None:
    before = set(house.chain.objects())
    house.feed(3)
    visit = sorted(set(house.chain.objects()) - before)
    tab = house.wall()
    newest = str(visit[-1].relative_to(house.chain.folder / "bucket"))
    tab.until(f"{FIRST} === {json.dumps(newest)}")
    click(tab, ".tiles a")
    tab.until("document.querySelectorAll('#visit li').length === 3")
    click(tab, "#visit li:first-child a")
    tab.until(f"decodeURIComponent(location.search).endsWith({json.dumps(visit[0].name)})")
    tab.until("document.querySelector('#visit li:first-child a').ariaCurrent === 'true'")
    click(tab, "#erase")
    assert tab.value("document.getElementById('sure-visit').textContent.trim()") == (
        "And the 2 other faces of this visit"
    )
    click(tab, "#sure-visit input")
    click(tab, "#sure-yes")
    tab.until(f"location.pathname === '/' && {TILES} > 5 && {FIRST} !== {json.dumps(newest)}")
    assert not any(path.exists() for path in visit)


def test_what_is_written_on_a_face_is_told_with_labels_and_units(house: House) -> None:
    one = house.faces[5]
    tab = house.face(one)
    told = tab.value("Object.fromEntries([...document.querySelectorAll('#known dl > div')]"
                     ".map((e) => [e.children[0].textContent, e.children[1].textContent]))")  # fmt: skip
    assert told["Camera"] == one.face.camera
    assert told["Sharpness"] == f"{one.face.parts['sharpness']:.2f}"
    assert (
        told["File"] == f"{len(one.data):,} bytes"
        if len(one.data) < 10_000
        else f"{len(one.data) / 1000:.1f} kB"
    )
    assert told["SHA-256"] == one.sha256
    assert told["Frame"].startswith("1280")
    assert told["Clock"] == "Synchronised"
    assert told["Key"] == one.key
    link = tab.value("document.getElementById('download').href")
    with urllib.request.urlopen(link) as answer:  # noqa: S310 - our own page
        assert answer.read() == one.data
        assert "attachment" in answer.headers["Content-Disposition"]


def test_an_empty_bucket_says_what_to_do_next(house: House, tmp_path: Path) -> None:
    tab = house.tab
    tab.size(1280, 860)
    with gallery(tmp_path, url=f"file://{tmp_path}/bucket") as url:
        tab.open(url)
        tab.until("document.querySelector('.notice h2')?.textContent === 'No faces yet'")
        words = tab.value("document.querySelector('.notice').textContent")
        assert "facerelay capture" in words
        assert "facerelay send" in words
        assert axe(tab) == []
        one = house.faces[0]
        asyncio.run(open_bucket(config.Bucket(url=f"file://{tmp_path}/bucket")).put_new(one.key, one.data))
        tab.until(f"{TILES} === 1 && !document.querySelector('.notice')")
    tab.until("document.getElementById('state').classList.contains('fault')")


def test_a_bucket_that_cannot_be_read_is_said(house: House, tmp_path: Path) -> None:
    tab = house.tab
    keys = {"access_key": "a", "secret_key": "b"}
    with gallery(tmp_path, url="s3://faces", endpoint=f"http://127.0.0.1:{free_port()}", **keys) as url:
        tab.open(url)
        tab.until("document.querySelector('.notice h2')?.textContent === 'The bucket cannot be read'", 60)
        assert "facerelay doctor" in tab.value("document.querySelector('.notice').textContent")
        assert "cannot be read" in tab.value("document.getElementById('state').textContent")


def test_after_a_restart_of_the_gallery_the_page_catches_up(house: House) -> None:
    tab = house.wall()
    part = house.chain["gallery"]
    part.kill()
    tab.until("document.getElementById('state').classList.contains('fault')")
    before = set(tab.value(KEYS))
    house.feed(2)
    part.start()
    tab.until("document.getElementById('state').textContent === 'Live'")
    tab.until(f"{KEYS}.filter((key) => !{json.dumps(sorted(before))}.includes(key)).length === 2")
