"""Whose word counts at the edge: stores that the site authority vouches for, once there is one."""

from __future__ import annotations

import base64
import binascii
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from facerelay import topics
from facerelay.messages import Hello, Receipts, WireError

if TYPE_CHECKING:
    from facerelay.signing import PublicKey

Why = Literal["not-signed", "bad-signature", "not-admitted", "no-hello"]
REASONS: Final[tuple[Why, ...]] = get_args(Why)
"""Why a word is ignored: no signature; not by the key that it names, or of another's name; a certificate that
is no store's of the authority; signed by a key whose store never said hello."""

_MOST_KEYS: Final = 64
_MOST_KEPT: Final = 64
_MOST_KEPT_BYTES: Final = 1_048_576
_KEPT_S: Final = 60.0


class IgnoredError(ValueError):
    """A word that does not count; the message says whose it claims to be, and why.

    Attributes:
        reason: one of `REASONS`.
    """

    def __init__(self, reason: Why, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Kept:
    """A batch that came before the hello of its store."""

    key: str
    topic: str
    payload: bytes
    until: float


class Voices:
    """Reads what stores say; with an authority, what one of its stores has signed alone.

    A store's hello brings its certificate. Receipts that come before it wait for it, for a minute: they are
    not lost, and nothing is sent again for them. Of a store that was given a new key both count.

    Args:
        authority: PEM file of the site authority's certificate; None believes everybody.
        clock: monotonic seconds.

    Attributes:
        ignored: what was ignored since the start, by reason.

    Raises:
        KeyFileError: the file cannot be read.
    """

    def __init__(self, authority: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._judge = _Judge(authority) if authority else None
        self._clock = clock
        self._kept: deque[_Kept] = deque()
        self.ignored: Counter[str] = Counter()

    @property
    def strange(self) -> bool:
        """Whether signed receipts wait for the hello of their store."""
        self._forget()
        return bool(self._kept)

    def hello(self, topic: str, payload: bytes) -> Hello:
        """Read a hello, and know its store from now on.

        Raises:
            IgnoredError: it does not count.
            WireError: it is none.
        """
        if self._judge is None:
            return Hello.from_bytes(payload)
        with self._counting():
            return self._judge.hello(topic, payload)

    def receipts(self, topic: str, payload: bytes) -> Receipts | None:
        """Read a batch; None where it waits for the hello of its store, and comes with `released`.

        Raises:
            IgnoredError: it does not count.
            WireError: it is none.
        """
        if self._judge is None:
            return Receipts.from_bytes(payload)
        with self._counting():
            batch = self._judge.receipts(topic, payload)
        if isinstance(batch, str):
            self._keep(_Kept(batch, topic, payload, self._clock() + _KEPT_S))
            return None
        return batch

    def released(self) -> list[tuple[str, bytes]]:
        """Return topics and payloads of receipts whose store is known by now."""
        if self._judge is None or not self._kept:
            return []
        known = [kept for kept in self._kept if self._judge.knows(kept.key)]
        self._kept = deque(kept for kept in self._kept if kept not in known)
        return [(kept.topic, kept.payload) for kept in known]

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except IgnoredError as error:
            self.ignored[error.reason] += 1
            raise

    def _keep(self, kept: _Kept) -> None:
        self._kept.append(kept)
        while len(self._kept) > _MOST_KEPT or sum(len(k.payload) for k in self._kept) > _MOST_KEPT_BYTES:
            self._drop()
        self._forget()

    def _forget(self) -> None:
        while self._kept and self._kept[0].until < self._clock():
            self._drop()

    def _drop(self) -> None:
        """Let the oldest go; its faces become overdue, and are answered again."""
        self._kept.popleft()
        self.ignored["no-hello"] += 1


class _Judge:
    """Knows the authority, and the keys of the stores that were heard: the newest ones."""

    def __init__(self, authority: Path) -> None:
        from facerelay import signing  # noqa: PLC0415 - an edge that was not enrolled runs without

        self._signing = signing
        self._authority = signing.Authority(authority)
        self._keys: dict[str, PublicKey] = {}

    def knows(self, key: str) -> bool:
        return key in self._keys

    def hello(self, topic: str, payload: bytes) -> Hello:
        body, key_id, signature = self._unsigned(payload, "hello")
        hello = Hello.from_bytes(body)
        key = self._admit(hello)
        if topic != topics.hello(hello.store) or key_id != key.id:
            raise IgnoredError("bad-signature", f"a hello of store {hello.store}, on another's topic or key")
        try:
            self._signing.verify_json(key, "hello", topic, body, signature)
        except self._signing.SignatureError as error:
            raise IgnoredError("bad-signature", f"a hello: {error}") from None
        self._keys.pop(key.id, None)
        self._keys[key.id] = key
        if len(self._keys) > _MOST_KEYS:
            del self._keys[next(iter(self._keys))]
        return hello

    def receipts(self, topic: str, payload: bytes) -> Receipts | str:
        """Return a batch that counts, or the id of the key that is not known yet."""
        body, key_id, signature = self._unsigned(payload, "receipts")
        key = self._keys.get(key_id)
        if key is None:
            return key_id
        try:
            self._signing.verify_json(key, "receipts", topic, body, signature)
        except self._signing.SignatureError as error:
            raise IgnoredError("bad-signature", f"receipts: {error}") from None
        batch = Receipts.from_bytes(body)
        if batch.store != key.owner.name:
            said = f"receipts of store {batch.store}, signed by {key.owner}"
            raise IgnoredError("bad-signature", said)
        return batch

    def _unsigned(self, payload: bytes, what: Literal["hello", "receipts"]) -> tuple[bytes, str, bytes]:
        kind = Hello if what == "hello" else Receipts
        if len(payload) > kind.most_bytes:
            raise WireError(f"{len(payload)} bytes are more than the limit of {kind.most_bytes}")
        try:
            return self._signing.unsigned(payload)
        except self._signing.SignatureError:
            store = kind.from_bytes(payload).store
            form = "a hello of store {} that is" if kind is Hello else "receipts of store {} that are"
            said = f"{form.format(store)} not signed: set trust.cert and trust.key there"
            raise IgnoredError("not-signed", said) from None

    def _admit(self, hello: Hello) -> PublicKey:
        said = f"a hello of store {hello.store}"
        if hello.certificate is None:
            raise IgnoredError("not-admitted", f"{said}, without a certificate")
        try:
            data = base64.b64decode(hello.certificate, validate=True)
            key = self._authority.admit(self._signing.der_certificate(data))
        except (binascii.Error, self._signing.SignatureError) as error:
            raise IgnoredError("not-admitted", f"{said}: {error}") from None
        if (key.owner.role, key.owner.name) != ("store", hello.store):
            raise IgnoredError("not-admitted", f"{said}, with the certificate of {key.owner}")
        return key
