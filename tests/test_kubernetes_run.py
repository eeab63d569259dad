"""The pods of the manifests as processes: their settings, environment, mounted files; other addresses."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import servers
from chains import Part, eventually, facerelay
from enrolled import Enrolled
from facerelay.commands import enrol
from facerelay.devices import Devices
from facerelay.fleet import join, read_bundle
from facerelay.sections.watching import ROLES
from facerelay.signing import PublicKey, read_certificate
from manifests import Built, Manifests
from mounted import mount

NODES = 3
STORES = 2


@dataclass
class Cluster:
    """All pods of `production` on loopback; the bucket is a folder.

    Attributes:
        folder: holds a folder for each pod.
        manifests: the overlay, where machines are enrolled.
        built: the objects.
        parts: processes by pod name.
    """

    folder: Path
    manifests: Manifests
    built: Built
    parts: dict[str, Part] = field(default_factory=dict)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)

    def port(self, name: str, number: int = 0) -> int:
        return self.ports.setdefault((name, number), servers.free_port())

    def start(self, role: str, number: int = 0) -> None:
        """Start the number-th pod of a workload."""
        pod = self.built.pods[role]
        root = self.folder / f"{role}-{number}"
        for path, files in pod.mounts().items():
            changed = {name: self._here(data, root, number) for name, data in files.items()}
            mount(root / path.relative_to("/"), changed)
        own = {name: self._text(value, root, number) for name, value in pod.environ(number).items()}
        own = {name: value for name, value in own.items() if not name.startswith("FACERELAY_BUCKET__")}
        own |= {
            "FACERELAY_BUCKET__URL": f"file://{self.folder / 'bucket'}",
            "FACERELAY_METRICS__PORT": str(self.metrics(role, number) - ROLES.index(role)),
            "FACERELAY_GALLERY__PORT": str(self.port("page")),
        }
        rest = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
        env = ["env", "-i", *(f"{name}={value}" for name, value in (rest | own).items())]
        part = Part(f"{role}-{number}", [*env, sys.executable, "-m", "facerelay", role], root / "log")
        part.start()
        self.parts[part.name] = part

    def metrics(self, role: str, number: int) -> int:
        return self.port(f"{role} metrics", number)

    def _here(self, data: bytes, root: Path, number: int) -> bytes:
        if b"[broker]" not in data:
            return data
        return self._text(data.decode(), root, number).encode()

    def _text(self, text: str, root: Path, number: int) -> str:
        text = text.replace("/etc/facerelay/", f"{root}/etc/facerelay/")
        text = text.replace("/var/lib/facerelay", str(root / "state"))
        # Stores come by a Service, to whatever node.
        text = text.replace("//broker:8883", f"//localhost:{self.port('mqtts', number % NODES)}")
        for other in range(NODES):
            text = text.replace(f"//broker-{other}.brokers:6222", f"//localhost:{self.port('routes', other)}")
            text = text.replace(f"//broker-{other}.brokers:4222", f"//localhost:{self.port('nats', other)}")
        text = text.replace("0.0.0.0:6222", f"127.0.0.1:{self.port('routes', number)}")
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{self.port('nats', number)}")
        return text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - it is what goes

    def wrong(self, role: str, number: int = 0) -> str:
        """Return what is wrong with a pod by its own word, asked where its probe asks."""
        path = self.built.pods[role].container["readinessProbe"]["httpGet"]["path"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics(role, number)}{path}") as answer:
                return "" if answer.read() == b"ready\n" else "it says something else"
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
        except OSError as error:
            return str(error)

    def ready(self, role: str, number: int = 0) -> None:
        """Wait until a pod is."""
        until = time.monotonic() + 60
        while wrong := self.wrong(role, number):
            assert time.monotonic() < until, f"{role}-{number}: {wrong}\n{self.logs()}"
            time.sleep(0.1)

    def enrol(self, site: str) -> Path:
        """Enrol a site that comes straight to a node, and return its settings."""
        cloud = Enrolled(self.manifests.enrolled, self.port("mqtts"))
        bundle = enrol.edge(cloud.cloud, site, self.folder / f"{site}.tar", direct=True)
        join(read_bundle(bundle), self.folder / site)
        file = self.folder / site / "edge.toml"
        url = f"mqtts://localhost:{self.port('mqtts')}"
        file.write_text(file.read_text().replace("mqtts://faces.example.org:8883", url))
        self.update()
        return file

    def update(self) -> None:
        """Make the Secret of enrolled machines anew, and give it to every pod, as the kubelet does."""
        self.built = Built([
            *(each for each in self.built.objects if each["metadata"]["name"] != "devices"),
            self.manifests.devices(),
        ])  # fmt: skip
        files = self.built.data("Secret", "devices")
        for name in self.parts:
            mount(self.folder / name / "etc/facerelay/devices", files)

    def end(self) -> None:
        for part in self.parts.values():
            part.end()

    def logs(self) -> str:
        return "\n".join(f"== {name}\n{part.text()[-1500:]}" for name, part in self.parts.items())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    manifests = Manifests.copy(folder, "production")
    (folder / "bucket").mkdir()
    found = Cluster(folder, manifests, manifests.build())
    with ExitStack() as ends:
        ends.callback(found.end)
        for number in range(NODES):
            found.start("broker", number)
        for number in range(STORES):
            found.start("store", number)
        found.start("gallery")
        yield found


def test_every_pod_starts_with_its_settings_and_is_ready(cluster: Cluster) -> None:
    pods = [("broker", number) for number in range(NODES)]
    pods += [("store", number) for number in range(STORES)]
    for role, number in [*pods, ("gallery", 0)]:
        cluster.ready(role, number)


def send(file: Path, picture: Path, timeout: int = 30) -> tuple[int, str]:
    done = facerelay("send", str(picture), "-c", str(file), "--timeout", str(timeout))
    return done.returncode, done.stdout + done.stderr


def test_machines_come_and_go_by_the_mounted_secret(cluster: Cluster, portrait: Path) -> None:
    """A site that is enrolled while all of it runs is let in, and its face stored; once revoked it is not."""
    test_every_pod_starts_with_its_settings_and_is_ready(cluster)
    file = cluster.enrol("gate")
    code, said = send(file, portrait)
    assert code == 0, said + cluster.logs()
    assert len(list((cluster.folder / "bucket" / "faces").rglob("site=gate/**/*.jpg"))) == 1
    other = cluster.enrol("yard")  # a second change of the same folder
    code, said = send(other, portrait)
    assert code == 0, said + cluster.logs()
    enrol.revoke(Enrolled(cluster.manifests.enrolled, 0).cloud, "gate")
    cluster.update()
    broker = cluster.parts["broker-0"]
    eventually(lambda: broker.text().count("certificates changed: they are taken up") >= 3)
    code, said = send(file, portrait, 3)
    assert code != 0
    assert "not authorised" in said or "revoked" in said, said


def test_a_nodes_own_certificate_is_renewed_without_a_restart(cluster: Cluster) -> None:
    """A Secret that changed under a pod is taken up, though its own hash makes a rollout of it anyway."""
    test_every_pod_starts_with_its_settings_and_is_ready(cluster)
    cloud = Enrolled(cluster.manifests.enrolled, 0).cloud
    enrol.renew(cloud, "broker.faces", None)
    trust = cluster.manifests.enrolled / "trust"
    broker = cluster.parts["broker-1"]
    taken = broker.text().count("they are taken up")
    files = {name: (trust / name).read_bytes() for name in ("broker.pem", "broker.key")}
    mount(cluster.folder / "broker-1/etc/facerelay/trust", files)
    eventually(lambda: broker.text().count("they are taken up") > taken)
    cluster.ready("broker", 1)


def test_whose_seal_counts_is_followed_in_a_mounted_folder(tmp_path: Path) -> None:
    """As store and gallery look it up, who check and open sealed faces."""
    cloud = Enrolled.make(tmp_path, sites=("door", "gate"))
    trust = cloud.folder / "trust"
    files = {path.name: path.read_bytes() for path in (trust / "devices").glob("*.pem")}
    ids = {
        site: PublicKey(read_certificate(tmp_path / site / "trust" / "site.pem")).id
        for site in ("door", "gate")
    }
    folder, now = tmp_path / "mounted", [0.0]
    devices = Devices(trust / "authority.pem", folder, clock=lambda: now[0])

    def known() -> set[str]:
        now[0] += 10
        return {site for site, key in ids.items() if asyncio.run(devices.find(key)) is not None}

    alone = {name: data for name, data in files.items() if "door" in name}
    mount(folder, alone)
    assert known() == {"door"}
    mount(folder, files)
    assert known() == {"door", "gate"}
    mount(folder, {name: data for name, data in files.items() if name not in alone})
    assert known() == {"gate"}
    (folder / "stale.pem").symlink_to("..data/stale.pem")  # as between two steps of the kubelet
    assert known() == {"gate"}
