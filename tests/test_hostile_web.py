from __future__ import annotations

import ast
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

import facerelay
from conftest import Make
from facerelay import config, messages
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import BucketError
from facerelay.cloud.shards.view import ShardView
from facerelay.commands import objects, share
from facerelay.edge.flights import Stores
from facerelay.edge.home import discovery
from facerelay.metrics import Metric, Reading
from facerelay.metrics import text as exposition
from facerelay.settings import ConfigError, load
from gallery_parts import ask, folder, serving

NAMES = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a\r\nSet-Cookie: x", "../../etc",
    "a/b", "a b",
    "A", "é", "gpj.\u202egnp", "\x1b[2J", "", "x" * 64, "-a", "a\n", "%2e%2e", "{site}", "+", "#", "$SYS",
]  # fmt: skip
PATHS = [
    "/api/faces?site=", "/api/timeline?camera=", "/api/faces?cursor=", "/api/face?key=", "/thumb?key=",
    "/api/health/period?start=", "/api/faces?at=", "/api/live?site=", "/picture?key=",
]  # fmt: skip
TRAPS = [
    "../../../etc/passwd", "/etc/passwd", "faces/../../x", "faces//x", "faces/site=a/\x00", "faces/%2e%2e/x",
    "faces\\..\\x", "C:\\x", "faces/x\r\n", "faces/site=a/camera=b/date=2026-11-21/hour=10/../../../../x.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_slug_is_one_of_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load(None, flags=[f"site={name}"], environ={})
    with pytest.raises(ConfigError):
        load(None, flags=["camera.0.source=0", f"camera.0.name={name}"], environ={})
    books = Books(folder(tmp_path))
    told = {"outbox": "a" * 32, "cameras": {f"{name}/door": {}}}
    assert not books.take(f"ledger/{name}/{'a' * 32}", json.dumps(told).encode())
    named = {"outbox": "a" * 32, "cameras": {f"home/{name}": {}}}
    assert not books.take(f"ledger/home/{'a' * 32}", json.dumps(named).encode())
    with pytest.raises(messages.WireError) as caught:
        messages.Hello.from_bytes(json.dumps({"store": name, "start": "a" * 16}).encode())
    assert str(caught.value).isprintable()
    with pytest.raises(messages.WireError):
        messages.Ledger.from_bytes(
            json.dumps({"outbox": "a" * 32, "cameras": {"a/b": {"reasons": {f"{name}!": 1}}}}).encode()
        )


@pytest.mark.parametrize("key", TRAPS)
def test_no_key_leads_out_of_the_bucket_or_the_folder(tmp_path: Path, key: str) -> None:
    (tmp_path / "bucket").mkdir()
    settings = config.Config(bucket=config.Bucket(url=f"file://{tmp_path}/bucket"))
    out = tmp_path / "out"

    async def scenario() -> None:
        bucket = folder(tmp_path / "bucket")
        for work in (bucket.get(key, max_bytes=10), bucket.put_new(key, b"x"), bucket.delete(key)):
            with pytest.raises(BucketError):
                await work
        with pytest.raises(BucketError):
            await objects.fetch(settings, (key,), out)
        with pytest.raises((share.ShareError, BucketError)):
            await share._key_of(ShardView(bucket), key)

    asyncio.run(scenario())
    assert not list(out.iterdir())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_page_can_set_a_source_or_anything_but_erase_and_log_in() -> None:
    changing, routes = set(), 0
    for path in Path(facerelay.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Route":
                routes += 1
                if any(word.arg == "methods" for word in node.keywords):
                    changing.add(ast.unparse(node.args[0]).strip("'"))
    assert routes > 5
    assert "/api/erase" in changing
    assert all(path.startswith(("/api/erase", "/login", "/logout", "/auth")) for path in changing), changing


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"keys":' * 20_000,
        b'{"keys":[' + b"9" * 150_000 + b"]}",
        b"\xff",
        b"null",
        b"x" * 300_000,
    ],
)
def test_hostile_json_is_one_error_and_the_page_goes_on(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    one = make_face()

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await bucket.put_new(one.key, one.data)
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            headers = {"X-Facerelay": "1", "Origin": f"http://127.0.0.1:{served.port}"}
            status, _, said = await asyncio.to_thread(ask, served.port, "/api/erase", headers, "POST", body)
            assert status == 400, said
            assert len(said) < 300
            assert (await served.json("/api/faces"))["faces"][0]["key"] == one.key

    asyncio.run(scenario())


def test_what_a_query_holds_comes_back_as_text_of_json_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for name in (one for one in NAMES if one):
                for path in PATHS:
                    status, headers, body = await served.get(path + quote(name))
                    assert status == 400, (path, name)
                    assert headers["content-type"] == "application/json"
                    assert headers["x-content-type-options"] == "nosniff"
                    assert "set-cookie" not in headers
                    assert body.isascii() or b"\x1b" not in body

    asyncio.run(scenario())


def test_a_hostile_label_makes_no_line_of_its_own() -> None:
    metric = Metric("facerelay_x_total", "counter", "It.", ("camera",), ("store",))
    hostile = 'a"} 1\nfacerelay_faces_total{camera="door'
    lines = exposition.expose([Reading(metric, (hostile,), 2)], exposition.OPENMETRICS).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'facerelay_x_total{camera="a\\"} 1\\nfacerelay_faces_total{camera=\\"door"} 2'
    ]


def test_a_million_stores_are_not_remembered() -> None:
    stores = Stores()
    assert not stores.began(messages.Hello(store="true", start="aaaaaaaa"))
    for number in range(20_000):
        stores.began(messages.Hello(store=f"s{number}", start="aaaaaaaa"))
    assert len(stores._starts) < 1_000
    assert stores.began(messages.Hello(store="true", start="bbbbbbbb"))


@pytest.mark.parametrize("count", [1_001, 3_000])
def test_more_receipts_than_fit_one_message_are_refused(count: int) -> None:
    one = {"id": "0" * 36, "sha256": "0" * 64, "outcome": "stored"}
    with pytest.raises(messages.WireError):
        messages.Receipts.from_bytes(json.dumps({"store": "s", "receipts": [one] * count}).encode())


def test_two_cameras_never_share_a_device_of_home_assistant() -> None:
    names = [("a", "b_c"), ("a_b", "c"), ("a", "b__c"), ("a__b", "c"), ("a_", "b"), ("a-b", "c")]
    devices = [discovery.Names(prefix="p", topic="t", site=site).device(camera) for site, camera in names]
    assert len(set(devices)) == len(devices)


def test_times_at_the_ends_of_time_are_told_of_without_a_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", datetime.now(UTC).isoformat()]

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        books = Books(bucket)
        for number, when in enumerate(far):
            outbox = f"{number:032x}"
            link = {"time": when, "oldest_s": 2**53, "silent_s": 2**53}
            cameras = {"home/door": {"captured": 2**53, "dark_since": when, "reasons": {"gate-x": 2**53}}}
            told = {"outbox": outbox, "cameras": cameras, "link": link}
            assert books.take(f"ledger/home/{outbox}", json.dumps(told).encode())
        await books.flush()
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            told = await served.json("/api/health")
            assert [one["name"] for one in told["cameras"]] == ["home/door"]
            assert (await served.json("/api/health/period?start=2026-11-20T00:00:00Z"))["cameras"] == {}

    asyncio.run(scenario())
