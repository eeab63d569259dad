from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import reference  # noqa: E402 - it lies in docs/
from facerelay.cli import main  # noqa: E402 - as above

DOCS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", reference.PAGES)
def test_the_reference_is_what_the_code_says(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == reference.PAGES[page](), "run python docs/reference.py"


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_every_command_in_the_docs_exists_with_its_options(doc: Path) -> None:
    for line in re.findall(r"`(facerelay [^`\n]+)`", doc.read_text()):
        words = shlex.split(line)[1:]
        command: click.Command = main
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{doc.name}: {line}"
            command = command.commands[words.pop(0)]
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in words:
            assert not word.startswith("-") or word.split("=")[0] in known, f"{doc.name}: {line}: {word}"


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_every_link_between_the_docs_leads_somewhere(doc: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", doc.read_text()):
        assert (doc.parent / target).exists(), f"{doc.name}: {target}"


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
