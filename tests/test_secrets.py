"""No secret shows: not in a log, a command line, an error, a figure or a trace, whatever goes wrong."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chains import eventually, facerelay
from conftest import need
from facerelay import settings
from facerelay.sections.watching import ROLES
from servers import free_port, mosquitto

FORMS = ("plain", "json")


class Secrets:
    """One of each kind, none like another."""

    def __init__(self) -> None:
        self.named = {name: secrets.token_hex(16) for name in (
            "broker", "cloud", "bucket", "camera", "query", "token", "homeassistant", "otlp",
        )}  # fmt: skip
        self.named["webhook"] = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    def __getitem__(self, name: str) -> str:
        return self.named[name]

    def found_in(self, text: str) -> set[str]:
        """Return the names of those that a text gives away."""
        return {name for name, secret in self.named.items() if secret.removeprefix("whsec_") in text}


class Role:
    """A role that cannot do its work, and talks about it."""

    def __init__(self, name: str, config: Path, form: str, env: dict[str, str]) -> None:
        self.name = name
        self.metrics = free_port()
        self.out, self.err = (config.parent / f"{name}-{form}.{end}" for end in ("out", "err"))
        words = ["--log", form, "-v", name, "-c", str(config), "--set", "metrics.enabled=true"]
        words += ["--set", f"metrics.port={self.metrics - ROLES.index(name)}"]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "facerelay", *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env,
            )  # fmt: skip

    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def figures(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as answer:
            found: str = answer.read().decode()
        return found


def family(pid: int) -> dict[int, str]:
    """Return the command lines of a process and all below it."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            lines[int(entry.name)] = (entry / "cmdline").read_text(errors="replace")
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
    members = {pid}
    while more := {child for child, parent in parents.items() if parent in members} - members:
        members |= more
    return {each: lines[each] for each in members if each in lines}


def write(path: Path, names: tuple[str, ...], values: dict[str, Any]) -> Path:
    path.touch(mode=0o600)
    path.write_text(settings.template(names, values))
    return path


def configured(folder: Path, hidden: Secrets, refusing: int) -> dict[str, Path]:
    """Write what each role is run with: brokers that refuse, a bucket and cameras that are not there."""
    closed = free_port()
    broker = {"url": f"mqtt://127.0.0.1:{refusing}", "username": "facerelay", "password": hidden["broker"]}
    http = f"http://viewer:{hidden['camera']}@127.0.0.1:{closed}/stream?key={hidden['query']}"
    rtsp = f"rtsp://viewer:{hidden['camera']}@127.0.0.1:{closed}/stream"
    bucket = {"url": "s3://faces", "endpoint": f"http://127.0.0.1:{closed}", "access_key": "someone",
              "secret_key": hidden["bucket"]}  # fmt: skip
    edge = {
        "broker": broker,
        "cloud": {**broker, "url": f"mqtt://127.0.0.1:{closed}", "password": hidden["cloud"]},
        "camera": [{"name": "door", "source": rtsp}, {"name": "yard", "source": http}],
        "homeassistant": {"enabled": True, **broker, "password": hidden["homeassistant"]},
    }  # fmt: skip
    cloud = {
        "broker": broker, "bucket": bucket,
        "webhook": {"url": f"https://127.0.0.1:{closed}/hook", "secret": hidden["webhook"]},
        "gallery": {"port": free_port(), "token": hidden["token"], "listen": True},
        "trace": {"endpoint": f"http://127.0.0.1:{closed}/v1/traces"},
    }  # fmt: skip
    watched = {"broker": broker, "camera": [{"name": "door", "source": rtsp}]}
    own = {"broker": {**broker, "url": f"mqtt://127.0.0.1:{free_port()}", "data": "nats"}}
    return {
        "edge": write(folder / "edge.toml", (*settings.EDGE, "bucket"), edge),
        "cloud": write(folder / "cloud.toml", settings.CLOUD, cloud),
        "watched": write(folder / "watched.toml", settings.EDGE, watched),
        "own": write(folder / "own.toml", settings.CLOUD, own),
    }


COMMANDS = {
    "doctor edge": ("watched", "doctor"), "doctor cloud": ("cloud", "doctor"), "ls": ("cloud", "ls"),
    "ledger": ("edge", "ledger", "--audit"),
}  # fmt: skip
Running = tuple[Secrets, dict[str, subprocess.Popen[str]]]


@pytest.fixture(scope="module", autouse=True)
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start them all before anything else: a doctor waits long for a camera."""
    folder, hidden = tmp_path_factory.mktemp("commands"), Secrets()
    files = configured(folder, hidden, free_port())
    env = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "facerelay", "-v", *words, "-c", str(files[side])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
        )
        for name, (side, *words) in COMMANDS.items()
    }  # fmt: skip
    yield hidden, started
    for each in started.values():
        each.kill()
        each.communicate()


class Scene:
    """All roles at once, each in trouble."""

    def __init__(self, folder: Path, stack: ExitStack, form: str) -> None:
        self.hidden = Secrets()
        passwords = folder / "passwords"
        tool = need("mosquitto_passwd")
        subprocess.run([tool, "-b", "-c", str(passwords), "facerelay", "another"], check=True)
        passwords.chmod(0o644)
        port = free_port()
        listener = f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
        stack.enter_context(refusing(folder, port, listener))
        self.files = configured(folder, self.hidden, port)
        env = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
        env["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer {self.hidden['otlp']}"
        sides = {"broker": "own", "capture": "edge", "forward": "edge", "store": "cloud", "gallery": "cloud"}
        self.roles = {name: Role(name, self.files[side], form, env) for name, side in sides.items()}
        stack.callback(self.end)

    def end(self) -> None:
        for role in self.roles.values():
            role.process.send_signal(signal.SIGTERM)
        for role in self.roles.values():
            role.process.wait(20)


def refusing(folder: Path, port: int, listener: str) -> Any:  # noqa: ANN401 - a context manager of servers
    return mosquitto(port, folder=folder / "refusing", listener=listener)


TROUBLE = {
    "broker": "Server is ready", "capture": "refused", "forward": "trying again", "store": "bucket",
    "gallery": "gallery is at",
}  # fmt: skip


@pytest.fixture(scope="module", params=FORMS)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        found = Scene(tmp_path_factory.mktemp(f"secrets-{request.param}"), stack, request.param)
        for name, word in TROUBLE.items():
            role = found.roles[name]
            eventually(lambda role=role, word=word: word in role.said(), timeout=60)  # type: ignore[misc]
        eventually(lambda: "127.0.0.1" in found.roles["capture"].said(), timeout=30)
        yield found


def test_no_command_line_shows_a_secret(scene: Scene) -> None:
    seen = {name: family(role.process.pid) for name, role in scene.roles.items()}
    assert any("nats-server" in line for line in seen["broker"].values())
    assert all(len(members) >= 1 for members in seen.values())
    told = {name: scene.hidden.found_in("\n".join(members.values())) for name, members in seen.items()}
    assert not any(told.values()), told


def test_no_figure_shows_a_secret(scene: Scene) -> None:
    for name, role in scene.roles.items():
        text = role.figures()
        assert "facerelay_" in text
        assert scene.hidden.found_in(text) == set(), name


def test_what_the_embedded_broker_reads_is_its_owners_alone(scene: Scene) -> None:
    [conf] = scene.files["own"].parent.glob("nats/*.conf")
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    assert stat.S_IMODE(conf.parent.stat().st_mode) == 0o700


def test_no_log_shows_a_secret(scene: Scene) -> None:
    """Last, so that the roles have ended, and said what they say at their end."""
    scene.end()
    for name, role in scene.roles.items():
        said = role.said()
        assert len(said) > 200, name
        assert scene.hidden.found_in(said) == set(), name


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ('[broker]\nurl = "mqtt://someone:{0}@host:1883"', "broker.url"),
        ('[broker]\npasword = "{0}"', "did you mean 'password'"),
        ('[broker]\npassword = ["{0}"]', "broker.password"),
        ('[broker]\npassword = "{0}"\npassword_file = "x"', "broker"),
        ('[bucket]\nurl = "s3://faces"\nsecret_key = {{ a = "{0}" }}', "bucket.secret_key"),
        ('[[camera]]\nname = "No Slug"\nsource = "rtsp://u:{0}@host/"', "camera"),
        ('[webhook]\nurl = "https://u:{0}@host/"\nsecret = "{0}"', "webhook"),
        ('[webhook]\nurl = "https://host/"\nsecret = "{0}"', "webhook"),
        ('[gallery]\ntoken = "{0}', "not TOML"),
        ('[trace]\nendpoint = "http://u:{0}@127.0.0.1:4318/v1/traces"', "trace.endpoint"),
    ],
)
def test_no_error_of_the_settings_shows_a_value(tmp_path: Path, toml: str, word: str) -> None:
    secret = secrets.token_hex(8)
    path = tmp_path / "some.toml"
    path.write_text(toml.format(secret))
    done = facerelay("-v", "doctor", "-c", str(path))
    assert done.returncode == 2, done.stderr  # wrong settings
    assert word in done.stderr
    assert secret not in done.stdout + done.stderr


def test_the_demonstration_hands_no_secret_to_its_roles_by_command_line(tmp_path: Path) -> None:
    secret = secrets.token_hex(16)
    env = {**os.environ, "FACERELAY_BUCKET__SECRET_KEY": secret, "FACERELAY_BROKER__PASSWORD": secret,
           "FACERELAY_BROKER__USERNAME": "someone", "FACERELAY_CLOUD__USERNAME": "someone",
           "FACERELAY_CLOUD__PASSWORD": secret}  # fmt: skip
    log = tmp_path / "demo.log"
    command = [sys.executable, "-m", "facerelay", "demo", "--source", "scene", "--dir", str(tmp_path)]
    with log.open("wb") as out:
        demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
    try:
        eventually(
            lambda: (
                sum(" -m facerelay" in line.replace("\0", " ") for line in family(demo.pid).values()) >= 6
            ),
            90,
        )
        lines = family(demo.pid)
    finally:
        demo.send_signal(signal.SIGTERM)
        demo.wait(60)
    assert any("nats-server" in line for line in lines.values())
    assert not [line for line in lines.values() if secret in line]
    said = "".join(path.read_text(errors="replace") for path in [log, *tmp_path.rglob("*.log")])
    assert secret not in said


def test_a_url_loses_its_password_in_either_form(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from facerelay.commands import logs; logs.set_up(form=sys.argv[1]);"
        "log = logging.getLogger('x')\n"
        "try: raise OSError('rtsp://u:hidden-word@host/ went away')\n"
        "except OSError: log.exception('lost mqtts://a:hidden-word@b')"
    )
    for form in FORMS:
        command = [sys.executable, "-c", code, form]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert "hidden-word" not in done.stderr
        assert "***@" in (json.loads(done.stderr)["exception"] if form == "json" else done.stderr)


def test_an_address_in_place_of_a_file_is_not_shown() -> None:
    done = facerelay("detect", "rtsp://viewer:hidden-word@127.0.0.1/stream")
    assert done.returncode == 2
    assert "an address is no file" in done.stderr
    assert "hidden-word" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_that_fails_shows_a_secret(commands: Running, name: str) -> None:
    hidden, started = commands
    said, _ = started[name].communicate(timeout=90)
    assert started[name].returncode != 0
    assert len(said) > 80
    assert "Traceback" not in said
    assert hidden.found_in(said) == set()
