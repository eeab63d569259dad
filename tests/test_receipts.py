"""Receipts on their way down: what is said twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from facerelay.cloud.receipts import Outgoing
from facerelay.cloud.voice import Voice
from facerelay.face import new_id
from facerelay.messages import Receipt, Receipts
from facerelay.mqtt import NotConnectedError
from facerelay.sections import Trust
from waiting import until


@pytest.mark.parametrize("cut", [False, True])
def test_the_last_receipt_of_a_held_face_is_said_again_and_no_other(cut: bool) -> None:  # noqa: FBT001 - a parameter
    now, tries, said = 1000.0, 0, list[str]()
    down = cut

    async def publish(topic: str, payload: bytes) -> None:
        nonlocal tries
        assert topic == f"receipts/home/{'a' * 32}"
        tries += 1
        if down:
            raise NotConnectedError("not now")
        said.extend(one.id for one in Receipts.from_bytes(payload).receipts)

    async def check() -> None:
        nonlocal now, down
        outgoing = Outgoing(publish, voice=Voice("store", Trust()), clock=lambda: now)
        plain, held = (Receipt(id=new_id(), sha256="0" * 64, outcome="stored") for _ in range(2))
        task = asyncio.create_task(outgoing.run())
        try:
            outgoing.add("home", "a" * 32, plain)
            outgoing.add("home", "a" * 32, held, twice=True)
            first = [] if cut else [plain.id, held.id]
            await until(lambda: tries == 1)
            assert said == first
            down = False
            now += 21
            await until(lambda: len(said) > len(first))
            now += 21
            await asyncio.sleep(1.2)
            assert said == [*first, held.id]
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(check())
