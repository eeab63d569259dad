"""Logins at the gallery by an identity provider: a real one on loopback, and the lies that it could tell."""

from __future__ import annotations

import asyncio
import http.server
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from conftest import Make
from facerelay.cloud.gallery.access.attempts import FREE, Attempts
from facerelay.cloud.gallery.access.fetch import FetchError, fetch
from facerelay.cloud.gallery.access.identity import Identity
from facerelay.cloud.gallery.access.ticket import LIFE_S, Tickets
from gallery_browser import Browser
from gallery_parts import Answer, fill, folder, serving
from provider import CLIENT, SECRET, Provider, path_of, providing
from web import serve


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as one:
        yield one


@asynccontextmanager
async def gallery(provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture, **more: Any) -> Any:  # noqa: ANN401 - any setting
    (tmp_path / "secret").write_text(SECRET + "\n")
    known: dict[str, Any] = {
        "oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_allowed": ("ANN@example.org",),
        "oidc_client_secret_file": tmp_path / "secret",
    } | more  # fmt: skip
    async with serving(f"file://{tmp_path}/b", tmp_path, caplog, **known) as served:
        yield served


async def come_back(browser: Browser, change: dict[str, str] | None = None) -> Answer:
    """Go the whole way, as a browser does; with a change to what it comes back with."""
    status, headers, _ = await browser.get("/login/oidc?next=%2Fhealth")
    assert status == 303
    there = await asyncio.to_thread(_redirect, headers["location"])
    assert there.startswith(f"{browser.origin}/login/oidc/callback?")
    answer = parse_qs(urlsplit(there).query) | {name: [value] for name, value in (change or {}).items()}
    there = f"/login/oidc/callback?{urlencode({name: value for name, [value] in answer.items() if value})}"
    # A browser comes from the provider's page, so it says that it does.
    return await browser.get(there, Sec_Fetch_Site="cross-site")


def _redirect(url: str) -> str:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            pass

    try:
        urllib.request.build_opener(Stay()).open(url, timeout=10)
    except urllib.error.HTTPError as answer:
        with answer:
            return str(answer.headers["Location"])
    raise AssertionError


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_a_login_by_a_provider(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, provider: Provider, alg: str
) -> None:
    provider.alg = alg

    async def scenario() -> None:
        async with gallery(provider, tmp_path, caplog, access_log=tmp_path / "log") as served:
            browser = Browser(served.port)
            _, headers, body = await browser.get("/login?next=%2Fhealth")
            assert b'href="/login/oidc?next=%2Fhealth"' in body
            assert b'name="token"' not in body
            status, headers, _ = await come_back(browser)
            assert (status, headers["location"]) == (303, "/health")
            assert list(browser.cookies) == ["facerelay"], "the other one has done its work"
            assert await browser.json("/api/settings") == {"erase": True, "login": True}
            assert "ann@example.org has logged in from 127.0.0.1" in caplog.text
            assert json.loads((tmp_path / "log").read_text())["who"] == "ann@example.org"
            assert (await browser.log_in())[0] == 401, "there is no token"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("claims", "alg", "words"),
    [
        ({"nonce": "another login's"}, "RS256", "not for this login"),
        ({"nonce": None}, "RS256", "not for this login"),
        ({"aud": "another client"}, "RS256", "not for this login"),
        ({"aud": [CLIENT, "another"]}, "RS256", "several clients"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "RS256", "another client"),
        ({"aud": None}, "RS256", "not for this login"),
        ({"iss": "https://evil.example"}, "RS256", "not for this login"),
        ({"exp": int(time.time()) - 120}, "RS256", "not for this login"),
        ({"exp": None}, "RS256", "not for this login"),
        ({"exp": "tomorrow"}, "RS256", "not for this login"),
        ({"iat": int(time.time()) + 3600}, "RS256", "not for this login"),
        ({"nbf": int(time.time()) + 3600}, "RS256", "not for this login"),
        ({"sub": None}, "RS256", "not for this login"),
        ({"sub": 7}, "RS256", "not for this login"),
        ({}, "none", "signature is not the issuer's"),
        ({}, "HS256", "signature is not the issuer's"),
        ({}, "forged", "signature is not the issuer's"),
        ({"email": "eve@example.org"}, "RS256", "not among gallery.oidc_allowed"),
        ({"email_verified": False}, "RS256", "not among gallery.oidc_allowed"),
        ({"email_verified": "true"}, "RS256", "not among gallery.oidc_allowed"),
        ({"email_verified": None}, "RS256", "not among gallery.oidc_allowed"),
        ({"email": ["ann@example.org"]}, "RS256", "not among gallery.oidc_allowed"),
        ({"sub": "x\r\nINFO all is well", "email": None}, "RS256", r"'x\r\nINFO"),
    ],
)
def test_a_token_that_lies_lets_nobody_in(  # noqa: PLR0917 - pytest's
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    provider: Provider,
    claims: dict[str, Any],
    alg: str,
    words: str,
) -> None:
    provider.claims, provider.alg = claims, alg

    async def scenario() -> None:
        async with gallery(provider, tmp_path, caplog) as served:
            browser = Browser(served.port)
            status, headers, body = await come_back(browser)
            assert status == 401
            assert not any(name == "facerelay" for name in browser.cookies)
            assert b"did not succeed" in body
            assert "default-src 'none'" in headers["content-security-policy"]
            await browser.json("/api/faces", 401)
            assert words in caplog.text
            provider.claims, provider.alg = {}, "RS256"
            assert (await come_back(browser))[0] == 303, "the next good one gets in"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"state": ""}, 401),
        ({"state": "another"}, 401),
        ({"iss": "https://evil.example"}, 401),
        ({"iss": ""}, 401),
        ({"code": ""}, 401),
        ({"code": "another"}, 401),
    ],
)
def test_who_comes_back_otherwise_is_not_believed(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    provider: Provider,
    change: dict[str, str],
    status: int,
) -> None:
    async def scenario() -> None:
        async with gallery(provider, tmp_path, caplog) as served:
            browser = Browser(served.port)
            assert (await come_back(browser, change))[0] == status
            assert not browser.cookies

    asyncio.run(scenario())


def test_an_answer_opens_one_browser_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, provider: Provider
) -> None:
    async def scenario() -> None:
        async with gallery(provider, tmp_path, caplog) as served:
            ann, eve = Browser(served.port), Browser(served.port)
            _, headers, _ = await ann.get("/login/oidc")
            back = path_of(await asyncio.to_thread(_redirect, headers["location"]))
            ticket = dict(ann.cookies)
            assert (await eve.get(back))[0] == 400, "without the cookie"
            await eve.get("/login/oidc")
            assert (await eve.get(back))[0] == 401, "with another's cookie"
            forged = ticket["facerelay-login"]
            for wrong in (
                forged[:-2] + "AA",
                forged.replace(".", ".9", 1),
                "a.b.c.d",
                "",
                "x" * 5000,
                "....",
            ):
                eve.cookies = {"facerelay-login": wrong}
                assert (await eve.get(back))[0] == 400
            assert (await ann.get(back))[0] == 303
            ann.cookies = ticket
            assert (await ann.get(back))[0] == 401, "a code is good once"

    asyncio.run(scenario())


def test_a_way_back_is_too_old_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = Tickets()
    ticket, cookie = tickets.issue("/face?key=x")
    assert tickets.read(cookie) == ticket
    assert len({ticket.state, ticket.nonce, ticket.verifier, ticket.challenge}) == 4
    assert len(ticket.verifier) == 43
    assert Tickets().read(cookie) is None, "of another run"
    now = time.time()
    monkeypatch.setattr("facerelay.cloud.gallery.access.ticket.time.time", lambda: now + LIFE_S + 5)
    assert tickets.read(cookie) is None


def test_who_may_see_and_not_erase(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, provider: Provider
) -> None:
    one = make_face()

    async def scenario() -> None:
        await fill(folder(tmp_path / "b"), [one])
        rights = {"oidc_allowed": ("group:staff",), "oidc_may_erase": ("subject:ann-1",)}
        async with gallery(provider, tmp_path, caplog, **rights) as served:
            provider.claims = {"sub": "bob-2"}
            bob, ann = Browser(served.port), Browser(served.port)
            await come_back(bob)
            assert await bob.json("/api/settings") == {"erase": False, "login": True}
            status, _, body = await bob.post("/api/erase", {"keys": [one.key]})
            assert (status, b"gallery.oidc_may_erase" in body) == (403, True)
            provider.claims = {}
            await come_back(ann)
            assert (await ann.post("/api/erase", {"keys": [one.key]}))[0] == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"}, {"issuer": None}, {"token_endpoint": "http://192.0.2.1/token"},
        {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
)  # fmt: skip
def test_a_provider_that_is_not_what_it_says_is_not_gone_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, provider: Provider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata

    async def scenario() -> None:
        async with gallery(provider, tmp_path, caplog) as served:
            browser = Browser(served.port)
            for _ in range(3):
                status, headers, body = await browser.get("/login/oidc")
                assert (status, "location" in headers) == (503, False)
                assert b"does not answer as it should" in body
            assert len(provider.asked) == 1, "asked again and again"

    asyncio.run(scenario())


def test_a_public_client_has_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, provider: Provider
) -> None:
    async def scenario() -> None:
        async with gallery(provider, tmp_path, caplog, oidc_client_secret_file=None) as served:
            assert (await come_back(Browser(served.port)))[0] == 401
            provider.public = True
            assert (await come_back(Browser(served.port)))[0] == 303

    asyncio.run(scenario())


def test_failed_logins_have_to_wait(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.access.door.Attempts", lambda: Attempts(lambda: 0.0))
    provider.claims = {"email": "eve@example.org"}

    async def scenario() -> None:
        async with gallery(provider, tmp_path, caplog) as served:
            browser = Browser(served.port)
            for _ in range(FREE):
                assert (await come_back(browser))[0] == 401
            asked = len(provider.asked)
            assert (await browser.get("/login/oidc"))[0] == 429
            assert len(provider.asked) == asked

    asyncio.run(scenario())


def test_who_is_among_whom() -> None:
    ann = Identity("s-1", "Ann@Example.org", frozenset({"staff", "a@b"}))
    assert ann.is_among(["ann@example.org"])
    assert ann.is_among(["subject:s-1"])
    assert ann.is_among(["group:staff"])
    assert not ann.is_among(["subject:staff", "group:s-1", "subject:S-1", "bob@example.org", "a@b"])
    for other in ("ann@e\u017fxample.org", "\u212aate@example.org"):
        assert not Identity("s", other, frozenset()).is_among(["ann@esxample.org", "kate@example.org"])
    odd = Identity("group:staff", None, frozenset({"ann@example.org"}))
    assert not odd.is_among(["group:staff", "ann@example.org"])


@pytest.mark.parametrize("url", ["http://192.0.2.1/", "file:///etc/passwd", "ftp://x/", "//x", ""])
def test_nothing_is_fetched_without_tls(url: str) -> None:
    with pytest.raises(FetchError, match="https://"):
        asyncio.run(fetch(url))


@pytest.mark.parametrize("kind", ["redirect", "large", "list", "deep", "error", "cut"])
def test_an_answer_that_cannot_be_used_is_said_so(kind: str) -> None:
    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        body = {
            "large": b'"' + b"x" * 300_000 + b'"',
            "list": b"[]",
            "deep": b"[" * 100_000,
            "cut": b'{"a": ',
        }.get(kind, b"{}")
        request.send_response({"redirect": 302, "error": 500}.get(kind, 200))
        request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", str(len(body) + (kind == "cut")))
        request.end_headers()
        request.wfile.write(body)
        asked.append(request.path)

    asked: list[str] = []
    with serve(handle) as url, pytest.raises(FetchError, match=r"127\.0\.0\.1:\d+") as caught:
        asyncio.run(fetch(url.replace("someone:secret@", "") + "/keys"))
    assert asked == ["/keys"]
    assert "secret" not in str(caught.value)
