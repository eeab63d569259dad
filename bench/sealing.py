"""What sealing costs: bytes and microseconds a face, by size of the picture and by padding.

`python -m bench.sealing [FILE…]`: FILE are pictures of faces as cameras sent them (`facerelay get`); without,
noise of usual sizes. One line of JSON a padding: bytes of a face open and sealed, and microseconds to seal,
to check and to open one.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from facerelay import face, sealing
from facerelay.devices import Devices
from facerelay.face import Frozen, Limits
from facerelay.fleet import Issuer, Roll, issuer, names
from facerelay.sealed import split
from facerelay.signing import Signer

_PADS: Final = (1, 256, 512, 1024)
_SIDES: Final = (96, 128, 150, 176, 208)
_EACH: Final = 40


def _pictures(paths: Sequence[str]) -> list[bytes]:
    if paths:
        return [Path(path).read_bytes() for path in paths]
    made = []
    for number in range(_EACH):
        side = _SIDES[number % len(_SIDES)]
        noise = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
        image = cv2.GaussianBlur(noise, (0, 0), 2.2)
        made.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return made


def _frozen(data: bytes, number: int) -> Frozen:
    try:
        return face.parse(data, Limits())
    except face.FaceError:
        known = face.Face(
            id=face.new_id(), outbox="a" * 32, run="b" * 8, seq=number + 1, site="home", camera="door",
            time=datetime.now(UTC), box=(512, 300, 96, 128), frame=(1280, 720), score=0.91, quality=0.7,
            parts={"size": 0.8, "sharpness": 0.6, "frontality": 0.9, "exposure": 0.95, "edge": 1.0},
            track=number, clock="synchronised",
        )  # fmt: skip
        return face.freeze(known, data)


def _microseconds(work: Callable[[Frozen], object], on: Sequence[Frozen]) -> float:
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        for each in on:
            work(each)
        times.append((time.perf_counter() - begin) / len(on) * 1e6)
    return round(min(times), 1)


def _keys(folder: Path, site: str) -> tuple[Signer, Devices, str]:
    """Return a machine's key, the folder where it is enrolled, and a reader's public key."""
    authority = Issuer.create(folder)
    key = issuer.new_key()
    certificate = authority.certify(names.owner("site", site), key.public_key())
    (folder / "devices").mkdir()
    path = Roll(folder / "devices").add(certificate)
    (folder / "site.key").write_bytes(issuer.key_pem(key))
    signer = Signer(path, folder / "site.key")
    return (
        signer,
        Devices(folder / "authority.pem", folder / "devices"),
        sealing.make_identity(folder / "owner"),
    )


async def _measure(faces: Sequence[Frozen], folder: Path) -> None:
    signer, devices, public = _keys(folder, faces[0].face.site)
    sealer = sealing.Sealer([public], signer, site=faces[0].face.site)
    opener, seals = sealing.Opener(folder / "owner"), sealing.Seals(devices)
    plain = statistics.mean(len(each.data) for each in faces)
    for pad in _PADS:
        sealing.PAD = pad  # type: ignore[misc]
        closed = [face.parse(sealer.seal(each).data, Limits()) for each in faces]
        begin = time.perf_counter()
        for each in closed:
            await seals.check(each)
        checked = (time.perf_counter() - begin) / len(closed) * 1e6
        size = statistics.mean(len(each.data) for each in closed)
        print(json.dumps({
            "faces": len(faces), "pad": pad, "open_bytes": round(plain), "sealed_bytes": round(size),
            "more": round(size / plain - 1, 3),
            "seal_us": _microseconds(sealer.seal, faces), "check_us": round(checked, 1),
            "open_us": _microseconds(lambda one: opener.open(one.face, split(one.data), Limits()), closed),
        }))  # fmt: skip


def main() -> None:
    """Measure, and print."""
    faces = [_frozen(data, number) for number, data in enumerate(_pictures(sys.argv[1:]))]
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(faces, Path(folder)))


if __name__ == "__main__":
    main()
