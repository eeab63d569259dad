"""Open a bucket by its address: a folder, S3 and what speaks it, GCS, Azure, memory."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from facerelay import config
from facerelay.cloud.contract import (
    LONGEST_PUT_S,
    Bucket,
    BucketError,
    Children,
    Entry,
    MissingError,
    Probe,
    check_key,
    content_type,
)
from facerelay.cloud.folder import FolderBucket
from facerelay.cloud.objects import ObjectBucket
from facerelay.cloud.quick import Quick
from facerelay.cloud.signature import Signer
from facerelay.sections.base import is_loopback

if TYPE_CHECKING:  # obstore's settings are types alone: they are not there at run time
    from obstore.store import AzureConfig, ClientConfig, ObjectStore, RetryConfig, S3Config

__all__ = [
    "LONGEST_PUT_S", "Bucket", "BucketError", "Children", "Entry", "MissingError", "Probe",
    "check_key", "content_type", "open_bucket",
]  # fmt: skip

_PLAIN: Final = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE",
    "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED",
}  # fmt: skip
"""What the environment may hold without a say in how a request with keys of its own is made."""

_CONNECT: Final = timedelta(seconds=5)
_REQUEST: Final = timedelta(seconds=20)
_RETRIES: Final = timedelta(seconds=10)


def open_bucket(settings: config.Bucket, *, quick: bool = False) -> Bucket:
    """Open a bucket; nothing is asked of it yet.

    Args:
        settings: where it is, and as whom to come to it.
        quick: create objects over connections of our own where that can be; who asks for it must `close`.

    Raises:
        BucketError: the address or another setting cannot be right; the message names it.
    """
    parts = urlsplit(settings.url)
    if parts.scheme == "file":
        return FolderBucket(Path(settings.url.removeprefix("file://")), url=settings.url)
    if parts.scheme == "memory":
        return ObjectBucket(MemoryStore(), url=settings.url)
    if not parts.netloc or parts.username or parts.password or parts.query:
        raise _wrong("write bucket.url as s3://bucket/prefix, gs://…, az://…, or file:///folder")
    openers = {"s3": _s3, "gs": _gcs, "az": _azure}
    if parts.scheme not in openers:
        raise _wrong(f"bucket.url begins with {parts.scheme!r}: known are file, s3, gs, az, memory")
    try:
        store = openers[parts.scheme](settings)
    except (BaseError, ValueError, OSError) as error:
        raise _wrong(f"bucket.url or one of its settings: {error}") from error
    return ObjectBucket(store, url=settings.url, quick=_quick(settings) if quick else None)


def _quick(settings: config.Bucket) -> Quick | None:
    """Return the quick way to an S3 server that is named with its keys, and reached without a proxy.

    AWS itself and whatever the environment says of it (roles, tokens, encryption) are the library's.
    """
    parts = urlsplit(settings.url)
    access, secret = _keys(settings)
    if parts.scheme != "s3" or not (settings.endpoint and access and secret):
        return None
    endpoint = urlsplit(settings.endpoint)
    proxied = {endpoint.scheme, "all"} & getproxies().keys() and not proxy_bypass(endpoint.hostname or "")
    more = {name for name in os.environ if name.startswith("AWS_")} - _PLAIN
    if proxied or more or endpoint.path.strip("/") or endpoint.username or not endpoint.netloc.isascii():
        return None
    signer = Signer(access_key=access, secret_key=secret, region=settings.region or "us-east-1")
    return Quick(endpoint=settings.endpoint, path=f"{parts.netloc}{parts.path}", signer=signer)


def _s3(settings: config.Bucket) -> ObjectStore:
    parts = urlsplit(settings.url)
    chosen: S3Config = {"region": settings.region or "us-east-1"} if settings.endpoint else {}
    if settings.region:
        chosen["region"] = settings.region
    if settings.endpoint:
        chosen["endpoint"] = settings.endpoint.rstrip("/")
        chosen["virtual_hosted_style_request"] = False
    access, secret = _keys(settings)
    if access and secret:
        chosen["access_key_id"], chosen["secret_access_key"] = access, secret
    return S3Store(
        parts.netloc, prefix=_prefix(parts.path), config=chosen,
        client_options=_client(settings), retry_config=_retry(),
    )  # fmt: skip


def _gcs(settings: config.Bucket) -> ObjectStore:
    parts = urlsplit(settings.url)
    if settings.access_key:
        raise _wrong("gs:// takes credentials from GOOGLE_APPLICATION_CREDENTIALS, not bucket.access_key")
    return GCSStore(
        parts.netloc, prefix=_prefix(parts.path), client_options=_client(settings), retry_config=_retry()
    )


def _azure(settings: config.Bucket) -> ObjectStore:
    parts = urlsplit(settings.url)
    account, secret = _keys(settings)
    chosen: AzureConfig = {}
    if settings.endpoint:
        chosen["endpoint"] = settings.endpoint
    if account and secret:
        chosen["account_name"], chosen["account_key"] = account, secret
    return AzureStore(
        parts.netloc, prefix=_prefix(parts.path), config=chosen,
        client_options=_client(settings), retry_config=_retry(),
    )  # fmt: skip


def _client(settings: config.Bucket) -> ClientConfig:
    """Bounded requests; http only on loopback, or where it was allowed by name."""
    plain = False
    if settings.endpoint:
        endpoint = urlsplit(settings.endpoint)
        if endpoint.scheme not in {"http", "https"} or not endpoint.hostname:
            raise _wrong("bucket.endpoint: write it as https://host:port")
        plain = endpoint.scheme == "http"
        if plain and not settings.allow_http and not is_loopback(endpoint.hostname):
            raise _wrong(
                "bucket.endpoint is http, beyond this machine: use https, or set bucket.allow_http = true"
            )
    return {"connect_timeout": _CONNECT, "timeout": _REQUEST, "allow_http": plain}


def _retry() -> RetryConfig:
    backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2}
    return {"max_retries": 2, "retry_timeout": _RETRIES, "backoff": backoff}  # type: ignore[typeddict-item]


def _keys(settings: config.Bucket) -> tuple[str | None, str | None]:
    try:
        secret = settings.secret()
    except OSError as error:
        raise _wrong(f"bucket.secret_key_file: {error.strerror}") from error
    if bool(settings.access_key) != bool(secret):
        raise _wrong("bucket.access_key and bucket.secret_key go together: set both, or neither")
    return settings.access_key, secret


def _prefix(path: str) -> str | None:
    return path.strip("/") or None


def _wrong(message: str) -> BucketError:
    return BucketError("", message, "setting")
