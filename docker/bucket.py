"""A bucket for one machine: SeaweedFS with one pair of keys, its S3 API on 8333, all else on loopback."""

# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path("/var/lib/facerelay")
KEY = Path("/run/secrets/bucket-key")
FORBIDDEN = 403


def serve() -> None:
    """Become the server."""
    keys = {"accessKey": "facerelay", "secretKey": KEY.read_text(encoding="utf-8").strip()}
    identity = {"name": "facerelay", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    settings = Path("/dev/shm/s3.json")  # noqa: S108 - the container's own, and the only memory that can be written
    settings.touch(mode=0o600)
    settings.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    data = HERE / "data"
    data.mkdir(exist_ok=True)
    command = [
        "weed", "-logtostderr=true", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-s3", f"-s3.config={settings}", "-s3.port=8333", "-s3.ip.bind=0.0.0.0", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0",
        "-master.resumeState=false",
    ]  # fmt: skip
    os.chdir(HERE)
    os.execvp(command[0], command)  # noqa: S606 - it is the server from here on


def check() -> int:
    """Return 0 if it takes a file, and its S3 API refuses who has no key."""
    put = urllib.request.Request("http://127.0.0.1:8888/up", data=b"up", method="PUT")
    urllib.request.urlopen(put, timeout=2).close()  # noqa: S310 - our own server
    try:
        urllib.request.urlopen("http://127.0.0.1:8333/", timeout=2).close()
    except urllib.error.HTTPError as error:
        return 0 if error.code == FORBIDDEN else 1
    return 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(check())
    serve()
