from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerelay import messages, topics

MESSAGES = [messages.Receipts, messages.Hello, messages.Ledger, messages.LinkHealth]


@pytest.mark.parametrize("kind", MESSAGES)
@given(payload=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_a_message_or_that_one_error(
    kind: type[messages.Receipts | messages.Hello | messages.Ledger | messages.LinkHealth], payload: bytes
) -> None:
    with suppress(messages.WireError):
        kind.from_bytes(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"store":"s","receipts":[' + b"{}," * 80_000 + b"{}]}",
        b'{"store":"s","receipts":[' + b"0," * 120_000 + b"0]}",
        b"[" * 200_000,
    ],
)
def test_a_batch_made_to_be_slow_is_refused_at_its_first_fault(payload: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(messages.WireError):
        messages.Receipts.from_bytes(payload)
    assert time.process_time() - begin < 1, "a fault of each entry was collected"


@pytest.mark.parametrize(
    "cameras",
    [
        '{"a/b":{"latency_ms":{"p50":"NaN"}}}',
        '{"a/b":{"latency_ms":{"p99":1e300}}}',
        '{"a/b":{"captured":-1}}',
        '{"a/b":{"captured":' + "9" * 4000 + "}}",
        '{"a/b":{"reasons":{"A B":1}}}',
        '{"../etc/x":{}}',
        '{"a":{}}',
    ],
)
def test_a_ledger_that_could_not_be_is_refused(cameras: str) -> None:
    with pytest.raises(messages.WireError):
        messages.Ledger.from_bytes(b'{"outbox":"00000000","cameras":' + cameras.encode() + b"}")


def test_an_error_shows_a_name_from_outside_escaped_and_short() -> None:
    key = "\\u001b[31m" + "x" * 5000 + "\\n"
    with pytest.raises(messages.WireError) as caught:
        messages.Ledger.from_bytes(f'{{"outbox":"00000000","cameras":{{"{key}":{{}}}}}}'.encode())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_receipts_are_packed_into_messages_of_bounded_size() -> None:
    receipt = messages.Receipt(id="0" * 36, sha256="f" * 64, outcome="refused:" + "x" * 40)
    packed = messages.batches("s", [receipt] * 1201)
    assert [len(batch.receipts) for batch in packed] == [500, 500, 201]
    for batch in packed:
        assert messages.Receipts.from_bytes(batch.to_bytes()) == batch


@pytest.mark.parametrize(
    "more",
    [
        '"part":-1', '"part":1024', '"parts":0', '"parts":1e9', '"link":{}',
        '"link":{"time":"2026-11-21T10:00:00"}',
        '"link":{"time":"2026-11-21T10:00:00Z","oldest_s":"Infinity"}',
        '"link":{"time":"2026-11-21T10:00:00Z","silent_s":1e300}',
        '"link":{"time":"2026-11-21T10:00:00Z","resets":-1}',
    ],
)  # fmt: skip
def test_a_part_or_a_link_that_could_not_be_is_refused(more: str) -> None:
    with pytest.raises(messages.WireError):
        messages.Ledger.from_bytes(b'{"outbox":"00000000","cameras":{},' + more.encode() + b"}")


def test_how_a_link_does_travels_with_the_books_and_books_without_it_are_read() -> None:
    link = messages.LinkHealth(time=datetime(2026, 11, 21, tzinfo=UTC), oldest_s=3, broker_dropped=0)
    books = messages.Ledger(outbox="a" * 32, cameras={}, part=0, parts=4, link=link)
    assert messages.Ledger.from_bytes(books.to_bytes()) == books
    old = messages.Ledger.from_bytes(b'{"v":1,"outbox":"00000000","cameras":{},"lost":null}')
    assert (old.part, old.parts, old.link) == (0, 1, None)


def test_topics_that_belong_together_are_under_one_filter() -> None:
    for name in (topics.ledger("home", "a" * 32), topics.ledger("home", "a" * 32, 7)):
        assert name.startswith(topics.site_ledgers("home").removesuffix("#"))
        assert name.startswith(topics.LEDGERS.removesuffix("#"))
    assert topics.ledger("home", "ab", 0) == "ledger/home/ab"
    assert topics.reset("home") != topics.link("home")
