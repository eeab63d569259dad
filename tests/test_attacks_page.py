"""The page of attacks and the tests of attacks are of one mind."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "attacks.md").read_text()
ROW = re.compile(r"^\| (\d+) \|([^|]+)\|([^|]+)\|([^|]+)\|([^|]*)\|(.+)\|$", re.MULTILINE)
SECTION = re.compile(r"^## .+?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
WHO = {"network", "device", "operator", "key", "page", "visitor", "bucket", "file", "local", "supplier"}
LEAST = 40


def rows() -> list[tuple[str, ...]]:
    return [tuple(part.strip() for part in found) for found in ROW.findall(PAGE)]


def named() -> set[str]:
    """Return the tests that the page names, as `tests/file.py::test`."""
    found = set()
    for section in SECTION.findall(PAGE):
        here = re.search(r"Tests: `(tests/attacks/\w+\.py)`", section)
        for *_, cell in ROW.findall(section):
            for test in re.findall(r"`([^`]+)`", cell):
                found.add(test if "::" in test else f"{here[1] if here else '?'}::{test}")
    return found


def found_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {f"{path.relative_to(ROOT).as_posix()}::{name}" for name in names if name.startswith("test_")}


def test_each_row_names_a_test_that_exists() -> None:
    known = {test for path in (ROOT / "tests").rglob("test_*.py") for test in found_in(path)}
    assert named() - known == set()


def test_each_attack_has_its_row() -> None:
    attacks = {test for path in (ROOT / "tests" / "attacks").glob("test_*.py") for test in found_in(path)}
    assert len(attacks) >= LEAST
    assert attacks - named() == set()


def test_the_rows_are_numbered_whole_and_many() -> None:
    found = rows()
    assert [int(number) for number, *_ in found] == list(range(1, len(found) + 1))
    assert len(re.findall(r"^\| \d+ ", PAGE, re.MULTILINE)) == len(found) >= LEAST
    for _, attack, by, happens, _, test in found:
        assert set(by.split(", ")) <= WHO, by
        assert attack
        assert happens
        assert test


def test_every_figure_on_the_page_is_one_of_ours() -> None:
    catalogue = (ROOT / "src" / "facerelay" / "metrics" / "catalogue.py").read_text()
    figures = set(re.findall(r"`(\w+_total)", PAGE))
    assert len(figures) >= 6
    assert {name for name in figures if f'"{name}"' not in catalogue} == set()
