"""The sections of a configuration: each setting has a title, a line of help, a default and its limits."""

from facerelay.sections.base import Section
from facerelay.sections.cluster import Cluster, JetStream
from facerelay.sections.eyes import Camera, Detect, PictureFormat, Preview, Visits
from facerelay.sections.gallery import Gallery
from facerelay.sections.home import Frigate, HomeAssistant, Webhook
from facerelay.sections.keeping import Bucket, Outbox, Store
from facerelay.sections.trust import Seal, Trust
from facerelay.sections.watching import Metrics, Trace
from facerelay.sections.wire import Broker, Forward, MessageLimits, Topics, Uplink

__all__ = [
    "Broker", "Bucket", "Camera", "Cluster", "Detect", "Forward", "Frigate", "Gallery", "HomeAssistant",
    "JetStream", "MessageLimits", "Metrics", "Outbox", "PictureFormat", "Preview", "Seal", "Section",
    "Store", "Topics", "Trace", "Trust", "Uplink", "Visits", "Webhook",
]  # fmt: skip
