"""Outbox, bucket, store: where faces are kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from facerelay.face import Slug
from facerelay.sections.base import FOREVER, Bytes, Kept, Section, read_secret


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
    expire_hours: Kept = Field(
        72,
        title="Retention",
        description='Hours after which a picture that nobody took is dropped, and counted; or "forever".',
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

    @property
    def expire_s(self) -> float | None:
        """Seconds for which a picture is kept; None: for ever."""
        return None if self.expire_hours == FOREVER else 3600 * self.expire_hours


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
        return read_secret(self.secret_key, self.secret_key_file)


class Store(Section):
    """The store."""

    name: Slug = Field("store", title="Name", description="Of this store, in its receipts.")
    instance: Slug | None = Field(
        None,
        title="Instance",
        description="Tells processes apart that have one name and one certificate: a pod's name.",
    )
    intake: Literal["mqtt", "shared", "jetstream"] = Field(
        "mqtt",
        title="Intake",
        description="mqtt: all faces; shared (by $share) or jetstream: the stores of a group share them.",
    )
    group: Slug = Field(
        "facerelay", title="Group", description="Stores of one group share: each face goes to one of them."
    )
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        128, title="Concurrency", description="PUTs at once, at most."
    )
    layout: Literal["objects", "shards"] = Field(
        "objects",
        title="Layout",
        description="objects: a face is an object; shards: many lie in one tar, with a catalogue in Parquet.",
    )
    shard_bytes: Annotated[int, Field(ge=1_000_000, le=256_000_000)] = Field(
        32_000_000, title="Shard size", description="Bytes from which an open shard is closed."
    )
    shard_s: Annotated[float, Field(gt=0, le=600)] = Field(
        300, title="Shard age", description="Seconds after which an open shard is closed, however small."
    )
    books_s: Annotated[float, Field(ge=0, le=30)] = Field(
        10,
        title="Books written",
        description="Seconds between writings of one outbox's books in the bucket: each is a PUT to be paid.",
    )
    retention_days: Kept = Field(
        30,
        title="Retention",
        description='Days after its arrival when a face is deleted, within an hour; or "forever".',
    )
    quarantine_bytes: Bytes = Field(
        100_000_000, title="Quarantine budget", description="Bytes of unreadable messages kept, at most."
    )
    quarantine_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        7, title="Quarantine life", description="Days for which they are kept."
    )

    @property
    def retention(self) -> timedelta | None:
        """How long faces are kept; None: for ever."""
        return None if self.retention_days == FOREVER else timedelta(days=self.retention_days)
