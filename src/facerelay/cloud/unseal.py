"""Faces as they are looked at: sealed ones opened, where the private key is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from facerelay import face as faces
from facerelay.config import Config
from facerelay.face import FaceError, Frozen, Limits
from facerelay.sealed import SealError, Signed, UncheckedError, split

if TYPE_CHECKING:
    from facerelay.sealing import Opener, Seals

NO_KEY: Final = "to see it, set seal.identity_file to the private key of one of its readers"


@dataclass(frozen=True, slots=True)
class Seal:
    """What is to be told of a face's seal.

    Attributes:
        fault: why it was not opened; empty where it was.
        signed: who sealed it; None where that was not looked at.
    """

    fault: str = ""
    signed: Signed | None = None

    def told(self) -> dict[str, Any]:
        """Return it as plain values; `doubt` says why it is not known who sealed it."""
        known: dict[str, Any] = {"opened": not self.fault}
        if self.fault:
            known["fault"] = self.fault
        if self.signed is None:
            return known | {"doubt": "who sealed it was not checked: set trust.authority and trust.devices"}
        if self.signed.by:
            known |= {"signed_by": self.signed.by, "revoked": self.signed.revoked}
        if self.signed.fault:
            known["doubt"] = self.signed.fault
        return known


@dataclass(frozen=True, slots=True)
class Look:
    """A face as it can be looked at.

    Attributes:
        data: its picture: of a sealed one what is inside; the file itself where it stays closed.
        size: of the file, in bytes.
        face: the picture read; None where it is none of ours.
        seal: of a sealed one.
    """

    data: bytes
    size: int
    face: Frozen | None = None
    seal: Seal | None = None

    @property
    def closed(self) -> bool:
        """Whether it is sealed, and stays so."""
        return self.seal is not None and bool(self.seal.fault)


class Unsealer:
    """Opens what is sealed, and lets everything else through.

    Args:
        limits: what a picture may be, at most.
        opener: has the private keys; None leaves sealed faces closed.
        seals: checks who sealed them; None leaves that open.
    """

    def __init__(self, limits: Limits, *, opener: Opener | None = None, seals: Seals | None = None) -> None:
        self._limits = limits
        self._opener = opener
        self._seals = seals

    async def look(self, data: bytes) -> Look:
        """Return a face as it can be looked at. Whatever is wrong with it is told, not raised."""
        try:
            found = faces.parse(data, self._limits)
        except FaceError:
            return Look(data, len(data))
        if not found.face.sealed:
            return Look(data, len(data), found)
        try:
            parts = split(data)
        except SealError as error:
            return Look(data, len(data), found, Seal(str(error)))
        signed = None
        if self._seals is not None:
            try:
                signed = await self._seals.signed(found.face, parts)
            except UncheckedError as error:
                signed = Signed(fault=str(error))
        if self._opener is None:
            return Look(data, len(data), found, Seal(NO_KEY, signed))
        try:
            inner = self._opener.open(found.face, parts, self._limits)
        except SealError as error:
            return Look(data, len(data), found, Seal(str(error), signed))
        return Look(inner.data, len(data), inner, Seal(signed=signed))


def unsealer(config: Config) -> Unsealer:
    """Return what opens faces as the settings say.

    Raises:
        IdentityError: seal.identity_file cannot be used.
    """
    if config.seal.identity_file is None and config.trust.devices is None:
        return Unsealer(config.limits.face)
    from facerelay.sealing import Opener, seals  # noqa: PLC0415 - its libraries take time to load

    path = config.seal.identity_file
    opener = None if path is None else Opener(path)
    return Unsealer(config.limits.face, opener=opener, seals=seals(config))
