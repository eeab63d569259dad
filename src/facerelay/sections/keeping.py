"""Outbox, bucket, store, page: where faces are kept and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from facerelay.face import Slug
from facerelay.sections.base import LOOPBACK, Bytes, Port, Section, read_secret


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
        2_000_000,
        title="Window",
        description="Bytes in flight without a receipt at most; fewer at first, and on a line that fills up.",
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
    expire_hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = Field(
        None,
        title="Expiry",
        description="Hours after which a face that still waits is dropped, and counted; unset: never.",
    )
    sync: Literal["full", "normal"] = Field(
        "full",
        title="Sync",
        description="full; or normal: cheaper, but a power cut may take the last minutes (a crash nothing).",
    )
    keep_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        30,
        title="Books kept",
        description="Days for which ids of answered faces are kept for an audit (no pictures).",
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
    def _oneread_secret(self) -> Bucket:
        if self.secret_key is not None and self.secret_key_file is not None:
            raise ValueError("set secret_key or secret_key_file, not both")
        return self

    def secret(self) -> str | None:
        """Return the secret key, read from its file at this moment."""
        return read_secret(self.secret_key, self.secret_key_file)


class Store(Section):
    """The store."""

    name: Slug = Field("store", title="Name", description="Of this store, in its receipts.")
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        128, title="Concurrency", description="PUTs at once, at most."
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
    """The gallery: the faces of the bucket on web pages."""

    host: str = Field("127.0.0.1", title="Host", description="Address to listen on: loopback only.")
    port: Port = Field(8080, title="Port", description="0 takes a free one.")
    erase: bool = Field(default=True, title="Erase", description="Whether faces can be erased on the page.")
    listen: bool = Field(
        default=False,
        title="Listen",
        description="Learn of new faces by the receipts at this side's broker, in place of looking.",
    )
    look_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        0.6,
        title="Look",
        description="Seconds between looks for new faces while a page is open: a listing a camera each.",
    )
    cache: Path = Field(
        Path("gallery-cache"), title="Cache", description="The folder of thumbnails, for this user alone."
    )
    cache_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        500_000_000, title="Cache budget", description="Of thumbnails on disk; past it the oldest go."
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow insecure",
        description="Listen beyond loopback: in a container, whose port is then published on loopback alone.",
    )

    @model_validator(mode="after")
    def _on_loopback(self) -> Gallery:
        if not self.allow_insecure and self.host not in LOOPBACK:
            raise ValueError(
                "gallery.host: the page shows faces without a password, so it listens on loopback only"
                " (use an SSH tunnel)"
            )
        return self
