from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from conftest import Make
from facerelay import config
from facerelay.cloud import proofs, room
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.cloud.counters import Counters
from facerelay.cloud.read_books import read_books
from facerelay.cloud.tombstones import Tombstones
from fake_server import Handle, fake_server

_HEAD = b"ETag: x\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n"


SECRET = SecretStr("secret")


def at(port: int) -> Bucket:
    """A bucket at a server of the test's making."""
    return open_bucket(
        config.Bucket(
            url="s3://bucket", endpoint=f"http://127.0.0.1:{port}", access_key="access", secret_key=SECRET
        )
    )


def folder(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


def answers(answer: bytes, heard: list[bytes] | None = None) -> Handle:
    """Give one answer to every request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if heard is not None:
                heard.append(head)
            writer.write(answer)
            await writer.drain()

    return handle


def ask(answer: bytes, question: Callable[[Bucket], Awaitable[object]]) -> object:
    async def scenario() -> object:
        async with fake_server(answers(answer)) as port:
            return await question(at(port))

    return asyncio.run(scenario())


def listing(keys: list[str], size: str = "1", more: bool = False) -> bytes:  # noqa: FBT001, FBT002 - a fact of the answer
    body = "".join(
        f"<Contents><Key>{key}</Key><Size>{size}</Size>"
        "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    whole = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{body}</ListBucketResult>"
    return whole_answer(whole.encode())


def whole_answer(body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%s%sContent-Length: %d\r\n\r\n%s" % (_HEAD, head, len(body), body)


async def every(bucket: Bucket) -> list[str]:
    return [entry.key async for entry in bucket.list("faces")]


def test_a_server_that_sends_more_than_it_said_is_not_read_on() -> None:
    chunk = b"%x\r\n%s\r\n" % (1_000_000, b"x" * 1_000_000)
    both = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 10\r\n" + _HEAD
    answer = both + b"\r\n" + chunk * 40 + b"0\r\n\r\n"
    with pytest.raises(BucketError, match="more than 1000 bytes") as caught:
        ask(answer, lambda bucket: bucket.get("faces/a.jpg", max_bytes=1000))
    assert caught.value.fault == "too-large"


def test_an_answer_is_never_unpacked() -> None:
    squeezed = whole_answer(b"\x1f\x8b" + bytes(98), b"Content-Encoding: gzip\r\n")
    assert ask(squeezed, lambda bucket: bucket.get("faces/a.jpg", max_bytes=100)) == b"\x1f\x8b" + bytes(98)


def test_a_size_that_is_too_large_is_believed() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n" + _HEAD + b"\r\nx"
    with pytest.raises(BucketError, match="99999999999 bytes"):
        ask(answer, lambda bucket: bucket.get("faces/a.jpg", max_bytes=100))


def test_entities_of_a_listing_are_not_expanded() -> None:
    lol = '<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "' + "&a;" * 1000 + '">]>'
    body = (
        f"<?xml version='1.0'?>{lol}<ListBucketResult><Contents><Key>&b;</Key></Contents></ListBucketResult>"
    )
    with pytest.raises(BucketError, match="invalid list response"):
        ask(whole_answer(body.encode()), every)


@pytest.mark.parametrize("size", ["-5", "9" * 30, "1e9"])
def test_a_listing_with_an_impossible_size_is_an_error(size: str) -> None:
    with pytest.raises(BucketError):
        ask(listing(["faces/a.jpg"], size), every)


@pytest.mark.parametrize("name", ["faces//b.jpg", "faces/../../etc/passwd", "faces/&#27;[2Jx"])
def test_a_name_that_is_no_path_is_named_and_nothing_of_it_reaches_a_terminal(name: str) -> None:
    with pytest.raises(BucketError, match="remove it by the provider's tools") as caught:
        ask(listing(["faces/a.jpg", name]), every)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [".hidden", "a b", "x" * 300, "&#8238;gpj.exe", "~", "etc:passwd"])
def test_names_that_cannot_be_ours_are_left_alone(name: str) -> None:
    assert ask(listing(["faces/a.jpg", f"faces/{name}"]), every) == ["faces/a.jpg"]


def test_a_redirect_takes_no_signature_elsewhere() -> None:
    heard: list[bytes] = []

    async def scenario() -> None:
        async with fake_server(answers(whole_answer(b"elsewhere"), heard)) as other:
            there = f"Location: http://127.0.0.1:{other}/x\r\nContent-Length: 0\r\n\r\n".encode()
            async with fake_server(answers(b"HTTP/1.1 307 Temporary Redirect\r\n" + there)) as port:
                bucket = at(port)
                with pytest.raises(BucketError, match="307"):
                    await bucket.put_new("faces/a.jpg", b"a face")
                assert not heard  # no face goes to another host
                await bucket.get("faces/a.jpg", max_bytes=100)

    asyncio.run(scenario())
    assert heard
    assert b"authorization" not in heard[0].lower()


def test_links_below_a_folder_bucket_are_neither_read_nor_written_nor_deleted_through(
    tmp_path: Path, make_face: Make
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"precious")
    root = tmp_path / "bucket"
    (root / "faces").mkdir(parents=True)
    (root / "faces" / "site=home").symlink_to(outside)
    (root / "faces" / "b.jpg").symlink_to(outside / "a.jpg")
    os.mkfifo(root / "faces" / "c.jpg")
    one = make_face()

    async def scenario() -> None:
        bucket = folder(root)
        for key in ("faces/site=home/a.jpg", "faces/b.jpg", "faces/c.jpg"):
            with pytest.raises(BucketError):
                await bucket.get(key, max_bytes=100)
        with pytest.raises(BucketError, match="not followed"):
            await bucket.put_new(one.key, one.data)
        with pytest.raises(BucketError, match="not followed"):
            await bucket.delete("faces/site=home/a.jpg")
        await bucket.delete("faces/b.jpg")  # the link goes, and not what it leads to
        assert await every(bucket) == []
        await bucket.put("faces/d.json", b"{}")

    asyncio.run(scenario())
    assert {path.name for path in outside.iterdir()} == {"a.jpg"}
    assert (outside / "a.jpg").read_bytes() == b"precious"


def ledger(site: str, number: int) -> tuple[str, bytes]:
    outbox = f"{number:032x}"
    told = {"outbox": outbox, "cameras": {f"{site}/door": {"captured": number}}}
    return f"ledger/{site}/{outbox}", json.dumps(told).encode()


def test_who_makes_up_outboxes_makes_no_more_than_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_MOST_OF_SITE", 20)
    monkeypatch.setattr(room, "_MOST", 60)
    counters = Counters()
    bucket = folder(tmp_path)

    def count() -> None:
        counters.discarded["ledger"] += 1

    async def scenario() -> None:
        for again in range(2):  # a store that begins anew looks at what is there
            books = Books(bucket, count=count)
            for number in range(50):
                books.take(*ledger("evil", number + 50 * again))
            await books.flush()
            assert len([e async for e in bucket.list("ledger/site=evil")]) == 20
            books.take(*ledger("home", 1))
            await books.flush()
        for number in range(200):
            books.take(*ledger(f"evil-{number}", 1))
        await books.flush()
        assert len([e async for e in bucket.list("ledger")]) <= 60
        books.take(*ledger("home", 1)[:1], ledger("home", 1)[1].replace(b'"captured": 1', b'"captured": 7'))
        await books.flush()
        told = [one async for one in read_books(bucket) if one.site == "home"]
        assert [one.books.cameras["home/door"].captured for one in told] == [7]

    asyncio.run(scenario())
    assert counters.discarded["ledger"] > 200


def test_one_site_leaves_room_for_the_ledgers_of_others(tmp_path: Path) -> None:
    books = Books(folder(tmp_path), max_bytes=10_000)
    assert sum(books.take(*ledger("evil", number)) for number in range(1000)) < 100
    assert books.take(*ledger("home", 1))


@pytest.mark.parametrize(
    "hostile",
    [
        b"", b"[" * 100_000, b'{"ids":' + b"9" * 5000 + b"}", b"{}", b'{"made":"2026-01-01T00:00:00Z"}',
        json.dumps({"made": "2026-01-01T00:00:00Z", "ids": ["x"] * 190_000}).encode(), b"x" * 2_000_000,
        b'{"made":"0001-01-01T00:00:00+23:59","start":"9999-12-31T23:59:59-23:59"}',
    ],
)  # fmt: skip
def test_a_hostile_tombstone_covers_nothing_and_hides_no_other(
    tmp_path: Path, make_face: Make, hostile: bytes
) -> None:
    one, other = make_face().face, make_face().face
    rule = {"v": 1, "made": "2026-01-01T00:00:00Z", "ids": [one.id]}

    async def scenario() -> None:
        bucket = folder(tmp_path)
        await bucket.put("tombstones/a.json", hostile)
        await bucket.put("tombstones/b.json", json.dumps(rule).encode())
        covers = functools.partial(Tombstones(bucket).covers, site="home", camera="door", taken=one.time)
        assert await covers(one.id)
        assert not await covers(other.id)

    asyncio.run(scenario())


@pytest.mark.parametrize("hostile", [b"[" * 90_000, b"9" * 50_000, b"null", b"{}", b'{"tombstones": 7}'])
def test_a_hostile_proof_is_a_fault_of_the_chain_and_no_crash(tmp_path: Path, hostile: bytes) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await bucket.put("proofs/000000000001.json", hostile)
        verdict = await proofs.verify(bucket)
        assert not verdict.well
        assert verdict.faults[0] == "proofs/000000000001.json is not a proof"

    asyncio.run(scenario())
