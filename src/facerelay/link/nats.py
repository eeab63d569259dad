"""The configuration of the embedded broker, a NATS server: where it listens, and who may come."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from facerelay import private
from facerelay.link import nodes
from facerelay.link.subjects import SLACK_BYTES
from facerelay.messages import MAX_MESSAGE_BYTES
from facerelay.sections import Broker, Cluster, Trust
from facerelay.sections.base import is_loopback
from facerelay.stamp import Stamp, stamp
from facerelay.topics import FaceTopic

_log = logging.getLogger(__name__)
_ACK_WAIT: Final = "5s"
# Below a session's window of 256: a slow reader is not sent what it cannot take. 1,000 was no faster.
_MAX_ACK_PENDING: Final = 200
# Of its own accord five seconds: while nodes choose who leads, a client does better to come again.
_JETSTREAM_TIMEOUT: Final = "2500ms"
_WRITE_DEADLINE: Final = "60s"


class BrokerError(Exception):
    """The embedded broker cannot be started, or ended by itself."""


def settings(
    broker: Broker,
    *,
    max_message: int,
    cluster: Cluster | None = None,
    authority: Path | None = None,
    users: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return the server's configuration.

    Args:
        broker: where to listen, who may come, where its state lies.
        max_message: bytes of one face, at most.
        cluster: the other nodes, and where stores pull; None: it stands alone.
        authority: set, whoever connects needs a certificate by it that names one of `users`.
        users: the enrolled machines, as `enrolled.users` has them.

    Raises:
        BrokerError: it would listen beyond loopback without TLS or without a password or certificates.
    """
    secret = broker.secret()
    cluster = cluster or Cluster()
    _check(broker, secret, enrolled=authority is not None)
    mqtt = _mqtt(broker)
    try:
        met = nodes.between(cluster, broker, authority=authority)
        reached = nodes.clients(cluster, broker, authority=authority)
    except nodes.ExposedError as error:
        raise BrokerError(f"{error}") from None
    server: dict[str, Any] = {
        "server_name": cluster.node or f"facerelay-{broker.port}",
        **reached,
        "logtime": False,
        "max_payload": max(max_message, MAX_MESSAGE_BYTES) + SLACK_BYTES,
        "write_deadline": _WRITE_DEADLINE,
        "jetstream": {"store_dir": str(broker.data.absolute())},
        "mqtt": mqtt,
    }
    if met:
        server["cluster"] = met
        mqtt |= {"stream_replicas": cluster.kept, "js_api_timeout": _JETSTREAM_TIMEOUT}
    if authority is not None:
        mqtt["tls"] |= {"ca_file": str(authority.absolute()), "verify_and_map": True}
        server["authorization"] = {"users": list(users), "timeout": nodes.CONNECT_TIMEOUT_S}
    elif broker.username is not None:
        login = {"user": broker.username, "password": secret, "timeout": nodes.CONNECT_TIMEOUT_S}
        server["authorization"] = login
    return server


def _mqtt(broker: Broker) -> dict[str, Any]:
    """Return where it listens for MQTT."""
    made: dict[str, Any] = {
        "host": broker.host,
        "port": broker.port,
        "ack_wait": _ACK_WAIT,
        "max_ack_pending": _MAX_ACK_PENDING,
    }
    if broker.tls:
        made["tls"] = nodes.server_tls(broker)
    return made


class Configuration:
    """The server's configuration as a file, made anew when certificates change.

    Args:
        broker: where to listen, who may come, where its state lies.
        max_message: bytes of one face, at most.
        trust: with its `devices`, and TLS, whoever connects needs a certificate that lies there.
        faces: where faces travel.
        cluster: the other nodes, and where stores pull.
        stream: from which these pull.
        monitored: let the server tell its figures on loopback.

    Raises:
        BrokerError: as `settings` does; or the certificates cannot be read.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        max_message: int,
        trust: Trust | None,
        faces: FaceTopic | None,
        cluster: Cluster | None = None,
        stream: str = "faces",
        monitored: bool,
    ) -> None:
        self._broker = broker
        self._cluster = cluster or Cluster()
        self._stream = stream if self._cluster.clients else None
        self._max_message = max_message
        self._trust = trust if trust is not None and trust.devices is not None and broker.tls else None
        self._faces = faces or FaceTopic("faces/{site}/{camera}")
        self._monitored = monitored
        if trust is not None and trust.devices is not None and not broker.tls:
            form = "trust.devices needs an mqtts:// url: %s asks nobody for a certificate"
            _log.warning(form, broker.url)
        self._files = self._seen()
        self._made = self._make()

    def write(self) -> Path:
        """Write it where only we can read it, and return where; NATS reads JSON."""
        folder = self._broker.data
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder.absolute() / "nats-server.conf"
        private.replace(path, json.dumps(self._made, ensure_ascii=False, indent=1).encode())
        return path

    def renew(self) -> bool:
        """Write it anew if a certificate came, went or changed; returns whether.

        Raises:
            BrokerError: what changed cannot be read; it is not tried again before it changes again.
            OSError: the file cannot be written.
        """
        files = self._seen()
        if files == self._files:
            return False
        self._files = files
        self._made = self._make()
        self.write()
        return True

    def _make(self) -> dict[str, Any]:
        authority, users = None, []
        if self._trust is not None:
            from facerelay.link import enrolled  # noqa: PLC0415 - most brokers know no certificates
            from facerelay.signing import KeyFileError  # noqa: PLC0415 - as above

            authority = self._trust.authority
            try:
                users = enrolled.users(self._trust, self._faces, stream=self._stream)
            except KeyFileError as error:
                raise BrokerError(f"{error}") from None
        server = settings(
            self._broker,
            max_message=self._max_message,
            cluster=self._cluster,
            authority=authority,
            users=users,
        )
        if self._monitored or self._cluster.joined:
            server["http"] = "127.0.0.1:-1"  # any free port
        return server

    def _seen(self) -> dict[Path, Stamp | None]:
        """Return what tells one state of the certificates' files from the next."""
        trust = self._trust or Trust()
        paths = [self._broker.server_cert, self._broker.server_key, trust.authority]
        if trust.devices is not None:
            with suppress(OSError):  # it is not there now
                paths += trust.devices.iterdir()
        return {path: stamp(path) for path in paths if path is not None}


def _check(broker: Broker, secret: str | None, *, enrolled: bool) -> None:
    if (broker.username is None) != (secret is None):
        raise BrokerError("broker: username and password go together")
    if enrolled and secret is not None:
        raise BrokerError(
            "broker: with trust.devices machines are known by certificates: remove username and password"
        )
    if broker.tls and (broker.server_cert is None or broker.server_key is None):
        raise BrokerError("broker: an mqtts:// url needs server_cert and server_key")
    if is_loopback(broker.host) or broker.allow_insecure:
        return
    missing = [
        name
        for name, there in (("an mqtts:// url with server_cert and server_key", broker.tls),
                            ("username and password, or trust.devices", enrolled or secret is not None))
        if not there
    ]  # fmt: skip
    if missing:
        raise BrokerError(
            f"broker: {broker.host} is reached from outside this machine, which needs {' and '.join(missing)}"
            " (or allow_insecure = true, or a url with 127.0.0.1)"
        )
