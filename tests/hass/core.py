"""Home Assistant's own core and MQTT integration at a broker: obeys lines, answers each with a line of JSON.

Run by the Python of an environment that has Home Assistant, not by ours: `core.py MQTT_PORT HTTP_PORT`.
Lines: `states`, `image ENTITY`, `turn ENTITY on|off`; the end of its input ends it.
"""

# ruff: noqa: PLC0415 - it is imported where it is there
# mypy: ignore-errors

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import tempfile
from pathlib import Path
from types import MappingProxyType


async def main(port: int, http: int) -> None:
    from homeassistant import auth, bootstrap, config_entries, loader
    from homeassistant.const import __version__
    from homeassistant.core import HomeAssistant
    from homeassistant.setup import async_setup_component

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "configuration.yaml").touch()
        hass = HomeAssistant(folder)
        hass.config.skip_pip = True
        hass.config_entries = config_entries.ConfigEntries(hass, {})
        loader.async_setup(hass)
        await bootstrap.async_load_base_functionality(hass)
        await async_setup_component(hass, "homeassistant", {})
        hass.auth = await auth.auth_manager_from_config(hass, [], [])
        own = {"server_host": "127.0.0.1", "server_port": http}
        await async_setup_component(hass, "http", {"http": own})
        hass.config.components.add("file_upload")  # for certificates in its dialogues
        entry = config_entries.ConfigEntry(
            domain="mqtt", title="mqtt", data={"broker": "127.0.0.1", "port": port}, options={},
            source="user", version=1, minor_version=2, unique_id=None, discovery_keys=MappingProxyType({}),
            subentries_data=(),
        )  # fmt: skip
        await hass.async_start()
        await hass.config_entries.async_add(entry)
        say({"version": __version__, "mqtt": entry.state.value})
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            say(await obey(hass, *line))
        await hass.async_stop(force=True)


async def obey(hass: object, command: str, entity: str = "", state: str = "") -> dict[str, object]:
    from homeassistant.helpers import device_registry, entity_registry

    if command == "turn":
        await hass.services.async_call("switch", f"turn_{state}", {"entity_id": entity}, blocking=True)
        return {}
    if command == "image":
        picture = await hass.data["image"].get_entity(entity).async_image()
        return {"picture": base64.b64encode(picture or b"").decode()}
    entities = {}
    for known in entity_registry.async_get(hass).entities.values():
        seen = hass.states.get(known.entity_id)
        entities[known.entity_id] = seen and {"state": seen.state, **seen.attributes}
    devices = {
        known.name: {"id": known.id, "via": known.via_device_id, "model": known.model}
        for known in device_registry.async_get(hass).devices.values()
    }
    return {"entities": entities, "devices": devices}


def say(answer: dict[str, object]) -> None:
    print(json.dumps(answer, default=str), flush=True)  # noqa: T201 - its answers


logging.basicConfig(level=logging.WARNING)
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
