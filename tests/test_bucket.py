from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from obstore.store import MemoryStore
from pydantic import SecretStr

from buckets import Weed
from facerelay import config
from facerelay.cloud import files
from facerelay.cloud.bucket import Bucket, BucketError, MissingError, check_key, open_bucket
from facerelay.cloud.objects import ObjectBucket

KEY = "faces/site=home/camera=door/date=2026-11-21/hour=03/a.jpg"


@pytest.fixture(params=["folder", "s3", "s3 with prefix", "memory"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "folder":
        return open_bucket(config.Bucket(url=f"file://{tmp_path}/b"))
    if request.param == "memory":
        return open_bucket(config.Bucket(url="memory://"))
    server: Weed = request.getfixturevalue("weed")
    prefix = "some/where" if "prefix" in request.param else ""
    return open_bucket(server.bucket(f"b{time.time_ns()}", prefix))


def refuse(*_: Any, **__: Any) -> None:  # noqa: ANN401 - whatever is given
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def folder_bucket(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


def test_what_is_put_can_be_read_listed_and_deleted(bucket: Bucket) -> None:
    async def scenario() -> None:
        assert await bucket.put_new(KEY, b"one", content_type="image/jpeg", metadata={"id": "x"})
        await bucket.put("ledger/site=home/ab.json", b"{}")
        await bucket.put("ledger/site=home/ab.json", b"{ }")
        assert await bucket.get(KEY, max_bytes=3) == b"one"
        assert await bucket.get("ledger/site=home/ab.json", max_bytes=3) == b"{ }"
        listed = [entry async for entry in bucket.list("faces")]
        assert [(entry.key, entry.size) for entry in listed] == [(KEY, 3)]
        assert abs(listed[0].modified.timestamp() - time.time()) < 60
        assert {entry.key async for entry in bucket.list()} == {KEY, "ledger/site=home/ab.json"}
        assert [entry.key async for entry in bucket.list("faces", after=KEY)] == []
        assert (await bucket.children("faces")).folders == ["site=home"]
        level = await bucket.children(KEY.rpartition("/")[0])
        assert [entry.key for entry in level.entries] == [KEY]
        assert level.folders == []
        await bucket.delete(KEY)
        await bucket.delete(KEY)
        assert [entry async for entry in bucket.list("faces")] == []
        with pytest.raises(MissingError):
            await bucket.get(KEY, max_bytes=3)

    asyncio.run(scenario())


def test_a_second_create_changes_nothing(bucket: Bucket) -> None:
    async def scenario() -> None:
        assert await bucket.put_new(KEY, b"first")
        assert not await bucket.put_new(KEY, b"second")
        assert await bucket.get(KEY, max_bytes=10) == b"first"

    asyncio.run(scenario())


def test_of_many_at_once_one_creates(bucket: Bucket) -> None:
    async def scenario() -> None:
        await bucket.put("up.txt", b"up")
        tries = [bucket.put_new(KEY, b"%d" % n) for n in range(40)]
        won = await asyncio.gather(*tries)
        assert sum(won) == 1
        assert await bucket.get(KEY, max_bytes=10) == b"%d" % won.index(True)

    asyncio.run(scenario())


def test_size_is_looked_at_before_reading(bucket: Bucket) -> None:
    async def scenario() -> None:
        await bucket.put_new(KEY, b"12345")
        with pytest.raises(BucketError, match="5 bytes, over 4") as caught:
            await bucket.get(KEY, max_bytes=4)
        assert caught.value.fault == "too-large"

    asyncio.run(scenario())


def test_probe_leaves_nothing_behind(bucket: Bucket) -> None:
    async def scenario() -> None:
        found = await bucket.probe()
        assert found.create_only
        assert "a small PUT takes" in str(found)
        assert [entry async for entry in bucket.list()] == []

    asyncio.run(scenario())


def test_probe_tells_of_a_bucket_that_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = folder_bucket(tmp_path)

    async def overwrite(key: str, data: bytes, **_: Any) -> bool:  # noqa: ANN401 - whatever is given
        await bucket.put(key, data)
        return True

    monkeypatch.setattr(bucket, "put_new", overwrite)
    found = asyncio.run(bucket.probe())
    assert not found.create_only
    assert "overwrites" in str(found)


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", ".partial/x", "a/.b", "a\0b", "a\nb", "ü", "a/" * 500],
)
def test_a_key_leads_nowhere_else(key: str, tmp_path: Path) -> None:
    with pytest.raises(BucketError, match="not a key"):
        check_key(key)
    with pytest.raises(BucketError):
        asyncio.run(folder_bucket(tmp_path).get(key, max_bytes=10))


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.jpg").symlink_to(tmp_path / "secret")
    bucket = folder_bucket(tmp_path / "b")
    with pytest.raises(BucketError):
        asyncio.run(bucket.get("a.jpg", max_bytes=100))
    assert asyncio.run(bucket.children()).entries == []


async def names(bucket: Bucket) -> set[str]:
    return {entry.key async for entry in bucket.list()}


def test_names_that_are_not_ours_are_passed_over_in_a_folder(tmp_path: Path) -> None:
    bucket = folder_bucket(tmp_path)

    async def scenario() -> None:
        await bucket.put("tombstones/a.json", b"{}")
        await bucket.put("top.txt", b"")
        for odd in (
            "tombstones/@eaDir/x",
            "tombstones/x y.json",
            "a b.txt",
            "x y/z",
            "tombstones/\u0661.json",
        ):
            (tmp_path / odd).parent.mkdir(exist_ok=True)
            (tmp_path / odd).write_text("x")
        (tmp_path / os.fsdecode(b"\xff.jpg")).write_text("x")
        deep = "/".join(["d" * 199] * 4)
        (tmp_path / deep / "long").mkdir(parents=True)
        (tmp_path / deep / "long" / "x").write_text("x")
        assert await names(bucket) == {"tombstones/a.json", "top.txt"}
        assert (await bucket.children()).folders == ["d" * 199, "tombstones"]
        assert [entry.key for entry in (await bucket.children("tombstones")).entries] == ["tombstones/a.json"]

    asyncio.run(scenario())


def test_names_that_are_not_ours_are_passed_over_elsewhere() -> None:
    store = MemoryStore()
    bucket = ObjectBucket(store, url="memory://")

    async def scenario() -> None:
        await bucket.put("tombstones/a.json", b"{}")
        for odd in ("tombstones/@eaDir/x", "tombstones/x y.json", "a b.txt", "x y/z", "tombstones"):
            await store.put_async(odd, b"x")
        assert await names(bucket) == {"tombstones/a.json", "tombstones"}
        assert [entry.key async for entry in bucket.list("tombstones")] == ["tombstones/a.json"]
        assert (await bucket.children()).folders == ["tombstones"]
        level = await bucket.children("tombstones")
        assert ([entry.key for entry in level.entries], level.folders) == (["tombstones/a.json"], [])

    asyncio.run(scenario())


def test_partial_files_never_go_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "elsewhere" / "precious"
    precious.parent.mkdir()
    precious.write_text("x")
    os.utime(precious, (1, 1))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".partial").symlink_to(precious.parent)
    with pytest.raises(BucketError, match="a link or a file is in the way") as caught:
        asyncio.run(folder_bucket(tmp_path / "b").put_new(KEY, b"x"))
    assert not caught.value.passing
    assert list(precious.parent.iterdir()) == [precious]


def test_old_things_among_partial_files_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / ".partial" / "folder").mkdir(parents=True)
    (tmp_path / ".partial" / "left").write_text("x")
    (tmp_path / ".partial" / "new").write_text("x")
    (tmp_path / ".partial" / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "left"):
        os.utime(tmp_path / ".partial" / name, (1, 1))
    assert asyncio.run(folder_bucket(tmp_path).put_new(KEY, b"x"))
    assert {path.name for path in (tmp_path / ".partial").iterdir()} == {"folder", "link", "new"}


def test_a_link_among_the_folders_leads_nowhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    precious = elsewhere / KEY.removeprefix("faces/site=home/")
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    (tmp_path / "b" / "faces").mkdir(parents=True)
    (tmp_path / "b" / "faces" / "site=home").symlink_to(elsewhere)
    bucket = folder_bucket(tmp_path / "b")
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: bucket.put_new(KEY, b"x"), lambda: bucket.put_new(f"{KEY}.new", b"x"),
        lambda: bucket.put(KEY, b"x"), lambda: bucket.get(KEY, max_bytes=100), lambda: bucket.delete(KEY),
        lambda: bucket.children("faces/site=home"),
    ]  # fmt: skip

    async def scenario() -> None:
        for attempt in attempts:
            with pytest.raises(BucketError, match="a link or a file is in the way") as caught:
                await attempt()
            assert not caught.value.passing
        assert (await bucket.children("faces")).folders == []

    asyncio.run(scenario())
    assert precious.read_text() == "precious"
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == [precious]


@pytest.mark.parametrize("links", [True, False])
def test_a_link_under_a_final_key_is_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
    bucket = folder_bucket(tmp_path)

    async def scenario() -> None:
        assert not await bucket.put_new("a.jpg", b"x")
        with pytest.raises(BucketError) as caught:
            await bucket.get("a.jpg", max_bytes=100)
        assert caught.value.fault == "refused"

    asyncio.run(scenario())
    assert not (tmp_path / "nowhere").exists()


def test_the_root_may_be_a_link_and_may_come_back(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "mounted")
    bucket = folder_bucket(tmp_path / "b")

    async def scenario() -> None:
        assert await bucket.put_new(KEY, b"x")
        shutil.rmtree(tmp_path / "mounted")
        (tmp_path / "mounted").mkdir()
        with pytest.raises(BucketError, match="went away") as caught:
            await bucket.put_new(KEY, b"x")
        assert caught.value.passing
        assert await bucket.put_new(KEY, b"x")
        await bucket.delete(KEY)
        assert await names(bucket) == set()

    asyncio.run(scenario())
    assert (tmp_path / "mounted").is_dir()


def test_a_file_from_the_far_future_can_be_listed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("x")
    os.utime(tmp_path / "a.jpg", (1e12, 1e12))
    assert asyncio.run(names(folder_bucket(tmp_path))) == {"a.jpg"}


def test_metadata_and_content_type_are_projected(weed: Weed) -> None:
    bucket = open_bucket(weed.bucket("projected"))
    asyncio.run(bucket.put_new(KEY, b"x", content_type="image/jpeg", metadata={"camera": "door"}))
    client = boto3.client(
        "s3", endpoint_url=weed.endpoint, region_name="us-east-1",
        aws_access_key_id=weed.access_key, aws_secret_access_key=weed.secret_key,
    )  # fmt: skip
    head = client.head_object(Bucket="projected", Key=KEY)
    client.close()
    assert head["ContentType"] == "image/jpeg"
    assert head["Metadata"] == {"camera": "door"}


def test_wrong_keys_are_denied_in_plain_words(weed: Weed) -> None:
    settings = weed.bucket().model_copy(update={"secret_key": SecretStr("wrong")})
    with pytest.raises(BucketError, match=r"SignatureDoesNotMatch: check bucket\.access_key") as caught:
        asyncio.run(open_bucket(settings).put_new(KEY, b"x"))
    assert caught.value.passing
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_empty_and_named(weed: Weed) -> None:
    bucket = open_bucket(weed.bucket("nowhere"))

    async def scenario() -> None:
        assert [entry async for entry in bucket.list("faces")] == []
        assert (await bucket.children("faces")).folders == []
        with pytest.raises(BucketError, match="no such bucket: create it") as caught:
            await bucket.get(KEY, max_bytes=10)
        assert caught.value.fault == "no-bucket"

    asyncio.run(scenario())


def test_a_dead_endpoint_is_named() -> None:
    settings = config.Bucket(
        url="s3://b", endpoint="http://127.0.0.1:1", access_key="a", secret_key=SecretStr("b")
    )
    with pytest.raises(BucketError, match=r"check bucket\.endpoint") as caught:
        asyncio.run(open_bucket(settings).put_new(KEY, b"x"))
    assert caught.value.passing


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"url": "s3://b", "endpoint": "http://example.org:9000"}, "allow_http"),
        ({"url": "s3://b", "endpoint": "example.org"}, "bucket.endpoint"),
        ({"url": "s3://b", "access_key": "a"}, "go together"),
        ({"url": "ftp://b"}, "ftp"),
        ({"url": "s3://"}, "bucket.url"),
        ({"url": "s3://key:secret@b"}, "bucket.url"),
        ({"url": "s3://b", "access_key": "a", "secret_key_file": "/nowhere/at/all"}, "secret_key_file"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(BucketError, match=word):
        open_bucket(config.Bucket(**settings))


def test_the_clouds_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for url in ("s3://b/prefix", "gs://b/prefix", "az://container/prefix"):
        assert open_bucket(config.Bucket(url=url)).url == url


@pytest.mark.parametrize("refusal", [errno.EOPNOTSUPP, errno.EPERM])
def test_a_folder_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:  # noqa: ANN401 - whatever is given
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refuse)
    bucket = folder_bucket(tmp_path)

    async def scenario() -> None:
        assert await bucket.put_new(KEY, b"first")
        assert not await bucket.put_new(KEY, b"second")
        assert await bucket.get(KEY, max_bytes=10) == b"first"

    asyncio.run(scenario())


def test_a_full_disk_leaves_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bucket = folder_bucket(tmp_path)
    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(BucketError, match="free space") as caught:
        asyncio.run(bucket.put_new(KEY, b"12345"))
    assert caught.value.passing
    monkeypatch.undo()
    assert asyncio.run(bucket.put_new(KEY, b"12345"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / KEY]


def test_a_folder_is_durable_before_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", note)
    asyncio.run(folder_bucket(tmp_path).put_new("a/b/c.jpg", b"x"))
    (partial,) = (n for n, path in enumerate(synced) if "/.partial/" in path)
    assert {str(tmp_path), str(tmp_path / "a")} <= set(synced[partial + 1 :])
    assert synced[-1] == str(tmp_path / "a" / "b")


def test_emptied_folders_go_and_come_back(tmp_path: Path) -> None:
    bucket = folder_bucket(tmp_path)

    async def scenario() -> None:
        for _ in range(3):
            assert await bucket.put_new(KEY, b"x")
            await bucket.delete(KEY)
            assert not (tmp_path / "faces").exists()

    asyncio.run(scenario())


def test_writers_and_deleters_of_one_folder(tmp_path: Path) -> None:
    bucket = folder_bucket(tmp_path)

    async def come_and_go(n: int) -> None:
        for turn in range(10):
            key = f"faces/x/{n}-{turn}.jpg"
            while True:
                try:
                    assert await bucket.put_new(key, b"x")
                    break
                except BucketError as error:
                    assert error.passing
            await bucket.delete(key)

    async def scenario() -> None:
        await asyncio.gather(*(come_and_go(n) for n in range(16)))

    asyncio.run(scenario())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_listing_of_many_pages(weed: Weed) -> None:
    bucket = open_bucket(weed.bucket("many"))

    async def scenario() -> None:
        gate = asyncio.Semaphore(32)

        async def put(n: int) -> None:
            async with gate:
                assert await bucket.put_new(f"faces/x/{n:05}.jpg", b"x")

        await asyncio.gather(*(put(n) for n in range(1200)))
        listed = [entry.key async for entry in bucket.list("faces")]
        assert sorted(listed) == [f"faces/x/{n:05}.jpg" for n in range(1200)]
        assert len((await bucket.children("faces/x")).entries) == 1200
        assert len([e async for e in bucket.list("faces", after="faces/x/01000.jpg")]) == 199

    asyncio.run(scenario())


def test_signatures_are_checked_here(weed: Weed) -> None:
    """The server of these tests is no pushover, or the tests above would prove less."""
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{weed.endpoint}/many/x", timeout=5)  # noqa: S310 - our own loopback server
