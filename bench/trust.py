"""What trust costs: signed receipts, sealed faces, and an outbox that overwrites what leaves it.

`python -m bench.trust [REPEATS]`: prints tables, in microseconds of CPU; medians of interleaved repeats.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyrage

from bench.faces import SITE, ready
from facerelay import face
from facerelay.cloud.voice import Voice
from facerelay.devices import Devices
from facerelay.edge import schema
from facerelay.edge.outbox import Outbox
from facerelay.edge.voices import Voices
from facerelay.fleet import Issuer, issuer
from facerelay.messages import Receipt
from facerelay.sealing import Sealer, Seals
from facerelay.sections import Trust
from facerelay.signing import Owner, Role, Signer

BATCHES = (1, 500)
ROUNDS = {1: 2_000, 500: 40}
FACES = 300
OUTBOX = 4_000
OUTBOX_BATCH = 50


def certified(folder: Path, authority: Issuer, role: Role, name: str) -> Trust:
    """Certify a machine's new key, and return where it lies."""
    key = issuer.new_key()
    cert = folder / "devices" / f"{role}.{name}.pem"
    cert.parent.mkdir(exist_ok=True)
    cert.write_bytes(issuer.pem(authority.certify(Owner(role, name), key.public_key())))
    cert.with_suffix(".key").write_bytes(issuer.key_pem(key))
    return Trust(authority=folder / "authority.pem", cert=cert, key=cert.with_suffix(".key"))


def cpu(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU of one round, in microseconds."""
    begin = time.process_time()
    for _ in range(rounds):
        work()
    return 1e6 * (time.process_time() - begin) / rounds


def receipts(store: Trust) -> dict[str, float]:
    """Measure a batch at the store, from receipts to its bytes, and at the edge, from these to receipts."""
    found: dict[str, float] = {}
    for name, trust in (("plain", Trust()), ("signed", store)):
        voice, voices = Voice("main", trust), Voices(trust.authority)
        voices.hello(*voice.hello("c" * 16))
        for most in BATCHES:
            batch = [Receipt(id=face.new_id(), sha256="0" * 64, outcome="stored") for _ in range(most)]
            topic, (payload,) = voice.receipts("home", "ab" * 16, batch)
            made = cpu(lambda v=voice, b=batch: v.receipts("home", "ab" * 16, b), ROUNDS[most])  # type: ignore[misc]
            read = cpu(lambda v=voices, t=topic, p=payload: v.receipts(t, p), ROUNDS[most])  # type: ignore[misc]
            found |= {f"store {most} {name}": made, f"edge {most} {name}": read}
    return found


def faces(folder: Path, site: Trust) -> dict[str, float]:
    """Measure a face: frozen and sealed at the edge, read and its seal checked at the store."""
    assert site.cert is not None
    assert site.key is not None
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    sealer = Sealer([recipient], Signer(site.cert, site.key), site=SITE)
    seals = Seals(Devices(folder / "authority.pem", folder / "devices"))
    plain = ready(FACES)
    sealed = [sealer.seal(one) for one in plain]
    limits = face.Limits()

    async def check(some: list[face.Frozen]) -> None:
        for one in some:
            await seals.check(face.parse(one.data, limits))

    asyncio.run(check(sealed[:1]))
    queue = iter(plain)
    return {
        "edge seals": cpu(lambda: sealer.seal(next(queue)), FACES),
        "store reads plain": cpu(lambda: [face.parse(one.data, limits) for one in plain], 1) / FACES,
        "store reads sealed": cpu(lambda: run(check(sealed)), 1) / FACES,
        "bytes plain": len(plain[0].data),
        "bytes sealed": len(sealed[0].data),
    }


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing, without the cost of a loop of its own."""
    with suppress(StopIteration):
        work.send(None)


def outbox(mode: str) -> dict[str, float]:
    """Measure faces put and answered, 50 to a commit, with SQLite overwriting what is deleted or not."""
    prepare = schema.prepare

    def prepared(db: Any, path: Path, **more: Any) -> None:  # noqa: ANN401 - as prepare has it
        prepare(db, path, **more)
        db.execute(f"PRAGMA secure_delete = {mode}")

    schema.prepare = prepared
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            Outbox(Path(folder) / "o.db", max_bytes=10**10, max_message=10**6) as box,
        ):
            some = ready(OUTBOX, outbox=box.id, run=box.run)
            begin, used = time.perf_counter(), time.process_time()
            for at in range(0, OUTBOX, OUTBOX_BATCH):
                batch = some[at : at + OUTBOX_BATCH]
                for done in [box.put(one, chosen=1.0) for one in batch]:
                    done.result()
                box.answer(
                    [Receipt(id=one.face.id, sha256=one.sha256, outcome="stored") for one in batch]
                ).result()
            rate = OUTBOX / (time.perf_counter() - begin)
            return {
                f"rate {mode}": rate,
                f"cpu {mode}": 1e6 * (time.process_time() - used) / OUTBOX,
            }
    finally:
        schema.prepare = prepare


def main(repeats: int) -> None:
    """Measure, and print."""
    runs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        authority = Issuer.create(folder)
        store = certified(folder, authority, "store", "main")
        site = certified(folder, authority, "site", SITE)
        for _ in range(repeats):
            found = receipts(store) | faces(folder, site)
            for mode in ("OFF", "FAST", "ON"):
                found |= outbox(mode)
            for name, value in found.items():
                runs.setdefault(name, []).append(value)
    known = {name: statistics.median(values) for name, values in runs.items()}
    lines = ["| receipts, CPU µs a batch | store, plain | signed | edge, plain | verified |", "|-|-|-|-|-|"]
    lines += [
        f"| batch of {n} | {known[f'store {n} plain']:.0f} | {known[f'store {n} signed']:.0f}"
        f" | {known[f'edge {n} plain']:.0f} | {known[f'edge {n} signed']:.0f} |"
        for n in BATCHES
    ]
    lines += ["", "| face of 9 kB | bytes | edge seals, CPU µs | store reads, CPU µs |", "|-|-|-|-|"]
    lines += [
        f"| plain | {known['bytes plain']:.0f} | | {known['store reads plain']:.0f} |",
        (
            f"| sealed, seal checked | {known['bytes sealed']:.0f} | {known['edge seals']:.0f}"
            f" | {known['store reads sealed']:.0f} |"
        ),
    ]
    lines += ["", "| outbox, put and answered | faces/s | CPU µs a face |", "|-|-|-|"]
    lines += [
        f"| secure_delete {mode} | {known[f'rate {mode}']:.0f} | {known[f'cpu {mode}']:.0f} |"
        for mode in ("OFF", "FAST", "ON")
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
