"""Logging in at the gallery in a real browser, over TLS, with the command as users start it."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from browser import Tab, browsing
from chains import Part, eventually
from facerelay import face
from gallery_browser import TOKEN, certificate
from gallery_parts import fill, folder
from provider import CLIENT, SECRET, Provider, providing
from servers import free_port
from test_gallery_browser import axe

TILES = "document.querySelectorAll('.tiles a').length"
SHOWN = "[...document.querySelectorAll('.tiles img')].every((each) => each.naturalWidth > 0)"


class House:
    """The gallery as a process, the provider beside it, and a browser."""

    def __init__(self, url: str, provider: Provider, tab: Tab, part: Part, access_log: Path) -> None:
        self.url, self.provider, self.tab, self.part, self.access_log = url, provider, tab, part, access_log

    def actions(self) -> list[str]:
        return [json.loads(line)["action"] for line in self.access_log.read_text().splitlines()]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    where = tmp_path_factory.mktemp("login")
    cert, _ = certificate(where)
    (where / "token").write_text(TOKEN)
    (where / "secret").write_text(SECRET)
    asyncio.run(fill(folder(where / "bucket"), [_face(n) for n in range(12)]))
    port = free_port()
    with providing() as provider, browsing(where) as tab:
        (where / "cloud.toml").write_text(f"""
            [bucket]
            url = "file://bucket"
            [gallery]
            port = {port}
            cert = "gallery.crt"
            key = "gallery.key"
            token_file = "token"
            oidc_issuer = "{provider.issuer}"
            oidc_client_id = "{CLIENT}"
            oidc_client_secret_file = "secret"
            oidc_allowed = ["ann@example.org"]
            oidc_may_erase = []
            access_log = "access.jsonl"
        """)
        command = [sys.executable, "-m", "facerelay", "gallery", "-c", str(where / "cloud.toml")]
        part = Part("gallery", command, where / "gallery.log")
        part.start()
        try:
            url = f"https://localhost:{port}/"
            trusting = ssl.create_default_context(cafile=cert)
            eventually(lambda: _answers(url, trusting))
            tab.call("Security.setIgnoreCertificateErrors", ignore=True)
            yield House(url, provider, tab, part, where / "access.jsonl")
        finally:
            part.end()
        text = part.text()
        assert "Traceback" not in text
        assert TOKEN not in text


def _answers(url: str, tls: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5, context=tls) as answer:  # noqa: S310 - our own
            return int(answer.status) == 200
    except OSError:
        return False


def _face(n: int) -> face.Frozen:
    noise = np.random.default_rng(n).integers(0, 255, (120, 96, 3), dtype=np.uint8)
    known: dict[str, Any] = {
        "id": face.new_id(), "outbox": "a" * 32, "run": "b" * 8, "seq": n + 1, "site": "home",
        "camera": "door", "time": datetime.now(UTC), "box": (10, 20, 30, 40), "frame": (640, 480),
        "score": 0.9, "quality": 0.5, "parts": {}, "clock": "synchronised",
    }  # fmt: skip
    return face.freeze(face.Face(**known), cv2.imencode(".jpg", noise)[1].tobytes())


def _type(tab: Tab, text: str) -> None:
    tab.until("document.activeElement?.id === 'token'")
    tab.call("Input.insertText", text=text)
    tab.press("Enter")


def test_one_logs_in_by_the_form_erases_and_logs_out(house: House) -> None:
    tab = house.tab
    tab.open(f"{house.url}?quality=0.25")
    tab.until("location.pathname === '/login' && document.readyState === 'complete'")
    assert axe(tab) == []
    _type(tab, "not the token of this page")
    tab.until("document.querySelector('[role=alert]')?.textContent === 'This is not the token.'")
    assert axe(tab) == []
    _type(tab, TOKEN)
    tab.until(f"location.search === '?quality=0.25' && {TILES} === 12 && {SHOWN}")
    tab.until("document.getElementById('state').textContent === 'Live'")
    assert tab.value("document.cookie") == "", "no script sees the session"
    tab.value("document.querySelector('.tiles a').click()")
    tab.until("document.getElementById('picture')?.naturalWidth > 0")
    tab.until("document.getElementById('erase').checkVisibility()")
    tab.value("document.getElementById('erase').click()")
    tab.until("document.getElementById('sure').open")
    tab.value("document.getElementById('sure-yes').click()")
    tab.until(f"location.pathname === '/' && {TILES} === 11")
    tab.until("document.getElementById('logout')")
    other = tab.another()
    other.call("Security.setIgnoreCertificateErrors", ignore=True)
    other.open(house.url)
    other.until(f"{TILES} === 11")
    tab.front()
    tab.point("#logout")
    tab.until("location.pathname === '/login'")
    assert tab.value("sessionStorage.length") == 0
    tab.value("history.back()")
    tab.until(f"location.pathname === '/login' && document.getElementById('token') && {TILES} === 0")
    other.value("document.querySelector('.tiles a').click()")
    other.until("location.pathname === '/login'")
    assert tab.faults == []
    actions = house.actions()
    assert [actions.count(each) for each in ("login-failed", "login", "logout", "erase")] == [1, 1, 1, 1]


def test_one_logs_in_by_the_provider_and_may_not_erase(house: House) -> None:
    tab = house.tab
    tab.open(f"{house.url}health")  # from the login page where the test before ended, perhaps
    tab.until("location.search.includes('health') && document.readyState === 'complete'")
    tab.until("location.pathname === '/login' && document.querySelector('a.button')")
    assert tab.value("document.querySelector('a.button').textContent") == "Log in at 127.0.0.1"
    tab.point("a.button")
    tab.until("location.pathname === '/health' && document.getElementById('logout')")
    tab.open(house.url)
    tab.until(f"{TILES} > 0 && {SHOWN}")
    tab.value("document.querySelector('.tiles a').click()")
    tab.until("document.getElementById('picture')?.naturalWidth > 0 && document.getElementById('logout')")
    assert not tab.value("document.getElementById('erase').checkVisibility()")
    assert tab.faults == []
    assert "ann@example.org" in house.access_log.read_text()
