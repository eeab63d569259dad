from __future__ import annotations

import asyncio
import logging
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Make, lacking
from facerelay import config, face
from facerelay.cloud import quarantine
from facerelay.cloud.bucket import open_bucket
from fuzzing.broker import through_a_broker
from fuzzing.million import Found, decoder, store
from servers import MOSQUITTO, mosquitto
from test_store import serving

MESSAGES = 20_000
GROWTH_KB = 20_000
"""Of a run that would grow by 1 kB a message; the full one is flat."""


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory, where there is such: a million faces are not for a disk."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108 - memory, and the folder is our own
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="facerelay-hostile-") as made:
        yield Path(made)


@pytest.fixture
def seed() -> int:
    return random.SystemRandom().randrange(2**32)


def judge(found: Found, seed: int, *, count: int = MESSAGES) -> None:
    said = f"seed {seed}: {vars(found)}"
    assert found.messages == count, said
    assert found.well, said
    assert found.grown_kb < GROWTH_KB, said


def test_the_decoder_reads_or_refuses_whatever_comes(seed: int) -> None:
    found = decoder(MESSAGES, seed)
    judge(found, seed)
    assert {"jpg", "png", "webp", "truncated", "malformed", "not-ours", "pickle"} <= found.outcomes.keys()


def test_the_store_answers_or_sets_aside_whatever_comes(memory: Path, seed: int) -> None:
    found = asyncio.run(store(MESSAGES, seed, memory))
    judge(found, seed, count=MESSAGES)
    assert {"stored", "no owner", "refused:truncated"} <= found.outcomes.keys()


def test_a_real_store_behind_a_real_broker_takes_the_next_good_face(memory: Path, seed: int) -> None:
    if MOSQUITTO is None:
        lacking("Mosquitto is not installed")
    found = asyncio.run(through_a_broker(3_000, seed, memory))
    judge(found, seed, count=3_000)
    assert found.outcomes["stored"]


def test_what_trips_the_store_is_set_aside_and_the_next_good_face_passes(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if MOSQUITTO is None:
        lacking("Mosquitto is not installed")
    good, tripping = make_face(), b"what trips it"
    real = face.parse

    def parse(data: bytes, limits: face.Limits) -> face.Frozen:
        if data == tripping:
            raise KeyError(data)
        return real(data, limits)

    monkeypatch.setattr(face, "parse", parse)

    async def scenario() -> None:
        where = config.Bucket(url=f"file://{tmp_path}")
        with mosquitto() as broker:
            async with serving(broker, where) as edge:
                for _ in range(5):
                    await edge.send(tripping)
                await edge.send(good.data)
                (answer,) = await edge.answered(good)
        assert answer.outcome == "stored"
        kept = [one async for one in quarantine.notes(open_bucket(where))]
        assert [(one.reason, one.size) for one in kept] == [("fault", len(tripping))]

    asyncio.run(scenario())
