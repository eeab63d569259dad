"""What all commands share: the two options for settings, and errors that say what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from facerelay import settings

F = TypeVar("F", bound=Callable[..., Any])

_CONFIG_HELP = "The settings (`facerelay init` writes them)."
_SET_HELP = "One setting over those of the file, such as broker.url=mqtt://host:1883."


def settings_options(command: F) -> F:
    """Give a command `--config` and `--set`."""
    command = click.option(
        "-c", "--config", type=click.Path(path_type=Path), envvar="FACERELAY_CONFIG", help=_CONFIG_HELP
    )(command)
    return click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help=_SET_HELP)(command)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the two options, and what they come to: the settings of this machine."""

    @functools.wraps(command)
    def loaded(config: Path | None, flags: tuple[str, ...], **rest: Any) -> None:  # noqa: ANN401 - click's options
        command(settings.load(config, flags=flags), **rest)

    return settings_options(loaded)


class Commands(click.Group):
    """Turns what can go wrong into a line that says what to do, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own type
        """Run a command."""
        try:
            return super().invoke(ctx)
        except settings.ConfigError as error:
            click.echo(f"facerelay: {error}", err=True)
            ctx.exit(2)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except ModuleNotFoundError as error:
            click.echo(f"facerelay: {error.name} is not installed: pip install 'facerelay[all]'", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            ctx.exit(0)  # whoever reads has enough, as `head` has
        except Exception as error:
            if _unexpected(error):
                raise
            click.echo(f"facerelay: {error}", err=True)
            ctx.exit(1)


def _unexpected(error: Exception) -> bool:
    """Whether an error is a fault of ours, and so deserves its traceback."""
    ours = type(error).__module__.startswith("facerelay.")
    return not (ours or isinstance(error, OSError))
