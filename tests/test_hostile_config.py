from __future__ import annotations

import io
import logging
import time
from pathlib import Path

import pytest

from facerelay.commands.logs import PlainLines, harmless
from facerelay.edge.cameras import playlist
from facerelay.edge.cameras.opening import CameraError
from facerelay.settings import ConfigError, load
from facerelay.topics import FaceTopic, TopicError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"x = " + b"[" * 5_000, "not TOML"),
        (b"x = " + b"{a=" * 5_000, "not TOML"),
        (b"x = " + b"9" * 5_000, "not TOML"),
        (b"a." * 100_000 + b"a = 1", "more than 20 parts"),
        (b"[" + b"'a' . " * 100_000 + b"a]", "more than 20 parts"),
        (b"x = {" + b'"".' * 100_000 + b"a=1}", "more than 20 parts"),
        (b"\xff\xfes\x00", "not TOML"),
        (b"#" * 1_000_001, "larger than"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused_in_a_moment(
    tmp_path: Path, text: bytes, says: str
) -> None:
    (tmp_path / "cloud.toml").write_bytes(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load(tmp_path / "cloud.toml", environ={})
    assert len(str(caught.value)) < 1000


def test_of_very_many_faults_the_first_are_told(tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text("".join(f"a{n} = 1\n" for n in range(30_000)))
    with pytest.raises(ConfigError, match="and 29980 faults more"):
        load(tmp_path / "cloud.toml", environ={})


def test_addresses_and_long_values_are_no_deep_keys(tmp_path: Path) -> None:
    value = ".".join("abcdefghijklmnopqrstuvwxyz")
    (tmp_path / "edge.toml").write_text(f'[[camera]]\nname = "a"\nsource = "rtsp://{value}/"\n')
    assert load(tmp_path / "edge.toml", environ={}).camera[0].source == f"rtsp://{value}/"


@pytest.mark.parametrize(
    "flag", ["camera." + "9" * 5_000 + ".name=x", "....=x", "=x", "a." * 5_000 + "a=x", "camera.0.0.0=x"]
)
def test_flags_of_any_form_are_read_or_refused(flag: str) -> None:
    with pytest.raises(ConfigError):
        load(None, flags=[flag], environ={})


@pytest.mark.parametrize("template", ["{site}/{camera}", "{camera}/#", "{site}x/a", "a{site}/{camera}"])
def test_no_topic_of_faces_takes_in_what_is_kept_for_other_words(template: str) -> None:
    with pytest.raises(TopicError, match="takes in"):
        FaceTopic(template)


@pytest.mark.parametrize(
    "hostile",
    [
        "a\x1b[2Jb",
        "a\rb",
        "\x9b31m",
        "gpj.\u202egnp",
        "a\u2028b",
        "\x07",
        "a\x00b",
        "\u2066x\u2069",
        "\ufeff",
        "\x85",
    ],
)
def test_nothing_from_outside_moves_a_terminal_or_turns_its_letters(hostile: str) -> None:
    assert harmless(hostile).isprintable()
    line = logged("%s is gone", hostile)
    assert line.removesuffix("\n").isprintable()


def test_a_line_from_outside_cannot_be_taken_for_one_of_ours() -> None:
    line = logged("%s", "gone\n2026-11-21 10:11:12,131 INFO    facerelay.cloud.store: stored 1000")
    first, second = line.splitlines()
    assert first.endswith("gone")
    assert second.startswith("  2026")


def logged(form: str, *facts: object) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(PlainLines())
    handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, form, facts, None))
    return out.getvalue()


def test_a_playlist_of_addresses_alone_ends_early() -> None:
    url = "http://camera.example/" + "c/" * 1_000
    bomb = b"#EXTM3U\n" + (b'#EXT-X-MAP:URI="' + b"../" * 20 + b'"\n') * 50_000
    begin = time.process_time()
    with pytest.raises(CameraError, match="more than 10000 entries"):
        playlist.parse(bomb, url, url)
    assert time.process_time() - begin < 30  # a hang, not a measure
