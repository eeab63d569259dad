"""A bucket behind a network API, or in memory: S3, GCS and Azure through obstore."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore

from facerelay.cloud.contract import (
    Bucket,
    BucketError,
    Children,
    Entry,
    Fault,
    MissingError,
    cut_short,
    is_key,
)
from facerelay.cloud.contract import check_key as check
from facerelay.cloud.contract import check_prefix as check_under
from facerelay.cloud.quick import Quick, QuickError
from facerelay.topics import shown

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,40})</Code>")
_DEFINITE: Final = {"EntityTooLarge", "KeyTooLongError", "InvalidObjectName", "MetadataTooLarge"}
"""What a server says of one object that it will never take. Anything else may pass: a token that expired,
a bucket that is being made, a proxy between."""
_TOO_LARGE: Final = 413
_ODD_NAME: Final = "object with invalid path"
_PAGE: Final = 1000
_THREADS: Final = 16
_FAULTS: Final = (BaseError, OSError, ValueError)


class ObjectBucket(Bucket):
    """Objects through obstore; requests are bounded in time by the store that is handed in."""

    def __init__(
        self, store: ObjectStore, *, url: str, attributes: bool = True, quick: Quick | None = None
    ) -> None:
        self.url = url
        self._store = store
        self._attributes = attributes
        self._quick = quick

    async def put_new(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        sha256: str | None = None,
    ) -> bool:
        """Create an object; False where one exists."""
        check(key)
        if self._quick is not None and self._quick.takes(data):
            try:
                return await self._quick.put_new(
                    key, data, sha256 or hashlib.sha256(data).hexdigest(),
                    content_type=content_type, metadata=metadata,
                )  # fmt: skip
            except QuickError as error:
                if error.late:
                    hint = f"{error}: check bucket.endpoint and bucket.url ({self.url})"
                    raise BucketError(key, hint) from None
        attributes = {"Content-Type": content_type, **(metadata or {})} if self._attributes else None
        try:
            await obstore.put_async(
                self._store, key, data, mode="create", use_multipart=False, attributes=attributes
            )
        except (AlreadyExistsError, PreconditionError):
            return False
        except _FAULTS as error:
            raise _explained(error, key, self.url) from None
        return True

    async def put(self, key: str, data: bytes, *, content_type: str = "application/json") -> None:
        """Write an object over whatever is there."""
        attributes = {"Content-Type": content_type} if self._attributes else None
        with _errors(key, self.url):
            await obstore.put_async(
                self._store, check(key), data, mode="overwrite", use_multipart=False, attributes=attributes
            )

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object."""
        check(key)
        with _errors(key, self.url, missing=True):
            found = await obstore.get_async(self._store, key)
            if found.meta["size"] > max_bytes:
                raise BucketError(key, f"{found.meta['size']} bytes, over {max_bytes}", "too-large")
            data = bytearray()
            async for piece in found.stream():  # a server may send more than it said
                data += piece
                if len(data) > max_bytes:
                    raise BucketError(key, f"more than {max_bytes} bytes", "too-large")
            return bytes(data)

    async def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Read a part of an object."""
        check(key)
        with _errors(key, self.url, missing=True):
            found = await obstore.get_async(self._store, key, options={"range": (start, start + length)})
            data = bytearray()
            async for piece in found.stream():
                data += piece
                if len(data) > length:
                    raise BucketError(key, f"more than the {length} bytes that were asked for", "refused")
        if len(data) < length:
            raise cut_short(key, start, length)
        return bytes(data)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        try:
            with _errors(key, self.url, missing=True):
                await obstore.delete_async(self._store, check(key))
        except MissingError:
            pass

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        """Yield the objects below a prefix; none in a bucket that its first PUT is yet to make."""
        with suppress(NoBucketError), _errors(prefix, self.url):
            under = check_under(prefix) or None
            async for page in obstore.list(self._store, under, offset=after, chunk_size=_PAGE):
                for meta in page:
                    if _ours(meta["path"], under):
                        yield Entry(meta["path"], meta["size"], meta["last_modified"])

    async def children(self, prefix: str = "") -> Children:
        """Return one level below a prefix; none in a bucket that its first PUT is yet to make."""
        try:
            with _errors(prefix, self.url):
                under = check_under(prefix) or None
                level = await obstore.list_with_delimiter_async(self._store, under)
        except NoBucketError:
            return Children([], [])
        paths = [path.rstrip("/") for path in level["common_prefixes"]]
        folders = [path.rpartition("/")[2] for path in paths if _ours(path, under)]
        entries = [
            Entry(meta["path"], meta["size"], meta["last_modified"])
            for meta in level["objects"]
            if _ours(meta["path"], under)
        ]
        return Children(sorted(folders), sorted(entries))

    async def close(self) -> None:
        """Drop the connections that are held open."""
        if self._quick is not None:
            await self._quick.close()


class NoBucketError(BucketError):
    """The bucket is not there; some servers make it at the first PUT."""

    def __init__(self, key: str, url: str) -> None:
        super().__init__(key, f"no such bucket: create it, or correct bucket.url ({url})", "no-bucket")


@contextmanager
def _errors(key: str, url: str, *, missing: bool = False) -> Iterator[None]:
    """Turn the library's errors into ours: one line, what to do, and whether it may pass."""
    try:
        yield
    except _FAULTS as error:
        raise _explained(error, key, url, missing=missing) from None


def _explained(error: Exception, key: str, url: str, *, missing: bool = False) -> BucketError:
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return MissingError(key) if missing and "NoSuchBucket" not in text else NoBucketError(key, url)
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        hint = f"{_said(error)}: check bucket.access_key, its secret, and what they may do"
        return BucketError(key, hint, "denied")
    if _ODD_NAME in text:
        hint = "remove it by the provider's tools: until then nothing beside it can be listed"
        return BucketError(key, f"{_said(error)}: {hint}")
    status, code = _STATUS.search(text), _CODE.search(text)
    if code and code[1] == "NoSuchBucket":
        return NoBucketError(key, url)
    definite = (status and int(status[1]) == _TOO_LARGE) or (code and code[1] in _DEFINITE)
    fault: Fault = "refused" if definite else "unreachable"
    return BucketError(key, f"{_said(error)}: check bucket.endpoint and bucket.url ({url})", fault)


def _ours(path: str, under: str | None) -> bool:
    """Whether a listed name is a key below the prefix: not another's, and no marker of the folder itself."""
    return is_key(path) and (under is None or path.startswith(f"{under}/"))


def _said(error: Exception) -> str:
    """Return the server's own word if there is one, else the first line, without keys or documents."""
    text = str(error)
    if code := _CODE.search(text):
        return f"the bucket says {code[1]}"
    if status := _STATUS.search(text):
        return f"the bucket answers with HTTP status {status[1]}"
    return shown(text.partition("\n")[0].rpartition(" - ")[2])
