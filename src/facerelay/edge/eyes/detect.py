"""Where faces are in a picture: what a detector is, and how one is found by its name.

Detectors are plugins: an installed package offers one as an entry point of the group `facerelay.detectors`,
and so do we with our own. An entry point is a callable that takes `DetectorOptions` and gives a `Detector`,
which may be shared by the threads of several cameras.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Protocol, TypeAlias

from facerelay.edge.cameras.raster import Image
from facerelay.sections import Detect
from facerelay.settings import ConfigError

__all__ = ["Detection", "Detector", "DetectorOptions", "Image", "ModelError", "make_detector"]

Point: TypeAlias = tuple[float, float]
GROUP: Final = "facerelay.detectors"
AUTO: Final = "auto"
_BEST: Final = "yunet"
_FALLBACK: Final = "opencv"
_LANDMARKS: Final = (0, 5)
_FAR: Final = 1e6
"""Pixels from which a number is taken for a fault of the detector."""

log = logging.getLogger(__name__)


class ModelError(Exception):
    """A detector or its model is missing, or is not what it should be; the text says what to do."""


class MissingRuntimeError(ModelError):
    """The library that a detector runs on is not installed."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One face.

    Attributes:
        box: left, top, width, height in pixels of the picture; may reach over its edge.
        score: 0 to 1; 1 where the detector gives none.
        landmarks: the person's right eye, left eye, nose tip, right and left corner of the mouth, each
            as x, y in pixels (the right eye is at the left of the picture); empty where the detector
            gives none.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorOptions:
    """What a detector is asked for; it passes over what it has no use for.

    Attributes:
        threshold: faces with a lower score are left out, 0 to 1.
        size: long side of the picture that it is shown, in pixels.
        threads: of the network, for each call.
        providers: what onnxruntime runs on, first choice first; none: the CPU.
    """

    threshold: float = 0.7
    size: int = 640
    threads: int = 1
    providers: tuple[str, ...] = ()


class Detector(Protocol):
    """Finds faces; safe to call from several threads.

    Attributes:
        size: the long side of the pictures that it wants, in pixels; larger ones are made smaller
            before, and smaller ones larger, up to twice. 0: as they come.
    """

    size: int

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a picture of height x width x 3 (BGR), the surest first."""


def configured(detect: Detect) -> Detector:
    """Return the detector that the settings name; errors as of `make_detector`."""
    return make_detector(
        detect.model,
        threshold=detect.threshold,
        size=detect.size,
        threads=detect.threads,
        providers=detect.providers,
    )


def make_detector(
    name: str, *, threshold: float = 0.7, size: int = 640, threads: int = 1, providers: Sequence[str] = ()
) -> Detector:
    """Return the detector of a name.

    Args:
        name: `yunet` (onnxruntime), `opencv` (the same model in OpenCV, slower), `haar` (the cascade of
            old, for comparison), the name of an installed plugin, or `auto`: `yunet` where onnxruntime is
            installed, else `opencv`.
        threshold: see `DetectorOptions`, as for the others.
        size: of the picture that it is shown.
        threads: of the network.
        providers: of onnxruntime.

    Raises:
        ConfigError: no such name.
        ModelError: a model or a library is missing or differs, a plugin cannot be loaded.
    """
    options = DetectorOptions(threshold=threshold, size=size, threads=threads, providers=tuple(providers))
    if name != AUTO:
        return _made(_entry(name), options)
    try:
        return _made(_entry(_BEST), options)
    except MissingRuntimeError as error:
        log.warning("detector: %s; the same model in OpenCV takes its place, and is slower", error)
        return _made(_entry(_FALLBACK), options)


def _entry(name: str) -> EntryPoint:
    found = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if len(found) > 1:
        raise ModelError(f"detector {name}: two packages offer it ({', '.join(found)}): uninstall one")
    for point in found.values():
        return point
    known = sorted({AUTO, *entry_points(group=GROUP).names})
    if _BEST not in known:
        raise ModelError("facerelay's own detectors are not registered: install it again with pip")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"detect.model: no detector is called {name!r}: installed are {', '.join(known)}{hint}")


def _made(point: EntryPoint, options: DetectorOptions) -> Detector:
    try:
        detector: Detector = point.load()(options)
        usable = detector.size >= 0 and callable(detector.detect)
    except ModelError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise ModelError(f"detector {point.name} ({point.value}) cannot be made: {said}") from error
    if not usable:
        raise ModelError(f"detector {point.name} ({point.value}) lacks a size, or detect(image)")
    return detector


def sound(found: object, size: tuple[int, int]) -> Detection | None:
    """Return what a detector gave, as plain numbers; None where it is no face in a picture.

    Args:
        found: one of its answers: of a plugin, so anything.
        size: width and height of the picture that it was shown.
    """
    if not isinstance(found, Detection):
        return None
    try:
        x, y, w, h = (float(value) for value in found.box)
        score = float(found.score)
        landmarks = tuple((float(px), float(py)) for px, py in found.landmarks)
    except (TypeError, ValueError, OverflowError):
        return None
    if len(landmarks) not in _LANDMARKS or not 0 <= score < _FAR:
        return None
    # Nothing compares with what is not a number.
    if not all(-_FAR < value < _FAR for value in (x, y, w, h, *(at for point in landmarks for at in point))):
        return None
    if min(w, h) <= 0 or not (-w < x < size[0] and -h < y < size[1]):
        return None
    return Detection((x, y, w, h), min(1.0, score), landmarks)
