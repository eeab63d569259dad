"""Home Assistant, Frigate's topics, a webhook: who else is told of a face."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, StringConstraints, ValidationError, field_validator, model_validator

from facerelay.sections.base import Section, address, is_loopback, is_open, read_secret
from facerelay.sections.wire import Broker
from facerelay.topics import overlap

_LEVELS: Final = r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
_OURS: Final = ("faces", "receipts", "ledger", "link", "stores")
_LEAST_SECRET: Final = 24
_MOST_SECRET: Final = 64
"""Bytes of a key, by the Standard Webhooks specification."""

_KEY: Final = "whsec_"

Prefix = Annotated[str, StringConstraints(pattern=_LEVELS, max_length=100)]


class Announced(Section):
    """What both layouts share: where they are published, and whether pictures are."""

    enabled: bool = Field(default=False, title="Enabled", description="Whether capture publishes it.")
    images: bool = Field(
        default=False,
        title="Images",
        description="The last face of each camera as well, retained: whoever may read the broker sees it.",
    )
    image_hours: Annotated[float, Field(gt=0, le=100_000)] = Field(
        24.0, title="Image life", description="Hours after which that face is taken off the broker."
    )
    url: str | None = Field(
        None, title="Address", description="mqtt://host:port of their broker; unset: this side's broker."
    )
    username: str | None = Field(None, title="User name", description="At that broker.")
    password: SecretStr | None = Field(
        None, title="Password", description="Better in password_file, or in the environment."
    )
    password_file: Path | None = Field(
        None, title="Password file", description="A file that holds the password alone."
    )
    ca: Path | None = Field(
        None, title="CA certificate", description="PEM file that signs that broker; the system's if unset."
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow insecure",
        description="Speak to that broker without TLS, in a network of yours.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Announced:
        if self.url is None and (self.username or self.password or self.password_file or self.ca):
            raise ValueError("set url as well: without it this side's broker is used, as [broker] says")
        if self.password is not None and self.password_file is not None:
            raise ValueError("set password or password_file, not both")
        if self.url is not None:
            try:
                self.broker(Broker())
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    @field_validator("prefix", "topic", check_fields=False)
    @classmethod
    def _theirs(cls, value: str) -> str:
        if value.partition("/")[0] in _OURS:
            raise ValueError(f"{value!r} begins with a name that facerelay keeps for its own messages")
        return value

    @property
    def filters(self) -> tuple[str, ...]:
        """All that it publishes."""
        return ()

    def broker(self, own: Broker) -> Broker:
        """Return the broker that is meant: `own`, where none is named."""
        if self.url is None:
            return own
        return Broker(
            url=self.url, username=self.username, password=self.password,
            password_file=self.password_file, ca=self.ca, allow_insecure=self.allow_insecure,
        )  # fmt: skip


class HomeAssistant(Announced):
    """Home Assistant finds the cameras by itself (MQTT discovery)."""

    prefix: Prefix = Field(
        "homeassistant", title="Prefix", description="Home Assistant's own discovery prefix."
    )
    topic: Prefix = Field("facerelay", title="Topic", description="Where the states are published.")

    @property
    def filters(self) -> tuple[str, ...]:
        """All that it publishes."""
        return f"{self.prefix}/device/+/config", f"{self.topic}/#"


class Frigate(Announced):
    """Faces on Frigate's topics as well, for automations that were written for it."""

    prefix: Prefix = Field(
        "frigate", title="Prefix", description="Another one where a real Frigate is at the same broker."
    )
    label: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,40}$")] = Field(
        "face", title="Label", description="What a face is called there: face, or person."
    )

    @property
    def filters(self) -> tuple[str, ...]:
        """All that it publishes."""
        return (f"{self.prefix}/#",)


class Webhook(Section):
    """The store tells a web address of each new face: a signed POST, tried again until it is taken."""

    url: str | None = Field(
        None, title="Address", description="https://host/path; http:// on loopback alone. Unset: no webhook."
    )
    secret: SecretStr | None = Field(
        None, title="Secret", description="whsec_ and 24 to 64 random bytes in base64; better in secret_file."
    )
    secret_file: Path | None = Field(
        None, title="Secret file", description="A file that holds the secret alone."
    )
    ca: Path | None = Field(
        None, title="CA certificate", description="PEM file that signs that server; the system's if unset."
    )
    timeout_s: Annotated[float, Field(gt=0, le=120)] = Field(
        15.0, title="Time-out", description="Seconds for one try, the whole of it."
    )
    give_up_hours: Annotated[float, Field(gt=0, le=10_000)] = Field(
        72.0,
        title="Give up",
        description="Hours for which a face is tried; then it is given up, and counted.",
    )
    spool: Path = Field(
        Path("webhook.db"), title="Spool", description="The file of those that wait; no pictures in it."
    )
    most_waiting: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        100_000, title="Most waiting", description="Past it the oldest goes, and is counted."
    )
    at_once: Annotated[int, Field(ge=1, le=64)] = Field(
        4, title="At once", description="Requests at the same time."
    )
    allow_http: bool = Field(
        default=False, title="Allow http", description="Post beyond loopback without TLS."
    )

    @field_validator("url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.isascii() or not value.isprintable() or " " in value or len(value) > 2000:  # noqa: PLR2004 - a sane URL
            raise ValueError("write it in ASCII without blanks, as https://host/path")
        parts = address(value, "http", "https")
        if parts is None:
            raise ValueError("write it as https://host/path")
        if "@" in parts.netloc:
            raise ValueError("put no user name and password into it: the signature says who we are")
        if parts.fragment:
            raise ValueError("leave out the part behind #")
        return value

    @model_validator(mode="after")
    def _signed(self) -> Webhook:
        if self.url is None:
            return self
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("set secret or secret_file (one of them): each message is signed with it")
        if self.secret is not None:
            self._key_of(self.secret.get_secret_value())
        if is_open(self.url) and not self.allow_http:
            raise ValueError("use https://, or allow_http = true: who passed a camera is nobody's business")
        return self

    def key(self) -> bytes:
        """Return the key to sign with, read from its file at this moment.

        Raises:
            ValueError: it is no such key.
            OSError: the file cannot be read.
        """
        return self._key_of(read_secret(self.secret, self.secret_file) or "")

    @staticmethod
    def _key_of(secret: str) -> bytes:
        try:
            key = base64.b64decode(secret.removeprefix(_KEY), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith(_KEY) or not _LEAST_SECRET <= len(key) <= _MOST_SECRET:
            raise ValueError(
                f"its secret is {_KEY} and {_LEAST_SECRET} to {_MOST_SECRET} random bytes in base64;"
                f' make one: echo "{_KEY}$(openssl rand -base64 32)"'
            )
        return key


def see_apart(
    layouts: Mapping[str, Announced],
    *,
    own: str,
    direct: bool,
    faces: str,
    sources: Mapping[str, str],
) -> None:
    """See that what is published for others neither leaves with the faces nor comes back as pictures.

    Args:
        layouts: those that are enabled, by the name of their section.
        own: this side's broker's address.
        direct: whether that broker is the cloud's.
        faces: the filter of faces, which the link carries.
        sources: the topics from which cameras take pictures, by camera.

    Raises:
        ValueError: two of them have a topic in common.
    """
    taken: list[tuple[tuple[str, int], str]] = []
    for name, layout in layouts.items():
        if direct and layout.url is None:
            raise ValueError(
                f"{name}.url: with direct = true this side's broker is the cloud's: name the house's own"
            )
        where = _place(layout.url or own)
        for topics in layout.filters:
            others = [
                f"camera {camera} takes pictures from {topic}"
                for camera, topic in sources.items()
                if overlap(topics, topic)
            ]
            if overlap(topics, faces):
                others.append(f"the link carries {faces} as faces")
            if where == _place(own) and others:
                raise ValueError(f"{name} publishes under {topics}, and {others[0]}: choose another name")
            if any(where == there and overlap(topics, other) for there, other in taken):
                raise ValueError(
                    f"{name} publishes under {topics}, as another section does: choose another name"
                )
        taken += [(where, topics) for topics in layout.filters]


def _place(url: str) -> tuple[str, int]:
    """Return a broker's host and port; loopback has more names than one."""
    broker = Broker(url=url, allow_insecure=True)
    return "localhost" if is_loopback(broker.host) else broker.host, broker.port
