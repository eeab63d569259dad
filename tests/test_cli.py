from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import servers
from chains import chain, eventually, facerelay
from facerelay import settings
from servers import free_port


@pytest.mark.parametrize("side", ["edge", "cloud"])
def test_init_writes_settings_that_load_and_never_over_a_file(tmp_path: Path, side: str) -> None:
    path = tmp_path / "my.toml"
    done = facerelay("init", side, str(path))
    assert done.returncode == 0, done.stderr
    assert f"facerelay doctor -c {path}" in done.stdout
    assert path.stat().st_mode & 0o077 == 0
    config = settings.load(path, environ={})
    assert bool(config.camera) == (side == "edge")
    again = facerelay("init", side, str(path))
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_send_ls_get_and_the_books(tmp_path: Path, portrait: Path) -> None:
    with chain(tmp_path) as c:
        done = c.command("send", str(portrait), "--camera", "test")
        assert done.returncode == 0, done.stderr
        assert ": stored faces/site=home/camera=test/" in done.stdout
        key = done.stdout.split()[-1]
        assert c.command("ls").stdout.split()[-1] == key
        [line] = c.command("ls", "faces/site=home", "--json").stdout.splitlines()
        assert json.loads(line)["key"] == key
        fetched = c.command("get", key, "-o", str(tmp_path / "out"))
        known = json.loads(fetched.stdout)
        assert (known["site"], known["camera"], known["score"]) == ("home", "test", 1.0)
        assert Path(known["file"]).read_bytes() == (tmp_path / "bucket" / key).read_bytes()
        again = c.command("get", key, "-o", str(tmp_path / "out"))
        assert again.returncode == 1
        assert "exists; name another folder" in again.stderr
        for words in ([], ["--camera", "test"], ["--from", "2026-11-22", "--to", "2026-11-21"]):
            refused = c.command("erase", "--yes", *words)
            assert refused.returncode == 2
            assert "--" in refused.stderr
        named = c.command("send", str(portrait), "--camera", "Door")
        assert named.returncode == 2
        assert "--camera Door: lower case letters" in named.stderr


def test_send_names_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    done = facerelay("send", str(tmp_path / "text.png"), "--set", f"outbox.path={tmp_path}/o.db")
    assert done.returncode == 1
    assert "text.png: neither JPEG, PNG nor WebP" in done.stderr


def test_send_without_a_broker_says_so_and_keeps_the_face(tmp_path: Path, portrait: Path) -> None:
    flags = ["--set", f"outbox.path={tmp_path}/o.db", "--set", f"broker.url=mqtt://127.0.0.1:{free_port()}"]
    done = facerelay("send", str(portrait), "--timeout", "1", *flags)
    assert done.returncode == 1
    assert ": waiting faces/" in done.stdout
    assert "facerelay doctor" in done.stderr


def test_doctor_finds_what_is_wrong_and_what_is_fine(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        eventually(lambda: "connected" in c["store"].text())
        edge = c.command("doctor", "--set", "camera.0.name=door", "--set", "camera.0.source=scene")
        assert edge.returncode == 0, edge.stdout
        assert "ok    camera door: a frame of 1280x720" in edge.stdout
        cloud = facerelay("doctor", "-c", str(tmp_path / "cloud.toml"))
        assert cloud.returncode == 0, cloud.stdout
        assert "ok    bucket:" in cloud.stdout
        wrong = c.command(
            "doctor", "--set", "camera.0.name=door", "--set", "camera.0.source=none.mp4",
            "--set", f"cloud.url=mqtt://127.0.0.1:{free_port()}",
        )  # fmt: skip
        assert wrong.returncode == 1
        assert "ok    broker:" in wrong.stdout
        assert re.search(r"FAIL  cloud broker: \S+: connection refused: is a broker running", wrong.stdout)
        assert "FAIL  camera door:" in wrong.stdout


def test_doctor_tells_a_wrong_password_from_a_broker_that_is_not_there(tmp_path: Path) -> None:
    with servers.nats(settings={"username": "edge", "password": "a word"}, folder=tmp_path) as server:
        given = [f"broker.url={server.url}", "broker.username=edge", f"bucket.url=file://{tmp_path}/bucket"]
        done = facerelay("doctor", *(word for each in given for word in ("--set", each)))
    assert "FAIL  broker:" in done.stdout
    assert "check username and password of this broker" in done.stdout
    assert "is a broker running" not in done.stdout


def test_the_ledger_of_no_outbox_says_what_to_do(tmp_path: Path) -> None:
    done = facerelay("ledger", "--set", f"outbox.path={tmp_path}/none.db", "--bucket", f"file://{tmp_path}")
    assert done.returncode == 1
    assert "facerelay capture" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_audit_names_what_is_missing_from_the_bucket(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        c.finished(c.feed(3, rate=100))
        gone = c.objects()[1]
        gone.unlink()
        changed = c.objects()[0]
        changed.write_bytes(changed.read_bytes() + b"x")
        done = c.command("ledger", "--audit")
        assert done.returncode == 1
        assert "2 lost" in done.stdout
        for path, why in ((gone, "no object has its bytes"), (changed, "cannot be read as a face")):
            [line] = [line for line in done.stdout.splitlines() if f"lost: {path.name[14:50]}" in line]
            assert why in line
            assert line.endswith(path.name)


def test_to_read_a_bucket_it_must_be_named_and_be_there(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text('site = "home"\n')
    edge = str(tmp_path / "edge.toml")
    for words in (["ls"], ["ledger"], ["get", "faces/x"], ["store"]):
        done = facerelay(*words, "-c", edge)
        assert done.returncode == 2
        assert "no bucket: add a [bucket] section" in done.stderr
    done = facerelay("ledger", "-c", edge, "--bucket", "file://buckte")
    assert done.returncode == 2
    assert "there is no such folder" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "edge.toml"]


def test_roles_without_their_settings_say_which_are_missing(tmp_path: Path) -> None:
    for role, missing in (("capture", "[[camera]]"), ("forward", "[cloud]"), ("bridge mosquitto", "[cloud]")):
        done = facerelay(*role.split(), "--set", f"outbox.path={tmp_path}/o.db")
        assert done.returncode == 2
        assert missing in done.stderr


def test_a_reader_that_leaves_early_is_no_fault() -> None:
    with subprocess.Popen([sys.executable, "-m", "facerelay", "--help"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.close()
    assert child.returncode in {0, 1}


def test_the_cloud_reads_the_books_that_edges_sent_up(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        c.finished(c.feed(3, rate=100))
        eventually(lambda: c.objects("ledger"))
        done = facerelay("ledger", "-c", str(tmp_path / "cloud.toml"), "--set", "outbox.path=none", "--json")
        assert done.returncode == 0, done.stderr
        door = json.loads(done.stdout)["cameras"]["home/door"]
        assert (door["captured"], door["stored"]) == (3, 3)


def test_a_second_broker_says_that_there_is_one_and_opens_nothing_of_its_state(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        done = c.command("broker")
        assert done.returncode == 1
        assert "is a broker running there already?" in done.stderr
        assert "nats-server" not in done.stderr
        assert "Traceback" not in done.stderr


def test_what_an_audit_finds_is_an_alarm_at_the_edge_and_in_the_cloud_until_another_finds_it_mended(
    tmp_path: Path,
) -> None:
    def lost(*where: str) -> list[str]:
        done = facerelay("top", "--once", "--json", "-c", *where)
        if "no edge's books" in done.stderr:
            return []
        found = json.loads(done.stdout)
        assert done.returncode == int(any(alarm["severity"] == "critical" for alarm in found["alarms"]))
        return [alarm["words"] for alarm in found["alarms"] if alarm["kind"] == "lost"]

    with chain(tmp_path) as c:
        edge = (str(tmp_path / "edge.toml"),)
        cloud = (str(tmp_path / "cloud.toml"), "--bucket", f"file://{tmp_path / 'bucket'}")
        c.finished(c.feed(3, rate=100))
        one = c.objects()[0]
        data = one.read_bytes()
        one.unlink()
        assert lost(*edge) == []
        assert c.command("ledger", "--audit", "--camera", "door").returncode == 1
        assert lost(*edge) == [], "an audit of a part says nothing of the whole"
        assert c.command("ledger", "--audit").returncode == 1
        assert "1 face of home ought to be in the bucket" in lost(*edge)[0]
        c.finished(c.feed(1, rate=100))
        eventually(lambda: lost(*cloud))
        one.write_bytes(data)
        assert c.command("ledger", "--audit").returncode == 0
        assert lost(*edge) == []
        c.finished(c.feed(1, rate=100))
        eventually(lambda: not lost(*cloud))
