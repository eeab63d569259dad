"""The sections of a configuration: each setting has a title, a line of help, a default and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from facerelay.face import Limits, Slug
from facerelay.topics import FaceTopic, TopicError

Port = Annotated[int, Field(ge=0, le=65_535)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
_MAX_SECRET_BYTES = 4096


class Section(BaseModel):
    """Settings that belong together; unknown ones are mistakes, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _secret(value: SecretStr | None, path: Path | None) -> str | None:
    if path is None:
        return value.get_secret_value() if value else None
    with path.open(encoding="utf-8") as file:
        return file.read(_MAX_SECRET_BYTES).rstrip("\r\n")


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
    allow_insecure: bool = Field(
        default=False,
        title="Allow insecure",
        description="Let the embedded broker listen beyond loopback without TLS and password.",
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("put the user name and password into their own settings, not into the url")
        try:
            parts = urlsplit(value)
            right = parts.scheme in {"mqtt", "mqtts"} and parts.hostname and parts.port != 0
        except ValueError:
            right = False
        if not right:
            raise ValueError("write it as mqtt://host:port, or mqtts://host:port") from None
        return value

    @model_validator(mode="after")
    def _pairs(self) -> Broker:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        if self.password is not None and self.password_file is not None:
            raise ValueError("set password or password_file, not both")
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

    def secret(self) -> str | None:
        """Return the password, read from its file at this moment."""
        return _secret(self.password, self.password_file)


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


class Camera(Section):
    """A camera."""

    name: Slug = Field(
        title="Name", description="Lower case letters, digits, - and _: part of topics and keys."
    )
    source: str = Field(
        title="Source",
        description="Webcam number, file, folder, rtsp:// or http:// URL, or `scene` for the built-in one.",
    )

    @field_validator("source", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    pace: bool = Field(
        default=True,
        title="Real time",
        description="Play files at their own speed; false takes every frame as fast as it can.",
    )


class Detect(Section):
    """The face detector."""

    model: Literal["auto", "yunet", "opencv", "haar"] = Field(
        "auto",
        title="Model",
        description="auto: yunet (onnxruntime), else opencv (the same model); haar: the old cascade.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7, title="Threshold", description="The least score of a face."
    )
    size: Annotated[int, Field(ge=160, le=4096)] = Field(
        640, title="Size", description="Long side of the picture that the detector sees, in pixels."
    )


class Visits(Section):
    """Which pictures of a visit are sent."""

    policy: Literal["best", "every"] = Field(
        "best", title="Policy", description="best: one face per visit; every: each every-th detection."
    )
    wait_s: Seconds = Field(
        2.0,
        title="Wait",
        description="The best picture is sent at the latest so long after the first good one.",
    )
    every: Annotated[int, Field(ge=1)] = Field(
        1, title="Every", description="With policy every: send every N-th detection."
    )
    gap_s: Seconds = Field(
        1.5, title="Gap", description="A visit ends when its face was not seen for so long."
    )
    min_eyes: Annotated[float, Field(ge=1)] = Field(
        4.0,
        title="Least size",
        description="Pixels between the eyes; a smaller face is refused, and counted.",
    )


class PictureFormat(Section):
    """How a face is cut out and encoded."""

    format: Literal["jpeg", "png", "webp"] = Field("jpeg", title="Format", description="jpeg, png or webp.")
    quality: Annotated[int, Field(ge=1, le=100)] = Field(90, title="Quality", description="Of JPEG and WebP.")
    margin: Annotated[float, Field(ge=0, le=2)] = Field(
        0.3, title="Margin", description="Around the face's box, as a share of its size."
    )
    grey: bool = Field(default=False, title="Grey", description="Send grey pictures.")
    max_side: Annotated[int, Field(ge=16, le=8192)] = Field(
        640, title="Largest side", description="Larger crops are scaled down to it, in pixels."
    )


class Outbox(Section):
    """The outbox: the only queue, on the edge's disk."""

    path: Path = Field(
        Path("outbox.db"), title="File", description="Where captured faces wait for their receipts."
    )
    max_bytes: Bytes = Field(
        2_000_000_000,
        title="Disk budget",
        description="Of waiting pictures; past it the least valuable goes first, and is counted.",
    )
    window_bytes: Annotated[int, Field(ge=10_000)] = Field(
        512_000, title="Window", description="Bytes in flight without a receipt at most."
    )
    overdue_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        5.0,
        title="Overdue",
        description="How long a receipt may take before round trips were seen; then it follows them.",
    )
    max_unanswered: Annotated[int, Field(ge=1)] = Field(
        8,
        title="Unanswered sends",
        description="A face sent so often in vain, while others were answered, is parked.",
    )
    keep_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        30,
        title="Books kept",
        description="Days for which ids of answered faces are kept for an audit (no pictures).",
    )


class Forward(Section):
    """The forwarder."""

    window: Annotated[int, Field(ge=1, le=65_000)] = Field(
        256,
        title="Window",
        description="Messages on their way to the cloud broker without its answer, at most.",
    )


class Bucket(Section):
    """Where faces are stored."""

    url: str = Field(
        "file://bucket",
        title="Address",
        description="file:///folder, s3://bucket/prefix, gs://, az://; file://name is relative to here.",
    )
    endpoint: str | None = Field(
        None, title="Endpoint", description="URL of an S3-compatible server; unset for AWS."
    )
    region: str | None = Field(None, title="Region", description="As the provider names it.")
    access_key: str | None = Field(
        None, title="Access key", description="Unset: the environment's or the machine's own credentials."
    )
    secret_key: SecretStr | None = Field(
        None, title="Secret key", description="Better in secret_key_file, or in the environment."
    )
    secret_key_file: Path | None = Field(
        None, title="Secret key file", description="A file that holds the secret key alone."
    )
    allow_http: bool = Field(
        default=False, title="Allow http", description="Talk to an endpoint beyond loopback without TLS."
    )

    @model_validator(mode="after")
    def _one_secret(self) -> Bucket:
        if self.secret_key is not None and self.secret_key_file is not None:
            raise ValueError("set secret_key or secret_key_file, not both")
        return self

    def secret(self) -> str | None:
        """Return the secret key, read from its file at this moment."""
        return _secret(self.secret_key, self.secret_key_file)


class Store(Section):
    """The store."""

    name: Slug = Field("store", title="Name", description="Of this store, in its receipts.")
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        64, title="Concurrency", description="PUTs at once, at most."
    )
    retention_days: Annotated[float, Field(ge=0, le=36_500)] = Field(
        30,
        title="Retention",
        description="Faces are deleted so many days after they arrived; 0 keeps them for ever.",
    )
    quarantine_bytes: Bytes = Field(
        100_000_000, title="Quarantine budget", description="Bytes of unreadable messages kept, at most."
    )
    quarantine_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        7, title="Quarantine life", description="Days for which they are kept."
    )


class Gallery(Section):
    """The web page of the latest faces."""

    host: str = Field("127.0.0.1", title="Host", description="Address to listen on: loopback only.")
    port: Port = Field(8080, title="Port", description="0 takes a free one.")

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        if value not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError(
                "the page shows faces without a password, so it listens on loopback only (use an SSH tunnel)"
            )
        return value
