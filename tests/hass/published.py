"""Home Assistant's discovery payload as it is published, as far as facerelay uses it, and nothing else.

Source: Home Assistant's documentation of "MQTT" (device discovery payload) and of its platforms Image, Event,
Sensor, Binary sensor and Switch; device classes and units of "Sensor" and "Binary sensor". Checked against
the code of Home Assistant 2025.4.4: `test_homeassistant_itself_takes_what_is_published` runs that very code.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Topic = Annotated[str, StringConstraints(pattern=r"^[^#+]+$", max_length=200)]
Text = Annotated[str, StringConstraints(min_length=1)]
Icon = Annotated[str, StringConstraints(pattern=r"^mdi:[a-z0-9-]+$")]
CONFIG_TOPIC = r"^homeassistant/device/[a-zA-Z0-9_-]+/config$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Entity(_Strict):
    name: Text
    unique_id: Text
    state_topic: Topic
    icon: Icon | None = None
    entity_category: Literal["config", "diagnostic"] | None = None


class Sensor(_Entity):
    platform: Literal["sensor"]
    unit_of_measurement: Text
    state_class: Literal["measurement", "total", "total_increasing"]
    device_class: Literal["data_rate", "duration"] | None = None

    @model_validator(mode="after")
    def _unit_goes_with_class(self) -> Sensor:
        units = {"data_rate": {"B/s", "kB/s", "bit/s"}, "duration": {"s", "min", "h", "d", "ms"}}
        assert self.device_class is None or self.unit_of_measurement in units[self.device_class]
        assert self.device_class is None or self.state_class == "measurement"
        return self


class BinarySensor(_Entity):
    platform: Literal["binary_sensor"]
    device_class: Literal["connectivity", "problem"]


class Event(_Entity):
    platform: Literal["event"]
    event_types: Annotated[list[Text], Field(min_length=1)]


class Switch(_Entity):
    platform: Literal["switch"]
    command_topic: Topic


class Image(_Strict):
    """Of images there is no `state_topic`."""

    platform: Literal["image"]
    name: Text
    unique_id: Text
    image_topic: Topic
    content_type: Literal["image/jpeg", "image/png", "image/webp"]


class Forgotten(_Strict):
    """A component that is to be removed has its platform alone."""

    platform: Literal["image"]


class Device(_Strict):
    identifiers: Annotated[list[Text], Field(min_length=1)]
    name: Text
    manufacturer: Text
    model: Text
    sw_version: Text
    via_device: Text | None = None


class Origin(_Strict):
    name: Text
    sw_version: Text


class Availability(_Strict):
    """Payloads are `online` and `offline` where none are named."""

    topic: Topic


class Payload(_Strict):
    """The message on `<prefix>/device/<object_id>/config`."""

    device: Device
    origin: Origin
    availability: list[Availability]
    components: dict[str, Sensor | BinarySensor | Event | Switch | Image | Forgotten]
