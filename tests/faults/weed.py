"""The bucket: SeaweedFS on loopback, all its files in one folder, its end bound to ours."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from obstore.store import LocalStore, S3Store

from buckets import ACCESS_KEY, SECRET_KEY, WEED
from facerelay.commands.supervise import free_ports
from faults.parts import Part

_START_S: Final = 60.0
_PORTS: Final = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc",
    "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
)  # fmt: skip


class BucketServer:
    """A SeaweedFS, to be started once."""

    def __init__(self, folder: Path) -> None:
        assert WEED is not None
        self._folder = folder
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        identity = {"name": "soak", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        (folder / "data").mkdir()
        command = [
            WEED, f"-logdir={folder}", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0",
            "-s3.port.lance=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0",
            "-master.resumeState=false", *(f"-{name}={port}" for name, port in self._ports.items()),
        ]  # fmt: skip
        self.part = Part("bucket", command, folder / "weed.log")

    @property
    def port(self) -> int:
        """Where its S3 API is."""
        return self._ports["s3.port"]

    async def start(self) -> None:
        """Start, and return once it stores."""
        self.part.start()
        bucket = s3(self.port, "start")
        until = time.monotonic() + _START_S
        while True:
            assert self.part.ended() is None, self.part.last_words()
            try:
                await bucket.put_async("up", b"up")
            except Exception:  # whatever a server says that comes up
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    def end(self) -> None:
        """End it, and remove its sockets."""
        self.part.kill()
        remove_sockets(self._ports.values())


def remove_sockets(ports: Iterable[int]) -> None:
    """Remove what a SeaweedFS of these ports leaves in its fixed place."""
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - not ours to choose
            left.unlink(missing_ok=True)


def s3(port: int, bucket: str) -> S3Store:
    """Return a bucket of it, straight: not through a proxy, and not through our own code."""
    return S3Store(
        bucket, endpoint=f"http://127.0.0.1:{port}", access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY,
        region="us-east-1", virtual_hosted_style_request=False, client_options={"allow_http": True},
    )  # fmt: skip


def folder_bucket(folder: Path) -> LocalStore:
    """Return a bucket in a folder, straight."""
    return LocalStore(folder, mkdir=True)


def there_is_weed() -> bool:
    """Whether SeaweedFS is installed."""
    return WEED is not None and shutil.which(WEED) is not None
