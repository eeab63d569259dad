"""What is written before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from facerelay.commands.entry import json_option, with_settings
from facerelay.config import Config


@click.command()
@click.argument("side", type=click.Choice(["edge", "cloud"]))
@click.argument("path", type=click.Path(path_type=Path), required=False)
@json_option("One JSON object: file, and the commands that come next.")
def init(side: str, path: Path | None, *, as_json: bool) -> None:
    """Write a commented configuration for one side (to PATH, edge.toml or cloud.toml)."""
    from facerelay.commands.init import write  # noqa: PLC0415 - a command loads what it needs

    path = path or Path(f"{side}.toml")
    commands = write(side, path)
    if as_json:
        click.echo(json.dumps({"file": str(path), "next": commands}))
    else:
        click.echo(f"{path} written. Read it, set what differs here, then:")
        click.echo("\n".join(f"  {command}" for command in commands))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option("One JSON object: file, public.")
def keygen(file: Path, *, as_json: bool) -> None:
    """Make a private key for sealed faces, in FILE, and print its public half: for the edges' settings.

    The file is that of age-keygen: age itself reads it. Whoever has it sees the faces; without it nobody
    ever does: keep a copy where the bucket is not.
    """
    from facerelay.sealing import make_identity  # noqa: PLC0415 - a command loads what it needs

    public = make_identity(file)
    if as_json:
        click.echo(json.dumps({"file": str(file), "public": public}))
        return
    click.echo(f"{file} written: keep a copy of it where the bucket is not. In edge.toml:\n")
    click.echo(f'  [seal]\n  recipients = ["{public}"]\n\nwhere faces are looked at, in cloud.toml:\n')
    click.echo(f'  [seal]\n  identity_file = "{file.absolute()}"')


@click.group()
def bridge() -> None:
    """Let a broker's own bridge be the link, in place of the forwarder."""


@bridge.command("mosquitto")
@with_settings
@json_option("One JSON object: config, the text.")
def bridge_mosquitto(known: Config, *, as_json: bool) -> None:
    """Print the bridge as Mosquitto's configuration, for the edge's mosquitto.conf."""
    from facerelay.commands.bridge import bridge_config  # noqa: PLC0415 - a command loads what it needs

    text = bridge_config(known)
    click.echo(json.dumps({"config": text}) if as_json else text, nl=as_json)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option("One JSON object: shell, script.")
@click.pass_context
def completion(context: click.Context, shell: str, *, as_json: bool) -> None:
    """Print the script with which a shell completes commands and options.

    \b
    bash: facerelay completion bash > ~/.local/share/bash-completion/completions/facerelay
    zsh:  facerelay completion zsh > "${fpath[1]}/_facerelay"
    fish: facerelay completion fish > ~/.config/fish/completions/facerelay.fish
    """  # noqa: D301 - `\b` is click's mark for lines to be left alone
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - by the argument's choice
    script = made(context.find_root().command, {}, "facerelay", "_FACERELAY_COMPLETE").source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
