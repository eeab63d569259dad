"""Hostile bytes at every border, a few seconds of them; `make fuzz` goes on for as long as one likes."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing.mutate import Mutator
from fuzzing.targets import Target, targets

QUICK = {"configuration": 300, "thumbnail": 300, "http": 400, "mqtt": 800}
ROUNDS = 1_500

# What the libraries say of odd metadata and odd serial numbers.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\."),
    pytest.mark.filterwarnings("ignore:Parsed a serial number"),
]


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", targets())
def test_mutations_of_what_is_valid_are_read_or_refused(name: str) -> None:
    target = targets()[name]
    mutator = Mutator(random.SystemRandom().randrange(2**32), target.seeds)
    for seed in target.seeds:
        target.run(seed)
    for _ in range(QUICK.get(name, ROUNDS)):
        data = mutator.next()
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"{name}: {data.hex()}")
            raise


@pytest.mark.parametrize("name", targets())
def test_any_bytes_at_all_are_read_or_refused(name: str) -> None:
    target = targets()[name]

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode), _spliced(target)))
    def run(data: bytes) -> None:
        target.run(data)

    run()


def _spliced(target: Target) -> st.SearchStrategy[bytes]:
    """Something in the middle of what is valid."""
    return st.builds(
        lambda seed, middle, at, gone: seed[:at] + middle + seed[at + gone :],
        st.sampled_from(target.seeds), st.binary(max_size=20), st.integers(0, 2_000), st.integers(0, 50),
    )  # fmt: skip
