"""An enrolled cloud and its sites in a folder, as `facerelay enrol` writes them, and strangers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conftest import need
from facerelay import settings
from facerelay.commands import enrol
from facerelay.config import Broker, Config
from facerelay.fleet import Issuer, issuer, join, names, read_bundle
from servers import Server, answers, free_port


@dataclass
class Enrolled:
    """A cloud on loopback whose broker demands certificates, and its sites.

    Attributes:
        folder: holds `cloud.toml` and `trust/`, with Mosquitto its files too.
        port: the cloud broker's.
    """

    folder: Path
    port: int

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        sites: Sequence[str] = ("door",),
        mosquitto: bool = False,
        hosts: Sequence[str] = ("localhost",),
        store: str = "main",
        now: datetime | None = None,
    ) -> Enrolled:
        """Enrol a cloud in `folder/cloud`, and each site in `folder/<site>`."""
        port = free_port()
        wanted = enrol.Cloud(
            hosts=hosts, folder=folder / "cloud", store=store, mosquitto=mosquitto, port=port
        )
        enrol.cloud(wanted, now=now)
        found = cls(folder / "cloud", port)
        for site in sites:
            found.add(site, now=now)
        return found

    @property
    def file(self) -> Path:
        """The cloud's settings."""
        return self.folder / "cloud.toml"

    @property
    def cloud(self) -> Config:
        """The cloud's settings, read."""
        return settings.load(self.file, environ={})

    def add(self, site: str, *, now: datetime | None = None) -> Path:
        """Enrol a site and join its bundle; returns its `edge.toml`, whose broker has a port of its own."""
        folder = self.folder.parent / site
        bundle = enrol.edge(self.cloud, site, self.folder / f"{site}.tar", now=now)
        join(read_bundle(bundle), folder)
        file = folder / "edge.toml"
        file.write_text(file.read_text().replace(":1883", f":{free_port()}"))
        return file

    def edge(self, site: str = "door") -> Config:
        """A site's settings, read."""
        return settings.load(self.folder.parent / site / "edge.toml", environ={})

    def client(self, who: str = "door") -> Broker:
        """As whom to come to the cloud's broker: a site's name, `store`, or `gallery`."""
        if who in {"store", "gallery"}:
            trust = self.folder / "trust"
            return self.cloud.broker.model_copy(
                update={"cert": trust / f"{who}.pem", "key": trust / f"{who}.key"}
            )
        cloud = self.edge(who).cloud
        assert cloud is not None
        return cloud

    def anonymous(self) -> Broker:
        """The cloud's broker, for a client without a certificate."""
        return Broker(url=f"mqtts://localhost:{self.port}", ca=self.folder / "trust" / "authority.pem")

    def certified(self, who: str, *, now: datetime | None = None, life: timedelta = issuer.LIFE) -> Broker:
        """A client with a certificate of the right authority that is on no roll, such as an expired one."""
        return Stranger(self.folder / "trust").client(who, self.anonymous(), now=now, life=life)

    def expired(self, who: str = "door") -> Broker:
        """A client whose certificate ended yesterday."""
        return self.certified(who, now=datetime.now(UTC) - timedelta(days=9), life=timedelta(days=8))

    def early(self, who: str = "door") -> Broker:
        """A client whose certificate begins in a week."""
        return self.certified(who, now=datetime.now(UTC) + timedelta(days=8))

    def stranger(self, who: str = "door") -> Broker:
        """A client with the same name by another authority."""
        folder = self.folder.parent / "stranger"
        if not folder.exists():
            folder.mkdir()
            Issuer.create(folder)
        return Stranger(folder).client(who, self.anonymous())

    def revoke(self, who: str) -> None:
        """Take a machine's certificates back."""
        enrol.revoke(self.cloud, who)


@dataclass
class Stranger:
    """Certificates out of the ordinary, by the authority in a folder."""

    folder: Path

    def client(
        self, who: str, broker: Broker, *, now: datetime | None = None, life: timedelta = issuer.LIFE
    ) -> Broker:
        """Return a broker's settings with a certificate for `door`, `store.main`, …."""
        owner = names.parse(who)
        key = issuer.new_key()
        certificate = Issuer.open(self.folder).certify(owner, key.public_key(), now=now, life=life)
        path = self.folder / f"odd-{names.common_name(owner)}-{certificate.serial_number:x}.pem"
        path.write_bytes(issuer.pem(certificate))
        path.with_suffix(".key").write_bytes(issuer.key_pem(key))
        return broker.model_copy(update={"cert": path, "key": path.with_suffix(".key")})


@contextmanager
def mosquitto(cloud: Enrolled) -> Iterator[Server]:
    """Mosquitto as `facerelay enrol cloud --broker mosquitto` set it up."""
    conf = cloud.folder / "mosquitto.conf"
    server = _Tls(
        [need("mosquitto"), "-c", str(conf)], cloud.port, cloud.folder / "cloud-broker",
        cloud.folder / "mosquitto.log", f"mqtts://localhost:{cloud.port}",
    )  # fmt: skip
    try:
        server.start()
        yield server
    finally:
        server.stop()


class _Tls(Server):
    """A server that answers by TLS alone: it is up once its port can be reached."""

    def _wait(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.command[0]} ended:\n{self.text()}"
            if answers(self.port):
                return
            time.sleep(0.02)
        raise AssertionError(f"{self.command[0]} does not answer:\n{self.text()}")
