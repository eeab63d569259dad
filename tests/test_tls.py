"""What a failed handshake with a real broker says: to whoever has to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import servers
from enrolled import Enrolled, mosquitto
from facerelay.config import Broker
from facerelay.fleet import Issuer, issuer
from facerelay.link.session import Session
from facerelay.link.tls import tls_context
from facerelay.signing import Owner
from test_session import run
from waiting import until

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def told(broker: Broker, words: str) -> None:
    """See that a session says so, and is not connected."""

    async def go() -> None:
        async with Session(broker, client_id="asks", max_message=1) as asks:
            await until(lambda: re.search(words, asks.trouble) is not None or asks.connected)
            assert not asks.connected
            assert asks.trouble.startswith("the broker")

    run(go())


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolled]:
    """An enrolled cloud with a running Mosquitto; `away` is revoked."""
    made = Enrolled.make(tmp_path_factory.mktemp("cloud"), sites=("door", "away"), mosquitto=True)
    made.revoke("away")
    with mosquitto(made):
        yield made


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("anonymous", "wants a certificate of us: set cert and key"),
        ("stranger", "does not know the authority of our certificate .*stranger"),
        (
            "expired",
            r"has expired on \d{4}-\d\d-\d\d: `facerelay enrol renew` in the cloud; this",
        ),
        ("early", r"it is not valid before \d{4}-\d\d-\d\d, and .*: is the clock right"),
    ],
)
def test_what_mosquitto_has_against_our_certificate(cloud: Enrolled, who: str, words: str) -> None:
    told(getattr(cloud, who)(), words)


def test_a_revoked_certificate(cloud: Enrolled) -> None:
    told(cloud.client("away"), r"says that our certificate \(.*site\.pem\) was revoked")


def test_a_server_s_certificate_shown_as_a_client_s(cloud: Enrolled) -> None:
    trust = cloud.folder / "trust"
    shown = {"cert": trust / "broker.pem", "key": trust / "broker.key"}
    told(
        cloud.client().model_copy(update=shown),
        "does not take our certificate .*broker.pem.* it is valid from",
    )


def test_an_authority_that_is_not_the_broker_s(cloud: Enrolled, tmp_path: Path) -> None:
    Issuer.create(tmp_path)
    client = cloud.client()
    told(
        client.model_copy(update={"ca": tmp_path / "authority.pem"}),
        r"not by the authority in ca \(.*\): is it",
    )
    told(client.model_copy(update={"ca": None}), "an authority that this system does not know: set ca")


@contextmanager
def served(folder: Path, *, hosts: tuple[str, ...] = ("localhost",), now: datetime = NOW) -> Iterator[Broker]:
    """Mosquitto with a server's certificate out of the ordinary."""
    authority = Issuer.create(folder)
    key = issuer.new_key()
    made = authority.certify(Owner("broker", "x"), key.public_key(), hosts=hosts, now=now, life=9 * DAY)
    (folder / "broker.pem").write_bytes(issuer.pem(made))
    (folder / "broker.key").write_bytes(issuer.key_pem(key))
    port, inner = servers.free_port(), servers.free_port()
    listener = (
        f"listener {inner} 127.0.0.1\nallow_anonymous true\n"
        f"listener {port} 127.0.0.1\ncertfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
    )
    with servers.mosquitto(inner, listener=listener):
        yield Broker(url=f"mqtts://localhost:{port}", ca=folder / "authority.pem")


def test_a_broker_s_certificate_that_has_expired(tmp_path: Path) -> None:
    with served(tmp_path, now=NOW - 10 * DAY) as broker:
        told(broker, r"certificate has expired, or the clock is ahead: .* it is \d{4}-\d\d-\d\d")


def test_a_broker_s_certificate_from_the_future(tmp_path: Path) -> None:
    with served(tmp_path, now=NOW + 10 * DAY) as broker:
        told(broker, "not valid yet, so the clock is likely behind")


def test_a_broker_of_another_name(tmp_path: Path) -> None:
    with served(tmp_path, hosts=("faces.example.org",)) as broker:
        told(broker, "certificate is not for 'localhost': write the url with a name that it is for")


def test_no_less_than_tls_1_2(cloud: Enrolled) -> None:
    assert tls_context(cloud.client()).minimum_version.name == "TLSv1_2"
