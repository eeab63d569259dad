from __future__ import annotations

import asyncio
import http.client
import json
import logging
import re
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conftest import Make
from facerelay import config, sections
from facerelay.cloud import keys
from facerelay.cloud.bucket import Bucket, Children, open_bucket
from facerelay.cloud.gallery import serve_gallery
from facerelay.cloud.newest import Newest

Answer = tuple[int, dict[str, str], bytes]


def ask(port: int, path: str, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


async def serving(url: str, caplog: pytest.LogCaptureFixture) -> tuple[asyncio.Task[None], int]:
    """Start the role on a free port, which its log names."""
    caplog.set_level(logging.INFO)
    settings = config.Config(bucket=config.Bucket(url=url), gallery=sections.Gallery(port=0))
    task = asyncio.create_task(serve_gallery(settings))
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", caplog.text)):
        await asyncio.sleep(0.02)
        assert not task.done()
    return task, int(found[1])


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def folder(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


def test_faces_show_as_they_land(tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        task, port = await serving(f"file://{tmp_path}", caplog)
        status, headers, body = await asyncio.to_thread(ask, port, "/latest")
        assert (status, json.loads(body)) == (200, {"faces": []})
        one = make_face()
        await folder(tmp_path).put_new(one.key, one.data)
        await asyncio.sleep(1)
        _, headers, body = await asyncio.to_thread(ask, port, "/latest")
        assert [shown["key"] for shown in json.loads(body)["faces"]] == [one.key]
        unchanged = await asyncio.to_thread(
            lambda: ask(port, "/latest", **{"If-None-Match": headers["etag"]})
        )
        assert unchanged[0] == 304
        status, headers, body = await asyncio.to_thread(ask, port, f"/face/{one.key}")
        assert (status, body, headers["content-type"]) == (200, one.data, "image/jpeg")
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
        assert headers["cache-control"].startswith("private")
        await stop(task)

    asyncio.run(scenario())


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        task, port = await serving(f"file://{tmp_path}", caplog)
        for path, media in {"/": "html", "/page.css": "css", "/page.js": "javascript"}.items():
            status, headers, body = await asyncio.to_thread(ask, port, path)
            assert status == 200
            assert media in headers["content-type"]
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert b"http://" not in body
            assert b"https://" not in body
            assert b"style=" not in body
        await stop(task)

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"])
def test_another_host_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str) -> None:
    async def scenario() -> None:
        task, port = await serving(f"file://{tmp_path}", caplog)
        status, _, _ = await asyncio.to_thread(lambda: ask(port, "/latest", Host=host))
        assert status == 400
        assert (await asyncio.to_thread(lambda: ask(port, "/latest", Host="localhost:1")))[0] == 200
        await stop(task)

    asyncio.run(scenario())


def test_only_faces_are_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        (tmp_path / "secret").write_text("secret")
        await folder(tmp_path / "b").put("tombstones/a.json", b"secret")
        task, port = await serving(f"file://{tmp_path}/b", caplog)
        for key in (
            "tombstones/a.json",
            "../secret",
            "faces/../../secret",
            "%2e%2e/secret",
            "/etc/passwd",
            "",
        ):
            status, _, body = await asyncio.to_thread(ask, port, f"/face/{key}")
            assert status == 404
            assert b"secret" not in body
        await stop(task)

    asyncio.run(scenario())


def test_half_requests_keep_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.web._IDLE_S", 1.0)

    async def scenario() -> None:
        task, port = await serving(f"file://{tmp_path}", caplog)
        with ExitStack() as stack:
            halves = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(210)]
            for half in halves:
                half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
            deadline = time.monotonic() + 30
            while (await asyncio.to_thread(ask, port, "/"))[0] != 200:
                assert time.monotonic() < deadline, "nobody is let in"
                await asyncio.sleep(0.2)
        await stop(task)

    asyncio.run(scenario())


def test_one_look_at_a_time_and_few_listings(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = folder(tmp_path)
    real, listings, here, peak = bucket.children, 0, 0, 0

    async def slow(prefix: str = "") -> Children:
        nonlocal listings, here, peak
        listings, here = listings + 1, here + 1
        peak = max(peak, here)
        await asyncio.sleep(0.005)
        here -= 1
        return await real(prefix)

    async def scenario() -> None:
        for camera in range(30):
            one = make_face(camera=f"c{camera}")
            await bucket.put_new(one.key, one.data)
        monkeypatch.setattr(bucket, "children", slow)
        newest = Newest(bucket, every_s=0, listings=40)
        await asyncio.gather(*(newest.look() for _ in range(20)))
        assert (listings, peak) == (40, 1)  # the rest wait for three times as long as that look took
        deadline = time.monotonic() + 30
        while len(await newest.look()) < 30:  # the next look goes on where the last one ended
            assert time.monotonic() < deadline, "not all cameras are found"
            await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_a_clock_that_is_years_ahead_does_not_fill_the_page(tmp_path: Path, make_face: Make) -> None:
    one, ahead = make_face(), make_face(camera="yard", time=datetime(9998, 1, 1, tzinfo=UTC))
    soon = make_face(camera="hall", time=datetime.now(UTC) + timedelta(days=1))

    async def scenario() -> None:
        bucket = folder(tmp_path)
        for sealed in (one, ahead, soon):
            await bucket.put_new(sealed.key, sealed.data)
        assert [shown.key for shown in await Newest(bucket).look()] == [soon.key, one.key]

    asyncio.run(scenario())


def test_a_key_has_plain_digits() -> None:
    key = "faces/site=home/camera=door/date=2026-11-21/hour=03/030405.000006-{}-01234567.jpg".format("a" * 36)
    assert keys.parse(key) is not None
    assert keys.parse(key.replace("2026", "\u0662\u0660\u0662\u0666")) is None


def test_the_newest_come_first_from_every_camera(tmp_path: Path, make_face: Make) -> None:
    noon = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    faces = [
        make_face(time=noon + timedelta(minutes=7 * n), camera="door" if n % 3 else "yard") for n in range(40)
    ]

    async def scenario() -> None:
        bucket = folder(tmp_path)
        for one in faces:
            await bucket.put_new(one.key, one.data)
        await bucket.put_new("faces/site=home/camera=door/readme.txt", b"x")
        found = await Newest(bucket, most=10).look()
        newest = sorted(faces, key=lambda one: one.face.time, reverse=True)[:10]
        assert [shown.key for shown in found] == [one.key for one in newest]

    asyncio.run(scenario())
