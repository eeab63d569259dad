"""The command line: one command a role, no logic."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import click

from facerelay import __version__, settings
from facerelay.commands import running, vitals
from facerelay.commands.asked import span_of, span_options
from facerelay.commands.entry import Commands, settings_options, with_settings
from facerelay.config import Config
from facerelay.face import SLUG


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("--parent", type=int, hidden=True, help="End when this process is gone.")
def main(*, verbose: bool, parent: int | None) -> None:
    """Faces from a camera at the edge to a bucket in the cloud: nothing lost, every one accounted for."""
    running.set_up_log(verbose=verbose)
    if parent is not None:
        running.follow(parent)


@main.command()
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
def demo(**options: Any) -> None:  # noqa: ANN401 - click's options
    """Show the whole chain on this machine: camera, brokers, forwarder, store, bucket, a page of faces."""
    from facerelay.commands.demo import Options, show  # noqa: PLC0415 - a command loads what it needs

    sys.exit(show(Options(**options)))


@main.command()
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
    connect = vitals.Sessions(known)
    with previewing(known.preview, wanted=preview) as observe:
        running.run(
            lambda stop: vitals.beside(
                role(known, connect, stop=stop, until_end=until_end, observe=observe), connect.look
            )
        )


@main.command()
@with_settings
def broker(known: Config) -> None:
    """Run the embedded MQTT broker at this side's address."""
    from facerelay.link.broker import run_broker  # noqa: PLC0415 - a command loads what it needs

    work = run_broker(known.broker, max_message=known.limits.message_bytes)
    running.run(lambda stop: running.until(stop, vitals.beside(work, vitals.broker(known))))


@main.command()
@with_settings
def forward(known: Config) -> None:
    """Carry faces from this side's broker to the cloud's, and receipts back."""
    from facerelay.link.forward import forward as role  # noqa: PLC0415 - a command loads what it needs

    if known.cloud is None:
        raise settings.ConfigError("no cloud broker: add a [cloud] section with its url")
    work = role(
        edge=known.broker, cloud=known.cloud, site=known.site, faces=known.face_topic.filter,
        qos=known.level, delivery=known.delivery, window=known.forward.window,
        max_message=known.limits.message_bytes,
    )  # fmt: skip
    running.run(lambda stop: running.until(stop, vitals.forwarding(known, work)))


@main.command()
@with_settings
def store(known: Config) -> None:
    """Save what arrives at this side's broker to the bucket, and answer with receipts."""
    from facerelay.cloud.store import serve_store  # noqa: PLC0415 - a command loads what it needs

    if "bucket" not in known.model_fields_set:
        raise settings.ConfigError(
            "no bucket: add a [bucket] section with its url (is this the cloud's file?)"
        )
    connect = vitals.Sessions(known)
    work = vitals.beside(serve_store(known, connect), connect.look, vitals.bucket(known))
    running.run(lambda stop: running.until(stop, work))


@main.command()
@with_settings
def gallery(known: Config) -> None:
    """Show the latest faces of the bucket on a page, on loopback."""
    from facerelay.cloud.gallery import serve_gallery  # noqa: PLC0415 - a command loads what it needs

    running.run(lambda stop: running.until(stop, vitals.beside(serve_gallery(known), vitals.page(known))))


@main.command()
@click.argument("side", type=click.Choice(["edge", "cloud"]))
@click.argument("path", type=click.Path(path_type=Path), required=False)
def init(side: str, path: Path | None) -> None:
    """Write a commented configuration for one side (to PATH, edge.toml or cloud.toml)."""
    from facerelay.commands.init import write  # noqa: PLC0415 - a command loads what it needs

    click.echo(write(side, path or Path(f"{side}.toml")))


@main.command()
@settings_options
@span_options
@click.option("--faces", "each", is_flag=True, help="First a line a face: time, id, camera, state, key.")
@click.option("--audit", "prove", is_flag=True, help="Prove the books from the bucket's own bytes.")
@click.option("--bucket", help="The bucket to audit, if the settings name none.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, on the last line.")
def ledger(
    config: Path | None, flags: tuple[str, ...], *, bucket: str | None, prove: bool, each: bool,
    as_json: bool, **asked: Any,  # noqa: ANN401 - click's options
) -> None:  # fmt: skip
    """Print the books per camera: captured = stored + waiting + dropped + refused + erased.

    A face belongs to the time at which its frame was taken. With a time, --faces or --audit the rows of
    the outbox are read (some three seconds a million) and searched for captured faces that are in no
    column. --audit lists the days and hours of the bucket that the time touches, and reads every face in
    them; one that is missing, or that the books do not know, is named. Memory does not grow with the
    faces; an audit takes 250 bytes of temporary disk each (in SQLITE_TMPDIR, or /var/tmp).
    """
    from facerelay.commands.ledger import ledger as work  # noqa: PLC0415 - a command loads what it needs

    known = settings.load(config, flags=(*flags, *([f"bucket.url={bucket}"] if bucket else [])))
    span = span_of(known, **asked)
    sys.exit(asyncio.run(work(known, span, prove=prove, each=each, as_json=as_json)))


@main.command()
@with_settings
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--camera", default="send", show_default=True, help="The camera to send as.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for the receipts.")
def send(known: Config, files: tuple[Path, ...], camera: str, timeout: float) -> None:
    """Send pictures through the whole chain, one message each: the way to try a link."""
    from facerelay.commands.send import send as work  # noqa: PLC0415 - a command loads what it needs

    if not re.fullmatch(SLUG, camera):
        raise settings.ConfigError(f"--camera {camera}: lower case letters, digits, - and _")
    sys.exit(running.run(lambda _: work(known, files, camera=camera, timeout=timeout)))


@main.command()
@settings_options
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--draw", type=click.Path(path_type=Path), help="A folder for copies with the faces drawn in.")
@click.option("--model", help="auto, yunet, opencv, haar, or a plugin's name: detect.model.")
@click.option("--threshold", help="The least score of a face: detect.threshold.")
@click.option("--size", help="Long side of the picture that the detector sees: detect.size.")
@click.option("--tiles", help="For small faces, look at N x N parts as well: detect.tiles.")
def detect(
    config: Path | None, flags: tuple[str, ...], *, files: tuple[Path, ...], draw: Path | None, **said: str
) -> None:
    """Find the faces in pictures: a line of JSON each, in pixels of the picture as it is displayed."""
    from facerelay.commands.detect import detect as work  # noqa: PLC0415 - a command loads what it needs

    given = [f"detect.{name}={value}" for name, value in said.items() if value is not None]
    sys.exit(work(settings.load(config, flags=(*flags, *given)), files, draw=draw))


@main.command("ls")
@with_settings
@click.argument("prefix", default="faces/")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(known: Config, prefix: str, *, as_json: bool) -> None:
    """List what the bucket holds, below a PREFIX."""
    from facerelay.commands.objects import listing  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(listing(known, prefix, as_json=as_json))


@main.command()
@with_settings
@click.argument("keys", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=".", help="The folder to write to.")
def get(known: Config, keys: tuple[str, ...], output: Path) -> None:
    """Fetch objects from the bucket into a folder, and say what their EXIF knows."""
    from facerelay.commands.objects import fetch  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(fetch(known, keys, output))


@main.command()
@with_settings
@click.argument("names", nargs=-1, required=True, metavar="KEY...")
@click.option("--for", "lasts", default="1h", show_default=True, metavar="TIME", help="30m, 12h; at most 7d.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: key, url, expires.")
@click.option("--endpoint", metavar="URL", help="The bucket as others reach it, if not by bucket.endpoint.")
def share(known: Config, *, names: tuple[str, ...], lasts: str, endpoint: str | None, as_json: bool) -> None:
    """Print an http link to a face, by its key or its id: whoever has it sees the face, until it ends.

    The link is signed with the bucket's key, and needs no public bucket. It cannot be called back, but
    it dies with its face (`facerelay erase`) and with the key that signed it.
    """
    from facerelay.commands.share import share as work  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(work(known, names, lasts, endpoint=endpoint, as_json=as_json))


@main.command()
@with_settings
@click.option("--id", "ids", multiple=True, help="A face's id; may be said again.")
@click.option("--site", help="All faces of a site.")
@click.option("--camera", help="All faces of a camera of that site.")
@click.option("--from", "start", type=click.DateTime(), help="From this time on, UTC.")
@click.option("--to", "end", type=click.DateTime(), help="Until this time, UTC.")
@click.option(
    "--wait",
    default=40.0,
    show_default=True,
    help="Seconds until the second sweep: longer than a store's slowest PUT.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
def erase(known: Config, *, yes: bool, **chosen: Any) -> None:  # noqa: ANN401 - click's options
    """Erase faces for good: what is sent again later is erased too. Prints a line of proof."""
    from facerelay.commands.objects import erase as work  # noqa: PLC0415 - a command loads what it needs

    if not any(chosen[name] for name in ("ids", "site", "start", "end")):
        raise settings.ConfigError("say what to erase: --id, --site, --camera with --site, --from, --to")
    if chosen["camera"] and not chosen["site"]:
        raise settings.ConfigError("--camera needs --site: two sites may have a camera of that name")
    if chosen["start"] and chosen["end"] and chosen["start"] >= chosen["end"]:
        raise settings.ConfigError("--from is not before --to")
    if not yes:
        what = ", ".join(f"{name} {value}" for name, value in chosen.items() if value and name != "wait")
        click.confirm(f"Erase for ever from {known.bucket.url}: {what}?", abort=True)
    asyncio.run(work(known, **chosen))


@main.command()
@with_settings
def doctor(known: Config) -> None:
    """Check cameras, model, brokers, bucket and clock, and say what to do."""
    from facerelay.commands.doctor import examine  # noqa: PLC0415 - a command loads what it needs

    sys.exit(asyncio.run(examine(known)))


@main.group()
def bridge() -> None:
    """Let a broker's own bridge be the link, in place of the forwarder."""


@bridge.command("mosquitto")
@with_settings
def bridge_mosquitto(known: Config) -> None:
    """Print the bridge as Mosquitto's configuration, for the edge's mosquitto.conf."""
    from facerelay.commands.bridge import bridge_config  # noqa: PLC0415 - a command loads what it needs

    click.echo(bridge_config(known), nl=False)
