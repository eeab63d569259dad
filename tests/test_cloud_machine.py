from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import lacking, need
from facerelay import settings
from facerelay.fleet.issuer import hosts_of
from facerelay.signing import read_certificate

ROOT = Path(__file__).parents[1]
FILE = ROOT / "examples/cloud-machine/cloud-init.yaml"
SCRIPT = "/usr/local/sbin/facerelay-cloud"
USER_DATA_BYTES = 16_384
"""The least that a provider takes: AWS, before base64."""

COMPOSE = f"""#!/bin/sh
echo "$*" >> "$0.log"
case "$*" in
  "-f compose.cloud.yaml run --rm -T enrol "*) shift 6 ;;
  *) exit ;;
esac
cd "$CLOUD_FOLDER"
exec "{sys.executable}" -m facerelay enrol "$@"
"""
"""What stands for an engine: it enrols here, as a container would, and notes what else it is asked."""

NETWORK = r"""
mount -t tmpfs none /run
for name in machine outside inside; do ip netns add $name; ip -n $name link set lo up; done
ip link add eth0 netns machine type veth peer name eth0 netns outside
ip link add port netns machine type veth peer name eth0 netns inside
ip -n machine link add br-cloud type bridge
ip -n machine link set port master br-cloud
ip -n machine addr add 192.0.2.1/24 dev eth0
ip -n machine addr add 172.30.0.1/24 dev br-cloud
ip -n outside addr add 192.0.2.2/24 dev eth0
ip -n inside addr add 172.30.0.2/24 dev eth0
for name in machine outside inside; do ip -n $name link set eth0 up; done
ip -n machine link set port up
ip -n machine link set br-cloud up
ip -n inside route add default via 172.30.0.1
ip -n outside route add 172.30.0.0/24 via 192.0.2.1
ip netns exec machine sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
ip netns exec machine nft -f - <<END
table ip engine {
  chain prerouting { type nat hook prerouting priority dstnat; tcp dport { 8883, 9999 } dnat to 172.30.0.2; }
}
END
ip netns exec machine nft -f "$1"
ip netns exec machine nft -f "$1"
ip netns exec machine python3 -c "$LISTEN" 22 80 &
ip netns exec inside python3 -c "$LISTEN" 8883 9999 &
ip netns exec outside python3 -c "$LISTEN" 7000 &
ip netns exec machine python3 -c "$KNOCK" 127.0.0.1 22 80
ip netns exec inside python3 -c "$KNOCK" 172.30.0.2 8883 9999
ip netns exec outside python3 -c "$KNOCK" 192.0.2.2 7000
ip netns exec outside python3 -c "$KNOCK" 192.0.2.1 22 80 8883 9999
ip netns exec outside python3 -c "$KNOCK" 172.30.0.2 8883 9999
ip netns exec inside python3 -c "$KNOCK" 192.0.2.2 7000
ip netns exec inside python3 -c "$KNOCK" 172.30.0.1 22 80
"""
"""A machine between the world and a container, whose ports 8883 and 9999 an engine publishes."""

LISTEN = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in sys.argv[1:]:
    waiting.register(socket.create_server(("", int(port))), selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        key.fileobj.accept()[0].close()
"""

KNOCK = """
import json, socket, sys, time
opened, until = [], time.monotonic() + 3
for port in sys.argv[2:]:
    while True:
        try:
            socket.create_connection((sys.argv[1], int(port)), 1).close()
            opened.append(int(port))
            break
        except ConnectionRefusedError:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        except OSError:
            break
print(json.dumps(opened), flush=True)
"""


def run(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - as subprocess.run takes
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False, **more)


def confined(script: str, *words: object, env: dict[str, str] | None = None) -> str:
    """Run a script as root of namespaces of its own, and return what it prints."""
    command = ["--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-euc"]
    if run(need("unshare"), *command, "mount -t tmpfs none /run").returncode:
        lacking("namespaces cannot be made here")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = run("unshare", *command, script, "confined", *words, env=os.environ | {"PATH": path} | (env or {}))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The file, read by the Python that cloud-init itself runs on."""
    need("cloud-init")
    read = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
    done = run("/usr/bin/python3", "-c", read, input=FILE.read_text())
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


@pytest.fixture
def machine(document: dict[str, Any], tmp_path: Path) -> Path:
    """The file's own files under a folder, which stands for / in them."""
    root = tmp_path / "machine"
    for entry in document["write_files"]:
        path = root / entry["path"].removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = entry["content"]
        if entry["path"] == SCRIPT:
            for place in ("/etc/facerelay", "/opt/facerelay"):
                assert f"={place}\n" in text
                text = text.replace(f"={place}\n", f"={root}{place}\n")
            assert "=10001\n" in text
            text = text.replace("=10001\n", f"={os.getuid()}\n")
        path.write_text(text)
        path.chmod(int(entry.get("permissions", "0644"), 8))
    (root / "opt").mkdir()
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository to clone from, with what the cloud side is started from."""
    folder = tmp_path / "repository"
    shutil.copytree(ROOT / "docker", folder / "docker")
    shutil.copy(ROOT / "compose.cloud.yaml", folder)
    git = [need("git"), "-C", folder, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        assert run(*git, *words).returncode == 0
    return folder


def head(repository: Path) -> str:
    return run("git", "-C", repository, "rev-parse", "HEAD").stdout.strip()


def describe(machine: Path, *, repository: object, commit: str, name: str = "faces.example.org") -> None:
    text = f"NAME={name}\nREPOSITORY='{repository}'\nCOMMIT={commit}\n"
    (machine / "etc/facerelay/machine.env").write_text(text)


def cloud(machine: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the machine's own script; no engine is within its reach."""
    env = os.environ | {"DOCKER_HOST": f"unix://{machine}/none"}
    return run("sh", f"{machine}{SCRIPT}", *words, input=stdin, env=env)


def served(machine: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run the machine's own script with what stands for an engine."""
    programs = machine / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in (("docker", "#!/bin/sh\nexit 1\n"), ("docker-compose", COMPOSE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["sh", f"{machine}{SCRIPT}", *words]
    return subprocess.run(
        command, input=stdin.encode(), capture_output=True, timeout=60, check=False, env=env
    )


def asked(machine: Path) -> list[str]:
    return (machine / "programs/docker-compose.log").read_text().splitlines()


def test_cloud_inits_own_tool_finds_the_file_valid() -> None:
    done = run(need("cloud-init"), "schema", "--config-file", FILE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout


def test_a_mistake_is_not_found_valid(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(FILE.read_text().replace("runcmd:\n", "runcmd: 7\nnothing:\n"))
    assert run(need("cloud-init"), "schema", "--config-file", wrong).returncode != 0


def test_the_file_fits_and_holds_no_password(document: dict[str, Any]) -> None:
    assert len(FILE.read_bytes()) < USER_DATA_BYTES
    assert document["ssh_pwauth"] is False
    assert document["disable_root"] is True
    (user,) = document["users"]
    assert user["lock_passwd"] is True
    assert not {"passwd", "hashed_passwd", "plain_text_passwd"} & user.keys()
    assert not {"chpasswd", "password"} & document.keys()
    assert "secret_key" not in FILE.read_text().replace("secret key", "")


def test_nothing_is_fetched_but_from_debian_and_the_named_repository(document: dict[str, Any]) -> None:
    assert not {"apt", "apt_sources", "snap", "bootcmd"} & document.keys()
    text = FILE.read_text()
    assert [word for word in ("curl", "wget", "pip ", "get.docker.com") if word in text] == []
    assert text.replace("s3://faces", "").count("://") == 1
    assert "REPOSITORY=https://" in text


def test_ssh_takes_keys_of_one_user_whatever_the_provider_says(machine: Path, tmp_path: Path) -> None:
    sshd = need("sshd")
    ours = machine / "etc/ssh/sshd_config.d/10-facerelay.conf"
    assert ours.name < "50-cloud-init.conf"
    configuration, key = tmp_path / "sshd_config", tmp_path / "key"
    assert run(need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key).returncode == 0
    provider = "PasswordAuthentication yes\nPermitRootLogin yes\nKbdInteractiveAuthentication yes\n"
    configuration.write_text(f"Include {ours}\nHostKey {key}\n{provider}")
    run_sshd = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && "$1" -t -f "$2" && "$1" -T -f "$2"'
    said = confined(run_sshd, sshd, configuration).splitlines()
    for line in (
        "permitrootlogin no", "passwordauthentication no", "kbdinteractiveauthentication no",
        "permitemptypasswords no", "authenticationmethods publickey", "allowusers keeper",
        "pubkeyauthentication yes", "allowtcpforwarding yes", "allowagentforwarding no",
    ):  # fmt: skip
        assert line in said


def test_the_firewall_opens_ssh_and_the_broker_alone(machine: Path) -> None:
    need("nft")
    need("ip")
    rules = machine / "etc/facerelay/firewall.nft"
    printed = confined(NETWORK, rules, env={"LISTEN": LISTEN, "KNOCK": KNOCK})
    local, contained, world, reached, past, outward, inward = map(json.loads, printed.splitlines())
    assert [local, contained, world] == [[22, 80], [8883, 9999], [7000]], "who should listen does"
    assert reached == [22, 8883]
    assert past == [], "a container is not reached past the engine"
    assert outward == [7000]
    assert inward == [22]


def test_upgrades_are_configured_as_apt_reads_them(machine: Path) -> None:
    path = machine / "etc/apt/apt.conf.d/52facerelay"
    done = run(need("apt-config"), "dump", env=os.environ | {"APT_CONFIG": str(path)})
    assert 'APT::Periodic::Unattended-Upgrade "1";' in done.stdout
    assert 'Unattended-Upgrade::Automatic-Reboot "true";' in done.stdout
    assert json.loads((machine / "etc/docker/daemon.json").read_text()) == {"live-restore": True}


def test_the_script_is_sound_for_the_shell(machine: Path) -> None:
    for shell in ("sh", "bash"):
        done = run(need(shell), "-n", f"{machine}{SCRIPT}")
        assert done.returncode == 0, done.stderr


def test_the_machine_gets_its_commit_and_a_folder_of_its_own(machine: Path, repository: Path) -> None:
    describe(machine, repository=repository, commit=head(repository))
    done = cloud(machine, "prepare")
    assert done.returncode == 0, done.stderr
    assert head(machine / "opt/facerelay") == head(repository)
    folder = machine / "etc/facerelay/cloud"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "bucket-key").read_bytes() == b"", "the key is not invented: it is the provider's"
    assert (folder / "bucket-key").stat().st_mode & 0o777 == 0o400


def test_the_machine_enrols_itself_once_and_waits_for_the_buckets_key(
    machine: Path, repository: Path
) -> None:
    describe(machine, repository=repository, commit=head(repository))
    done = served(machine, "up")
    assert done.returncode == 0, done.stderr
    assert b"facerelay-cloud key" in done.stdout
    assert asked(machine)[-1] == "-f compose.cloud.yaml build"
    folder = machine / "etc/facerelay/cloud"
    known = settings.load(folder / "cloud.toml", environ={})
    assert (known.bucket.url, known.bucket.access_key) == ("s3://faces", "the key's name")
    assert known.trust.devices == folder / "trust/devices"
    assert known.gallery.broker_cert == folder / "trust/gallery.pem"
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*")} == {0}
    assert {"faces.example.org", "cloud-broker"} <= {*hosts_of(read_certificate(folder / "trust/broker.pem"))}
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert served(machine, "key", stdin="the secret").returncode == 0
    assert asked(machine)[-1] == "-f compose.cloud.yaml up -d --force-recreate"
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before | {folder / "bucket-key": b"the secret"}
    assert not list((machine / "etc/facerelay").glob("*.new"))


def test_a_sites_bundle_comes_by_stdout_and_does_not_stay(
    machine: Path, repository: Path, tmp_path: Path
) -> None:
    describe(machine, repository=repository, commit=head(repository))
    assert served(machine, "up").returncode == 0
    done = served(machine, "site", "door")
    assert done.returncode == 0, done.stderr
    assert not list((machine / "etc/facerelay/cloud").glob("*.tar"))
    bundle, site = tmp_path / "door.tar", tmp_path / "site"
    bundle.write_bytes(done.stdout)
    joined = run(sys.executable, "-m", "facerelay", "enrol", "join", bundle, "--dir", site)
    assert joined.returncode == 0, joined.stderr
    known = settings.load(site / "edge.toml", environ={})
    assert known.cloud is not None
    assert known.cloud.url == "mqtts://faces.example.org:8883"
    again = served(machine, "site", "door")
    assert (again.returncode != 0, again.stdout) == (True, b"")
    assert b"is enrolled" in again.stderr
    assert served(machine, "enrol", "revoke", "door").returncode == 0
    assert b"revoked" in served(machine, "enrol", "list").stdout


@pytest.mark.parametrize("name", ["", "../door", "Door", "-v"])
def test_a_name_that_no_site_can_have_is_refused(machine: Path, repository: Path, name: str) -> None:
    describe(machine, repository=repository, commit=head(repository))
    assert served(machine, "up").returncode == 0
    done = served(machine, "site", name)
    assert (done.returncode != 0, done.stdout) == (True, b"")
    assert done.stderr


def test_another_commit_is_checked_out(machine: Path, repository: Path) -> None:
    describe(machine, repository=repository, commit=head(repository))
    assert cloud(machine, "prepare").returncode == 0
    (repository / "more").write_text("more")
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    assert run(*git, "add", ".").returncode == 0
    assert run(*git, "commit", "-qm", "two").returncode == 0
    describe(machine, repository=repository, commit=head(repository))
    assert cloud(machine, "prepare").returncode == 0
    assert (machine / "opt/facerelay/more").read_text() == "more"


def test_the_cloud_side_is_described_with_the_machines_own_files(machine: Path, repository: Path) -> None:
    need("docker-compose")
    describe(machine, repository=repository, commit=head(repository))
    assert cloud(machine, "prepare").returncode == 0
    done = cloud(machine, "compose", "config")
    assert done.returncode == 0, done.stderr
    for name in ("cloud.toml", "bucket-key", "trust/authority.pem", "trust/devices", "trust/store.key"):
        assert f"{machine}/etc/facerelay/cloud/{name}" in done.stdout
    assert "authority.key" not in done.stdout
    assert "8883" in done.stdout


def test_the_buckets_key_comes_by_stdin_and_is_kept_whole(machine: Path, repository: Path) -> None:
    describe(machine, repository=repository, commit=head(repository))
    assert cloud(machine, "prepare").returncode == 0
    key = machine / "etc/facerelay/cloud/bucket-key"
    cloud(machine, "key", stdin="the secret\n")
    assert key.read_text() == "the secret\n"
    assert key.stat().st_mode & 0o777 == 0o400, "the containers' user reads it"
    for wrong in ("", "x" * 5000):
        done = cloud(machine, "key", stdin=wrong)
        assert done.returncode == 1
        assert "stdin" in done.stderr
        assert key.read_text() == "the secret\n"
    assert not [*key.parent.glob("*.new"), *key.parents[1].glob("*.new")]


@pytest.mark.parametrize("commit", ["0" * 40, "main", "abc123", "A" * 40])
def test_a_commit_that_is_none_is_refused_by_name(machine: Path, repository: Path, commit: str) -> None:
    describe(machine, repository=repository, commit=commit)
    done = cloud(machine, "prepare")
    assert done.returncode == 1
    assert "COMMIT" in done.stderr
    assert not (machine / "opt/facerelay").exists()


def test_a_commit_that_the_repository_lacks_is_refused(machine: Path, repository: Path) -> None:
    describe(machine, repository=repository, commit="1" * 40)
    done = cloud(machine, "prepare")
    assert done.returncode == 1
    assert f"has no commit {'1' * 40}" in done.stderr


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.git", "git://127.0.0.1:9/x", "ext::sh -c id"])
def test_a_repository_without_tls_is_refused(machine: Path, address: str) -> None:
    describe(machine, repository=address, commit="1" * 40)
    done = cloud(machine, "prepare")
    assert done.returncode == 1
    assert "not allowed" in done.stderr
    assert "REPOSITORY" in done.stderr
