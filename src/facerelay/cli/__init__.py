"""The command line: one command a role, no logic."""

from __future__ import annotations

import click

from facerelay import __version__
from facerelay.cli import books, enrol, erasing, faces, roles, setup
from facerelay.commands import logs, running
from facerelay.commands.entry import Commands

__all__ = ["main"]

_COMMANDS = (
    roles.demo, roles.capture, roles.broker, roles.forward, roles.store, roles.gallery,
    enrol.run, setup.init, setup.keygen, enrol.enrol, setup.bridge, setup.completion,
    books.top, books.ledger, books.resend, books.report, books.doctor,
    faces.send, faces.detect, faces.list_, faces.get, faces.share,
    erasing.erase, erasing.lifecycle,
)  # fmt: skip


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
@click.option(
    "--log",
    "form",
    type=click.Choice(logs.FORMS),
    default="plain",
    envvar=logs.VARIABLE,
    show_default=True,
    help="Log lines for people, or JSON lines for machines (FACERELAY_LOG).",
)
@click.option("--parent", type=int, hidden=True, help="End when this process is gone.")
def main(*, parent: int | None, **_: object) -> None:
    """Faces from a camera at the edge to a bucket in the cloud: nothing lost, every one accounted for."""
    if parent is not None:
        running.follow(parent)


for command in _COMMANDS:
    main.add_command(command)
