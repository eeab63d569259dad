"""Where a camera's time goes: the shipped pipeline with clocks in its joints."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from facerelay.edge import watcher
from facerelay.edge.cameras.camera import open_camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.eyes.best import BestShot
from facerelay.edge.eyes.detect import Detector
from facerelay.edge.eyes.motion import Motion
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.outbox import Outbox

NAMES: Final = ("decode", "motion", "small", "detect", "tracks", "choice", "encode", "outbox", "rest")


class Stages:
    """CPU seconds of this thread by stage, each without the stages inside it.

    Attributes:
        spent: seconds by stage; what is in none is `rest`.
        calls: how often each was entered.
    """

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._now, self._since = "rest", time.thread_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the block's time to a stage."""
        before = self._to(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self._to(before)

    def _to(self, name: str) -> str:
        at, before = time.thread_time(), self._now
        self.spent[before] += at - self._since
        self._now, self._since = name, at
        return before

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that charges its time to a stage."""

        def call(*args: Any, **more: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
            with self.stage(name):
                return function(*args, **more)

        return call

    def reading(self, opener: Callable[..., Generator[Frame, None, None]]) -> Callable[..., Iterator[Frame]]:
        """Return an opener of cameras whose time to the next frame is charged to `decode`."""

        def opened(*args: Any, **more: Any) -> Iterator[Frame]:  # noqa: ANN401 - as above
            frames = opener(*args, **more)
            while True:
                with self.stage("decode"):
                    frame = next(frames, None)
                if frame is None:
                    return
                yield frame

        return opened


@contextmanager
def clocked(detector: Detector) -> Iterator[Stages]:
    """Put clocks into the pipeline for as long as the block runs."""
    stages = Stages()
    joints: list[tuple[Any, str, str]] = [
        (Motion, "see", "motion"),
        (Search, "find", "small"),
        (type(detector), "detect", "detect"),
        (Tracker, "update", "tracks"),
        (Tracker, "rest", "tracks"),
        (BestShot, "update", "choice"),
        (watcher, "encode_face", "encode"),
        (Outbox, "put", "outbox"),
    ]
    with ExitStack() as stack:
        for owner, attribute, name in joints:
            stack.enter_context(replaced(owner, attribute, stages.timed(name, getattr(owner, attribute))))
        stack.enter_context(replaced(watcher, "open_camera", stages.reading(open_camera)))
        yield stages


@contextmanager
def replaced(owner: Any, attribute: str, value: object) -> Iterator[None]:  # noqa: ANN401 - a class or a module
    """Let an attribute have another value for as long as the block runs."""
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        setattr(owner, attribute, before)
