"""The sections of a configuration: each setting has a title, a line of help, a default and its limits."""

from facerelay.sections.base import Section
from facerelay.sections.eyes import Camera, Detect, PictureFormat, Preview, Visits
from facerelay.sections.keeping import Bucket, Gallery, Outbox, Store
from facerelay.sections.wire import Broker, Forward, MessageLimits, Topics, Uplink

__all__ = [
    "Broker", "Bucket", "Camera", "Detect", "Forward", "Gallery", "MessageLimits", "Outbox", "PictureFormat",
    "Preview", "Section", "Store", "Topics", "Uplink", "Visits",
]  # fmt: skip
