"""The roll: the certificates of enrolled machines, one file each, and of those that were taken back."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from facerelay.fleet import files
from facerelay.fleet.issuer import Issuer, pem
from facerelay.fleet.names import EnrolError, common_name, short
from facerelay.signing import KeyFileError, Owner, PublicKey, SignatureError, read_certificate


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A certificate of the roll.

    Attributes:
        key: whose, and the key's id.
        certificate: as it was issued.
        path: its file.
    """

    key: PublicKey
    certificate: x509.Certificate
    path: Path

    @property
    def owner(self) -> Owner:
        """Whose it is."""
        return self.key.owner

    @property
    def end(self) -> datetime:
        """Until when it is valid, UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def revoked(self) -> bool:
        """Whether it was taken back."""
        return self.key.owner.revoked


class Roll:
    """The folder `devices` of an enrolled cloud.

    Args:
        devices: the folder; `crl.pem` lies beside it.
    """

    def __init__(self, devices: Path) -> None:
        self._devices = devices
        self._revoked = devices / "revoked"
        self.crl = devices.parent / "crl.pem"

    def read(self) -> list[Enrolled]:
        """Return all certificates, in the order of their names, the newest of a name last.

        Raises:
            EnrolError: the folder is not there.
            KeyFileError: a file in it is not such a certificate.
        """
        if not self._devices.is_dir():
            raise EnrolError(f"{self._devices}: no such folder: is this the cloud's file? See trust.devices")
        found = [*_read(self._devices, revoked=False), *_read(self._revoked, revoked=True)]
        return sorted(found, key=lambda one: (common_name(one.owner), one.certificate.not_valid_before_utc))

    def of(self, owner: Owner) -> list[Enrolled]:
        """Return the certificates of one machine that are not revoked.

        Raises:
            EnrolError: there is none; the message knows a near name.
        """
        known = [one for one in self.read() if not one.revoked]
        found = [one for one in known if common_name(one.owner) == common_name(owner)]
        if found:
            return found
        others = sorted({short(one.owner) for one in known})
        near = difflib.get_close_matches(short(owner), others, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"enrolled are: {', '.join(others) or 'none'}"
        raise EnrolError(f"{short(owner)} is not enrolled, or was revoked; {hint}")

    def has(self, owner: Owner) -> bool:
        """Whether a machine has a certificate that is not revoked."""
        return any(
            common_name(one.owner) == common_name(owner) for one in _read(self._devices, revoked=False)
        )

    def add(self, certificate: x509.Certificate) -> Path:
        """Enter a certificate.

        Raises:
            EnrolError: its key is there already: one key a machine.
        """
        key = PublicKey(certificate)
        for one in self.read():
            if one.key.id == key.id:
                state = "was revoked" if one.revoked else "is enrolled"
                raise EnrolError(
                    f"this key {state} as {common_name(one.owner)}: make a new one for each machine"
                )
        path = self._devices / f"{common_name(key.owner)}.{key.id}.pem"
        files.create(path, pem(certificate))
        files.sync(self._devices)
        return path

    def revoke(self, entries: Sequence[Enrolled], issuer: Issuer, *, now: datetime | None = None) -> None:
        """Take certificates back: first in the folder, then on the list."""
        files.folder(self._revoked)
        for one in entries:
            one.path.replace(self._revoked / one.path.name)
        files.sync(self._devices)
        self.write_crl(issuer, now=now)

    def write_crl(self, issuer: Issuer, *, now: datetime | None = None) -> None:
        """Write the list of revoked certificates from what lies in the folder."""
        now = now or datetime.now(UTC)
        since: dict[int, datetime] = {}
        if self.crl.exists():
            before = x509.load_pem_x509_crl(self.crl.read_bytes())
            since = {one.serial_number: one.revocation_date_utc for one in before}
        serials = [one.certificate.serial_number for one in _read(self._revoked, revoked=True)]
        files.replace(
            self.crl, issuer.revocations([(each, since.get(each, now)) for each in serials], now=now)
        )


def _read(folder: Path, *, revoked: bool) -> Iterator[Enrolled]:
    for path in sorted(folder.glob("*.pem")):
        certificate = read_certificate(path)
        try:
            yield Enrolled(PublicKey(certificate, revoked=revoked), certificate, path)
        except SignatureError as error:
            raise KeyFileError(f"{path}: {error}: take it out of the folder") from None
