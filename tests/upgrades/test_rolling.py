"""Restarts one after the other, under faces without a pause: nothing missing, nothing twice."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Final

from versions import TODAY, Pair, Version, first_version, pair

from chains import eventually
from facerelay.cloud import keys

RATE: Final = 100
PAUSE_S: Final = 60.0
"""Ten times and more what docs/upgrades.md says of one part's restart: this machine may have other work."""


def test_all_of_todays_parts_are_restarted_under_a_hundred_faces_a_second(tmp_path: Path) -> None:
    shared = '[store]\nintake = "shared"\nname = "'
    with pair(
        tmp_path, edge=TODAY, cloud=TODAY, brokers="mosquitto", sides={"cloud": f'{shared}one"\n'}
    ) as both:
        second(both, f'{shared}two"\n', TODAY)
        feeder = both.feed(500, RATE)
        eventually(lambda: len(both.objects()) > 50)
        for name in ("store", "second", "forward", "cloud-broker", "edge-broker"):
            time.sleep(0.4)
            both[name].end()
            both[name].restart()
        both.finished(feeder)
        whole(both, 500)


def test_two_stores_of_the_first_version_become_todays_one_after_the_other(tmp_path: Path) -> None:
    """Each store gets each face meanwhile: the first version knows no sharing."""
    first = first_version()
    with pair(tmp_path, edge=first, cloud=first, brokers="mosquitto", sides={"cloud": named("one")}) as both:
        second(both, named("two"), first)
        feeder = both.feed(300, RATE)
        eventually(lambda: len(both.objects()) > 50)
        both["store"].end()
        both.role("store", "cloud", TODAY)
        eventually(lambda: "connected" in both["store"].text())
        time.sleep(0.4)
        both["second"].end()
        second(both, named("two"), TODAY)
        both.finished(feeder)
        whole(both, 300)


def named(name: str) -> str:
    return f'[store]\nname = "{name}"\n'


def second(both: Pair, store: str, version: Version) -> None:
    """Run another store beside the first one, at the same broker and bucket."""
    settings = (both.folder / "cloud.toml").read_text().partition("[store]")[0]
    path = both.folder / "second.toml"
    path.write_text(settings + store)
    both.start("second", version, "store", "-c", str(path))


def whole(both: Pair, count: int) -> None:
    """See that the books close, that each face lies there once, and that no pause was long."""
    books = both.books()
    account = books["cameras"]["home/door"]
    assert (account["captured"], account["stored"], books["lost"]) == (count, count, 0)
    ids = Counter(facts.id for path in both.objects() if (facts := keys.parse(_key(both, path))))
    assert (len(ids), ids.total()) == (count, count)
    with closing(sqlite3.connect(f"file:{both.folder}/outbox.db?mode=ro", uri=True)) as db:
        times = [at for (at,) in db.execute("SELECT answered FROM faces ORDER BY answered")]
    assert max(after - before for before, after in itertools.pairwise(times)) < PAUSE_S


def _key(both: Pair, path: Path) -> str:
    return str(path.relative_to(both.folder / "bucket"))
