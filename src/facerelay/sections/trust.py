"""Who is believed, and who may see: the site authority, and the keys of sealed faces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from facerelay.sections.base import Section

_RECIPIENT: Final = re.compile(r"age1[02-9ac-hj-np-z]{58}", re.ASCII)


class Trust(Section):
    """The site authority of `facerelay enrol`: whose word counts, beyond what TLS sees."""

    authority: Path | None = Field(
        None,
        title="Site authority",
        description="PEM file of its certificate. Set: receipts count only if a store of it signed them.",
    )
    cert: Path | None = Field(
        None, title="Certificate", description="PEM file: this machine's own, by the site authority."
    )
    key: Path | None = Field(
        None, title="Key", description="PEM file with its key: stores sign receipts, edges sealed faces."
    )
    devices: Path | None = Field(
        None,
        title="Devices",
        description="Folder of the enrolled machines' certificates: who may connect, and whose seal counts.",
    )

    @model_validator(mode="after")
    def _pairs(self) -> Trust:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        if self.authority is None and (self.cert or self.devices):
            raise ValueError("cert and devices need authority: what `facerelay enrol` wrote has all of them")
        return self


class Seal(Section):
    """Sealed faces: pictures that nobody between the camera and their reader can see."""

    recipients: Annotated[tuple[str, ...], Field(max_length=16)] = Field(
        (),
        title="Recipients",
        description="Public keys (age1…) that each face is encrypted to at the edge; empty: not sealed.",
    )
    identity_file: Path | None = Field(
        None,
        title="Identity file",
        description="The private key of one of them (`facerelay keygen`), for the gallery and `get`.",
    )

    @field_validator("recipients")
    @classmethod
    def _recipients(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each.upper().startswith("AGE-SECRET-KEY"):
                raise ValueError("a private key: the edge needs the public one, which begins with age1")
            if not _RECIPIENT.fullmatch(each):
                raise ValueError("a public key begins with age1 and has 62 letters: see `facerelay keygen`")
        return value
