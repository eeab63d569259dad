from __future__ import annotations

import html
import json
import pickle
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

import test_docs
from buckets import Weed
from chains import eventually, facerelay
from compose import compose2
from conftest import lacking
from recipes import EXAMPLES, RECIPES, VISITS, Recipe, named, served
from servers import answers, free_port


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_loses_no_face_and_stores_what_plain_clients_send(
    recipe: Recipe, tmp_path: Path, weed: Weed, jpeg: bytes
) -> None:
    png = cv2.imencode(".png", np.full((32, 24, 3), 7, np.uint8))[1].tobytes()
    with served(recipe, tmp_path, weed) as site:
        site.capture()
        books = site.books()
        door = books["cameras"]["home/door"]
        assert (door["captured"], door["stored"], books["lost"]) == (VISITS, VISITS, 0), site.logs()
        assert len(site.objects("faces")) == VISITS
        site.publish("face.png", png)
        site.publish("face.jpg", jpeg)
        site.publish("face.pickle", pickle.dumps({"frame": 1, "face": png}))
        eventually(lambda: sorted(site.objects("foreign").values()) == sorted([png, jpeg]))
        eventually(lambda: site.set_aside() == {recipe.topic: "pickle"})


def test_a_pickle_is_answered_with_what_to_send_instead(tmp_path: Path, weed: Weed) -> None:
    with served(named("001"), tmp_path, weed) as site:
        site.connected()
        site.publish("face.pickle", pickle.dumps({"frame": 1}))
        eventually(lambda: site.set_aside() == {"facedetection_topic": "pickle"})
        site.end()
        assert "send the JPEG or PNG bytes themselves" in site.parts["store"].text()


def test_a_mount_that_died_is_made_anew_and_its_faces_come_from_the_edge(
    tmp_path: Path, weed: Weed, portrait: Path
) -> None:
    with served(named("000"), tmp_path, weed) as site:
        site.connected()
        site.parts["mount"].kill()
        send = ("send", str(portrait), "-c", str(tmp_path / "edge.toml"), "--timeout")
        assert ": waiting faces/" in facerelay(*send, "1").stdout
        site.mount()
        done = facerelay(*send, "30")
        assert done.returncode == 0, done.stdout + site.logs()
        eventually(lambda: len(site.objects("faces")) == 2)


@pytest.mark.parametrize("name", ["000", "002"])
def test_at_quality_0_without_receipts_the_ledger_shows_what_a_cut_lost(
    name: str, tmp_path: Path, weed: Weed, portrait: Path
) -> None:
    fast = ("--set", "delivery=fast")
    with served(named(name), tmp_path, weed, *fast) as site:
        site.connected()
        site.play(portrait, "before", *fast)
        eventually(lambda: len(site.objects("faces")) == 1)
        site.parts["store"].kill()
        site.play(portrait, "after", *fast)
        books = site.books(*fast)
        sent = {camera: (books["sent"], books["stored"]) for camera, books in books["cameras"].items()}
        assert sent == {"home/before": (1, 0), "home/after": (1, 0)}
        assert books["lost"] == 1
        assert [each["camera"] for each in books["missing"]] == ["home/after"]


def test_the_public_page_shows_faces_of_a_bucket_that_is_not(
    tmp_path: Path, weed: Weed, portrait: Path
) -> None:
    with served(named("002"), tmp_path, weed) as site:
        site.play(portrait, "door")
        [face] = site.objects("faces").values()
        port = free_port()
        site.start(
            "page", sys.executable, str(EXAMPLES / site.recipe.folder / "page.py"), "--port", str(port)
        )
        eventually(lambda: answers(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            [link] = [html.unescape(one) for one in re.findall(r'src="([^"]+)"', page.read().decode())]
        with urllib.request.urlopen(link) as found:  # noqa: S310 - as above
            assert (found.read(), found.headers["Content-Type"]) == (face, "image/png")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(link.partition("?")[0])  # noqa: S310 - as above
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/cloud.toml")


def test_a_bridge_of_all_topics_brings_no_receipt_back_up(tmp_path: Path, weed: Weed) -> None:
    with served(named("004-bridge"), tmp_path, weed) as site, site.listening("receipts/#", "cloud") as heard:
        site.capture()
        assert site.books()["lost"] == 0
        assert 0 < len(heard) <= VISITS
        ids = [one["id"] for payload in heard for one in json.loads(payload)["receipts"]]
        assert len(ids) == len(set(ids)) == VISITS


PAGES = sorted(EXAMPLES.glob("**/README.md"))
COMPOSE = sorted(EXAMPLES.glob("0*/compose*.yaml"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_what_a_recipe_tells_to_do_can_be_done(page: Path) -> None:
    test_docs.test_every_command_in_the_docs_exists_with_its_options(page)
    test_docs.test_every_link_between_the_docs_leads_somewhere(page)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: f"{path.parent.name[:3]}-{path.stem}")
def test_a_compose_file_names_files_that_are_there(path: Path) -> None:
    names = set(re.findall(r"\./([\w-]+\.\w+)", path.read_text()))
    assert len(names) >= 4
    for name in names:
        assert (path.parent / name).is_file(), name


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: f"{path.parent.name[:3]}-{path.stem}")
def test_a_compose_file_is_one(path: Path) -> None:
    command = compose2()
    if command is None:
        lacking("Docker Compose 2 is neither installed nor to be had from PyPI")
    words = [*(command or []), "--profile", "*", "-f", str(path), "config", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, service in json.loads(done.stdout)["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        if name != "secrets":
            where = set(service.get("networks", {}))
            assert where < {"edge", "wan", "cloud", "public"}, name
            assert not {"edge", "cloud"} <= where, f"{name} would go around the line between"
