"""The enrolled machines: whose key a signature is by, and whether it was taken from them since."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from facerelay.seldom import Seldom
from facerelay.signing import Authority, KeyFileError, PublicKey, SignatureError, read_certificate

log = logging.getLogger(__name__)

REVOKED: Final = "revoked"
"""The folder in the folder: who is in it was enrolled once."""

_LOOK_S: Final = 2.0
_SETTLED_NS: Final = 2_000_000_000
_MOST: Final = 100_000
_seldom = Seldom(log)


class Devices:
    """The certificates in a folder, and in the one of those revoked; read again when either changes.

    Args:
        authority: PEM file of the site authority; a certificate that it did not issue does not count.
        folder: of certificates, one in each `*.pem`.
        clock: monotonic seconds.
    """

    def __init__(self, authority: Path, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._authority = authority
        self._folder = folder
        self._clock = clock
        self._looked: float | None = None
        self._state: tuple[int, ...] | None = None
        self._stamp = 0
        self._keys: dict[str, PublicKey] = {}
        self._read: dict[tuple[str, int], PublicKey] = {}
        self._lock = asyncio.Lock()

    async def find(self, key_id: str) -> PublicKey | None:
        """Return the key of that id, as the folder had it at most two seconds ago; None if there is none.

        Raises:
            KeyFileError: the folder, or the authority's certificate, cannot be read.
        """
        if self._looked is None or self._clock() - self._looked >= _LOOK_S:
            async with self._lock:
                await asyncio.to_thread(self._look)
        return self._keys.get(key_id)

    def _look(self) -> None:
        """Read what is new, if anything is."""
        now = self._clock()
        if self._looked is not None and now - self._looked < _LOOK_S:
            return
        try:
            state = tuple(_changed(path) for path in (self._authority, self._folder, self._folder / REVOKED))
            if state != self._state:
                self._load()
        except OSError as error:
            raise KeyFileError(f"{self._folder}: {error.strerror}: set trust.devices") from None
        # A change in the same moment as the last one would leave no trace.
        settled = max(state) < time.time_ns() - _SETTLED_NS
        self._state, self._looked = state if settled else None, now

    def _load(self) -> None:
        authority = Authority(self._authority)
        stamp = _changed(self._authority)
        known = self._read if stamp == self._stamp else {}
        read: dict[tuple[str, int], PublicKey] = {}
        for path, at, revoked in self._files():
            try:
                read[str(path), at] = known.get((str(path), at)) or authority.admit(
                    read_certificate(path), revoked=revoked
                )
            except (KeyFileError, SignatureError) as error:
                _seldom.say(logging.WARNING, str(path), "%s does not count: %s", path, error)
        self._read, self._stamp = read, stamp
        # Those revoked come last: who is in both folders is revoked.
        self._keys = {key.id: key for key in sorted(read.values(), key=lambda key: key.owner.revoked)}

    def _files(self) -> Iterator[tuple[Path, int, bool]]:
        """Yield each certificate's file, when it was written, and whether it was revoked."""
        for folder, revoked in ((self._folder, False), (self._folder / REVOKED, True)):
            try:
                with os.scandir(folder) as found:
                    entries = sorted((each for each in found if each.name.endswith(".pem")), key=_name)
            except FileNotFoundError:
                if not revoked:
                    raise
                continue
            for each in entries[:_MOST]:
                if each.is_file():
                    yield Path(each.path), each.stat().st_mtime_ns, revoked


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _changed(path: Path) -> int:
    """Return when a file or folder changed last; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
