from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from buckets import ACCESS_KEY, SECRET_KEY, Weed
from facerelay import config
from facerelay.cloud import quick
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.cloud.quick import Quick, QuickError
from facerelay.cloud.signature import Signer

KEY = "faces/site=home/camera=door/date=2026-11-21/hour=10/101112.131415-x.jpg"
OK = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n'
THERE = b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 5\r\n\r\nthere"

Answer = Callable[[str], Awaitable[bytes]]


def of(port: int) -> Quick:
    signer = Signer(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region="us-east-1")
    return Quick(endpoint=f"http://127.0.0.1:{port}", path="bucket", signer=signer)


def settings(port: int) -> config.Bucket:
    return config.Bucket(
        url="s3://bucket", endpoint=f"http://127.0.0.1:{port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY
    )


async def put(to: Quick, key: str = KEY, data: bytes = b"x") -> bool:
    return await to.put_new(
        key, data, hashlib.sha256(data).hexdigest(), content_type="image/jpeg", metadata={"site": "home"}
    )


@asynccontextmanager
async def answering(
    answer: Answer, *, close: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[str]]]:
    """A server whose answer follows from the path; it yields its port and the paths that came."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                size = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
                await reader.readexactly(int(size.partition(":")[2]))
                seen.append(head.split(" ")[1])
                writer.write(await answer(seen[-1]))
                await writer.drain()
                if close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()


def certificate(folder: Path) -> ssl.SSLContext:
    """Return a server's context for 127.0.0.1; `folder / "cert.pem"` is who signed it."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    kind = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        *kind,
        "-subj",
        "/CN=bucket",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def always(answer: bytes) -> Answer:
    async def give(path: str) -> bytes:  # noqa: ARG001 - whatever the path
        return answer

    return give


def test_the_signature_is_the_one_of_the_documentation() -> None:
    """The PUT of "Signature Calculations for the Authorization Header", S3 API reference."""
    signer = Signer(
        access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # noqa: S106
        region="us-east-1",
    )  # fmt: skip
    body = b"Welcome to Amazon S3."
    more = {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}
    sha256 = hashlib.sha256(body).hexdigest()
    host = "examplebucket.s3.amazonaws.com"
    head = signer.put(host, "/test%24file.text", len(body), sha256, more, now=1_369_353_600.5)
    assert b"Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd\r\n" in head


def test_a_server_that_checks_signatures_takes_ours(weed: Weed) -> None:
    async def scenario() -> None:
        where = weed.bucket("signed", prefix="a place/of=ours")
        bucket, other = open_bucket(where, quick=True), open_bucket(where)
        await other.put("first.json", b"{}")  # which makes the bucket
        parts = weed.endpoint, f"signed/{where.url.partition('signed/')[2]}"
        signer = Signer(access_key=weed.access_key, secret_key=weed.secret_key, region="us-east-1")
        direct = Quick(endpoint=parts[0], path=parts[1], signer=signer)
        assert await put(direct, data=b"x" * 9000)
        assert not await put(direct, data=b"y" * 9000)
        assert await other.get(KEY, max_bytes=10_000) == b"x" * 9000
        assert not await bucket.put_new(KEY, b"z")
        assert (await bucket.probe()).create_only
        await direct.close()
        stranger = Signer(access_key=weed.access_key, secret_key=weed.secret_key[1:], region="us-east-1")
        wrong = Quick(endpoint=parts[0], path=parts[1], signer=stranger)
        with pytest.raises(QuickError, match="403"):
            await put(wrong, "faces/other.jpg")
        await wrong.close()
        await bucket.close()

    asyncio.run(scenario())


def test_over_tls_the_servers_name_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = certificate(tmp_path)

    async def scenario(*, trusted: bool) -> None:
        async with answering(always(OK), tls=tls) as (port, seen):
            for host, sound in (("127.0.0.1", trusted), ("localhost", False)):
                signer = Signer(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region="us-east-1")
                to = Quick(endpoint=f"https://{host}:{port}", path="bucket", signer=signer)
                for _ in range(3 if sound else 0):
                    assert await put(to, data=b"x" * 100_000)
                if not sound:
                    with pytest.raises(QuickError, match=r"(?i)certificate"):
                        await put(to)
                await to.close()
            assert len(seen) == (3 if trusted else 0)

    asyncio.run(scenario(trusted=False))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    asyncio.run(scenario(trusted=True))


def test_many_at_once_each_get_their_own_answer() -> None:
    async def answer(path: str) -> bytes:
        await asyncio.sleep(random.Random(path).random() / 50)  # noqa: S311 - spreads the answers
        return THERE if path.endswith("1") else OK

    async def scenario() -> None:
        async with answering(answer) as (port, seen):
            to = of(port)
            for _ in range(3):
                created = await asyncio.gather(*(put(to, f"faces/{n}") for n in range(100)))
                assert created == [n % 10 != 1 for n in range(100)]
            assert len(seen) == 300
            await to.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 two\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000,
        b"\x16\x03\x01\r\n\r\n",
        b"",
    ],
)
def test_any_other_answer_is_left_to_the_library(answer: bytes) -> None:
    async def scenario() -> None:
        async with answering(always(answer), close=True) as (port, _):
            to = of(port)
            assert to.takes(b"x")
            with pytest.raises(QuickError) as caught:
                await put(to)
            assert not caught.value.late
            assert not to.takes(b"x")
            await to.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nETag: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nETag: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag: 0\r\nContent-Length: 99999999\r\n\r\n",
    ],
)
def test_a_connection_that_cannot_be_kept_is_not_asked_again(answer: bytes) -> None:
    async def scenario() -> None:
        async with answering(always(answer), close=True) as (port, seen):
            bucket = open_bucket(settings(port), quick=True)
            for n in range(5):
                assert await bucket.put_new(f"faces/{n}.jpg", b"x")
            assert len(seen) >= 5
            await bucket.close()

    asyncio.run(scenario())


def test_what_the_server_says_besides_is_the_librarys_word() -> None:
    body = b"<Error><Code>SlowDown</Code></Error>"
    refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def scenario() -> None:
        async with answering(always(refused)) as (port, seen):
            bucket = open_bucket(settings(port), quick=True)
            with pytest.raises(BucketError, match="SlowDown") as caught:
                await bucket.put_new("faces/a.jpg", b"x")
            assert caught.value.passing
            assert len(seen) == 2
            await bucket.close()

    asyncio.run(scenario())


def test_a_server_that_does_not_answer_is_given_up_and_the_caller_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, seconds in (("_REQUEST_S", 0.2), ("_LOOK_S", 0.05), ("_LATE_S", 0.1)):
        monkeypatch.setattr(quick, name, seconds)

    async def answer(path: str) -> bytes:  # noqa: ARG001 - whatever the path
        await asyncio.Event().wait()
        return OK

    async def scenario() -> None:
        async with answering(answer) as (port, seen):
            bucket = open_bucket(settings(port), quick=True)
            with pytest.raises(BucketError, match="no answer in time") as caught:
                await bucket.put_new("faces/a.jpg", b"x")
            assert caught.value.passing
            assert len(seen) == 1
            await bucket.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    asyncio.run(scenario())


def test_a_cancelled_put_leaves_no_connection_that_another_could_take() -> None:
    async def answer(path: str) -> bytes:
        await asyncio.sleep(0.1 if path.endswith("slow") else 0)
        return THERE if path.endswith("slow") else OK

    async def scenario() -> None:
        async with answering(answer) as (port, _):
            to = of(port)
            slow = asyncio.create_task(put(to, "faces/slow"))
            await asyncio.sleep(0.05)
            slow.cancel()
            await asyncio.wait([slow])
            assert await put(to, "faces/quick")
            await to.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("more", "environment"),
    [
        ({"endpoint": None}, {}),
        ({"endpoint": "http://127.0.0.1:1/path"}, {}),
        ({}, {"AWS_SESSION_TOKEN": "x"}),
        ({}, {"AWS_SERVER_SIDE_ENCRYPTION": "aws:kms"}),
        ({}, {"http_proxy": "http://127.0.0.1:2"}),
        ({"url": "gs://bucket", "access_key": None, "secret_key": None}, {}),
    ],
)
def test_what_the_library_knows_more_of_is_all_the_librarys(
    more: dict[str, Any], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(bucket: Bucket) -> object:
        return vars(bucket)["_quick"]

    plain = settings(1)
    assert isinstance(held(open_bucket(plain, quick=True)), Quick)
    assert held(open_bucket(plain)) is None
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        bucket = open_bucket(plain.model_copy(update=more), quick=True)
    except BucketError:
        pytest.skip("the library has no credentials here")
    assert held(bucket) is None
