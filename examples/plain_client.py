# ruff: noqa: INP001 - a script, not a package
"""Publish pictures as any MQTT client does, without a word of facerelay's: raw bytes, one message each.

`python plain_client.py URL TOPIC QOS FILE…`, such as `mqtt://127.0.0.1:1883 image 1 face.png`; `-` is
standard input. A user name and a password stand in MQTT_USER and MQTT_PASSWORD. Needs paho-mqtt 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

SECONDS = 20


def main(url: str, topic: str, qos: str, *files: str) -> int:
    """Publish each file, and return 0 once the broker has them all."""
    broker = urlsplit(url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    if user := os.environ.get("MQTT_USER"):
        client.username_pw_set(user, os.environ.get("MQTT_PASSWORD"))
    try:
        client.connect(broker.hostname or "127.0.0.1", broker.port or 1883)
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1
    client.loop_start()
    for name in files:
        picture = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        sent = client.publish(topic, picture, int(qos))
        sent.wait_for_publish(SECONDS)
        if not sent.is_published():
            sys.stderr.write(f"{name}: the broker did not take it\n")
            return 1
    client.disconnect()
    client.loop_stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
