"""The manifests of deploy/kubernetes as their users build them, and what a pod of them is given."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import need
from facerelay.commands import enrol
from facerelay.config import Config
from facerelay.settings import load

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "deploy" / "kubernetes"
HOSTS = ("faces.example.org", "broker", "broker-0.brokers", "broker-1.brokers", "broker-2.brokers")

Object = dict[str, Any]


def kubectl() -> str:
    """Return a kubectl that builds by kustomize 5 (Debian 12's is older); skip without one."""
    found = need("kubectl")
    told = subprocess.run([found, "version", "--client"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Kustomize Version: v(\d+)", told)
    if version is None or int(version[1]) < 5:
        pytest.skip("kubectl is too old for the manifests, which need 1.27 or later: they are NOT LOOKED AT")
    return found


@dataclass(frozen=True)
class Manifests:
    """A copy of the manifests with keys in an overlay.

    Attributes:
        folder: of the overlay.
    """

    folder: Path

    @classmethod
    def copy(cls, folder: Path, overlay: str) -> Manifests:
        """Enrol a cloud in an overlay, as docs/kubernetes.md says."""
        shutil.copytree(
            MANIFESTS, folder / "kubernetes", ignore=shutil.ignore_patterns("enrolled", "__pycache__")
        )
        here = cls(folder / "kubernetes" / "overlays" / overlay)
        enrol.cloud(enrol.Cloud(hosts=HOSTS, folder=here.enrolled, bucket="s3://faces"))
        (here.enrolled / "bucket-key").write_text("only-for-tests\n")
        (here.enrolled / "s3.json").write_text(json.dumps({"identities": []}))
        return here

    @property
    def enrolled(self) -> Path:
        """What `facerelay enrol cloud` wrote."""
        return self.folder / "enrolled"

    def change(self, old: str, new: str) -> Manifests:
        """Change the overlay's file."""
        path = self.folder / "kustomization.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return self

    def devices(self) -> Object:
        """Return the Secret of the enrolled machines, as docs/kubernetes.md makes it."""
        command = [kubectl(), "create", "secret", "generic", "devices", "-n", "facerelay"]
        command += [f"--from-file={self.enrolled / 'trust' / 'devices'}", "--dry-run=client", "-o", "yaml"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: Object = yaml.safe_load(done.stdout)
        return found

    def build(self) -> Built:
        """Build the overlay."""
        done = subprocess.run(
            [kubectl(), "kustomize", str(self.folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr
        return Built([*yaml.safe_load_all(done.stdout), self.devices()])


class Built:
    """Objects as the cluster would be given them."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def of(self, *kinds: str) -> Iterator[Object]:
        """Yield the objects of some kinds."""
        return (each for each in self.objects if each["kind"] in kinds)

    def get(self, kind: str, name: str) -> Object:
        """Return one object."""
        found = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {name}: {len(found)}"
        return found[0]

    @cached_property
    def pods(self) -> dict[str, Pod]:
        """What the workloads make, by their names."""
        found = (Pod(self, each) for each in self.of("Deployment", "StatefulSet"))
        return {pod.name: pod for pod in found}

    def chosen(self, selector: Object) -> list[Pod]:
        """Return the pods that a selector selects."""
        return [pod for pod in self.pods.values() if selects(selector, pod.labels)]

    def data(self, kind: str, name: str) -> dict[str, bytes]:
        """Return the files of a Secret or a ConfigMap."""
        found = self.get(kind, name)
        plain = {key: value.encode() for key, value in found.get("data", {}).items()}
        if kind == "Secret":
            plain = {key: base64.b64decode(value) for key, value in plain.items()}
        return plain


class Pod:
    """A pod of a workload, the first one of it."""

    def __init__(self, built: Built, workload: Object) -> None:
        self._built = built
        self.workload = workload
        self.name: str = workload["metadata"]["name"]
        template = workload["spec"]["template"]
        self.labels: dict[str, str] = template["metadata"]["labels"]
        self.spec: Object = template["spec"]
        (self.container,) = self.spec["containers"]

    @property
    def ours(self) -> bool:
        """Whether facerelay runs in it."""
        return self.labels["app.kubernetes.io/part-of"] == "facerelay"

    @property
    def ports(self) -> dict[str, int]:
        """Its ports, by name."""
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    def environ(self, number: int = 0) -> dict[str, str]:
        """Return the environment of the number-th pod."""
        found: dict[str, str] = {}
        for each in self.container.get("envFrom", []):
            data = self._built.data("ConfigMap", each["configMapRef"]["name"])
            found |= {key: value.decode() for key, value in data.items()}
        for each in self.container["env"]:
            named = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            assert named in {None, "metadata.name"}
            found[each["name"]] = f"{self.name}-{number}" if named else each["value"]
        return found

    def mounts(self) -> dict[Path, dict[str, bytes]]:
        """Return what is mounted where, of Secrets and ConfigMaps."""
        volumes = {each["name"]: each for each in self.spec["volumes"]}
        found: dict[Path, dict[str, bytes]] = {}
        for each in self.container["volumeMounts"]:
            volume = volumes.get(each["name"], {})
            if "configMap" in volume:
                data = self._built.data("ConfigMap", volume["configMap"]["name"])
                wanted = volume["configMap"]["items"]
                found[Path(each["mountPath"])] = {item["path"]: data[item["key"]] for item in wanted}
            elif "secret" in volume:
                found[Path(each["mountPath"])] = self._built.data("Secret", volume["secret"]["secretName"])
        return found

    def config(self, folder: Path) -> Config:
        """Read its settings, as it would; the file is written into a folder."""
        environ = self.environ()
        path = Path(environ["FACERELAY_CONFIG"])
        at = folder / path.name
        at.write_bytes(self.mounts()[path.parent][path.name])
        return load(at, environ=environ)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether labels are selected."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
