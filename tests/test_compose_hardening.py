"""Every service of every Compose file is as small a target as it can be; the exceptions are named here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("compose*.yaml"), *ROOT.glob("examples/**/compose*.yaml")])
PARTS = ROOT / "examples" / "parts" / "parts.yaml"

RIGHTS = {"secrets": {"DAC_OVERRIDE", "FOWNER"}, "mount": {"SYS_ADMIN"}}
"""Of the recipes: another's folder is filled once, without a network; FUSE needs the right to mount."""

ROOTS = {"secrets"}
SECRET = re.compile(r"(?i)(password|secret|secret_key|token|identity)$")

Service = dict[str, Any]


def services() -> list[Any]:
    return [
        pytest.param(path, name, id=f"{path.parent.name}-{path.stem}-{name}")
        for path in FILES
        for name in yaml.safe_load(path.read_text())["services"]
    ]


def whole(path: Path, name: str) -> Service:
    """Return a service with what it extends, as Compose puts the two together."""
    own: Service = dict(yaml.safe_load(path.read_text())["services"][name])
    base = own.pop("extends", None)
    if base is None:
        return own
    found = whole((path.parent / base["file"]).resolve() if "file" in base else path, base["service"])
    for key, value in own.items():
        there = found.get(key)
        if isinstance(value, list) and isinstance(there, list) and key not in {"command", "entrypoint"}:
            found[key] = [*there, *value]
        elif isinstance(value, dict) and isinstance(there, dict):
            found[key] = there | value
        else:
            found[key] = value
    return found


def ends(mount: str | dict[str, Any]) -> tuple[str, str]:
    """Return what is mounted, and where."""
    if isinstance(mount, dict):
        return mount["source"], mount["target"]
    source, target = mount.split(":")[:2] if "${" not in mount else ("", mount)
    return source, target


@pytest.mark.parametrize(("path", "name"), services())
def test_a_service_has_no_more_than_it_needs(path: Path, name: str) -> None:
    service = whole(path, name)
    recipe = path.parent != ROOT
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) <= (RIGHTS.get(name, set()) if recipe else set())
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - the container's
    assert not service.get("privileged")
    assert service.get("network_mode", "none") == "none"
    assert not {"pid", "ipc", "userns_mode", "devices"} & service.keys() or (recipe and name == "mount")
    assert service.get("user", "facerelay") != "root" or (recipe and name in ROOTS)
    assert {"pids_limit", "mem_limit", "cpus"} <= service.keys()
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize(("path", "name"), services())
def test_a_service_finds_its_secrets_in_files(path: Path, name: str) -> None:
    service = whole(path, name)
    for variable, value in service.get("environment", {}).items():
        assert not SECRET.search(variable), variable
        assert "://" not in value or "@" not in value
    for mount in service.get("volumes", []):
        source, target = ends(mount)
        assert "docker.sock" not in source + target
        assert source not in {"/", "/etc", "/var/run", "/proc", "/sys"}, target


@pytest.mark.parametrize(("name", "folder"), [("cloud", "CLOUD_FOLDER"), ("edge", "SITE_FOLDER")])
def test_enrolment_alone_has_the_folder_and_each_role_its_own_files_of_it(name: str, folder: str) -> None:
    whole = yaml.safe_load((ROOT / f"compose.{name}.yaml").read_text())
    enrol = whole["services"].pop("enrol")
    assert enrol["network_mode"] == "none"
    assert enrol["profiles"] == ["enrol"]
    assert len(whole["services"]) == 3
    files = {known: each["file"].rpartition("}")[2] for known, each in whole["secrets"].items()}
    assert all(each["file"].startswith(f"${{{folder}:-") for each in whole["secrets"].values())
    assert "/trust" not in files.values()
    keys: dict[str, list[str]] = {}
    for role, service in whole["services"].items():
        for mount in service.get("volumes", []):
            source, target = ends(mount)
            devices = source.endswith("/trust/devices") and target.endswith("/trust/devices")
            assert (devices and mount["read_only"]) or not source.startswith((".", "/", "$"))
        for secret in service["secrets"]:
            inside = files[secret["source"]]
            assert secret["target"] == f"/etc/facerelay{inside}"
            if inside.endswith(".key"):
                keys.setdefault(inside, []).append(role)
    roles = {"broker": ["cloud-broker"], "store": ["store"], "gallery": ["gallery"]}
    wanted = roles if name == "cloud" else {"site": ["capture", "forward"]}
    assert keys == {f"/trust/{key}.key": each for key, each in wanted.items()}


@pytest.mark.parametrize(("path", "name"), services())
def test_only_a_broker_with_tls_is_published_beyond_loopback(path: Path, name: str) -> None:
    service = whole(path, name)
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:") or name == "cloud-broker", port
        if not port.startswith("127.0.0.1:"):
            assert service["environment"]["FACERELAY_BROKER__URL"].startswith("mqtts://")


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", PARTS.parent / "Dockerfile"], ids=["roles", "recipes"])
def test_no_image_runs_as_root(path: Path) -> None:
    users: dict[str, str] = {}
    stage = ""
    for line in path.read_text().splitlines():
        if found := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stage = found[2]
            users[stage] = users.get(found[1], "root")
        elif line.startswith("USER "):
            users[stage] = line.split()[1]
    targets = {
        service["build"]["target"]
        for file in [*FILES, PARTS]
        for service in yaml.safe_load(file.read_text())["services"].values()
        if "build" in service and (file == PARTS) == (path.parent == PARTS.parent)
        and (file != PARTS or service["build"]["context"] == ".")
    }  # fmt: skip
    assert len(targets) >= 3
    assert {target for target in targets if users[target].split(":")[0] in {"root", "0"}} <= {"s3fs"}


def test_an_unhardened_service_is_seen(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {bare: {image: x}}")
    with pytest.raises(KeyError):
        test_a_service_has_no_more_than_it_needs(tmp_path / "compose.yaml", "bare")
