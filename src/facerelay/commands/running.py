"""Run a role: its signals, its log, and its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from facerelay.commands import logs
from facerelay.config import Broker, Config
from facerelay.link.session import Session
from facerelay.messages import MAX_MESSAGE_BYTES

T = TypeVar("T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_PARENT_EVERY_S: Final = 1.0


def set_up_log(*, verbose: bool, form: str = "plain") -> None:
    """Log to standard error: plain lines, or JSON."""
    logs.set_up(verbose=verbose, form=form)


def connector(config: Config, broker: Broker | None = None) -> Callable[..., Session]:
    """Return what makes sessions with a broker: this side's, if none is named."""
    most = max(config.limits.message_bytes, MAX_MESSAGE_BYTES)
    return partial(Session, broker or config.broker, max_message=most)


def run(role: Callable[[asyncio.Event], Awaitable[T]]) -> T:
    """Run a role until it ends by itself; the first SIGINT or SIGTERM sets the event that it is given.

    Raises:
        Exception: the role's own error, taken out of the group that its tasks may have put it in.
    """
    try:
        return asyncio.run(_signalled(role))
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def _signalled(role: Callable[[asyncio.Event], Awaitable[T]]) -> T:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    return await role(stop)


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run what never ends by itself, until `stop` is set; its failure is raised."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


def follow(parent: int) -> None:
    """End this process when the one that started it is gone."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_EVERY_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="parent", daemon=True).start()
