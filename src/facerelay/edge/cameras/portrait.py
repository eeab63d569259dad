"""Two portraits in the public domain, cut out of their background, for the built-in scene.

They come inside well-known packages: Rear Admiral Grace Hopper (US Navy) with matplotlib, the astronaut
Eileen Collins (NASA) with scikit-image. Neither package is imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge.cameras.raster import Image

_REMEDY: Final = "install them with: pip install 'facerelay[scene]', or name another source"
_FEATHER: Final = 2.0
_BODY_FADE: Final = 40
_HEADS: Final = 6.0


class SceneError(Exception):
    """The portraits of the built-in scene are missing, or are not those expected; says what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a portrait lies, and how its person is cut out of it (pixels of the portrait).

    Attributes:
        package: as it is imported.
        file: the portrait's path in the package.
        sha256: of the file.
        outline: around head and shoulders.
        face: centre and height of the face.
        torso: left and right side of the body that is painted below the picture's edge.
        cloth: its colour, BGR.
    """

    package: str
    file: str
    sha256: str
    outline: tuple[tuple[int, int], ...]
    face: tuple[int, int, int]
    torso: tuple[int, int, int]
    cloth: tuple[int, int, int]


HOPPER: Final = Source(
    "matplotlib", "mpl-data/sample_data/grace_hopper.jpg",
    "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
    ((174, 82), (180, 55), (215, 30), (262, 24), (310, 32), (338, 55), (346, 84), (368, 95), (371, 125),
     (367, 150), (366, 180), (374, 192), (370, 222), (360, 262), (354, 290), (336, 306), (332, 318),
     (372, 338), (440, 368), (482, 384), (505, 430), (511, 470), (511, 599), (14, 599), (20, 470), (30, 400),
     (54, 380), (130, 350), (202, 318), (198, 298), (170, 284), (162, 262), (162, 236), (156, 192),
     (163, 165), (154, 146), (154, 100)),
    (268, 227, 212), (24, 500, 480), (38, 24, 20),
)  # fmt: skip
COLLINS: Final = Source(
    "skimage", "data/astronaut.png",
    "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ((156, 96), (160, 66), (176, 42), (200, 24), (235, 17), (268, 26), (290, 50), (297, 84), (290, 112),
     (276, 130), (268, 146), (262, 178), (284, 196), (300, 226), (304, 244), (322, 244), (346, 282),
     (360, 330), (352, 352), (322, 360), (298, 390), (284, 430), (282, 490), (284, 511), (30, 511), (26, 450),
     (34, 380), (42, 300), (66, 266), (112, 228), (116, 192), (128, 166), (150, 152), (184, 150), (182, 126),
     (164, 118)),
    (222, 119, 113), (36, 330, 420), (46, 92, 205),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sprite:
    """A person to be put into a picture.

    Attributes:
        bgr: height x width x 3, uint8, already multiplied with alpha.
        alpha: height x width, uint8.
        face: x and y of the face's centre, and its height, in pixels.
    """

    bgr: Image
    alpha: NDArray[np.uint8]
    face: tuple[float, float, float]

    def scaled(self, face_height: float) -> Sprite:
        """Return it with a face of that height."""
        by = face_height / self.face[2]
        size = (max(1, round(self.alpha.shape[1] * by)), max(1, round(self.alpha.shape[0] * by)))
        way = cv2.INTER_AREA if by < 1 else cv2.INTER_LINEAR
        bgr = cast("Image", cv2.resize(self.bgr, size, interpolation=way))
        alpha = cast("Image", cv2.resize(self.alpha, size, interpolation=way))
        x, y, height = self.face
        return Sprite(bgr, alpha, (x * by, y * by, height * by))

    def mirrored(self) -> Sprite:
        """Return it with left and right changed over."""
        x, y, height = self.face
        return Sprite(
            np.ascontiguousarray(self.bgr[:, ::-1]),
            np.ascontiguousarray(self.alpha[:, ::-1]),
            (self.alpha.shape[1] - x, y, height),
        )

    def lit(self, gain: float) -> Sprite:
        """Return it in a light that is `gain` times as strong."""
        return Sprite(cast("Image", cv2.convertScaleAbs(self.bgr, alpha=gain)), self.alpha, self.face)


def load(source: Source) -> Sprite:
    """Return a person, cut out softly, with a body painted below.

    Raises:
        SceneError: the package is missing, or its portrait is another.
    """
    image = _read(source)
    height, width = image.shape[:2]
    x, y, face = source.face
    canvas_height = max(height, round(y + _HEADS * face))
    colour, alpha = _body(source, width, canvas_height)
    cut = np.zeros((canvas_height, width), np.uint8)
    cv2.fillPoly(cut, [np.array(source.outline, np.int32)], 255, cv2.LINE_AA)
    cut = cast("Image", cv2.erode(cut, np.ones((3, 3), np.uint8)))
    soft = cv2.GaussianBlur(cut, (0, 0), _FEATHER).astype(np.float32) / 255
    soft[height - _BODY_FADE : height] *= np.linspace(1, 0, _BODY_FADE, dtype=np.float32)[:, None]
    soft[height:] = 0
    colour[:height] += soft[:height, :, None] * (image - colour[:height])
    alpha = np.maximum(alpha, soft)
    return Sprite((colour * alpha[..., None]).astype(np.uint8), (alpha * 255).astype(np.uint8), (x, y, face))


def _read(source: Source) -> Image:
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise SceneError(f"the built-in scene's portraits are missing ({source.package}): {_REMEDY}")
    path = Path(next(iter(spec.submodule_search_locations))) / source.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(f"{path.name} cannot be read ({error.strerror}): {_REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise SceneError(f"{path.name} of {source.package} is not the portrait expected: {_REMEDY}")
    return cast("Image", cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def _body(source: Source, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Paint a torso with shading as of a cylinder; return its colour and alpha."""
    left, right, top = source.torso
    across = np.clip((np.arange(width, dtype=np.float32) - left) / max(1, right - left), 0, 1)
    shade = 0.55 + 0.5 * np.sin(np.pi * across)
    colour = np.empty((height, width, 3), np.float32)
    colour[:] = shade[None, :, None] * np.array(source.cloth, np.float32)
    shape = np.zeros((height, width), np.uint8)
    narrow = round(0.16 * (right - left))
    corners = [(left, top), (right, top), (right - narrow, height), (left + narrow, height)]
    cv2.fillPoly(shape, [np.array(corners, np.int32)], 255, cv2.LINE_AA)
    soft = cv2.GaussianBlur(shape, (0, 0), _FEATHER).astype(np.float32) / np.float32(255)
    return np.minimum(colour, np.float32(255)), soft
