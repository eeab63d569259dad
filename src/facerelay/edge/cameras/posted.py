"""Pictures that come by MQTT: sorted into the mailboxes of their cameras, whose threads read them.

One side runs on the event loop (`PostOffice`, `Mailbox.post`), the other in a camera's thread
(`Mailbox.frames`). Each message is one JPEG, PNG or WebP.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

import cv2
import numpy as np

from facerelay import picture
from facerelay.config import Camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.opening import CameraError
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.face import SLUG, Limits
from facerelay.picture import PictureError
from facerelay.seldom import Seldom
from facerelay.topics import FaceTopic, overlap, shown

__all__ = ["GAP_S", "Mailbox", "PostOffice", "is_topic", "plain_name", "topic_of"]

GAP_S: Final = 5.0
"""A face that is found again in its place within so long is of the same visit: such cameras may be slow."""

MOST_CAMERAS: Final = 32
SILENT_S: Final = 1.0
"""After so long without a picture comes a blank frame."""

RELEASE_S: Final = 3600.0
"""A camera of a `+` that had no picture for so long may lose its place to another."""

_PREFIX: Final = "mqtt:"
_OWN: Final = ("faces/#", "receipts/#", "ledger/#", "link/#", "stores/#")
_HELD: Final = 4
_REMEMBERED: Final = 16
_LONGEST_TOPIC: Final = 200
_LOOK_S: Final = 0.2
_SLUG: Final = re.compile(SLUG)
_BASE64: Final = (b"/9j/", b"iVBORw0KGgo", b"UklGR", b"data:image/")

_log = logging.getLogger(__name__)


def is_topic(source: str) -> bool:
    """Tell whether a source is pictures that come by MQTT."""
    return source.startswith(_PREFIX)


def topic_of(source: str) -> str:
    """Return the topic or filter in a source such as `mqtt:frigate/+/person/snapshot`.

    Raises:
        CameraError: it is none, takes in more than one level at once, or what facerelay itself publishes.
    """
    topic = source.removeprefix(_PREFIX)
    levels = topic.split("/")
    if not topic or len(topic) > _LONGEST_TOPIC or not topic.isprintable():
        raise CameraError(source, "name a topic, such as mqtt:frigate/+/person/snapshot")
    if "#" in topic:
        raise CameraError(source, "`#` takes in too much: put a `+` for each level that varies")
    if any("+" in level and level != "+" for level in levels):
        raise CameraError(source, "a `+` stands for a whole level, between two `/`")
    if topic.startswith("$"):
        raise CameraError(source, "topics that begin with `$` are the broker's own")
    if any(overlap(topic, own) for own in _OWN):
        own = ", ".join(each.removesuffix("#") for each in _OWN)
        raise CameraError(source, f"it takes in what facerelay itself publishes ({own}): name another topic")
    return topic


def plain_name(topic: str) -> str:
    """Return what a camera of a topic may be called: its first level."""
    return topic.partition("/")[0].lower()


class _Letter(NamedTuple):
    """A picture as it came: its number, when (monotonic seconds, and UTC), and its bytes."""

    number: int
    at: float
    time: datetime
    data: bytes


class Mailbox:
    """A camera's pictures between the session that brings them and the thread that looks at them.

    A few are held, since each may be the only one of somebody; where more come than can be looked at the
    oldest goes, and its number is left out. Where one picture is sent again it counts once.

    Args:
        name: the camera's.
        limits: bytes and pixels of a picture.

    Attributes:
        heard: when the last picture was put in (monotonic seconds); at first, when this was made.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self.name, self._limits, self._seldom = name, limits, Seldom(_log)
        self._changed = threading.Condition()
        self._letters: deque[_Letter] = deque(maxlen=_HELD)
        self._seen: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._refused: Counter[str] = Counter()
        self._posted = 0
        self._up = self._closed = False
        self._begin = self.heard = time.monotonic()

    def post(self, data: bytes) -> None:
        """Put in a picture whose header was checked."""
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest in self._seen:
            self.refuse("repeated", "it is the same picture as one before")
            return
        self._seen.append(digest)
        with self._changed:
            self._letters.append(_Letter(self._posted, time.monotonic(), datetime.now(UTC), data))
            self._posted += 1
            self.heard = self._letters[-1].at
            self._changed.notify()

    def refuse(self, reason: str, why: str) -> None:
        """Count a picture that is not taken; `reason` is a word of ours."""
        with self._changed:
            self._refused[reason] += 1
        level = logging.INFO if reason in {"repeated", "retained"} else logging.WARNING
        self._seldom.say(level, reason, "camera %s: a picture is passed over: %s", self.name, why)

    def set_connected(self, up: bool) -> None:  # noqa: FBT001 - a state, as the session says it
        """Say whether pictures can come at all."""
        self._up = up

    def close(self) -> None:
        """End `frames`."""
        self._closed = True

    def refused(self) -> dict[str, int]:
        """Return how many pictures were not taken, by reason, since the last call."""
        with self._changed:
            found, self._refused = dict(self._refused), Counter()
        return found

    def frames(self, stop: threading.Event) -> Generator[Frame, None, None]:
        """Yield each picture as a still frame, and a blank one now and then while none comes, until the end.

        What cannot be decoded is as if it had not come: it takes no number and fills no silence.
        Blank frames are dark while there is no connection to the broker.
        """
        pts, index, damaged, silent_at = 0.0, 0, 0, time.monotonic() + SILENT_S
        while not (stop.is_set() or self._closed):
            letter = self._next()
            now = time.monotonic()
            image = None if letter is None else self._decode(letter.data)
            if letter is not None and image is None:
                letter, damaged = None, damaged + 1
            if letter is None and now < silent_at:
                continue
            silent_at = now + SILENT_S
            index = index if letter is None else letter.number - damaged
            pts = max(pts, (now if letter is None else letter.at) - self._begin)
            yield Frame(
                raster=None if image is None else Pixels(image), index=index, pts=pts,
                time=datetime.now(UTC) if letter is None else letter.time,
                still=image is not None, dark=image is None and not self._up,
            )  # fmt: skip

    def _next(self) -> _Letter | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._letters), _LOOK_S)
            return self._letters.popleft() if self._letters else None

    def _decode(self, data: bytes) -> Image | None:
        """Return a picture upright, BGR; None where it cannot be decoded."""
        try:
            image = cast("Image | None", cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        except cv2.error:
            image = None
        if image is None or image.shape[0] * image.shape[1] > self._limits.pixels:
            self.refuse("damaged", "it cannot be decoded")
            return None
        return image


class PostOffice:
    """Sorts what comes into mailboxes, one for each camera; a `+` makes a camera of each match.

    Args:
        cameras: all that are configured; those whose source is no topic only keep their names.
        limits: of a picture.
        own: where this machine's faces are published, which no camera may take in.
        appear: is told of each camera and its mailbox: at `open`, or when its first picture came.

    Raises:
        CameraError: a topic that cannot be taken; see `topic_of`.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        *,
        limits: Limits,
        own: FaceTopic,
        appear: Callable[[Camera, Mailbox], None],
    ) -> None:
        self._limits, self._appear, self._seldom = limits, appear, Seldom(_log)
        self._cameras = [(each, topic_of(each.source)) for each in cameras if is_topic(each.source)]
        self._boxes: dict[tuple[str, str], Mailbox] = {}
        self._names = {each.name for each in cameras}
        self._up = False
        for camera, topic in self._cameras:
            if overlap(topic, own.filter):
                raise CameraError(camera.source, f"it takes in this machine's own faces ({own.filter})")

    @property
    def filters(self) -> list[tuple[str, int]]:
        """What to subscribe to, and its quality of service."""
        return [(topic, 1) for topic in sorted({topic for _, topic in self._cameras})]

    def open(self) -> None:
        """Begin with the cameras whose topic has no `+`."""
        for camera, topic in self._cameras:
            if "+" not in topic:
                self._add(camera, topic)

    def set_connected(self, up: bool) -> None:  # noqa: FBT001 - the shape of a session's callback
        """Take word from the session whether it is connected."""
        self._up = up
        for box in self._boxes.values():
            box.set_connected(up)

    def take(self, topic: str, data: bytes, *, retained: bool) -> None:
        """Take a message; what is no picture for any camera is logged seldom, counted, and left."""
        for camera, wanted in self._cameras:
            parts = _match(wanted, topic)
            if parts is not None:
                self._sort(camera, topic, parts, data, retained=retained)

    def _sort(self, camera: Camera, topic: str, parts: list[str], data: bytes, *, retained: bool) -> None:
        box = self._boxes.get((camera.name, topic))
        try:
            _check(data, self._limits, retained=retained)
        except PictureError as error:
            reason = error.reason
            if box is not None:
                box.refuse(reason, str(error))
            else:
                level = logging.INFO if reason == "retained" else logging.WARNING
                self._seldom.say(level, reason, "%s: a picture is passed over: %s", shown(topic), error)
            return
        if box is None:
            box = self._discover(camera, topic, parts)
        if box is not None:
            box.post(data)

    def _discover(self, camera: Camera, topic: str, parts: list[str]) -> Mailbox | None:
        """Make a camera of a topic that was not seen before, if it may be one."""
        name = "-".join([camera.name, *parts])
        form = "%s: no camera is made of it: %s"
        if not all(_SLUG.fullmatch(each) for each in (name, *parts)):
            why = "what stands for + is not of lower case letters, digits, - and _ alone, or too long"
            self._seldom.say(logging.WARNING, "name", form, shown(topic), why)
            return None
        if name in self._names:
            self._seldom.say(logging.WARNING, "twice", form, shown(topic), f"there is another camera {name}")
            return None
        if len(self._boxes) >= MOST_CAMERAS and not self._release():
            self._seldom.say(logging.WARNING, "many", form, shown(topic), f"there are {MOST_CAMERAS} already")
            return None
        self._names.add(name)
        named = camera.model_copy(update={"name": name, "source": f"{_PREFIX}{topic}"})
        return self._add(named, topic, found_by=camera.name)

    def _release(self) -> bool:
        """Let go of the camera of a `+` that was silent longest; False where none was for long."""
        made = {key: box for key, box in self._boxes.items() if box.name != key[0]}
        oldest = min(made, key=lambda key: made[key].heard, default=None)
        if oldest is None or time.monotonic() - made[oldest].heard < RELEASE_S:
            return False
        box = self._boxes.pop(oldest)
        self._names.discard(box.name)
        box.close()
        form = "camera %s loses its place to another: it had no picture for %.0f s"
        self._seldom.say(logging.WARNING, "released", form, box.name, time.monotonic() - box.heard)
        return True

    def _add(self, camera: Camera, topic: str, *, found_by: str | None = None) -> Mailbox:
        box = Mailbox(camera.name, self._limits)
        box.set_connected(self._up)
        self._boxes[found_by or camera.name, topic] = box
        self._appear(camera, box)
        return box


def _match(wanted: str, topic: str) -> list[str] | None:
    """Return what of a topic stands for the `+` of a filter; None where it does not match."""
    pairs = list(zip(wanted.split("/"), topic.split("/"), strict=False))
    if wanted.count("/") != topic.count("/") or any(want not in ("+", level) for want, level in pairs):
        return None
    return [level for want, level in pairs if want == "+"]


def _check(data: bytes, limits: Limits, *, retained: bool) -> None:
    """Look at a picture's header.

    Raises:
        PictureError: it is not one that is taken.
    """
    if retained:
        raise PictureError("retained", "it is an old one, which the broker had kept")
    if data.startswith(_BASE64):
        raise PictureError("base64", "its text in base64 came: send the bytes of the picture themselves")
    if not picture.read(data, max_bytes=limits.bytes, max_pixels=limits.pixels).complete:
        raise PictureError("truncated", "it ends before its end")
