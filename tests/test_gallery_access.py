"""Who may see the gallery: settings, the login by token, sessions, the access log, proxies."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from conftest import Make
from facerelay import config, sections, settings
from facerelay.cloud.gallery import serve_gallery
from facerelay.cloud.gallery.access import attempts as attempts_module
from facerelay.cloud.gallery.access.attempts import FREE, IN_ALL, Attempts
from facerelay.cloud.gallery.access.log import AccessLog, AccessLogError
from facerelay.cloud.gallery.access.pages import safe_target
from facerelay.cloud.gallery.access.sessions import Sessions
from facerelay.cloud.gallery.live import MOST_LISTENERS
from facerelay.commands import vitals
from gallery_browser import TOKEN, Browser
from gallery_parts import Events, fill, folder, serving

TLS = ["gallery.cert=c.pem", "gallery.key=k.pem"]
BY_TOKEN = [f"gallery.token={TOKEN}"]
BY_OIDC = ["gallery.oidc_issuer=https://login.example.org", "gallery.oidc_client_id=faces"]
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["gallery.host=0.0.0.0"], "beyond loopback the page needs gallery.cert"),
        (["gallery.host=192.0.2.1", *TLS], "a login"),
        (["gallery.host=192.0.2.1", *BY_TOKEN], "gallery.cert"),
        (["gallery.host=0.0.0.0", *TLS, *BY_TOKEN], "gallery.hosts"),
        (["gallery.hosts.0=faces.example.org"], "gallery.hosts: beyond loopback"),
        (["gallery.hosts.0=faces.example.org", "gallery.allow_insecure=true"], "gallery.hosts: beyond"),
        (["gallery.hosts.0=faces.example.org", "gallery.proxy.0=127.0.0.1"], "a login"),
        (["gallery.hosts.0=faces.example.org:8443", *TLS, *BY_TOKEN], "without port"),
        (["gallery.hosts.0=*", *TLS, *BY_TOKEN], "without port"),
        (["gallery.proxy.0=0.0.0.0/0", *BY_TOKEN], "internet"),
        (["gallery.proxy.0=nginx", *BY_TOKEN], "address or a network"),
        (["gallery.cert=c.pem"], "go together"),
        (["gallery.token=secret-and-short"], "at least 24"),
        ([*BY_TOKEN, "gallery.token_file=t"], "not both"),
        (BY_OIDC, "oidc_allowed is empty"),
        (BY_OIDC[:1], "go together"),
        ([*BY_OIDC, "gallery.oidc_allowed.0=Ann"], "subject:ID"),
        (["gallery.oidc_issuer=http://login.example.org"], "https://"),
        (["gallery.oidc_issuer=https://u:p@login.example.org"], "https://"),
        (["gallery.oidc_allowed.0=ann@example.org"], "need oidc_issuer"),
    ],
)
def test_nothing_is_shown_beyond_loopback_without_tls_and_login(flags: list[str], words: str) -> None:
    with pytest.raises(settings.ConfigError, match=re.escape(words)) as caught:
        settings.load(None, flags=flags, environ={})
    assert "gallery" in str(caught.value)
    assert "secret-and-short" not in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["gallery.host=0.0.0.0", "gallery.allow_insecure=true"],
        ["gallery.host=192.0.2.1", *TLS, *BY_TOKEN],
        ["gallery.host=0.0.0.0", "gallery.hosts.0=faces.example.org", *TLS, *BY_TOKEN],
        ["gallery.hosts.0=faces.example.org", "gallery.proxy.0=127.0.0.1", *BY_TOKEN],
        [*TLS, "gallery.host=::1", *BY_OIDC, "gallery.oidc_allowed.0=group:staff"],
    ],
)
def test_what_may_be_set(flags: list[str]) -> None:
    settings.load(None, flags=flags, environ={})


@pytest.mark.parametrize("text", [None, "short\n", b"\xff" * 40])
def test_a_token_file_that_is_no_good_ends_the_role_with_words(
    tmp_path: Path, text: str | bytes | None
) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    gallery = sections.Gallery(port=0, token_file=path, cache=tmp_path / "cache")
    known = config.Config(bucket=config.Bucket(url=f"file://{tmp_path}/b"), gallery=gallery)
    with pytest.raises(settings.ConfigError, match=r"gallery\.token_file: ") as caught:
        asyncio.run(serve_gallery(known))
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"cert": "none.crt", "key": "none.key"}, "gallery.cert and gallery.key: No such file"),
        ({"cert": "text", "key": "text"}, "no certificate with its key"),
        ({"access_log": "none/log"}, "gallery.access_log: No such file"),
    ],
)
def test_a_file_that_is_not_there_ends_the_role_with_words(
    tmp_path: Path, known: dict[str, str], words: str
) -> None:
    (tmp_path / "text").write_text("no PEM")
    paths = {name: tmp_path / path for name, path in known.items()}
    gallery = sections.Gallery(port=0, cache=tmp_path / "cache", **paths)
    all_known = config.Config(bucket=config.Bucket(url=f"file://{tmp_path}/b"), gallery=gallery)
    with pytest.raises(settings.ConfigError, match=re.escape(words)):
        asyncio.run(serve_gallery(all_known))


def test_a_login_by_token(tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture) -> None:
    one = make_face(time=NOON)
    (tmp_path / "token").write_text(f"{TOKEN}\n")

    async def scenario() -> None:
        await fill(folder(tmp_path / "b"), [one])
        url = f"file://{tmp_path}/b"
        async with serving(url, tmp_path, caplog, token_file=tmp_path / "token") as served:
            browser = Browser(served.port)
            status, headers, _ = await browser.get("/?site=home&at=2026-11-20T14:00Z")
            assert (status, headers["location"]) == (
                303, "/login?next=%2F%3Fsite%3Dhome%26at%3D2026-11-20T14%3A00Z",
            )  # fmt: skip
            key = quote(one.key)
            shut = ["/api/faces", "/api/places", "/api/settings", "/api/ready", "/api/live", "/api/health",
                    f"/thumb?key={key}", f"/picture?key={key}", f"/api/face?key={key}", "/page/wall.js",
                    "/nothing"]  # fmt: skip
            for path in shut:
                status, headers, body = await browser.get(path)
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
                assert b"log in first" in body
            assert (await browser.post("/api/erase", {"keys": [one.key]}))[0] == 401
            status, headers, body = await browser.get(headers.get("location", "/login?next=%2F%22%3E%3Cb%3E"))
            assert (status, headers["referrer-policy"]) == (200, "same-origin")
            assert "script-src" not in headers["content-security-policy"]
            assert "form-action 'self'" in headers["content-security-policy"]
            assert b"<b>" not in body
            assert b"<script" not in body
            status, _, body = await browser.log_in("not the token of this page")
            assert (status, b"This is not the token." in body) == (401, True)
            assert "a login failed from 127.0.0.1: this is not the token" in caplog.text
            assert "not the token of this page" not in caplog.text
            status, headers, _ = await browser.log_in(target="/face?key=x")
            assert (status, headers["location"]) == (303, "/face?key=x")
            assert re.fullmatch(
                r"facerelay=[\w-]{43}; HttpOnly; Max-Age=43200; Path=/; SameSite=lax", headers["set-cookie"]
            )
            assert TOKEN not in caplog.text
            assert await browser.json("/api/settings") == {"erase": True, "login": True}
            status, headers, body = await browser.get(f"/picture?key={key}")
            assert (status, headers["cache-control"], body) == (200, "private, no-store", one.data)
            assert (await browser.get(f"/thumb?key={key}"))[1]["cache-control"].startswith("private")
            first = dict(browser.cookies)
            await browser.log_in()
            assert browser.cookies != first, "a session is not taken over by the next login"
            stranger = Browser(served.port)
            stranger.cookies = first
            await stranger.json("/api/faces", 401)
            assert (await browser.post("/api/erase", {"keys": [one.key]}))[0] == 200

    asyncio.run(scenario())


def test_programs_send_the_token_itself(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_face(time=NOON)

    async def scenario() -> None:
        await fill(folder(tmp_path / "b"), [one])
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN) as served:
            for wrong in ("x", "", "\u00e9" * 30, TOKEN + "x"):
                given = f"Bearer {wrong}".encode().decode("latin1")
                status, headers, _ = await served.get("/api/faces", Authorization=given)
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert (await served.get("/api/faces", Authorization=f"Basic {TOKEN}"))[0] == 401
            right = f"bearer {TOKEN}"
            status, _, body = await served.get("/api/faces", Authorization=right)
            assert [each["key"] for each in json.loads(body)["faces"]] == [one.key]
            status, _, body = await served.erase([one.key], Authorization=right, Origin="", X_Facerelay="")
            assert (status, json.loads(body)["deleted"]) == (200, 1)

    asyncio.run(scenario())


def test_another_page_can_neither_log_in_nor_out_nor_erase(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_face(time=NOON)
    strangers: list[dict[str, str]] = [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
    ]  # fmt: skip

    async def scenario() -> None:
        await fill(folder(tmp_path / "b"), [one])
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN) as served:
            browser = Browser(served.port)
            for stranger in strangers:
                status, headers, _ = await browser.send("/login", {"token": TOKEN}, **stranger)
                assert status == 403
                assert "set-cookie" not in headers
            for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
                assert (await browser.send("/login", {"token": TOKEN}, Content_Type=kind))[0] == 400
            assert (await browser.send("/login", {"token": TOKEN, "next": "x" * 9000}))[0] == 400
            assert (await browser.log_in())[0] == 303
            for stranger in [*strangers, {"X_Facerelay": ""}]:
                assert (await browser.post("/api/erase", {"keys": [one.key]}, **stranger))[0] == 403
                assert (await browser.post("/logout", **stranger))[0] == 403
            assert len((await browser.json("/api/faces"))["faces"]) == 1
            assert (await browser.get("/logout"))[0] == 405

    asyncio.run(scenario())


def test_logging_out_ends_the_session_and_its_streams(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN) as served:
            browser = Browser(served.port)
            await browser.log_in()
            kept = dict(browser.cookies)
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            cookie = "; ".join(f"{name}={value}" for name, value in kept.items())
            writer.write(f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n".encode())
            assert (await Events(reader).next())[0] == "hello"
            status, headers, _ = await browser.post("/logout")
            assert (status, headers["clear-site-data"]) == (200, '"cache", "storage"')
            assert not browser.cookies
            async with asyncio.timeout(20):
                assert b"event" not in await reader.readuntil(b"0\r\n\r\n")  # the stream's own end
            writer.close()
            browser.cookies = kept
            await browser.json("/api/faces", 401)
            await browser.log_in()
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            left = 2 * MOST_LISTENERS
            while left:  # who leaves gives the place back
                reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
                asking = f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n"
                writer.write(asking.encode())
                code = (await reader.readline()).split()[1]
                assert code in {b"200", b"503"}
                if code == b"200":
                    await reader.readuntil(b"hello")
                    left -= 1
                writer.close()
                await writer.wait_closed()
        assert "Traceback" not in caplog.text

    asyncio.run(scenario())


def test_sessions_end_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("facerelay.cloud.gallery.access.sessions.time.monotonic", lambda: now[0])

    async def scenario() -> None:
        sessions = Sessions(hours=1)
        first = sessions.start("ann", may_erase=False)
        found = sessions.find(first)
        assert found is not None
        assert (found.name, found.may_erase) == ("ann", False)
        for wrong in ("", first[:-1], first + "x", "\udcff"):
            assert sessions.find(wrong) is None
        many = [sessions.start("bob", may_erase=True) for _ in range(1000)]
        assert sessions.find(first) is None
        assert found.over.is_set()
        assert sessions.find(many[0]) is not None
        now[0] += 3601
        assert sessions.find(many[-1]) is None
        sessions.start("eve", may_erase=True)
        assert len(sessions._known) == 1
        assert len(set(many)) == 1000

    asyncio.run(scenario())


def test_failures_make_wait_longer_and_longer() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    waits = []
    for _ in range(FREE + 14):
        waits.append(attempts.wait_s("192.0.2.1"))
        now[0] += waits[-1]
        attempts.failed("192.0.2.1")
    assert waits[:FREE] == [0] * FREE
    assert waits[FREE:] == [min(900.0, 2.0**n) for n in range(14)]
    assert attempts.wait_s("192.0.2.1") == 900
    assert attempts.wait_s("192.0.2.2") == 0
    attempts.succeeded("192.0.2.1")
    assert attempts.wait_s("192.0.2.1") == 0


def test_failures_of_all_together_are_bounded_and_hold_up_no_known_address() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    attempts.succeeded("192.0.2.1")
    for n in range(IN_ALL):
        assert attempts.wait_s(f"198.51.{n // 250}.{n % 250}") == 0
        attempts.failed(f"198.51.{n // 250}.{n % 250}")
    assert 0 < attempts.wait_s("203.0.113.1") <= 1
    assert attempts.wait_s("192.0.2.1") == 0
    now[0] += 60
    assert attempts.wait_s("203.0.113.1") == 0
    for n in range(FREE):
        assert attempts.wait_s(f"2001:db8::{n}") == 0
        attempts.failed(f"2001:db8::{n}")
    assert attempts.wait_s("2001:db8:0:ff::ffff") > 0, "a /56 is one"
    for n in range(20_000):
        attempts.failed(f"2001:db8:{n:x}::1")
        attempts.succeeded(f"2001:db8:{n:x}::2")
    assert len(attempts._failures) <= attempts_module._MOST
    assert len(attempts._welcome) <= attempts_module._MOST


def test_a_guesser_is_told_to_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("facerelay.cloud.gallery.access.door.Attempts", lambda: Attempts(lambda: now[0]))

    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN) as served:
            browser = Browser(served.port)
            for n in range(FREE):
                assert (await browser.log_in(f"guess {n} of the token, not right"))[0] == 401
            status, headers, body = await browser.log_in()
            assert (status, headers["retry-after"]) == (429, "1"), "the right one is not told from others"
            assert b"Try again in 1 s" in body
            status, headers, _ = await served.get("/api/faces", Authorization=f"Bearer {TOKEN}")
            assert (status, headers["retry-after"]) == (429, "1")
            assert caplog.text.count("a login failed") == FREE
            assert caplog.text.count("has to wait") == 1
            now[0] += 1
            assert (await browser.log_in())[0] == 303

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("/", "/"), ("/?site=home&at=x", "/?site=home&at=x"), ("/face?key=a%2Fb", "/face?key=a%2Fb"),
        ("/health", "/health"), ("", "/"), ("//evil.example", "/"), ("/\\evil.example", "/"),
        ("https://evil.example/", "/"), ("/login", "/"), ("/logout", "/"), ("/face/../x", "/"),
        ("/?a\r\nb", "/"), ("/%0d%0aX: y", "/"), ("javascript:alert(1)", "/"), ("/\t/evil.example", "/"),
        ("/?" + "x" * 9000, "/"), ("/@evil.example", "/"), ("/.evil.example", "/"), ("/?\u2028", "/"),
        ("/health#x", "/"),
    ],
)  # fmt: skip
def test_a_login_leads_to_pages_of_ours_alone(asked: str, target: str) -> None:
    assert safe_target(asked) == target


def test_every_answer_has_a_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN) as served:
            browser = Browser(served.port)
            await browser.log_in()
            asked = {
                "/": 200, "/nothing": 404, "/logout": 405, "/login": 200, "/api/faces?limit=x": 400,
                "/thumb?key=x": 400, "/page/wall.js": 200, "/api/places": 200,
            }  # fmt: skip
            answers = [await browser.get(path) for path in asked]
            assert [status for status, _, _ in answers] == list(asked.values())
            answers += [
                await browser.get("/", Host="evil.example"),
                await Browser(served.port).get("/api/faces"),
                await Browser(served.port).get("/"),
                await Browser(served.port).log_in("x"),
            ]
            assert [status for status, _, _ in answers[-4:]] == [400, 401, 303, 401]
            for _, headers, _ in answers:
                assert headers["content-security-policy"].startswith("default-src 'none'")
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] in {"no-referrer", "same-origin"}
                assert "cache-control" in headers
                assert "public" not in headers["cache-control"]
                assert "strict-transport-security" not in headers
            missing = [
                n for n, (_, headers, _) in enumerate(answers) if "content-security-policy" not in headers
            ]
            assert not missing
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"this is no HTTP\r\n\r\n")
            garbage = await reader.read()
            writer.close()
            assert garbage.startswith(b"HTTP/1.1 400 ")
            assert b"default-src 'none'" in garbage

    asyncio.run(scenario())


def test_each_view_of_a_face_is_written_down_where_it_is_asked_for(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = make_face(time=NOON), make_face(time=NOON)
    path = tmp_path / "access.jsonl"

    def lines() -> list[tuple[str, str, str | None]]:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert all(each["address"] == "127.0.0.1" and each["time"].endswith("+00:00") for each in found)
        return [(each["action"], each["who"], each.get("face")) for each in found]

    async def scenario() -> None:
        await fill(folder(tmp_path / "b"), [one, other])
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN, access_log=path) as served:
            browser = Browser(served.port)
            await browser.log_in("wrong, and told as such")
            await browser.log_in()
            key = quote(one.key)
            await browser.json("/api/faces")
            for view in ("/thumb?", "/api/face?", "/picture?", "/picture?download=1&"):
                assert (await browser.get(f"{view}key={key}"))[0] == 200
            assert lines() == [
                ("login-failed", "", None), ("login", "token", None), ("page", "token", one.face.id),
                ("picture", "token", one.face.id), ("download", "token", one.face.id),
            ]  # fmt: skip
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            path.rename(tmp_path / "access.jsonl.1")
            assert (await browser.post("/api/erase", {"keys": [one.key, other.key]}))[0] == 200
            await browser.post("/logout")
            assert sorted(lines()[:2]) == sorted(("erase", "token", each.face.id) for each in (one, other))
            assert lines()[2:] == [("logout", "token", None)]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            text = path.read_text() + (tmp_path / "access.jsonl.1").read_text()
            assert "door" not in text
            assert TOKEN not in text

    asyncio.run(scenario())


def test_a_face_is_not_shown_where_it_cannot_be_written_down(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_face(time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one])
        full = Path("/dev/full")
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, access_log=full) as served:
            for path in ("/picture", "/api/face"):
                error = await served.json(f"{path}?key={quote(one.key)}", 503)
                assert "access log" in error["error"]
            assert (await served.erase([one.key]))[0] == 503
            assert await bucket.get(one.key, max_bytes=100_000) == one.data
            assert (await served.get("/api/faces"))[0] == 200
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN, access_log=full) as served:
            assert (await Browser(served.port).log_in())[0] == 503
            assert (await served.get("/api/faces", Authorization="Bearer x"))[0] == 503

    asyncio.run(scenario())


def test_an_access_log_that_cannot_be_opened_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "link", tmp_path / "none" / "log", tmp_path):
        with pytest.raises(AccessLogError, match=r"gallery\.access_log: "):
            AccessLog(path)
    assert not (tmp_path / "elsewhere").exists()


def test_only_a_proxy_is_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = "faces.example.org"

    async def scenario() -> None:
        known: dict[str, Any] = {"token": TOKEN, "hosts": (host,), "proxy": ("127.0.0.1",)}
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, **known) as served:
            through = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.66, 192.0.2.7"}
            browser = Browser(served.port, host=host, headers=through)
            status, headers, _ = await browser.log_in()
            assert (status, headers["strict-transport-security"]) == (303, "max-age=31536000")
            assert headers["set-cookie"].startswith("__Host-facerelay=")
            assert "; Secure" in headers["set-cookie"]
            assert "has logged in from 192.0.2.7" in caplog.text
            assert await browser.json("/api/settings") == {"erase": True, "login": True}
            plain = await Browser(served.port, host=host).get("/")
            assert plain[0] == 400
            assert b"X-Forwarded-Proto: https" in plain[2]
            assert (await Browser(served.port, host="evil.example", headers=through).get("/"))[0] == 400
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN) as served:
            browser = Browser(served.port, headers={"X-Forwarded-For": "192.0.2.66"})
            await browser.log_in("wrong token, and a lie besides")
            assert "a login failed from 127.0.0.1" in caplog.text

    asyncio.run(scenario())


def test_the_health_check_of_this_process_needs_no_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    probe = "a secret of this process"

    async def scenario() -> None:
        caplog.set_level("INFO")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        gallery = sections.Gallery(port=port, token=TOKEN, cache=tmp_path / "cache")
        known = config.Config(bucket=config.Bucket(url=f"file://{tmp_path}/b"), gallery=gallery)
        task = asyncio.create_task(serve_gallery(known, probe=probe))
        while "the gallery is at" not in caplog.text:
            await asyncio.sleep(0.02)
        assert await vitals.page(known, probe=probe)() == ""
        assert "401" in await vitals.page(known, probe="another one")()
        browser = Browser(port)
        status, _, _ = await browser.get("/api/faces", Authorization=f"Bearer {probe}")
        assert status == 401
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_nothing_opens_where_there_is_no_probe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog, token=TOKEN) as served:
            assert (await served.get("/api/ready", Authorization="Bearer "))[0] == 401

    asyncio.run(scenario())
