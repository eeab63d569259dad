"""Sealed faces: encrypted to their readers' public keys with age, signed by the key of the site's machine.

The format is that of `facerelay.sealed`. Imported where faces are sealed, checked or opened, and nowhere
else: the libraries behind it take time to load.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyrage

from facerelay import face as faces
from facerelay import private, sealed
from facerelay.config import Config
from facerelay.devices import Devices
from facerelay.face import Face, FaceError, Frozen, Limits
from facerelay.sealed import Sealed, SealError, Signed, UncheckedError
from facerelay.settings import ConfigError
from facerelay.signing import KeyFileError, SignatureError, Signer

log = logging.getLogger(__name__)

PAD: Final = 1024
"""A picture is filled up with zero bytes to a multiple of this, so that its size tells little."""

_HEADER: Final = b"age-encryption.org/v1\n"
_HEADER_END: Final = b"\n--- "
_MAX_HEADER: Final = 2560
"""Bytes of what names the recipients; 16 take 1,850, and the library's time grows with their square."""

_ONE_RECIPIENT: Final = 214
_EACH_MORE: Final = 98
_GREASE: Final = 200
_CHUNK: Final = 65_536
_TAG: Final = 16
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve P-256: with (r, s), (r, order - s) is a signature as well. Ours have the smaller s."""

_HALF: Final = 32
_MAX_IDENTITY: Final = 65_536
_MOST_IDENTITIES: Final = 16
_SECRET: Final = "AGE-SECRET-KEY-1"  # noqa: S105 - how one begins
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_SAME: Final = ("id", "outbox", "run", "seq", "site", "camera", "time", "clock")


class IdentityError(ValueError):
    """A private key that cannot be used, or not be written; the message names its file."""


class Sealer:
    """Seals faces at the edge.

    Args:
        recipients: public keys, `age1…`.
        signer: this machine's own key.
        site: whose faces these are.

    Raises:
        ConfigError: a public key is mistyped.
        KeyFileError: the key is another site's.
    """

    def __init__(self, recipients: Sequence[str], signer: Signer, *, site: str) -> None:
        self._recipients = [_recipient(each) for each in recipients]
        self._signer = signer
        owner = signer.public.owner
        if (owner.role, owner.name) != ("site", site):
            raise KeyFileError(f"trust.cert is that of {owner}, not of site {site}: its seal would not count")

    def room(self, known: Face, most: int) -> int:
        """Return how many bytes a picture may have, its EXIF included, to be `most` at most once sealed."""
        left = most - sealed.FIXED_BYTES - len(sealed.outside(known).exif())
        left -= _ONE_RECIPIENT + _EACH_MORE * (len(self._recipients) - 1) + _GREASE + _TAG * (left // _CHUNK)
        return max(0, left // PAD * PAD)

    def seal(self, frozen: Frozen) -> Frozen:
        """Return a face with its picture sealed; what is known of it here stays known."""
        padded = frozen.data + bytes(-len(frozen.data) % PAD)
        head = sealed.head(sealed.outside(frozen.face), pyrage.encrypt(padded, self._recipients))
        signature = _smaller(self._signer.sign("sealed face", head))
        data = head + sealed.tail(self._signer.public.id, signature)
        return Frozen(replace(frozen.face, sealed=True), data, hashlib.sha256(data).hexdigest(), "png")


def _recipient(text: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise ConfigError(f"seal.recipients: {text}: mistyped: copy it from its file's second line") from None


def sealer(config: Config) -> Sealer | None:
    """Return what seals faces as the settings say; None where they are not to be sealed.

    Raises:
        ConfigError: a public key is mistyped.
        KeyFileError: trust.cert or trust.key cannot be used.
    """
    cert, key = config.trust.cert, config.trust.key
    if not config.seal.recipients or cert is None or key is None:
        return None
    return Sealer(config.seal.recipients, Signer(cert, key), site=config.site)


class Seals:
    """Checks who sealed a face.

    Args:
        devices: the enrolled machines.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    async def check(self, frozen: Frozen) -> None:
        """See that a face was sealed by its own site's key, enrolled and not revoked.

        Raises:
            SealError: it was not.
            UncheckedError: the folder of certificates cannot be read.
        """
        found = await self.signed(frozen.face, sealed.split(frozen.data))
        if found.fault or found.revoked:
            raise SealError(found.fault or f"sealed by a key of {found.by} that was revoked")

    async def signed(self, known: Face, parts: Sealed) -> Signed:
        """Return who sealed a face.

        Args:
            known: what is told of it outside.
            parts: of its file.

        Raises:
            UncheckedError: the folder of certificates cannot be read.
        """
        if not parts.key:
            return Signed(fault="its seal is not signed")
        try:
            key = await self._devices.find(parts.key)
        except KeyFileError as error:
            raise UncheckedError(str(error)) from error
        if key is None:
            return Signed(fault=f"sealed by a key that is not enrolled ({parts.key})")
        if parts.signature != _smaller(parts.signature):
            return Signed(fault="its signature is written in another form than ours")
        try:
            key.verify("sealed face", parts.signed, parts.signature)
        except SignatureError as error:
            return Signed(fault=str(error))
        if (key.owner.role, key.owner.name) != ("site", known.site):
            return Signed(fault=f"sealed by {key.owner}, and it says that it is of site {known.site}")
        return Signed(str(key.owner), key.owner.revoked)


def seals(config: Config) -> Seals | None:
    """Return what checks seals; None where trust.devices does not say who is enrolled."""
    trust = config.trust
    if trust.authority is None or trust.devices is None:
        return None
    return Seals(Devices(trust.authority, trust.devices))


class Opener:
    """Opens sealed faces.

    Args:
        path: file of private keys, as `facerelay keygen` and `age-keygen` write them, one or several.

    Raises:
        IdentityError: it cannot be read, or holds none.
    """

    def __init__(self, path: Path) -> None:
        self._identities = _identities(path)

    def open(self, outer: Face, parts: Sealed, limits: Limits) -> Frozen:
        """Return the picture inside, and what is known of it.

        Args:
            outer: what is told of it outside; inside, the same must be said.
            parts: of its file.
            limits: what a picture may be, at most.

        Raises:
            SealError: it cannot be opened, or is not the picture of this face.
        """
        if not parts.ciphertext.startswith(_HEADER) or _HEADER_END not in parts.ciphertext[:_MAX_HEADER]:
            raise SealError("what is sealed in it is not in the format of age")
        try:
            plain = pyrage.decrypt(parts.ciphertext, self._identities)
        except pyrage.DecryptError as error:
            if "No matching keys" in str(error):
                raise SealError("it is sealed to another key than those of seal.identity_file") from None
            raise SealError("what is sealed in it is damaged") from None
        try:
            inner = faces.parse(_unpadded(plain), limits)
        except FaceError as error:
            raise SealError(f"what is sealed in it is no face: {error}") from error
        if inner.face.sealed:
            raise SealError("what is sealed in it is sealed once more")
        odd = [name for name in _SAME if getattr(inner.face, name) != getattr(outer, name)]
        if odd:
            raise SealError(f"inside it says another {odd[0]} than outside: it was put into another's shell")
        return inner


def _unpadded(plain: bytes) -> bytes:
    """Return a picture without the zero bytes behind it; a WebP says how long it is, others never end so."""
    if plain[:4] == b"RIFF":
        return plain[: 8 + int.from_bytes(plain[4:8], "little")]
    return plain.rstrip(b"\0")


def _smaller(signature: bytes) -> bytes:
    """Return a signature in the one of its two forms that we write."""
    s = int.from_bytes(signature[_HALF:])
    return signature[:_HALF] + min(s, max(0, _ORDER - s)).to_bytes(_HALF)


def _identities(path: Path) -> list[pyrage.x25519.Identity]:
    try:
        with path.open(encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                log.warning("%s: others may read this private key: chmod 600 %s", path, path)
            lines = [line.strip() for line in file.read(_MAX_IDENTITY).splitlines()]
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror}: set seal.identity_file") from None
    except UnicodeDecodeError:
        raise IdentityError(f"{path}: no private key of `facerelay keygen`") from None
    found = [line for line in lines if line and not line.startswith("#")]
    if not found or not all(line.startswith(_SECRET) for line in found) or len(found) > _MOST_IDENTITIES:
        hint = f"1 to {_MOST_IDENTITIES} lines that begin with {_SECRET}, without a passphrase"
        raise IdentityError(f"{path}: no private key of `facerelay keygen`: {hint}")
    try:
        return [pyrage.x25519.Identity.from_str(line) for line in found]
    except pyrage.IdentityError:
        raise IdentityError(f"{path}: a line begins as a private key does, and is none") from None


def make_identity(path: Path) -> str:
    """Write a new private key where there is no file, and return its public half.

    Raises:
        IdentityError: a file is there, or none can be written.
    """
    made = pyrage.x25519.Identity.generate()
    public = str(made.to_public())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        private.create(path, f"# created: {now}\n# public key: {public}\n{made}\n".encode())
    except FileExistsError:
        raise IdentityError(f"{path}: exists, and is not written over: name another file") from None
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror}") from None
    return public
