"""The roles, and all of them at once."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from facerelay import settings
from facerelay.commands import running, vitals
from facerelay.commands.entry import json_option, with_settings
from facerelay.config import Broker, Config


@click.command()
@click.option(
    "--source",
    help="A camera's number, a file, a folder, numbered pictures (shot-%04d.jpg), a URL (RTSP, HTTP, HLS),"
    " mqtt:TOPIC; else a webcam, or the built-in scene.",
)
@click.option("--bucket", help="Where to store: a folder, or s3://bucket (keys from the environment).")
@click.option(
    "--exit",
    "until_end",
    is_flag=True,
    help="End with the source; audit; the ledger as JSON on the last line.",
)
@click.option(
    "--pace/--no-pace",
    default=None,
    help="Play files in real time; with --exit, as fast as it goes by default.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default="facerelay-demo",
    show_default=True,
    help="Where a run keeps its state.",
)
@click.option(
    "--edge-broker",
    type=click.Choice(["embedded", "mosquitto"]),
    default="embedded",
    show_default=True,
    help="The broker at the edge.",
)
@click.option(
    "--cloud-broker",
    type=click.Choice(["embedded", "mosquitto"]),
    default="embedded",
    show_default=True,
    help="The broker in the cloud.",
)
@click.option(
    "--link",
    type=click.Choice(["forward", "bridge"]),
    default="forward",
    show_default=True,
    help="Our forwarder, or Mosquitto's own bridge.",
)
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, for every role.")
@json_option("The ledger as one JSON object, on the last line; so it is at --exit.")
def demo(**options: Any) -> None:  # noqa: ANN401 - click's options
    """Show the whole chain on this machine: camera, brokers, forwarder, store, bucket, a page of faces."""
    from facerelay.commands.demo import Options, show  # noqa: PLC0415 - a command loads what it needs

    sys.exit(show(Options(**options)))


@click.command()
@with_settings
@click.option(
    "--exit", "until_end", is_flag=True, help="End when the cameras have ended and all faces have an answer."
)
@click.option("--preview", is_flag=True, help="Show on a page what the cameras see, and why a face is sent.")
def capture(known: Config, *, until_end: bool, preview: bool) -> None:
    """Watch the cameras, keep their faces in the outbox, and send them."""
    from facerelay.edge.capture import capture as role  # noqa: PLC0415 - a command loads what it needs
    from facerelay.edge.preview import previewing  # noqa: PLC0415 - as above

    if not known.camera:
        raise settings.ConfigError("no camera: add a [[camera]] with a name and a source")
    connect, reach = vitals.Sessions(known), partial(running.connector, known)
    tools = vitals.Instruments(known, "capture")
    with previewing(known.preview, wanted=preview) as observe:
        running.run(
            lambda stop: vitals.beside(
                role(
                    known, connect, stop=stop, until_end=until_end, observe=observe, reach=reach,
                    meters=tools.meters, trace=tools.trace,
                ),
                connect.look,
                instruments=tools,
            )
        )  # fmt: skip


@click.command()
@with_settings
def broker(known: Config) -> None:
    """Run the embedded MQTT broker at this side's address."""
    from facerelay.link.broker import run_broker  # noqa: PLC0415 - a command loads what it needs
    from facerelay.link.quorum import Quorum  # noqa: PLC0415 - as above

    tools, quorum = vitals.Instruments(known, "broker"), Quorum()
    role = run_broker(
        known.broker.listening, max_message=known.limits.message_bytes, trust=known.trust,
        faces=known.face_topic, cluster=known.cluster, stream=known.jetstream.stream, quorum=quorum,
        meters=tools.meters,
    )  # fmt: skip
    work = vitals.beside(role, vitals.broker(known), quorum.look, instruments=tools)
    running.run(lambda stop: running.until(stop, work))


@click.command()
@with_settings
def forward(known: Config) -> None:
    """Carry faces from this side's broker to the cloud's, and receipts back."""
    from facerelay.link.forward import forward as role  # noqa: PLC0415 - a command loads what it needs

    if known.cloud is None:
        raise settings.ConfigError("no cloud broker: add a [cloud] section with its url")
    tools = vitals.Instruments(known, "forward")
    work = role(
        edge=known.broker, cloud=known.cloud, site=known.site, faces=known.face_topic.filter,
        qos=known.level, delivery=known.delivery, window=known.forward.window,
        max_message=known.limits.message_bytes, meters=tools.meters,
    )  # fmt: skip
    running.run(lambda stop: running.until(stop, vitals.forwarding(known, work, tools)))


def _with_bucket(known: Config) -> None:
    """See that a bucket is named: the default is a folder, and an edge has none."""
    if "bucket" not in known.model_fields_set:
        raise settings.ConfigError(
            "no bucket: add a [bucket] section with its url (is this the cloud's file?)"
        )


@click.command()
@with_settings
def store(known: Config) -> None:
    """Save what arrives at this side's broker to the bucket, and answer with receipts."""
    from facerelay.cloud.store import serve_store  # noqa: PLC0415 - a command loads what it needs
    from facerelay.commands import intake  # noqa: PLC0415 - as above

    _with_bucket(known)
    connect = vitals.Sessions(known)
    tools = vitals.Instruments(known, "store")
    pull = intake.pull(known)
    looks = [connect.look, vitals.bucket(known)]
    if pull is not None:
        looks.append(pull.look)
        intake.measured(pull, tools.meters)
    role = serve_store(known, connect, pull=pull, meters=tools.meters, trace=tools.trace)
    work = vitals.beside(role, *looks, instruments=tools)
    running.run(lambda stop: running.until(stop, work))


def _as_gallery(known: Config) -> Broker:
    """Return the broker on this side, as the gallery comes to it."""
    own = known.gallery
    if own.broker_cert is None:
        return known.broker
    return known.broker.model_copy(update={"cert": own.broker_cert, "key": own.broker_key})


@click.command()
@with_settings
def gallery(known: Config) -> None:
    """Show the faces of the bucket on web pages, on loopback: live, by time, camera and quality.

    Beyond loopback with TLS (gallery.cert, gallery.key) and a login (gallery.token_file or OIDC) alone.
    """
    import secrets  # noqa: PLC0415 - a command loads what it needs

    from facerelay.cloud.gallery import serve_gallery  # noqa: PLC0415 - as above

    _with_bucket(known)
    tools = vitals.Instruments(known, "gallery")
    probe = secrets.token_urlsafe(32)
    connect = running.connector(known, _as_gallery(known))
    role = serve_gallery(known, connect, meters=tools.meters, probe=probe)
    work = vitals.beside(role, vitals.page(known, probe=probe), instruments=tools)
    running.run(lambda stop: running.until(stop, work))
