from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from facerelay import settings
from facerelay.config import Camera, Config
from facerelay.topics import FaceTopic, TopicError


def load(path: Path | None = None, *flags: str, **environ: str) -> Config:
    return settings.load(path, flags=flags, environ=environ)


def test_flags_are_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('site = "a"\n[visits]\nwait_s = 1\n[outbox]\nwindow_bytes = 20000\n')
    config = load(path, "site=c", FACERELAY_SITE="b", FACERELAY_VISITS__WAIT_S="3")
    assert (config.site, config.visits.wait_s, config.outbox.window_bytes) == ("c", 3.0, 20_000)


@pytest.mark.parametrize("source", ["clip.mp4", "shots", "shots/frame-%05d.jpg"])
def test_a_cameras_file_is_relative_to_the_settings_too(tmp_path: Path, source: str) -> None:
    (tmp_path / "edge.toml").write_text(f'[[camera]]\nname = "door"\nsource = "{source}"\n')
    (camera,) = load(tmp_path / "edge.toml").camera
    assert camera.source == str(tmp_path / source)


@pytest.mark.parametrize(
    "source", ["0", "scene", "rtsp://cam/1", "https://h/v.m3u8", "mqtt:a/+/b", "/a/b.mp4"]
)
def test_what_is_no_relative_path_stays_as_it_is(tmp_path: Path, source: str) -> None:
    (tmp_path / "edge.toml").write_text(f'[[camera]]\nname = "door"\nsource = "{source}"\n')
    (camera,) = load(tmp_path / "edge.toml").camera
    assert camera.source == source


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('[outbox]\npath = "o.db"\n[bucket]\nurl = "file://faces"\n')
    config = load(path)
    assert config.outbox.path == tmp_path / "o.db"
    assert config.bucket.url == f"file://{tmp_path}/faces"


def test_a_camera_can_be_named_by_flags_alone() -> None:
    config = load(
        None, "camera.0.name=door", "camera.0.source=0", "camera.1.name=gate", "camera.1.source=scene"
    )
    assert [(camera.name, camera.source) for camera in config.camera] == [("door", "0"), ("gate", "scene")]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("brokr.url=x", ["brokr", "did you mean 'broker'"]),
        ("broker.ulr=x", ["broker.ulr", "did you mean 'url'"]),
        ("broker.url=http://x", ["broker.url", "mqtt://host:port", "Address"]),
        ("broker.url=mqtt://u:secret@x", ["broker.url", "own settings"]),
        ("broker.url=mqtt://u:secret", ["broker.url", "mqtt://host:port"]),
        ("visits.wait_s=-1", ["visits.wait_s", "greater than or equal to 0", "The best picture is sent"]),
        ("site=My Home", ["site", "Lower case letters"]),
        ("delivery=quick", ["delivery", "'fast', 'broker' or 'receipt'"]),
        ("topics.faces=#", ["topics.faces", "face_app/#"]),
        ("gallery.host=0.0.0.0", ["gallery.host", "loopback"]),
        ("gallery.hosts=x.org", ["gallery.hosts", "a list", "--set gallery.hosts.0=…"]),
        ("camera.0.name=door", ["camera.0.source", "Webcam number"]),
        ("broker.cert=c.pem", ["broker", "cert and key go together"]),
        ("site", ["--set site", "section.key=value"]),
        ("camera.7.name=x", ["--set camera.7.name", "count from 0"]),
        ("site.x=1", ["site"]),
        ("visits.policy=worst", ["visits.policy", "'best', 'first-and-best' or 'every'", "one per visit"]),
        ("picture.format=gif", ["picture.format", "'jpeg', 'png' or 'webp'"]),
        ("picture.max_bytes=100", ["picture.max_bytes", "2000", "lower quality"]),
        ("detect.tiles=9", ["detect.tiles", "less than or equal to 4"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_help_and_the_nearest_name(flag: str, words: list[str]) -> None:
    with pytest.raises(settings.ConfigError) as caught:
        load(None, flag)
    for word in words:
        assert word in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("policy", ["best", "first-and-best"])
def test_another_picture_of_a_visit_goes_with_the_policies_that_choose(policy: str) -> None:
    assert load(None, f"visits.policy={policy}", "visits.again=true").visits.again
    with pytest.raises(settings.ConfigError, match=r"visits: again does not go with policy .every."):
        load(None, "visits.policy=every", "visits.again=true")


CAMERA = ("camera.0.name=door", "camera.0.source=0")
MASK = ((0.0, 0.0), (0.3, 0.0), (0.3, 0.2))


def test_zones_and_masks_may_stand_in_a_file_in_the_environment_and_in_flags(tmp_path: Path) -> None:
    path, json = tmp_path / "edge.toml", "[[[0, 0], [0.3, 0], [0.3, 0.2]]]"
    path.write_text(f'[[camera]]\nname = "door"\nsource = "0"\nmasks = {json}\nzones = []\n')
    for camera in (
        load(path).camera[0],
        load(None, *CAMERA, f"camera.0.masks={json}").camera[0],
        load(None, *CAMERA, FACERELAY_CAMERA__0__MASKS=json).camera[0],
    ):
        assert camera.masks == (MASK,)
        assert camera.zones == ()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0.1, 0.2", "write it as JSON, such as [[["),
        ("", "write it as JSON"),
        ("[" * 100_000, "write it as JSON"),
        ("7", "write a list of polygons"),
        ("[[0, 0], [0.3, 0], [0.3, 0.2]]", "one more pair of brackets"),
        ("[7]", "polygon 1: write all of them at once"),
        ("[[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1]]]", "polygon 2 has 2 corners: name 3 to 100"),
        (f"[[{', '.join(['[0, 0]'] * 101)}]]", "polygon 1 has 101 corners"),
        (f"[{', '.join(['[[0, 0], [1, 0], [1, 1]]'] * 33)}]", "33 polygons are more than 32"),
        ("[[[0, 0], [0.5], [1, 1]]]", "polygon 1, corner 2: write two numbers, [x, y]"),
        ('[[[0, 0], ["a", 1], [1, 1]]]', "polygon 1, corner 2: write two numbers"),
        ("[[[0, 0], [true, 1], [1, 1]]]", "polygon 1, corner 2: write two numbers"),
        ("[[[0, 0], [640, 0], [640, 480]]]", "corner 2: shares of the picture's width and height, 0 to 1"),
        ("[[[0, 0], [NaN, 0], [1, 1]]]", "corner 2: shares"),
        ("[[[0, 0], [-0.01, 0], [1, 1]]]", "corner 2: shares"),
        ("[[[0, 0], [1, 1], [1, 0], [0, 1]]]", "its sides cross: name the corners in their order"),
        ("[[[0, 0], [0.5, 0.5], [1, 1]]]", "polygon 1 has no area"),
        ("[[[0.2, 0.2], [0.2, 0.2], [0.2, 0.2]]]", "polygon 1 has no area"),
    ],
)
@pytest.mark.parametrize("setting", ["zones", "masks"])
def test_a_wrong_polygon_is_named_with_what_to_write(setting: str, value: str, words: str) -> None:
    with pytest.raises(settings.ConfigError) as caught:
        load(None, *CAMERA, f"camera.0.{setting}={value}")
    assert f"camera.0.{setting}: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "polygon",
    [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[0, 0], [1, 0], [1, 1], [0.5, 0.1], [0, 1]],
        [[0, 0], [0.5, 0], [0.5, 0], [1, 0], [1, 1]],
        [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]],
    ],
    ids=["rectangle", "dent", "corner twice", "closed"],
)
def test_polygons_of_any_sane_form_are_taken(polygon: list[list[float]]) -> None:
    (taken,) = Camera(name="door", source="0", zones=(polygon,)).zones
    assert [list(corner) for corner in taken] == polygon


def test_a_list_is_given_place_by_place() -> None:
    hosts = load(None, "gallery.hosts.0=127.0.0.1", "gallery.hosts.1=localhost").gallery.hosts
    assert hosts == ("127.0.0.1", "localhost")


def test_execution_providers_are_listed_with_commas() -> None:
    flag = "detect.providers=CUDAExecutionProvider, CPUExecutionProvider"
    assert load(None, flag).detect.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")


def test_two_cameras_of_one_name_are_refused() -> None:
    flags = [f"camera.{n}.{key}" for n in (0, 1) for key in ("name=door", "source=0")]
    with pytest.raises(settings.ConfigError, match="two cameras have the name 'door'"):
        load(None, *flags)


@pytest.mark.parametrize(("text", "word"), [("site = ", "not TOML"), ("x" * 2_000_000, "larger than")])
def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(settings.ConfigError, match=rf"x\.toml.*{word}"):
        load(tmp_path / "x.toml")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(settings.ConfigError, match="facerelay init"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize("names", [settings.EDGE, settings.CLOUD])
def test_a_written_configuration_reads_back_as_the_defaults(tmp_path: Path, names: tuple[str, ...]) -> None:
    names = tuple(name for name in names if name not in {"cloud", "camera"})
    text = settings.template(names, {})
    assert set(tomllib.loads(text)) <= set(names)
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and ": " not in line else line
        for line in text.splitlines()
    )
    path = tmp_path / "all.toml"
    path.write_text(uncommented)
    (tmp_path / "empty.toml").touch()
    assert load(path) == load(tmp_path / "empty.toml")


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    inner = {found for field in model.model_fields.values() if (found := settings.section_of(field))}
    return {model}.union(*(sections(section) for section in inner)) if inner else {model}


def test_every_setting_has_a_title_and_a_line_of_help() -> None:
    for section in sections(Config):
        for name, field in section.model_fields.items():
            assert field.title, f"{section.__name__}.{name}"
            assert field.description, f"{section.__name__}.{name}"
            assert len(f"# {field.title}: {field.description}") <= 110, f"{section.__name__}.{name}"


def test_a_written_camera_shows_how_its_masks_are_set(tmp_path: Path) -> None:
    text = settings.template(settings.EDGE, {"camera": [{"name": "door", "source": "0"}]})
    path = tmp_path / "edge.toml"
    path.write_text(text.replace("# masks = []", "masks = [[[0, 0], [0.3, 0], [0.3, 0.2]]]"))
    assert load(path).camera[0].masks == (MASK,)
    given = settings.template(settings.EDGE, {"camera": [{"name": "door", "source": "0", "masks": [MASK]}]})
    path.write_text(given)
    assert load(path).camera[0].masks == (MASK,)


def test_a_password_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    config = load(None, f"broker.password_file={tmp_path}/secret", "bucket.secret_key=hunter3")
    assert config.broker.secret() == "hunter2"
    assert config.bucket.secret() == "hunter3"
    assert "hunter" not in repr(config)


@pytest.mark.parametrize(
    ("template", "topic", "subscription"),
    [
        ("faces/{site}/{camera}", "faces/home/door", "faces/+/+"),
        ("w251/face_detector", "w251/face_detector", "w251/face_detector"),
        ("facedetection_topic", "facedetection_topic", "facedetection_topic"),
        ("faces", "faces", "faces"),
        ("face_app/#", "face_app/home/door", "face_app/#"),
        ("image", "image", "image"),
    ],
)
def test_the_topics_of_the_write_ups_can_be_set(template: str, topic: str, subscription: str) -> None:
    faces = FaceTopic(template)
    assert (faces.publish("home", "door"), faces.filter) == (topic, subscription)


@pytest.mark.parametrize(
    "template", ["", "#", "a/#/b", "a/+", "receipts/x", "$SYS/x", "a b", "{other}", "ledger"]
)
def test_a_topic_that_would_break_the_chain_is_refused(template: str) -> None:
    with pytest.raises(TopicError):
        FaceTopic(template)
