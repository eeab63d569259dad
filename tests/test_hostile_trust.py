from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from facerelay import messages, settings
from facerelay.edge.voices import IgnoredError, Voices
from facerelay.fleet.bundle import join, read_bundle
from facerelay.fleet.names import EnrolError
from facerelay.fleet.request import public_key_of
from facerelay.settings import ConfigError
from facerelay.signing import Authority, KeyFileError, SignatureError, Signer, der_certificate
from fuzzing.mutate import Mutator
from fuzzing.trust import authority_file, made, pem, tar, version_4

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

TAIL = ',"key":"' + "0" * 16 + '","signature":"' + "A" * 86 + '"}'


def hello(certificate: bytes) -> bytes:
    said = {"v": 1, "store": "main", "start": "a" * 16, "certificate": base64.b64encode(certificate).decode()}
    return (json.dumps(said)[:-1] + TAIL).encode()


@pytest.mark.parametrize("number", range(len(made().odd)))
def test_a_hello_with_an_odd_certificate_is_ignored_and_the_edge_goes_on(tmp_path: Path, number: int) -> None:
    voices = Voices(authority_file(tmp_path))
    with pytest.raises((IgnoredError, messages.WireError)):
        voices.hello("stores/main", hello(made().odd[number]))
    with pytest.raises(IgnoredError, match="key"):  # the right one, with a signature of nobody's
        voices.hello("stores/main", hello(made().store))


def test_no_mutation_of_a_certificate_gets_past_as_another_error(tmp_path: Path) -> None:
    authority = Authority(authority_file(tmp_path))
    mutator = Mutator(1, [made().store, made().authority, *made().odd])
    for _ in range(3_000):
        data = mutator.next()
        try:
            authority.admit(der_certificate(data))
        except SignatureError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize(
    "request_", [version_4(made().request), made().request[:-9], b"", made().store, bytes(9_000)]
)
def test_an_odd_request_is_refused_in_a_line(tmp_path: Path, request_: bytes) -> None:
    path = tmp_path / "request.pem"
    path.write_bytes(pem(request_, "CERTIFICATE REQUEST"))
    with pytest.raises(EnrolError):
        public_key_of(path)


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize("number", range(len(made().odd)))
def test_an_odd_bundle_leaves_nothing_behind(tmp_path: Path, number: int, with_key: bool) -> None:  # noqa: FBT001 - a parameter
    files = {
        "cloud.toml": settings.template(settings.CLOUD, {}).encode(),
        "trust/authority.pem": pem(made().authority),
        "trust/store.pem": pem(made().odd[number]), **({"trust/store.key": made().key} if with_key else {}),
    }  # fmt: skip
    (tmp_path / "bundle.tar").write_bytes(tar(files))
    (tmp_path / "here" / "trust").mkdir(parents=True)
    with pytest.raises((EnrolError, KeyFileError)):
        join(read_bundle(tmp_path / "bundle.tar"), tmp_path / "here")
    assert not [path for path in (tmp_path / "here").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/cron.d/evil",
        "trust/../../evil",
        "trust/authority.pem/x",
        "edge.toml\0",
        "./edge.toml",
    ],
)
def test_no_name_in_a_bundle_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "bundle.tar").write_bytes(
        tar({"cloud.toml": b"x", "trust/authority.pem": b"x", name: b"evil"})
    )
    with pytest.raises(EnrolError):
        read_bundle(tmp_path / "bundle.tar")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle.tar"}


def test_no_mutation_of_a_bundle_is_another_error_or_leaves_half_of_it(tmp_path: Path) -> None:
    good = {
        "cloud.toml": settings.template(settings.CLOUD, {}).encode(),
        "trust/authority.pem": pem(made().authority),
        "trust/store.pem": pem(made().store), "trust/store.key": made().key,
    }  # fmt: skip
    mutator = Mutator(2, [tar(good)])
    for number in range(300):
        (tmp_path / "bundle.tar").write_bytes(mutator.next())
        here = tmp_path / f"{number}"
        here.mkdir()
        try:
            join(read_bundle(tmp_path / "bundle.tar"), here)
        except (EnrolError, KeyFileError, ConfigError):
            assert not [path for path in here.rglob("*") if path.is_file()]
        else:
            Signer(here / "trust" / "store.pem", here / "trust" / "store.key")
