"""The embedded broker as one of several nodes, and where stores pull from it: a NATS server's settings."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

from facerelay.sections import Broker, Cluster
from facerelay.sections.base import is_loopback
from facerelay.sections.cluster import host_of, port_of

# Of its own accord NATS waits two seconds for each, which a thin line's round trips spend.
TLS_TIMEOUT_S: Final = 20
CONNECT_TIMEOUT_S: Final = 10


class ExposedError(ValueError):
    """The nodes, or the stores' address, would be open to anybody; the message says what to do."""


def between(cluster: Cluster, broker: Broker, *, authority: Path | None) -> dict[str, Any]:
    """Return how this node meets the others; nothing of one that stands alone.

    With TLS each node shows its server certificate both as server and as client, and is let in if that is for
    a host among the routes: a site's certificate by the same authority names no host.

    Args:
        cluster: who the nodes are.
        broker: whose certificate, and login, counts between them.
        authority: signs the nodes' certificates; unset: the broker's `ca` does.

    Raises:
        ExposedError: beyond loopback without TLS.
    """
    if cluster.listen is None:
        return {}
    host = host_of(cluster.listen)
    made: dict[str, Any] = {
        "name": cluster.name,
        "listen": f"{_bracketed(host)}:{port_of(cluster.listen, route=True)}",
        "routes": [
            f"nats://{_bracketed(host_of(each))}:{port_of(each, route=True)}"
            for each in cluster.routes
            # NATS counts routes for nodes: with its own it would wait for one that never comes.
            if not is_own(each, cluster)
        ],
        # Stores have all nodes in their settings, by names that are in certificates.
        "no_advertise": True,
    }
    if broker.tls:
        made["tls"] = _known_nodes(cluster, broker, authority)
    elif not (is_loopback(host) or broker.allow_insecure):
        raise ExposedError(
            f"cluster.listen: {host} is reached from outside this machine: nodes need an mqtts:// broker.url"
            " with server_cert, server_key and ca (or allow_insecure = true, or 127.0.0.1)"
        )
    if broker.username is not None:
        made["authorization"] = {
            "user": broker.username, "password": broker.secret(), "timeout": CONNECT_TIMEOUT_S,
        }  # fmt: skip
    return made


def _known_nodes(cluster: Cluster, broker: Broker, authority: Path | None) -> dict[str, Any]:
    """Return how nodes show themselves to one another, and who is let in."""
    signer = authority or broker.ca
    if signer is None:
        raise ExposedError("cluster: nodes know each other by certificates: set broker.ca to who signs them")
    if not any(not _is_address(host_of(each)) for each in cluster.routes):
        raise ExposedError(
            "cluster.routes: with TLS nodes are known by their hosts' names: write no addresses"
        )
    return {
        **server_tls(broker),
        "ca_file": str(signer.absolute()),
        "verify_cert_and_check_known_urls": True,
    }


def clients(cluster: Cluster, broker: Broker, *, authority: Path | None) -> dict[str, Any]:
    """Return where the server listens for the NATS protocol: for stores, or for nobody.

    Args:
        cluster: names the address.
        broker: whose certificate and login counts.
        authority: set, whoever connects needs a certificate by it that names a user.

    Raises:
        ExposedError: anybody could come, or read along.
    """
    if cluster.clients is None:
        return {"listen": "127.0.0.1:-1"}  # it cannot be turned off: any free port, loopback
    host, tls = host_of(cluster.clients), cluster.clients.startswith("tls:")
    if tls and not broker.tls:
        raise ExposedError("cluster.clients: tls:// needs an mqtts:// broker.url, server_cert and server_key")
    if authority is not None and not tls:
        raise ExposedError(
            "cluster.clients: with trust.devices stores are known by certificates: write tls://"
        )
    known = authority is not None or broker.username is not None
    if not (is_loopback(host) or broker.allow_insecure or (tls and known)):
        raise ExposedError(
            f"cluster.clients: {host} is reached from outside this machine, which needs tls://, and username"
            " and password, or trust.devices (or broker.allow_insecure = true, or 127.0.0.1)"
        )
    made: dict[str, Any] = {"listen": f"{_bracketed(host)}:{port_of(cluster.clients)}"}
    if tls:
        made["tls"] = server_tls(broker)
        if authority is not None:
            made["tls"] |= {"ca_file": str(authority.absolute()), "verify_and_map": True}
    return made


def server_tls(broker: Broker) -> dict[str, Any]:
    """Return what the server shows to whoever connects by TLS, and how long it waits for him."""
    cert, key = broker.server_cert, broker.server_key
    return {
        "cert_file": str(cert.absolute()) if cert else None,
        "key_file": str(key.absolute()) if key else None,
        "min_version": "1.2",
        "timeout": TLS_TIMEOUT_S,
    }


def is_own(route: str, cluster: Cluster) -> bool:
    """Whether a route leads to this node: by the node's name, or the machine's name or address."""
    host, listen = host_of(route), cluster.listen or ""
    if port_of(route, route=True) != port_of(listen, route=True):
        return False
    if host == host_of(listen) or (is_loopback(host) and is_loopback(host_of(listen))):
        return True
    names = {cluster.node, socket.gethostname().split(".", maxsplit=1)[0]}
    return _is_ours(host) if _is_address(host) else host.split(".", maxsplit=1)[0] in names


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine's: only these can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()
