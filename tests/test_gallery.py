from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from conftest import Make
from facerelay import config, sections, web
from facerelay.cloud import keys
from facerelay.cloud.gallery import serve_gallery
from gallery_parts import fill, folder, serving

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_HALF_BODY = (
    b"POST /api/erase HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Facerelay: 1\r\nOrigin: http://127.0.0.1\r\n"
    b"Content-Length: 1000\r\n\r\nx"
)


def test_faces_are_listed_and_shown(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    faces = [make_face(time=NOON + timedelta(minutes=n), track=7) for n in range(3)]

    async def scenario() -> None:
        await fill(folder(tmp_path / "b"), faces)
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            assert await served.json("/api/places") == {"sites": [{"site": "home", "cameras": ["door"]}]}
            page = await served.json("/api/faces?site=home&camera=door&limit=2")
            assert [one["key"] for one in page["faces"]] == [faces[2].key, faces[1].key]
            assert page["faces"][0]["time"] == faces[2].face.time.isoformat()
            rest = await served.json(f"/api/faces?limit=2&cursor={quote(page['next'])}")
            assert [one["key"] for one in rest["faces"]] == [faces[0].key]
            assert rest["next"] is None
            key = quote(faces[1].key)
            status, headers, body = await served.get(f"/picture?key={key}&download=1")
            assert (status, body, headers["content-type"]) == (200, faces[1].data, "image/jpeg")
            assert re.fullmatch(
                r'attachment; filename="home-door-[\w-]+\.jpg"', headers["content-disposition"]
            )
            assert headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in headers["content-security-policy"]
            told = await served.json(f"/api/face?key={key}")
            assert (told["earlier"]["key"], told["later"]["key"]) == (faces[0].key, faces[2].key)
            assert [one["key"] for one in told["visit"]] == [one.key for one in faces]
            assert told["bytes"] == len(faces[1].data)
            assert told["exif"]["sha256"] == faces[1].sha256
            assert told["exif"]["parts"] == {"sharpness": 0.25}
            assert told["exif"]["software"].startswith("facerelay ")
            assert (told["face"]["quality"], told["face"]["width"], told["face"]["height"]) == (0.5, 96, 120)

    asyncio.run(scenario())


def test_every_file_of_the_pages_is_served_and_loads_nothing_from_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = web.page_files("facerelay.cloud.gallery")
    assert {"/", "/face"} <= files.keys()

    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for path, (_, media) in files.items():
                status, headers, body = await served.get(path)
                assert status == 200
                assert headers["content-type"].startswith(media)
                assert headers["content-security-policy"].startswith("default-src 'none'")
                elsewhere = re.findall(rb"https?://[^\"'\s]+", body)
                assert set(elsewhere) <= {b"http://www.w3.org/2000/svg"}, path
                assert b"style=" not in body, path

    asyncio.run(scenario())


def test_an_empty_bucket_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            assert await served.json("/api/places") == {"sites": []}
            assert await served.json("/api/faces") == {"faces": [], "next": None, "searched_to": None}
            assert await served.json("/api/faces?quality=0.5") == {
                "faces": [],
                "next": None,
                "searched_to": None,
            }
            assert await served.json("/api/timeline") == {"days": []}
            assert await served.json("/api/timeline/day?date=2026-11-21") == {"hours": [0] * 24}
            assert await served.json("/api/ready") == {"ok": True}

    asyncio.run(scenario())


def test_a_bucket_that_cannot_be_read_is_said_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "b").write_text("a file in the way")

    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for path in ("/api/places", "/api/faces", "/api/timeline", "/api/ready"):
                assert "bucket" in (await served.json(path, 503))["error"]
            assert (await served.get("/"))[0] == 200

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gallery = sections.Gallery(port=taken.getsockname()[1], cache=tmp_path / "cache")
        settings = config.Config(bucket=config.Bucket(url=f"file://{tmp_path}/b"), gallery=gallery)
        with pytest.raises(OSError, match="in use"):
            asyncio.run(serve_gallery(settings))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"])
def test_another_host_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            assert (await served.get("/api/faces", Host=host))[0] == 400
            assert (await served.get("/api/faces", Host="localhost:1"))[0] == 200
            for site in ("cross-site", "same-site"):
                assert (await served.get("/api/faces", Sec_Fetch_Site=site))[0] == 403
                assert (await served.get("/", Sec_Fetch_Site=site))[0] == 200

    asyncio.run(scenario())


def test_only_faces_are_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        (tmp_path / "secret").write_text("secret")
        await folder(tmp_path / "b").put("tombstones/a.json", b"secret")
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for key in (
                "tombstones/a.json",
                "../secret",
                "faces/../../secret",
                "/etc/passwd",
                "",
                "x" * 9000,
            ):
                for path in ("/picture", "/thumb", "/api/face"):
                    status, _, body = await served.get(f"{path}?key={quote(key)}")
                    assert status == 400
                    assert b"secret" not in body
            for path in ("/page/../web.py", "/page/%2e%2e/api.py", "/page/", "/faces/site=home"):
                assert (await served.get(path))[0] == 404

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "query",
    [
        "site=Home", "camera=a/b", "at=yesterday", "at=" + "9" * 400, "quality=2", "quality=nan", "quality=x",
        "limit=0", "limit=1000", "limit=-1", "limit=%D9%A3", "limit=0000000011000", "cursor=../x",
        "cursor=%401999", "cursor=face/x",
    ],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            assert (await served.json(f"/api/faces?{query}", 400))["error"].startswith(
                query.partition("=")[0]
            )
            for date in ("", "2026-13-01", "today", "2026-11-1"):
                assert "date" in (await served.json(f"/api/timeline/day?date={date}", 400))["error"]

    asyncio.run(scenario())


def test_half_requests_keep_nobody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served, AsyncExitStack() as stack:
            for n in range(400):
                _, writer = await asyncio.open_connection("127.0.0.1", served.port)
                stack.callback(writer.close)
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " if n % 2 else _HALF_BODY)
            for _ in range(5):
                assert (await served.get("/"))[0] == 200

    asyncio.run(scenario())


def test_a_half_request_is_ended_in_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.http_server._HEAD_S", 0.6)
    monkeypatch.setattr("facerelay.http_server._BODY_S", 0.6)

    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for half in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", _HALF_BODY):
                reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
                writer.write(half)
                dripping = asyncio.ensure_future(_drip(writer))
                async with asyncio.timeout(20):
                    with suppress(ConnectionError):
                        await reader.read()
                dripping.cancel()
                writer.close()

    asyncio.run(scenario())


async def _drip(writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, as if more were to come."""
    with suppress(ConnectionError):
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.1)


def test_erasing_takes_a_page_of_ours(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = make_face(time=NOON), make_face(time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one, other])
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for headers in (
                {"X_Facerelay": "0"},
                {"Origin": "http://evil.example"},
                {"Origin": ""},
                {"Origin": "null"},
                {"Sec_Fetch_Site": "cross-site"},
            ):
                assert (await served.erase([one.key], **headers))[0] == 403
            wrongs: tuple[Any, ...] = ("x", [], ["../x"], [1], [one.key] * 501, {})
            for wrong in wrongs:
                assert (await served.erase(wrong))[0] == 400
            assert (await served.get("/api/erase"))[0] == 405
            assert (await served.get(f"/thumb?key={quote(one.key)}"))[0] == 200
            status, headers, body = await served.erase([one.key])
            assert status == 200
            assert headers["clear-site-data"] == '"cache"'
            told = json.loads(body)
            assert told["deleted"] == 1
            [tombstone] = json.loads(told["proof"])["tombstones"]
            assert json.loads(await bucket.get(tombstone, max_bytes=1000))["ids"] == [one.face.id]
            for path in ("/thumb", "/picture", "/api/face"):
                await served.json(f"{path}?key={quote(one.key)}", 404)
            page = await served.json("/api/faces")
            assert [face["key"] for face in page["faces"]] == [other.key]

    asyncio.run(scenario())


def test_erasing_can_be_switched_off(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_face(time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one])
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, erase=False) as served:
            assert await served.json("/api/settings") == {"erase": False, "login": False}
            assert (await served.erase([one.key]))[0] == 403
            assert await bucket.get(one.key, max_bytes=100_000) == one.data

    asyncio.run(scenario())


def test_a_key_has_plain_digits() -> None:
    key = "faces/site=home/camera=door/date=2026-11-21/hour=03/030405.000006-{}-01234567.jpg".format("a" * 36)
    facts = keys.parse(key)
    assert facts is not None
    assert facts.time == datetime(2026, 11, 21, 3, 4, 5, 6, UTC)
    assert keys.parse(key.replace("2026", "\u0662\u0660\u0662\u0666")) is None
    assert keys.parse(key.replace("/030405", "/036405")) is None
