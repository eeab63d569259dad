"""The preview's thread: it follows the cameras and serves the page."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Final, Self

from facerelay import http_server
from facerelay.config import Camera, Config
from facerelay.edge.eyes.watch import Seen
from facerelay.edge.preview import PreviewError
from facerelay.edge.preview.app import Show, make_app
from facerelay.edge.preview.panel import Panel
from facerelay.edge.preview.reel import Reel
from facerelay.sections import Preview as Settings

log = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_FOLLOW_S: Final = 0.1
_FAREWELL_S: Final = 0.4
"""Until then the streams have told their readers that this is the end."""

_JOIN_S: Final = 5.0


class Preview:
    """Serves the page in a thread of its own, from entering to leaving the context.

    The cameras' threads leave references with it and go on; whoever looks, or hangs, is this thread's
    business alone. Pictures are drawn only for those who ask for them.

    Args:
        settings: the port; 0 takes a free one.

    Attributes:
        url: of the page.
        panels: what is shown of each camera, by its name; another mapping whenever a camera appears.

    Raises:
        PreviewError: the port cannot be had.
    """

    def __init__(self, settings: Settings) -> None:
        self._faces, self._visits = Reel(), Reel()
        self.panels: Mapping[str, Panel] = {}
        self._end = threading.Event()
        show = Show(
            run=secrets.token_hex(8),
            panels=lambda: self.panels,
            faces=self._faces,
            visits=self._visits,
            ended=self._end.is_set,
        )
        self._server = http_server.make_server(make_app(show))
        self._socket = _listen(settings.port)
        self.url = f"http://{_HOST}:{self._socket.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._run, name="preview", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(_JOIN_S)
        self._socket.close()

    def observe(self, camera: Camera, config: Config) -> Callable[[Seen], None]:
        """Show a camera, and return what is to be told of each of its frames, in the camera's thread."""
        panel = Panel(camera, gap_s=config.visits.gap_s, faces=self._faces, visits=self._visits)
        self.panels = {**self.panels, camera.name: panel}
        return panel.put

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("the preview ended by a fault of ours; the cameras go on")

    async def _serve(self) -> None:
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        try:
            while not self._end.is_set() and not serving.done():
                for panel in self.panels.values():
                    panel.follow()
                await asyncio.sleep(_FOLLOW_S)
        finally:
            await asyncio.sleep(_FAREWELL_S)
            self._server.should_exit = True
            self._server.cut_off()
            await serving


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port))
    except OSError as error:
        raise PreviewError(
            f"the preview's page cannot have port {port} ({error.strerror}): set preview.port to another one,"
            " or to 0 for a free one"
        ) from error
