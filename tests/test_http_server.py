"""The server behind the pages: who is let in, for how long, and by which certificate."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from facerelay import config, sections
from facerelay.admission import Admission, network
from facerelay.cloud.gallery.app import _admission
from facerelay.cloud.gallery.certificate import Certificate
from facerelay.commands import vitals
from gallery_browser import TOKEN, Browser, certificate
from gallery_parts import serving


def test_who_waits_longest_makes_room() -> None:
    admission = Admission(most=3, most_each=None)
    ended = []
    places = []
    for n in range(3):
        place = admission.enter("192.0.2.1")
        assert place is not None
        place.since = float(n)
        place.abort = lambda n=n: ended.append(n)  # type: ignore[misc]
        places.append(place)
    places[0].waits = lambda: False
    fourth = admission.enter("192.0.2.2")
    assert fourth is not None
    assert ended == [1]
    fourth.waits = places[2].waits = lambda: False
    assert admission.enter("192.0.2.3") is None
    fourth.leave()
    fourth.leave()
    assert admission.enter("192.0.2.3") is not None


def test_one_address_takes_its_share_alone() -> None:
    admission = Admission(most=20, most_each=4)
    busy = [admission.enter("2001:db8::1") for _ in range(4)]
    for place in busy:
        assert place is not None
        place.waits = lambda: False
    assert admission.enter("2001:db8::2") is None, "of the same /64"
    assert admission.enter("2001:db8:0:1::2") is not None
    for _ in range(10):
        place = admission.enter("127.0.0.1")
        assert place is not None
        place.waits = lambda: False
    assert network("::ffff:127.0.0.1") is None
    assert network("::ffff:192.0.2.1") == "192.0.2.1"
    assert network("fe80::1%eth0") == "fe80::/64"


def test_behind_a_proxy_nobody_else_is_connected() -> None:
    known = {"token": TOKEN, "hosts": ("faces.example.org",), "proxy": ("172.18.0.0/16", "2001:db8::1")}
    admission = _admission(sections.Gallery.model_validate(known))
    for address in ("172.18.0.9", "127.0.0.1", "::1", "2001:db8::1", "::ffff:172.18.0.9"):
        assert admission.enter(address) is not None
    for address in ("172.19.0.1", "192.0.2.1", "2001:db8::2"):
        assert admission.enter(address) is None
    many = [admission.enter("172.18.0.9") for _ in range(100)]
    assert None not in many, "a proxy is one address for many"


def test_a_page_over_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=cert)

    async def scenario() -> None:
        known: dict[str, Any] = {"cert": cert, "key": key, "token": TOKEN, "hosts": ("faces.example.org",)}
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, **known) as served:
            browser = Browser(served.port, trusting, host=f"faces.example.org:{served.port}")
            status, headers, _ = await browser.log_in()
            assert (status, headers["strict-transport-security"]) == (303, "max-age=31536000")
            assert headers["set-cookie"].startswith("__Host-facerelay=")
            assert headers["set-cookie"].endswith("; HttpOnly; Max-Age=43200; Path=/; SameSite=lax; Secure")
            assert await browser.json("/api/settings") == {"erase": True, "login": True}
            plain = {"Origin": f"http://faces.example.org:{served.port}"}
            assert (await browser.send("/login", {"token": TOKEN}, **plain))[0] == 403
            near = Browser(served.port, trusting)
            assert "strict-transport-security" not in (await near.get("/login"))[1]
            with pytest.raises((OSError, ssl.SSLError)):
                await served.get("/login")
            for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                with pytest.raises(OSError, match=r"(?i)eof|alert|reset"):
                    await asyncio.to_thread(_hello, served.port, cert, old)
            assert await asyncio.to_thread(_hello, served.port, cert, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
            # More handshakes that never end than there are places.
            async with AsyncExitStack() as stack:
                for _ in range(300):
                    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
                    stack.callback(writer.close)
                assert (await browser.get("/api/settings"))[0] == 200

    asyncio.run(scenario())


def _hello(port: int, cert: Path, most: ssl.TLSVersion) -> str | None:
    context = ssl.create_default_context(cafile=cert)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = most
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.version()


def test_a_handshake_is_ended_in_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.http_server._HEAD_S", 0.5)
    cert, key = certificate(tmp_path)

    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, cert=cert, key=key) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"\x16\x03\x01")
            async with asyncio.timeout(20):
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())


def test_a_renewed_certificate_is_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = certificate(tmp_path)
    page = Certificate(cert, key)
    assert not page.look()
    before = cert.read_bytes(), key.read_bytes()
    for broken in (b"", b"no PEM", before[1]):
        cert.write_bytes(broken)
        with pytest.raises(OSError, match="no certificate with its key"):
            page.look()
    new = certificate(tmp_path, "renewed")
    new[0].replace(cert)
    with pytest.raises(OSError, match="no certificate with its key"):
        page.look()  # its key is not there yet
    new[1].replace(key)
    assert page.look()
    assert not page.look()
    key.unlink()
    with pytest.raises(OSError, match=r"gallery\.cert"):
        page.look()

    async def scenario() -> None:
        caplog.set_level("INFO")
        made = certificate(tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, cert=made[0], key=made[1]) as served:
            gallery = sections.Gallery(port=served.port, cert=made[0], key=made[1])
            assert await vitals.page(config.Config(gallery=gallery))() == ""
            other = sections.Gallery(port=port, cert=made[0], key=made[1])
            assert "does not answer" in await vitals.page(config.Config(gallery=other))()

    asyncio.run(scenario())


def test_a_certificate_that_is_no_good_ends_the_start_with_words(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    other = certificate(tmp_path, "other")
    for pair in ((cert, other[1]), (key, cert), (tmp_path / "none", key)):
        with pytest.raises(OSError, match=str(tmp_path)):
            Certificate(*pair)


def test_garbage_in_the_middle_of_an_answer_is_the_end_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
                writer.write(b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                await reader.readuntil(b"hello")
                writer.write(b"\x00garbage\r\n\r\n" * 10)
                writer.write(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET /api/live HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\n")
            writer.write(
                b"Upgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            assert (await served.get("/"))[0] == 200
        assert "Traceback" not in caplog.text
        assert "Fatal error" not in caplog.text

    asyncio.run(scenario())
