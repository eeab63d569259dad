"""What is written before anything runs."""

from __future__ import annotations

from pathlib import Path

import click

from facerelay.commands.entry import with_settings
from facerelay.config import Config


@click.command()
@click.argument("side", type=click.Choice(["edge", "cloud"]))
@click.argument("path", type=click.Path(path_type=Path), required=False)
def init(side: str, path: Path | None) -> None:
    """Write a commented configuration for one side (to PATH, edge.toml or cloud.toml)."""
    from facerelay.commands.init import write  # noqa: PLC0415 - a command loads what it needs

    click.echo(write(side, path or Path(f"{side}.toml")))


@click.group()
def bridge() -> None:
    """Let a broker's own bridge be the link, in place of the forwarder."""


@bridge.command("mosquitto")
@with_settings
def bridge_mosquitto(known: Config) -> None:
    """Print the bridge as Mosquitto's configuration, for the edge's mosquitto.conf."""
    from facerelay.commands.bridge import bridge_config  # noqa: PLC0415 - a command loads what it needs

    click.echo(bridge_config(known), nl=False)
