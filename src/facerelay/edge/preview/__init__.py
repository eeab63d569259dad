"""A way to look at what the cameras see, and why a face was sent or was not: a page on loopback."""

from __future__ import annotations

import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from facerelay.config import Camera, Config
from facerelay.edge.eyes.watch import Seen
from facerelay.sections import Preview as Settings

log = logging.getLogger(__name__)

Observe: TypeAlias = Callable[[Camera, Config], Callable[[Seen], None]]
"""Gives, for a camera and its settings, what is to be told of each of its frames, in the camera's thread."""


class PreviewError(Exception):
    """The page cannot be served."""


@contextmanager
def previewing(settings: Settings, *, wanted: bool) -> Iterator[Observe | None]:
    """Serve the page for as long as the block runs, and open it in a browser where there is a display.

    Args:
        settings: where.
        wanted: False serves none, and gives None.

    Raises:
        PreviewError: the port cannot be had.
    """
    if not wanted:
        yield None
        return
    from facerelay.edge.preview.serve import Preview  # noqa: PLC0415 - needs what others need not install

    with Preview(settings) as preview:
        log.info("the preview is at %s", preview.url)
        if has_display():
            threading.Thread(target=webbrowser.open, args=(preview.url,), name="browser", daemon=True).start()
        yield preview.observe


def has_display() -> bool:
    """Tell whether a browser window could be opened here."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
