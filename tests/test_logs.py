from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chains import eventually, facerelay
from facerelay.commands.logs import JsonLines, PlainLines
from servers import free_port

KEYS = {"time", "level", "logger", "message"}
THREAD = """
import sys, threading
from facerelay.commands import logs
logs.set_up(form="json")
def broken(): raise RuntimeError("in a thread")
t = threading.Thread(target=broken, name="camera door"); t.start(); t.join()
import warnings; warnings.warn("old ways")
import os; print(os.environ["FACERELAY_LOG"])
"""


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:  # noqa: ANN401 - any attribute
    made = logging.LogRecord("facerelay.edge", logging.WARNING, __file__, 1, message, args, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def caught(message: str) -> logging.LogRecord:
    try:
        raise ValueError(message)  # noqa: TRY301 - to be caught is all it is for
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
        return made


def test_a_record_is_one_line_of_json_in_ascii() -> None:
    line = JsonLines().format(record("kamera %s\nzweite Zeile ü \x1b[2J", "tür"))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    said = json.loads(line)
    assert said.keys() == KEYS
    assert (said["level"], said["logger"]) == ("warning", "facerelay.edge")
    assert said["message"] == "kamera tür\nzweite Zeile ü \x1b[2J"
    assert said["time"].endswith("Z")
    assert datetime.now(UTC) - datetime.fromisoformat(said["time"]) < timedelta(minutes=1)


def test_an_exception_goes_along() -> None:
    said = json.loads(JsonLines().format(caught("no such face")))
    assert said.keys() == {*KEYS, "exception"}
    assert "Traceback" in said["exception"]
    assert "ValueError: no such face" in said["exception"]


@pytest.mark.parametrize("form", [JsonLines(), PlainLines()])
def test_no_password_gets_out(form: logging.Formatter) -> None:
    said = form.format(record("rtsp://admin:geheim@cam/1 and %s", "mqtts://u:other-secret@host:8883"))
    assert "geheim" not in said
    assert "secret" not in said
    assert "rtsp://***@cam/1" in said
    assert "mqtts://***@host:8883" in said
    assert "hidden" not in form.format(caught("s3://key:hidden@bucket is wrong"))


def test_no_picture_gets_out() -> None:
    line = JsonLines().format(
        record("a face of %d bytes", 9000, picture=b"\xff\xd8" * 4000, frame="9" * 9000)
    )
    assert len(line) < 300
    long = json.loads(JsonLines().format(record("%s", b"\xff\xd8" * 20_000)))
    assert len(long["message"]) < 8_100
    assert "characters more" in long["message"]


@pytest.mark.parametrize("how", ["option", "environment"])
def test_every_line_of_a_role_is_json(how: str, tmp_path: Path) -> None:
    words = ["--log", "json"] if how == "option" else []
    env = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
    env |= {"FACERELAY_LOG": "json"} if how == "environment" else {}
    flags = ["--set", f"broker.url=mqtt://127.0.0.1:{free_port()}", "--set", f"broker.data={tmp_path}/state"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "facerelay", *words, "broker", *flags], stderr=out, env=env
        )
    try:
        eventually(lambda: b"the broker listens" in log.read_bytes())
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line.keys() == KEYS for line in said)
    assert any(line["logger"] == "facerelay.link.broker" for line in said)


def test_lines_for_people_are_as_they_were(tmp_path: Path) -> None:
    port = free_port()
    done = facerelay(
        "doctor", "--set", f"broker.url=mqtt://127.0.0.1:{port}", "--set", f"bucket.url=file://{tmp_path}"
    )
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (WARNING|INFO)\s+facerelay\.", done.stderr)


def test_what_a_command_complains_of_is_json_too(tmp_path: Path) -> None:
    for words, said in (
        (["ledgr"], "did you mean"), (["ledger", "--adit"], "--adit"),
        (["top", "--once", "--set", "brokr.url=x"], "'broker'"),
        (["detect", str(tmp_path / "none.jpg")], "No such file"),
    ):  # fmt: skip
        done = facerelay("--log", "json", *words)
        [line] = map(json.loads, done.stderr.splitlines())
        assert line["level"] == "error"
        assert said in f"{line['message']}".replace("Did", "did"), line
        assert done.returncode in {1, 2}


def test_threads_warnings_and_what_a_role_starts_keep_to_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREAD], capture_output=True, text=True, timeout=60, check=True
    )
    thread, warning = map(json.loads, done.stderr.splitlines())
    assert thread["message"] == "camera door ended by an error"
    assert "in a thread" in thread["exception"]
    assert "old ways" in warning["message"]
    assert done.stdout.strip() == "json"
