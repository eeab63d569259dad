from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import logging
import os
import re
import socket
import sqlite3
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chains import chain
from conftest import Make, need
from facerelay import settings
from facerelay.cloud.webhook import Webhook, WebhookError, sign
from facerelay.cloud.webhook import sender as module
from facerelay.cloud.webhook.spool import REMEMBERED_S, Spool, SpoolError
from facerelay.commands import doctor
from facerelay.config import Config
from servers import free_port
from waiting import until

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()

# a real HTTP server

Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    """What was posted, and how it is answered: each of `plan` once, then 204."""

    port: int = field(default_factory=free_port)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    plan: list[Reply] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?who=me"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.posts]

    @contextmanager
    def serving(self, tls: ssl.SSLContext | None = None) -> Iterator[None]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                receiver.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.paths.append(self.path)
                answer = receiver.plan.pop(0) if receiver.plan else status(204)
                with suppress(ConnectionError):
                    answer(self)
                receiver.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that does not trust this one hangs up

        self.ended.clear()
        server = Quiet(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            server.shutdown()
            server.server_close()
            thread.join()


def status(code: int, **headers: str) -> Reply:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        if code != 204:
            request.send_header("content-length", "0")
        request.end_headers()

    return answer


def raw(data: bytes) -> Reply:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)
        request.wfile.flush()
        request.close_connection = True

    return answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    with made.serving():
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.02)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(module, "_FIRST_S", 0.1)
    monkeypatch.setattr(module, "_DISK_PAUSE_S", 0.1)


def configured(url: str, folder: Path, **more: Any) -> Config:  # noqa: ANN401 - any setting
    values = {"url": url, "secret": SECRET, "spool": str(folder / "webhook.db"), "timeout_s": 5.0}
    return Config.model_validate({"webhook": values | more})


@asynccontextmanager
async def telling(url: str, folder: Path, **more: Any) -> AsyncIterator[Webhook]:  # noqa: ANN401 - any setting
    hook = Webhook(configured(url, folder, **more).webhook)
    task = asyncio.create_task(hook.run())
    try:
        yield hook
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])
        await hook.close()


def verified(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Read a message as a receiver does that goes by the specification alone."""
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    proof = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"].split(" ") == [f"v1,{proof}"]
    assert headers["content-type"] == "application/json"
    read: dict[str, Any] = json.loads(body)
    return read


# what is posted


def test_the_signature_is_that_of_the_specifications_own_libraries() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    proof = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert proof == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_face_is_told_once_signed_and_without_its_picture(
    receiver: Receiver, tmp_path: Path, make_face: Make
) -> None:
    async def check() -> None:
        face = make_face()
        async with telling(receiver.url, tmp_path) as hook:
            await hook.add(face)
            await hook.add(face)  # it was sent again, for its receipt was lost
            await until(lambda: hook.counts["delivered"] == 1)
            await hook.add(face)
            assert hook.counts["waiting"] == 0
        [(headers, body)] = receiver.posts
        read = verified(headers, body)
        assert headers["webhook-id"] == face.face.id
        assert receiver.paths == ["/hook?who=me"]
        assert (read["type"], set(read)) == ("face.stored", {"type", "timestamp", "data"})
        assert read["data"] == {
            "id": face.face.id, "site": "home", "camera": "door", "time": face.face.time.isoformat(),
            "key": face.key, "sha256": face.sha256, "bytes": len(face.data), "quality": 0.5, "score": 0.9,
            "box": [10, 20, 30, 40], "frame": [640, 480], "visit": "bbbbbbbb-0",
        }  # fmt: skip
        assert len(body) < 1000

    asyncio.run(check())


def test_the_docs_own_lines_tell_a_message_of_ours_from_a_forged_one(
    receiver: Receiver, tmp_path: Path, make_face: Make
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "webhook.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is our own page

    async def check() -> None:
        async with telling(receiver.url, tmp_path) as hook:
            await hook.add(make_face())
            await until(lambda: hook.counts["delivered"] == 1)

    asyncio.run(check())
    [(headers, body)] = receiver.posts
    names["verify"](SECRET, headers, body)
    for forged in (
        (SECRET, headers, body + b" "),
        (SECRET, headers | {"webhook-id": "another"}, body),
        (SECRET, headers | {"webhook-timestamp": "1"}, body),
        ("whsec_" + base64.b64encode(b"x" * 32).decode(), headers, body),
    ):
        with pytest.raises(ValueError, match="not signed"):
            names["verify"](*forged)


def test_a_connection_is_kept_for_the_next(receiver: Receiver, tmp_path: Path, make_face: Make) -> None:
    async def check() -> None:
        async with telling(receiver.url, tmp_path, at_once=1) as hook:
            for _ in range(20):
                await hook.add(make_face())
            await until(lambda: hook.counts["delivered"] == 20)
        assert receiver.connections == 1

    asyncio.run(check())


# what goes wrong


@pytest.mark.parametrize(
    "answer",
    [
        status(500), status(404), status(429), status(503, retry_after="0"),
        status(302, location="/elsewhere"), status(400), raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
        raw(b"x" * 100_000), raw(b""), raw(b"HTTP/1.1 200"), raw(b"HTTP/1.1 xxx\r\n\r\n"),
    ],
    ids=["500", "404", "429", "503", "302", "400", "ssh", "long", "nothing", "half", "no number"],
)  # fmt: skip
def test_what_is_not_taken_is_told_again_and_no_redirect_is_followed(
    receiver: Receiver,
    tmp_path: Path,
    make_face: Make,
    answer: Reply,
) -> None:
    async def check() -> None:
        receiver.plan = [answer, answer]
        async with telling(receiver.url, tmp_path) as hook:
            faces = [make_face() for _ in range(3)]
            for face in faces:
                await hook.add(face)
            await until(lambda: hook.counts["delivered"] == 3)
        assert not receiver.plan
        assert set(receiver.paths) == {"/hook?who=me"}
        assert set(receiver.ids) == {face.face.id for face in faces}

    asyncio.run(check())


def test_an_address_that_hangs_or_drips_is_given_up_after_its_time(
    receiver: Receiver, tmp_path: Path, make_face: Make
) -> None:
    def hang(request: http.server.BaseHTTPRequestHandler) -> None:
        receiver.ended.wait(20)
        request.close_connection = True

    def drip(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not receiver.ended.wait(0.05):
            request.wfile.write(b"x: y\r\n")
            request.wfile.flush()

    async def check() -> None:
        receiver.plan = [hang, drip]
        async with telling(receiver.url, tmp_path, timeout_s=0.3, at_once=2) as hook:
            for _ in range(4):
                await hook.add(make_face())
            await until(lambda: hook.counts["delivered"] == 4)

    asyncio.run(check())


def test_a_message_that_alone_is_refused_holds_up_no_other(
    receiver: Receiver, tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_S", 3600.0)

    async def check() -> None:
        receiver.plan = [status(422)]
        async with telling(receiver.url, tmp_path, at_once=1) as hook:
            for _ in range(5):
                await hook.add(make_face())
            await until(lambda: hook.counts["delivered"] == 4)
            assert hook.counts["waiting"] == 1

    asyncio.run(check())


@pytest.mark.parametrize(
    ("answer", "least"), [(status(503, retry_after="120"), 120), (status(410), 3600), (status(429), 0.01)]
)
def test_an_address_that_wants_peace_has_it(
    receiver: Receiver,
    tmp_path: Path,
    make_face: Make,
    answer: Reply,
    least: float,
) -> None:
    async def check() -> None:
        receiver.plan = [answer] * 4
        async with telling(receiver.url, tmp_path) as hook:
            begin = time.monotonic()
            await hook.add(make_face())
            await until(lambda: hook._resume)
            assert hook._resume >= begin + least

    asyncio.run(check())


def test_nobody_answers_until_somebody_does(tmp_path: Path, make_face: Make) -> None:
    receiver = Receiver()

    async def check() -> None:
        async with telling(receiver.url, tmp_path) as hook:
            faces = [make_face() for _ in range(10)]
            for face in faces:
                await hook.add(face)
            await until(lambda: hook._pause_s > 0.05)
            with receiver.serving():
                await until(lambda: hook.counts["delivered"] == 10)
            assert sorted(receiver.ids) == sorted(face.face.id for face in faces)
            with receiver.serving():  # begun anew: the connections that were kept are dead
                await hook.add(make_face())
                await until(lambda: hook.counts["delivered"] == 11)

    asyncio.run(check())


# the spool


def test_what_waits_survives_and_is_bounded_and_counted(tmp_path: Path, make_face: Make) -> None:
    receiver, faces = Receiver(), [make_face() for _ in range(8)]

    async def fill() -> None:
        async with telling(receiver.url, tmp_path, most_waiting=5) as hook:
            for face in faces:
                await hook.add(face)
            assert (hook.counts["waiting"], hook.counts["overflow"]) == (5, 3)

    async def empty() -> None:
        async with telling(receiver.url, tmp_path, most_waiting=5) as hook:
            assert (hook.counts["waiting"], hook.counts["overflow"]) == (5, 3)
            await hook.add(faces[0])  # it gave way: it is not told, and not counted again
            with receiver.serving():
                await until(lambda: hook.counts["delivered"] == 5)
        assert sorted(receiver.ids) == sorted(face.face.id for face in faces[3:])

    asyncio.run(fill())
    spool = tmp_path / "webhook.db"
    assert stat.S_IMODE(spool.stat().st_mode) == 0o600
    assert all(b"\xff\xd8\xff" not in each.read_bytes() for each in tmp_path.glob("webhook.db*"))
    asyncio.run(empty())


def test_after_its_hours_a_message_is_given_up(tmp_path: Path, make_face: Make) -> None:
    async def check() -> None:
        nobody = f"http://127.0.0.1:{free_port()}/"
        async with telling(nobody, tmp_path) as hook:
            await hook.add(make_face())
        with sqlite3.connect(tmp_path / "webhook.db") as db:
            db.execute("UPDATE waiting SET since = since - 7201")
        db.close()
        async with telling(nobody, tmp_path, give_up_hours=2) as hook:
            await until(lambda: hook.counts["given-up"] == 1)
            assert hook.counts["waiting"] == 0

    asyncio.run(check())


def test_what_was_told_is_forgotten_after_a_week(tmp_path: Path) -> None:
    now = [1e9]

    async def check() -> None:
        spool = Spool(tmp_path / "webhook.db", most=10, clock=lambda: now[0])
        assert await spool.add("one", b"{}")
        await spool.done("one", "delivered")
        assert not await spool.add("one", b"{}")
        now[0] += REMEMBERED_S + 1
        await spool.add("two", b"{}")
        assert await spool.add("one", b"{}")
        await spool.close()

    asyncio.run(check())


def test_a_clock_that_is_set_back_holds_up_nothing(tmp_path: Path) -> None:
    now = [1e9]

    async def check() -> None:
        spool = Spool(tmp_path / "webhook.db", most=10, clock=lambda: now[0])
        await spool.add("one", b"{}")
        await spool.later("one", 100.0)
        assert not await spool.due(10, longest_s=1000.0)
        now[0] -= 1e6
        assert [each.id for each in await spool.due(10, longest_s=1000.0)] == ["one"]
        await spool.close()

    asyncio.run(check())


def test_a_damaged_spool_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "webhook.db"
    path.write_bytes(b"SQLite format 3\0" + os.urandom(8192))

    async def check() -> None:
        spool = Spool(path, most=10)
        assert await spool.add("one", b"{}")
        await spool.close()

    asyncio.run(check())
    assert "put aside" in caplog.text
    assert len(list(tmp_path.glob("webhook.db.broken-*"))) == 1


def test_a_spool_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    async def check() -> None:
        spool = Spool(tmp_path / "webhook.db", most=10)
        try:
            with pytest.raises(SpoolError, match=r"each store a webhook\.spool of its own"):
                Spool(tmp_path / "webhook.db", most=10)
        finally:
            await spool.close()

    asyncio.run(check())
    with pytest.raises(SpoolError, match=r"webhook\.spool"):
        Spool(tmp_path / "none" / "webhook.db", most=10)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE x (y)")
    db.close()
    with pytest.raises(SpoolError, match="choose another file"):
        Spool(tmp_path / "other.db", most=10)


def test_a_disk_that_takes_nothing_is_counted_and_holds_up_no_receipt(
    receiver: Receiver, tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with telling(receiver.url, tmp_path) as hook:
            pages = hook._spool._db.execute("PRAGMA page_count").fetchone()[0]
            hook._spool._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own full disk
            for _ in range(100):
                await hook.add(make_face())
            assert hook.counts["unspooled"] > 0
            assert "see that its disk has room" in caplog.text
            hook._spool._db.execute("PRAGMA max_page_count = 1000000")
            face = make_face()
            await hook.add(face)
            await until(lambda: face.face.id in receiver.ids)

    asyncio.run(check())


# the whole


def test_faces_stored_while_nobody_listens_are_told_after_the_stores_own_death(tmp_path: Path) -> None:
    receiver = Receiver()
    with chain(
        tmp_path, webhook={"url": receiver.url, "secret": SECRET, "spool": str(tmp_path / "webhook.db")}
    ) as parts:
        parts.finished(parts.feed(30, 200))  # each has its receipt
        parts["store"].kill()
        stored = {str(path.relative_to(tmp_path / "bucket")) for path in parts.objects()}
        assert len(stored) == 30
        with receiver.serving():
            parts["store"].start()
            asyncio.run(until(lambda: len(set(receiver.ids)) == 30, 40))
        told = [verified(headers, body)["data"] for headers, body in receiver.posts]
        assert {each["key"] for each in told} == stored
        for each in told:
            data = (tmp_path / "bucket" / each["key"]).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (each["sha256"], each["bytes"])


def test_a_server_that_nobody_vouches_for_is_told_nothing(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [
        need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(key), "-out", str(cert),
    ]  # fmt: skip
    subprocess.run(make, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    receiver = Receiver()
    url = receiver.url.replace("http:", "https:")

    async def check() -> None:
        async with telling(url, tmp_path) as hook:
            await hook.add(make_face())
            await until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
            assert not receiver.posts
        async with telling(url, tmp_path, ca=str(cert)) as hook:
            await until(lambda: hook.counts["delivered"] == 1)

    with receiver.serving(tls):
        asyncio.run(check())
    assert "who=me" not in caplog.text  # an address may hold what nobody else should know
    assert SECRET not in caplog.text


# settings


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["url=http://example.org/x", f"secret={SECRET}"], "use https://"),
        (["url=example.org", f"secret={SECRET}"], "https://host/path"),
        (["url=ftp://example.org/", f"secret={SECRET}"], "https://host/path"),
        (["url=https://me:word@example.org/", f"secret={SECRET}"], "no user name and password"),
        (["url=https://example.org/#x", f"secret={SECRET}"], "the part behind #"),
        (["url=https://example.org/a b", f"secret={SECRET}"], "without blanks"),
        (["url=https://example.org/"], "set secret or secret_file"),
        (["url=https://example.org/", f"secret={SECRET}", "secret_file=x"], "set secret or secret_file"),
        (["url=https://example.org/", "secret=whsec_c2hvcnQ="], "24 to 64 random bytes"),
        (["url=https://example.org/", "secret=hunter2hunter2"], "openssl rand -base64 32"),
    ],
)
def test_a_webhook_that_would_be_unsafe_is_refused(flags: list[str], words: str) -> None:
    with pytest.raises(settings.ConfigError, match=re.escape(words)) as caught:
        settings.load(None, flags=[f"webhook.{flag}" for flag in flags], environ={})
    assert "hunter2" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_secret_is_read_from_its_file_when_the_store_starts(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    more: dict[str, Any] = {"secret": None, "secret_file": str(path)}

    async def check() -> None:
        for wrong in (None, "hunter2"):
            if wrong:
                path.write_text(wrong)
            with pytest.raises(WebhookError) as caught:
                Webhook(configured("https://example.org/", tmp_path, **more).webhook)
            assert "hunter2" not in str(caught.value)
        path.write_text(f"{SECRET}\n")
        hook = Webhook(configured("https://example.org/", tmp_path, **more).webhook)
        assert hook._key == KEY
        await hook.close()

    asyncio.run(check())


def test_the_doctor_looks_at_the_address_and_posts_nothing(
    receiver: Receiver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/"
    for url, fine in ((receiver.url, True), (nobody, False)):
        config = Config.model_validate(
            {
                "broker": {"url": f"mqtt://127.0.0.1:{free_port()}"},
                "bucket": {"url": f"file://{tmp_path}/bucket"},
                "webhook": {"url": url, "secret": SECRET},
            }
        )
        asyncio.run(doctor.examine(config, as_json=True))
        said = {each["check"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
        assert said["webhook"]["ok"] == fine
        assert fine or "see webhook.url" in said["webhook"]["says"]
    assert not receiver.posts


def test_a_name_that_does_not_exist_is_no_end(tmp_path: Path, make_face: Make) -> None:
    async def check() -> None:
        async with telling("https://no-such-host.invalid/", tmp_path) as hook:
            await hook.add(make_face())
            await until(lambda: hook._pause_s)
            assert hook.counts["waiting"] == 1

    asyncio.run(check())


def test_a_port_that_takes_and_says_nothing_is_no_end(tmp_path: Path, make_face: Make) -> None:
    async def check(port: int) -> None:
        async with telling(f"http://127.0.0.1:{port}/", tmp_path, timeout_s=0.2) as hook:
            await hook.add(make_face())
            await until(lambda: hook._pause_s)
            assert hook.counts["waiting"] == 1

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        asyncio.run(check(deaf.getsockname()[1]))
