"""The table of limits in the docs, against the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from facerelay.config import Config

PAGE = Path(__file__).parent.parent / "docs" / "limits.md"
ROW = re.compile(r"\| (?P<what>[^|]+) \| (?P<most>[0-9,.]+) \| `(?P<where>[^|`]+)` \| (?P<beyond>[^|]+) \|")


def rows() -> list[re.Match[str]]:
    return [found for line in PAGE.read_text(encoding="utf-8").splitlines() if (found := ROW.fullmatch(line))]


def value(where: str) -> Any:  # noqa: ANN401 - whatever a constant is
    """Return a constant by its place, `module.NAME` or `module.NAME[item]`, or else a setting's default."""
    name, _, item = where.removesuffix("]").partition("[")
    module, _, last = name.rpartition(".")
    found: Any = Config()
    for cut in (module, module.rpartition(".")[0]):
        if last.isupper() or last.startswith("_") or cut != module:
            try:
                found = importlib.import_module(f"facerelay.{cut}")
            except ImportError:
                continue
            name = name.removeprefix(f"{cut}.")
            break
    for part in name.split("."):
        found = getattr(found, part)
    return found[item] if item else found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["where"])
def test_each_limit_in_the_table_is_the_one_in_the_code(row: re.Match[str]) -> None:
    assert float(row["most"].replace(",", "")) == value(row["where"])


def test_the_table_has_what_the_borders_have() -> None:
    assert len(rows()) > 45
    named = {row["where"] for row in rows()}
    assert {
        "limits.message_bytes",
        "limits.pixels",
        "picture.MAX_EXIF_BYTES",
        "link.decode._CONTROL_LIMIT",
    } <= named
