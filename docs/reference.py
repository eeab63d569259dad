"""Write the reference from the code: `python docs/reference.py` makes commands.md and settings.md."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import BaseModel

from facerelay import settings
from facerelay.cli import main
from facerelay.commands.exits import MEANINGS
from facerelay.config import Config
from facerelay.metrics.catalogue import ALL, CATALOGUE

HERE = Path(__file__).parent


def commands() -> str:
    """Return the page of all commands, each as its own `--help` says."""
    parts = ["# Commands", "", "Made from the code: `python docs/reference.py`.", ""]
    parts += ["## Exit codes", "", "| code | what it says |", "|-|-|"]
    parts += [f"| {code.value} | {says} |" for code, says in MEANINGS.items()]
    for path, command in _walk(main, "facerelay"):
        names = ["-h", "--help"]
        context = click.Context(command, info_name=path, terminal_width=100, help_option_names=names)
        parts += ["", f"## {path}", "", "```", command.get_help(context).rstrip(), "```"]
    return "\n".join(parts) + "\n"


def _walk(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            found += _walk(inner, f"{path} {name}")
    return found


def all_settings() -> str:
    """Return the page of all settings, each with its title, help and default."""
    parts = [
        "# Settings", "", "Made from the code: `python docs/reference.py`.", "",
        "One TOML file a machine (`facerelay init edge`, `facerelay init cloud`).",
        "The environment stands over it (`FACERELAY_BROKER__URL`), a flag over both (`--set broker.url=…`).",
        "Paths in a file are relative to the file.",
    ]  # fmt: skip
    parts += ["", "## On top", "", *_table(Config, sections=False)]
    for name, field in Config.model_fields.items():
        if section := settings.section_of(field):
            head = f"[[{name}]]" if name == "camera" else f"[{name}]"
            parts += ["", f"## `{head}`", "", field.description or "", "", *_table(section, sections=True)]
    return "\n".join(parts) + "\n"


def _table(model: type[BaseModel], *, sections: bool) -> list[str]:
    rows = ["| setting | default | |", "|-|-|-|"]
    for name, field in model.model_fields.items():
        if sections or settings.section_of(field) is None:
            default = (
                "must be set"
                if field.is_required()
                else ""
                if field.default is None
                else f"`{field.default}`"
            )
            rows.append(f"| `{name}` | {default} | {field.title}: {field.description} |")
    return rows


_LIST = "## The list\n"


def metrics() -> str:
    """Return the page of metrics: what was written by hand, and the list behind it."""
    page = (HERE / "metrics.md").read_text(encoding="utf-8")
    parts = [page.partition(_LIST)[0] + _LIST, "Made from the code: `python docs/reference.py`.", ""]
    parts += ["| metric | labels | served by | |", "|-|-|-|-|"]
    for metric in CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        roles = "every role" if metric.roles == ALL else ", ".join(metric.roles)
        parts.append(f"| `{metric.name}` ({metric.kind}) | {labels} | {roles} | {metric.help} |")
    return "\n".join(parts) + "\n"


PAGES = {"commands.md": commands, "settings.md": all_settings, "metrics.md": metrics}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
