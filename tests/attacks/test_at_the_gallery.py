"""Attacks on the gallery: by who reaches its port, other pages in a browser, files in the bucket."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import ssl
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from besieged import Besieged, besieged

from chains import eventually
from conftest import Make
from facerelay.face import Frozen
from feeder import picture
from gallery_browser import Browser
from gallery_parts import Answer

STRANGER = {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}


class Visitor:
    """A browser at the gallery, which may have logged in."""

    def __init__(self, chain: Besieged, *, logged_in: bool = False) -> None:
        self.tls = ssl.create_default_context(cafile=chain.enrolled.folder / "trust" / "authority.pem")
        self.browser = Browser(chain.page, self.tls)
        if logged_in:
            assert asyncio.run(self.browser.log_in(chain.token))[0] == 303

    def get(self, path: str, **headers: str) -> Answer:
        return asyncio.run(self.browser.get(path, **headers))

    def post(self, path: str, data: object = None, **headers: str) -> Answer:
        return asyncio.run(self.browser.post(path, data, **headers))

    def raw(self, data: bytes) -> bytes:
        """Send bytes, and return what comes until the end."""
        with (
            socket.create_connection(("127.0.0.1", self.browser._port), 15) as plain,
            self.tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            with suppress(OSError):  # it may have heard enough before the end
                connection.sendall(data)
            connection.settimeout(0.5)
            found = b""
            with suppress(OSError):
                while more := connection.recv(65_536):
                    found += more
            return found


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    with besieged(tmp_path_factory.mktemp("at-the-gallery")) as found:
        yield found


@pytest.fixture(scope="module")
def inside(chain: Besieged) -> Visitor:
    return Visitor(chain, logged_in=True)


@pytest.fixture(scope="module")
def outside(chain: Besieged) -> Visitor:
    return Visitor(chain)


def seen(chain: Besieged, inside: Visitor) -> None:
    """See that the next good face passes, and is shown to who may see it."""
    face = quote(chain.good()["key"])
    status, headers, body = inside.get(f"/picture?key={face}")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")


def put(chain: Besieged, face: Frozen, data: bytes | None = None) -> str:
    """Put something into the bucket under the key of a face, as whoever can write there may."""
    path = chain.bucket / face.key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(face.data if data is None else data)
    return quote(face.key)


SHUT = (
    "/", "/face", "/health", "/api/faces", "/api/places", "/api/face?key=x", "/thumb?key=x", "/picture?key=x",
    "/api/live", "/api/ready", "/api/settings", "/api/health", "/api/timeline", "/page/wall.js", "/metrics",
    "/../etc/passwd",
)  # fmt: skip


@pytest.mark.parametrize("path", SHUT)
def test_nobody_sees_anything_without_a_login(
    chain: Besieged, outside: Visitor, inside: Visitor, path: str
) -> None:
    status, headers, body = outside.get(path)
    assert status in {303, 401}, body
    assert headers.get("location", "/login").startswith("/login")
    assert b"faces/" not in body
    seen(chain, inside)


def test_the_token_in_an_address_is_no_login(chain: Besieged, outside: Visitor, inside: Visitor) -> None:
    """It would be kept in histories and logs."""
    for path in (
        f"/api/faces?token={chain.token}",
        f"/api/faces?access_token={chain.token}",
        f"/?token={chain.token}",
    ):
        assert outside.get(path)[0] in {303, 401}
    assert chain.token not in chain.log("cloud")
    seen(chain, inside)


@pytest.mark.parametrize("value", ["", "x", "../../x", "a" * 4000, "0" * 43])
def test_a_made_up_session(chain: Besieged, inside: Visitor, value: str) -> None:
    thief = Visitor(chain)
    thief.browser.cookies = dict.fromkeys(inside.browser.cookies, value)
    assert thief.browser.cookies
    assert thief.get("/api/faces")[0] in {400, 401, 431}
    seen(chain, inside)


def test_a_stolen_session_ends_with_the_logout(chain: Besieged, inside: Visitor) -> None:
    victim = Visitor(chain, logged_in=True)
    thief = Visitor(chain)
    thief.browser.cookies = dict(victim.browser.cookies)
    assert victim.post("/logout")[0] == 200
    assert thief.get("/api/faces")[0] == 401
    seen(chain, inside)


def test_a_session_cannot_be_read_by_scripts_or_sent_by_others(chain: Besieged, inside: Visitor) -> None:
    _, headers, _ = asyncio.run(Visitor(chain).browser.log_in(chain.token))
    cookie = headers["set-cookie"]
    assert cookie.startswith("__Host-")
    assert {"secure", "httponly", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert re.search(r"samesite=(lax|strict)", cookie, re.IGNORECASE)
    assert "domain" not in cookie.lower()
    seen(chain, inside)


def test_another_page_erases(chain: Besieged, inside: Visitor) -> None:
    face = chain.good()
    strangers: list[dict[str, str]] = [
        STRANGER, {"Origin": "null"}, {"X_Facerelay": ""}, {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://127.0.0.1.evil.example"},
    ]  # fmt: skip
    for stranger in strangers:
        status, _, body = inside.post("/api/erase", {"keys": [face["key"]]}, **stranger)
        assert (status, json.loads(body)["error"]) == (403, "another page has asked for this")
    assert inside.get(f"/api/erase?keys={face['key']}")[0] == 405
    assert (chain.bucket / face["key"]).exists()
    seen(chain, inside)


def test_another_page_logs_a_browser_in(chain: Besieged, inside: Visitor) -> None:
    victim = Visitor(chain)
    status, headers, _ = asyncio.run(victim.browser.send("/login", {"token": chain.token}, **STRANGER))
    assert (status, "set-cookie" in headers) == (403, False)
    seen(chain, inside)


HOSTS = (
    "evil.example", "evil.example:443", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_is_bound_anew(chain: Besieged, inside: Visitor, host: str) -> None:
    """DNS rebinding: another page's name, which leads here."""
    status, _, body = inside.get("/api/faces", Host=host)
    assert status == 400
    assert b"faces/" not in body
    seen(chain, inside)


@pytest.mark.parametrize(
    "path", ["/", "/login", "/face", "/nothing", "/api/faces?limit=x", "/picture?key=x", "/page/wall.js"]
)
def test_a_page_around_ours_and_scripts_within(chain: Besieged, inside: Visitor, path: str) -> None:
    """Clickjacking, sniffing, injected scripts: each answer has a policy, those of errors too."""
    _, headers, _ = inside.get(path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy or "sandbox" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    seen(chain, inside)


def test_pictures_in_shared_caches(chain: Besieged, inside: Visitor) -> None:
    key = quote(chain.good()["key"])
    for path in (f"/picture?key={key}", f"/thumb?key={key}", "/api/faces"):
        eventually(lambda path=path: inside.get(path)[0] == 200)  # type: ignore[misc]
        assert re.search(r"private|no-store", inside.get(path)[1]["cache-control"])
    seen(chain, inside)


def test_a_way_out_after_the_login(chain: Besieged, inside: Visitor) -> None:
    for target in (
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/%2f/evil.example",
    ):
        status, headers, _ = asyncio.run(Visitor(chain).browser.log_in(chain.token, target))
        assert (status, headers["location"]) == (303, "/")
    seen(chain, inside)


KEYS = (
    "../cloud.toml", "faces/../../cloud.toml", "faces/%2e%2e/%2e%2e/trust/store.key", "faces/\0",
    "/etc/passwd", "trust/authority.key", "file:///etc/passwd", "http://127.0.0.1/", "a" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_leads_elsewhere(chain: Besieged, inside: Visitor, key: str) -> None:
    for path in ("/picture", "/thumb", "/api/face"):
        status, _, body = inside.get(f"{path}?key={quote(key)}")
        assert status in {400, 404}
        assert b"PRIVATE" not in body
        assert b"root:" not in body
    seen(chain, inside)


def test_no_request_sets_a_source_or_has_us_fetch(chain: Besieged, inside: Visitor) -> None:
    """SSRF: nothing that a page can say is an address that we go to."""
    asked = 0
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.3)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/"
        for path in ("/api/settings", "/api/source", "/api/camera", "/api/faces", "/picture", "/api/ready"):
            for name in ("source", "url", "key", "endpoint", "next"):
                asked += inside.get(f"{path}?{name}={quote(url)}")[0] > 0
            assert inside.post(path, {"source": url, "url": url})[0] in {404, 405}
        with pytest.raises(TimeoutError):
            trap.accept()
    assert asked == 30
    seen(chain, inside)


def test_a_link_in_the_bucket(chain: Besieged, inside: Visitor, make_face: Make) -> None:
    """Who can write into a folder bucket cannot have the page read what lies elsewhere."""
    face = make_face(picture(11), site="door", time=datetime.now(UTC))
    path = chain.bucket / face.key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(chain.enrolled.folder / "trust" / "store.key")
    for asked in ("/picture", "/thumb", "/api/face"):
        status, _, body = inside.get(f"{asked}?key={quote(face.key)}")
        assert status in {400, 404, 500, 502, 503}
        assert b"PRIVATE" not in body
    path.unlink()
    seen(chain, inside)


def bomb() -> bytes:
    """40 kB that are 120 MB of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 6300, 6300, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(bytes(119_000_000), 9))
        + chunk(b"IEND", b"")
    )


FILES = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "html": b"<!doctype html><script>alert(1)</script>",
    "bomb": bomb(),
    "noise": bytes(range(256)) * 40,
    "nothing": b"",
    "half": picture(12)[:200],
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_bucket_that_is_no_face(
    chain: Besieged, inside: Visitor, make_face: Make, name: str
) -> None:
    key = put(chain, make_face(picture(13), site="door"), FILES[name])
    status, headers, body = inside.get(f"/picture?key={key}")
    assert status != 200 or headers["content-type"].startswith("image/")
    assert headers["x-content-type-options"] == "nosniff"
    if status == 200:
        assert "sandbox" in headers["content-security-policy"]
        assert not body.startswith(b"<") or headers["content-type"] == "image/jpeg"
    assert inside.get(f"/thumb?key={key}")[0] != 500
    assert inside.get("/api/faces")[0] == 200
    seen(chain, inside)


def test_a_camera_with_markup_for_a_name(chain: Besieged, inside: Visitor, make_face: Make) -> None:
    face = make_face(picture(14), site="door")
    name = "<img src=x onerror=alert(1)>"
    folder = chain.bucket / "faces" / "site=door" / f"camera={name}"
    target = folder / Path(face.key).relative_to("faces/site=door/camera=door")
    target.parent.mkdir(parents=True)
    target.write_bytes(face.data)
    for path in ("/api/places", "/api/faces", "/api/timeline"):
        _, headers, body = inside.get(path)
        assert b"onerror" not in body
        assert headers["content-type"] == "application/json"
    shutil.rmtree(folder)
    seen(chain, inside)


def test_a_flood_of_requests_that_never_end(chain: Besieged, inside: Visitor) -> None:
    """Slow loris: as many connections as the page takes, each with half a request."""
    with ExitStack() as stack:
        for _ in range(220):
            with suppress(OSError):
                half = stack.enter_context(socket.create_connection(("127.0.0.1", chain.page), 10))
                half.sendall(b"\x16\x03\x01")
        for _ in range(20):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", chain.page), 10))
            with suppress(OSError):
                half = stack.enter_context(inside.tls.wrap_socket(plain, server_hostname="127.0.0.1"))
                half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        seen(chain, inside)


NO_REQUESTS = {
    "header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "smuggling": b"POST /api/erase HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
    "two hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    "line": b"GET /\r\nX HTTP/1.1\r\n\r\n",
    "nul": b"\0" * 100,
    "h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("data", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_requests_that_are_none(chain: Besieged, outside: Visitor, inside: Visitor, data: bytes) -> None:
    answer = outside.raw(data)
    assert not answer.startswith(b"HTTP/1.1 200")
    assert b"faces/" not in answer
    seen(chain, inside)


def test_an_order_that_is_too_large(chain: Besieged, inside: Visitor) -> None:
    orders: tuple[object, ...] = (
        {"keys": ["faces/x"] * 60_000},
        {"keys": "x"},
        [],
        {"keys": [["x"]]},
        {"keys": ["../../cloud.toml"]},
    )
    for order in orders:
        status, _, body = inside.post("/api/erase", order)
        assert 400 <= status < 500, body
    assert (chain.enrolled.folder / "cloud.toml").exists()
    seen(chain, inside)


def test_plain_http_at_the_tls_port(chain: Besieged, inside: Visitor) -> None:
    with socket.create_connection(("127.0.0.1", chain.page), 10) as plain:
        plain.sendall(b"GET /api/faces HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with suppress(OSError):
            assert b"faces/" not in plain.recv(4096)
    seen(chain, inside)


def test_zz_guessing_the_token(chain: Besieged, inside: Visitor) -> None:
    """Last: who guesses has to wait, and so do others at that address; who is inside does not."""
    guesser = Visitor(chain)
    before = chain.count("gallery", "gallery_logins_total", outcome="failed")
    codes: list[int] = []
    wait: Any = None
    for number in range(12):
        status, headers, _ = guesser.get("/api/faces", Authorization=f"Bearer guess-{number}-{'x' * 30}")
        codes.append(status)
        wait = headers.get("retry-after", wait)
    assert codes[0] == 401
    assert codes[-1] == 429
    assert int(wait) >= 1
    assert chain.count("gallery", "gallery_logins_total", outcome="failed") > before
    assert guesser.get("/api/faces", Authorization=f"Bearer {chain.token}")[0] == 429
    seen(chain, inside)
    log = chain.log("cloud")
    assert "guess-0" not in log
    assert "Traceback" not in log
