"""The command line: one command a role, no logic."""

from __future__ import annotations

import click

from facerelay import __version__
from facerelay.cli import books, faces, roles, setup
from facerelay.commands import running
from facerelay.commands.entry import Commands

__all__ = ["main"]

_COMMANDS = (
    roles.demo, roles.capture, roles.broker, roles.forward, roles.store, roles.gallery,
    setup.init, setup.bridge,
    books.ledger, books.doctor,
    faces.send, faces.detect, faces.list_, faces.get, faces.share, faces.erase,
)  # fmt: skip


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("--parent", type=int, hidden=True, help="End when this process is gone.")
def main(*, verbose: bool, parent: int | None) -> None:
    """Faces from a camera at the edge to a bucket in the cloud: nothing lost, every one accounted for."""
    running.set_up_log(verbose=verbose)
    if parent is not None:
        running.follow(parent)


for command in _COMMANDS:
    main.add_command(command)
