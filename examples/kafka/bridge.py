# ruff: noqa: INP001 - a script, not a package
"""Carry faces through Kafka: from `faces/…` at a broker to Kafka, and from there back to it, to `kafka/…`.

`python bridge.py mqtt://127.0.0.1:1883 127.0.0.1:9092`. The store's settings say `[topics] faces =
"kafka/{site}/{camera}"`; its receipts go to the edges as ever. So neither half has to promise anything: what
either of them, or Kafka, loses has no receipt, and its outbox sends it again. A user name and a password for
the broker stand in MQTT_USER and MQTT_PASSWORD, more of Kafka's settings (security.protocol, sasl.…) in
KAFKA_SETTINGS, as a JSON object. Needs confluent-kafka.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, Message, Producer

from facerelay.config import Broker
from facerelay.link.session import NotConnectedError, Session

TOPIC, MOST, AT_ONCE = "faces", 1_000_000, 100


async def up(session: Session, producer: Producer) -> None:
    """Hand each face to Kafka; while it does not answer, the broker sends no more than a window of them."""
    async for face in session:

        def answered(error: KafkaError | None, _: Message, face: object = face) -> None:
            if error is not None:
                sys.stderr.write(f"Kafka did not take a face: {error}\n")
            face.ack()  # type: ignore[attr-defined]

        producer.produce(TOPIC, face.payload, key=face.topic, on_delivery=answered)


async def polled(producer: Producer) -> None:
    """Let Kafka's answers come."""
    while True:
        producer.poll(0)
        await asyncio.sleep(0.01)


async def down(session: Session, consumer: Consumer) -> None:
    """Hand on what Kafka holds; it counts as taken once the broker has it."""
    while True:
        found = await asyncio.to_thread(consumer.consume, AT_ONCE, 0.2)
        records = [each for each in found if each.error() is None]
        await asyncio.gather(*(handed_on(session, each) for each in records))
        if records:
            await asyncio.to_thread(consumer.commit, asynchronous=False)


async def handed_on(session: Session, record: Message) -> None:
    """Publish one face, over all reconnects; what is under a key of another kind is not a face."""
    topic = (record.key() or b"").decode(errors="replace")
    while topic.startswith("faces/"):
        try:
            await session.publish(f"kafka/{topic.removeprefix('faces/')}", record.value() or b"", qos=1)
        except NotConnectedError:
            await session.wait_connected()
        except ValueError as error:  # a key that somebody else wrote
            sys.stderr.write(f"passed over: {error}\n")
            return
        else:
            return


async def main(url: str, servers: str) -> None:
    """Run both halves until interrupted."""
    broker = Broker(url=url, username=os.environ.get("MQTT_USER"), password=os.environ.get("MQTT_PASSWORD"))
    kafka = json.loads(os.environ.get("KAFKA_SETTINGS", "{}")) | {"bootstrap.servers": servers}
    producer = Producer(kafka | {"enable.idempotence": True, "message.max.bytes": 2 * MOST, "linger.ms": 5})
    consumer = Consumer(
        kafka | {"group.id": "facerelay", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([TOPIC])
    session = Session(broker, client_id="kafka-bridge", subscribe=[("faces/+/+", 1)], max_message=MOST)
    try:
        async with session, asyncio.TaskGroup() as tasks:
            for half in (up(session, producer), polled(producer), down(session, consumer)):
                tasks.create_task(half)
    finally:
        consumer.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
