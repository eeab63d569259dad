"""Enrolment by its commands: files, modes, bundles, and what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from conftest import need
from enrolled import Enrolled
from facerelay import settings
from facerelay.cli import main
from facerelay.commands import doctor, enrol, roster
from facerelay.fleet import EnrolError, Issuer, Roll, ask, endings, join, names, public_key_of, read_bundle
from facerelay.signing import Authority, KeyFileError, Signer, read_certificate


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def done(*words: str) -> str:
    result = typed(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str) -> str:
    result = typed(*words)
    assert result.exit_code == 2, result.output
    return result.output


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in sorted(folder.rglob("*"))
    }


def test_two_commands_make_a_cloud_and_a_site(here: Path) -> None:
    said = done("enrol", "cloud", "faces.example.org", "192.0.2.7", "--site", "door", "--dir", "cloud")
    assert "facerelay run -c cloud/cloud.toml" in said
    done("enrol", "join", "cloud/door.tar", "--dir", "device")
    for folder in (here / "cloud", here / "device"):
        for path, mode in modes(folder).items():
            assert mode == (0o700 if (folder / path).is_dir() else 0o600), path
    edge, cloud = settings.load(here / "device/edge.toml"), settings.load(here / "cloud/cloud.toml")
    assert edge.cloud is not None
    assert (edge.site, edge.cloud.url) == ("door", "mqtts://faces.example.org:8883")
    assert (cloud.store.name, cloud.broker.listening.url) == ("main", "mqtts://0.0.0.0:8883")
    device = Signer(here / "device/trust/site.pem", here / "device/trust/site.key")
    assert str(Authority(cloud.trust.authority or here).admit(device.certificate).owner) == "site door"
    assert sorted(path.name.rsplit(".", 2)[0] for path in (here / "cloud/trust/devices").iterdir()) == [
        "gallery.main", "site.door", "store.main",
    ]  # fmt: skip
    assert (
        str(Signer(here / "cloud/trust/store.pem", here / "cloud/trust/store.key").public.owner)
        == "store main"
    )


@pytest.mark.parametrize(
    ("faces", "fine"),
    [
        ("faces/{site}", True),
        ("x/#", True),
        ("x/{camera}/{site}", True),
        ("image", False),
        ("x/{site}-{camera}", False),
    ],
)
def test_a_topic_that_cannot_keep_sites_apart_is_for_one(here: Path, faces: str, *, fine: bool) -> None:
    done("enrol", "cloud", "faces.example.org", "--site", "door")
    cloud = here / "cloud.toml"
    line = '# faces = "faces/{site}/{camera}"'
    assert line in cloud.read_text()
    cloud.write_text(cloud.read_text().replace(line, f'faces = "{faces}"'))
    said = typed("enrol", "edge", "gate")
    assert (said.exit_code, (here / "gate.tar").exists()) == ((0, True) if fine else (2, False)), said.output
    assert fine or "topics.faces" in said.output


def test_openssl_agrees(here: Path) -> None:
    openssl = need("openssl")
    done("enrol", "cloud", "faces.example.org", "2001:db8::1", "--site", "door", "--site", "gate")
    done("enrol", "join", "door.tar", "--dir", "device")
    done("enrol", "revoke", "gate")
    trust = ["-CAfile", "trust/authority.pem", "-CRLfile", "trust/crl.pem", "-crl_check", "-x509_strict"]
    gate = next((here / "trust/devices/revoked").glob("site.gate.*.pem"))

    def verify(*words: str) -> str:
        found = subprocess.run(
            [openssl, "verify", *trust, *words], capture_output=True, text=True, check=False
        )
        return found.stdout + found.stderr

    assert verify("-purpose", "sslclient", "device/trust/site.pem").endswith(": OK\n")
    assert verify("-purpose", "sslclient", "trust/store.pem").endswith(": OK\n")
    for host in ("faces.example.org", "localhost"):
        ok = verify("-purpose", "sslserver", "-verify_hostname", host, "trust/broker.pem")
        assert ok.endswith(": OK\n"), ok
    assert verify("-purpose", "sslserver", "-verify_ip", "2001:db8::1", "trust/broker.pem").endswith(": OK\n")
    assert "unsuitable certificate purpose" in verify("-purpose", "sslserver", "device/trust/site.pem")
    assert "certificate revoked" in verify("-purpose", "sslclient", str(gate))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cloud"], "Missing argument"),
        (["cloud", "mqtts://faces.example.org"], "name or address alone"),
        (["cloud", "faces.example.org:8883"], "the port is --port"),
        (["cloud", "::"], "sites cannot reach this address"),
        (["cloud", "1.2.3.400"], "is no host"),
        (["cloud", "faces.example.org."], "write faces.example.org"),
        (["cloud", "münchen.example.org"], "write xn--mnchen-3ya.example.org"),
        (["cloud", "fe80::1%eth0"], "sites cannot reach this address"),
        (["cloud", "a b"], "is no host"),
        (["cloud", "localhost", "--name", "Main Store"], "such as 'main-store'"),
        (["cloud", "localhost", "--site", "../door"], "such as 'door'"),
        (["cloud", "localhost", "--site", "d" * 63], "59 characters at most"),
        (["edge", "door"], "no cloud.toml in this folder"),
        (["edge", "door", "-c", "away.toml"], "away.toml: No such file"),
        (["list"], "facerelay enrol cloud HOST"),
        (["request", "Door 1"], "such as 'door-1'"),
        (["join", "away.tar"], "away.tar: No such file"),
    ],
)
def test_a_wrong_word_says_what_to_do_and_leaves_nothing(here: Path, words: list[str], says: str) -> None:
    assert says in refused("enrol", *words)
    assert not list(here.iterdir())


def test_nothing_is_written_over(here: Path) -> None:
    (here / "door.tar").write_text("mine")
    assert "door.tar: exists" in refused("enrol", "cloud", "localhost", "--site", "door")
    assert [path.name for path in here.iterdir()] == ["door.tar"]
    done("enrol", "cloud", "localhost")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert "cloud.toml: exists" in refused("enrol", "cloud", "localhost")
    assert "door.tar: exists" in refused("enrol", "edge", "door")
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    done("enrol", "edge", "door", "--out", "other.tar")
    assert "enrol renew door" in refused("enrol", "edge", "door", "--out", "again.tar")
    done("enrol", "join", "other.tar", "--dir", "device")
    device = {path: path.read_bytes() for path in (here / "device").rglob("*") if path.is_file()}
    assert "join --renew" in refused("enrol", "join", "other.tar", "--dir", "device")
    assert {path: path.read_bytes() for path in (here / "device").rglob("*") if path.is_file()} == device


@pytest.mark.usefixtures("here")
def test_the_clouds_own_folder_is_no_place_to_join() -> None:
    done("enrol", "cloud", "localhost", "--site", "door")
    assert "is a cloud's folder: join in another one, with --dir" in refused("enrol", "join", "door.tar")


def test_a_key_that_never_travels(here: Path) -> None:
    done("enrol", "cloud", "localhost")
    asked = json.loads(done("enrol", "request", "door", "--dir", "device", "--json"))
    assert asked["next"] == ["facerelay enrol edge door --request door.csr"]
    assert stat.S_IMODE((here / "device/trust/site.key").stat().st_mode) == 0o600
    done("enrol", "edge", "door", "--request", "device/door.csr")
    with tarfile.open("door.tar") as archive:
        assert archive.getnames() == ["edge.toml", "trust/authority.pem", "trust/site.pem"]
    assert "belongs to it" in refused("enrol", "join", "door.tar", "--dir", "elsewhere")
    done("enrol", "join", "door.tar", "--dir", "device")
    first = Signer(here / "device/trust/site.pem", here / "device/trust/site.key")
    (here / "device/door.csr").unlink()
    (here / "door.tar").unlink()
    assert "site.key: exists" in refused("enrol", "request", "door", "--dir", "device")
    done("enrol", "request", "door", "--renew", "--dir", "device")
    done("enrol", "renew", "door", "--request", "device/door.csr")
    done("enrol", "join", "--renew", "door.tar", "--dir", "device")
    second = Signer(here / "device/trust/site.pem", here / "device/trust/site.key")
    assert second.public.id != first.public.id
    assert not (here / "device/trust/site.key.new").exists()


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str = "x") -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_of_a_hostile_request_only_the_key_is_taken(here: Path) -> None:
    done("enrol", "cloud", "localhost")
    key = ec.generate_private_key(ec.SECP256R1())
    (here / "door.csr").write_bytes(request(key, "store.main"))
    done("enrol", "edge", "door", "--request", "door.csr")
    [path] = (here / "trust/devices").glob("site.door.*")
    made = read_certificate(path)
    assert made.subject.rfc4514_string() == "CN=site.door"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert made.public_key() == key.public_key()
    (here / "gate.csr").write_bytes(request(key))
    assert "this key is enrolled as site.door" in refused("enrol", "edge", "gate", "--request", "gate.csr")
    done("enrol", "revoke", "door")
    assert "this key was revoked as site.door" in refused("enrol", "edge", "gate", "--request", "gate.csr")
    assert not (here / "gate.tar").exists()


def _flipped() -> bytes:
    der = bytearray(x509.load_pem_x509_csr(request(ec.generate_private_key(ec.SECP256R1()))).public_bytes(
        serialization.Encoding.DER
    ))  # fmt: skip
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: request(rsa.generate_private_key(65537, 2048)), "not on P-256"),
        (lambda: request(ec.generate_private_key(ec.SECP384R1())), "not on P-256"),
        (_flipped, "not signed by its own key"),
        (lambda: b"", "not a certificate request"),
        (
            lambda: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "not a cert",
        ),
        (lambda: b"x" * 9000, "more than 8192 bytes"),
    ],
)
def test_a_request_that_is_none_is_refused(here: Path, make: Callable[[], bytes], says: str) -> None:
    done("enrol", "cloud", "localhost")
    (here / "door.csr").write_bytes(make())
    assert says in refused("enrol", "edge", "door", "--request", "door.csr")
    assert not (here / "door.tar").exists()
    assert not list((here / "trust/devices").glob("site.*"))


def test_renewed_and_revoked(here: Path) -> None:
    done("enrol", "cloud", "localhost", "--site", "door", "--broker", "mosquitto")
    done("enrol", "join", "door.tar", "--dir", "device")
    (here / "device/edge.toml").write_text((here / "device/edge.toml").read_text() + "# mine\n")
    (here / "door.tar").unlink()
    first = Signer(here / "device/trust/site.pem", here / "device/trust/site.key").public.id
    done("enrol", "renew", "door")
    done("enrol", "join", "--renew", "door.tar", "--dir", "device")
    assert (here / "device/edge.toml").read_text().endswith("# mine\n")
    second = Signer(here / "device/trust/site.pem", here / "device/trust/site.key").public.id
    rows = [json.loads(line) for line in done("enrol", "list", "--json").splitlines()]
    assert {row["key"] for row in rows if row["name"] == "door"} == {first, second}
    done("enrol", "revoke", "door", "--key", first[:6])
    assert "user site.door" in (here / "mosquitto.acl").read_text()
    assert "has no key" in refused("enrol", "revoke", "door", "--key", "ffffffffffff")
    done("enrol", "renew", "door", "--out", "third.tar")
    assert "has 2 keys that begin with ''" in refused("enrol", "revoke", "door", "--key", "")
    assert "did you mean 'door'" in refused("enrol", "revoke", "dor")
    done("enrol", "revoke", "door")
    assert "user site.door" not in (here / "mosquitto.acl").read_text()
    states = {
        row["key"]: row["state"] for row in map(json.loads, done("enrol", "list", "--json").splitlines())
    }
    assert (states[first], states[second]) == ("revoked", "revoked")
    crl = x509.load_pem_x509_crl((here / "trust/crl.pem").read_bytes())
    assert len(list(crl)) == 3
    assert crl.is_signature_valid(read_certificate(here / "trust/authority.pem").public_key())  # type: ignore[arg-type]
    (here / "door.tar").unlink()
    done("enrol", "edge", "door")  # a machine of that name may come again, with another key
    assert "user site.door" in (here / "mosquitto.acl").read_text()


@pytest.mark.usefixtures("here")
def test_a_bundle_goes_to_its_own_machine() -> None:
    done("enrol", "cloud", "localhost", "--site", "door", "--site", "gate")
    done("enrol", "join", "door.tar", "--dir", "device")
    assert "this machine is site door, and the bundle is of site gate" in refused(
        "enrol", "join", "--renew", "gate.tar", "--dir", "device"
    )
    assert "nothing to renew" in refused("enrol", "join", "--renew", "gate.tar", "--dir", "other")


def test_a_bundle_of_another_cloud_renews_nothing(here: Path) -> None:
    done("enrol", "cloud", "localhost", "--site", "door", "--site", "door")
    done("enrol", "cloud", "localhost", "--dir", "other")
    done("enrol", "edge", "door", "-c", "other/cloud.toml", "--out", "other.tar")
    done("enrol", "join", "door.tar", "--dir", "device")
    before = {path: path.read_bytes() for path in (here / "device").rglob("*") if path.is_file()}
    assert "is of another cloud" in refused("enrol", "join", "--renew", "other.tar", "--dir", "device")
    assert {path: path.read_bytes() for path in (here / "device").rglob("*") if path.is_file()} == before


def test_a_clock_outside_the_authoritys_time_is_told(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path)
    for years in (-2, 11):
        then = datetime.now(UTC) + timedelta(days=366 * years)
        with pytest.raises(EnrolError, match="see to the clock"):
            enrol.edge(cloud.cloud, "late", tmp_path / "late.tar", now=then)
    assert not (tmp_path / "late.tar").exists()


def test_the_clouds_own_roles_are_renewed_in_place(here: Path) -> None:
    done("enrol", "cloud", "faces.example.org", "192.0.2.7")
    before = {name: (here / f"trust/{name}.pem").read_bytes() for name in ("store", "gallery", "broker")}
    for name in ("store.main", "gallery.main", "broker.faces"):
        done("enrol", "renew", name)
    for name, old in before.items():
        Signer(here / f"trust/{name}.pem", here / f"trust/{name}.key")
        assert (here / f"trust/{name}.pem").read_bytes() != old
    broker = read_certificate(here / "trust/broker.pem")
    found = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in found] == [
        "faces.example.org",
        "192.0.2.7",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    done("enrol", "renew", "broker.faces", "--host", "new.example.org", "--host", "faces.example.org")
    done("enrol", "edge", "door")
    assert b"mqtts://new.example.org:8883" in read_bundle(here / "door.tar").settings
    assert "broker's certificate alone" in refused("enrol", "renew", "store.main", "--host", "x")
    assert "broker.face is not the broker here" in refused("enrol", "renew", "broker.face")
    table = done("enrol", "list").splitlines()
    assert [line.split()[0] for line in table[-2:]] == ["broker.faces", "authority"]
    assert "a broker is not revoked" in refused("enrol", "revoke", "broker.faces")


@pytest.mark.parametrize("mosquitto", [False, True])
def test_a_broker_s_certificate_is_a_client_s_between_embedded_ones(here: Path, *, mosquitto: bool) -> None:
    """Mosquitto lets in whoever shows a client's certificate; the embedded broker, whoever is on its roll."""

    def uses() -> set[object]:
        found = read_certificate(here / "trust/broker.pem")
        return set(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)

    done("enrol", "cloud", "faces.example.org", *(("--broker", "mosquitto") if mosquitto else ()))
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH} | (set() if mosquitto else {ExtendedKeyUsageOID.CLIENT_AUTH})
    assert uses() == wanted
    done("enrol", "renew", "broker.faces")
    assert uses() == wanted


def test_one_more_store(here: Path) -> None:
    done("enrol", "cloud", "faces.example.org", "--bucket", "s3://faces")
    assert "facerelay run -c cloud.toml" in done("enrol", "store", "second")
    done("enrol", "join", "store.second.tar", "--dir", "machine")
    config = settings.load(here / "machine/cloud.toml")
    assert (config.store.name, config.bucket.url, config.broker.url) == (
        "second", "s3://faces", "mqtts://faces.example.org:8883",
    )  # fmt: skip
    assert (
        str(Signer(here / "machine/trust/store.pem", here / "machine/trust/store.key").public.owner)
        == "store second"
    )
    assert "store second is enrolled" in refused("enrol", "store", "second")


def test_one_more_store_pulls_from_the_same_stream(here: Path) -> None:
    done("enrol", "cloud", "faces.example.org")
    servers = ("tls://a.example.org:4222", "tls://b.example.org:4222")
    chosen = f'[jetstream]\nservers = {list(servers)}\nstream = "s"'
    text = (here / "cloud.toml").read_text()
    (here / "cloud.toml").write_text(text.replace("[jetstream]", chosen, 1))
    done("enrol", "store", "second")
    done("enrol", "join", "store.second.tar", "--dir", "machine")
    there = settings.load(here / "machine/cloud.toml").jetstream
    assert (there.servers, there.stream) == (servers, "s")


def test_what_both_sides_must_agree_on_is_the_clouds(here: Path) -> None:
    done("enrol", "cloud", "localhost")
    text = (here / "cloud.toml").read_text()
    recipient = "age1" + "q" * 58
    text = text.replace('# faces = "faces/{site}/{camera}"', 'faces = "pictures/{site}/{camera}"')
    text = text.replace("# message_bytes = 1000000", "message_bytes = 120000").replace(
        "# recipients = []", f'recipients = ["{recipient}"]'
    )
    (here / "cloud.toml").write_text(text)
    done("enrol", "edge", "door")
    done("enrol", "join", "door.tar", "--dir", "device")
    edge = settings.load(here / "device/edge.toml")
    assert edge.topics.faces == "pictures/{site}/{camera}"
    assert edge.limits.message_bytes == 120_000
    assert edge.seal.recipients == (recipient,)


class Tar:
    """A bundle, changed."""

    def __init__(self, good: Path) -> None:
        with tarfile.open(good) as archive:
            self.members = [(one, archive.extractfile(one).read()) for one in archive]  # type: ignore[union-attr]

    def with_(self, at: int = -1, **changes: Any) -> bytes:  # noqa: ANN401 - of a member
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as archive:
            for number, (member, data) in enumerate(self.members):
                if number == at % len(self.members):
                    for name, value in changes.items():
                        setattr(member, name, value)
                archive.addfile(member, io.BytesIO(data[: member.size].ljust(member.size, b"x")))
        return written.getvalue()


HOSTILE: dict[str, Callable[[Tar], bytes]] = {
    "climbs": lambda tar: tar.with_(name="../site.key"),
    "absolute": lambda tar: tar.with_(name="/trust/site.key"),
    "another file": lambda tar: tar.with_(name="trust/other.key"),
    "shell": lambda tar: tar.with_(name="trust/site.key\n\x1b[2J"),
    "symlink": lambda tar: tar.with_(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
    "hard link": lambda tar: tar.with_(type=tarfile.LNKTYPE, linkname="edge.toml", size=0),
    "folder": lambda tar: tar.with_(type=tarfile.DIRTYPE, size=0),
    "device": lambda tar: tar.with_(type=tarfile.CHRTYPE, size=0),
    "fifo": lambda tar: tar.with_(type=tarfile.FIFOTYPE, size=0),
    "twice": lambda tar: tar.with_(name="edge.toml"),
    "large": lambda tar: tar.with_(size=70_000),
    "huge": lambda tar: tar.with_(size=5_000_000),
    "empty": lambda tar: tar.with_(size=0),
    "cut": lambda tar: tar.with_()[:2_000],
    "gzip": lambda _: b"\x1f\x8b" + bytes(100),
    "nothing": lambda _: b"",
    "noise": lambda _: bytes(range(256)) * 40,
    "no settings": lambda tar: tar.with_(0, name="trust/store.pem"),
    "wrong settings": lambda tar: tar.with_(0, name="cloud.toml"),
    "claims a tebibyte": lambda tar: _sized(tar.with_(), b"\x80\0\0\0\0\0\x01\0\0\0\0\0"),
    "claims less than nothing": lambda tar: _sized(tar.with_(), b"\xff" * 12),
}


STRANGE = {"climbs", "absolute", "another file", "shell", "twice"}
UNPLAIN = {
    "symlink",
    "hard link",
    "folder",
    "device",
    "fifo",
    "large",
    "empty",
    "claims a tebibyte",
    "claims less than nothing",
}


def _sized(data: bytes, size: bytes) -> bytes:
    head = bytearray(data[:512])
    head[124:136] = size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_bundle_is_refused_and_leaves_nothing(here: Path, kind: str) -> None:
    done("enrol", "cloud", "localhost", "--site", "door", "--dir", "cloud")
    (here / "door.tar").write_bytes(HOSTILE[kind](Tar(here / "cloud/door.tar")))
    said = refused("enrol", "join", "door.tar", "--dir", "device")
    assert "door.tar" in said
    assert ("which no bundle of ours does" in said) == (kind in STRANGE)
    assert ("no plain, small file" in said) == (kind in UNPLAIN)
    assert said.isprintable() or said.rstrip("\n").isprintable()
    assert not [path for path in (here / "device").rglob("*") if path.is_file()]
    done("enrol", "join", "cloud/door.tar", "--dir", "device")  # the next good one


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A bundle and a request, as their bytes."""
    folder = tmp_path_factory.mktemp("good")
    cloud = Enrolled.make(folder)
    ask(names.owner("site", "gate"), key=folder / "gate.key", request=folder / "gate.csr")
    return {"bundle": (cloud.folder / "door.tar").read_bytes(), "request": (folder / "gate.csr").read_bytes()}


@pytest.mark.parametrize("kind", ["bundle", "request"])
@given(data=st.data())
@hypothesis.settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_refused(good: dict[str, bytes], kind: str, data: st.DataObject) -> None:
    known = good[kind]
    changed = bytearray(known)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(known) - 1))
        changed[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any"
        path.write_bytes(
            changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.booleans()) else changed
        )
        try:
            if kind == "request":
                public_key_of(path)
            else:
                join(read_bundle(path), Path(folder) / "device")
        except settings.ConfigError:
            left = [each for each in Path(folder).glob("device/**/*") if each.is_file()]
            assert not left


def test_parts_of_two_bundles_don_t_pass_for_one(here: Path) -> None:
    for name in ("one", "two"):
        done("enrol", "cloud", "localhost", "--site", "door", "--dir", name)
    first, second = read_bundle(here / "one/door.tar"), read_bundle(here / "two/door.tar")
    for part in ("authority", "certificate", "key"):
        mixed = dataclasses.replace(first, **{part: getattr(second, part)})
        with pytest.raises(EnrolError, match="don't belong together"):
            join(mixed, here / "device")
    assert not [path for path in here.glob("device/**/*") if path.is_file()]


def test_doctor_tells_thirty_days_ahead(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    cloud = Enrolled.make(tmp_path, now=now)
    edge, config = cloud.edge(), cloud.cloud
    assert [each.wrong for each in endings(edge) + endings(config) if each.wrong] == []
    soon = now + timedelta(days=710)
    [site] = [each.wrong for each in endings(edge, now=soon) if each.wrong]
    assert "in 20 days: `facerelay enrol renew door` in the cloud, and carry its bundle to the device" in site
    told = {each.what.rsplit("/", 1)[-1]: each.wrong for each in endings(config, now=soon) if each.wrong}
    assert sorted(told) == ["broker.pem", "door", "gallery.main", "store.pem"]
    assert "`facerelay enrol renew broker.localhost`" in told["broker.pem"]
    assert "ended on" in endings(edge, now=now + timedelta(days=900))[1].wrong
    early = endings(edge, now=now - timedelta(days=400))[0].wrong
    assert "see to the clock" in early
    enrol.renew(config, "door", tmp_path / "renewed.tar", now=soon)
    assert "door" not in {each.what for each in endings(config, now=soon) if each.wrong}


def test_doctor_fails_where_a_certificate_has_ended(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path, now=datetime.now(UTC) - timedelta(days=740))
    with pytest.raises(doctor.CheckError, match=r"broker\.pem ended on .*: `facerelay enrol renew broker\."):
        asyncio.run(doctor._certificates(cloud.cloud))
    fine = Enrolled.make(tmp_path / "fine")
    said = asyncio.run(doctor._certificates(fine.cloud))
    assert "5 are valid" in said
    assert said.endswith(roster.fingerprint(fine.cloud))


def test_doctor_sees_a_name_that_is_not_the_certificates(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path)
    renamed = settings.load(cloud.file, flags=["store.name=other"], environ={})
    with pytest.raises(EnrolError, match=r"store\.name is 'other', and trust\.cert is of store main"):
        asyncio.run(doctor._certificates(renamed))
    edge = settings.load(tmp_path / "door/edge.toml", flags=["site=gate"], environ={})
    with pytest.raises(EnrolError, match="set site = 'door'"):
        asyncio.run(doctor._certificates(edge))


def test_many_enrolments_at_once_all_have_their_rights(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path, sites=(), mosquitto=True)
    sites = [f"site-{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda site: enrol.edge(cloud.cloud, site, tmp_path / f"{site}.tar"), sites))
    acl = (cloud.folder / "mosquitto.acl").read_text()
    assert [site for site in sites if f"user site.{site}\n" not in acl] == []


def test_a_bundle_with_settings_that_cannot_be_leaves_nothing(here: Path) -> None:
    done("enrol", "cloud", "localhost", "--site", "door")
    bundle = dataclasses.replace(read_bundle(here / "door.tar"), settings=b'site = "door"\nsiet = 1\n')
    with pytest.raises(settings.ConfigError, match="did you mean 'site'"):
        join(bundle, here / "device")
    assert not [path for path in (here / "device").rglob("*") if path.is_file()]


def test_a_folder_with_a_strange_file_says_which(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path)
    (cloud.folder / "trust/devices/x.pem").write_text("no certificate")
    with pytest.raises(KeyFileError, match=r"x\.pem: not a certificate"):
        roster.listed(cloud.cloud)


def test_a_full_bundle_that_cannot_be_written_enrols_nobody(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path, sites=())
    with pytest.raises(EnrolError, match="No such file"):
        enrol.edge(cloud.cloud, "door", tmp_path / "away" / "door.tar")
    assert not Roll(cloud.folder / "trust/devices").has(names.owner("site", "door"))


def test_a_site_outlives_no_authority(tmp_path: Path) -> None:
    authority = Issuer.create(tmp_path, life=timedelta(days=10))
    key = ec.generate_private_key(ec.SECP256R1())
    made = authority.certify(names.owner("site", "door"), key.public_key())
    assert made.not_valid_after_utc == authority.certificate.not_valid_after_utc
