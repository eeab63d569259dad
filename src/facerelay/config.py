"""All that a user may set.

One TOML file, environment variables over it (`FACERELAY_BROKER__URL`), flags over both.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from facerelay.face import Slug
from facerelay.sections import (
    Broker,
    Bucket,
    Camera,
    Cluster,
    Detect,
    Forward,
    Frigate,
    Gallery,
    HomeAssistant,
    JetStream,
    MessageLimits,
    Metrics,
    Outbox,
    PictureFormat,
    Preview,
    Seal,
    Section,
    Store,
    Topics,
    Trace,
    Trust,
    Uplink,
    Visits,
    Webhook,
)
from facerelay.sections.home import Announced, see_apart
from facerelay.topics import FaceTopic

__all__ = ["Broker", "Bucket", "Camera", "Config"]


class Config(Section):
    """A machine's settings; each role reads its own part."""

    site: Slug = Field(
        "home", title="Site", description="Lower case letters, digits, - and _: part of topics and keys."
    )
    delivery: Literal["fast", "broker", "receipt"] = Field(
        "receipt",
        title="Level of delivery",
        description="receipt: nothing is lost; broker: QoS 1, a broker's crash loses; fast: a cut loses.",
    )
    qos: Annotated[int, Field(ge=0, le=2)] | None = Field(
        None, title="Quality of service", description="0, 1 or 2; unset: 0 at fast, else 1."
    )
    direct: bool = Field(
        default=False,
        title="Direct",
        description="The edge publishes straight to the cloud broker: no forwarder, no bridge.",
    )
    broker: Broker = Field(Broker(), title="Broker", description="The broker on this side.")
    cloud: Broker | None = Field(
        None,
        title="Cloud broker",
        description="The broker on the other side, for the forwarder and the bridge.",
    )
    cluster: Cluster = Field(
        Cluster(), title="Cluster", description="The embedded broker as one of several nodes."
    )
    trust: Trust = Field(Trust(), title="Trust", description="Whose word counts, once sites are enrolled.")
    seal: Seal = Field(Seal(), title="Sealed faces", description="Pictures that only their reader can see.")
    topics: Topics = Field(Topics(), title="Topics", description="Names on the wire.")
    limits: MessageLimits = Field(MessageLimits(), title="Limits", description="What one message may be.")
    camera: tuple[Camera, ...] = Field((), title="Cameras", description="One [[camera]] each.")
    detect: Detect = Field(Detect(), title="Detector", description="The face detector.")
    visits: Visits = Field(Visits(), title="Visits", description="Which pictures of a visit are sent.")
    picture: PictureFormat = Field(
        PictureFormat(), title="Picture", description="How a face is cut out and encoded."
    )
    preview: Preview = Field(
        Preview(), title="Preview", description="The page that shows what the cameras see."
    )
    outbox: Outbox = Field(Outbox(), title="Outbox", description="The only queue, on the edge's disk.")
    uplink: Uplink = Field(Uplink(), title="Uplink", description="What the line to the cloud may carry.")
    forward: Forward = Field(Forward(), title="Forwarder", description="The forwarder.")
    homeassistant: HomeAssistant = Field(
        HomeAssistant(), title="Home Assistant", description="Cameras and faces as it finds them by itself."
    )
    frigate: Frigate = Field(
        Frigate(), title="Frigate", description="Faces on Frigate's topics, for automations written for it."
    )
    bucket: Bucket = Field(Bucket(), title="Bucket", description="Where faces are stored.")
    store: Store = Field(Store(), title="Store", description="The store.")
    jetstream: JetStream = Field(
        JetStream(), title="JetStream", description="The stream that stores share, if that is their intake."
    )
    webhook: Webhook = Field(
        Webhook(), title="Webhook", description="A web address that the store tells of each new face."
    )
    gallery: Gallery = Field(Gallery(), title="Gallery", description="The web pages of the faces.")
    metrics: Metrics = Field(
        Metrics(), title="Metrics", description="Figures and health of each role, for Prometheus."
    )
    trace: Trace = Field(Trace(), title="Traces", description="One trace a face, by OpenTelemetry.")

    @model_validator(mode="after")
    def _agree(self) -> Config:
        names = [camera.name for camera in self.camera]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two cameras have the name {min(twice)!r}: each needs its own")
        if self.delivery == "broker" and self.qos == 0:
            raise ValueError('delivery = "broker" needs qos 1 or 2; QoS 0 is delivery = "fast"')
        see_apart(
            self.layouts,
            own=self.broker.url,
            direct=self.direct,
            faces=self.face_topic.filter,
            sources={
                each.name: each.source.removeprefix("mqtt:")
                for each in self.camera
                if each.source.startswith("mqtt:")
            },
        )
        if self.frigate.enabled and self.frigate.images and self.picture.format != "jpeg":
            raise ValueError('frigate.images: its snapshots are JPEG: set picture.format = "jpeg"')
        if self.seal.recipients:
            self._see_sealed()
        if self.delivery == "broker" and self.store.layout == "shards":
            raise ValueError(
                'store.layout = "shards" needs delivery = "receipt": at "broker" the broker keeps all faces'
                " of an open shard in flight, and its window is full long before the shard"
            )
        if self.store.intake == "jetstream" and self.jetstream.open and not self.broker.allow_insecure:
            raise ValueError(
                f"jetstream.servers: {self.jetstream.open}: beyond this machine write tls://host:port, or set"
                " broker.allow_insecure = true if the network between is yours alone"
            )
        return self

    def _see_sealed(self) -> None:
        """See that faces can be sealed, and that nothing shows them all the same."""
        if self.trust.cert is None:
            raise ValueError(
                "seal.recipients: sealed faces are signed, and trust.cert is not set: `facerelay enrol`"
                " writes it, with its key"
            )
        for name, layout in self.layouts.items():
            if layout.images:
                raise ValueError(
                    f"{name}.images: it would show the faces that seal.recipients hides: set one of the two"
                )

    @property
    def layouts(self) -> dict[str, Announced]:
        """Whom capture tells of its cameras, by the name of the section."""
        known: dict[str, Announced] = {"homeassistant": self.homeassistant, "frigate": self.frigate}
        return {name: layout for name, layout in known.items() if layout.enabled}

    @property
    def level(self) -> int:
        """The quality of service in force."""
        if self.qos is not None:
            return self.qos
        return 0 if self.delivery == "fast" else 1

    @property
    def face_topic(self) -> FaceTopic:
        """Where faces travel."""
        return FaceTopic(self.topics.faces)
