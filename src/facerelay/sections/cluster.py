"""Past one machine: the embedded broker as a node of a cluster, and the stream that stores share."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from facerelay.face import Slug
from facerelay.sections.base import Section, address, is_loopback

_NATS_PORT: Final = 4222
_ROUTE_PORT: Final = 6222
_MOST_NODES: Final = 64
# What NATS takes for the name of a stream, less what a shell or a path would stumble over.
StreamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Replicas = Literal[1, 3, 5]


class Cluster(Section):
    """The embedded broker as one of several nodes that keep the same state."""

    name: Slug = Field("facerelay", title="Name", description="Of the cluster: the same at every node.")
    node: Slug | None = Field(
        None, title="Node", description="This node's own name, never another's; unset: by its port."
    )
    listen: str | None = Field(
        None,
        title="Listen",
        description="nats://host:port for the other nodes (0.0.0.0: every one); unset: it stands alone.",
    )
    routes: Annotated[tuple[str, ...], Field(max_length=_MOST_NODES)] = Field(
        (),
        title="Routes",
        description="nats://host:port of all nodes; this one's own among them does no harm.",
    )
    replicas: Replicas | None = Field(
        None,
        title="Replicas",
        description="Nodes that keep a session's state and what is retained; unset: 3 in a cluster.",
    )
    clients: str | None = Field(
        None,
        title="Stores' address",
        description="nats:// or tls://host:port where stores pull by the NATS protocol; unset: nowhere.",
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str | None) -> str | None:
        return None if value is None else _addressed(value, "nats")

    @field_validator("clients")
    @classmethod
    def _clients(cls, value: str | None) -> str | None:
        return None if value is None else _addressed(value, "nats", "tls")

    @field_validator("routes")
    @classmethod
    def _routes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_addressed(each, "nats") for each in value)

    @model_validator(mode="after")
    def _whole(self) -> Cluster:
        if self.listen is None and (self.routes or self.replicas not in {None, 1}):
            raise ValueError("routes and replicas need listen: where the other nodes reach this one")
        if self.listen is not None and not self.routes:
            raise ValueError("listen needs routes: nats://host:port of all nodes of the cluster")
        if self.listen is not None and self.node is None:
            raise ValueError("in a cluster each node needs its own node = ...")
        return self

    @property
    def joined(self) -> bool:
        """Whether this broker is one of several."""
        return self.listen is not None

    @property
    def kept(self) -> int:
        """Nodes that keep each session's state."""
        return self.replicas or (3 if self.joined else 1)


class JetStream(Section):
    """The stream that stores pull faces from, at `store.intake = "jetstream"`, with the login of [broker]."""

    servers: Annotated[tuple[str, ...], Field(min_length=1, max_length=_MOST_NODES)] = Field(
        (f"nats://127.0.0.1:{_NATS_PORT}",),
        title="Servers",
        description="nats:// or tls://host:port of the nodes; any of them that answers will do.",
    )
    stream: StreamName = Field(
        "faces", title="Stream", description="Its name; it is made where it is not there."
    )
    replicas: Replicas | None = Field(
        None,
        title="Replicas",
        description="Nodes that keep what waits; unset: 3 in a cluster. Counts when the stream is made.",
    )
    max_bytes: Annotated[int, Field(ge=10_000_000)] = Field(
        1_000_000_000,
        title="Size",
        description="Of what waits there, at most; past it the oldest goes, and its outbox sends it again.",
    )
    max_age_s: Annotated[int, Field(ge=10, le=2_592_000)] = Field(
        3600,
        title="Age",
        description="Seconds for which a face waits there, at most; its outbox sends it again.",
    )

    @field_validator("servers")
    @classmethod
    def _servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_addressed(each, "nats", "tls") for each in value)

    @property
    def open(self) -> str | None:
        """The first server that is spoken to across a network without TLS."""
        for each in self.servers:
            if each.startswith("nats:") and not is_loopback(host_of(each)):
                return each
        return None


def host_of(url: str) -> str:
    """Return the host of a server's URL."""
    return urlsplit(url).hostname or ""


def port_of(url: str, *, route: bool = False) -> int:
    """Return the port of a server's URL, or the usual one for clients, or for the other nodes."""
    return urlsplit(url).port or (_ROUTE_PORT if route else _NATS_PORT)


def _addressed(value: str, *schemes: str) -> str:
    """Return a server's URL that has a host, and nothing that belongs elsewhere.

    Raises:
        ValueError: says how it is written.
    """
    if "@" in value:
        raise ValueError("user name and password are those of [broker], not a part of the url")
    found = address(value, *schemes)
    if found is None or found.path.strip("/") or found.query:
        raise ValueError("write it as " + ", or ".join(f"{each}://host:port" for each in schemes))
    return value
