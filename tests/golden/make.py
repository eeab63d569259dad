"""Write what this version says and keeps: run once for a version, then never again for it.

`python tests/golden/make.py tests/golden/v1`. What lies there is what every later version must read.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from facerelay import face, topics
from facerelay.edge.outbox import Outbox

OUTCOMES = ("waiting", "stored", "refused:truncated", "erased", "expired", "held")


def picture(extension: str) -> bytes:
    """Return a small picture."""
    image = np.random.default_rng(7).integers(0, 255, (40, 32, 3), dtype=np.uint8)
    return cv2.imencode(f".{extension}", image)[1].tobytes()


def known(number: int, outbox: str, run: str) -> face.Face:
    """Return what is known of face `number`."""
    return face.Face(
        id=f"019a5b00-0000-7000-8000-{number:012d}", outbox=outbox, run=run, seq=number, site="golden",
        camera="door", time=datetime(2026, 11, 21, 10, 11, 12, 131415, tzinfo=UTC), box=(10, 20, 30, 40),
        frame=(1280, 720), score=0.9123, quality=0.4567, track=3, parts={"sharpness": 0.5, "size": 0.25},
        clock="synchronised",
    )  # fmt: skip


def main(folder: Path) -> None:
    """Write pictures, messages, and an outbox with a face of each outcome."""
    folder.mkdir(parents=True)
    expected = {}
    for number, extension in enumerate(("jpg", "png", "webp"), 1):
        frozen = face.freeze(known(number, "a" * 32, "b" * 8), picture(extension))
        (folder / f"face.{extension}").write_bytes(frozen.data)
        expected[f"face.{extension}"] = {
            **face.describe(frozen.face),
            "key": frozen.key,
            "sha256": frozen.sha256,
        }
    (folder / "faces.json").write_text(json.dumps(expected, indent=1))
    with Outbox(folder / "outbox.db", max_bytes=10**9, max_message=10**6) as outbox:
        receipts = []
        for number, outcome in enumerate(OUTCOMES, 1):
            frozen = face.freeze(known(number, outbox.id, outbox.run), picture("jpg"))
            outbox.put(frozen, chosen=1_795_000_000.0).result()
            if outcome != "waiting":
                receipts.append(topics.Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome=outcome))
        outbox.answer(receipts).result()
        outbox.count("golden", "door", frames=100, detections=50).result()
        (folder / "ledger.json").write_bytes(outbox.ledger().result().to_bytes())
    (folder / "outbox.db.lock").unlink()
    (folder / "receipts.json").write_bytes(
        topics.Receipts(store="store", receipts=tuple(receipts)).to_bytes()
    )
    (folder / "hello.json").write_bytes(topics.Hello(store="store", start="c" * 16).to_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
