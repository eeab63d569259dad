"""What a store says on the wire, signed where it was enrolled."""

from __future__ import annotations

import base64
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final

from facerelay import messages, topics
from facerelay.erasures import Erasures
from facerelay.face import SCHEMA
from facerelay.messages import Hello, Receipt, Receipts
from facerelay.sections import Trust

if TYPE_CHECKING:
    from facerelay.signing import Signer

_BATCH: Final = 500


class Voice:
    """Makes a store's messages.

    Args:
        store: its name.
        trust: its certificate and key; unset, it signs nothing.
        instance: tells processes of one name apart.

    Attributes:
        run: of this process; what it holds is known by that, and gone with it.
        lost: other processes that fell with what they held, the latest ones, for the hellos from now on.

    Raises:
        KeyFileError: they cannot be used, or are another's.
    """

    def __init__(self, store: str, trust: Trust, *, instance: str | None = None) -> None:
        self._store = store
        self._instance = instance
        self.run: Final = secrets.token_hex(8)
        self.lost: deque[str] = deque(maxlen=messages.MOST_LOST)
        self._signer = _signer(store, trust)

    def hello(self, start: str) -> tuple[str, bytes]:
        """Return topic and payload of a hello; `start` is new at each connection."""
        certificate = None
        if self._signer is not None:
            from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - for enrolled stores alone

            der = self._signer.certificate.public_bytes(Encoding.DER)
            certificate = base64.b64encode(der).decode()
        hello = Hello(
            store=self._store, start=start, certificate=certificate, instance=self._instance, run=self.run,
            lost=tuple(self.lost), reads=SCHEMA,
        )  # fmt: skip
        topic, payload = topics.hello(self._store), hello.to_bytes()
        return topic, self._signer.sign_json("hello", topic, payload) if self._signer else payload

    def receipts(self, site: str, outbox: str, receipts: list[Receipt]) -> tuple[str, list[bytes]]:
        """Return the topic of an outbox, and the payloads of its receipts."""
        topic = topics.receipts(site, outbox)
        batches = messages.batches(self._store, receipts, most=_BATCH)
        return topic, [self._signed(topic, self._held(batch)) for batch in batches]

    def erasures(self, site: str, outbox: str, erasures: Erasures) -> tuple[str, bytes]:
        """Return topic and payload of what an outbox is to delete."""
        topic = topics.receipts(site, outbox)
        return topic, self._signed(topic, Receipts(store=self._store, receipts=(), erasures=erasures))

    def _held(self, batch: Receipts) -> Receipts:
        """Say who holds what is held."""
        if not any(one.outcome == "held" for one in batch.receipts):
            return batch
        return batch.model_copy(update={"instance": self._instance, "run": self.run})

    def _signed(self, topic: str, batch: Receipts) -> bytes:
        payload = batch.to_bytes()
        return self._signer.sign_json("receipts", topic, payload) if self._signer else payload


def _signer(store: str, trust: Trust) -> Signer | None:
    if trust.cert is None or trust.key is None:
        return None
    from facerelay.signing import KeyFileError, Signer  # noqa: PLC0415 - a store that was not enrolled runs without

    signer = Signer(trust.cert, trust.key)
    owner = signer.public.owner
    if (owner.role, owner.name) != ("store", store):
        raise KeyFileError(
            f"{trust.cert} is of {owner}, and store.name = {store!r}: edges would not believe it"
        )
    return signer
