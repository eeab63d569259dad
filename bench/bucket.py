"""What lies in a bucket after a run: every object is read and hashed."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.request import urlopen

from obstore.store import S3Store

from bench.inotify import watch
from bench.plain import ACCESS_KEY, BUCKET, SECRET_KEY

_READERS = 16


class Bucket(Protocol):
    """Where a chain stores."""

    def count(self) -> int:
        """Return how many faces lie there now."""

    def watched(self) -> AbstractContextManager[None]:
        """Note arrivals while the context lasts, as closely as this bucket can."""

    def contents(self) -> list[str]:
        """Return the sha256 of each object."""

    def arrivals(self) -> dict[str, float]:
        """Return the Unix time at which each face, by its sha256, came to lie there."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Files below a folder.

    One arrives when the kernel says that it was closed or given its name, where the folder is watched;
    else with the last change of its inode, which the kernel's clock tells to 4 ms.
    """

    root: Path
    seen: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the time of each arrival below the folders that are there now."""
        with watch([folder for folder, _, _ in _walk(self.root)], self.seen):
            yield

    def count(self) -> int:
        """Count the files."""
        return sum(1 for _ in _files(self.root))

    def contents(self) -> list[str]:
        """Read and hash each."""
        return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in _files(self.root)]

    def arrivals(self) -> dict[str, float]:
        """Return when each arrived."""
        return {
            hashlib.sha256(Path(path).read_bytes()).hexdigest(): self.seen.get(
                path, Path(path).stat().st_ctime
            )
            for path in _files(self.root)
        }


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects below a prefix of an S3 bucket; `log` has the time at which each PUT returned."""

    endpoint: str
    prefix: str
    log: Path

    def watched(self) -> AbstractContextManager[None]:
        """Do nothing: the log tells."""
        return nullcontext()

    def count(self) -> int:
        """Count returned PUTs; before there is a log, list."""
        if self.log.exists():
            return len(self.arrivals())
        return len(self._keys())

    def contents(self) -> list[str]:
        """Read and hash each."""
        return asyncio.run(self._hashes(self._keys()))

    def arrivals(self) -> dict[str, float]:
        """Read the log; without one, nothing is known."""
        if not self.log.exists():
            return {}
        lines = (line.split() for line in self.log.read_text(encoding="ascii").splitlines())
        return {sha256: float(at) for at, sha256 in lines}

    def _store(self) -> S3Store:
        return S3Store(
            BUCKET, prefix=self.prefix, endpoint=self.endpoint, region="us-east-1", access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY, virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )  # fmt: skip

    def _keys(self) -> list[str]:
        return [meta["path"] for page in self._store().list() for meta in page]

    async def _hashes(self, keys: list[str]) -> list[str]:
        store, gate = self._store(), asyncio.Semaphore(_READERS)

        async def read(key: str) -> str:
            async with gate:
                found = await store.get_async(key)
                return hashlib.sha256(await found.bytes_async()).hexdigest()

        return list(await asyncio.gather(*map(read, keys)))


@dataclass(frozen=True, slots=True)
class Null:
    """The null S3 server, which knows when each face came, and the hash that its client had signed."""

    endpoint: str

    def watched(self) -> AbstractContextManager[None]:
        """Do nothing: the server notes arrivals."""
        return nullcontext()

    def count(self) -> int:
        """Ask the server."""
        return int(self._ask("count"))

    def contents(self) -> list[str]:
        """Return the hashes that were signed: the bytes are gone."""
        return [line.split()[1] for line in self._ask("log").splitlines()]

    def arrivals(self) -> dict[str, float]:
        """Ask the server."""
        lines = (line.split() for line in self._ask("log").splitlines())
        return {sha256: float(at) for at, sha256 in lines}

    def _ask(self, what: str) -> str:
        with urlopen(f"{self.endpoint}/?{what}") as answer:  # noqa: S310 - http, on loopback
            return str(answer.read(), "ascii")


def _files(root: Path) -> Iterator[str]:
    for folder, _, files in _walk(root):
        yield from (f"{folder}/{name}" for name in files if not name.startswith("."))


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        yield folder, names, files
