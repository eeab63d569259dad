from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from conftest import Make, need
from facerelay import settings
from facerelay.edge.outbox import Outbox
from servers import free_port

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import reference  # noqa: E402 - it lies in docs/
from facerelay.cli import main  # noqa: E402 - as above

DOCS = sorted([
    ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/README.md"),
])  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?<![\w/.='\"-])facerelay(?= [a-z-])")
PORTS = ("1883", "2883", "8080", "8883")


@pytest.mark.parametrize("page", reference.PAGES)
def test_the_reference_is_what_the_code_says(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == reference.PAGES[page](), "run python docs/reference.py"


def _command(words: list[str], line: str) -> tuple[click.Command, list[str]]:
    """Return the command that words call, and its own words."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, line
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_every_command_in_the_docs_exists_with_its_options(doc: Path) -> None:
    for line in re.findall(r"`(facerelay [^`\n]+)`", doc.read_text()):
        command, words = _command(shlex.split(line)[1:], line)
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in words:
            assert not word.startswith("-") or word.split("=")[0] in known, f"{doc.name}: {line}: {word}"


def _typed(text: str) -> Iterator[str]:
    """Each call of facerelay in the blocks that are to be typed, up to a comment, a pipe or the next one."""
    for kind, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if kind in {"", "sh"} else ():
            for start in COMMAND.finditer(line):
                yield re.split(r"\s{2,}(?=facerelay |#)|\s#|\s[|>&;]|\s\d>", line[start.start() :])[0].strip()


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_every_command_to_be_typed_can_be_read(doc: Path) -> None:
    if doc.name == "commands.md":
        return  # it is made of the commands' own words
    for line in _typed(doc.read_text()):
        command, words = _command(shlex.split(line)[1:], line)
        if words and words[0] in {"--help", "--version"}:
            continue
        context = command.make_context("facerelay", words)  # refuses what it does not know
        for flag in context.params.get("flags", ()):
            name = flag.split("=")[0]
            parts = [part for part in name.split(".") if not part.isdecimal()]
            assert parts[-1] in settings._fields(parts[:-1]), f"{doc.name}: {line}: {name}"


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_every_make_target_and_module_in_the_docs_exists(doc: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = doc.read_text()
    for target in re.findall(r"(?:`|^|\s{2})make ([a-z][a-z-]*)(?=[`\s])", text, re.MULTILINE):
        assert target in targets, f"{doc.name}: make {target}"
    for module in re.findall(r"python -m ((?:bench|facerelay)[\w.]*)", text):
        path = ROOT / ("src" if module.startswith("facerelay") else "") / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{doc.name}: {module}"


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_every_link_between_the_docs_leads_somewhere(doc: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", doc.read_text()):
        assert (doc.parent / target).exists(), f"{doc.name}: {target}"


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


def _script() -> str:
    """The first hour as it is typed, with free ports and on loopback alone.

    What pip would fetch is there already: the new environment sees the packages of this one, but not this
    one's facerelay, whose editable installation a path file does not lead to.
    """
    text = (ROOT / "docs" / "first-hour.md").read_text()
    script = "\n".join(block for kind, block in FENCE.findall(text) if kind == "sh")
    ports = {port: str(free_port()) for port in PORTS}
    changes = []
    for old, new in ports.items():
        script = re.sub(rf"\b{old}\b", new, script)
        changes += [f"-e 's/:{old}\"/:{new}\"/'", f"-e 's/^# port = {old}$/port = {new}/'"]
    script = script.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - it is what must not be listened on
    for side in ("edge", "cloud"):
        typed = next(line for line in script.splitlines() if line.startswith(f"facerelay init {side}"))
        script = script.replace(typed, f"{typed}\nsed -i {' '.join(changes)} {side}.toml")
    packages = f"venv/lib/python{sysconfig.get_python_version()}/site-packages/parts.pth"
    seen = f"echo '{sysconfig.get_path('purelib')}' > {packages}"
    return script.replace(". venv/bin/activate\n", f". venv/bin/activate\n{seen}\n", 1)


def _typed_in_order(script: str, folder: Path) -> tuple[int, str]:
    """Run a script in a folder; returns its exit code, and all that was said."""
    given = {name: v for name, v in os.environ.items() if not name.startswith(("FACERELAY_", "PYTHON"))}
    given |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{given['PATH']}", "HOME": str(folder)}
    with (folder / "said").open("w+") as said:
        child = subprocess.Popen(
            ["bash", "-eu", "-x", "-c", script], cwd=folder, env=given, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = child.wait(timeout=360)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with suppress(ProcessLookupError):  # what a script that failed has left behind
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(0)
        logs = [log.read_text(errors="replace")[-2000:] for log in sorted(folder.glob("logs/*.log"))]
        return code, said.read() + "".join(logs if code else ())


@pytest.mark.timeout(400)
def test_the_first_hour_typed_to_the_letter_ends_with_faces_in_a_bucket(tmp_path: Path) -> None:
    for program in ("bash", "curl", "openssl"):
        need(program)
    (tmp_path / "facerelay").symlink_to(ROOT)
    code, said = _typed_in_order(_script(), tmp_path)
    assert code == 0, said[-12000:]
    assert said.count('"lost": 0') == 2  # of the two demonstrations
    assert "10 of 10 faces there, 0 lost" in said  # of the built-in scene, by the audit
    assert said.count(": stored faces/") == 2
    assert len(list(tmp_path.glob("bucket/faces/**/*.jpg"))) == 11
    assert len(list(tmp_path.glob("cloud/bucket/faces/**/*.jpg"))) == 1
    assert "<html" in (tmp_path / "page.html").read_text()


def test_the_backup_in_the_docs_has_the_faces_that_wait_and_books_of_its_own(
    tmp_path: Path, make_face: Make
) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    [backup] = [block for kind, block in FENCE.findall(text) if kind == "sh" and "backup" in block]
    live, copy = tmp_path / "outbox.db", tmp_path / "outbox-copy.db"
    with Outbox(live, max_bytes=10**8, max_message=10**6) as outbox:
        first = outbox.id
        outbox.put(make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()), chosen=1.0).result()
        environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(["bash", "-e", "-c", backup], cwd=tmp_path, env=environment, check=True, timeout=60)
    with Outbox(copy, max_bytes=10**8, max_message=10**6) as restored:
        assert restored.id != first
        assert restored.waiting().result() == 1


def test_a_disk_put_back_whole_begins_new_books_without_its_lock_as_the_docs_say(tmp_path: Path) -> None:
    names = ("outbox.db", "outbox.db.lock")

    def opened() -> str:
        with Outbox(tmp_path / "outbox.db", max_bytes=10**8, max_message=10**6) as outbox:
            return outbox.id

    first = opened()
    image = {name: (tmp_path / name).read_bytes() for name in names}
    assert opened() == first
    for name, data in image.items():  # into the same inodes, as a disk's image does
        (tmp_path / name).write_bytes(data)
    assert opened() == first
    (tmp_path / "outbox.db.lock").unlink()
    assert opened() != first


class _References(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.led: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        loads = tag != "a" and known.get("rel") not in {"canonical", "prev", "next"}
        for name in ("src", "href", "data"):
            if target := known.get(name):
                (self.loaded if loads else self.led).append(target)


def test_the_site_has_no_broken_link_and_fetches_nothing_from_another_host(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"REPO_URL": "", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > len(list(ROOT.glob("docs/**/*.md")))  # and the page of what is not found
    for page in pages:
        found = _References()
        found.feed(page.read_text())
        for target in found.loaded:
            assert not urlsplit(target).netloc, f"{page.name}: {target}"
        for target in (*found.loaded, *found.led):
            parts = urlsplit(target)
            if parts.path and not parts.scheme and not parts.netloc:
                base = tmp_path if parts.path.startswith("/") else page.parent
                assert (base / unquote(parts.path).lstrip("/")).exists(), f"{page.name}: {target}"
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet.name
