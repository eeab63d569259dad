"""What docs/other-brokers.md says, as far as it can be run: Kafka's protocol, access lists, rights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import servers
from chains import Part, eventually, facerelay
from conftest import need
from facerelay import settings
from facerelay.config import Config
from facerelay.permissions import permissions
from facerelay.signing import Owner, Role

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "other-brokers.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ROLES: dict[str, tuple[Role, str]] = {
    "site": ("site", "door"), "store": ("store", "main"), "gallery": ("gallery", "main"),
}  # fmt: skip


def block(kind: str, holds: str = "") -> str:
    """Return the one block of a kind that holds some words."""
    (found,) = [text for name, text in BLOCKS if name == kind and holds in text]
    return str(found)


def rights(who: str) -> tuple[set[str], set[str]]:
    """Return what a machine may publish and hear, by our own table."""
    role, name = ROLES[who]
    may = permissions(Owner(role, name), Config().face_topic)
    return set(may.publish), set(may.subscribe)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "toml"])
def test_the_pages_settings_are_settings(text: str, tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text(text)
    config = settings.load(tmp_path / "cloud.toml", environ={})
    assert {"broker", "bucket"} <= config.model_fields_set


def test_mosquittos_list_gives_the_rights_of_our_table() -> None:
    known: dict[str, tuple[set[str], set[str]]] = {who: (set(), set()) for who in ROLES}
    who = "site"
    for line in filter(None, block("", "pattern write").splitlines()):
        kind, *rest = line.split()
        if kind == "user":
            (who,) = rest
        else:
            assert kind == ("pattern" if who == "site" else "topic")
            known[who][rest[0] == "read"].add(rest[1].replace("%u", "door"))
    for each, found in known.items():
        assert found == rights(each), each


def test_emqxs_rules_give_the_rights_of_our_table() -> None:
    known: dict[str, list[set[str]]] = {who: [set(), set()] for who in ROLES}
    *rules, last = block("erlang").splitlines()
    assert last == "{deny, all}."
    for rule in rules:
        found = re.fullmatch(r'\{allow, (all|\{user, "(\w+)"\}), (publish|subscribe), \[(.*)\]\}\.', rule)
        assert found is not None, rule
        topics = re.findall(r'"([^"]+)"', found[4].replace("${username}", "door"))
        known[found[2] or "site"][found[3] == "subscribe"] |= set(topics)
    for who, may in known.items():
        assert tuple(may) == rights(who), who


def test_hivemqs_roles_give_the_rights_of_our_table() -> None:
    text = block("xml").replace("${{username}}", "door")
    for role in re.findall(r"<role>(.*?)</role>", text, re.DOTALL):
        (who,) = re.findall(r"<id>(\w+)</id>", role)
        may = re.findall(r"<topic>(.*?)</topic><activity>(\w+)</activity>", role)
        found = [{topic for topic, activity in may if activity == word} for word in ("PUBLISH", "SUBSCRIBE")]
        assert tuple(found) == rights(who), who
    assert text.count("<role>") == len(ROLES)


def test_the_stores_policy_at_aws_allows_what_it_does_and_no_more() -> None:
    policy: dict[str, Any] = json.loads(block("json"))
    share = "$share/facerelay/faces/+/+"
    publish, subscribe = rights("store")
    assert all(each["Effect"] == "Allow" for each in policy["Statement"])
    allowed: dict[str, list[str]] = {}
    for each in policy["Statement"]:
        actions = each["Action"] if isinstance(each["Action"], list) else [each["Action"]]
        named = each["Resource"] if isinstance(each["Resource"], list) else [each["Resource"]]
        for action in actions:
            allowed[action] = [arn.removeprefix("arn:aws:iot:REGION:ACCOUNT:") for arn in named]

    def may(action: str, resource: str) -> bool:  # `*` and `?` as AWS has them, all else as it is written
        return any(fnmatchcase(resource, form.replace("[", "[[]")) for form in allowed[action])

    for topic in publish:
        for action in ("iot:Publish", "iot:RetainPublish"):
            assert may(action, f"topic/{topic.replace('+', 'x')}"), topic
    for wanted in (*subscribe, share, "$share/facerelay-probe/stores/main/a"):
        assert may("iot:Subscribe", f"topicfilter/{wanted}"), wanted
        topic = wanted.replace("+", "x").replace("#", "x/y")
        assert may("iot:Receive", f"topic/{topic}")
        assert may("iot:Receive", f"topic/{topic.removeprefix('$share/facerelay/')}") or "probe" in wanted
    assert may("iot:Connect", "client/facerelay-store-main:store-0-0123456789abcdef")
    for topic in ("faces/door/cam", "ledger/door/x", "link/door", "stores/other"):
        assert not may("iot:Publish", f"topic/{topic}")
    assert not may("iot:Subscribe", "topicfilter/#")
    assert not may("iot:Connect", "client/door-capture")


class Cloud:
    """Mosquitto, stores as processes, and an edge that comes straight to the broker."""

    def __init__(self, folder: Path, url: str, ends: ExitStack) -> None:
        self.folder, self.url, self._ends = folder, url, ends

    def start(self, name: str, command: list[str], *, instance: str | None = None) -> Part:
        own = [f"FACERELAY_STORE__INSTANCE={instance}"] if instance else []
        part = Part(name, ["env", *own, sys.executable, *command], self.folder / f"{name}.log")
        part.start()
        self._ends.callback(part.end)
        return part

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def edge(self, user: str) -> Path:
        """Return the settings of site `door`, which comes as a user."""
        login = f'username = "{user}"\npassword = "the word of {user}"\n'
        return self.file(
            f"{user}.toml",
            f'site = "door"\ndirect = true\n[broker]\nurl = "{self.url}"\n{login}'
            f'[outbox]\npath = "{user}.db"\n',
        )

    def faces(self) -> list[Path]:
        return sorted((self.folder / "bucket" / "faces").rglob("*.jpg"))


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def seen(part: Part, words: str) -> bool:
    return words in part.text()


def test_stores_share_by_name_and_password_under_the_pages_access_list(
    tmp_path: Path, ends: ExitStack, portrait: Path
) -> None:
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    acl.write_text(block("", "pattern write"))
    passwords.touch()
    for user in ("store", "door", "stranger"):
        words = [need("mosquitto_passwd"), "-b", str(passwords), user, f"the word of {user}"]
        subprocess.run(words, check=True, capture_output=True)
    for path in (passwords, acl):
        path.chmod(0o600)
    port = servers.free_port()
    rules = f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nacl_file {acl}\n"
    ends.enter_context(servers.mosquitto(port, listener=rules, folder=tmp_path / "broker"))
    cloud = Cloud(tmp_path, f"mqtt://127.0.0.1:{port}", ends)
    text = block("toml", "cloud-5f0c").replace("mqtts://mqtt.example.org:8883", cloud.url)
    text = re.sub('password_file = ".*"', 'password = "the word of store"', text)
    file = cloud.file("cloud.toml", text.replace("s3://faces", "file://bucket"))
    stores = [
        cloud.start(f"store-{name}", ["-m", "facerelay", "store", "-c", str(file)], instance=name)
        for name in ("a", "b")
    ]
    for name in ("a", "b"):  # they know each other: both are subscribed
        eventually(partial(seen, stores[name == "a"], f"stores/main/{name} is at work as well"))
    done = facerelay("send", *[str(portrait)] * 12, "-c", str(cloud.edge("door")))
    assert done.returncode == 0, done.stdout + done.stderr + "".join(store.text() for store in stores)
    assert len(cloud.faces()) == 12
    # Another user with a password cannot speak as this site.
    other = facerelay("send", str(portrait), "-c", str(cloud.edge("stranger")), "--timeout", "2")
    assert other.returncode != 0
    assert len(cloud.faces()) == 12
    for store in stores:
        store.end()
        assert re.search(r"stored [1-9]", store.text()), store.text()


def test_faces_go_through_kafka_and_their_receipts_come_back(
    tmp_path: Path, ends: ExitStack, portrait: Path
) -> None:
    kafka = Producer({"bootstrap.servers": "-", "test.mock.num.brokers": 1, "log_level": 0})
    (there,) = kafka.list_topics(timeout=10).brokers.values()
    broker = ends.enter_context(servers.mosquitto())
    cloud = Cloud(tmp_path, broker.url, ends)
    text = block("toml", "kafka/{site}/{camera}").replace("mqtt://127.0.0.1:1883", broker.url)
    file = cloud.file("cloud.toml", text.replace("s3://faces", "file://bucket"))
    bridge = cloud.start(
        "bridge", [str(ROOT / "examples/kafka/bridge.py"), broker.url, f"{there.host}:{there.port}"]
    )
    store = cloud.start("store", ["-m", "facerelay", "store", "-c", str(file)])
    done = facerelay("send", *[str(portrait)] * 5, "-c", str(cloud.edge("door")))
    assert done.returncode == 0, done.stdout + done.stderr + bridge.text() + store.text()
    assert len(cloud.faces()) == 5
    assert all("site=door" in str(path) for path in cloud.faces())
