"""What Home Assistant is told of a site and its cameras, so that it finds them by itself: MQTT discovery.

Source: Home Assistant, "MQTT", sections "MQTT discovery" and "Device discovery payload", and the pages of
the platforms image, event, sensor, binary_sensor and switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from facerelay import __version__

Payload = dict[str, Any]

_MEDIA: Final = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_DIAGNOSTIC: Final = {"entity_category": "diagnostic"}
_COUNT: Final = {"platform": "sensor", "unit_of_measurement": "faces", "state_class": "measurement"}
_TOTAL: Final = _COUNT | {"state_class": "total_increasing"}

SITE: Final[Mapping[str, Payload]] = {
    "link": {
        "platform": "binary_sensor", "name": "Link to the cloud", "device_class": "connectivity",
        **_DIAGNOSTIC,
    },
    "uplink": {
        "platform": "sensor", "name": "Uplink", "device_class": "data_rate", "unit_of_measurement": "B/s",
        "state_class": "measurement", **_DIAGNOSTIC,
    },
    "oldest": {
        "platform": "sensor", "name": "Oldest waiting face", "device_class": "duration",
        "unit_of_measurement": "s", "state_class": "measurement", **_DIAGNOSTIC,
    },
    "lost": {
        "platform": "sensor", "name": "Lost by the last audit", "unit_of_measurement": "faces",
        "state_class": "measurement", "icon": "mdi:account-question", **_DIAGNOSTIC,
    },
}  # fmt: skip
"""The entities of a site, by the last level of their topic."""

CAMERA: Final[Mapping[str, Payload]] = {
    "today": {**_TOTAL, "name": "Faces today", "icon": "mdi:account-multiple"},
    "waiting": {**_COUNT, "name": "Waiting", "icon": "mdi:tray-full"},
    "dropped": {**_TOTAL, "name": "Dropped", "icon": "mdi:delete-alert", **_DIAGNOSTIC},
    "refused": {**_TOTAL, "name": "Refused", "icon": "mdi:cancel", **_DIAGNOSTIC},
    "dark": {
        "platform": "binary_sensor",
        "name": "No picture",
        "device_class": "problem",
        **_DIAGNOSTIC,
    },
    "face": {"platform": "event", "name": "Face", "event_types": ["face"], "icon": "mdi:face-recognition"},
    "capture": {"platform": "switch", "name": "Capture", "icon": "mdi:cctv"},
}
"""The entities of a camera, by the last level of their topic; its picture comes with them if it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Topics and ids of a site.

    Attributes:
        prefix: Home Assistant's own, of discovery.
        topic: the first levels of all states.
        site: the site.
    """

    prefix: str
    topic: str
    site: str

    @property
    def birth(self) -> str:
        """Where Home Assistant says that it is there."""
        return f"{self.prefix}/status"

    @property
    def available(self) -> str:
        """Where capture says that it is there."""
        return self.state("available")

    @property
    def commands(self) -> str:
        """The filter of the cameras' switches."""
        return self.state("set", camera="+/capture")

    def device(self, camera: str | None = None) -> str:
        """Return the id of a device: the site's, or a camera's; no two names give the same."""
        names = [self.site] if camera is None else [self.site, camera]
        return "_".join(["facerelay", *(name.replace("_", "__") for name in names)])

    def config(self, camera: str | None = None) -> str:
        """Return the topic on which a device is told of."""
        return f"{self.prefix}/device/{self.device(camera)}/config"

    def state(self, name: str, *, camera: str | None = None) -> str:
        """Return the topic of a state."""
        return "/".join(filter(None, [self.topic, self.site, camera, name]))

    def command(self, camera: str) -> str:
        """Return the topic on which a camera is switched."""
        return self.state("capture/set", camera=camera)


def site_device(names: Names) -> Payload:
    """Return the discovery payload of a site."""
    about = {"name": f"facerelay {names.site}", "model": "Site"}
    return _payload(names, None, about, SITE)


def camera_device(names: Names, camera: str, *, images: bool, picture: str) -> Payload:
    """Return the discovery payload of a camera.

    Args:
        names: of its site.
        camera: its name.
        images: whether its last face is published; if not, Home Assistant forgets that it ever was.
        picture: the format of faces: `jpeg`, `png` or `webp`.
    """
    about = {"name": f"{names.site} {camera}", "model": "Camera", "via_device": names.device()}
    payload = _payload(names, camera, about, CAMERA)
    payload["components"]["capture"]["command_topic"] = names.command(camera)
    payload["components"]["image"] = {"platform": "image"}
    if images:
        payload["components"]["image"] |= {
            "name": "Last face",
            "unique_id": f"{names.device(camera)}_image",
            "image_topic": names.state("image", camera=camera),
            "content_type": _MEDIA[picture],
        }
    return payload


def _payload(
    names: Names, camera: str | None, about: Mapping[str, str], entities: Mapping[str, Payload]
) -> Payload:
    device = names.device(camera)
    return {
        "device": {
            "identifiers": [device], "manufacturer": "facerelay", "sw_version": __version__, **about,
        },
        "origin": {"name": "facerelay", "sw_version": __version__},
        "availability": [{"topic": names.available}],
        "components": {
            name: {
                **entity, "unique_id": f"{device}_{name}", "state_topic": names.state(name, camera=camera),
            }
            for name, entity in entities.items()
        },
    }  # fmt: skip
