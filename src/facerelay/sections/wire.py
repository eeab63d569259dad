"""Brokers, topics, limits: how messages travel."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from facerelay.face import Limits
from facerelay.sections.base import Section, address, is_loopback, read_secret
from facerelay.topics import FaceTopic, TopicError


class Broker(Section):
    """An MQTT broker: how to reach it, and what the embedded one needs to be it."""

    url: str = Field(
        "mqtt://127.0.0.1:1883", title="Address", description="mqtt://host:port, or mqtts:// for TLS."
    )
    username: str | None = Field(None, title="User name", description="None where the broker asks for none.")
    password: SecretStr | None = Field(
        None, title="Password", description="Better in password_file, or in the environment."
    )
    password_file: Path | None = Field(
        None, title="Password file", description="A file that holds the password alone."
    )
    ca: Path | None = Field(
        None,
        title="CA certificate",
        description="PEM file that signs the broker; the system's authorities if unset.",
    )
    cert: Path | None = Field(
        None, title="Certificate", description="PEM file: the client's, for mutual TLS."
    )
    key: Path | None = Field(None, title="Key", description="PEM file with the key of the certificate.")
    data: Path = Field(
        Path("broker"), title="Data folder", description="Where the embedded broker keeps its state."
    )
    server_cert: Path | None = Field(
        None, title="Server certificate", description="PEM file: the embedded broker's own."
    )
    server_key: Path | None = Field(
        None, title="Server key", description="PEM file with the key of the server certificate."
    )
    listen: str | None = Field(
        None,
        title="Listen",
        description="Address that `facerelay broker` listens on (0.0.0.0: every one); unset: the url's host.",
    )
    mosquitto: Path | None = Field(
        None,
        title="Mosquitto",
        description="Its mosquitto.conf: `facerelay run` runs Mosquitto in place of the embedded broker.",
    )
    alpn: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")] | None = Field(
        None,
        title="ALPN",
        description="Protocol that TLS asks for where a port is shared: x-amzn-mqtt-ca at AWS, port 443.",
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow insecure",
        description="Speak, or listen, beyond this machine without TLS: in a network that is yours alone.",
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("put the user name and password into their own settings, not into the url")
        if address(value, "mqtt", "mqtts") is None:
            raise ValueError("write it as mqtt://host:port, or mqtts://host:port")
        return value

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ip_address(value)
            except ValueError:
                raise ValueError("an address of this machine, such as 0.0.0.0, ::, or 192.0.2.7") from None
        return value

    @model_validator(mode="after")
    def _pairs(self) -> Broker:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        if self.password is not None and self.password_file is not None:
            raise ValueError("set password or password_file, not both")
        if self.alpn is not None and not self.tls:
            raise ValueError("alpn is a part of TLS: write the url as mqtts://host:port")
        if not (self.tls or self.allow_insecure or is_loopback(self.host)):
            raise ValueError(
                "url: beyond this machine mqtt:// can be read and changed on its way: write mqtts://host:port,"
                " or set allow_insecure = true beside it if the network between is yours alone"
            )
        return self

    @property
    def host(self) -> str:
        """The host's name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def tls(self) -> bool:
        """Whether the address asks for TLS."""
        return self.url.startswith("mqtts:")

    @property
    def port(self) -> int:
        """The TCP port; 1883, or 8883 for TLS, where the address names none."""
        return urlsplit(self.url).port or (8883 if self.tls else 1883)

    @property
    def listening(self) -> Broker:
        """The same, with the address that the broker itself listens on."""
        if self.listen is None:
            return self
        host = f"[{self.listen}]" if ":" in self.listen else self.listen
        scheme = "mqtts" if self.tls else "mqtt"
        return self.model_copy(update={"url": f"{scheme}://{host}:{self.port}"})

    def secret(self) -> str | None:
        """Return the password, read from its file at this moment."""
        return read_secret(self.password, self.password_file)


class Topics(Section):
    """Names on the wire."""

    faces: str = Field(
        "faces/{site}/{camera}", title="Topic of faces",
        description="A topic with {site} and {camera} where wanted; `#` at its end stands for both.",
    )  # fmt: skip

    @field_validator("faces")
    @classmethod
    def _faces(cls, value: str) -> str:
        try:
            FaceTopic(value)
        except TopicError as error:
            raise ValueError(str(error)) from error
        return value


class MessageLimits(Section):
    """What one message may be: the outbox, both brokers and the store keep to it."""

    message_bytes: Annotated[int, Field(ge=10_000, le=60_000_000)] = Field(
        1_000_000,
        title="Message size",
        description="Bytes of one face at most; a larger crop is scaled down before it is kept.",
    )
    pixels: Annotated[int, Field(ge=10_000, le=500_000_000)] = Field(
        50_000_000,
        title="Picture size",
        description="Width times height at most; read from the header, before any decoding.",
    )

    @property
    def face(self) -> Limits:
        """The same, as the ground floor takes it."""
        return Limits(bytes=self.message_bytes, pixels=self.pixels)


class Forward(Section):
    """The forwarder."""

    window: Annotated[int, Field(ge=1, le=65_000)] = Field(
        256,
        title="Window",
        description="Messages on their way to the cloud broker without its answer, at most.",
    )


class Uplink(Section):
    """The line to the cloud, where it is thin or costs money. Unset is no limit."""

    bytes_per_second: Annotated[int, Field(ge=1000)] | None = Field(
        None,
        title="Bytes per second",
        description="Of faces, what is sent again included; live faces first.",
    )
    bytes_per_day: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Bytes per day",
        description="Of faces, what is sent again included; a day begins at midnight, UTC.",
    )
    min_quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None,
        title="Least quality",
        description="Of JPEG and WebP, while the line is too thin for all; unset: picture.quality always.",
    )
    min_side: Annotated[int, Field(ge=16, le=8192)] | None = Field(
        None,
        title="Least side",
        description="Longest side in pixels, while the line is too thin; unset: picture.max_side always.",
    )
