"""The proofs of erasure: what a line holds, that changes show, what is surveyed, foreign pictures."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from buckets import Weed
from chains import facerelay
from conftest import Make
from enrolled import Enrolled
from facerelay import config
from facerelay.cloud import by_topic, proofs
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.erase import Rule, erase, erase_rule, survey
from facerelay.cloud.gallery.erasing import Eraser
from facerelay.cloud.keep import Keeper
from facerelay.cloud.proof_signing import checking, signing
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.tombstones import Tombstones
from facerelay.face import Limits
from facerelay.topics import FaceTopic

LIMITS = Limits(bytes=1_000_000, pixels=1_000_000)


def folder(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


def keeper(bucket: Bucket) -> Keeper:
    quarantine = Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1))
    return Keeper(
        bucket, limits=LIMITS, topic=FaceTopic("faces/#"), quarantine=quarantine,
        tombstones=Tombstones(bucket, age_s=0),
    )  # fmt: skip


async def names(bucket: Bucket) -> set[str]:
    return {entry.key async for entry in bucket.list()}


def test_lines_follow_one_another_and_name_nobody(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        faces = [make_face() for _ in range(3)]
        for one in faces:
            await bucket.put_new(one.key, one.data)
        first = await erase(bucket, ids=[faces[0].face.id], longest_put=0)
        second = await erase(bucket, site="home", camera="door", longest_put=0)
        lines = [json.loads(first.proof), json.loads(second.proof)]
        assert [line["number"] for line in lines] == [1, 2]
        assert lines[1]["previous"] == hashlib.sha256(first.proof.encode()).hexdigest()
        assert lines[0]["asked"] == {
            "ids": 1, "ids_sha256": hashlib.sha256(faces[0].face.id.encode()).hexdigest(),
        }  # fmt: skip
        assert {"site": "home", "camera": "door"}.items() <= lines[1]["asked"].items()
        assert [line["places"] for line in lines] == [{"faces": 1}, {"faces": 2}]
        assert not any(one.face.id in first.proof + second.proof for one in faces)
        assert await bucket.get("proofs/000000000002.json", max_bytes=9999) == second.proof.encode()
        found = await proofs.verify(bucket)
        assert (found.well, found.lines) == (True, 2)
        assert found.last == hashlib.sha256(second.proof.encode()).hexdigest()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("change 2", "000000000003.json does not follow"), ("delete 2", "000000000002.json is missing"),
        ("delete 1", "000000000001.json is missing"), ("garble 2", "000000000002.json is not a proof"),
        ("tombstone", "is missing: what it covers may come back"),
    ],
)  # fmt: skip
def test_what_is_missing_or_changed_shows(tmp_path: Path, harm: str, says: str) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        done = [await erase(bucket, site="home", longest_put=0) for _ in range(3)]
        what, _, number = harm.partition(" ")
        path = tmp_path / f"proofs/{int(number or 0):012d}.json"
        if what == "change":
            path.write_text(path.read_text().replace('"deleted": 0', '"deleted": 7'))
        elif what == "garble":
            path.write_text("[]")
        elif what == "delete":
            path.unlink()
        else:
            (tmp_path / done[0].tombstone).unlink()
        found = await proofs.verify(bucket)
        assert not found.well
        assert any(says in fault for fault in found.faults), found.faults

    asyncio.run(scenario())


def test_a_face_put_back_by_hand_is_found(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket, one = folder(tmp_path), make_face()
        await bucket.put_new(one.key, one.data)
        await erase(bucket, ids=[one.face.id], longest_put=0)
        await bucket.put_new(one.key, one.data)
        found = await proofs.verify(bucket)
        assert (found.well, found.alive, found.faults) == (False, 1, [])

    asyncio.run(scenario())


def test_an_enrolled_machine_signs_and_a_forged_chain_shows(tmp_path: Path) -> None:
    """Whoever has the bucket alone can make up a chain, but not who signed it."""
    trust = Enrolled.make(tmp_path).cloud.trust
    stranger = Enrolled.make(tmp_path / "elsewhere").cloud.trust
    sign, check, forge = signing(trust), checking(trust), signing(stranger)

    async def scenario() -> None:
        bucket = folder(tmp_path / "bucket")
        path = tmp_path / "bucket/proofs/000000000002.json"
        for _ in range(2):
            await erase_rule(bucket, Rule(site="home"), longest_put=0, sign=sign)
        found = await proofs.verify(bucket, check=check)
        assert (found.well, found.signed) == (True, 2), found.faults
        honest = path.read_bytes()
        path.write_bytes(honest.replace(b'"deleted": 0', b'"deleted": 7'))
        assert "2.json: " in (await proofs.verify(bucket, check=check)).faults[0]
        path.unlink()
        await erase_rule(bucket, Rule(site="home"), longest_put=0, sign=forge)
        assert "not enrolled here" in (await proofs.verify(bucket, check=check)).faults[0]
        path.unlink()
        await erase_rule(bucket, Rule(site="home"), longest_put=0)
        assert "is not signed" in (await proofs.verify(bucket, check=check)).faults[0]
        path.write_bytes((tmp_path / "bucket/proofs/000000000001.json").read_bytes())
        assert (
            len((await proofs.verify(bucket, check=check)).faults) == 2
        )  # it does not follow, nor was it signed there

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["folder", "weed"])
def test_many_at_once_make_one_chain(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    async def scenario() -> None:
        if kind == "weed":
            weed: Weed = request.getfixturevalue("weed")
            buckets = [open_bucket(weed.bucket("proofs")) for _ in range(3)]
        else:
            buckets = [folder(tmp_path) for _ in range(3)]
        await asyncio.gather(*(erase(b, site=f"s{n}", longest_put=0) for n in range(8) for b in buckets))
        found = await proofs.verify(buckets[0])
        assert (found.well, found.lines) == (True, 24), found.faults

    asyncio.run(scenario())


def test_the_gallerys_erasures_are_in_the_chain(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        async def gone(keys: object) -> None:
            pass

        bucket, one = folder(tmp_path), make_face()
        await bucket.put_new(one.key, one.data)
        eraser = Eraser(bucket, on_gone=gone, wait_s=0)
        done = await eraser.erase([one.key])
        assert json.loads(done.proof)["number"] == 1
        await erase(bucket, site="home", longest_put=0)
        await eraser.close()
        assert (await proofs.verify(bucket)).well

    asyncio.run(scenario())


def test_a_survey_counts_and_touches_nothing(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        for one in [make_face(), make_face(), make_face(camera="yard"), make_face(site="away")]:
            await bucket.put_new(one.key, one.data)
        here, hidden = Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1)), make_face()
        await here.put("faces/home/door", hidden.data[:-20], "truncated", hidden.face)
        before = await names(bucket)
        found = await survey(bucket, Rule(site="home"))
        assert found.places == {"faces": 3, "quarantine": 2}
        assert found.cameras == {"home/door": 4, "home/yard": 1}
        assert await names(bucket) == before
        assert (await erase(bucket, site="home", longest_put=0)).count == sum(found.places.values())

    asyncio.run(scenario())


def test_foreign_pictures_go_by_their_topic_and_their_bytes_stay_away(tmp_path: Path, jpeg: bytes) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        store = keeper(bucket)
        for topic in ("doorbell/snapshot", "other"):
            await store.keep(topic, jpeg)
            await store.keep(topic, b"not a picture of " + topic.encode())
        done = await by_topic.erase(bucket, "doorbell/snapshot", longest_put=0)
        assert json.loads(done.proof)["places"] == {"foreign": 1, "quarantine": 2}
        again = keeper(bucket)  # one that remembers nothing
        await again.keep("doorbell/snapshot", jpeg)
        await again.keep("doorbell/snapshot", b"not a picture of doorbell/snapshot")
        left = {key.partition("/")[0] for key in await names(bucket) if "doorbell" in key}
        assert left == set()
        await again.keep("doorbell/snapshot", jpeg + b"\0")  # another picture of that topic is kept as before
        assert len([key for key in await names(bucket) if key.startswith("foreign/topic=doorbell")]) == 1
        assert len([key for key in await names(bucket) if key.startswith("foreign/topic=other")]) == 1
        assert (await proofs.verify(bucket)).well

    asyncio.run(scenario())


def test_a_broken_copy_of_an_erased_face_is_not_kept_in_quarantine(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket, one = folder(tmp_path), make_face()
        store = keeper(bucket)
        await erase(bucket, ids=[one.face.id], longest_put=0)
        answer = await store.keep("faces/home/door", one.data[:-20])
        assert answer is not None
        assert answer.receipt.outcome == "erased"
        assert not [key for key in await names(bucket) if key.startswith("quarantine")]

    asyncio.run(scenario())


def test_the_commands_say_what_they_do(tmp_path: Path, make_face: Make) -> None:
    one = make_face(time=datetime.now(UTC) - timedelta(minutes=5))
    bucket = tmp_path / "bucket"
    asyncio.run(folder(bucket).put_new(one.key, one.data))
    where = ["--set", f"bucket.url=file://{bucket}"]
    dry = facerelay("erase", "--site", "home", "--dry-run", *where)
    assert (dry.returncode, json.loads(dry.stdout)) == (
        0, {"dry_run": True, "objects": 1, "places": {"faces": 1}, "cameras": {"home/door": 1}},
    )  # fmt: skip
    assert (bucket / one.key).exists()
    assert facerelay("erase", "--site", "home", "--foreign", "x", *where).returncode == 2
    assert facerelay("erase", "--verify", "--site", "home", *where).returncode == 2
    done = facerelay("erase", "--site", "home", "--yes", "--wait", "0", *where)
    assert json.loads(done.stdout)["deleted"] == 1
    checked = facerelay("erase", "--verify", *where)
    said = json.loads(checked.stdout)
    assert (checked.returncode, said["well"], said["proofs"], said["alive"]) == (0, True, 1, 0)
    (bucket / one.key).parent.mkdir(parents=True)
    (bucket / one.key).write_bytes(one.data)
    checked = facerelay("erase", "--verify", *where)
    assert (checked.returncode, json.loads(checked.stdout)["alive"]) == (1, 1)
    assert "ask for the same erasure again" in checked.stderr
