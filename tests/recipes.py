"""The chains of the examples, from their own files, on loopback: what containers call a place is replaced."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from buckets import Weed
from chains import Part, eventually, facerelay
from conftest import need
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.edge.cameras.scene import Scene
from servers import answers, free_port

EXAMPLES = Path(__file__).parents[1] / "examples"
VISITS = Scene().visits


@dataclass(frozen=True)
class Recipe:
    """One chain of an example: its files, and what its write-up says of topic and quality of service."""

    folder: str
    topic: str
    qos: int
    user: str
    bridged: bool = False
    mounted: bool = False
    approach: str = ""

    @property
    def name(self) -> str:
        return self.folder[:3] + (f"-{self.approach}" if self.approach else "")

    def file(self, name: str) -> str:
        """Return a file's name; where an example has two approaches, that of this one."""
        return f"{self.approach}-{name.removeprefix('edge-m')}" if self.approach else name


RECIPES = [
    Recipe("000-mosquitto-bridge-s3fs", "w251/face_detector", 0, "face_detector", bridged=True, mounted=True),
    Recipe("001-python-forwarder", "facedetection_topic", 1, "forwarder"),
    Recipe("002-public-page", "faces", 0, "forwarder"),
    Recipe("003-mosquitto-to-mosquitto", "face_app/door", 1, "forwarder", bridged=True, mounted=True),
    Recipe("004-two-approaches", "image", 0, "edge", bridged=True, mounted=True, approach="bridge"),
    Recipe("004-two-approaches", "image", 1, "edge", approach="forwarder"),
]


def named(name: str) -> Recipe:
    return next(recipe for recipe in RECIPES if recipe.name == name)


class Site:
    """A recipe's two sides on loopback, from its own files."""

    def __init__(self, recipe: Recipe, folder: Path, weed: Weed) -> None:
        self.recipe = recipe
        self.folder = folder
        self.weed = weed
        self.edge_port, self.cloud_port = free_port(), free_port()
        self.parts: dict[str, Part] = {}
        self.write()

    def write(self) -> None:
        """Write the recipe's files, with the names that containers give to places replaced."""
        edge, cloud = self.folder / "edge-secrets", self.folder / "cloud-secrets"
        script = str(EXAMPLES / "parts" / "secrets.sh")
        need("mosquitto_passwd")
        subprocess.run(["sh", script, str(edge), str(cloud), "127.0.0.1", self.recipe.user], check=True)
        keys = {
            "bucket-key": self.weed.secret_key,
            "s3fs.passwd": f"{self.weed.access_key}:{self.weed.secret_key}",
        }
        for name, text in keys.items():
            (cloud / name).unlink()
            (cloud / name).write_text(text)
            (cloud / name).chmod(0o600)
        for side in ("edge", "cloud"):
            for name in ("data", "bridge"):
                (self.folder / f"{side}-{name}").mkdir()
        conf = "mosquitto.conf" if self.recipe.approach else "edge-mosquitto.conf"
        self.place(self.recipe.file("edge.toml"), "edge.toml", "edge")
        self.place(self.recipe.file("cloud.toml"), "cloud.toml", "cloud")
        self.place(self.recipe.file(conf), "edge.conf", "edge")
        self.place("cloud-mosquitto.conf", "cloud.conf", "cloud")

    def place(self, name: str, target: str, side: str) -> None:
        text = (EXAMPLES / self.recipe.folder / name).read_text()
        for ours, here in {
            "edge-broker:1883": f"127.0.0.1:{self.edge_port}",
            "cloud-broker:8883": f"127.0.0.1:{self.cloud_port}",
            "listener 1883": f"listener {self.edge_port} 127.0.0.1",
            "listener 8883": f"listener {self.cloud_port} 127.0.0.1",
            "/run/secrets/": f"{self.folder}/{side}-secrets/",
            "location /mosquitto/": f"location {self.folder}/{side}-data/\nuser root",
            "include_dir /bridge": f"include_dir {self.folder}/edge-bridge",
            "/etc/mosquitto/recipe.acl": str(EXAMPLES / self.recipe.folder / "cloud.acl"),
            "/var/lib/facerelay/": f"{self.folder}/",
            "/mnt/recipe/faces": f"{self.folder}/mnt",
            "http://bucket:8333": self.weed.endpoint,
            "s3://faces": f"s3://{self.bucket_name}",
            'access_key = "facerelay"': f'access_key = "{self.weed.access_key}"',
        }.items():
            text = text.replace(ours, here)
        (self.folder / target).write_text(text)

    @property
    def bucket_name(self) -> str:
        return f"recipe-{self.recipe.name}-{self.edge_port}"

    @property
    def bucket(self) -> Bucket:
        """The bucket itself, through its API, whatever the store writes through."""
        return open_bucket(self.weed.bucket(self.bucket_name))

    def start(self, name: str, *command: str) -> None:
        part = Part(name, list(command), self.folder / f"{name}.log")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FACERELAY_CONFIG", str(self.folder / "cloud.toml"))
            part.start()
        self.parts[name] = part

    def mount(self) -> None:
        """Mount the bucket with the recipe's script; one that died is mounted anew."""
        passwd = self.folder / "cloud-secrets" / "s3fs.passwd"
        env = [f"OWNER={os.geteuid()}", f"ENDPOINT={self.weed.endpoint}", f"PASSWD={passwd}"]
        script = str(EXAMPLES / "parts" / "mount.sh")
        self.start("mount", "env", *env, "sh", script, self.bucket_name, str(self.folder / "mnt"))
        eventually(partial(os.path.ismount, self.folder / "mnt"))

    def role(self, name: str, side: str, *words: str) -> None:
        self.start(
            name, sys.executable, "-m", "facerelay", name, "-c", str(self.folder / f"{side}.toml"), *words
        )

    def bridge(self) -> None:
        """Write what the recipe's container writes."""
        done = facerelay("bridge", "mosquitto", "-c", str(self.folder / "edge.toml"))
        assert done.returncode == 0, done.stderr
        text, script = done.stdout, EXAMPLES / self.recipe.folder / "all-topics.sed"
        if script.exists():
            text = subprocess.run(
                ["sed", "-f", str(script)], input=text, capture_output=True, text=True, check=True
            ).stdout
            assert "\ntopic # out 0\n" in text
        (self.folder / "edge-bridge" / "bridge.conf").write_text(text)

    def run(self, *words: str) -> None:
        """Start both sides; `words` are more settings of them."""
        mosquitto = need("mosquitto")
        if self.recipe.bridged:
            self.bridge()
        for side in ("cloud", "edge"):
            self.start(f"{side}-broker", mosquitto, "-c", str(self.folder / f"{side}.conf"))
        self.role("store", "cloud", *words)
        if not self.recipe.bridged:
            self.role("forward", "edge", *words)

    def connected(self) -> None:
        """Wait until both sides are: a plain client's pictures have no outbox to wait in."""
        with self.listening("link/home", "edge") as heard:
            eventually(lambda: b"1" in heard[-1:])
        eventually(lambda: "connected" in self.parts["store"].text())

    def capture(self, *words: str) -> None:
        """Play the recipe's camera to its end."""
        path = str(self.folder / "edge.toml")
        done = facerelay("capture", "--exit", "-c", path, "--set", "camera.0.pace=false", *words)
        assert done.returncode == 0, done.stderr + self.logs()

    def play(self, picture: Path, camera: str, *words: str) -> None:
        """Play a picture in place of the recipe's camera."""
        self.capture("--set", f"camera.0.source={picture}", "--set", f"camera.0.name={camera}", *words)

    @contextmanager
    def listening(self, topic: str, side: str) -> Iterator[list[bytes]]:
        """Collect what passes one side's broker on a topic."""
        heard: list[bytes] = []
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        user, name = {"edge": ("edge", "edge-password"), "cloud": ("store", "store-password")}[side]
        secrets = self.folder / f"{side}-secrets"
        client.username_pw_set(user, (secrets / name).read_text())
        if side == "cloud":
            client.tls_set(str(secrets / "ca.crt"))

        def subscribe(client: mqtt.Client, *_: object) -> None:
            client.subscribe(topic, 1)

        client.on_connect = subscribe
        client.on_message = lambda _client, _data, message: heard.append(bytes(message.payload))
        port = self.edge_port if side == "edge" else self.cloud_port
        eventually(lambda: answers(port))
        client.connect("127.0.0.1", port)
        client.loop_start()
        try:
            yield heard
        finally:
            client.disconnect()
            client.loop_stop()

    def books(self, *words: str) -> dict[str, Any]:
        where = self.weed.bucket(self.bucket_name)
        flags = {"url": where.url, "endpoint": where.endpoint, "access_key": where.access_key,
                 "secret_key": self.weed.secret_key}  # fmt: skip
        sets = [word for key, value in flags.items() for word in ("--set", f"bucket.{key}={value}")]
        done = facerelay("ledger", "--audit", "--json", "-c", str(self.folder / "edge.toml"), *sets, *words)
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def publish(self, name: str, payload: bytes) -> None:
        """Publish bytes with the plain client, at the recipe's topic and quality of service."""
        path = self.folder / name
        path.write_bytes(payload)
        secret = (self.folder / "edge-secrets" / "edge-password").read_text()
        url = f"mqtt://127.0.0.1:{self.edge_port}"
        command = [
            sys.executable,
            str(EXAMPLES / "plain_client.py"),
            url,
            self.recipe.topic,
            str(self.recipe.qos),
        ]
        env = {**os.environ, "MQTT_USER": "edge", "MQTT_PASSWORD": secret}
        done = subprocess.run([*command, str(path)], env=env, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def objects(self, prefix: str) -> dict[str, bytes]:
        async def read() -> dict[str, bytes]:
            # s3fs leaves an empty object for each folder, too.
            names = [entry.key async for entry in self.bucket.list(prefix) if "." in entry.key]
            return {name: await self.bucket.get(name, max_bytes=10**6) for name in names}

        return asyncio.run(read())

    def set_aside(self) -> dict[str, str]:
        """Return the reasons in quarantine, by topic."""
        notes = [json.loads(v) for key, v in self.objects("quarantine").items() if key.endswith(".json")]
        return {note["topic"]: note["reason"] for note in notes}

    def end(self) -> None:
        for name, part in reversed(self.parts.items()):
            if name != "mount":
                part.end()

    def logs(self) -> str:
        return "\n".join(f"== {part.name}\n{part.text()[-3000:]}" for part in self.parts.values())


@contextmanager
def mounted(site: Site) -> Iterator[None]:
    """Mount the bucket with s3fs, as the recipe's container does; unmounted always."""
    need("s3fs")
    if not Path("/dev/fuse").exists() or os.geteuid():
        pytest.skip("no FUSE here, or not root: the recipe's mount is not tried")
    asyncio.run(site.bucket.probe())  # the first PUT makes it
    folder = site.folder / "mnt"
    try:
        site.mount()
        yield
    finally:
        if str(folder) in Path("/proc/self/mounts").read_text():
            subprocess.run(["fusermount", "-u", "-z", str(folder)], check=True)
        site.parts.pop("mount").end()


@contextmanager
def served(recipe: Recipe, folder: Path, weed: Weed, *words: str) -> Iterator[Site]:
    """Run a recipe's two sides, from an empty bucket; `words` are more settings of them."""
    with ExitStack() as stack:
        site = Site(recipe, folder, weed)
        if recipe.mounted:
            stack.enter_context(mounted(site))
        stack.callback(site.end)
        site.run(*words)
        yield site
