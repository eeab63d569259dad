"""What a bucket does as a whole: its rules, its versions, its locks; on SeaweedFS, and as AWS answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from buckets import Weed
from chains import facerelay
from facerelay import config, settings
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.contract import BucketError
from facerelay.cloud.signature import Signer
from facerelay.cloud.whole import UnaskableError, Whole
from facerelay.commands import keeping
from facerelay.commands.keeping import KeptError
from fake_server import Handle, fake_server

OTHERS = (
    "<Rule><ID>logs</ID><Filter><Prefix>logs/</Prefix></Filter><Status>Enabled</Status>"
    "<Expiration><Days>3</Days></Expiration></Rule>"
)
AWS = '<?xml version="1.0" encoding="UTF-8"?>\n'
XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def made(weed: Weed, name: str) -> config.Bucket:
    """Return a bucket with something in it."""
    found = weed.bucket(name)
    asyncio.run(open_bucket(found).put_new("faces/x.jpg", b"x"))
    return found


def cloud(tmp_path: Path, weed: Weed, url: str) -> str:
    (tmp_path / "secret").write_text(weed.secret_key)
    bucket = {
        "url": url,
        "endpoint": weed.endpoint,
        "access_key": weed.access_key,
        "secret_key_file": "secret",
    }
    path = tmp_path / "cloud.toml"
    path.write_text(settings.template(settings.CLOUD, {"bucket": bucket}))
    return str(path)


def ask(weed: Weed, name: str, query: str, body: str) -> None:
    whole = Whole.of(weed.bucket(name))
    whole._request("PUT", query, body.encode())


def test_rules_are_set_beside_those_of_others_and_go_with_forever(tmp_path: Path, weed: Weed) -> None:
    bucket = made(weed, "rules")
    whole = Whole.of(bucket)
    asyncio.run(whole.set_lifecycle({"logs": OTHERS}))
    at = cloud(tmp_path, weed, "s3://rules/below")
    shown = facerelay("lifecycle", "-c", at)
    rules = {
        rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in json.loads(shown.stdout)["Rules"]
    }
    assert rules == {
        "below/catalogue/": 30, "below/faces/": 30, "below/foreign/": 30, "below/history/": 30,
        "below/ledger/": 30, "below/quarantine/": 7, "below/shards/": 30,
    }  # fmt: skip
    assert asyncio.run(whole.lifecycle()).keys() == {"logs"}
    done = facerelay("lifecycle", "--apply", "-c", at)
    assert done.returncode == 0, done.stderr
    assert "set: 7 rules; left as they were: 1; removed: 0" in done.stderr
    there = asyncio.run(whole.lifecycle())
    assert there["logs"] == OTHERS
    assert "<Prefix>below/faces/</Prefix>" in there["facerelay:below/faces"]
    assert "<Days>30</Days>" in there["facerelay:below/faces"]
    assert not any("tombstones" in rule or "proofs" in rule for rule in there.values())
    again = facerelay("lifecycle", "--apply", "-c", at, "--set", "store.retention_days=forever")
    assert "set: 1 rules; left as they were: 1; removed: 6" in again.stderr
    assert asyncio.run(whole.lifecycle()).keys() == {"logs", "facerelay:below/quarantine"}


@pytest.mark.parametrize("kind", ["versioned", "locked", "suspended"])
def test_a_bucket_that_keeps_what_is_erased_is_reported(weed: Weed, kind: str) -> None:
    if kind == "locked":
        whole = Whole.of(weed.bucket(kind))
        more = {"x-amz-bucket-object-lock-enabled": "true"}
        assert whole._request("PUT", "", b"", more)[0] == 200
    else:
        made(weed, kind)
        for state in ("Enabled", "Suspended")[: 2 if kind == "suspended" else 1]:
            text = f"<VersioningConfiguration {XMLNS}><Status>{state}</Status></VersioningConfiguration>"
            ask(weed, kind, "versioning=", text)
    word = {"versioned": "keeps versions", "locked": "object lock", "suspended": "has the old ones"}[kind]
    with pytest.raises(KeptError, match=word):
        asyncio.run(keeping.see(weed.bucket(kind)))


def test_doctor_and_erase_say_that_erasure_cannot_be_promised(tmp_path: Path, weed: Weed) -> None:
    made(weed, "old")
    text = f"<VersioningConfiguration {XMLNS}><Status>Enabled</Status></VersioningConfiguration>"
    ask(weed, "old", "versioning=", text)
    at = cloud(tmp_path, weed, "s3://old")
    lines = [json.loads(line) for line in facerelay("doctor", "--json", "-c", at).stdout.splitlines()]
    [found] = [line for line in lines if line["check"] == "erasure"]
    assert not found["ok"]
    assert "keeps versions" in found["says"]
    done = facerelay("erase", "--site", "home", "--yes", "--wait", "0", "-c", at)
    assert done.returncode == 0
    assert "erasure cannot be promised" in done.stderr


def test_a_plain_bucket_is_fine_and_so_is_a_folder(tmp_path: Path, weed: Weed) -> None:
    assert "what is erased is gone" in asyncio.run(keeping.see(made(weed, "plain")))
    assert "snapshots" in asyncio.run(keeping.see(config.Bucket(url=f"file://{tmp_path}")))
    assert "soft delete" in asyncio.run(keeping.see(config.Bucket(url="gs://faces")))


def answering(answers: Mapping[str, tuple[int, str]], asked: list[str]) -> Handle:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head)
        status, text = answers[head.partition("?")[2].partition("=")[0]]
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()

    return handle


def error(code: str) -> str:
    return f"{AWS}<Error><Code>{code}</Code><Message>m</Message></Error>"


LOCKED = (
    f"{AWS}<ObjectLockConfiguration {XMLNS}><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
    "<DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
)


@pytest.mark.parametrize(
    ("versions", "lock", "says"),
    [
        ((200, f"{AWS}<VersioningConfiguration {XMLNS}/>"),
         (404, error("ObjectLockConfigurationNotFoundError")), "what is erased is gone"),
        ((200, f"{AWS}<VersioningConfiguration {XMLNS}><Status>Enabled</Status></VersioningConfiguration>"),
         (404, error("ObjectLockConfigurationNotFoundError")), "erasure cannot be promised"),
        ((200, f"{AWS}<VersioningConfiguration {XMLNS}><Status>Enabled</Status></VersioningConfiguration>"),
         (200, LOCKED), "object lock"),
        ((403, error("AccessDenied")), (403, error("AccessDenied")), "not known, see at the provider"),
        ((501, error("NotImplemented")), (501, error("NotImplemented")), "not known, see at the provider"),
        ((404, error("NoSuchBucket")), (404, error("NoSuchBucket")), "NoSuchBucket"),
    ],
)  # fmt: skip
def test_as_aws_answers(versions: tuple[int, str], lock: tuple[int, str], says: str) -> None:
    async def scenario() -> None:
        asked: list[str] = []
        async with fake_server(answering({"versioning": versions, "object-lock": lock}, asked)) as port:
            bucket = config.Bucket(
                url="s3://faces",
                endpoint=f"http://127.0.0.1:{port}",
                access_key="AK",
                secret_key=SecretStr("s"),
            )
            try:
                said = await keeping.see(bucket)
            except KeptError as kept:
                said = str(kept)
            assert says in said
            assert asked[0].startswith("GET /faces?versioning= HTTP/1.1\r\n")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "text", [f"{AWS}<LifecycleConfiguration><!-- a --></LifecycleConfiguration>",
             f"{AWS}<x:LifecycleConfiguration><x:Rule></x:Rule></x:LifecycleConfiguration>",
             f"{AWS}<LifecycleConfiguration>{OTHERS}{OTHERS}</LifecycleConfiguration>",
             f"{AWS}<LifecycleConfiguration><Rule><ID>cut"],
)  # fmt: skip
def test_rules_that_are_not_understood_are_left_alone(text: str) -> None:
    async def scenario() -> None:
        asked: list[str] = []
        async with fake_server(answering({"lifecycle": (200, text)}, asked)) as port:
            signer = Signer(access_key="AK", secret_key="s" * 9, region="us-east-1")
            whole = Whole(endpoint=f"http://127.0.0.1:{port}", bucket="faces", signer=signer)
            with pytest.raises(BucketError, match="at the provider"):
                await whole.lifecycle()

    asyncio.run(scenario())


def test_who_has_no_key_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnaskableError, match="no key"):
        Whole.of(config.Bucket(url="s3://faces"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert Whole.of(config.Bucket(url="s3://faces"))


def test_a_folder_takes_no_rules_and_says_who_deletes(tmp_path: Path) -> None:
    flags = ["--set", f"bucket.url=file://{tmp_path}"]
    shown = facerelay("lifecycle", *flags)
    prefixes = {rule["Filter"]["Prefix"] for rule in json.loads(shown.stdout)["Rules"]}
    places = "catalogue", "faces", "foreign", "history", "ledger", "quarantine", "shards"
    assert (shown.returncode, prefixes) == (0, {f"{place}/" for place in places})
    assert "the store's sweeper" in shown.stderr
    done = facerelay("lifecycle", "--apply", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not on S3" in done.stderr
