"""The plain chain's own programs: a publisher, and a subscriber that saves each face in its callback.

`python -m bench.plain publish PORT QOS OFFERED PHASE…`
`python -m bench.plain forward EDGE CLOUD QOS`, in place of the edge broker's bridge
`python -m bench.plain folder PORT QOS FOLDER`, or `synced` for an fsync each
`python -m bench.plain s3 PORT QOS ENDPOINT PREFIX LOG`

Between them stand two Mosquitto brokers, the edge's with a bridge, all with their defaults.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from bench.faces import WARM, Offered, Phase, ready, say

TOPIC = os.environ.get("FACERELAY_TOPICS__FACES", "faces")  # ours takes its topic from there, too
BUCKET, ACCESS_KEY, SECRET_KEY = "bench", "benchkey", "benchsecret"
_WARM_EVERY_S = 0.3
Save = Callable[[str, bytes], None]


def publish(port: str, qos: str, offered_path: str, *phases: str) -> None:
    """Publish ready faces; a line on stdin begins the next phase, its end ends."""
    client, level = _client(port), int(qos)
    offered = Offered(Path(offered_path))
    plan = [(phase, ready(phase.count)) for phase in map(Phase.parse, phases)]
    client.loop_start()
    say("ready")
    go = _lines()
    while not go.wait(_WARM_EVERY_S):
        (frozen,) = ready(1)
        offered.note(WARM, time.time(), frozen)
        client.publish(TOPIC, frozen.data, level)
    for phase, faces in plan:
        go.wait()
        go.clear()
        say("begin")
        for frozen, due in zip(faces, phase.due(), strict=True):
            if (wait := due - time.time()) > 0:
                time.sleep(wait)
            offered.note(phase.name, time.time(), frozen)
            client.publish(TOPIC, frozen.data, level)
        say("given")
        offered.write()
        say("answered")
    threading.Event().wait()


def forward(edge: str, cloud: str, qos: str) -> None:
    """Publish to the cloud, in the callback, what comes from the edge."""
    there, here = _client(cloud), _client(edge)

    def on_message(_client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        there.publish(message.topic, message.payload, int(qos))

    here.on_message = on_message
    here.subscribe(TOPIC, int(qos))
    there.loop_start()
    _lines()
    say("ready")
    here.loop_forever()


def save_in_folder(port: str, qos: str, folder: str, *, synced: bool = False) -> None:
    """Write each face to a file of its own, in the callback; `synced` waits until it is on the disk."""

    def save(name: str, payload: bytes) -> None:
        with (Path(folder) / name).open("wb") as file:
            file.write(payload)
            if synced:
                file.flush()
                os.fsync(file.fileno())

    _subscribe(port, int(qos), save)


def save_in_s3(port: str, qos: str, endpoint: str, prefix: str, log: str) -> None:
    """Call boto3's `put_object` for each face, in the callback; note when it returned."""
    s3 = client_s3(endpoint)
    with Path(log).open("a", buffering=1, encoding="ascii") as times:

        def save(name: str, payload: bytes) -> None:
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=payload)
            times.write(f"{time.time():.6f} {hashlib.sha256(payload).hexdigest()}\n")

        _subscribe(port, int(qos), save)


def client_s3(endpoint: str) -> Any:  # noqa: ANN401 - boto3 ships no types
    import boto3  # noqa: PLC0415 - slow, and for buckets alone

    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip


def _subscribe(port: str, qos: int, save: Save) -> None:
    numbers = count()
    client = _client(port)

    def on_message(_client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        save(f"face-{next(numbers):06d}.jpg", bytes(message.payload))

    client.on_message = on_message
    client.subscribe(TOPIC, qos)
    _lines()
    say("ready")
    client.loop_forever()


def _client(port: str) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", int(port))
    return client


def _lines() -> threading.Event:
    """Return an event that each line on stdin sets; the end of stdin ends the process."""
    seen = threading.Event()

    def read() -> None:
        while sys.stdin.readline():
            seen.set()
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return seen


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {
        "publish": publish,
        "forward": forward,
        "folder": save_in_folder,
        "synced": partial(save_in_folder, synced=True),
        "s3": save_in_s3,
    }
    commands[sys.argv[1]](*sys.argv[2:])
