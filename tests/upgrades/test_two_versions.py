"""The first version's edge with today's cloud, and today's edge with the first version's cloud."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from versions import TODAY, Kind, Link, Pair, Version, first_version, pair

from chains import eventually
from facerelay import settings
from test_signed_receipts import Authority

SHARED = '[store]\nintake = "shared"\nlayout = "shards"\nshard_s = 2\nname = "main"\n'


class Case(NamedTuple):
    """Who is of which version, and how they are joined."""

    edge: str
    cloud: str
    brokers: Kind
    link: Link


CASES = [
    Case("first", "today", "embedded", "forward"),
    Case("today", "first", "embedded", "forward"),
    Case("first", "today", "mosquitto", "bridge"),
    Case("today", "first", "mosquitto", "bridge"),
]


@pytest.fixture(scope="module")
def versions() -> dict[str, Version]:
    return {"first": first_version(), "today": TODAY}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.edge}-{case.cloud}-{case.brokers}")
def test_faces_flow_through_an_outage_and_the_books_close(
    versions: dict[str, Version], tmp_path: Path, portrait: Path, case: Case
) -> None:
    with pair(
        tmp_path, edge=versions[case.edge], cloud=versions[case.cloud], brokers=case.brokers, link=case.link,
        cameras={"gate": portrait},
    ) as both:  # fmt: skip
        wanted = {"home/door": 80}
        if case.brokers == "embedded":
            both.capture()
            wanted["home/gate"] = 1
        feeder = both.feed(80, 60)
        time.sleep(0.7)
        for name in ("cloud-broker", "store"):
            both[name].kill()
        time.sleep(0.3)
        for name in ("cloud-broker", "store"):
            both[name].restart()
        both.finished(feeder)
        settled(both, wanted, versions)
        eventually(lambda: told(both) == wanted)


def test_an_edge_is_upgraded_in_place_and_goes_back(versions: dict[str, Version], tmp_path: Path) -> None:
    """Each version takes over what the other left waiting, ended by `kill -9`; and the books go on."""
    first, today = versions["first"], versions["today"]
    with pair(tmp_path, edge=first, cloud=today, brokers="mosquitto") as both:
        both["store"].kill()
        for left, version in enumerate((first, today, first), 1):
            feeder = both.feed(20, 200, version)
            eventually(partial(waits, both, 20 * left))
            feeder.kill()
        begun = owners(both)
        assert len(begun) == 1, "the books of one outbox go on"
        both["store"].restart()
        both.finished(both.feed(5, 50, today))
        settled(both, {"home/door": 65}, versions)
        assert owners(both) == begun


def test_an_older_machines_settings_are_read(versions: dict[str, Version], tmp_path: Path) -> None:
    """What `init` of the first version wrote is good for today's program, as it is."""
    for side in ("edge", "cloud"):
        path = tmp_path / f"{side}.toml"
        assert versions["first"].run("-m", "facerelay", "init", side, str(path)).returncode == 0
        settings.load(path, environ={})


def test_held_and_signed_receipts_serve_the_first_versions_edge(
    versions: dict[str, Version], tmp_path: Path
) -> None:
    """A cloud with shared intake, open shards and signed receipts: `held` frees the window, then `stored`."""
    trust = Authority(tmp_path / "authority").trust("main")
    signed = f'[trust]\nauthority = "{trust.authority}"\ncert = "{trust.cert}"\nkey = "{trust.key}"\n'
    with pair(
        tmp_path, edge=versions["first"], cloud=TODAY, brokers="mosquitto",
        sides={"cloud": SHARED + signed, "edge": "window_bytes = 40000\n"},
    ) as both:  # fmt: skip
        both.finished(both.feed(60, 120))
        books = both.books()["cameras"]["home/door"]
        assert (books["captured"], books["stored"]) == (60, 60)
        assert len(both.objects("shards")) >= 1
        assert not both.objects()


def settled(both: Pair, wanted: dict[str, int], versions: dict[str, Version]) -> None:
    """See that each face is stored, once, by an audit of each version."""
    for version in versions.values():
        books = both.books(version)
        found = {name: (a["captured"], a["stored"]) for name, a in books["cameras"].items()}
        assert found == {name: (n, n) for name, n in wanted.items()}
        assert books["lost"] == 0
    assert len(both.objects()) == sum(wanted.values())


def told(both: Pair) -> dict[str, int]:
    """Return how many faces are stored by the books that the edge told the cloud, where they close."""
    found: dict[str, int] = {}
    for books in both.reported():
        for name, a in books["cameras"].items():
            if a["captured"] == a["stored"] and not a["waiting"]:
                found[name] = a["stored"]
    return found


def waits(both: Pair, count: int) -> bool:
    return asked(both, "SELECT count(*) FROM faces WHERE state = 'waiting'") == [count]


def owners(both: Pair) -> list[object]:
    """Return the ids of the outboxes whose books the file keeps."""
    return asked(both, "SELECT DISTINCT outbox FROM counts")


def asked(both: Pair, query: str) -> list[object]:
    """Return what the outbox's file says; nothing where it is not there yet."""
    try:
        with closing(sqlite3.connect(f"file:{both.folder}/outbox.db?mode=ro", uri=True)) as db:
            return [value for (value,) in db.execute(query)]
    except sqlite3.OperationalError:
        return []
