from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import AzureStore, GCSStore, S3Store
from pydantic import SecretStr

from conftest import need
from facerelay import config
from facerelay.cloud.bucket import BucketError, open_bucket
from facerelay.cloud.objects import ObjectBucket

ROOT = Path(__file__).parents[1]
SECRET = "c2VjcmV0LWtleQ=="  # noqa: S105 - nobody's
WHERE = {
    "IBM COS": "https://s3.eu-de.cloud-object-storage.appdomain.cloud/faces/",
    "AWS S3": "https://s3.eu-central-1.amazonaws.com/faces/",
    "Azure": "https://account.blob.core.windows.net/faces/",
    "GCS": "https://storage.googleapis.com/faces/",
    "R2": "https://account.r2.cloudflarestorage.com/faces/",
}
"""Where a bucket's faces are asked for, by the heading under which the page has its settings."""


def settings() -> dict[str, dict[str, str]]:
    """Return what the page says of each provider's bucket."""
    sections = re.split(r"^### ", (ROOT / "docs/cloud-machine.md").read_text(), flags=re.MULTILINE)
    found = {}
    for section in sections:
        block = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
        if block:
            found[section.splitlines()[0]] = tomllib.loads(block[1])["bucket"]
    return found


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every provider's settings out of the environment."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Name a service account that is nobody's."""
    make = [need("openssl"), "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    account = {
        "type": "service_account", "private_key_id": "1", "client_email": "nobody@example.org",
        "private_key": subprocess.run(make, capture_output=True, text=True, check=True).stdout,
    }  # fmt: skip
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))


def signed(bucket: config.Bucket) -> str:
    """Return the address that a face of the bucket would be asked for at; nothing is sent."""
    opened = open_bucket(bucket)
    assert isinstance(opened, ObjectBucket)
    assert isinstance(opened._store, S3Store | AzureStore | GCSStore)
    return obstore.sign(opened._store, "GET", "a/b.jpg", timedelta(minutes=1)).partition("?")[0]


def test_the_page_has_each_provider() -> None:
    assert settings().keys() == WHERE.keys()


@pytest.mark.usefixtures("google")
@pytest.mark.parametrize("provider", WHERE)
def test_a_providers_bucket_is_asked_at_its_own_address(provider: str) -> None:
    known = settings()[provider]
    secret = SecretStr(SECRET) if "access_key" in known else None
    bucket = config.Bucket.model_validate(known | {"secret_key": secret})
    assert signed(bucket).lower() == f"{WHERE[provider]}a/b.jpg"
    within = bucket.model_copy(update={"url": f"{bucket.url}/site/one"})
    assert signed(within).lower() == f"{WHERE[provider]}site/one/a/b.jpg"


@pytest.mark.parametrize("provider", ["IBM COS", "AWS S3", "Azure", "R2"])
def test_a_bucket_whose_secret_key_has_not_come_is_refused(provider: str, tmp_path: Path) -> None:
    empty = tmp_path / "bucket-key"
    empty.touch()
    bucket = config.Bucket.model_validate(settings()[provider] | {"secret_key_file": empty})
    with pytest.raises(BucketError, match="go together"):
        open_bucket(bucket)


def test_a_machines_own_role_takes_an_empty_key_file(tmp_path: Path) -> None:
    empty = tmp_path / "bucket-key"
    empty.touch()
    for url in ("s3://faces", "gs://faces"):
        opened = open_bucket(config.Bucket(url=url, region="eu-central-1", secret_key_file=empty))
        assert isinstance(opened, ObjectBucket)


def test_a_providers_own_endpoint_is_reached_with_tls() -> None:
    for provider in ("IBM COS", "R2"):
        known = settings()[provider]
        plain = known | {"endpoint": known["endpoint"].replace("https", "http"), "secret_key": SECRET}
        with pytest.raises(BucketError, match="use https"):
            open_bucket(config.Bucket.model_validate(plain))


@pytest.mark.parametrize(
    "url",
    [
        "https://faces.s3.amazonaws.com", "cos://faces", "r2://faces", "abfss://faces", "gcs://faces",
        "s3://key:secret@faces", "s3://faces?region=eu-de", "s3:faces", "s3://",
    ],
)  # fmt: skip
def test_another_form_of_address_is_refused_by_name(url: str) -> None:
    with pytest.raises(BucketError, match=r"bucket\.url"):
        open_bucket(config.Bucket(url=url))
