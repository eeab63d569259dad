"""Real buckets for tests: SeaweedFS on free loopback ports, ended by its pid."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from facerelay import config

WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
START_S = 60.0
ACCESS_KEY = "tests"
SECRET_KEY = "only-for-tests"  # noqa: S105 - of a server that lives as long as a test


@dataclass
class Weed:
    """A SeaweedFS process: endpoint, keys, and how to start it again."""

    folder: Path
    ports: tuple[int, ...]
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        """The address of its S3 API."""
        return f"http://127.0.0.1:{self.ports[0]}"

    def bucket(self, name: str = "faces", prefix: str = "") -> config.Bucket:
        """Return the settings of a bucket in it, which is made by the first PUT."""
        return config.Bucket(
            url=f"s3://{name}/{prefix}".rstrip("/"), endpoint=self.endpoint,
            access_key=self.access_key, secret_key=SecretStr(self.secret_key),
        )  # fmt: skip

    def start(self) -> None:
        """Start, and return once it stores."""
        assert WEED is not None
        names = (
            "s3.port", "s3.port.grpc", "master.port", "master.port.grpc",
            "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
        )  # fmt: skip
        ports = [f"-{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        command = [
            WEED, "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
            f"-s3.config={self.folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0",
            "-master.resumeState=false", *ports,
        ]  # fmt: skip
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder
            )
        self._wait()

    def kill(self) -> None:
        """`kill -9`; returns when the process is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(START_S)
            self.process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "weed.log").read_text(errors="replace")[-2000:]
            if self._stores():
                return
            time.sleep(0.1)
        raise AssertionError("SeaweedFS does not come up")

    def _stores(self) -> bool:
        """Whether its filer takes a file: the S3 API answers earlier than that."""
        url = f"http://127.0.0.1:{self.ports[6]}/up"
        request = urllib.request.Request(url, data=b"up", method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 - as above
                answer.read()
            socket.create_connection(("127.0.0.1", self.ports[0]), 1).close()
        except (OSError, urllib.error.URLError):
            return False
        return True


def _free_ports(count: int) -> tuple[int, ...]:
    """Ports that were all free at once a moment ago."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)


@contextmanager
def seaweed() -> Iterator[Weed]:
    """SeaweedFS with signatures checked, on loopback alone."""
    with tempfile.TemporaryDirectory(prefix="facerelay-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        (folder / "data").mkdir()
        keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        actions = ["Admin", "Read", "Write", "List"]
        identity = {"name": "tests", "credentials": [keys], "actions": actions}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        server = Weed(folder, _free_ports(8))
        try:
            server.start()
            yield server
        finally:
            server.kill()
