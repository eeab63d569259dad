"""Keys for sealed faces, and faces that are sealed with them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from facerelay import sealing
from facerelay.face import Frozen
from facerelay.sealed import Sealed, split
from facerelay.signing import Signer
from test_signing import Issuer


@dataclass
class Keys:
    """A site authority, the folder of those enrolled, and the bucket owner's private key."""

    folder: Path
    issuer: Issuer
    public: str

    @property
    def devices(self) -> Path:
        return self.folder / "devices"

    @property
    def identity(self) -> Path:
        return self.folder / "owner.key"

    def enrol(self, name: str) -> Signer:
        """Make a key, and put its certificate among those enrolled."""
        signer = self.issuer.signer(name)
        shutil.copy(self.folder / f"{name}.pem", self.place(signer))
        return signer

    def place(self, signer: Signer, *, revoked: bool = False) -> Path:
        owner = signer.public.owner
        parts = ("revoked",) if revoked else ()
        return self.devices.joinpath(*parts, f"{owner.role}.{owner.name}.{signer.public.id}.pem")

    def revoke(self, signer: Signer) -> None:
        self.place(signer).rename(self.place(signer, revoked=True))

    def sealer(self, signer: Signer) -> sealing.Sealer:
        return sealing.Sealer([self.public], signer, site=signer.public.owner.name)

    def settings(self, name: str) -> dict[str, object]:
        """Return `[trust]` of a machine."""
        return {
            "authority": str(self.issuer.path), "cert": str(self.folder / f"{name}.pem"),
            "key": str(self.folder / f"{name}.key"),
        }  # fmt: skip


def make_keys(folder: Path) -> Keys:
    issuer = Issuer(folder)
    (folder / "devices" / "revoked").mkdir(parents=True)
    return Keys(folder, issuer, sealing.make_identity(folder / "owner.key"))


def parts(frozen: Frozen) -> Sealed:
    return split(frozen.data)
