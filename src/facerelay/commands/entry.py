"""What all commands share: the two options for settings, and errors that say what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from facerelay import settings
from facerelay.commands import logs
from facerelay.commands.exits import Exit, code_of

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


def json_option(says: str) -> Callable[[F], F]:
    """Return what gives a command `--json`; `says` is its line of help."""
    return click.option("--json", "as_json", is_flag=True, help=says)


class Commands(click.Group):
    """Turns what can go wrong into a line that says what to do, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own type
        """Run a command."""
        logs.set_up(verbose=ctx.params.get("verbose", False), form=ctx.params.get("form", "plain"))
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except click.ClickException as error:
            if not logs.is_json():
                raise
            logs.complain(error.format_message())
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            ctx.exit(Exit.FINE)  # whoever reads has enough, as `head` has
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)
        except Exception as error:
            code = code_of(error)
            if code is None:
                raise
            logs.complain(_words(error))
            ctx.exit(code)


def _words(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed: pip install 'facerelay[all]'"
    return f"{error}" or type(error).__name__
