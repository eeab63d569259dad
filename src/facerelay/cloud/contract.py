"""What a bucket promises, whatever it is made of: a folder, S3, GCS, Azure or memory."""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from facerelay.topics import shown

LONGEST_PUT_S: Final = 35.0
"""No request to a bucket runs longer, its own retries included."""

_SEGMENT: Final = r"[A-Za-z0-9][A-Za-z0-9._=-]{0,199}"
_KEY: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_MAX_KEY: Final = 800

Fault = Literal["unreachable", "denied", "no-bucket", "missing", "too-large", "refused", "setting"]


class BucketError(Exception):
    """The bucket did not do as asked; the message says what to do.

    Attributes:
        key: the object it was about; empty for the bucket as a whole.
        fault: what kind of failure.
    """

    def __init__(self, key: str, message: str, fault: Fault = "unreachable") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.fault = fault

    @property
    def passing(self) -> bool:
        """Whether it may work later, unchanged: not so for one object that the bucket does not want."""
        return self.fault in {"unreachable", "denied", "no-bucket", "missing"}


class MissingError(BucketError):
    """There is no object of that key."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "there is no such object", "missing")


@dataclass(frozen=True, slots=True)
class Lies:
    """Where the bytes of a face lie that is no object of its own: in a tar, from `offset` on."""

    tar: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """An object in a listing: its key, its size in bytes, when it arrived; and where, if within another."""

    key: str
    size: int
    modified: datetime
    lies: Lies | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Children:
    """One level of a listing, sorted: the names of the folders, without slashes, and the objects."""

    folders: Sequence[str]
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found.

    Attributes:
        create_only: false where the bucket silently overwrites what it was asked to create only.
        write_ms: how long one small PUT took.
    """

    create_only: bool
    write_ms: float

    def __str__(self) -> str:
        took = f"writes, reads and deletes; a small PUT takes {self.write_ms} ms"
        if self.create_only:
            return took
        return f"{took}; but it overwrites what it was asked to create only: keep to one store, or change it"


class Bucket(ABC):
    """Where objects lie, by key. Every method raises BucketError and no other error of the bucket's."""

    url: str
    paged = True
    """Whether a long listing takes many requests; else it is one, however long."""

    @abstractmethod
    async def put_new(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        sha256: str | None = None,
    ) -> bool:
        """Create an object, durably; return False, and change nothing, where one exists.

        Args:
            key: where.
            data: its bytes.
            content_type: its media type.
            metadata: what is said of it beside it, where a bucket can: short ASCII names and values.
            sha256: of the bytes, in hex digits, from whoever has it already.
        """

    @abstractmethod
    async def put(self, key: str, data: bytes, *, content_type: str = "application/json") -> None:
        """Write an object over whatever is there."""

    @abstractmethod
    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object; its size is looked at before its body is read.

        Raises:
            MissingError: there is none.
            BucketError: it is larger than `max_bytes` (`fault` is `too-large`), or cannot be read.
        """

    @abstractmethod
    async def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Read `length` bytes of an object from `start` on, and no others.

        Raises:
            MissingError: there is no such object.
            BucketError: it ends before, or cannot be read.
        """

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Delete an object; that there is none is fine."""

    @abstractmethod
    def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        """Yield the objects below a prefix (whole segments) with keys past `after`, in no sure order."""

    @abstractmethod
    async def children(self, prefix: str = "") -> Children:
        """Return one level below a prefix."""

    async def probe(self) -> Probe:
        """Write, try to write again, read and delete one small object.

        Raises:
            BucketError: one of these cannot be done.
        """
        key = f"probe/{secrets.token_hex(8)}.txt"
        first, second = b"facerelay was here", b"facerelay was here again"
        begin = time.monotonic()
        await self.put_new(key, first, content_type="text/plain")
        write_ms = (time.monotonic() - begin) * 1000
        try:
            again = await self.put_new(key, second, content_type="text/plain")
            found = await self.get(key, max_bytes=100)
        finally:
            await self.delete(key)
        return Probe(create_only=not again and found == first, write_ms=round(write_ms, 1))

    async def close(self) -> None:
        """Give back what is held open; a bucket that holds nothing has nothing to do."""
        return


class WrappedBucket(Bucket):
    """Another bucket, to which everything is passed on; who wraps it changes what he likes.

    Args:
        bucket: the other one.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.url = bucket.url
        self.paged = bucket.paged
        self._bucket = bucket

    def _ask(self) -> None:
        """Take note of a request that is about to be passed on."""

    async def put_new(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        sha256: str | None = None,
    ) -> bool:
        """Create an object."""
        self._ask()
        return await self._bucket.put_new(
            key, data, content_type=content_type, metadata=metadata, sha256=sha256
        )

    async def put(self, key: str, data: bytes, *, content_type: str = "application/json") -> None:
        """Write an object."""
        self._ask()
        await self._bucket.put(key, data, content_type=content_type)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object."""
        self._ask()
        return await self._bucket.get(key, max_bytes=max_bytes)

    async def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Read a part of an object."""
        self._ask()
        return await self._bucket.get_range(key, start=start, length=length)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        self._ask()
        await self._bucket.delete(key)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        """List objects."""
        self._ask()
        async for entry in self._bucket.list(prefix, after=after):
            yield entry

    async def children(self, prefix: str = "") -> Children:
        """Return one level."""
        self._ask()
        return await self._bucket.children(prefix)

    async def close(self) -> None:
        """Give back what is held open."""
        await self._bucket.close()


def check_key(key: str) -> str:
    """Return the key unchanged if every segment is a plain name: no path leads out of the bucket.

    Raises:
        BucketError: it is not such a key.
    """
    if not is_key(key):
        raise BucketError(shown(key[:80]), "not a key that facerelay writes", "refused")
    return key


def is_key(key: str) -> bool:
    """Whether a key is one that can be ours: other names in a bucket are somebody else's, and left alone."""
    return len(key) <= _MAX_KEY and _KEY.fullmatch(key) is not None


def check_prefix(prefix: str) -> str:
    """Return a prefix without its last slash; the empty one is the whole bucket.

    Raises:
        BucketError: it is not made of plain names.
    """
    bare = prefix.removesuffix("/")
    return check_key(bare) if bare else ""


def cut_short(key: str, start: int, length: int) -> BucketError:
    """Return the error of an object that ends before a part of it that was asked for."""
    return BucketError(key, f"it has no {length} bytes from {start} on", "refused")


def content_type(extension: str) -> str:
    """Return the media type of a picture's file name ending."""
    return {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}[extension]
