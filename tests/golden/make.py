"""Write what this version says and keeps: run once for a version, then never again for it.

`python tests/golden/make.py tests/golden/v1`. What lies there is what every later version must read. What was
added to a version later is made by itself: `python tests/golden/make.py tests/golden/v1 signed`, or `sealed`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from facerelay import face, messages, sealing
from facerelay.cloud.voice import Voice
from facerelay.edge.outbox import Outbox
from facerelay.erasures import Erasure, Erasures
from facerelay.fleet import Issuer, Roll, issuer
from facerelay.sections import Trust
from facerelay.signing import Owner, Signer

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
                receipts.append(messages.Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome=outcome))
        outbox.answer(receipts).result()
        outbox.count("golden", "door", frames=100, detections=50).result()
        (folder / "ledger.json").write_bytes(outbox.ledger().result().to_bytes())
    (folder / "outbox.db.lock").unlink()
    (folder / "receipts.json").write_bytes(
        messages.Receipts(store="store", receipts=tuple(receipts)).to_bytes()
    )
    (folder / "hello.json").write_bytes(messages.Hello(store="store", start="c" * 16).to_bytes())


def signed(folder: Path) -> None:
    """Write what an enrolled store says: its hello, receipts, and an erasure; and who vouches for it."""
    with tempfile.TemporaryDirectory() as made:
        trust = Path(made)
        authority, key = Issuer.create(trust), issuer.new_key()
        (trust / "store.key").write_bytes(issuer.key_pem(key))
        certificate = authority.certify(Owner("store", "main"), key.public_key())
        (trust / "store.pem").write_bytes(issuer.pem(certificate))
        section = Trust(authority=trust / "authority.pem", cert=trust / "store.pem", key=trust / "store.key")
        voice = Voice("main", section)
        shutil.copy(trust / "authority.pem", folder / "authority.pem")
    unsigned = messages.Receipts.from_bytes((folder / "receipts.json").read_bytes())
    _, (receipts,) = voice.receipts("golden", "a" * 32, list(unsigned.receipts))
    (folder / "receipts-signed.json").write_bytes(receipts)
    (folder / "hello-signed.json").write_bytes(voice.hello("c" * 16)[1])
    rules = (
        Erasure(ids=("019a5b00-0000-7000-8000-000000000001",)),
        Erasure(site="golden", camera="door", start=datetime(2026, 11, 21, tzinfo=UTC),
                end=datetime(2026, 11, 22, tzinfo=UTC)),
    )  # fmt: skip
    erasures = Erasures(since="", until="d" * 16, rules=rules)
    (folder / "erasures-signed.json").write_bytes(voice.erasures("golden", "a" * 32, erasures)[1])


def closed(folder: Path) -> None:
    """Write a sealed face, who vouches for its seal, and the key that opens it."""
    (folder / "sealed" / "devices").mkdir(parents=True)
    public = sealing.make_identity(folder / "sealed" / "reader.key")
    with tempfile.TemporaryDirectory() as made:
        authority, key = Issuer.create(Path(made)), issuer.new_key()
        shutil.copy(Path(made) / "authority.pem", folder / "sealed" / "authority.pem")
        certificate = authority.certify(Owner("site", "golden"), key.public_key())
        path = Roll(folder / "sealed" / "devices").add(certificate)
        (Path(made) / "site.key").write_bytes(issuer.key_pem(key))
        signer = Signer(path, Path(made) / "site.key")
    frozen = face.freeze(known(7, "a" * 32, "b" * 8), picture("jpg"))
    made_of = sealing.Sealer([public], signer, site="golden").seal(frozen)
    (folder / "sealed" / "face.png").write_bytes(made_of.data)
    (folder / "sealed" / "inside.jpg").write_bytes(frozen.data)


if __name__ == "__main__":
    {"": main, "signed": signed, "sealed": closed}["".join(sys.argv[2:])](Path(sys.argv[1]))
