"""Proofs of erasure: a line each that names no person, in a chain that shows what is missing or changed.

A line is an object of its own, created and never written again, with the sha256 of the line before it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from facerelay.cloud import keys, quarantine
from facerelay.cloud.contract import Bucket, BucketError, MissingError, is_key
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shards.sweep import Sweep
from facerelay.cloud.tombstones import Tombstones
from facerelay.steps import Watch, unwatched
from facerelay.topics import shown

ROOT: Final = "proofs"
_FIRST: Final = "0" * 64
_MAX_LINE: Final = 100_000
_MOST_NAMED: Final = 500
_TRIES: Final = 100
_GAP: Final = 1_000_000
"""A line so far from the others was put there by somebody else: no line goes on from it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proofs of a bucket come to.

    Attributes:
        lines: how many there are.
        signed: how many of them have a signature.
        last: the sha256 of the last one: whoever noted an earlier one finds it in the chain.
        faults: what is wrong with them, a sentence each.
        alive: objects and faces in shards that lie there though a tombstone covers them.
    """

    lines: int
    signed: int
    last: str
    faults: Sequence[str]
    alive: int

    @property
    def well(self) -> bool:
        """Whether the chain is whole and nothing that was erased lies there."""
        return not self.faults and not self.alive


def asked(*, ids: Iterable[str] = (), **rule: object) -> dict[str, object]:
    """Return what was asked, as a line says it: ids are counted and hashed, for each is somebody's."""
    named = sorted(ids)
    said: dict[str, object] = {name: value for name, value in rule.items() if value is not None}
    if named:
        said |= {"ids": len(named), "ids_sha256": digest(named)}
    return said


def digest(names: Iterable[str]) -> str:
    """Return the sha256 over sorted names, one a line, in hex digits."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def places(deleted: Iterable[str]) -> dict[str, int]:
    """Count keys by the place where they lay: faces, shards (tars that went), quarantine, foreign."""
    return dict(sorted(Counter(key.partition("/")[0] for key in deleted).items()))


Sign = Callable[[str, bytes], bytes]
"""Signs a line for its key in the bucket, and returns the signed line."""

Check = Callable[[str, bytes], Awaitable[str]]
"""Returns what is wrong with a line's signature; empty where it is right, or there is none."""


async def write(
    bucket: Bucket,
    *,
    asked: Mapping[str, object],
    tombstones: Sequence[str],
    deleted: Sequence[str],
    swept: int,
    sign: Sign | None = None,
) -> str:
    """Write a line behind the last one, and return it, as JSON.

    Args:
        bucket: where.
        asked: the rule, as `asked` makes it.
        tombstones: their keys.
        deleted: the keys of all objects that went, and of the faces that went from shards.
        swept: how many of them only the second sweep found.
        sign: signs the line; without it the chain alone shows changes.

    Raises:
        BucketError: it is not written; what was deleted is gone all the same. Asking again is safe.
    """
    for _ in range(_TRIES):
        number, previous = await _last(bucket)
        line = {
            "v": 1, "number": number + 1, "time": datetime.now(UTC).isoformat(), "asked": dict(asked),
            "tombstones": list(tombstones[:_MOST_NAMED]), "tombstone_count": len(tombstones),
            "deleted": len(deleted), "places": places(deleted),
            "second_sweep": swept, "sha256": digest(deleted), "previous": previous,
        }  # fmt: skip
        key, data = _key(number + 1), json.dumps(line).encode()
        data = sign(key, data) if sign else data
        if await bucket.put_new(key, data, content_type="application/json"):
            return data.decode()
        if await bucket.get(key, max_bytes=_MAX_LINE) == data:  # ours: only its answer was lost
            return data.decode()
    raise BucketError(ROOT, "others write proofs all the time: ask again")


async def verify(bucket: Bucket, *, check: Check | None = None, watch: Watch = unwatched) -> Verdict:
    """Go through the chain, and look whether anything lies there that was erased.

    Args:
        bucket: where.
        check: looks at the signatures of lines that have one; without it they are not looked at.
        watch: is told how far it is.

    Raises:
        BucketError: the bucket cannot be read.
    """
    there = await _keys(bucket)
    faults: list[str] = []
    previous, number, signed = _FIRST, 0, 0
    for at, key in enumerate(there):
        watch("reading proofs", at, len(there))
        data = await _data(bucket, key)
        line = _read(data)
        number += 1
        if key != _key(number):
            faults.append(f"{_key(number)} is missing")
            number = _number(key)
        elif line is None:
            faults.append(f"{key} is not a proof")
        elif line.get("previous") != previous:
            faults.append(f"{key} does not follow the one before it: one of them was changed")
        has = line is not None and "signature" in line
        if signed and not has:
            faults.append(f"{key} is not signed, and one before it is")
        if has and check is not None and (wrong := await check(key, data)):
            faults.append(f"{key}: {wrong}")
        signed += has
        if line is not None:
            faults += [
                f"{each} is missing: what it covers may come back" for each in await _lost(bucket, line)
            ]
        previous = hashlib.sha256(data).hexdigest()
    return Verdict(len(there), signed, previous, faults, await _alive(bucket, watch))


async def _last(bucket: Bucket) -> tuple[int, str]:
    """Return the number of the last line, and its sha256."""
    there = await _keys(bucket)
    near = [key for key in there if _number(key) <= len(there) + _GAP]
    if not near:
        return 0, _FIRST
    return _number(near[-1]), hashlib.sha256(await _data(bucket, near[-1])).hexdigest()


async def _keys(bucket: Bucket) -> list[str]:
    """Return the keys of all lines, in the order of their numbers."""
    there = [entry.key async for entry in bucket.list(ROOT) if _is_key(entry.key)]
    return sorted(there, key=lambda key: (len(key), key))


async def _data(bucket: Bucket, key: str) -> bytes:
    """Return a line as it lies there; nothing of what is too large to be one."""
    try:
        return await bucket.get(key, max_bytes=_MAX_LINE)
    except BucketError as error:
        if error.fault != "too-large":
            raise
        return b""


def _key(number: int) -> str:
    return f"{ROOT}/{number:012d}.json"


def _number(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))


def _is_key(key: str) -> bool:
    name = key.removeprefix(f"{ROOT}/").removesuffix(".json")
    return name.isascii() and name.isdigit() and key == _key(int(name))


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("tombstones"), list) else None


async def _lost(bucket: Bucket, line: Mapping[str, Any]) -> list[str]:
    """Return the tombstones of a line that are not there any more."""
    return [
        shown(f"{key}")
        for key in line["tombstones"][:_MOST_NAMED]
        if not isinstance(key, str) or not is_key(key) or not await _is_there(bucket, key)
    ]


async def _is_there(bucket: Bucket, key: str) -> bool:
    try:
        await bucket.get(key, max_bytes=1_000_000)
    except MissingError:
        return False
    return True


async def _alive(bucket: Bucket, watch: Watch) -> int:
    """Count what lies there though it was erased."""
    tombstones = Tombstones(bucket)
    await tombstones.refresh()
    alive = looked = 0
    async for date in keys.dates(bucket):
        async for entry in bucket.list(date):
            watch("looking for what was erased", looked := looked + 1)
            face = keys.parse(entry.key)
            alive += bool(face and tombstones.covered(face.id, face.site, face.camera, face.time))

    def judge(row: Row) -> bool | None:
        return row.erased_by(tombstones) or None

    async for _, found in Sweep(bucket, watch=watch).find(lambda _: True, judge):
        alive += len(found)
    async for note in quarantine.notes(bucket):
        owner = note.face
        alive += bool(owner and tombstones.covered(owner.id, owner.site, owner.camera, owner.time))
    return alive
