from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from buckets import Weed
from chains import eventually, facerelay
from conftest import Make
from facerelay import config, settings
from facerelay.cloud.bucket import open_bucket
from facerelay.commands import share
from facerelay.commands.share import lifetime
from facerelay.face import Frozen
from facerelay.settings import ConfigError, template
from servers import free_port


def written(folder: Path, bucket: dict[str, object]) -> str:
    """Write the settings of the cloud's side, and return their path."""
    path = folder / "cloud.toml"
    path.write_text(template(settings.CLOUD, {"bucket": bucket}))
    return str(path)


@pytest.fixture
def cloud(tmp_path: Path, weed: Weed) -> str:
    (tmp_path / "secret").write_text(weed.secret_key)
    return written(tmp_path, {
        "url": "s3://shared/below", "endpoint": weed.endpoint, "access_key": weed.access_key,
        "secret_key_file": "secret",
    })  # fmt: skip


def put(weed: Weed, *faces: tuple[str, bytes]) -> None:
    async def work() -> None:
        for key, data in faces:
            await open_bucket(weed.bucket("shared", "below")).put_new(key, data, content_type="image/jpeg")

    asyncio.run(work())


@pytest.fixture
def one(weed: Weed, make_face: Make) -> Frozen:
    made = make_face()
    put(weed, (made.key, made.data))
    return made


def fetch(url: str) -> tuple[int, bytes, str]:
    """Open a link as anybody would: status, body, media type."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http, on loopback
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b"", ""


def test_a_link_by_key_or_by_id_gives_the_face_to_anybody(cloud: str, one: Frozen) -> None:
    done = facerelay("share", one.key, one.face.id, "-c", cloud)
    assert done.returncode == 0, done.stderr
    links = done.stdout.splitlines()
    assert len(links) == 2
    for link in links:
        assert fetch(link) == (200, one.data, "image/jpeg")
    assert "only-for-tests" not in done.stdout + done.stderr
    assert "works on this machine alone" in done.stderr
    assert f"{one.key}: for whoever has the link, until " in done.stderr


def test_a_link_lasts_as_long_as_was_said_and_json_says_until_when(cloud: str, one: Frozen) -> None:
    done = facerelay("share", one.key, "--for", "90m", "--json", "-c", cloud)
    said = json.loads(done.stdout)
    assert (said["key"], fetch(said["url"])[0]) == (one.key, 200)
    left = datetime.fromisoformat(said["expires"]) - datetime.now(UTC)
    assert timedelta(minutes=89) < left <= timedelta(minutes=90)
    assert "X-Amz-Expires=5400" in said["url"]


def test_after_its_end_a_link_is_refused(cloud: str, one: Frozen) -> None:
    link = facerelay("share", one.key, "--for", "1s", "-c", cloud).stdout.strip()
    eventually(lambda: fetch(link)[0] == 403)


def test_a_link_that_was_changed_is_refused(cloud: str, weed: Weed, one: Frozen, make_face: Make) -> None:
    other = make_face()
    put(weed, (other.key, other.data))
    link = facerelay("share", one.key, "-c", cloud).stdout.strip()
    assert fetch(link)[0] == 200
    last = link[-1]
    for changed in (
        link.replace("X-Amz-Expires=3600", "X-Amz-Expires=36000"),
        link.replace(one.face.id, other.face.id).replace(one.sha256[:8], other.sha256[:8]),
        link[:-1] + ("0" if last != "0" else "1"),
        link.partition("?")[0],
    ):
        assert changed != link
        assert fetch(changed)[0] == 403


def test_a_foreign_picture_is_shared_by_its_key(cloud: str, weed: Weed, jpeg: bytes) -> None:
    key = f"foreign/topic=image/{'0' * 64}.jpg"
    put(weed, (key, jpeg))
    done = facerelay("share", key, "-c", cloud)
    assert fetch(done.stdout.strip()) == (200, jpeg, "image/jpeg")


def test_an_old_face_that_arrived_today_is_found_by_its_id(cloud: str, weed: Weed, make_face: Make) -> None:
    old = make_face(time=datetime(2001, 2, 3, tzinfo=UTC))
    put(weed, (old.key, old.data))
    done = facerelay("share", old.face.id, "-c", cloud)
    assert fetch(done.stdout.strip())[1] == old.data


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("faces/site=home/nothing.jpg", "there is no such object"),
        ("01234567-0123-7123-8123-0123456789ab", "there is no such object"),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", "there is no such object"),
        ("quarantine/date=2026-11-21/x.bin", "not the key of a picture"),
        ("faces/../s3.json", "not a key that facerelay writes"),
    ],
)
def test_what_is_no_face_gets_no_link(cloud: str, one: Frozen, name: str, said: str) -> None:  # noqa: ARG001 - the bucket must be there
    done = facerelay("share", name, "-c", cloud)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("said", ["8d", "0s", "-1h", "an hour", "1", "999999d"])
def test_a_time_that_no_bucket_signs_for_is_refused(said: str) -> None:
    with pytest.raises(ConfigError, match="--for"):
        lifetime(said)
    assert lifetime("7d") == timedelta(days=7)


def test_a_folder_has_no_links_and_says_what_to_do(tmp_path: Path, make_face: Make) -> None:
    made, root = make_face(), tmp_path / "bucket"
    asyncio.run(open_bucket(config.Bucket(url=f"file://{root}")).put_new(made.key, made.data))
    done = facerelay("share", made.key, "-c", written(tmp_path, {"url": "file://bucket"}))
    assert (done.returncode, done.stdout) == (1, "")
    assert "only a bucket with an http address has links" in done.stderr
    assert "--set bucket.url=s3://" in done.stderr


def test_without_a_key_of_the_bucket_nothing_is_signed(
    tmp_path: Path, weed: Weed, one: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    path = written(tmp_path, {"url": "s3://shared/below", "endpoint": weed.endpoint})
    done = facerelay("share", one.key, "-c", path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "bucket.access_key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_link_is_signed_for_the_address_that_others_use(cloud: str, one: Frozen) -> None:
    done = facerelay("share", one.key, "--endpoint", "https://faces.example.org", "-c", cloud)
    assert done.stdout.startswith("https://faces.example.org/shared/below/faces/site%3Dhome/")
    assert "on this machine alone" not in done.stderr
    plain = facerelay("share", one.key, "--endpoint", "http://faces.example.org", "-c", cloud)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert "use https" in plain.stderr


def test_azure_signs_with_its_account_key_and_asks_nobody() -> None:
    key = base64.b64encode(b"k" * 64).decode()
    bucket = config.Bucket(url="az://faces/below", access_key="account", secret_key=SecretStr(key))
    store = share.signing(open_bucket(bucket))
    link = asyncio.run(share.signed(store, "faces/site=home/x.jpg", timedelta(hours=1)))
    assert link.startswith("https://account.blob.core.windows.net/faces/below/faces/site=home/x.jpg?")
    said = parse_qs(urlsplit(link).query)
    assert said["sp"] == ["r"]
    left = datetime.fromisoformat(said["se"][0]) - datetime.now(UTC)
    assert timedelta(minutes=58) < left <= timedelta(hours=1)
    assert key not in link
